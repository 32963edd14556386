"""Prediction for the people of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gazebench.core.boxes import FloatArray, Unit, clean_boxes, normalise
from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.core.types import Batch
from gazebench.core.weights import local_file, read_weights
from gazebench.data.datamodule import fitted
from gazebench.engine.config import method_with, read_config
from gazebench.engine.method import Method
from gazebench.engine.registry import usable
from gazebench.metrics.decode import DECODERS

SMALLEST = 2
"""Pixels: the least width and height of a head box inside its image."""


@dataclass(frozen=True)
class Gaze:
    """Where one person looks.

    Attributes:
        head: (4,) normalised xyxy; NaN where no box was given.
        point: x, y, normalised.
        inout: larger means more surely in frame; None where the method does not predict it.
        heatmap: (h, w) in [0, 1]; None where the method does not predict it.
    """

    head: FloatArray
    point: tuple[float, float]
    inout: float | None
    heatmap: npt.NDArray[np.float32] | None


def parse_box(text: str, width: int, height: int) -> FloatArray:
    """A head box (4,), normalised and clipped, from the text ``x0,y0,x1,y1`` in pixels, or all in [0, 1].

    Raises:
        DataError: the text is not four numbers, or the box is less than ``SMALLEST`` pixels wide or high inside the
            image: it lies outside, or one of its normalised numbers is beyond [0, 1].
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.array([])
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise DataError(f"--box {text}: give four numbers x0,y0,x1,y1, in pixels or all in [0, 1]")
    unit: Unit = "normalised" if ((numbers >= 0) & (numbers <= 1)).all() else "pixel"
    box = clean_boxes(normalise(numbers, unit, (width, height)))
    if ((box[2:] - box[:2]) * (width, height) < SMALLEST).any():
        raise DataError(
            f"--box {text}: the box has no area inside the image of {width} x {height} pixels, or less than "
            f"{SMALLEST} pixels a side; give x0,y0,x1,y1 in pixels or all in [0, 1]"
        )
    return box


def method_of_weights(weights: str | None, settings: Sequence[str] = ()) -> Method:
    """The method of a weights file, with these weights; its name is in ``config.yaml`` beside the file, or published.

    Args:
        weights: a file, an address, or a published name.
        settings: settings of the method, ``--model.name=value``.

    Raises:
        DataError: there are no weights, or their method is not known.
    """
    published = {
        name: (entry.name, facts)
        for entry, found in usable("methods")
        if not isinstance(found, PluginError)
        for name, facts in found.published.items()
    }
    if weights is None:
        raise DataError(
            "gazebench predict needs --weights: runs/.../weights.pt of a run (`make bench` makes one in minutes), or "
            f"published weights by name, file or address: {', '.join(published)}"
        )
    known = published.get(Path(weights).stem)
    if known and weights in published and not Path(weights).is_file():
        weights = known[1].url
    path = local_file(weights)
    beside = path.parent / "config.yaml"
    if beside.is_file():
        config = read_config(beside)
        torch.manual_seed(config["seed"])  # frozen random parts, which are not in the file, are those of the run
        method = method_with(config["method"], settings, config["model"])
    elif known:
        method = method_with(known[0], settings, known[1].model)
    else:
        raise DataError(
            f"{path}: the method of these weights is not known: there is no config.yaml beside them, and their name is "
            f"none of {', '.join(published)}"
        )
    method.load_export(read_weights(path))
    return method.eval()


def predict_image(method: Method, picture: npt.NDArray[np.uint8], boxes: FloatArray, name: str) -> list[Gaze]:
    """Where the people of one image look.

    Args:
        method: the method.
        picture: (H, W, 3) uint8 RGB, upright.
        boxes: (P, 4) head boxes, normalised xyxy; a row of NaN is no box.
        name: of the picture, which a random method draws by.

    Raises:
        DataError: the method predicts neither a point nor a heatmap, or needs a depth map.
    """
    height, width = picture.shape[:2]
    wanted = method.preprocess()
    if wanted.depth:
        raise DataError(f"{method.card.title} reads a depth map, which a single picture has not: --model.depth=false")
    image, heads = fitted(picture, boxes, wanted)
    batch = Batch(
        images=image[None],
        image_index=torch.zeros(len(boxes), dtype=torch.int64),
        head=torch.from_numpy(boxes).float(),
        person_ids=[f"{name}#{i}" for i in range(len(boxes))],
        image_ids=[name],
        sizes=torch.tensor([[width, height]]),
        heads=heads,
    )
    prediction = method.predict_batch(batch).to("cpu")
    heatmap = prediction.heatmap
    point = prediction.point if prediction.point is not None or heatmap is None else DECODERS["argmax"](heatmap)
    if point is None:
        raise DataError(f"{method.card.title} predicts neither a point nor a heatmap")
    return [
        Gaze(
            head=head,
            point=(float(point[i, 0]), float(point[i, 1])),
            inout=None if prediction.inout is None else float(prediction.inout[i]),
            heatmap=None if heatmap is None else heatmap[i].float().numpy(),
        )
        for i, head in enumerate(boxes)
    ]
