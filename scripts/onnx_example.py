"""Where people look, by an exported file and without torch: python scripts/onnx_example.py gaze.onnx photo.jpg BOX ...

BOX is x0,y0,x1,y1 of a head in pixels, one a person. `gazebench export` makes the file; this needs onnxruntime, numpy
and pillow.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, picture: str, *boxes: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    _, _, height, width = session.get_inputs()[0].shape
    image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)[None]
    heads = np.array([[float(side) for side in box.split(",")] for box in boxes], np.float32) / (image.size * 2)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"image": pixels, "head": heads.astype(np.float32)}), strict=True))
    for number, (x, y) in enumerate(found["point"] * image.size, start=1):
        sure = f", in the picture with probability {found['inout'][number - 1]:.2f}" if "inout" in found else ""
        print(f"person {number} looks at x {x:.0f}, y {y:.0f}{sure}")


if __name__ == "__main__":
    main(*sys.argv[1:])
