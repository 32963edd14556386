"""The rows of a leaderboard as plain values: our runs, seeds taken together, and what others published."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from gazebench.core.plugins import PluginError
from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import essence
from gazebench.engine.method import MethodCard
from gazebench.engine.registry import load_method
from gazebench.metrics.intervals import format_value, interval
from gazebench.metrics.protocol import ALL, SUBSETS, Protocol
from gazebench.report import published
from gazebench.report.published import Cell, Convention

Record = Mapping[str, Any]

CLASSES = {
    "official": "Complete official test set",
    "synthetic": "Complete runs (synthetic data: no published benchmark)",
    "smoke": "Smoke runs (incomplete data, tiny or random weights, or limits: not benchmark results)",
}
"""Classes of runs, best first: a row never stands above one of a better class."""


UNKNOWN = "published only"
"""The family of methods that are none of ours."""


@dataclass(frozen=True)
class Value:
    """One cell.

    Attributes:
        low, high: 95% interval: over sources for one run, of the mean for several seeds; None where there is none.
        people: the value was taken over.
        sources: clips or pictures of those people, where the interval is over them.
        seeds: how many runs it is the mean of.
    """

    value: float
    low: float | None
    high: float | None
    people: int
    sources: int | None = None
    seeds: int = 1

    def span(self, digits: int) -> str:
        """The interval as text: ``± half`` over seeds, whose interval is symmetric, else both ends; or nothing."""
        if self.low is None or self.high is None:
            return ""
        if self.seeds > 1:
            return f"± {format_value((self.high - self.low) / 2, digits)}"
        return f"{format_value(self.low, digits)} to {format_value(self.high, digits)}"


@dataclass(frozen=True)
class Cost:
    """What a run cost: a key, a title, a heading, decimals, and how a record says it (None where it does not)."""

    key: str
    title: str
    short: str
    digits: int
    of: Callable[[Record], float | None]


def _parameters(kind: str) -> Callable[[Record], float | None]:
    # What made a file of predictions is not known, nor how large it was.
    return lambda record: None if record.get("kind") == "score" else float(record["parameters"][kind])


def _milliseconds(record: Record) -> float | None:
    seconds, people = record["wall_seconds"].get("test"), record["samples"]["people"]
    return 1000 * seconds / people if seconds and people else None


def _minutes(record: Record) -> float | None:
    seconds = record["wall_seconds"].get("fit")
    return seconds / 60 if seconds else None


def _memory(record: Record) -> float | None:
    peak = record["peak_memory_bytes"]
    found = peak.get("cuda") or peak.get("process")
    return found / 2**30 if found else None


COSTS = (
    Cost("trained", "trained parameters", "trained", 0, _parameters("trained")),
    Cost("total", "parameters", "parameters", 0, _parameters("total")),
    Cost("test", "test time per person, ms", "ms / person", 1, _milliseconds),
    Cost("fit", "training time, min", "training, min", 1, _minutes),
    Cost("memory", "peak memory, GiB", "memory, GiB", 2, _memory),
)
"""Times are those of the machine a run was on; memory is the GPU's where there was one, else the process's."""


@dataclass(frozen=True, eq=False)
class Entry:
    """Runs that differ in nothing but their seed.

    Attributes:
        records: by file name without its ending, in the order of their seeds.
    """

    records: Mapping[str, Record]

    @property
    def lead(self) -> Record:
        """The record that speaks for what all have in common."""
        return next(iter(self.records.values()))

    @property
    def title(self) -> str:
        """The method's, of this very configuration."""
        return str(self.lead["method"]["title"])

    @property
    def backbone(self) -> str:
        """Empty where there is none."""
        return str(self.lead["weights"].get("name", ""))

    @property
    def family(self) -> str:
        """Of methods."""
        return str(self.lead["method"]["family"])

    @property
    def klass(self) -> str:
        """One of ``CLASSES``."""
        return str(self.lead["status"]["class"])

    @property
    def runs(self) -> list[str]:
        """Ids."""
        return [str(record["run"]) for record in self.records.values()]

    @property
    def seeds(self) -> list[int | None]:
        """In the same order."""
        return [record["seed"] for record in self.records.values()]

    def value(self, metric: str, subset: str = ALL) -> Value | None:
        """The one run's value with its interval over sources, or the mean over the seeds with Student's."""
        scores = [
            record["metrics"][metric][subset]
            for record in self.records.values()
            if subset in record["metrics"].get(metric, {})
        ]
        if not scores:
            return None
        if len(scores) == 1:
            score = scores[0]
            return Value(score["value"], score.get("low"), score.get("high"), score["count"], score.get("sources"))
        found = interval([score["value"] for score in scores])
        return Value(found.mean, found.low, found.high, scores[-1]["count"], seeds=found.count)

    def cost(self, cost: Cost) -> float | None:
        """The mean over the runs that say it."""
        found = [value for record in self.records.values() if (value := cost.of(record)) is not None]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """What one source prints of one method on one dataset."""

    title: str
    backbone: str
    family: str
    source: str
    tag: str
    places: list[str]
    cells: dict[tuple[str, str], Cell]
    notes: list[str] = field(default_factory=list)

    @property
    def conventions(self) -> list[Convention]:
        """What its values mean."""
        return [cell.convention for cell in self.cells.values()]


@dataclass(frozen=True)
class Column:
    """A metric on a subset; ``digits`` is None of one that only others print."""

    metric: str
    subset: str
    higher: bool
    digits: int | None
    about: str = ""

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher else "↓"


@dataclass(frozen=True, eq=False)
class Board:
    """Everything of one dataset; without a protocol there are only published rows."""

    name: str
    title: str
    protocol: Protocol | None
    entries: Sequence[Entry]
    published: Sequence[PublishedRow]

    @cached_property
    def columns(self) -> list[Column]:
        """Those that somebody has a value of: the protocol's in its order, then what only others print."""
        there = {key for row in self.published for key in row.cells}
        for entry in self.entries:
            for metric in entry.lead["metrics"]:
                there |= {(metric, subset) for subset in SUBSETS if entry.value(metric, subset) is not None}
        found = []
        for use in self.protocol.metrics if self.protocol else ():
            higher = self.protocol.higher_is_better(use.name) if self.protocol else False
            found += [Column(use.name, s, higher, use.digits) for s in SUBSETS if (use.name, s) in there]
        known = {column.metric for column in found}
        conventions = {cell.convention.metric: cell.convention for row in self.published for cell in row.cells.values()}
        for metric, convention in conventions.items():
            if metric not in known:
                higher = convention.better == "higher"
                found += [Column(metric, s, higher, None, "only published") for s in SUBSETS if (metric, s) in there]
        return found

    @property
    def headline(self) -> str:
        """The metric rows are sorted by."""
        return self.protocol.headline if self.protocol else next(iter(self.columns)).metric


def board(name: str, dataset: type[GazeDataset], records: Mapping[str, Record]) -> Board:
    """The board of a dataset from its records by file name; those of other protocols are left out."""
    protocol = dataset.protocol
    same = {stem: record for stem, record in records.items() if record["protocol"]["id"] == protocol.id}
    order = list(CLASSES)
    sign = -1 if protocol.higher_is_better(protocol.headline) else 1

    def place(entry: Entry) -> tuple[Any, ...]:
        value = entry.value(protocol.headline)
        return (order.index(entry.klass), sign * value.value if value else math.inf, entry.title, entry.runs)

    entries = sorted(gather(same), key=place)
    return Board(name, dataset.card.title, protocol, entries, published_rows().get(name, []))


def gather(records: Mapping[str, Record]) -> list[Entry]:
    """Seeds of one configuration together; of several runs of one seed the newest, the others apart."""
    alike: dict[str, list[str]] = {}
    for stem in sorted(records, key=lambda stem: (records[stem]["finished"], stem), reverse=True):
        alike.setdefault(_identity(records[stem]), []).append(stem)
    entries = []
    for stems in alike.values():
        rounds: list[dict[int | None, str]] = []
        for stem in stems:
            seed = records[stem]["seed"]
            free = next((one for one in rounds if seed not in one), None)
            if free is None:
                rounds.append({seed: stem})
            else:
                free[seed] = stem
        for one in rounds:
            chosen = [one[seed] for seed in sorted(one, key=lambda seed: (seed is None, seed or 0))]
            entries.append(Entry({stem: records[stem] for stem in chosen}))
    return entries


def _identity(record: Record) -> str:
    """What runs must have in common for their seeds to be taken together."""
    config = essence(record["config"])
    config.pop("provenance", None)
    config.pop("seed", None)
    data, method, weights = record["data"], record["method"], record["weights"]
    if record.get("kind") == "score":
        config["predictions"] = record["run"]  # two files are two methods, whatever they are called
    return json.dumps(
        [record["protocol"]["id"], record["dataset"], record.get("kind"), record["status"]["class"],
         [method["name"], method["title"], method.get("source")], [weights["name"], weights["grade"]], config,
         data["fingerprint"], data.get("subsets"), (data.get("train") or {}).get("fingerprint")],
        sort_keys=True,
    )  # fmt: skip


# What a record says of where it comes from -----------------------------------------------------------------------

PROVENANCE = ("brought by", "licence", "paper", "cite", "recipe", "weights")


def provenance(record: Record) -> dict[str, str | None]:
    """Whose method a record is of, on what terms, where its settings come from, and which weights came out.

    Records of before it was written down have none of it.
    """
    if "origin" not in record["method"]:
        return dict.fromkeys(PROVENANCE)
    return {name: text or None for name, text in _told(record, record["method"]).items()}


def terms(record: Record) -> dict[str, str]:
    """The same for a reader: what an old record does not say is taken from the method as it is now, if it is known."""
    method = dict(record["method"])
    if "origin" not in method and record.get("kind") != "score":
        card = _card(method["name"])
        if card is not None:
            method |= {"licence": card.licence, "paper": card.paper, "citation": card.citation}
    return {name: text for name, text in _told(record, method).items() if text}


@cache
def _card(method: str) -> MethodCard | None:
    try:
        return load_method(method).card
    except PluginError:
        return None


def _told(record: Record, method: Record) -> dict[str, str]:
    trained = record["weights"].get("trained")
    origins = Counter(setting["origin"] for setting in record["config"].get("provenance", {}).values())
    return {
        "brought by": method.get("origin", ""),
        "licence": method.get("licence", ""),
        "paper": method.get("paper", ""),
        "cite": method.get("citation", ""),
        "recipe": ", ".join(f"{count} {origin}" for origin, count in sorted(origins.items())),
        "weights": trained["sha256"][:12] if trained else "",
    }


def subsets_by(record: Record) -> str | None:
    """The prober whose split a record is reported by; None where the subsets are the data's own, or there are none."""
    subsets = record["data"].get("subsets")
    return str(subsets["name"]) if subsets else None


# What others published -------------------------------------------------------------------------------------------


@cache
def published_titles() -> dict[str, str]:
    """The datasets that published numbers are of, by name."""
    return dict(published.vocabulary().datasets)


@cache
def published_rows() -> dict[str, list[PublishedRow]]:
    """By dataset; what one source prints of one method in several tables is one row as long as it says the same."""
    words = published.vocabulary()
    found: dict[str, list[PublishedRow]] = {}
    for cell in (cell for table in published.load() for cell in published.cells(table)):
        key = (cell.convention.metric, cell.column.subset)
        rows = found.setdefault(cell.column.dataset, [])
        title = words.methods.get(cell.row.method, cell.row.title)
        row = next(
            (
                row
                for row in rows
                if (row.title, row.backbone, row.source, row.tag)
                == (title, cell.row.backbone, cell.table.source.title, cell.row.tag)
                and (key not in row.cells or _same(row.cells[key], cell))
            ),
            None,
        )
        if row is None:
            family = _family(words, cell.row.method)
            row = PublishedRow(title, cell.row.backbone, family, cell.table.source.title, cell.row.tag, [], {})
            rows.append(row)
        row.cells.setdefault(key, cell)
        if cell.table.place not in row.places:
            row.places.append(cell.table.place)
        if cell.row.note and cell.row.note not in row.notes:
            row.notes.append(cell.row.note)
    return found


def _same(one: Cell, other: Cell) -> bool:
    return one.value == other.value and one.convention == other.convention


def _family(words: published.Vocabulary, method: str) -> str:
    """Ours, where the method is one of ours."""
    recipe = words.runs.get(method)
    card = _card(recipe.method) if recipe else None
    return card.family if card else UNKNOWN
