"""Images with the head asked about, the annotations, and the prediction over its heatmap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gazebench.core.boxes import FloatArray
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.groups import points_in_frame
from gazebench.engine.model import Gaze, PictureGaze

HEAD, TRUTH, ANSWER = "#16a34a", "#facc15", "#e11d48"
"""Colours of the head box, the annotations and the predicted point."""


@dataclass(frozen=True)
class Scene:
    """A person's image (H, W, 3), head (4,) and annotations (G, 2), normalised; none for those out of frame."""

    image: npt.NDArray[np.uint8]
    head: FloatArray
    points: FloatArray


def scene(dataset: GazeDataset, records: Records, person: int) -> Scene:
    image = dataset.image(records, int(records.person_image[person]))
    return Scene(image, records.head[person], points_in_frame(records, person))


def draw(
    axis: Axes,
    image: npt.NDArray[np.uint8],
    head: FloatArray | None = None,
    truth: FloatArray | None = None,
    prediction: tuple[float, float] | None = None,
    heatmap: npt.NDArray[np.float32] | None = None,
) -> None:
    """One image with an overlay; the box (4,) and points are normalised."""
    height, width = image.shape[:2]
    scale = np.array([width, height])
    axis.imshow(image)
    if heatmap is not None and heatmap.max() > 0:
        shade = colormaps["inferno"](heatmap / heatmap.max())
        shade[..., 3] = np.clip(heatmap / heatmap.max(), 0, 1) * 0.6
        axis.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    start = None
    if head is not None and np.isfinite(head).all():
        low, high = head[:2] * scale, head[2:] * scale
        axis.add_patch(Rectangle(tuple(low), *(high - low), fill=False, edgecolor=HEAD, linewidth=1.8))
        start = (low + high) / 2
    if truth is not None and len(truth):
        x, y = (truth * scale).T
        axis.scatter(x, y, s=14, color=TRUTH, edgecolors="black", linewidths=0.4, zorder=3)
    if prediction is not None and np.isfinite(prediction).all():
        end = np.asarray(prediction) * scale
        if start is not None:
            axis.plot([start[0], end[0]], [start[1], end[1]], color=ANSWER, linewidth=1, alpha=0.8)
        axis.scatter([end[0]], [end[1]], s=50, marker="x", color=ANSWER, linewidths=2, zorder=4)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def save_gaze(path: Path, image: npt.NDArray[np.uint8], gaze: PictureGaze) -> None:
    """Writes ``panels`` of everybody in a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    panels(image, gaze, range(len(gaze.people))).savefig(path, dpi=110)


def panels(image: npt.NDArray[np.uint8], gaze: PictureGaze, people: Iterable[int]) -> Figure:
    """A picture with a panel for each person: the head, the heatmap, the point, and the answer in words.

    The panels are in rows of four.
    """
    height, width = image.shape[:2]
    sentences = gaze.sentences()
    shown: list[tuple[Gaze | None, str]] = [(gaze.people[i], sentences[i]) for i in people]
    shown = shown or [(None, "nobody found")]
    columns = min(4, len(shown))
    rows, side = -(-len(shown) // columns), 5.0 if len(shown) == 1 else 3.6
    figure = Figure(figsize=(side * columns * max(0.8, width / height), (side + 0.4) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, person in zip_longest(axes, shown):
        axis.set_axis_off()
        if person is None:
            continue
        one, text = person
        axis.set_title(textwrap.fill(text, 44), fontsize=9)
        if one is None:
            draw(axis, image)
        else:
            draw(axis, image, one.box, None, one.point if one.inside else None, one.heatmap)
    return figure
