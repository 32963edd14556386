"""Pictures with the head asked about, the annotations, and the answer over its heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gazebench.core.boxes import FloatArray, clean_boxes, normalise
from gazebench.core.types import IN_FRAME, Records
from gazebench.data.dataset import GazeDataset

HEAD, TRUTH, ANSWER = "#16a34a", "#facc15", "#e11d48"
"""Colours of the head box, the annotations and the predicted point in every picture."""


@dataclass(frozen=True)
class Scene:
    """A person's picture (H, W, 3), head (4,) and annotations (G, 2), normalised; none for those out of frame."""

    picture: npt.NDArray[np.uint8]
    head: FloatArray
    points: FloatArray
    inside: bool


def scene(dataset: GazeDataset, records: Records, person: int) -> Scene:
    """What there is to draw of a person."""
    image = int(records.person_image[person])
    size = dataset.size(records, image)
    inside = bool(records.inout[person] == IN_FRAME)
    points = normalise(records.points_of(person), records.point_unit, *size)
    head = clean_boxes(normalise(records.head[[person]], records.head_unit, *size))[0]
    return Scene(dataset.picture(records, image), head, points if inside else points[:0], inside)


def heatmap_of(row: Any) -> npt.NDArray[np.float32] | None:
    """The heatmap of a row (of a table) of stored predictions; None where it has none."""
    stored = row.get("heatmap")
    if not isinstance(stored, bytes):
        return None
    return np.frombuffer(stored, "<f4").reshape(int(row["heatmap_h"]), int(row["heatmap_w"]))


def gallery(dataset: GazeDataset, predictions: pd.DataFrame, count: int = 8) -> Figure:
    """People of the test split with their heads, annotations and predictions, spread over subsets and errors."""
    records = dataset.records("test")
    row_of = {str(person): row for row, person in enumerate(records.person_id)}
    columns = 4
    chosen = _spread(predictions, count)
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (_, row) in zip(axes, chosen.iterrows(), strict=False):
        shown = scene(dataset, records, row_of[row["person_id"]])
        draw(axis, shown.picture, shown.head, shown.points, (row["x"], row["y"]), heatmap_of(row))
        score = "" if pd.isna(row["inout"]) else f", p(in) {row['inout']:.2f}"
        axis.set_title(f"{row['subset'] or ('in frame' if shown.inside else 'out of frame')}{score}", fontsize=9)
    return figure


def draw(
    axis: Axes,
    picture: npt.NDArray[np.uint8],
    head: npt.NDArray[np.float64] | None,
    truth: npt.NDArray[np.float64] | None,
    answer: tuple[float, float] | None,
    heatmap: npt.NDArray[np.float32] | None,
) -> None:
    """One picture with an overlay; boxes (4,) and points normalised."""
    height, width = picture.shape[:2]
    axis.imshow(picture)
    if heatmap is not None and heatmap.max() > 0:
        shade = colormaps["inferno"](heatmap / heatmap.max())
        shade[..., 3] = np.clip(heatmap / heatmap.max(), 0, 1) * 0.6
        axis.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    scale = np.array([width, height])
    start = None
    if head is not None and np.isfinite(head).all():
        low, high = head[:2] * scale, head[2:] * scale
        axis.add_patch(Rectangle(tuple(low), *(high - low), fill=False, edgecolor=HEAD, linewidth=1.8))
        start = (low + high) / 2
    if truth is not None and len(truth):
        axis.scatter(
            (truth * scale)[:, 0],
            (truth * scale)[:, 1],
            s=14,
            color=TRUTH,
            edgecolors="black",
            linewidths=0.4,
            zorder=3,
        )
    if answer is not None and np.isfinite(answer).all():
        x, y = np.asarray(answer) * scale
        if start is not None:
            axis.plot([start[0], x], [start[1], y], color=ANSWER, linewidth=1, alpha=0.8)
        axis.scatter([x], [y], s=50, marker="x", color=ANSWER, linewidths=2, zorder=4)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _spread(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows taken evenly over (subset, in frame) groups, one an image where possible, always the same ones."""
    once = predictions.drop_duplicates("image_id")
    pool = once if len(once) >= count else predictions
    kinds = [group for _, group in pool.groupby([pool["subset"], pool["target_inout"]], sort=True)]
    picked: list[Any] = []
    position = 0
    while len(picked) < min(count, len(pool)):
        for group in kinds:
            if position < len(group) and len(picked) < count:
                picked.append(group.index[_scatter(position, len(group))])
        position += 1
    return pool.loc[list(dict.fromkeys(picked))]


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` of ``length`` places, evenly spread, always the same ones."""
    return [_scatter(position, length) for position in range(min(count, length))]


def _scatter(position: int, length: int) -> int:
    """A fixed low-discrepancy walk through 0..length-1 that never repeats while position < length."""
    step = next(s for s in range(max(1, round(length * 0.618)), 2 * length + 2) if np.gcd(s, length) == 1)
    return position * step % length


def save_overlay(path: Path, picture: npt.NDArray[np.uint8], panels: Sequence[dict[str, Any]]) -> None:
    """One panel a person: keys ``head``, ``truth``, ``answer``, ``heatmap``, ``title``."""
    height, width = picture.shape[:2]
    side = 5.0
    figure = Figure(figsize=(side * len(panels) * max(1, width / height), side + 0.3), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True):
        axis.set_axis_off()
        axis.set_title(panel.get("title", ""), fontsize=10)
        draw(axis, picture, panel.get("head"), panel.get("truth"), panel.get("answer"), panel.get("heatmap"))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
