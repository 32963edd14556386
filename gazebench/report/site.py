"""The board for the browser: ``index.html`` over all data sets, to sort, filter, search and plot, and a page a record.

The pages work from a file and offline. Nothing of them is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from markupsafe import Markup

from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.engine.record import read_files
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places
from gazebench.engine.standing import HEADINGS, lowest, parts
from gazebench.metrics.protocol import ALL, SUBSETS
from gazebench.metrics.scoring import Score
from gazebench.report import published
from gazebench.report.board_rows import (
    BADGES,
    BLIND,
    COSTS,
    REFERENCES,
    UNKNOWN_FAMILY,
    Board,
    RunGroup,
    lacks,
    make_board,
    origins,
    published_rows,
    selection,
    subsets_by,
    timing,
    trained_on,
)
from gazebench.report.page import MARK, copy_assets, link, render, write
from gazebench.report.record_page import record_page
from gazebench.report.run_data import known_dataset
from gazebench.report.table import Cell, Column, HtmlCell, Table, number

SECTIONS = {
    **{name: heading for name, heading in HEADINGS.items() if name != "smoke"},
    "official": "Complete official test set, and published values",
    "reference": "For reference, not ranked: floors, and how far the annotators agree",
    "smoke": HEADINGS["smoke"],
}
"""Headings of the groups of a table; no sorting mixes them."""


def of_runs(places: Places) -> Path:
    """The folder of the board of this machine, whose runs lead to their own pages."""
    return places.runs / "board"


def build(out: Path, boards: Path, runs: Path | None = None) -> Path:
    """Writes the board and the page of every record into a folder; returns ``index.html``.

    Args:
        out: the folder; pages in it that this function wrote for records that are gone are removed.
        boards: folder of the records.
        runs: where runs are; those that have a ``report.html`` there are linked to it instead of their record's page.
    """
    full = {(path.parts[-4], path.parts[-2]): path for path in (runs.glob("*/*/*/report.html") if runs else ())}
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        copy_assets(out)
        shown, left_out = read_boards(boards)
        pages, addresses = dict[Path, str](), dict[str, str]()
        for board, group in ((one, group) for one in shown for group in one.groups):
            for stem, record in group.records.items():
                page = out / board.name / f"{stem}.html"
                addresses[stem] = link(full.get((board.name, record["run"]), page), out)
                pages[page] = record_page(
                    record, board.protocol, board.title, index=f"../index.html#{board.name}", assets="../assets",
                    siblings={f"{name}.html": one for name, one in group.records.items() if name != stem},
                )  # fmt: skip
        pages[out / "index.html"] = index(shown, left_out, addresses)
        for path in out.glob("*/*.html"):
            if path not in pages and MARK in path.read_text(encoding="utf-8"):
                path.unlink()
        write(pages)
    return out / "index.html"


def read_boards(folder: Path) -> tuple[list[Board], dict[str, str]]:
    """Data sets with records first, then those only others published on; and those that cannot be read, with why."""
    shown, left_out = [], {}
    names = sorted({path.parent.name for path in folder.glob("*/*.json")})
    for name in names:
        try:
            shown.append(make_board(name, load_dataset(name), read_files(folder, name)))
        except (PluginError, DataError) as error:  # no reason to keep another data set's results back
            left_out[name] = str(error)
    titles = published.vocabulary().datasets
    for name, rows in published_rows().items():
        if name not in names:
            dataset = known_dataset(name)
            title = titles.get(name, name)
            shown.append(make_board(name, dataset, {}) if dataset else Board(name, name, title, None, [], rows))
    return shown, left_out


def index(boards: Sequence[Board], left_out: Mapping[str, str], addresses: Mapping[str, str]) -> str:
    """The page over all data sets.

    Args:
        boards: in the order they are offered.
        left_out: names of data sets that could not be read, and why.
        addresses: of the records' pages, by the file names of the records.
    """
    families = {row.family for board in boards for row in board.rows}
    shown = {row.result_class if isinstance(row, RunGroup) else "published" for one in boards for row in one.rows}
    data = {board.key: plotted(board, addresses) for one in boards for board in one.by_task if board.groups}
    found = [row["costs"] for one in data.values() for row in one["rows"]]
    return render(
        "index.html.j2",
        datasets=[
            (whole, [
                {"board": board, "table": grid(board, addresses).html("grid", sortable=True),
                 "conventions": {cell.convention.key: cell.convention for row in board.published
                                 for cell in row.cells.values()}.values()}
                for board in whole.by_task
            ])
            for whole in boards
        ],
        left_out=left_out, families=sorted(families, key=lambda family: (family == UNKNOWN_FAMILY, family)),
        assets="assets", subsets=SUBSETS, badges=BADGES, data=data,
        kinds=[kind for kind in BADGES if kind in shown],
        costs=[cost for cost in COSTS if any(one[cost.key] is not None for one in found)],
    )  # fmt: skip


def grid(board: Board, addresses: Mapping[str, str]) -> Table:
    """All rows and columns; the last one, which is hidden, keeps the classes of runs apart."""
    columns = [
        Column("method"),
        *board.columns.values(),
        Column("seeds", digits=0, higher=True, about="how many seeds a value is the mean of"),
        Column("training data"),
        Column("selection", about="of the epoch"),
        Column("people", digits=0, about="people tested"),
        *COSTS,
        Column("group"),
    ]
    rows: list[list[Cell]] = []
    attributes = []
    sections = list(SECTIONS)
    for row in board.rows:
        kind = row.result_class if isinstance(row, RunGroup) else "published"
        section = "reference" if row.reference and kind != "smoke" else kind if kind in SECTIONS else "official"
        attributes.append({"class": kind, "data-kind": kind, "data-family": row.family})
        last = HtmlCell(Markup.escape(SECTIONS[section]), sections.index(section))
        mark: dict[str, Any] = {"backbone": row.backbone, "kind": kind, "badge": BADGES[kind], "rank": "", "gaps": (),
                                "reference": row.reference, "why": REFERENCES.get(row.reference, "")}  # fmt: skip
        if isinstance(row, RunGroup) and row.blind:
            mark |= {"reference": row.blind, "why": BLIND[row.blind]}
        if isinstance(row, RunGroup):
            values: list[Cell] = [row.value(*key) for key in board.columns]
            values += [len(row.counted), trained_on(row.lead) or None, selection(row.lead)]
            values += [row.lead["samples"]["people"], *row.costs().values()]
            about = _about_runs(row, addresses) | {"rank": board.ranks.get(row, "")}
        else:
            shown = [row.cells.get(key) for key in board.columns]
            values = [
                HtmlCell(Markup(render("published.html.j2", cell=cell)), cell.printed) if cell else None
                for cell in shown
            ]
            values += [None] * (4 + len(COSTS))
            about = {"link": "", "facts": [
                ("source", f"{row.source}: {'; '.join(row.places)}"), ("read", row.tag),
                *(("note", note) for note in row.notes),
            ]}  # fmt: skip
        cell = render("method.html.j2", title=row.title, **mark | about)
        rows.append([HtmlCell(Markup(cell), row.title), *values, last])
    kept = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    return Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], attributes=attributes)


def _about_runs(group: RunGroup, addresses: Mapping[str, str]) -> dict[str, Any]:
    record, found = group.lead, origins(group.lead, look_up=True)
    weights = record["weights"]
    trained = f"; trained: {found['weights']}" if "weights" in found else ""
    pages = [
        (addresses[stem], one["run"] if one["seed"] is None else f"seed {one['seed']}")
        for stem, one in group.records.items()
    ]
    facts = [
        ("family", group.family),
        *([("sees", group.sees)] if group.sees else []),
        *((name, text) for name, text in found.items() if name != "weights"),
    ]
    standing = lowest(parts(weights, record.get("kind", "bench")))
    facts += [("weights", f"{weights.get('name') or 'no backbone'}, {standing}{trained}")]
    facts += [("inference", how)] if (how := timing(record)) else []
    facts += [("subsets by", name)] if (name := subsets_by(record)) else []
    facts += [(BADGES[group.result_class], reason) for reason in record["status"]["reasons"]]
    gaps = {gap: [one["run"] for one in group.counted if gap in lacks(one)] for gap in ("intervals", "provenance")}
    facts += [(f"no {gap}", ", ".join(runs)) for gap, runs in gaps.items() if runs]
    return {"link": pages[0][0], "facts": facts, "pages": pages, "gaps": [gap for gap, runs in gaps.items() if runs]}


def plotted(board: Board, addresses: Mapping[str, str]) -> dict[str, Any]:
    """What the plot needs, by row in the table's order: values with their intervals, and costs."""
    rows: list[dict[str, Any]] = []
    for position, group in enumerate(board.groups):
        values: dict[str, dict[str, list[float | None]]] = {}
        for metric, subset in board.columns:
            if (value := group.value(metric, subset)) is not None:
                known = isinstance(value, Score) or value.half is not None
                ends = (value.low, value.high) if known else (None, None)
                values.setdefault(metric, {})[subset] = [number(value), *ends]
        rows.append({
            "row": position, "title": group.title, "backbone": group.backbone, "family": group.family,
            "kind": BADGES[group.result_class], "href": addresses[next(iter(group.records))],
            "values": values, "costs": group.costs(), "timing": timing(group.lead),
        })  # fmt: skip
    metrics = {
        metric: {"higher": column.higher, "digits": column.digits}
        for (metric, _), column in board.columns.items()
        if any(metric in row["values"] for row in rows)
    }
    return {"rows": rows, "metrics": metrics, "headline": board.headline, "everybody": ALL}
