"""The plan of a study: rows (a method with options) times seeds, and what is made of their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.engine.config import Config, resolve
from gazebench.engine.record import CHECKOUT
from gazebench.engine.registry import load_dataset
from gazebench.metrics.protocol import ALL, Protocol, SUBSETS

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_NAMES = {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}
_SEEDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
_NUMBER = {"type": "number"}
_SUBSET = {"enum": list(SUBSETS)}
_FILE = {"type": "string", "pattern": r"^[A-Za-z0-9_.-]+\.png$"}


def _closed(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "additionalProperties": False, "required": list(required), "properties": properties
    }  # fmt: skip


_ANY_FIGURE = {"kind": _TEXT, "file": _FILE, "title": _TEXT, "text": _TEXT, "metric": _TEXT, "label": _TEXT,
               "unit": _TEXT, "paper": _NAMES}  # fmt: skip
_FIGURES: dict[str, dict[str, Any]] = {
    "subsets": _closed(
        ["kind", "file", "title", "metric", "rows"],
        **_ANY_FIGURE, rows=_NAMES,
        subsets={"type": "array", "items": _SUBSET, "minItems": 1},
    ),
    "exceeding": _closed(
        ["kind", "file", "title", "metric", "rows", "thresholds"],
        **_ANY_FIGURE, rows=_NAMES, subset=_SUBSET, thresholds={"type": "array", "items": _NUMBER, "minItems": 1},
    ),
    "overlays": _closed(
        ["kind", "file", "title", "metric", "above"],
        **_ANY_FIGURE, above=_TEXT, below=_TEXT, subset=_SUBSET,
        count={"type": "integer", "minimum": 1, "maximum": 8}, pick={"enum": ["largest", "worst", "random"]},
        cone=_closed(["angle", "sharpness"], angle=_NUMBER, sharpness=_NUMBER), seed={"type": "integer", "minimum": 0},
    ),
    "scatter": _closed(
        ["kind", "file", "title", "metric", "second", "rows"],
        **_ANY_FIGURE, rows=_NAMES, subset=_SUBSET, second=_TEXT, second_label=_TEXT,
    ),
}  # fmt: skip
"""What a figure says, by its kind: a metric by subset, people beyond thresholds, pictures of single people, a metric
against another one."""

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_closed(
        ["title", "dataset", "seeds", "rows"],
        title=_TEXT, text=_TEXT, dataset=_TEXT, seeds=_SEEDS, options=_TEXTS,
        quick=_closed([], seeds=_SEEDS, options=_TEXTS, rows=_NAMES, note=_TEXT),
        rows={
            "type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[a-z0-9_-]+$"},
            "additionalProperties": _closed(["title", "method"], title=_TEXT, method=_TEXT, options=_TEXTS),
        },
        tables={"type": "array", "items": _closed(
            ["title", "rows", "columns"],
            title=_TEXT, text=_TEXT, labels=_TEXTS, columns={"anyOf": [_NAMES, {"type": "object", "minProperties": 1}]},
            rows={"anyOf": [_NAMES, {"type": "object", "minProperties": 1, "additionalProperties": _TEXTS}]},
            subsets={"type": "array", "items": _SUBSET, "minItems": 1},
        )},
        figures={"type": "array", "items": {
            "type": "object", "required": ["kind"], "properties": {"kind": {"enum": list(_FIGURES)}},
        }},
        claims={"type": "array", "items": _closed(
            ["text", "metric", "row", "at_least"],
            text=_TEXT, metric=_TEXT, row=_TEXT, against=_TEXT, subset=_SUBSET, against_subset=_SUBSET,
            at_least=_NUMBER, over=_NUMBER, paper=_TEXT,
        )},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method with options, under the title tables give it."""

    key: str
    title: str
    method: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes:
        arguments: method, dataset and every option of the plan but the seed; what a stored result is compared by.
    """

    row: str
    seed: int
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.row} seed {self.seed}"


@dataclass(frozen=True)
class Table:
    """A table in a paper's layout: a block of columns for each subset.

    Attributes:
        labels: headings of the columns that name a row.
        rows: the cells below ``labels`` by row.
        columns: the heading of each metric.
    """

    title: str
    labels: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, str]
    subsets: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure; which fields count depends on ``kind``, see ``SCHEMA``.

    Attributes:
        label: what the metric is called in it.
        unit: what is written behind the metric's values.
        paper: ids of the published figures it is drawn after (``gazebench tables ID``).
        above, below: the rows whose predictions are shown; one alone stands above.
        seed: whose predictions are shown; None is the first that the rows have.
        second, second_label: the metric upwards, of a scatter.
    """

    kind: str
    file: str
    title: str
    metric: str
    text: str = ""
    label: str = ""
    unit: str = ""
    rows: tuple[str, ...] = ()
    subsets: tuple[str, ...] = SUBSETS[1:]
    subset: str = ALL
    thresholds: tuple[float, ...] = ()
    above: str = ""
    below: str = ""
    count: int = 4
    pick: str = "largest"
    cone: Mapping[str, float] | None = None
    seed: int | None = None
    second: str = ""
    second_label: str = ""
    paper: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the metric is called."""
        return self.label or self.metric

    @property
    def panels(self) -> tuple[str, ...]:
        """The rows whose predictions are shown, from above."""
        return tuple(filter(None, (self.above, self.below)))


@dataclass(frozen=True)
class Claim:
    """``row`` on ``subset`` is better than ``against`` on ``against_subset`` by a share of the latter's value.

    Attributes:
        at_least: the share asked for; 0 is "not worse", below 0 allows for that much worse.
        over: instead of the metric's mean, the number of people whose value is larger than this.
        paper: what the paper says, in words.
    """

    text: str
    metric: str
    row: str
    against: str
    at_least: float
    subset: str = ALL
    against_subset: str = ALL
    over: float | None = None
    paper: str = ""


@dataclass(frozen=True)
class Plan:
    """A plan that was read and makes sense.

    Attributes:
        file: where it was read from.
        extra: options of the command line; they go to every run and are part of its settings.
        left_out: titles of the rows that a quick study does not run.
        note: what a reader of a quick study must know; empty for the study itself.
    """

    file: Path
    title: str
    text: str
    dataset: str
    seeds: tuple[int, ...]
    options: tuple[str, ...]
    rows: Mapping[str, Row]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    claims: tuple[Claim, ...]
    quick: bool = False
    note: str = ""
    left_out: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    _configs: dict[str, Config] = field(default_factory=dict, repr=False, compare=False)

    @property
    def runs(self) -> list[Run]:
        """All runs, the first seed of every row first, so that an interrupted study can be read already."""
        return [
            Run(row.key, seed, (row.method, self.dataset, *row.options, *self.options))
            for seed in self.seeds
            for row in self.rows.values()
        ]

    @property
    def shown(self) -> str:
        """The plan's path as the page names it, the same on every machine."""
        path = self.file.resolve()
        if CHECKOUT is not None and path.is_relative_to(CHECKOUT):
            return path.relative_to(CHECKOUT).as_posix()
        return path.name

    @cached_property
    def protocol(self) -> Protocol:
        """How the dataset is scored."""
        return load_dataset(self.dataset).protocol

    def config(self, run: Run) -> Config:
        """The resolved configuration of a run.

        Raises:
            DataError: a method, dataset or option that does not exist; names the file and the row.
        """
        if run.row not in self._configs:
            where = f"{self.file}: row {run.row!r}"
            try:
                self._configs[run.row] = resolve([*run.arguments, *self.extra], prog=where)
            except PluginError as error:
                raise DataError(f"{where}: {error}") from error
        return Config(self._configs[run.row].values | {"seed": run.seed})


def read_plan(path: Path, *, quick: bool = False, extra: Sequence[str] = ()) -> Plan:
    """Reads a plan and checks that everything it names exists; no method is loaded.

    Raises:
        DataError: names the file, the place in it and the remedy.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such plan of a study")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    _matches(path, given, SCHEMA)
    for index, figure in enumerate(given.get("figures", [])):
        _matches(path, figure, _FIGURES[figure["kind"]], f"figures/{index}/")
    rows = {
        key: Row(key, row["title"], row["method"], tuple(row.get("options", []))) for key, row in given["rows"].items()
    }
    plan = Plan(
        file=path,
        title=given["title"],
        text=given.get("text", ""),
        dataset=given["dataset"],
        seeds=tuple(given["seeds"]),
        options=tuple(given.get("options", [])),
        rows=rows,
        tables=tuple(_table(path, table, rows) for table in given.get("tables", [])),
        figures=tuple(_figure(figure) for figure in given.get("figures", [])),
        claims=tuple(_claim(claim) for claim in given.get("claims", [])),
        extra=tuple(extra),
    )
    _check(plan, given.get("quick", {}))
    return _quick(plan, given) if quick else plan


def _matches(path: Path, value: Any, schema: Mapping[str, Any], prefix: str = "") -> None:
    try:
        jsonschema.validate(value, schema)
    except jsonschema.ValidationError as error:
        place = prefix + "/".join(map(str, error.absolute_path))
        raise DataError(f"{path}: {place or 'top level'}: {error.message}") from error


def _table(path: Path, given: Mapping[str, Any], rows: Mapping[str, Row]) -> Table:
    columns, named = given["columns"], given["rows"]
    labels = tuple(given.get("labels", ["Method"]))
    if not isinstance(named, dict):
        named = {key: [rows[key].title] if key in rows else [] for key in named}
    for key, cells in named.items():
        if key in rows and len(cells) != len(labels):
            raise DataError(
                f"{path}: table {given['title']!r}: row {key!r} has {len(cells)} cell(s) for {len(labels)} label(s) "
                f"({', '.join(labels)}); give `rows` as a mapping from rows to their cells"
            )
    return Table(
        title=given["title"],
        labels=labels,
        rows={key: tuple(cells) for key, cells in named.items()},
        columns=dict(columns) if isinstance(columns, dict) else {name: name for name in columns},
        subsets=tuple(given.get("subsets", SUBSETS[1:])),
        text=given.get("text", ""),
    )


def _figure(given: Mapping[str, Any]) -> Figure:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Figure(**values)


def _claim(given: Mapping[str, Any]) -> Claim:
    subset = given.get("subset", ALL)
    return Claim(**{"against": given["row"], "against_subset": subset, **given})


def _check(plan: Plan, quick: Mapping[str, Any]) -> None:
    """Everything named exists.

    Raises:
        DataError: names what does not.
    """
    try:
        metrics = [use.name for use in plan.protocol.metrics]
    except PluginError as error:
        raise DataError(f"{plan.file}: dataset: {error}") from error

    def known(where: str, names: Iterable[str], among: Iterable[str], what: str) -> None:
        among = list(among)
        for name in names:
            if name not in among:
                raise DataError(f"{plan.file}: {where}: no {what} {name!r}; there are {', '.join(among)}")

    for where, options in (
        ("options", plan.options), ("quick", quick.get("options", [])),
        *((f"row {row.key!r}", row.options) for row in plan.rows.values()),
    ):  # fmt: skip
        for option in options:
            if not option.startswith("--") or "=" not in option:
                raise DataError(f"{plan.file}: {where}: {option!r} is no option; write it as --group.name=value")
            if option.split("=")[0] in ("--seed", "--method", "--data", "--config"):
                raise DataError(f"{plan.file}: {where}: {option!r}: seeds, methods and the dataset have their own keys")
    known("quick", quick.get("rows", []), plan.rows, "row")
    for table in plan.tables:
        known(f"table {table.title!r}", table.rows, plan.rows, "row")
        known(f"table {table.title!r}", table.columns, metrics, "metric")
    for figure in plan.figures:
        where = f"figure {figure.file!r}"
        known(where, [*figure.rows, *figure.panels], plan.rows, "row")
        known(where, [figure.metric, *filter(None, [figure.second])], metrics, "metric")
        if figure.kind == "overlays" and figure.pick == "largest" and not figure.below:
            raise DataError(f"{plan.file}: {where}: improvements are from one row to another; give `below`, or `pick`")
    files = [figure.file for figure in plan.figures]
    if len(set(files)) < len(files):
        raise DataError(f"{plan.file}: two figures have the same file name: {', '.join(sorted(files))}")
    for claim in plan.claims:
        where = f"claim {claim.text!r}"
        known(where, [claim.row, claim.against], plan.rows, "row")
        known(where, [claim.metric], metrics, "metric")
        if (claim.row, claim.subset) == (claim.against, claim.against_subset):
            raise DataError(f"{plan.file}: {where} compares a row with itself; give `against` or `against_subset`")


def _quick(plan: Plan, given: Mapping[str, Any]) -> Plan:
    """The small study of a plan: fewer seeds and rows, further options; what needs other rows is left out.

    Raises:
        DataError: the plan has no quick study.
    """
    if "quick" not in given:
        raise DataError(f"{plan.file}: has no quick study; add a key `quick` with seeds and options")
    quick = given["quick"]
    names = quick.get("rows", list(plan.rows))
    has: Callable[[str], bool] = names.__contains__
    tables = (replace(t, rows={key: cells for key, cells in t.rows.items() if has(key)}) for t in plan.tables)
    figures = (replace(figure, rows=tuple(filter(has, figure.rows))) for figure in plan.figures)
    return replace(
        plan,
        quick=True,
        seeds=tuple(quick.get("seeds", plan.seeds)),
        options=(*plan.options, *quick.get("options", [])),
        rows={key: row for key, row in plan.rows.items() if has(key)},
        tables=tuple(table for table in tables if table.rows),
        figures=tuple(f for f in figures if f.rows or (f.panels and all(map(has, f.panels)))),
        claims=tuple(claim for claim in plan.claims if has(claim.row) and has(claim.against)),
        note=quick.get("note", "fewer seeds and less training than the study"),
        left_out=tuple(row.title for key, row in plan.rows.items() if not has(key)),
    )
