"""``index.html``: all datasets, to be sorted, filtered, searched and plotted in a browser, from a file, offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gazebench.metrics.protocol import ALL, SUBSETS
from gazebench.report.board.rows import COSTS, UNKNOWN, Board, Entry, PublishedRow, subsets_by, terms
from gazebench.report.board.templating import BADGES, assets, render

ORDER = ("official", "synthetic", "smoke")
SECTIONS = (
    "Complete official test set, and published values",
    "Complete runs on synthetic data: no published benchmark",
    "Smoke runs: incomplete data, tiny or random weights, or limits; no benchmark results",
)
"""Headings of the groups of a table; no sorting mixes them."""

Address = Callable[[str, str, str], str]
"""From dataset, file name of a record and its run to the address of its report page."""


def index(boards: Sequence[Board], left_out: Mapping[str, str], folder: Path, address: Address, note: str = "") -> str:
    """The page.

    Args:
        boards: in the order they are offered.
        left_out: names of datasets that could not be read, and why.
        folder: where the page will be.
        address: of the report pages.
        note: a sentence under the heading.
    """
    families = {row.family for one in boards for row in one.entries}
    families |= {row.family for one in boards for row in one.published}
    return render(
        "index.html.j2", boards=[_board(one, address) for one in boards], left_out=left_out,
        families=sorted(families, key=lambda family: (family == UNKNOWN, family)),
        assets=assets(folder), subsets=SUBSETS, costs=COSTS, sections=SECTIONS, note=note,
        data={one.name: _plotted(one, address) for one in boards if one.entries},
    )  # fmt: skip


def _board(board: Board, address: Address) -> dict[str, Any]:
    return {
        "name": board.name,
        "title": board.title,
        "protocol": board.protocol,
        "headline": board.headline,
        "columns": board.columns,
        "conventions": list({one.key: one for row in board.published for one in row.conventions}.values()),
        "runs": sum(len(entry.records) for entry in board.entries),
        "rows": [_ours(board, entry, address) for entry in board.entries]
        + [_theirs(board, row) for row in board.published],
    }


def _ours(board: Board, entry: Entry, address: Address) -> dict[str, Any]:
    record = entry.lead
    return {
        "kind": entry.klass,
        "group": ORDER.index(entry.klass),
        "title": entry.title,
        "backbone": entry.backbone,
        "family": entry.family,
        "reasons": record["status"]["reasons"],
        "reports": [
            {"href": address(board.name, stem, one["run"]), "run": one["run"], "seed": one["seed"]}
            for stem, one in entry.records.items()
        ],
        "cells": [entry.value(column.metric, column.subset) for column in board.columns],
        "people": record["samples"]["people"],
        "subsets by": subsets_by(record),
        "costs": [entry.cost(cost) for cost in COSTS],
        "terms": terms(record),
        "weights": f"{record['weights'].get('name') or 'no backbone'}, {record['weights']['grade']}",
    }


def _theirs(board: Board, row: PublishedRow) -> dict[str, Any]:
    return {
        "kind": "published",
        "group": 0,
        "title": row.title,
        "backbone": row.backbone,
        "family": row.family,
        "source": row.source,
        "places": row.places,
        "tag": row.tag,
        "notes": row.notes,
        "cells": [row.cells.get((column.metric, column.subset)) for column in board.columns],
    }


def _plotted(board: Board, address: Address) -> dict[str, Any]:
    """What the plot needs, by row in the table's order: values with their intervals, and costs."""
    rows = []
    for position, entry in enumerate(board.entries):
        values: dict[str, dict[str, list[float | None]]] = {}
        for column in board.columns:
            value = entry.value(column.metric, column.subset)
            if value is not None:
                values.setdefault(column.metric, {})[column.subset] = [value.value, value.low, value.high]
        stem = next(iter(entry.records))
        rows.append({
            "row": position, "title": entry.title, "backbone": entry.backbone, "family": entry.family,
            "kind": BADGES[entry.klass], "href": address(board.name, stem, entry.runs[0]), "values": values,
            "costs": {cost.key: entry.cost(cost) for cost in COSTS},
        })  # fmt: skip
    metrics = {
        column.metric: {"higher": column.higher, "digits": column.digits}
        for column in board.columns
        if column.digits is not None
    }
    return {"rows": rows, "metrics": metrics, "headline": board.headline, "everybody": ALL}
