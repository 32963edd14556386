"""The papers' tables in their own layout, our runs beside the published values, and what is still to be run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import misfit
from gazebench.engine.method import Capability
from gazebench.engine.record import read_records
from gazebench.engine.registry import load_dataset, load_method
from gazebench.metrics.intervals import Interval, interval
from gazebench.metrics.protocol import ALL
from gazebench.report.board_rows import distinct, over_seeds
from gazebench.report.page import render
from gazebench.report.published import MethodOptions, PublishedRow, PublishedTable, Vocabulary
from gazebench.report.run_data import Record, known_dataset
from gazebench.report.settings import constructor_options
from gazebench.report.table import Cell, Column, Table
from gazebench.report.table import csv as frame_csv

HEADING = "## The four tasks of VL4Gaze, in questions of ours: "
SPLIT = "dataset.subsets"
"""The setting that columns by subset need where subsets are not the data's own."""
NEEDS: dict[str, Capability] = {
    "inout_score": "inout", "predicted_label": "semantic", "predicted_class": "semantic",
    **dict.fromkeys(("lah_score", "laeo_score", "sa_score"), "social"),
}  # fmt: skip
"""The capability of a method behind a field of metrics."""


@dataclass(frozen=True)
class OurCell:
    """One cell of ours beside a published one.

    Attributes:
        value: over the seeds there are records of; nothing where one of them has none.
        published: None where the paper prints nothing, or where another data set stands in for the paper's.
        tolerance: within which a re-run counts as the same; None where nobody knows.
        command: what makes the run, where there is none and a run would have this value.
    """

    value: Interval
    published: Decimal | None
    tolerance: Decimal | None
    command: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the published value."""
        return None if self.published is None or not self.value.count else self.value.mean - float(self.published)

    @property
    def reproduced(self) -> bool | None:
        """Whether the difference is within the tolerance; None where one of the two is missing."""
        if self.difference is None or self.tolerance is None:
            return None
        return abs(self.difference) <= float(self.tolerance)


@dataclass(frozen=True, eq=False)
class FilledRow:
    """A published row with ours; ``ours`` is None where the row is no method of this suite."""

    row: PublishedRow
    ours: tuple[OurCell, ...] | None

    @property
    def seeds(self) -> int:
        """Over how many seeds its values are."""
        return max((cell.value.count for cell in self.ours or ()), default=0)


@dataclass(frozen=True, eq=False)
class FilledTable:
    """A table of a paper, filled with our runs.

    Attributes:
        dataset: where our runs are from, when it is not the paper's own data set; else "".
    """

    table: PublishedTable
    rows: tuple[FilledRow, ...]
    dataset: str = ""

    @property
    def missing(self) -> dict[str, str]:
        """The titles of the rows that each command makes, by command."""
        wanted: dict[str, list[str]] = {}
        for filled in self.rows:
            for command in dict.fromkeys(cell.command for cell in filled.ours or () if cell.command):
                wanted.setdefault(command, []).append(filled.row.title)
        return {command: ", ".join(titles) for command, titles in wanted.items()}


def fill(table: PublishedTable, words: Vocabulary, boards: Path, dataset: str = "") -> FilledTable:
    """Looks our records up for every row of a table.

    A record counts when method, options, backbone and data set are the row's and its class is the best there can be: an
    official run, or a complete one on a drawn data set. Of several of one seed the newest counts.

    Args:
        table: the published one.
        words: how rows are made here.
        boards: folder of the records.
        dataset: takes the place of the table's own data sets; nothing published is compared then.
    """
    names = [dataset or column.dataset for column in table.columns]
    known = {name: _records(boards, name) for name in dict.fromkeys(names)}
    pairs = list(zip(names, table.columns, strict=True))
    extra: dict[str, list[str]] = {name: [] for name in names}
    for name in {name for name, column in pairs if column.subset != ALL and _given(name)}:
        extra[name].append(f"--{SPLIT}=...")
    for name in {name for name, column in pairs if _fields(name, column.convention.metric) & {"predicted_class"}}:
        extra[name].append("--dataset.clip_weights=...")
    rows = []
    for row in table.rows:
        how = words.runs.get(row.method)
        if how is None or (dataset and row.backbone not in ("", how.backbone)):  # one backbone stands in for all
            rows.append(FilledRow(row, None))
            continue
        backbone = "" if dataset else words.backbones.get(row.backbone or how.backbone, "")
        cells = []
        for column, name, printed in zip(table.columns, names, row.values, strict=True):
            convention, suite = row.convention(column), known_dataset(name)
            found = _by_seed(known[name], how, backbone)
            value = over_seeds(distinct(found.values()), convention.metric, column.subset) or interval([])
            makes = ""
            if suite and not value.count and (dataset or printed) and _gives(how.method, suite, convention.metric):
                makes = command(how, suite, backbone, extra[name])
            published = Decimal(printed) if printed and not dataset else None
            cells.append(OurCell(value, published, convention.tolerance, makes))
        rows.append(FilledRow(row, tuple(cells)))
    return FilledTable(table, tuple(rows), dataset)


def metric_names(dataset: type[GazeDataset]) -> set[str]:
    return {use.name for use in dataset.protocol.metrics}


def _given(dataset: str) -> bool:
    """Whether the user has to have it."""
    known = known_dataset(dataset)
    return known is not None and not known.card.synthetic


def _fields(dataset: str, metric: str) -> set[str]:
    """What a metric of a data set reads; nothing where the data set has no such metric."""
    known = known_dataset(dataset)
    return set(known.protocol.metric(metric).metric().fields) if known and metric in metric_names(known) else set()


def _gives(method: str, dataset: type[GazeDataset], metric: str) -> bool:
    """Whether a run of a method on a data set has a value of a metric."""
    cls = load_method(method)
    needed = {NEEDS[field] for field in _fields(dataset.card.name, metric) & NEEDS.keys()}
    return metric in metric_names(dataset) and needed <= cls.capabilities and not misfit(cls, dataset)


def command(how: MethodOptions, dataset: type[GazeDataset], backbone: str, extra: Sequence[str]) -> str:
    """What makes the run of a row.

    Args:
        how: the row's method and its options.
        dataset: the data set.
        backbone: empty for the method's own.
        extra: further options, of the data set.
    """
    options = [*(f"--{name}={value}" for name, value in how.options.items()), *extra]
    parts = [
        f"make bench METHOD={how.method} DATASET={dataset.card.name}",
        "" if dataset.card.synthetic else "DATA_ROOT=...",
        f"BACKBONE={backbone}" if backbone and _takes_backbone(how.method) else "",
        f'ARGS="{" ".join(options)}"' if options else "",
    ]
    return " ".join(filter(None, parts))


@cache
def _takes_backbone(method: str) -> bool:
    return "backbone" in constructor_options(load_method(method))


def _records(boards: Path, dataset: str) -> list[dict[str, Any]]:
    """The comparable records of a data set, oldest first; none where the suite has no such data set."""
    found = known_dataset(dataset)
    if found is None:
        return []
    wanted = ["synthetic"] if found.card.synthetic else ["official", "listed"]
    records = [
        record
        for record in read_records(boards, dataset)
        if record["status"]["class"] in wanted and record["protocol"]["id"] == found.protocol.id
    ]
    return sorted(records, key=lambda record: record["finished"])


def _by_seed(records: Iterable[Record], how: MethodOptions, backbone: str) -> dict[int | None, Record]:
    wanted, other = ({name: yaml.safe_load(value) for name, value in of.items()} for of in (how.options, how.unlike))
    found: list[Record] = []
    for record in records:
        settings = {f"model.{name}": value for name, value in record["config"].get("model", {}).items()}
        same = record["method"]["name"] == how.method and wanted.items() <= settings.items()
        unlike = all(settings.get(name) != value for name, value in other.items())
        if same and unlike and backbone in ("", settings.get("model.backbone", backbone)):
            found.append(record)
    # Two versions of a method compute different things: no mean is over both.
    newest = max((record["method"].get("version", 1) for record in found), default=1)
    return {record["seed"]: record for record in found if record["method"].get("version", 1) == newest}


def layout(filled: FilledTable) -> Table:
    """For every row what is published, ours, and the difference; columns in the paper's order."""
    table = filled.table
    columns = [*map(Column, table.labels), Column("")]
    columns += [
        Column(column.header, column.group, column.decimals, column.convention.better == "higher", column.title)
        for column in table.columns
    ]
    rows: list[list[Cell]] = []
    for one in filled.rows:
        labels: list[Cell] = [label or "" for label in one.row.labels]
        if not filled.dataset:
            rows.append([*labels, "published", *one.row.values])
            labels = [""] * len(labels)
        if one.ours is None or not (one.seeds or filled.dataset):
            continue  # nothing of ours to show
        seeds = f"{one.seeds} seed{'s' if one.seeds != 1 else ''}" if one.seeds else "no run"
        rows.append([*labels, f"ours ({seeds})", *(cell.value for cell in one.ours)])
        if any(cell.difference is not None for cell in one.ours):
            digits = [column.decimals for column in table.columns]
            rows.append([*labels, "difference", *map(_difference, one.ours, digits)])
    return Table(columns, rows)


def _difference(cell: OurCell, digits: int) -> Cell:
    mark = {None: "", True: " ✓", False: " ✗"}[cell.reproduced]
    return None if cell.difference is None else f"{cell.difference:+.{digits}f}{mark}"


def markdown(filled: FilledTable) -> str:
    """The table, its notes, and the commands that fill it."""
    table, missing = filled.table, filled.missing
    where = f" on {load_dataset(filled.dataset).card.title}" if filled.dataset else ""
    lines = [f"## {table.source.title}, {table.place}{where}", "", table.title, ""]
    if filled.dataset:
        lines += ["The layout is the paper's, the data are not: no number here can be compared with the paper's.", ""]
    lines += [layout(filled).markdown(), ""]
    if not filled.dataset and any(cell.reproduced is not None for row in filled.rows for cell in row.ours or ()):
        lines += ["✓ within the tolerance of independent re-runs, ✗ outside; no mark where nobody knows it.", ""]
    if missing:
        lines += ["What is missing (SEED=1, 2 ... for more seeds):", ""]
        lines += [*(f"- {rows}: `{makes}`" for makes, rows in missing.items()), ""]
    if any(SPLIT in makes for makes in missing):
        lines += [f"Subsets need a prober's split for `--{SPLIT}`: `make splits DATASET={filled.table.dataset} "
                  "DATA_ROOT=... PROBER=openai` makes one (docs/splits.md).", ""]  # fmt: skip
    notes = () if filled.dataset else table.notes
    lines += [f"- {note}" for note in notes] + ([""] if notes else [])
    return "\n".join(lines)


def latex(filled: FilledTable) -> str:
    """A ``tabular`` with booktabs rules; headings above columns span them."""
    missing = "".join(f"% missing: {rows}: {makes}\n" for makes, rows in filled.missing.items())
    table = filled.table
    return f"% {table.source.title}, {table.place}; needs booktabs, amssymb\n{missing}{layout(filled).latex()}"


def html(filled: FilledTable) -> str:
    return render("paper.html.j2", table=filled.table, html=layout(filled).html(), missing=filled.missing)


def csv(filled: FilledTable) -> str:
    """One line a cell, in full precision."""
    names = ["table", "row", "method", "dataset", "metric", "subset", "convention", "published", "ours", "half_width",
             "seeds", "difference", "tolerance", "reproduced", "command"]  # fmt: skip
    rows: list[list[Any]] = []
    nothing = OurCell(interval([]), None, None)
    for one in filled.rows:
        cells = one.ours or [nothing] * len(filled.table.columns)
        for column, printed, cell in zip(filled.table.columns, one.row.values, cells, strict=True):
            convention, value = one.row.convention(column), cell.value
            rows.append([
                filled.table.id, one.row.title, one.row.method, filled.dataset or column.dataset, convention.metric,
                column.subset, convention.key, None if filled.dataset else printed, value.mean, value.half, value.count,
                cell.difference, convention.tolerance, cell.reproduced, cell.command or None,
            ])  # fmt: skip
    return frame_csv(pd.DataFrame(rows, columns=names))


WRITERS = {"md": markdown, "tex": latex, "html": html, "csv": csv}


def files(filled: Iterable[FilledTable], folder: Path, formats: Iterable[str]) -> dict[Path, str]:
    """A file a table and format: what it says, by its path."""
    return {
        folder / f"{one.table.id}{one.dataset and f'-{one.dataset}'}.{kind}": WRITERS[kind](one).rstrip("\n") + "\n"
        for one in filled
        for kind in formats
    }


def page(filled: Sequence[FilledTable], sections: Sequence[str] = ()) -> str:
    """All tables, and further sections, on one page."""
    lines = [
        "# The papers' tables and figures",
        "",
        "<!-- generated by `gazebench tables`; do not edit -->",
        "",
        "Published values are to the digit of their source (`leaderboards/published`). Ours are means over the seeds "
        "on the board ± half the width of the 95% interval; only complete official runs stand beside published values.",
        "",
    ]
    return "\n".join([*lines, *(markdown(one) for one in filled), *sections]).rstrip("\n") + "\n"


def question_sections(boards: Path) -> list[str]:
    """What ``gazebench vqa table`` wrote, a section a data set."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((boards / "vqa").glob("*/README.md"))]
    texts = [re.sub(r"<!--.*-->\n\n", "", text).replace("](../../../", "](../../") for text in texts]
    return [re.sub("^#", "##", text, flags=re.MULTILINE).replace("## ", HEADING, 1) for text in texts]


def plan(filled: FilledTable, words: Vocabulary, dataset: str, seeds: Sequence[int]) -> dict[str, Any]:
    """A plan for ``gazebench study`` that makes the rows of a table on a data set.

    The columns are the table's whose metrics the data set's protocol has.
    """
    data = load_dataset(dataset)
    metrics = metric_names(data)
    columns = {column.convention.metric: column.header for column in filled.table.columns}
    rows: dict[str, dict[str, Any]] = {}
    labels: dict[str, list[str]] = {}
    for row in (one.row for one in filled.rows if one.ours is not None):
        how = words.runs[row.method]
        if misfit(load_method(how.method), data):
            continue
        key = row.method + (f"-{row.backbone.lower()}" if row.backbone else "")
        key = key.replace("+", "_").replace(" ", "_")
        options = [f"--{name}={value}" for name, value in how.options.items()]
        if row.backbone and not filled.dataset:
            options.append(f"--model.backbone={words.backbones[row.backbone]}")
        rows.setdefault(key, {"title": row.title, "method": how.method, "options": options})
        labels.setdefault(key, [label or "" for label in row.labels])
    return {
        "title": f"{filled.table.source.title}, {filled.table.place}",
        "text": filled.table.title,
        "dataset": dataset,
        "seeds": list(seeds),
        "rows": rows,
        "tables": [{
            "title": filled.table.place,
            "labels": list(filled.table.labels),
            "rows": labels,
            "columns": {name: header for name, header in columns.items() if name in metrics},
            "subsets": list(dict.fromkeys(column.subset for column in filled.table.columns)),
        }],
    }  # fmt: skip
