"""The figures of a report, as SVG that takes the page's colours: curves of training, and how errors are spread."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gazebench.metrics.protocol import SUBSETS

INK = "#010203"
"""Stands for the page's own ink until the SVG is written."""
COLOURS = {"all": "#7f7f7f", "consistent": "#0072b2", "inconsistent": "#d55e00"}
"""Okabe and Ito's, legible on white and on black."""
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "gazebench", "font.size": 10, "font.family": "sans-serif",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12,
    "legend.frameon": False, "savefig.transparent": True,
}  # fmt: skip


def svg(figure: Figure, label: str) -> Markup:
    """The figure for the inside of a page: its text is text, its ink the page's."""
    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]+|font: (\d[\d.]*)px [^;\"]+", lambda m: _font(m.group(1)), text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


def _font(size: str | None) -> str:
    return f"font: {size}px system-ui, sans-serif" if size else "font-family: system-ui, sans-serif"


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    return figure, figure.subplots()


def curves(log: Path, headline: str) -> list[dict[str, Any]]:
    """The losses by step, and the headline metric by epoch, of Lightning's ``metrics.csv``; none without a log."""
    if not log.is_file():
        return []
    logged = pd.read_csv(log)
    names = [str(name) for name in logged if logged[name].notna().any()]
    losses = sorted(name for name in names if name == "loss_step" or name.startswith("loss/"))[::-1]
    score = f"val/{headline}"
    found = []
    with rc_context(_STYLE):
        if losses:
            figure = _losses(logged, losses)
            caption = "Training: the loss every ten steps, and its parts as means over epochs."
            found.append({"svg": svg(figure, "loss by training step"), "caption": caption})
        if score in names:
            figure = _validation(logged, score)
            caption = f"Validation: {headline} by epoch."
            found.append({"svg": svg(figure, f"{headline} by epoch"), "caption": caption})
    return found


def _losses(logged: pd.DataFrame, names: Sequence[str]) -> Figure:
    figure, axis = _canvas()
    for colour, name in zip(_LINES * len(names), names, strict=False):
        rows = logged[logged[name].notna()]
        title = "loss" if name == "loss_step" else name.removeprefix("loss/")
        marker = "" if name == "loss_step" and len(rows) > 20 else "o"
        axis.plot(rows["step"] + 1, rows[name], color=colour, linewidth=1.3, marker=marker, markersize=3, label=title)
    axis.set(xlabel="step", ylabel="loss")
    if (logged[list(names)].min(numeric_only=True) > 0).all():
        axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=9)
    return figure


def _validation(logged: pd.DataFrame, name: str) -> Figure:
    figure, axis = _canvas()
    rows = logged[logged[name].notna()]
    axis.plot(rows["epoch"] + 1, rows[name], color=_LINES[0], marker="o", markersize=4)
    axis.set(xlabel="epoch", ylabel=name.removeprefix("val/"))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def distribution(people: pd.DataFrame, metric: str) -> dict[str, Any] | None:
    """How the values of a metric are spread, by subset; None where it takes two values at most."""
    values = people[f"metric_{metric}"].dropna()
    if values.nunique() < 3:
        return None
    parts: Mapping[str, pd.Series[float]] = {
        name: values[people.loc[values.index, "subset"] == name] for name in SUBSETS[1:]
    }
    parts = {name: part for name, part in parts.items() if len(part)} or {"all": values}
    edges = np.histogram_bin_edges(values, bins=30)
    with rc_context(_STYLE):
        figure, axis = _canvas()
        for name, part in parts.items():
            share = np.histogram(part, edges)[0] / len(part)
            axis.stairs(share, edges, color=COLOURS[name], linewidth=1.6, label=f"{name} ({len(part):,})")
            axis.stairs(share, edges, color=COLOURS[name], fill=True, alpha=0.15)
            axis.axvline(float(part.median()), color=COLOURS[name], linewidth=1.2, linestyle=(0, (4, 3)))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set(xlabel=metric, ylabel="people")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=9)
        caption = f"{metric} of single people, as shares of each group; dashed: medians."
        return {"svg": svg(figure, f"distribution of {metric}"), "caption": caption}
