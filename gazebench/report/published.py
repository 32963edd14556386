"""Published numbers: the papers' tables as data, to the digit, each value with its source and its convention.

``leaderboards/published`` holds one YAML file a source, and ``conventions.yaml`` for what their columns mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast

import jsonschema
import yaml

from gazebench.core.errors import DataError
from gazebench.metrics.protocol import ALL
from gazebench.report.published_schema import CONVENTIONS_SCHEMA, PRINTED, SOURCE_SCHEMA, UNITS

CONVENTIONS = "conventions.yaml"


@dataclass(frozen=True)
class Convention:
    """What a number means; two numbers compare where their conventions are the same.

    Attributes:
        metric: our name, the same for the same thing.
        better: ``higher`` or ``lower``.
        stated: where the rule is from: ``paper``, ``official code``, ``inferred`` or ``not stated``.
        tolerance: how far re-runs of one method lie apart; None where nobody tried.
    """

    key: str
    metric: str
    unit: str
    better: str
    stated: str
    text: str
    tolerance: Decimal | None = None

    @property
    def certain(self) -> bool:
        """Whether the rule is stated by the paper or was seen in official code."""
        return self.stated in ("paper", "official code")


@dataclass(frozen=True)
class Source:
    """A paper, or notes that quote several.

    Attributes:
        text: the name of the text its numbers were read from.
    """

    key: str
    title: str
    authors: str = ""
    url: str = ""
    text: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of values.

    Attributes:
        header: as printed, without the arrow of its direction.
        group: the heading above it, e.g. *Inconsistent*; empty where there is none.
        decimals: printed ones; rows may differ.
    """

    header: str
    group: str
    dataset: str
    subset: str
    convention: Convention
    decimals: int

    @property
    def title(self) -> str:
        """Group and header."""
        return f"{self.group} {self.header}".strip()


@dataclass(frozen=True)
class Row:
    """A row of values.

    Attributes:
        labels: the printed cells that name it; None where the cell is empty.
        method: the same key for the same method in every source.
        values: as printed, one a column; None where nothing is printed.
        cite: the printed number of its reference, kept apart from the label.
        backbone: where it is printed.
        underlined: positions of underlined values (second best), from 0.
        replaced: by column position, the convention of this row where it is not the column's.
    """

    labels: tuple[str | None, ...]
    method: str
    values: tuple[str | None, ...]
    tag: str
    cite: str = ""
    backbone: str = ""
    note: str = ""
    underlined: frozenset[int] = frozenset()
    replaced: Mapping[int, Convention] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The labels in one line."""
        return " ".join(label or "-" for label in self.labels)


@dataclass(frozen=True)
class PublishedTable:
    """One table, or what a figure or a section states in words.

    Attributes:
        file: name of the file it was read from.
        id: unique among all sources.
        place: where in the source, e.g. *Table 3*.
        labels: headings of the columns that name a row.
        quotes: the sentences its numbers are from where no table prints them.
        notes: what a reader must know, among it where the source contradicts itself.
    """

    file: str
    source: Source
    id: str
    place: str
    title: str
    dataset: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedFigure:
    """A drawing whose numbers no text prints.

    Attributes:
        id, place: as of a table.
        dataset: the paper's own.
    """

    source: Source
    id: str
    place: str
    title: str
    dataset: str


@dataclass(frozen=True)
class Cell:
    """One published value.

    Attributes:
        printed: its digits as in the source.
        value: the same as a number, exactly.
        convention: that of its row and column.
    """

    table: PublishedTable
    row: Row
    column: Column
    printed: str
    value: Decimal
    convention: Convention
    underlined: bool

    @property
    def where(self) -> str:
        """Paper, table, row and column."""
        table = self.table
        return f"{table.source.key}, {table.place}, row {self.row.title!r}, column {self.column.title!r}"


@dataclass(frozen=True)
class Recipe:
    """A method of the registry, and the options that make it a row's.

    Attributes:
        options: what a run of the row must have, as on the command line.
        unlike: settings that make it another row's.
        backbone: the printed name of the one that rows mean which print none; "" where the method's own is meant.
    """

    method: str
    options: Mapping[str, str]
    unlike: Mapping[str, str] = field(default_factory=dict)
    backbone: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """What ``conventions.yaml`` defines.

    Attributes:
        datasets: titles by name; names as in the registry where it has them.
        methods: titles by key.
        runs: how a row of a method is made here, by the method's key; the others are only published.
        backbones: our names of the printed ones.
        stand_ins: ids of the tables that runs on a drawn dataset can fill, by its name.
    """

    conventions: Mapping[str, Convention]
    datasets: Mapping[str, str]
    methods: Mapping[str, str]
    runs: Mapping[str, Recipe]
    backbones: Mapping[str, str]
    stand_ins: Mapping[str, Sequence[str]]


# Looking up ----------------------------------------------------------------------------------------------------


def cells(table: PublishedTable) -> Iterator[Cell]:
    """All printed values of a table, row by row; missing ones are passed over."""
    for row in table.rows:
        for position, (column, printed) in enumerate(zip(table.columns, row.values, strict=True)):
            if printed is not None:
                convention = row.replaced.get(position, column.convention)
                underlined = position in row.underlined
                yield Cell(table, row, column, printed, Decimal(printed), convention, underlined)


def find(
    tables: Iterable[PublishedTable],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    subset: str | None = ALL,
    method: str | None = None,
    backbone: str | None = None,
    source: str | None = None,
    tag: str | None = None,
) -> list[Cell]:
    """The values that match, of everybody unless a subset is named; None matches everything.

    The same number may be there several times, for papers quote each other.
    """
    return [
        cell
        for table in tables
        for cell in cells(table)
        if dataset in (None, cell.column.dataset)
        and metric in (None, cell.convention.metric)
        and subset in (None, cell.column.subset)
        and method in (None, cell.row.method)
        and backbone in (None, cell.row.backbone)
        and source in (None, table.source.key)
        and tag in (None, cell.row.tag)
    ]


def table_of(tables: Iterable[PublishedTable], name: str, others: Iterable[str] = ()) -> PublishedTable:
    """The table of that id.

    Raises:
        DataError: there is none; names those there are, and the ``others`` that could have been meant.
    """
    known = {table.id: table for table in tables}
    if name not in known:
        raise DataError(f"no published table {name!r}; there are {', '.join([*known, *others])}")
    return known[name]


# Reading -------------------------------------------------------------------------------------------------------


def load(folder: Traversable | None = None) -> list[PublishedTable]:
    """All published tables, by file; those of this package when no folder is given.

    Raises:
        DataError: names the file, the entry in it and the remedy.
    """
    folder = folder or _shipped()
    words = vocabulary(folder)
    tables: list[PublishedTable] = []
    taken: dict[str, str] = {}
    for path in _sources(folder):
        for table in _tables(path, words):
            if table.id in taken:
                raise DataError(f"{path}: table {table.id!r}: {taken[table.id]} has a table of that id; give another")
            taken[table.id] = path.name
            tables.append(table)
    return tables


def figures(folder: Traversable | None = None) -> list[PublishedFigure]:
    """The figures that can be drawn again, by file; those of this package when no folder is given.

    Raises:
        DataError: names the file and the entry in it.
    """
    folder = folder or _shipped()
    words, found = vocabulary(folder), list[PublishedFigure]()
    for path in _sources(folder):
        given = _read(path, SOURCE_SCHEMA)
        for entry in given.get("figures", ()):
            _known(f"{path}: figure {entry['id']!r}: dataset", entry["dataset"], words.datasets)
            if entry["id"] in [figure.id for figure in found]:
                raise DataError(f"{path}: figure {entry['id']!r} is there twice; give one another id")
            found.append(PublishedFigure(_source(given), **entry))
    return found


def vocabulary(folder: Traversable | None = None) -> Vocabulary:
    """The conventions, datasets and methods that tables may name.

    Raises:
        DataError: names the file, the entry in it and the remedy.
    """
    path = (folder or _shipped()) / CONVENTIONS
    given = _read(path, CONVENTIONS_SCHEMA)
    conventions = {}
    for key, entry in given["conventions"].items():
        tolerance = Decimal(entry["tolerance"]) if "tolerance" in entry else None
        conventions[key] = Convention(key, **{**entry, "tolerance": tolerance})
    kinds: dict[str, Convention] = {}
    for convention in conventions.values():
        first = kinds.setdefault(convention.metric, convention)
        if (first.unit, first.better) != (convention.unit, convention.better):
            raise DataError(
                f"{path}: convention {convention.key!r}: by {first.key!r}, {convention.metric} is in {first.unit} and "
                f"{first.better} is better; a metric has one unit and one direction, so give this one another name"
            )
    runs = {key: Recipe(**{"options": {}, **entry}) for key, entry in given.get("runs", {}).items()}
    for key, recipe in runs.items():
        _known(f"{path}: runs", key, given["methods"])
        if recipe.backbone:
            _known(f"{path}: runs: {key}: backbone", recipe.backbone, given.get("backbones", {}))
    return Vocabulary(
        conventions, given["datasets"], given["methods"], runs, given.get("backbones", {}), given.get("stand_ins", {})
    )


def _sources(folder: Traversable) -> list[Traversable]:
    files = sorted(folder.iterdir(), key=lambda path: path.name)
    return [path for path in files if path.name.endswith(".yaml") and path.name != CONVENTIONS]


def _source(given: Mapping[str, Any]) -> Source:
    return Source(**{**given["source"], "notes": tuple(given["source"].get("notes", ()))})


def _shipped() -> Traversable:
    # As with splits/: beside the package in a checkout, inside it when installed.
    try:
        return files("gazebench.leaderboards.published")
    except ModuleNotFoundError as error:
        raise DataError(
            "leaderboards/published is not part of this installation; install gazebench again, or give its folder"
        ) from error


class _Loader(yaml.SafeLoader):
    """Leaves numbers as they are written, so that 0.1040 keeps its zero, and takes no key twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Traversable, schema: Mapping[str, Any]) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such file; a folder of published numbers needs it")
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML: {error}; repair it there") from error
    try:
        jsonschema.validate(given, schema)
    except jsonschema.ValidationError as error:
        raise DataError(f"{path}: {_place(given, error.absolute_path)}: {_wrong(error)}") from error
    return given


def _place(given: Any, steps: Iterable[str | int]) -> str:
    """The way to an entry, in words: a table by its id, others by key or by number, counted from 1."""
    words, last = [], ""
    for step in steps:
        given = given[step]
        if not isinstance(step, int):
            words.append(str(step))
        elif last == "tables" and isinstance(given, dict) and "id" in given:
            words[-1] = f"table {given['id']!r}"
        else:
            words[-1] = f"{last.removesuffix('s')} {step + 1}"
        last = str(step)
    return ", ".join(words) or "top level"


def _wrong(error: jsonschema.ValidationError) -> str:
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        known = schema["properties"]
        unknown = [str(key) for key in cast(dict[str, Any], error.instance) if key not in known]
        return f"unknown field {', '.join(unknown)}; there are {', '.join(known)}"
    return error.message


def _tables(path: Traversable, words: Vocabulary) -> Iterator[PublishedTable]:
    given = _read(path, SOURCE_SCHEMA)
    source = _source(given)
    for entry in given["tables"]:
        where = f"{path}: table {entry['id']!r}"
        columns = tuple(_column(where, column, entry["dataset"], words) for column in entry["columns"])
        _once(where, "column", [column.title for column in columns], "group")
        rows = tuple(_row(where, row, entry, columns, words) for row in entry["rows"])
        _once(where, "row", [f"{row.title} {row.cite} {row.backbone}".strip() for row in rows], "cite")
        yield PublishedTable(
            file=path.name,
            source=source,
            id=entry["id"],
            place=entry["place"],
            title=entry["title"],
            dataset=_known(f"{where}: dataset", entry["dataset"], words.datasets),
            labels=tuple(entry["labels"]),
            columns=columns,
            rows=rows,
            notes=tuple(entry.get("notes", ())),
            quotes=tuple(entry.get("quotes", ())),
        )


def _column(where: str, given: Mapping[str, Any], dataset: str, words: Vocabulary) -> Column:
    where = f"{where}: column {given['header']!r}"
    convention = _known(f"{where}: convention", given["convention"], words.conventions)
    return Column(
        header=given["header"],
        group=given.get("group", ""),
        dataset=_known(f"{where}: dataset", given.get("dataset", dataset), words.datasets),
        subset=given["subset"],
        convention=words.conventions[convention],
        decimals=int(given["decimals"]),
    )


def _row(
    where: str, given: Mapping[str, Any], table: Mapping[str, Any], columns: Sequence[Column], words: Vocabulary
) -> Row:
    labels, values = given["labels"], given["values"]
    where = f"{where}: row {' '.join(label or '-' for label in labels)!r}"
    if len(labels) != len(table["labels"]):
        raise DataError(
            f"{where}: {len(labels)} label(s) for {len(table['labels'])} ({', '.join(table['labels'])}); "
            "null stands for an empty one"
        )
    if len(values) != len(columns):
        raise DataError(f"{where}: {len(values)} values for {len(columns)} columns; null stands for a missing one")
    for column, printed in zip(columns, values, strict=True):
        if printed is not None:
            _check(f"{where}: column {column.title!r}", column, printed, int(given.get("decimals", column.decimals)))
    underlined = frozenset(int(position) - 1 for position in given.get("underlined", ()))
    for position in underlined:
        if position not in range(len(columns)) or values[position] is None:
            raise DataError(f"{where}: underlined: there is no value {position + 1}; values count from 1")
    return Row(
        labels=tuple(labels),
        method=_known(f"{where}: method", given["method"], words.methods),
        values=tuple(values),
        tag=given.get("tag", table["tag"]),
        cite=given.get("cite", ""),
        backbone=given.get("backbone", ""),
        note=given.get("note", ""),
        underlined=underlined,
        replaced=_replaced(where, given.get("conventions", {}), columns, words),
    )


def _check(where: str, column: Column, printed: str, decimals: int) -> None:
    if not PRINTED.fullmatch(printed):
        raise DataError(f"{where}: {printed!r} is no number; write what is printed, or null where nothing is")
    found = len(printed.partition(".")[2])
    if found != decimals:
        raise DataError(
            f"{where}: {printed} has {found} decimals instead of {decimals}; "
            "compare it with the source, or give the row its own `decimals`"
        )
    unit = column.convention.unit
    if Decimal(printed) > UNITS[unit]:
        raise DataError(f"{where}: {printed} is more than {unit} can be ({UNITS[unit]}); compare it with the source")


def _replaced(
    where: str, given: Mapping[str, str], columns: Sequence[Column], words: Vocabulary
) -> dict[int, Convention]:
    """By column position; the file gives them by the column's convention."""
    replaceable = sorted({column.convention.key for column in columns})
    for key, name in given.items():
        if key not in replaceable:
            raise DataError(f"{where}: conventions: no column has {key!r}; they have {', '.join(replaceable)}")
        _known(f"{where}: conventions", name, words.conventions)
    replaced = {}
    for position, column in enumerate(columns):
        if column.convention.key in given:
            mine, others = words.conventions[given[column.convention.key]], column.convention
            if (mine.unit, mine.better) != (others.unit, others.better):
                raise DataError(
                    f"{where}: conventions: {mine.key} has another unit or direction than its column's {others.key}; "
                    "give the row a table of its own"
                )
            replaced[position] = mine
    return replaced


def _known(where: str, name: str, among: Iterable[str]) -> str:
    names = sorted(among)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"{where}: no {name!r}; {hint}there are {', '.join(names)} (new ones go to {CONVENTIONS})")
    return name


def _once(where: str, what: str, names: Sequence[str], apart: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: {what} {name!r} is there twice; delete one, or tell them apart by `{apart}`")
