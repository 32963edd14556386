"""The rows of a leaderboard as plain values: our runs, seeds taken together, and what others published."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import pandas as pd

from gazebench.core.plugins import PluginError
from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import essence
from gazebench.engine.method import MethodCard
from gazebench.engine.registry import load_method
from gazebench.engine.standing import HEADINGS
from gazebench.metrics.intervals import Interval, interval
from gazebench.metrics.protocol import ALL, SUBSETS, Protocol
from gazebench.metrics.scoring import Score
from gazebench.report import published
from gazebench.report.run_data import Record, metric_uses
from gazebench.report.table import Column, number

BADGES = {
    "official": "official", "listed": "own file list", "synthetic": "synthetic", "unverified": "not verified",
    "smoke": "smoke run", "published": "published",
}  # fmt: skip
UNKNOWN_FAMILY = "published only"
ORIGIN_COLUMNS = ("brought by", "licence", "paper", "cite", "recipe", "weights")


COSTS = (
    Column("trained", digits=0, name="trained", about="trained parameters"),
    Column("parameters", digits=0, name="total", about="parameters"),
    Column("ms / person", digits=1, name="test", about="test time per person, ms"),
    Column("training, min", digits=1, name="fit", about="training time, min"),
    Column("memory, GiB", digits=2, name="memory", about="peak memory, GiB"),
)
"""Times are those of the machine a run was on; memory is the GPU's where there was one, else the process's."""


def costs(record: Record) -> dict[str, float | None]:
    """What a run cost, by the names of ``COSTS``; None where its record does not say it."""
    # What made a file of predictions is unknown, and how large it was.
    parameters = {} if record.get("kind") == "score" else record["parameters"]
    seconds, peak, people = record["wall_seconds"], record["peak_memory_bytes"], record["samples"]["people"]
    return {
        "trained": parameters.get("trained"),
        "total": parameters.get("total"),
        "test": 1000 * seconds.get("test", 0) / people or None,
        "fit": seconds.get("fit", 0) / 60 or None,
        "memory": (peak.get("cuda") or peak.get("process") or 0) / 2**30 or None,
    }


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs that differ in nothing but their seed: records by file name without its ending, in the order of seeds."""

    records: Mapping[str, Record]

    @property
    def lead(self) -> Record:
        """The record that stands for what all have in common."""
        return next(iter(self.records.values()))

    @property
    def title(self) -> str:
        return str(self.lead["method"]["title"])

    @property
    def backbone(self) -> str:
        """Empty where there is none."""
        return str(self.lead["weights"].get("name", ""))

    @property
    def family(self) -> str:
        return str(self.lead["method"]["family"])

    @property
    def result_class(self) -> str:
        """One of ``standing.HEADINGS``."""
        return str(self.lead["status"]["class"])

    @property
    def runs(self) -> list[str]:
        return [str(record["run"]) for record in self.records.values()]

    @property
    def seeds(self) -> str:
        """E.g. ``0``, ``mean of 0, 1, 2``."""
        seeds = ", ".join("-" if record["seed"] is None else str(record["seed"]) for record in self.records.values())
        return seeds if len(self.records) == 1 else f"mean of {seeds}"

    def value(self, metric: str, subset: str = ALL) -> Score | Interval | None:
        """The one run's value with its interval over sources, or the mean over the seeds with Student's."""
        found = [score_of(record, metric, subset) for record in self.records.values()]
        scores = [score for score in found if score is not None]
        if len(scores) < 2:
            return scores[0] if scores else None
        return interval([score.value for score in scores])

    def costs(self) -> dict[str, float | None]:
        """By the names of ``COSTS``, the mean over the runs that say it."""
        mean = pd.DataFrame(map(costs, self.records.values()), dtype=float).mean()
        return {str(name): None if pd.isna(value) else float(value) for name, value in mean.items()}


def score_of(record: Record, metric: str, subset: str = ALL) -> Score | None:
    stored = record["metrics"].get(metric, {}).get(subset)
    return Score(**stored) if stored else None


@dataclass(frozen=True, eq=False)
class PublishedResult:
    """What one source prints of one method on one data set."""

    title: str
    backbone: str
    family: str
    source: str
    tag: str
    places: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], published.PublishedCell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return self.title, self.backbone, self.source, self.tag


@dataclass(frozen=True, eq=False)
class Board:
    """Everything of one data set; without a protocol there are only published rows."""

    name: str
    title: str
    protocol: Protocol | None
    groups: Sequence[RunGroup]
    published: Sequence[PublishedResult]

    @property
    def rows(self) -> list[RunGroup | PublishedResult]:
        return [*self.groups, *self.published]

    @cached_property
    def columns(self) -> dict[tuple[str, str], Column]:
        """By metric and subset, those that somebody has a value of: ours first, then what only others print."""
        cells = [cell for row in self.published for cell in row.cells.values()]
        there = {(cell.convention.metric, cell.column.subset) for cell in cells}
        for record in (record for group in self.groups for record in group.records.values()):
            there |= {(metric, subset) for metric, subsets in record["metrics"].items() for subset in subsets}
        facts = {name: (use.higher_is_better, use.digits, "") for name, use in metric_uses(self.protocol).items()}
        for cell in cells:
            facts.setdefault(cell.convention.metric, (cell.convention.better == "higher", 4, ", only published"))
        return {
            (metric, subset): Column(
                metric, "" if subset == ALL else subset, digits, higher, f"{metric}/{subset}",
                f"{'higher' if higher else 'lower'} is better{about}",
            )
            for metric, (higher, digits, about) in facts.items()
            for subset in SUBSETS
            if (metric, subset) in there
        }  # fmt: skip

    @property
    def headline(self) -> str:
        """The metric rows are sorted by."""
        return self.protocol.headline if self.protocol else next(iter(self.columns))[0]


def make_board(name: str, dataset: type[GazeDataset], records: Mapping[str, Record]) -> Board:
    """The board of a data set from its records by file name; those of other protocols are left out."""
    protocol = dataset.protocol
    same = {stem: record for stem, record in records.items() if record["protocol"]["id"] == protocol.id}
    order = list(HEADINGS)
    sign = -1 if protocol.metric(protocol.headline).higher_is_better else 1

    def place(group: RunGroup) -> tuple[Any, ...]:
        value = number(group.value(protocol.headline))
        headline = math.inf if value is None else sign * value
        return order.index(group.result_class), headline, group.title, group.runs

    groups = sorted(group_runs(same), key=place)
    return Board(name, dataset.card.title, protocol, groups, published_rows().get(name, []))


def group_runs(records: Mapping[str, Record]) -> list[RunGroup]:
    """Seeds of one configuration together; of several runs of one seed the newest, the others apart."""
    rounds: dict[tuple[str, int], dict[int | None, str]] = {}
    seen: Counter[tuple[str, int | None]] = Counter()
    for stem in sorted(records, key=lambda stem: (records[stem]["finished"], stem), reverse=True):
        same, seed = _identity(records[stem]), records[stem]["seed"]
        rounds.setdefault((same, seen[same, seed]), {})[seed] = stem
        seen[same, seed] += 1
    chosen = ([found[seed] for seed in sorted(found, key=lambda s: (s is None, s or 0))] for found in rounds.values())
    return [RunGroup({stem: records[stem] for stem in stems}) for stems in chosen]


def _identity(record: Record) -> str:
    """What runs must have in common for their seeds to be taken together."""
    config = essence(record["config"])
    for name in ("provenance", "seed"):
        config.pop(name, None)
    data, method, weights = record["data"], record["method"], record["weights"]
    if record.get("kind") == "score":
        config["predictions"] = record["run"]  # two files are two methods, whatever they are called
    return json.dumps(
        [record["protocol"]["id"], record["dataset"], record.get("kind"), record["status"]["class"], method["name"],
         method["title"], method.get("version", 1), data.get("version", 1), data["fingerprint"], data.get("subsets"),
         (data.get("train") or {}).get("fingerprint"), weights["name"], weights["grade"],
         (weights.get("backbone") or {}).get("sha256"), config],
        sort_keys=True,
    )  # fmt: skip


def origins(record: Record, *, look_up: bool = False) -> dict[str, str]:
    """By ``ORIGIN_COLUMNS``, what a record says of its method: who brings it, terms, settings, weights that came out.

    Args:
        record: older ones do not say it; then there is nothing.
        look_up: take what an old record does not say from the method as it is now, if it is known.
    """
    method, config = dict(record["method"]), record["config"]
    card = method_card(method["name"]) if look_up and record.get("kind") != "score" else None
    if "origin" not in method and card:
        method |= {"licence": card.licence, "paper": card.paper, "citation": card.citation}
    elif "origin" not in method and not look_up:
        return {}
    settings = Counter(setting["origin"] for setting in config.get("provenance", {}).values())
    trained = record["weights"].get("trained")
    values = [*(method.get(key, "") for key in ("origin", "licence", "paper", "citation")),
              ", ".join(f"{count} {origin}" for origin, count in sorted(settings.items())),
              trained["sha256"][:12] if trained else ""]  # fmt: skip
    return {name: value for name, value in zip(ORIGIN_COLUMNS, values, strict=True) if value}


@cache
def method_card(method: str) -> MethodCard | None:
    try:
        return load_method(method).card
    except PluginError:
        return None


def subsets_by(record: Record) -> str | None:
    """The prober whose split a record is reported by; None where the subsets are the data's own, or there are none."""
    subsets = record["data"].get("subsets")
    return str(subsets["name"]) if subsets else None


@cache
def published_rows() -> dict[str, list[PublishedResult]]:
    """By data set; what one source prints of one method in several tables is one row as long as it says the same."""
    words = published.vocabulary()
    found: dict[str, list[PublishedResult]] = {}
    for cell in (cell for table in published.load() for cell in table.cells()):
        key = (cell.convention.metric, cell.column.subset)
        made = words.runs.get(cell.row.method)
        card = method_card(made.method) if made else None
        new = PublishedResult(
            words.methods.get(cell.row.method, cell.row.title), cell.row.backbone,
            card.family if card else UNKNOWN_FAMILY, cell.table.source.title, cell.row.tag,
        )  # fmt: skip
        rows = found.setdefault(cell.column.dataset, [])
        fits = (row for row in rows if row.names == new.names and (key not in row.cells or _same(row.cells[key], cell)))
        row = next(fits, None)
        if row is None:
            rows.append(row := new)
        row.cells.setdefault(key, cell)
        if cell.table.place not in row.places:
            row.places.append(cell.table.place)
        if cell.row.note and cell.row.note not in row.notes:
            row.notes.append(cell.row.note)
    return found


def _same(one: published.PublishedCell, other: published.PublishedCell) -> bool:
    return one.value == other.value and one.convention == other.convention
