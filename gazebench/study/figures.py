"""The figures of a study: bars by subset or beyond thresholds, a scatter of two metrics, images of single people."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from gazebench.core.errors import DataError
from gazebench.data.dataset import GazeDataset
from gazebench.data.transforms import cone_mask
from gazebench.engine.config import dataset_with
from gazebench.engine.run import Places
from gazebench.metrics.intervals import Interval
from gazebench.metrics.protocol import ALL
from gazebench.report.figures import style
from gazebench.report.pictures import Scene, draw, scene
from gazebench.report.run_data import Heatmap, heatmaps
from gazebench.report.table import ARROWS
from gazebench.study.plan import Cone, OverlayFigure, PlannedFigure, ScatterFigure, SubsetFigure, ThresholdFigure
from gazebench.study.summary import Pick, Summary

# Paul Tol's muted scheme, told apart by colour-blind readers too; a row has the same colour in every figure.
PALETTE = ("#7f7f7f", "#ddaa33", "#bb5566", "#999933", "#332288", "#44aa99", "#cc6677", "#88ccee", "#117733")
OUTSIDE = "#0f172a"
"""What shades the region outside the gaze cone."""

_PANEL = ["row", "seed", "run", "person_id"]
"""What names the heatmap of a panel."""


def colour(summary: Summary, row: str) -> str:
    return PALETTE[list(summary.plan.rows).index(row) % len(PALETTE)]


def draw_figures(summary: Summary, paper: str = "") -> list[str]:
    """Draws what the results suffice for into the store's folder; returns a line about each figure not drawn.

    Args:
        summary: the results.
        paper: only figures drawn after this one of a paper; all where it is empty.
    """
    problems = []
    for figure in summary.plan.figures:
        if paper and paper not in figure.paper:
            continue
        if not available(summary, figure):
            problems.append(f"{figure.file}: not drawn, no results yet")
            continue
        with style():
            try:
                canvas = _DRAWN_BY[type(figure)](summary, figure)
            except (DataError, LookupError, OSError) as error:  # a data set that is not here: the image of before stays
                problems.append(f"{figure.file}: not drawn ({error})")
                continue
            summary.store.folder.mkdir(parents=True, exist_ok=True)
            # Images take the most space, and they are committed.
            dpi = 100 if isinstance(figure, OverlayFigure) else 130
            canvas.savefig(summary.store.folder / figure.file, dpi=dpi, pil_kwargs={"optimize": True})
    return problems


def available(summary: Summary, figure: PlannedFigure) -> bool:
    """Whether the stored results suffice for a figure."""
    if isinstance(figure, OverlayFigure):
        drawn, maps = set(drawn_people(summary, figure)), summary.store.heatmaps()
        return bool(drawn) and drawn <= set(zip(*(maps[name] for name in _PANEL), strict=True))
    return bool(_known_rows(summary, figure))


def _known_rows(summary: Summary, figure: PlannedFigure) -> list[str]:
    """The rows of a chart that have results for it."""
    over = 0.0 if isinstance(figure, ThresholdFigure) else None
    subsets = figure.subsets if isinstance(figure, SubsetFigure) else (figure.subset,)

    def known(row: str, metric: str) -> bool:
        return any(summary.values(row, metric, subset, over) for subset in subsets)

    return [row for row in figure.rows if all(known(row, metric) for metric in figure.metrics)]


def _chart(figure: PlannedFigure, width: float, height: float = 3.8) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    axis = canvas.subplots()
    axis.set_title(figure.title)
    return canvas, axis


def _with_arrow(summary: Summary, metric: str, name: str) -> str:
    return f"{name or metric} {ARROWS[summary.plan.metrics[metric].higher_is_better]}"


def by_subset(summary: Summary, figure: SubsetFigure) -> Canvas:
    """A bar a row and subset; bars of one row share its colour, lighter for the first subset."""
    rows = _known_rows(summary, figure)
    canvas, axis = _chart(figure, max(5.0, 1.5 + 1.0 * len(rows)))
    strengths = np.linspace(0.45, 1.0, len(figure.subsets))
    for place, (subset, strength) in enumerate(zip(figure.subsets, strengths, strict=True)):
        heights = [summary.interval(row, figure.metric, subset) for row in rows]
        shades = [_lighter(colour(summary, row), strength) for row in rows]
        digits = min(summary.plan.metrics[figure.metric].digits, 3)
        _bars(axis, heights, place, len(figure.subsets), 0.8, shades, digits)
    axis.set_xticks(range(len(rows)), [summary.plan.rows[row].title.replace(" + ", "\n+ ") for row in rows])
    axis.set_ylabel(_with_arrow(summary, figure.metric, figure.label))
    patches = [
        Patch(color=_lighter("#555555", strength), label=name)
        for name, strength in zip(figure.subsets, strengths, strict=True)
    ]
    canvas.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    return canvas


def exceeding(summary: Summary, figure: ThresholdFigure) -> Canvas:
    """How many people's value is larger than each threshold, a bar a row."""
    rows = _known_rows(summary, figure)
    canvas, axis = _chart(figure, max(5.5, 1.0 + 1.5 * len(figure.thresholds)))
    for place, row in enumerate(rows):
        heights = [summary.interval(row, figure.metric, figure.subset, over) for over in figure.thresholds]
        shades = [to_rgb(colour(summary, row))] * len(heights)
        _bars(axis, heights, place, len(rows), 0.84, shades, 0, summary.plan.rows[row].title)
    axis.set_xticks(range(len(figure.thresholds)), [f"> {over:g}{figure.unit}" for over in figure.thresholds])
    axis.set_xlabel(figure.name)
    axis.set_ylabel(f"people{'' if figure.subset == ALL else f', {figure.subset}'}")
    axis.legend()
    return canvas


def _bars(
    axis: Axes,
    heights: Sequence[Interval],
    place: int,
    places: int,
    room: float,
    shades: Sequence[tuple[float, float, float]],
    digits: int,
    label: str | None = None,
) -> None:
    """The ``place``-th bar of each of the groups at 0, 1, ..., whose ``places`` bars take up ``room`` together.

    Values are written on top; there is an error bar only where there is an interval.
    """
    width = room / places
    for group, (value, shade) in enumerate(zip(heights, shades, strict=True)):
        if value.count:
            # One by one: a bar without an interval must not get an error bar of length 0.
            bar = axis.bar(
                [group + (place - (places - 1) / 2) * width], [value.mean], width * 0.94, yerr=value.half, color=shade,
                label=label, error_kw={"ecolor": "#222222", "elinewidth": 1.1},
            )  # fmt: skip
            axis.bar_label(bar, [f"{value.mean:.{digits}f}"], padding=2, fontsize=7.5, color="#333333")
            label = None
    axis.tick_params(axis="x", length=0)
    axis.margins(y=0.12)


def scatter(summary: Summary, figure: ScatterFigure) -> Canvas:
    """A row a point: one metric to the right, another one upwards, with the intervals of both."""
    canvas, axis = _chart(figure, 6.4, 4.2)
    for row in _known_rows(summary, figure):
        x, y = (summary.interval(row, metric, figure.subset) for metric in figure.metrics)
        axis.errorbar([x.mean], [y.mean], xerr=x.half, yerr=y.half, fmt="o", markersize=8,
                      color=colour(summary, row), elinewidth=1.1, label=summary.plan.rows[row].title)  # fmt: skip
    axis.set_xlabel(_with_arrow(summary, figure.metric, figure.label))
    axis.set_ylabel(_with_arrow(summary, figure.second, figure.second_label))
    axis.grid(visible=True, axis="both")
    axis.margins(0.08)
    axis.legend()
    return canvas


def _lighter(name: str, strength: float) -> tuple[float, float, float]:
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(name))
    return red, green, blue


def drawn_people(summary: Summary, figure: OverlayFigure) -> list[tuple[str, int, str, str]]:
    """Row, seed, run and person of every panel."""
    seed = summary.drawn_seed(figure)
    if seed is None:
        return []
    picks = summary.picks(figure)
    return [(row, seed, summary.of(row)[seed]["run"], pick.person) for row in figure.rows for pick in picks]


def gather_heatmaps(summary: Summary, places: Places) -> None:
    """Keeps the heatmaps of all people that are drawn: those stored already, others from the folders of the runs."""
    figures = [figure for figure in summary.plan.figures if isinstance(figure, OverlayFigure)]
    wanted = list(dict.fromkeys(panel for figure in figures for panel in drawn_people(summary, figure)))
    stored = summary.store.heatmaps()
    kept = {tuple(row[name] for name in _PANEL): row for row in stored.to_dict("records")}
    rows = [kept[panel] for panel in wanted if panel in kept]
    absent = [panel for panel in wanted if panel not in kept]
    for row, seed, run in dict.fromkeys(panel[:3] for panel in absent):
        folder = places.runs / summary.of(row)[seed]["folder"]
        if (folder / "predictions.parquet").is_file():
            panels = [panel for panel in absent if panel[:3] == (row, seed, run)]
            found = heatmaps(folder, [panel[3] for panel in panels])
            rows += [dict(zip(_PANEL, panel, strict=True)) | _packed(found.get(panel[3])) for panel in panels]
    if rows and {tuple(row[name] for name in _PANEL) for row in rows} != kept.keys():
        summary.store.set_heatmaps(pd.DataFrame(rows).sort_values(_PANEL, kind="stable"))


def _packed(heatmap: Heatmap | None) -> dict[Hashable, Any]:
    """A heatmap as it is stored, scaled to a maximum of 1: half precision then shows all that an image can."""
    if heatmap is None:
        return {"height": 0, "width": 0, "heatmap": b""}
    scaled = (heatmap / max(float(heatmap.max()), 1e-12)).astype("<f2")
    return {"height": scaled.shape[0], "width": scaled.shape[1], "heatmap": scaled.tobytes()}


def overlays(summary: Summary, figure: OverlayFigure) -> Canvas:
    """People under the predictions of one row, and of another below; a cone is drawn over the upper ones."""
    picks, metric = summary.picks(figure), summary.plan.metrics[figure.metric]
    scenes = _scenes(summary, figure, picks)
    ratios = [shown.image.shape[1] / shown.image.shape[0] for shown in scenes]
    canvas = Canvas(figsize=(2.3 * sum(ratios) + 0.5, 2.5 * len(figure.rows) + 0.4), layout="constrained")
    canvas.suptitle(figure.title, fontsize=11, fontweight="bold")
    axes = canvas.subplots(len(figure.rows), len(picks), squeeze=False, gridspec_kw={"width_ratios": ratios})
    for line, row in enumerate(figure.rows):
        for axis, pick, shown in zip(axes[line], picks, scenes, strict=True):
            point, heatmap = _prediction(summary, row, summary.drawn_seed(figure), pick)
            draw(axis, shown.image, shown.head, shown.points, point, heatmap)
            if figure.cone and not line:
                _shade_outside(axis, shown, figure.cone)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
            value = f"{pick.below if line else pick.above:.{min(metric.digits, 2)}f}{figure.unit}"
            axis.set_title(f"{figure.name} {value}", fontsize=9, fontweight="normal")
        axes[line, 0].set_ylabel(summary.plan.rows[row].title, fontweight="bold", color=colour(summary, row))
    return canvas


def _scenes(summary: Summary, figure: OverlayFigure, picks: Sequence[Pick]) -> list[Scene]:
    plan = summary.plan
    options = [*plan.rows[figure.above].options, *plan.options, *plan.extra]
    options = [option for option in options if option.startswith("--dataset.")]
    dataset: GazeDataset = dataset_with(plan.dataset, options)
    records = dataset.records("test")
    places = {str(name): place for place, name in enumerate(records.person_id)}
    return [scene(dataset, records, places[pick.person]) for pick in picks]


def _prediction(
    summary: Summary, row: str, seed: int | None, pick: Pick
) -> tuple[tuple[float, float], npt.NDArray[np.float32] | None]:
    wanted = f"seed == {seed} and person_id == {pick.person!r}"
    ((_, person),) = summary.persons(row).query(wanted).iterrows()
    maps = summary.store.heatmaps()
    ((_, stored),) = maps[maps["row"] == row].query(wanted).iterrows()
    heatmap = None
    if stored["height"]:
        heatmap = np.frombuffer(stored["heatmap"], "<f2").astype(np.float32)
        heatmap = heatmap.reshape(int(stored["height"]), int(stored["width"]))
    return (float(person["x"]), float(person["y"])), heatmap


def _shade_outside(axis: Axes, shown: Scene, cone: Cone) -> None:
    """Covers what the cone from the head towards the mean annotation leaves out."""
    height, width = shown.image.shape[:2]
    head = torch.from_numpy((shown.head[:2] + shown.head[2:]) / 2).float()[None]
    target = torch.from_numpy(shown.points.mean(0)).float()[None]
    outside = 1 - cone_mask(head, target, (height, width), cone.angle, cone.sharpness)[0].numpy()
    shade = np.empty((height, width, 4))
    shade[..., :3] = to_rgb(OUTSIDE)
    shade[..., 3] = 0.55 * outside
    axis.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), zorder=2)


_DRAWN_BY: dict[type, Callable[[Summary, Any], Canvas]] = {
    SubsetFigure: by_subset, ThresholdFigure: exceeding, ScatterFigure: scatter, OverlayFigure: overlays
}  # fmt: skip
