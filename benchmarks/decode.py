"""Time and error of ways from a JPEG file to a 448 x 448 uint8 image, on one core, against the official order.

Official order: PIL, ToTensor, Normalize, Resize (float, bilinear, antialias). The error is the largest difference to it
in levels of 255, before the division by the standard deviation. ``draft`` is Pillow's reduced JPEG decoding. The whole
pipeline is a training batch of 8 pictures with one person each, augmented and collated, divided by 8. Times are those
of the processor, so that other work on the machine changes them little.
Run: python benchmarks/decode.py [FOLDER of further JPEG files to measure the error on]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tv

from gazebench.core.types import Records
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.images import load_image
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazefollow import GazeFollow

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Size = tuple[int, int]


def official(path: Path, size: Size) -> Tensor:
    tensor = tv.normalize(tv.to_tensor(Image.open(path).convert("RGB")), MEAN, STD)
    return tv.resize(tensor, list(size), antialias=True)


def reference(path: Path, size: Size) -> np.ndarray:
    tensor = official(path, size) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return tensor.permute(1, 2, 0).numpy() * 255


def decode_only(path: Path, size: Size) -> None:
    with Image.open(path) as image:
        image.load()


def pillow(path: Path, size: Size) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def pillow_gap(path: Path, size: Size) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0))


def pillow_draft(path: Path, size: Size) -> np.ndarray:
    image = Image.open(path)
    image.draft("RGB", size[::-1])
    return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def copied_to_torch(path: Path, size: Size) -> np.ndarray:
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


WAYS: dict[str, Callable[[Path, Size], np.ndarray]] = {
    "gazebench": load_image,
    "PIL, copied, torch uint8": copied_to_torch,
    "PIL resize": pillow,
    "PIL resize, reducing_gap 2": pillow_gap,
    "PIL draft, resize": pillow_draft,
}


def textured(width: int, height: int) -> Image.Image:
    """A photograph's frequencies: smooth areas, hard edges, some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (18, 32, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    for _ in range(60):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        image[y : y + height // 9, x : x + width // 14] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8))


def milliseconds(ways: dict[str, Callable[[], object]], rounds: int = 4, repeats: int = 12) -> dict[str, float]:
    """Medians; each way runs in blocks, as a loader runs it, and the blocks take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way()
            for _ in range(repeats):
                start = time.process_time()
                way()
                taken[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def pipeline(path: Path, width: int, height: int, size: Size, *, augment: bool) -> Callable[[], object]:
    """What a loader process does for a batch of 8."""
    records = Records(
        dataset="gazefollow", split="train", images=np.array([path.name] * 8), groups=np.array(["g"] * 8),
        person_id=np.arange(8).astype(str), person_image=np.arange(8), head=np.tile([0.4, 0.2, 0.5, 0.3], (8, 1)),
        points=np.full((8, 2), 0.6), point_start=np.arange(9), inout=np.ones(8, np.int8),
        sizes=np.tile([width, height], (8, 1)),
    )  # fmt: skip
    samples = ImageSamples(GazeFollow(path.parent), records, Preprocess(size), augment=augment)
    return lambda: collate([samples[0, image] for image in range(8)])


def error(way: Callable[[Path, Size], np.ndarray], path: Path, size: Size) -> float:
    return float(np.abs(way(path, size) - reference(path, size)).max())


def main() -> None:
    torch.set_num_threads(1)
    size = (448, 448)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        print("| size | way | ms | of bare decode | of official | largest error /255 |")
        print("| --- | --- | --- | --- | --- | --- |")
        for width, height in ((640, 480), (1280, 720), (1920, 1080)):
            textured(width, height).save(path, quality=90)
            ways = {"bare JPEG decode": decode_only, "official order": official, **WAYS}
            calls: dict[str, Callable[[], object]]
            calls = {name: lambda way=way: way(path, size) for name, way in ways.items()}
            for name, augment in (("whole pipeline", False), ("whole pipeline, augmented", True)):
                calls[name] = pipeline(path, width, height, size, augment=augment)
            taken = milliseconds(calls)
            taken |= {name: ms / 8 for name, ms in taken.items() if name.startswith("whole")}
            for name, ms in taken.items():
                off = f"{error(WAYS[name], path, size):.1f}" if name in WAYS else ""
                shares = f"{ms / taken['bare JPEG decode']:.2f} | {ms / taken['official order']:.2f}"
                print(f"| {width}x{height} | {name} | {ms:.2f} | {shares} | {off} |")

        print("\nReduced decoding keeps 2/255 only where it reduces nothing (draft against the official order):\n")
        print("| from | to | reduction | largest error /255 |\n| --- | --- | --- | --- |")
        for width, height, side in ((1280, 720, 448), (1920, 1080, 448), (1920, 1080, 224), (1920, 1080, 112),
                                    (4000, 3000, 448), (4000, 3000, 224)):  # fmt: skip
            textured(width, height).save(path, quality=90)
            with Image.open(path) as image:
                image.draft("RGB", (side, side))
                reduction = width / image.width
            print(f"| {width}x{height} | {side} | {reduction:.0f} | {error(pillow_draft, path, (side, side)):.1f} |")

    files = sorted(Path(sys.argv[1]).rglob("*.jpg")) if len(sys.argv) > 1 else []
    if files:
        print(f"\nLargest error /255 over {len(files)} files below {sys.argv[1]}, to {size}, then to (224, 224):\n")
        for name, way in WAYS.items():
            print(f"{name}: {', '.join(f'{max(error(way, f, s) for f in files):.2f}' for s in (size, (224, 224)))}")


if __name__ == "__main__":
    main()
