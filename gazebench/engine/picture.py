"""``gazebench predict``: one picture, some heads, where they look."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from gazebench.core.types import Batch, DataError, FloatArray, clean_boxes, normalise
from gazebench.core.weights import local_file, read_weights
from gazebench.data.images import image_size, load_image
from gazebench.engine.config import resolve
from gazebench.engine.method import Method
from gazebench.engine.registry import RegistryError, usable
from gazebench.metrics.decode import DECODERS
from gazebench.report.pictures import save_overlay


def main(arguments: Sequence[str]) -> int:
    """Parses, predicts, writes the overlay and prints the JSON."""
    parser = argparse.ArgumentParser(prog="gazebench predict", allow_abbrev=False)
    parser.add_argument("image", type=Path)
    parser.add_argument("--box", action="append", default=[], metavar="X0,Y0,X1,Y1",
                        help="a head, in pixels, or normalised if none exceeds 1; repeat for more people")  # fmt: skip
    parser.add_argument("--weights", help="weights.pt of a run, or published weights: a file, an address, or their "
                        "name such as gazelle_dinov2_vitb14_inout")  # fmt: skip
    parser.add_argument("--out", type=Path, help="of the overlay; by default beside the picture")
    known, options = parser.parse_known_args(arguments)
    picture = load_image(known.image)
    height, width = picture.shape[:2]
    boxes = np.stack([parse_box(text, width, height) for text in known.box]) if known.box else np.full((1, 4), np.nan)
    method = loaded_method(known.weights, options)
    answers, heatmaps = look(method, known.image, boxes)
    out = known.out or known.image.with_name(f"{known.image.stem}_gaze.png")
    panels = [
        {
            "head": box,
            "answer": tuple(answer["point"]),
            "heatmap": None if heatmaps is None else heatmaps[i],
            "title": "" if answer["inout"] is None else f"in frame: {answer['inout']:.2f}",
        }
        for i, (box, answer) in enumerate(zip(boxes, answers, strict=True))
    ]
    save_overlay(out, picture, panels)
    result = {"image": known.image.name, "size": [width, height], "people": answers, "overlay": str(out)}
    print(json.dumps(result, indent=1))
    return 0


def parse_box(text: str, width: int, height: int) -> FloatArray:
    """``x0,y0,x1,y1`` in pixels, or normalised when no number exceeds 1, to (4,) normalised.

    Raises:
        DataError: not four numbers, or a box without area inside the picture.
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.array([])
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise DataError(f"--box {text}: give four numbers x0,y0,x1,y1, in pixels or all in [0, 1]")
    unit = "normalised" if (numbers <= 1).all() else "pixel"
    box = clean_boxes(normalise(numbers[None], unit, width, height))[0]  # type: ignore[arg-type]
    if box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(f"--box {text}: has no area inside the picture of {width} x {height} pixels")
    return box


def loaded_method(weights: str | None, options: Sequence[str]) -> Method:
    """The method a file of weights belongs to: told by the ``config.yaml`` beside it, a published name, or options."""
    published = {
        name: (entry.name, facts)
        for entry, found in usable("methods")
        if not isinstance(found, RegistryError)
        for name, facts in found.published.items()  # type: ignore[attr-defined]
    }
    if weights is None:
        raise DataError(
            "gazebench predict needs --weights: runs/.../weights.pt of a run (`make bench` makes one in minutes), or "
            f"published weights by name, file or address: {', '.join(published)}"
        )
    name = Path(weights).stem
    known = published.get(name)
    if known and weights == name and not Path(weights).is_file():
        weights = known[1].url
    path = local_file(weights)
    beside = path.parent / "config.yaml"
    if beside.is_file():
        base: dict[str, Any] = yaml.safe_load(beside.read_text(encoding="utf-8")) | {"init": None}
    elif known:
        base = {"method": known[0], "model": dict(known[1].model)}
    else:
        base = {}
    config = resolve(list(options), prog="gazebench predict", base={"data": "gazeworld"} | base)
    method = config.method(**config.values["model"])
    method.load_export(read_weights(path))
    return method.eval()


def look(method: Method, image: Path, boxes: FloatArray) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Asks a method about the people of one picture; boxes (P, 4) normalised, a row of NaN is no box."""
    picture = torch.from_numpy(np.ascontiguousarray(load_image(image, method.preprocess().size)))
    batch = Batch(
        images=picture.permute(2, 0, 1)[None],
        image_index=torch.zeros(len(boxes), dtype=torch.int64),
        head=torch.from_numpy(boxes).float(),
        person_ids=[f"{image.name}#{i}" for i in range(len(boxes))],
        image_ids=[image.name],
        groups=[image.name],
        sizes=torch.tensor([image_size(image)]),
    )
    prediction = method.predict_batch(batch)
    heatmap = prediction.heatmap
    point = prediction.point if prediction.point is not None or heatmap is None else DECODERS["argmax"](heatmap)
    if point is None:
        raise DataError(f"{method.card.title} predicts neither a point nor a heatmap")
    answers = [
        {
            "box": None if np.isnan(box).any() else [round(float(v), 6) for v in box],
            "point": [round(float(v), 6) for v in point[i]],
            "inout": None if prediction.inout is None else round(float(prediction.inout[i]), 6),
        }
        for i, box in enumerate(boxes)
    ]
    return answers, None if heatmap is None else heatmap.float().numpy()
