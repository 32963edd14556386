"""The plan of a study: rows (a method with options) times seeds, and what is made of their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, StringConstraints, field_validator, model_validator

from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.engine.config import Config, resolve
from gazebench.engine.record import CHECKOUT
from gazebench.engine.registry import load_dataset
from gazebench.metrics.intervals import LEVEL
from gazebench.metrics.protocol import ALL, SUBSETS, Protocol, ProtocolMetric
from gazebench.report.run_data import metric_uses
from gazebench.report.yaml_models import Model, Text, known, read


def distinct_values(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A validator of lists.

    Raises:
        ValueError: something is there twice.
    """
    if len(set(values)) < len(values):
        raise ValueError("something is there twice")
    return values


def _option(option: str) -> str:
    name, equals, _ = option.partition("=")
    if not (name.startswith("--") and equals) or name in ("--seed", "--method", "--data", "--config"):
        raise ValueError(f"{option!r}: write --group.name=value; seeds, method and data set have their own keys")
    return option


Key = Annotated[str, StringConstraints(pattern="^[a-z0-9_-]+$")]
Names = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(distinct_values)]
Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(distinct_values)]
Options = tuple[Annotated[str, AfterValidator(_option)], ...]
Subset = Literal["all", "consistent", "inconsistent"]
Subsets = Annotated[tuple[Subset, ...], Field(min_length=1)]


def shown(path: Path) -> str:
    """A plan's path as pages name it, the same on every machine."""
    path = path.resolve()
    if CHECKOUT is not None and path.is_relative_to(CHECKOUT):
        return path.relative_to(CHECKOUT).as_posix()
    return path.name


class PlannedRow(Model):
    """A method with options, under the title tables give it."""

    title: Text
    method: Text
    options: Options = ()


class PlannedTable(Model):
    """A table in a paper's layout: a block of columns for each subset.

    Attributes:
        labels: headings of the columns that name a row.
        rows: the cells below ``labels`` by row; none stand for the row's title.
        columns: the heading of each metric.
    """

    title: Text
    text: str = ""
    labels: Annotated[tuple[Text, ...], Field(min_length=1)] = ("Method",)
    rows: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    columns: Annotated[dict[str, Text], Field(min_length=1)]
    subsets: Subsets = SUBSETS[1:]  # type: ignore[assignment]

    @field_validator("rows", "columns", mode="before")
    @classmethod
    def _named(cls, given: Any, info: Any) -> Any:
        if not isinstance(given, list):
            return given
        return {name: () if info.field_name == "rows" else name for name in given}

    @model_validator(mode="after")
    def _cells_fit(self) -> Self:
        for row, cells in self.rows.items():
            if (len(cells) or 1) != len(self.labels):
                raise ValueError(
                    f"row {row!r} has {len(cells) or 1} cell(s) for {len(self.labels)} label(s) "
                    f"({', '.join(self.labels)}); give `rows` as a mapping from rows to their cells"
                )
        return self


class _Figure(Model):
    """What all figures have.

    Attributes:
        label: what the metric is called in it.
        unit: what is written behind the metric's values.
        paper: ids of the published figures it is drawn after (``gazebench tables ID``).
    """

    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+\.png$")]
    title: Text
    metric: Text
    text: str = ""
    label: str = ""
    unit: str = ""
    paper: tuple[Text, ...] = ()
    rows: Names

    @property
    def name(self) -> str:
        return self.label or self.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)


class SubsetFigure(_Figure):
    """Bars: a metric by row and subset."""

    kind: Literal["subsets"]
    subsets: Subsets = SUBSETS[1:]  # type: ignore[assignment]


class ThresholdFigure(_Figure):
    """Bars: how many people's value is larger than each threshold, by row."""

    kind: Literal["exceeding"]
    subset: Subset = "all"
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)]


class ScatterFigure(_Figure):
    """A point a row: one metric to the right, a second one upwards."""

    kind: Literal["scatter"]
    subset: Subset = "all"
    second: Text
    second_label: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.metric, self.second


class Cone(Model):
    """A gaze cone: its angle in degrees and the sharpness of its border."""

    angle: float
    sharpness: float


class OverlayFigure(_Figure):
    """Images of single people under the predictions of one row, and of another one below.

    Attributes:
        rows: the rows whose predictions are shown, the upper one first.
        pick: those whom the change from the upper row to the lower helps most, those whom the upper serves worst, or
            any.
        cone: what lies outside it is shaded in the upper images.
        seed: whose predictions are shown; None is the first that the rows have.
    """

    kind: Literal["overlays"]
    rows: Annotated[Names, Field(max_length=2)]
    subset: Subset = "all"
    count: Annotated[int, Field(ge=1, le=8)] = 4
    pick: Literal["largest", "worst", "random"] = "largest"
    cone: Cone | None = None
    seed: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.pick == "largest" and len(self.rows) < 2:
            raise ValueError("improvements are from one row to another; give two `rows`, or `pick`")
        return self


PlannedFigure = SubsetFigure | ThresholdFigure | ScatterFigure | OverlayFigure


class Claim(Model):
    """A check of ours: ``row`` on ``subset`` is better than ``against`` on ``against_subset`` by a share of its value.

    Attributes:
        at_least: the share asked for; 0 is "not worse", below 0 allows for that much worse.
        over: instead of the metric's mean, the number of people whose value is larger than this.
        paper: what the paper reports of it, in words; what is asked for is our choice.
    """

    text: Text
    metric: Text
    row: Text
    against: Text
    subset: Subset = "all"
    against_subset: Subset = "all"
    at_least: float
    over: float | None = None
    paper: str = ""

    @model_validator(mode="before")
    @classmethod
    def _same_unless_given(cls, given: Any) -> Any:
        if isinstance(given, dict):
            given = {"against": given.get("row"), "against_subset": given.get("subset", ALL)} | given
        return given

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if (self.row, self.subset) == (self.against, self.against_subset):
            raise ValueError("compares a row with itself; give `against` or `against_subset`")
        return self


class Quick(Model):
    """The small study of a plan, made to see that everything works.

    Attributes:
        options: added to the plan's.
        rows: those that are run; all where none are named.
        note: what a reader must know.
    """

    seeds: Seeds | None = None
    options: Options = ()
    rows: tuple[Text, ...] = ()
    note: Text = "fewer seeds and less training than the study"


class PlanFile(Model):
    """What the YAML file of a plan says.

    Attributes:
        seeds: of every row.
        more_seeds: to how many seeds rows of undecided claims are brought, look by look (``--until-decided``).
    """

    title: Text
    text: str = ""
    dataset: Text
    seeds: Seeds
    more_seeds: tuple[NonNegativeInt, ...] = ()
    options: Options = ()
    quick: Quick | None = None
    rows: Annotated[dict[Key, PlannedRow], Field(min_length=1)]
    tables: tuple[PlannedTable, ...] = ()
    figures: tuple[Annotated[PlannedFigure, Field(discriminator="kind")], ...] = ()
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _seeds_grow(self) -> Self:
        counts = [len(self.seeds), *self.more_seeds]
        if counts != sorted(set(counts)):
            raise ValueError(f"more_seeds: numbers of seeds in all, each larger than the one before, from {counts[0]}")
        return self

    @field_validator("figures")
    @classmethod
    def _files_differ(cls, figures: tuple[PlannedFigure, ...]) -> tuple[PlannedFigure, ...]:
        distinct_values(tuple(figure.file for figure in figures))
        return figures


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed; ``arguments`` are method, data set and every option of the plan but the seed."""

    row: str
    seed: int
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.row} seed {self.seed}"


class Plan(PlanFile):
    """A plan that was read and makes sense.

    Attributes:
        file: where it was read from.
        extra: options of the command line; they go to every run and are part of its settings.
        is_quick: whether this is the quick study; then rows, tables and claims are those of it alone.
        left_out: titles of the rows that a quick study does not run.
    """

    file: Path
    extra: tuple[str, ...] = ()
    is_quick: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, the first seed of every row first, so that an interrupted study can be read already."""
        return self.runs_of(self.rows, self.seeds)

    def runs_of(self, rows: Iterable[str], seeds: Iterable[int]) -> list[PlannedRun]:
        """The runs of some rows with some seeds, the first seed of every row first."""
        planned = [(key, self.rows[key]) for key in rows]
        return [
            PlannedRun(key, seed, (row.method, self.dataset, *row.options, *self.options))
            for seed in seeds
            for key, row in planned
        ]

    @property
    def looks(self) -> list[tuple[int, ...]]:
        """The seeds of every look at the claims: ``seeds``, then up to each of ``more_seeds`` the next free ones."""
        free = [seed for seed in range(max([len(self.seeds), *self.more_seeds])) if seed not in self.seeds]
        every = (*self.seeds, *free)
        return [every[:count] for count in (len(self.seeds), *self.more_seeds)]

    @property
    def level(self) -> float:
        """Of the intervals that claims are judged by: 95% divided among the looks (Bonferroni)."""
        return 1 - (1 - LEVEL) / len(self.looks)

    @property
    def shown(self) -> str:
        return shown(self.file)

    @property
    def command(self) -> str:
        return f"gazebench study {self.shown}{' --quick' if self.is_quick else ''}"

    @cached_property
    def protocol(self) -> Protocol:
        return load_dataset(self.dataset).protocol

    @cached_property
    def metrics(self) -> dict[str, ProtocolMetric]:
        """Those of the protocol, and of tasks."""
        return metric_uses(self.protocol)

    @cached_property
    def _resolved(self) -> dict[str, Config]:
        found = {}
        for run in self.runs[: len(self.rows)]:
            where = f"{self.file}: row {run.row!r}"
            try:
                found[run.row] = resolve([*run.arguments, *self.extra], prog=where)
            except PluginError as error:
                raise DataError(f"{where}: {error}") from error
        return found

    def config(self, run: PlannedRun) -> Config:
        """The resolved configuration of a run.

        Raises:
            DataError: a method, data set or option of any row that does not exist; names the file and the row.
        """
        config = self._resolved[run.row]
        return replace(config, values=config.values | {"seed": run.seed})

    def for_quick(self) -> Plan:
        """The quick study; what needs other rows is left out.

        Raises:
            DataError: the plan has no quick study.
        """
        quick = self.quick
        if quick is None:
            raise DataError(f"{self.file}: has no quick study; add a key `quick` with seeds and options")
        rows = {key: row for key, row in self.rows.items() if not quick.rows or key in quick.rows}
        tables = (
            table.model_copy(update={"rows": {key: cells for key, cells in table.rows.items() if key in rows}})
            for table in self.tables
        )
        return self.model_copy(update={
            "is_quick": True,
            "seeds": quick.seeds or self.seeds,
            "more_seeds": (),
            "options": (*self.options, *quick.options),
            "rows": rows,
            "tables": tuple(table for table in tables if table.rows),
            "claims": tuple(claim for claim in self.claims if {claim.row, claim.against} <= rows.keys()),
            "left_out": tuple(row.title for key, row in self.rows.items() if key not in rows),
        })  # fmt: skip


def read_plan(path: Path, *, quick: bool = False, extra: Sequence[str] = ()) -> Plan:
    """Reads a plan and checks that everything it names exists; no method is loaded.

    Raises:
        DataError: names the file, the place in it and the remedy.
    """
    plan = Plan(**dict(read(path, PlanFile)), file=path, extra=tuple(extra))
    mentions = [
        ("quick", plan.quick.rows if plan.quick else (), ()),
        *((f"table {table.title!r}", table.rows, table.columns) for table in plan.tables),
        *((f"figure {figure.file!r}", figure.rows, figure.metrics) for figure in plan.figures),
        *((f"claim {claim.text!r}", (claim.row, claim.against), (claim.metric,)) for claim in plan.claims),
    ]
    for where, rows, metrics in mentions:
        try:
            for row in rows:
                known("row", row, plan.rows)
            for metric in metrics:
                known("metric", metric, plan.metrics)
        except (PluginError, ValueError) as error:
            raise DataError(f"{path}: {where}: {error}") from error
    return plan.for_quick() if quick else plan
