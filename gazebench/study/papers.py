"""The papers' figures, drawn again by the studies that name them; nothing is drawn here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gazebench.core.errors import DataError
from gazebench.engine.record import CHECKOUT
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places
from gazebench.report.published import PublishedFigure
from gazebench.study.figures import available, draw_figures, gather_heatmaps
from gazebench.study.page import caption
from gazebench.study.plan import PlannedFigure, read_plan
from gazebench.study.store import Store
from gazebench.study.summary import Summary

STUDIES = (CHECKOUT or Path.cwd()) / "studies"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawing of a study after a figure of a paper, or after a part of it."""

    summary: Summary
    figure: PlannedFigure

    @property
    def missing(self) -> int:
        """How many runs it still lacks."""
        return sum(run.row in self.figure.rows for run in self.summary.missing)


def drawings(studies: Path, known: Sequence[PublishedFigure]) -> list[Drawing]:
    """Everything that the studies of a folder draw after a paper's figure.

    Raises:
        DataError: a plan has a mistake, or names a figure that no paper has.
    """
    names, found = {figure.id for figure in known}, []
    for path in sorted(studies.glob("*.yaml")):
        if "figures" not in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            continue  # draws nothing, or is a plan of another kind, such as one of tuning
        plan = read_plan(path)
        summary = Summary(plan, Store(path.with_suffix("")))
        for figure in plan.figures:
            unknown = [name for name in figure.paper if name not in names]
            if unknown:
                raise DataError(
                    f"{path}: figure {figure.file!r}: no figure {unknown[0]!r}; there are {', '.join(names)}"
                )
            if figure.paper:
                found.append(Drawing(summary, figure))
    return found


def draw(figure: PublishedFigure, drawn: Sequence[Drawing], places: Places) -> list[str]:
    """Draws a figure anew from what its studies have stored; returns a line about each image that was not drawn."""
    problems = []
    for summary in dict.fromkeys(one.summary for one in drawn if figure.id in one.figure.paper):
        gather_heatmaps(summary, places)
        problems += draw_figures(summary, figure.id)
    return problems


def section(figure: PublishedFigure, drawn: Sequence[Drawing], folder: Path) -> str:
    """The images of a figure as Markdown for a page in ``folder``, and what is missing."""
    mine = [one for one in drawn if figure.id in one.figure.paper]
    where = " and ".join(dict.fromkeys(load_dataset(one.summary.plan.dataset).card.title for one in mine))
    title = f"## {figure.source.title}, {figure.place}" + (f" on {where}" if where else "")
    lines = [title, "", f"{figure.title}.", ""]
    for one in mine:
        plan, image = one.summary.plan, one.summary.store.folder / one.figure.file
        if available(one.summary, one.figure):
            link = Path(os.path.relpath(image, folder)).as_posix()
            lines += [f"![{one.figure.title}]({link})", ""]
            lines += [f"*{one.figure.title}.* {caption(one.summary, one.figure)}", ""]
        else:
            lines += [f"*{one.figure.title}*: not drawn for want of results.", ""]
        if one.missing:
            runs = sum(run.row in one.figure.rows for run in plan.runs)
            lines += [f"{runs - one.missing} of {runs} runs are in; `{plan.command}` makes the others.", ""]
    own = f"gazebench tables {figure.id} --run --dataset={figure.dataset} --dataset.root=... --dataset.subsets=..."
    lines += [f"On the paper's own data: `{own}`." if mine else "No study draws it.", ""]
    return "\n".join(lines)


def plan_of(figure: PublishedFigure, drawn: Sequence[Drawing], dataset: str, seeds: Sequence[int]) -> dict[str, Any]:
    """A plan for ``gazebench study`` that draws a figure on another dataset: the rows and drawings of the study.

    Raises:
        DataError: no study draws the figure.
    """
    mine = [one for one in drawn if figure.id in one.figure.paper]
    if not mine:
        raise DataError(f"{figure.id}: no study draws it; give a figure of a plan the key `paper: [{figure.id}]`")
    given = yaml.safe_load(mine[0].summary.plan.file.read_text(encoding="utf-8"))
    rows = dict.fromkeys(row for one in mine for row in one.figure.rows)
    figures = [entry for entry in given["figures"] if figure.id in entry.get("paper", ())]
    return {
        "title": f"{figure.source.title}, {figure.place}",
        "text": figure.title,
        "dataset": dataset,
        "seeds": list(seeds),
        "rows": {row: given["rows"][row] for row in rows},
        "figures": [{key: value for key, value in entry.items() if key not in ("paper", "seed")} for entry in figures],
    }
