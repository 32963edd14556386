"""Published numbers: the papers' tables as data, to the digit, each value with its source and its convention.

``leaderboards/published`` holds one YAML file a source, and ``conventions.yaml`` for what their columns mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, ValidationInfo, model_validator

from gazebench.core.errors import DataError
from gazebench.report.yaml_models import Model, Text, known, read

SHIPPED = "gazebench.leaderboards.published"
"""Beside the package in a checkout, inside it when installed, as ``splits`` are."""
CONVENTIONS = "conventions.yaml"
UNITS = {
    "fraction": Decimal(1),
    "percent": Decimal(100),
    "normalised": Decimal("1.4143"),  # the diagonal of the unit square
    "degree": Decimal(180),
    "people": Decimal("Infinity"),
}
"""What values are given in, and the largest possible one: a slipped decimal point rarely stays below it."""

Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([_+-][a-z0-9]+)*$")]
Subset = Literal["all", "consistent", "inconsistent"]
Tag = Literal["paper", "author-reported", "official code", "re-run"]
"""How close to its origin a row was read: printed in this paper; reported by a method's authors, quoted from another
source; seen in official code; somebody else's re-run, quoted from another source."""


class Convention(Model):
    """What a number means; two numbers compare where their conventions are the same.

    Attributes:
        metric: our name, the same for the same thing.
        task: whose board it stands on, a key of ``metrics.protocol.TASKS``; where a protocol has the metric, its task.
        stated: where the rule is from.
        tolerance: how far re-runs of one method lie apart; None where nobody tried.
    """

    key: str
    metric: Key
    task: Literal["gaze", "social", "semantic"] = "gaze"
    unit: Literal["fraction", "percent", "normalised", "degree", "people"]
    better: Literal["higher", "lower"]
    stated: Literal["paper", "official code", "inferred", "not stated"]
    text: Text
    tolerance: Decimal | None = None

    @property
    def certain(self) -> bool:
        """Whether the rule is stated by the paper or was seen in official code."""
        return self.stated in ("paper", "official code")

    def compares(self, other: Convention) -> bool:
        return (self.unit, self.better) == (other.unit, other.better)


class MethodOptions(Model):
    """How a published method is run here: a method of the registry, and the options that make it this one.

    Attributes:
        options: what a run must have, as on the command line.
        unlike: settings that make it another row's.
        backbone: the printed name of the one that rows mean which print none; "" where the method's own is meant.
    """

    method: Text
    options: dict[str, Text] = {}
    unlike: dict[str, Text] = {}
    backbone: str = ""


class Vocabulary(Model):
    """The names that tables may use.

    Attributes:
        datasets: titles by name; names as in the registry where it has them.
        methods: titles by key.
        runs: by the method's key; the other methods are only published.
        backbones: our names of the printed ones.
        stand_ins: ids of the tables that runs on a drawn data set can fill, by its name.
    """

    conventions: dict[Key, Convention] = Field(min_length=1)
    datasets: dict[Key, Text]
    methods: dict[Key, Text]
    runs: dict[Key, MethodOptions] = {}
    backbones: dict[str, Text] = {}
    stand_ins: dict[str, list[Text]] = {}

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, given: dict[str, Any]) -> dict[str, Any]:
        return given | {"conventions": {key: {"key": key, **one} for key, one in given["conventions"].items()}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        first: dict[str, Convention] = {}
        for one in self.conventions.values():
            other = first.setdefault(one.metric, one)
            if not one.compares(other):
                raise ValueError(
                    f"convention {one.key!r}: by {other.key!r}, {one.metric} is in {other.unit} and {other.better} is "
                    "better; a metric has one unit and one direction, so give this one another name"
                )
        for key, run in self.runs.items():
            known("runs: method", key, self.methods)
            if run.backbone:
                known(f"runs: {key}: backbone", run.backbone, self.backbones)
        return self


def _named(kind: str) -> BeforeValidator:
    """The value is a name that conventions.yaml defines; a convention takes the place of its name."""

    def check(name: Any, info: ValidationInfo) -> Any:
        assert isinstance(info.context, Vocabulary)
        among = getattr(info.context, f"{kind}s")
        return among[known(kind, str(name), among)] if kind == "convention" else known(kind, str(name), among)

    return BeforeValidator(check)


Dataset = Annotated[str, _named("dataset")]
NamedConvention = Annotated[Convention, _named("convention")]


class Source(Model):
    """A paper, or notes that quote several; ``text`` names the text its numbers were read from."""

    key: Key
    title: Text
    authors: str = ""
    url: str = ""
    text: str = ""
    notes: tuple[Text, ...] = ()


class PublishedColumn(Model):
    """A column of values.

    Attributes:
        header: as printed, without the arrow of its direction.
        group: the heading above it, e.g. *Inconsistent*; empty where there is none.
        decimals: printed ones; rows may differ.
    """

    header: Text
    group: str = ""
    dataset: Dataset
    subset: Subset
    convention: NamedConvention
    decimals: int

    @property
    def title(self) -> str:
        return f"{self.group} {self.header}".strip()


class PublishedRow(Model):
    """A row of values.

    Attributes:
        labels: the printed cells that name it; None where the cell is empty.
        method: the same key for the same method in every source.
        values: as printed, one a column; None where nothing is printed.
        cite: the printed number of its reference, kept apart from the label.
        backbone: where it is printed.
        decimals: where they are not those of the columns.
        underlined: which values are underlined (second best), from 1.
        conventions: of this row, by the column's convention that they replace.
    """

    labels: tuple[str | None, ...]
    method: Annotated[str, _named("method")]
    values: tuple[str | None, ...]
    tag: Tag
    cite: str = ""
    backbone: str = ""
    note: str = ""
    decimals: int | None = None
    underlined: frozenset[int] = frozenset()
    conventions: dict[str, NamedConvention] = {}

    @property
    def title(self) -> str:
        return " ".join(label or "-" for label in self.labels)

    def convention(self, column: PublishedColumn) -> Convention:
        return self.conventions.get(column.convention.key, column.convention)


class PublishedFigure(Model):
    """A drawing whose numbers no text prints; ``place`` is e.g. *Figure 3*, ``dataset`` the paper's own."""

    source: Source
    id: Key
    place: Text
    title: Text
    dataset: Dataset


class PublishedTable(PublishedFigure):
    """One table, or what a figure or a section states in words.

    Attributes:
        id: unique among all sources.
        labels: headings of the columns that name a row.
        tag: of rows that have none of their own.
        quotes: the sentences its numbers are from where no table prints them.
        notes: what a reader must know, among it where the source contradicts itself.
    """

    tag: Tag
    labels: tuple[Text, ...] = Field(min_length=1)
    columns: tuple[PublishedColumn, ...] = Field(min_length=1)
    rows: tuple[PublishedRow, ...] = Field(min_length=1)
    notes: tuple[Text, ...] = ()
    quotes: tuple[Text, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        columns = [{"dataset": given.get("dataset"), **column} for column in given.get("columns", ())]
        return given | {"columns": columns, "rows": [{"tag": given.get("tag"), **row} for row in given.get("rows", ())]}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _once("column", [column.title for column in self.columns], "group")
        _once("row", [f"{row.title} {row.cite} {row.backbone}".strip() for row in self.rows], "cite")
        for row in self.rows:
            for what, found, wanted in (
                ("labels", len(row.labels), len(self.labels)), ("values", len(row.values), len(self.columns))
            ):  # fmt: skip
                if found != wanted:
                    raise ValueError(f"row {row.title!r}: {found} {what} for {wanted}; null stands for a missing one")
            for column, printed in zip(self.columns, row.values, strict=True):
                if printed is not None:
                    _check(f"row {row.title!r}: column {column.title!r}", column, printed, row.decimals)
            for position in row.underlined:
                if position not in range(1, len(row.values) + 1) or row.values[position - 1] is None:
                    raise ValueError(f"row {row.title!r}: underlined: there is no value {position}, counted from 1")
            theirs = {column.convention.key: column.convention for column in self.columns}
            for key, mine in row.conventions.items():
                where = f"row {row.title!r}: conventions"
                if not mine.compares(theirs[known(f"{where}: column with", key, theirs)]):
                    raise ValueError(f"{where}: {mine.key} has another unit or direction than {key}")
        return self

    def cells(self) -> Iterator[PublishedCell]:
        """All printed values, row by row; missing ones are passed over."""
        for row in self.rows:
            for column, printed in zip(self.columns, row.values, strict=True):
                if printed is not None:
                    yield PublishedCell(self, row, column, printed, row.convention(column))


class _SourceFile(Model):
    source: Source
    tables: tuple[PublishedTable, ...] = Field(min_length=1)
    figures: tuple[PublishedFigure, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _sources(cls, given: dict[str, Any]) -> dict[str, Any]:
        lists = {name: given[name] for name in ("tables", "figures") if name in given}
        source = {"source": given.get("source")}
        return given | {name: [source | entry for entry in entries] for name, entries in lists.items()}


@dataclass(frozen=True)
class PublishedCell:
    """One published value; ``printed`` has its digits as in the source."""

    table: PublishedTable
    row: PublishedRow
    column: PublishedColumn
    printed: str
    convention: Convention

    @property
    def value(self) -> Decimal:
        return Decimal(self.printed)


def _once(what: str, names: Sequence[str], apart: str) -> None:
    for name in (name for name in names if names.count(name) > 1):
        raise ValueError(f"{what} {name!r} is there twice; delete one, or tell them apart by `{apart}`")


def _check(where: str, column: PublishedColumn, printed: str, decimals: int | None) -> None:
    if not re.fullmatch(r"\d+|\d*\.\d+", printed):
        raise ValueError(f"{where}: {printed!r} is no number; write what is printed, or null where nothing is")
    found, wanted = len(printed.partition(".")[2]), column.decimals if decimals is None else decimals
    if found != wanted:
        raise ValueError(
            f"{where}: {printed} has {found} decimals instead of {wanted}; "
            "compare it with the source, or give the row its own `decimals`"
        )
    unit = column.convention.unit
    if Decimal(printed) > UNITS[unit]:
        raise ValueError(f"{where}: {printed} is more than {unit} can be ({UNITS[unit]}); compare it with the source")


def vocabulary(folder: Traversable | None = None) -> Vocabulary:
    """The conventions, data sets and methods that tables may name; raises as ``load``."""
    return read((folder or files(SHIPPED)) / CONVENTIONS, Vocabulary, numbers=False)


def load(folder: Traversable | None = None) -> list[PublishedTable]:
    """All published tables, by file; those of this package when no folder is given.

    Raises:
        DataError: names the file, the entry in it and the remedy.
    """
    return [table for file in _files(folder) for table in file.tables]


def figures(folder: Traversable | None = None) -> list[PublishedFigure]:
    """The figures that can be drawn again, by file; raises as ``load``."""
    return [figure for file in _files(folder) for figure in file.figures]


def _files(folder: Traversable | None) -> list[_SourceFile]:
    paths = sorted((folder or files(SHIPPED)).iterdir(), key=lambda path: path.name)
    sources = [path for path in paths if path.name.endswith(".yaml") and path.name != CONVENTIONS]
    words = vocabulary(folder)
    found = [read(path, _SourceFile, words, numbers=False) for path in sources]
    ids = Counter(entry.id for file in found for entry in (*file.tables, *file.figures))
    for name in (name for name, count in ids.items() if count > 1):
        raise DataError(f"{folder or SHIPPED}: the id {name!r} is there twice; give one table or figure another id")
    return found


def table_of(tables: Iterable[PublishedTable], name: str, others: Iterable[str] = ()) -> PublishedTable:
    """The table of that id.

    Raises:
        DataError: there is none; names those there are, and the ``others`` that could have been meant.
    """
    by_id = {table.id: table for table in tables}
    if name not in by_id:
        raise DataError(f"no published table {name!r}; there are {', '.join([*by_id, *others])}")
    return by_id[name]
