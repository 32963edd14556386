"""The style of all figures, and those of a run: curves of training, and how errors are spread.

In pages figures are SVG that takes the page's colours.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
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
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.grid": True, "axes.grid.axis": "y", "grid.alpha": 0.3, "axes.axisbelow": True,
    "errorbar.capsize": 3, "legend.frameon": False,
}  # fmt: skip
_PAGE_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "gazebench", "font.family": "sans-serif", "savefig.transparent": True,
    "axes.grid.axis": "both", "grid.alpha": 0.12,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor"], INK),
    **dict.fromkeys(["xtick.color", "ytick.color", "grid.color"], INK),
}  # fmt: skip


def style(*, page: bool = False) -> AbstractContextManager[None]:
    """Within it figures are made and saved."""
    return rc_context(_STYLE | _PAGE_STYLE if page else _STYLE)


def svg(figure: Figure, label: str) -> Markup:
    """The figure for the inside of a page: its text is text, its ink the page's."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue().replace(INK, "currentColor")
    text = text[text.index("<svg") :]
    text = re.sub(r"font-family: [^;\"]+", "font-family: system-ui, sans-serif", text)
    text = re.sub(r"font: (\d[\d.]*)px [^;\"]+", r"font: \1px system-ui, sans-serif", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


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
    score, found = f"val/{headline}", []
    with style(page=True):
        if losses:
            figure, axis = _lines(logged, losses, "step", "loss")
            if (logged[losses].min(numeric_only=True) > 0).all():
                axis.set_yscale("log")
            axis.legend(fontsize=9)
            caption = "Training: the loss every ten steps, and its parts as means over epochs."
            found.append({"svg": svg(figure, "loss by training step"), "caption": caption})
        if score in names:
            figure, _ = _lines(logged, [score], "epoch", headline)
            found.append({"svg": svg(figure, f"{headline} by epoch"), "caption": f"Validation: {headline} by epoch."})
    return found


def _lines(logged: pd.DataFrame, names: list[str], x: str, y: str) -> tuple[Figure, Axes]:
    """Columns of a log against its steps or epochs, counted from 1."""
    figure, axis = _canvas()
    for colour, name in zip(_LINES * len(names), names, strict=False):
        rows = logged[logged[name].notna()]
        title = "loss" if name == "loss_step" else name.removeprefix("loss/")
        marker = "" if name == "loss_step" and len(rows) > 20 else "o"
        axis.plot(rows[x] + 1, rows[name], color=colour, linewidth=1.3, marker=marker, markersize=3, label=title)
    axis.set(xlabel=x, ylabel=y)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axis


def distribution(people: pd.DataFrame, metric: str) -> dict[str, Any] | None:
    """How the values of a metric are spread, by subset; None where it takes two values at most."""
    values = people[f"metric_{metric}"].dropna()
    if values.nunique() < 3:
        return None
    subsets = people.loc[values.index, "subset"]
    parts = {name: values[subsets == name] for name in SUBSETS[1:] if (subsets == name).any()} or {"all": values}
    edges = np.histogram_bin_edges(values, bins=30)
    with style(page=True):
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
