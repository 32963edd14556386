"""Prediction for the people of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gazebench.core.boxes import FloatArray, clean_boxes, normalise
from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.core.types import Batch
from gazebench.core.weights import local_file, read_weights
from gazebench.data.images import image_size, load_image
from gazebench.engine.config import method_with, read_config
from gazebench.engine.method import Method
from gazebench.engine.registry import usable
from gazebench.metrics.decode import DECODERS


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
    """A head box (4,), normalised, from the text ``x0,y0,x1,y1`` in pixels, or normalised if no number exceeds 1.

    Raises:
        DataError: the text is not four numbers, or the box has no area inside the image.
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.array([])
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise DataError(f"--box {text}: give four numbers x0,y0,x1,y1, in pixels or all in [0, 1]")
    box = clean_boxes(normalise(numbers, "normalised" if (numbers <= 1).all() else "pixel", (width, height)))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(f"--box {text}: the box has no area inside the image of {width} x {height} pixels")
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


def predict_image(method: Method, path: Path, boxes: FloatArray) -> list[Gaze]:
    """Where the people of one image look.

    Args:
        method: the method.
        path: the image.
        boxes: (P, 4) head boxes, normalised xyxy; a row of NaN is no box.

    Raises:
        DataError: the method predicts neither a point nor a heatmap.
    """
    image = torch.from_numpy(np.ascontiguousarray(load_image(path, method.preprocess().size)))
    batch = Batch(
        images=image.permute(2, 0, 1)[None],
        image_index=torch.zeros(len(boxes), dtype=torch.int64),
        head=torch.from_numpy(boxes).float(),
        person_ids=[f"{path.name}#{i}" for i in range(len(boxes))],
        image_ids=[path.name],
        sizes=torch.tensor([image_size(path)]),
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
