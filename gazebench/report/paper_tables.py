"""``gazebench tables``: the papers' tables in their own layout, our runs beside them, and what is still to be run.

Figures stand on the same page; the studies draw them (``paper_figures``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from html import escape
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tabulate import tabulate

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.plugins import PluginError
from gazebench.data.dataset import GazeDataset
from gazebench.engine import record as results
from gazebench.engine.registry import load_dataset, load_method
from gazebench.engine.run import Places
from gazebench.metrics.intervals import Interval, interval
from gazebench.metrics.protocol import ALL
from gazebench.report import paper_figures, published
from gazebench.report.paper_figures import STUDIES
from gazebench.report.published import PublishedFigure, PublishedTable, Recipe, Row, Vocabulary
from gazebench.study.command import main as study

FORMATS = ("md", "tex", "html", "csv")
SPLIT = "dataset.subsets"
"""The setting that columns by subset need where subsets are not the data's own."""
ARROW = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Ours:
    """One cell of ours beside a published one.

    Attributes:
        value: over the seeds there are records of.
        published: None where the paper prints nothing, or where another dataset stands in for the paper's.
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
class Line:
    """A published row with ours; ``ours`` is None where the row is no method of this suite."""

    row: Row
    ours: tuple[Ours, ...] | None
    seeds: int

    @property
    def commands(self) -> tuple[str, ...]:
        """What makes the runs it lacks."""
        return tuple(dict.fromkeys(cell.command for cell in self.ours or () if cell.command))


@dataclass(frozen=True, eq=False)
class Filled:
    """A table of a paper, filled with our runs.

    Attributes:
        dataset: where our runs are from, when it is not the paper's own dataset; else "".
    """

    table: PublishedTable
    lines: tuple[Line, ...]
    dataset: str = ""

    @property
    def missing(self) -> list[Line]:
        """The rows we could fill and have not."""
        return [line for line in self.lines if line.commands]


def fill(table: PublishedTable, words: Vocabulary, boards: Path, dataset: str = "") -> Filled:
    """Looks our records up for every row of a table.

    A record counts when method, options, backbone and dataset are the row's and its class is the best there can be: an
    official run, or a complete one on a drawn dataset. Of several of one seed the newest counts.

    Args:
        table: the published one.
        words: how rows are made here.
        boards: folder of the records.
        dataset: takes the place of the table's own datasets; nothing published is compared then.
    """
    names = [dataset or column.dataset for column in table.columns]
    known = {name: _records(boards, name) for name in dict.fromkeys(names)}
    by_subset = {name for name, column in zip(names, table.columns, strict=True) if column.subset != ALL}
    lines = []
    for row in table.rows:
        recipe = words.runs.get(row.method)
        if recipe is None or (dataset and row.backbone not in ("", recipe.backbone)):  # one backbone stands in for all
            lines.append(Line(row, None, 0))
            continue
        backbone = "" if dataset else words.backbones.get(row.backbone or recipe.backbone, "")
        cells, seeds = [], 0
        for position, (column, name) in enumerate(zip(table.columns, names, strict=True)):
            convention = row.replaced.get(position, column.convention)
            found = _by_seed(known[name], recipe, backbone)
            scores = [_score(record, convention.metric, column.subset) for record in found.values()]
            value = interval([score for score in scores if score is not None])
            printed = row.values[position]
            same = not dataset and printed is not None
            wanted = not value.count and (dataset or printed is not None) and _measures(name, convention.metric)
            how = command(recipe, name, backbone, name in by_subset) if wanted else ""
            cells.append(Ours(value, Decimal(printed) if same and printed else None, convention.tolerance, how))
            seeds = max(seeds, len(found))
        lines.append(Line(row, tuple(cells), seeds))
    return Filled(table, tuple(lines), dataset)


@cache  # a page asks for the same few thousands of times
def _dataset(name: str) -> type[GazeDataset] | None:
    """The suite's dataset of that name; None where there is none."""
    try:
        return load_dataset(name)
    except PluginError:
        return None


def _measures(name: str, metric: str) -> bool:
    """Whether the suite has the dataset, and its protocol the metric."""
    dataset = _dataset(name)
    return dataset is not None and metric in [use.name for use in dataset.protocol.metrics]


def command(recipe: Recipe, dataset: str, backbone: str = "", by_subset: bool = False) -> str:
    """What makes the run of a row."""
    found = _dataset(dataset)
    drawn = found is not None and found.card.synthetic
    parts = ["make bench", f"METHOD={recipe.method}", f"DATASET={dataset}"]
    parts += [] if drawn else ["DATA_ROOT=..."]
    if backbone and _has_backbone(recipe.method):
        parts.append(f"BACKBONE={backbone}")
    options = [f"--{name}={value}" for name, value in recipe.options.items()]
    options += [f"--{SPLIT}=..."] if by_subset and not drawn else []
    if options:
        parts.append('ARGS="' + " ".join(options) + '"')
    return " ".join(parts)


@cache
def _has_backbone(name: str) -> bool:
    method = load_method(name)
    return any("backbone" in signature(base).parameters for base in method.__mro__ if base is not object)


def _records(boards: Path, dataset: str) -> list[dict[str, Any]] | None:
    """The comparable records of a dataset by its protocol; None where the suite has no such dataset."""
    found = _dataset(dataset)
    if found is None:
        return None
    wanted = "synthetic" if found.card.synthetic else "official"
    return [
        record
        for record in results.read_records(boards, dataset)
        if record["status"]["class"] == wanted and record["protocol"]["id"] == found.protocol.id
    ]


def _by_seed(
    records: Sequence[dict[str, Any]] | None, recipe: Recipe, backbone: str
) -> dict[int | None, dict[str, Any]]:
    found: dict[int | None, dict[str, Any]] = {}
    for record in sorted(records or (), key=lambda record: record["finished"]):
        settings = record["config"]
        same = record["method"]["name"] == recipe.method and all(
            _setting(settings, name) == yaml.safe_load(value) for name, value in recipe.options.items()
        )
        other = any(_setting(settings, name) == yaml.safe_load(value) for name, value in recipe.unlike.items())
        if same and not other and backbone in ("", settings["model"].get("backbone", backbone)):
            found[record["seed"]] = record
    return found


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _score(record: Mapping[str, Any], metric: str, subset: str) -> float | None:
    score = record["metrics"].get(metric, {}).get(subset)
    return None if score is None else float(score["value"])


# Writing -------------------------------------------------------------------------------------------------------


def frame(filled: Filled) -> pd.DataFrame:
    """The table as text: for every row what is published, ours, and the difference; columns in the paper's order."""
    table = filled.table
    headings = [(column.group or "", f"{column.header} {ARROW[column.convention.better]}") for column in table.columns]
    rows: list[list[str]] = []
    for line in filled.lines:
        labels = [label or "" for label in line.row.labels]
        if not filled.dataset:
            rows.append([*labels, "published", *(value or "-" for value in line.row.values)])
            labels = [""] * len(labels)
        if line.ours is None or not (line.seeds or filled.dataset):
            continue  # nothing of ours to show
        digits = [column.decimals for column in table.columns]
        ours = [cell.value.text(places) for cell, places in zip(line.ours, digits, strict=True)]
        rows.append([*labels, _seeds(line.seeds), *ours])
        if any(cell.difference is not None for cell in line.ours):
            rows.append([*labels, "difference", *map(_difference, line.ours, digits)])
    columns = [("", label) for label in table.labels] + [("", "")] + headings
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))


def _seeds(count: int) -> str:
    return f"ours ({count} seed{'s' if count != 1 else ''})" if count else "ours (no run)"


def _difference(cell: Ours, digits: int) -> str:
    if cell.difference is None:
        return "-"
    mark = {None: "", True: " ✓", False: " ✗"}[cell.reproduced]
    return f"{cell.difference:+.{digits}f}{mark}"


def markdown(filled: Filled) -> str:
    """The table, its notes, and the commands that fill it."""
    table, shown = filled.table, frame(filled)
    headings = ["<br>".join(filter(None, names)) for names in shown.columns.to_list()]
    grid = tabulate(shown.to_numpy().tolist(), headings, tablefmt="github", disable_numparse=True)
    where = f" on {load_dataset(filled.dataset).card.title}" if filled.dataset else ""
    lines = [f"## {table.source.title}, {table.place}{where}", "", table.title, ""]
    if filled.dataset:
        lines += ["The layout is the paper's, the data are not: no number here can be compared with the paper's.", ""]
    lines += [grid, ""]
    if not filled.dataset and any(cell.reproduced is not None for line in filled.lines for cell in line.ours or ()):
        lines += ["✓ within the tolerance of independent re-runs, ✗ outside; no mark where nobody knows it.", ""]
    wanted = _wanted(filled)
    if wanted:
        lines += ["What is missing (SEED=1, 2 ... for more seeds):", ""]
        lines += [f"- {rows}: `{text}`" for text, rows in wanted.items()] + [""]
    if any(SPLIT in text for text in wanted):
        lines += [f"Subsets need a prober's split for `--{SPLIT}`: `make splits DATASET={filled.table.dataset} "
                  "DATA_ROOT=... PROBER=openai` makes one (docs/splits.md).", ""]  # fmt: skip
    notes = () if filled.dataset else table.notes
    lines += [f"- {note}" for note in notes] + ([""] if notes else [])
    return "\n".join(lines)


def _wanted(filled: Filled) -> dict[str, str]:
    """The rows that each command makes."""
    wanted: dict[str, list[str]] = {}
    for line in filled.missing:
        for text in line.commands:
            wanted.setdefault(text, []).append(line.row.title)
    return {text: ", ".join(rows) for text, rows in wanted.items()}


def latex(filled: Filled) -> str:
    """A ``tabular`` with booktabs rules; second headings span their columns."""
    shown = _escaped(frame(filled))
    styled = shown.style.hide(axis="index")
    place = "ll" + "c" * (shown.shape[1] - 2) if len(filled.table.labels) == 1 else None
    text = str(styled.to_latex(hrules=True, multicol_align="c", column_format=place))
    missing = "".join(f"% missing: {rows}: {how}\n" for how, rows in _wanted(filled).items())
    return f"% {filled.table.source.title}, {filled.table.place}; needs booktabs, amssymb\n{missing}{text}"


def _escaped(shown: pd.DataFrame) -> pd.DataFrame:
    signs = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$",
             "✓": r"$\checkmark$", "✗": r"$\times$", "×": r"$\times$"}  # fmt: skip

    def escape(text: Any) -> str:
        return "".join(signs.get(sign, sign) for sign in str(text))

    escaped = shown.map(escape)
    escaped.columns = pd.MultiIndex.from_tuples([tuple(map(escape, names)) for names in shown.columns.to_list()])
    return escaped


def html(filled: Filled) -> str:
    """A ``<table>`` with a caption."""
    styled = frame(filled).style.hide(axis="index")
    styled = styled.set_caption(f"{filled.table.source.title}, {filled.table.place}").format(escape="html")
    text = str(styled.to_html(table_uuid=filled.table.id))
    missing = [f"<li>{escape(rows)}: <code>{escape(how)}</code></li>" for how, rows in _wanted(filled).items()]
    return text + ("\n".join(["<p>What is missing:</p>", "<ul>", *missing, "</ul>", ""]) if missing else "")


def csv(filled: Filled) -> str:
    """One line a cell, in full precision: what a program wants."""
    rows = []
    for line in filled.lines:
        cells: Iterable[Ours | None] = line.ours or [None] * len(filled.table.columns)
        for position, (column, cell) in enumerate(zip(filled.table.columns, cells, strict=True)):
            convention = line.row.replaced.get(position, column.convention)
            rows.append(
                {
                    "table": filled.table.id,
                    "row": line.row.title,
                    "method": line.row.method,
                    "dataset": filled.dataset or column.dataset,
                    "metric": convention.metric,
                    "subset": column.subset,
                    "convention": convention.key,
                    "published": None if filled.dataset else line.row.values[position],
                    "ours": None if cell is None or not cell.value.count else cell.value.mean,
                    "half_width": None if cell is None else cell.value.half,
                    "seeds": 0 if cell is None else cell.value.count,
                    "difference": None if cell is None else cell.difference,
                    "tolerance": convention.tolerance,
                    "reproduced": None if cell is None else cell.reproduced,
                    "command": None if cell is None else cell.command or None,
                }
            )
    return str(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


WRITERS = {"md": markdown, "tex": latex, "html": html, "csv": csv}


def write(filled: Sequence[Filled], folder: Path, formats: Iterable[str]) -> list[Path]:
    """A file a table and format."""
    paths = []
    for one in filled:
        name = one.table.id + (f"-{one.dataset}" if one.dataset else "")
        for kind in formats:
            paths.append(folder / f"{name}.{kind}")
            write_atomically(paths[-1], WRITERS[kind](one).rstrip("\n") + "\n")
    return paths


def page(filled: Sequence[Filled], figures: Sequence[str] = ()) -> str:
    """All tables, and the sections of figures, on one page."""
    lines = [
        "# The papers' tables and figures",
        "",
        "<!-- generated by `gazebench tables`; do not edit -->",
        "",
        "Published values are to the digit of their source (`leaderboards/published`). Ours are means over the seeds "
        "on the board ± half the width of the 95% interval; only complete official runs stand beside published values.",
        "",
    ]
    return "\n".join([*lines, *(markdown(one) for one in filled), *figures]).rstrip("\n") + "\n"


def tasks(boards: Path) -> list[str]:
    """The sections of models by tasks: the pages that ``gazebench vqa table`` writes, one a dataset."""
    sections = []
    for path in sorted((boards / "vqa").glob("*/README.md")):
        title, _, text = path.read_text(encoding="utf-8").partition("\n")
        lines = [line for line in text.splitlines() if not line.startswith("<!--")]
        body = "\n".join(lines).replace("](../../../", "](../../").replace("\n## ", "\n### ").strip()
        sections.append(f"## The four tasks of VL4Gaze, in questions of ours: {title.removeprefix('# ')}\n\n{body}\n")
    return sections


# Running what is missing -----------------------------------------------------------------------------------------


def plan(filled: Filled, words: Vocabulary, dataset: str, seeds: Sequence[int]) -> dict[str, Any]:
    """A plan for ``gazebench study`` that makes the rows of a table on a dataset.

    The columns are the table's whose metrics the dataset's protocol has.
    """
    protocol = load_dataset(dataset).protocol
    metrics = {use.name for use in protocol.metrics}
    rows, cells = {}, {}
    for line in filled.lines:
        if line.ours is None:
            continue
        recipe = words.runs[line.row.method]
        key = line.row.method + (f"-{line.row.backbone.lower()}" if line.row.backbone else "")
        key = key.replace("+", "_").replace(" ", "_")
        options = [f"--{name}={value}" for name, value in recipe.options.items()]
        if line.row.backbone and not filled.dataset:
            options.append(f"--model.backbone={words.backbones[line.row.backbone]}")
        if key not in rows:
            rows[key] = {"title": line.row.title, "method": recipe.method, "options": options}
            cells[key] = [label or "" for label in line.row.labels]
    columns = {column.convention.metric: column.header for column in filled.table.columns}
    subsets = list(dict.fromkeys(column.subset for column in filled.table.columns))
    return {
        "title": f"{filled.table.source.title}, {filled.table.place}",
        "text": filled.table.title,
        "dataset": dataset,
        "seeds": list(seeds),
        "rows": rows,
        "tables": [
            {
                "title": filled.table.place,
                "labels": list(filled.table.labels),
                "rows": cells,
                "columns": {name: header for name, header in columns.items() if name in metrics},
                "subsets": subsets,
            }
        ],
    }


# The command -----------------------------------------------------------------------------------------------------

USAGE = """gazebench tables [ID ...] [--dataset NAME] [--format md|tex|html|csv] [--out DIR] [--boards DIR] [--check]
gazebench tables hclora-figure-2 ...   draws figures anew, from what the studies have stored
gazebench tables ID --run [--dataset NAME] [--seeds 0,1,2] [--jobs N] [--dry-run] [--group.setting=value ...]"""


def main(arguments: Sequence[str], places: Places) -> int:
    """Writes the tables and draws the figures, or runs what one of them is missing.

    Raises:
        DataError: an unknown table or figure, or one whose rows cannot be run.
    """
    parser = argparse.ArgumentParser(prog="gazebench tables", usage=USAGE, allow_abbrev=False)
    parser.add_argument("tables", nargs="*", metavar="ID")
    parser.add_argument("--dataset", default="", help="take our numbers from this dataset, e.g. gazeworld")
    parser.add_argument("--format", choices=FORMATS, action="append")
    parser.add_argument("--out", type=Path, help="default: BOARDS/tables")
    parser.add_argument("--check", action="store_true", help="only say whether the tables are up to date")
    parser.add_argument("--run", action="store_true", help="run what is missing, as a resumable study")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, help="runs at the same time; default: one a device")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--studies", type=Path, default=STUDIES, help="folder of the plans that draw figures")
    given, options = parser.parse_known_args(list(arguments))
    words, known = published.vocabulary(), published.load()
    figures = published.figures()
    names = {figure.id: figure for figure in figures}
    chosen = [published.table_of(known, name, names) for name in given.tables if name not in names]
    shown = [names[name] for name in given.tables if name in names]
    if not given.tables:
        chosen, shown = known, figures
    out = given.out or places.boards / "tables"
    drawn = paper_figures.drawings(given.studies, figures) if shown else []
    if given.run:
        return _run(given, options, [*chosen, *shown], words, places, out, drawn)
    if options:
        raise DataError(f"gazebench tables: {' '.join(options)} makes no sense without --run\n{USAGE}")
    filled = [fill(table, words, places.boards, given.dataset) for table in chosen]
    for problem in (line for figure in shown if given.tables for line in paper_figures.draw(figure, drawn, places)):
        print(f"  {problem}", file=sys.stderr)
    sections = (
        [] if given.dataset and not given.tables else [paper_figures.section(figure, drawn, out) for figure in shown]
    )
    if not given.dataset and not given.tables:  # the whole page: GazeWorld fills the layouts it can
        for dataset, layouts in words.stand_ins.items():
            filled += [fill(published.table_of(known, name), words, places.boards, dataset) for name in layouts]
        sections += tasks(places.boards)
    if given.check:
        path = out / "README.md"
        stale = not path.is_file() or path.read_text(encoding="utf-8") != page(filled, sections)
        if stale:
            print(f"out of date: {path}; run `gazebench tables`", file=sys.stderr)
        return int(stale)
    paths = write(filled, out, given.format or ())
    if given.tables:
        print("\n".join([*(markdown(one) for one in filled), *sections]))
    else:
        paths.append(out / "README.md")
        write_atomically(paths[-1], page(filled, sections))
    if paths:
        print(f"{len(paths)} file{'s' if len(paths) > 1 else ''} in {out}")
    return 0


def _run(
    given: argparse.Namespace, options: Sequence[str], chosen: Sequence[PublishedTable | PublishedFigure],
    words: Vocabulary, places: Places, out: Path, drawn: Sequence[paper_figures.Drawing],
) -> int:  # fmt: skip
    if len(given.tables) != 1:
        raise DataError(f"gazebench tables --run: give one table\n{USAGE}")
    table = chosen[0]
    dataset = given.dataset or table.dataset
    flags = [*([f"--jobs={given.jobs}"] if given.jobs else []), *(["--dry-run"] if given.dry_run else [])]
    for one in drawn:  # a study of that very dataset is the plan, and keeps its results
        if table.id in one.figure.paper and one.measured.plan.dataset == dataset:
            return study([str(one.measured.plan.file), *flags, *options], places)
    try:
        seeds = [int(seed) for seed in given.seeds.split(",")]
    except ValueError:
        raise DataError(f"--seeds {given.seeds}: give whole numbers with commas between them") from None
    if isinstance(table, PublishedFigure):
        content = paper_figures.plan(table, drawn, dataset, seeds)
    else:
        content = plan(fill(table, words, places.boards, given.dataset), words, dataset, seeds)
    if not content["rows"]:
        raise DataError(f"{table.id}: no row of this table is a method of this suite")
    path = out / "plans" / f"{table.id}-{dataset}.yaml"
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    return study([str(path), "--adopt", *flags, *options], places)
