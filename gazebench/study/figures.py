"""The figures of a study: a metric by subset, people beyond thresholds, and pictures of single people."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from gazebench.core.errors import DataError
from gazebench.data.dataset import GazeDataset
from gazebench.engine.predictions import read_predictions
from gazebench.engine.run import Places
from gazebench.methods.hclora.gaze_cone import cone_mask
from gazebench.metrics.intervals import Interval
from gazebench.metrics.protocol import ALL
from gazebench.report.pictures import Scene, draw, scene
from gazebench.study.measured import Measured, Pick
from gazebench.study.plan import Figure, Run

# Paul Tol's muted scheme, told apart by colour-blind readers too; a row has the same colour in every figure.
PALETTE = ("#7f7f7f", "#ddaa33", "#bb5566", "#999933", "#332288", "#44aa99", "#cc6677", "#88ccee", "#117733")
OUTSIDE = "#0f172a"
"""What shades the region outside the gaze cone."""

_PANEL = ["row", "seed", "run", "person_id"]
"""What names the heatmap of a panel."""

DPI = {"subsets": 130, "exceeding": 130, "overlays": 100, "scatter": 130}
"""By kind of figure; pictures take the most space, and they are committed."""

_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.grid": True, "axes.grid.axis": "y", "grid.alpha": 0.3, "axes.axisbelow": True,
    "errorbar.capsize": 3,
}  # fmt: skip


def colours(measured: Measured) -> dict[str, str]:
    """The colour of every row of the plan."""
    return {row: PALETTE[index % len(PALETTE)] for index, row in enumerate(measured.plan.rows)}


def draw_figures(measured: Measured, folder: Path, paper: str = "") -> list[str]:
    """Draws what the results suffice for, all figures or those after one of a paper; a line about each not drawn."""
    problems = []
    for figure in measured.plan.figures:
        if paper and paper not in figure.paper:
            continue
        with rc_context(_STYLE):
            try:
                canvas = FIGURES[figure.kind](measured, figure)
            except (
                DataError,
                LookupError,
                OSError,
            ) as error:  # a dataset that is not here: its picture of before stays
                problems.append(f"{figure.file}: not drawn ({error})")
                continue
            if canvas is None:
                problems.append(f"{figure.file}: not drawn, no results yet")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            canvas.savefig(folder / figure.file, dpi=DPI[figure.kind], pil_kwargs={"optimize": True})
    return problems


def available(measured: Measured, figure: Figure) -> bool:
    """Whether the stored results suffice for a figure."""
    if figure.kind == "overlays":
        drawn, maps = set(drawn_people(measured, figure)), measured.store.heatmaps()
        return bool(drawn) and drawn <= set(zip(*(maps[name] for name in _PANEL), strict=True))
    if figure.kind == "exceeding":
        return any(measured.values(row, figure.metric, figure.subset, 0.0) for row in figure.rows)
    if figure.kind == "scatter":
        return any(_both_values(measured, figure, row) for row in figure.rows)
    return any(measured.values(row, figure.metric, subset) for row in figure.rows for subset in figure.subsets)


# Bars ----------------------------------------------------------------------------------------------------------


def by_subset(measured: Measured, figure: Figure) -> Canvas | None:
    """A bar a row and subset; bars of one row share its colour, lighter for the first subset."""
    if not available(measured, figure):
        return None
    use = measured.plan.protocol.use(figure.metric)
    rows = [row for row in figure.rows if measured.of(row)]
    canvas = Canvas(figsize=(max(5.0, 1.5 + 1.0 * len(rows)), 3.8), layout="constrained")
    axis = canvas.subplots()
    width = 0.8 / len(figure.subsets)
    strengths = np.linspace(0.45, 1.0, len(figure.subsets))
    for place, (subset, strength) in enumerate(zip(figure.subsets, strengths, strict=True)):
        heights = [measured.summary(row, figure.metric, subset) for row in rows]
        shades = [_lighter(colours(measured)[row], strength) for row in rows]
        x = np.arange(len(rows)) + (place - (len(figure.subsets) - 1) / 2) * width
        _bars(axis, x, heights, width, shades, min(use.digits, 3))
    axis.set_xticks(range(len(rows)), [_broken(measured.plan.rows[row].title) for row in rows])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(f"{figure.name} {'↑' if measured.plan.protocol.higher_is_better(figure.metric) else '↓'}")
    axis.set_title(figure.title)
    axis.margins(y=0.12)
    handles = [
        Patch(color=_lighter("#555555", s), label=n) for n, s in zip(figure.subsets, strengths, strict=True)
    ]  # fmt: skip
    canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return canvas


def exceeding(measured: Measured, figure: Figure) -> Canvas | None:
    """How many people's value is larger than each threshold, a bar a row."""
    if not available(measured, figure):
        return None
    rows = [row for row in figure.rows if measured.values(row, figure.metric, figure.subset, 0.0)]
    canvas = Canvas(figsize=(max(5.5, 1.0 + 1.5 * len(figure.thresholds)), 3.8), layout="constrained")
    axis = canvas.subplots()
    width = 0.84 / len(rows)
    for place, row in enumerate(rows):
        heights = [measured.summary(row, figure.metric, figure.subset, over) for over in figure.thresholds]
        x = np.arange(len(heights)) + (place - (len(rows) - 1) / 2) * width
        title = measured.plan.rows[row].title
        _bars(axis, x, heights, width, [to_rgb(colours(measured)[row])] * len(heights), 0, title)
    axis.set_xticks(range(len(figure.thresholds)), [f"> {over:g}{figure.unit}" for over in figure.thresholds])
    axis.tick_params(axis="x", length=0)
    axis.set_xlabel(figure.name)
    axis.set_ylabel(f"people{'' if figure.subset == ALL else f', {figure.subset}'}")
    axis.set_title(figure.title)
    axis.margins(y=0.12)
    axis.legend(frameon=False)
    return canvas


def _bars(
    axis: Axes,
    x: npt.NDArray[np.floating],
    heights: Sequence[Interval],
    width: float,
    shades: Sequence[tuple[float, float, float]],
    digits: int,
    label: str | None = None,
) -> None:
    """Bars with their values written on top; an error bar only where there is an interval."""
    for place, value, shade in zip(x, heights, shades, strict=True):
        if value.count:
            # One by one: a bar without an interval must not get an error bar of length 0.
            bar = axis.bar(
                [float(place)], [value.mean], width * 0.94, yerr=value.half, color=shade, label=label,
                error_kw={"ecolor": "#222222", "elinewidth": 1.1},
            )  # fmt: skip
            axis.bar_label(bar, [f"{value.mean:.{digits}f}"], padding=2, fontsize=7.5, color="#333333")
            label = None


def scatter(measured: Measured, figure: Figure) -> Canvas | None:
    """A row a point: one metric to the right, another one upwards, with the intervals of both."""
    rows = [row for row in figure.rows if _both_values(measured, figure, row)]
    if not rows:
        return None
    canvas = Canvas(figsize=(6.4, 4.2), layout="constrained")
    axis = canvas.subplots()
    for row in rows:
        x, y = (measured.summary(row, metric, figure.subset) for metric in (figure.metric, figure.second))
        colour = colours(measured)[row]
        axis.errorbar([x.mean], [y.mean], xerr=x.half, yerr=y.half, fmt="o", markersize=8, color=colour,
                      elinewidth=1.1, label=measured.plan.rows[row].title)  # fmt: skip
    for set_label, metric, name in (
        (axis.set_xlabel, figure.metric, figure.name), (axis.set_ylabel, figure.second, figure.second_label)
    ):  # fmt: skip
        set_label(f"{name or metric} {'↑' if measured.plan.protocol.higher_is_better(metric) else '↓'}")
    axis.set_title(figure.title)
    axis.grid(visible=True, axis="both")
    axis.margins(0.08)
    axis.legend(frameon=False)
    return canvas


def _both_values(measured: Measured, figure: Figure, row: str) -> bool:
    return all(measured.values(row, metric, figure.subset) for metric in (figure.metric, figure.second))


def _lighter(colour: str, strength: float) -> tuple[float, float, float]:
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _broken(title: str) -> str:
    """A title over two lines where it has two parts."""
    return title.replace(" + ", "\n+ ")


# Pictures ------------------------------------------------------------------------------------------------------


def drawn_people(measured: Measured, figure: Figure) -> list[tuple[str, int, str, str]]:
    """Row, seed, run and person of every panel of an overlay."""
    seed = measured.drawn_seed(figure)
    if seed is None:
        return []
    picks = measured.picks(figure)
    return [(row, seed, measured.of(row)[seed]["run"], pick.person) for row in figure.panels for pick in picks]


def gather_heatmaps(measured: Measured, places: Places) -> None:
    """Keeps the heatmaps of all people that are drawn: those stored already, others from the folders of the runs."""
    figures = [figure for figure in measured.plan.figures if figure.kind == "overlays"]
    wanted = list(dict.fromkeys(panel for figure in figures for panel in drawn_people(measured, figure)))
    stored = measured.store.heatmaps()
    kept = {tuple(row[name] for name in _PANEL): row for row in stored.to_dict("records")}
    rows = [kept[panel] for panel in wanted if panel in kept]
    absent = [panel for panel in wanted if panel not in kept]
    for row, seed, run in dict.fromkeys(panel[:3] for panel in absent):
        file = places.runs / measured.of(row)[seed]["folder"] / "predictions.parquet"
        if not file.is_file():
            continue
        predictions = read_predictions(file)
        for panel in absent:
            if panel[:3] == (row, seed, run):
                heatmap: Any = predictions["heatmap"].loc[panel[3]]
                rows.append({**dict(zip(_PANEL, panel, strict=True)), **_packed(heatmap)})
    if rows and {tuple(row[name] for name in _PANEL) for row in rows} != kept.keys():
        measured.store.set_heatmaps(pd.DataFrame(rows).sort_values(_PANEL, kind="stable"))


def _packed(heatmap: npt.NDArray[np.float32] | None) -> dict[Hashable, Any]:
    """A heatmap as it is stored, scaled to a maximum of 1: half precision then shows all that a picture can."""
    if heatmap is None:
        return {"height": 0, "width": 0, "heatmap": b""}
    scaled = (heatmap / max(float(heatmap.max()), 1e-12)).astype("<f2")
    return {"height": scaled.shape[0], "width": scaled.shape[1], "heatmap": scaled.tobytes()}


def overlays(measured: Measured, figure: Figure) -> Canvas | None:
    """People under the predictions of one row, and of another below; a cone is drawn over the upper ones."""
    if not available(measured, figure):
        return None
    picks, seed = measured.picks(figure), measured.drawn_seed(figure)
    runs = {run.row: run for run in measured.entries if run.seed == seed}
    dataset = _dataset(measured, runs[figure.above])
    scenes = [_scene(dataset, pick.person) for pick in picks]
    digits = min(measured.plan.protocol.use(figure.metric).digits, 2)
    ratios = [shown.picture.shape[1] / shown.picture.shape[0] for shown in scenes]
    canvas = Canvas(figsize=(2.3 * sum(ratios) + 0.5, 2.5 * len(figure.panels) + 0.4), layout="constrained")
    canvas.suptitle(figure.title, fontsize=11, fontweight="bold")
    axes = canvas.subplots(len(figure.panels), len(picks), squeeze=False, gridspec_kw={"width_ratios": ratios})
    for line, row in enumerate(figure.panels):
        for axis, pick, shown in zip(axes[line], picks, scenes, strict=True):
            value = pick.below if line else pick.above
            point, heatmap = _answer(measured, runs[row], pick)
            draw(axis, shown.picture, shown.head, shown.points, point, heatmap)
            if figure.cone and not line:
                _shade_outside(axis, shown, figure.cone["angle"], figure.cone["sharpness"])
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
            axis.set_title(f"{figure.name} {value:.{digits}f}{figure.unit}", fontsize=9, fontweight="normal")
        axes[line, 0].set_ylabel(measured.plan.rows[row].title, fontweight="bold", color=colours(measured)[row])
    return canvas


def _dataset(measured: Measured, run: Run) -> GazeDataset:
    config = measured.plan.config(run)
    return config.dataset(**config.values["dataset"])


def _scene(dataset: GazeDataset, person_id: str) -> Scene:
    records = dataset.records("test")
    (found,) = np.flatnonzero(records.person_id == person_id)
    return scene(dataset, records, int(found))


def _answer(measured: Measured, run: Run, pick: Pick) -> tuple[tuple[float, float], npt.NDArray[np.float32] | None]:
    """A run's point and heatmap of a person."""
    people = measured.persons(run.row)
    ((_, person),) = people[(people["seed"] == run.seed) & (people["person_id"] == pick.person)].iterrows()
    maps = measured.store.heatmaps()
    ((_, stored),) = maps[
        (maps["row"] == run.row) & (maps["seed"] == run.seed) & (maps["person_id"] == pick.person)
    ].iterrows()
    heatmap = None
    if stored["height"]:
        heatmap = np.frombuffer(stored["heatmap"], "<f2").astype(np.float32)
        heatmap = heatmap.reshape(int(stored["height"]), int(stored["width"]))
    return (float(person["x"]), float(person["y"])), heatmap


def _shade_outside(axis: Axes, shown: Scene, angle: float, sharpness: float) -> None:
    """Covers what the cone from the head towards the mean annotation leaves out."""
    height, width = shown.picture.shape[:2]
    head = torch.from_numpy((shown.head[:2] + shown.head[2:]) / 2).float()[None]
    target = torch.from_numpy(shown.points.mean(0)).float()[None]
    outside = 1 - cone_mask(head, target, (height, width), angle, sharpness)[0].numpy()
    shade = np.empty((height, width, 4))
    shade[..., :3] = to_rgb(OUTSIDE)
    shade[..., 3] = 0.55 * outside
    axis.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), zorder=2)


FIGURES: dict[str, Callable[[Measured, Figure], Canvas | None]] = {
    "subsets": by_subset,
    "exceeding": exceeding,
    "overlays": overlays,
    "scatter": scatter,
}
