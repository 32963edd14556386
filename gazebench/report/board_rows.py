"""The rows of a leaderboard as plain values: our runs, seeds taken together, and what others published."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, get_args

import pandas as pd

from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import essence
from gazebench.engine.method import Input, blind
from gazebench.engine.record import same_scores
from gazebench.engine.standing import HEADINGS
from gazebench.metrics.intervals import Interval, interval
from gazebench.metrics.protocol import ALL, SUBSETS, TASKS, Protocol
from gazebench.metrics.scoring import Score
from gazebench.report import published
from gazebench.report.run_data import Record, known_method, metric_uses
from gazebench.report.table import Column, number

BADGES = {
    "official": "official", "listed": "own file list", "synthetic": "synthetic", "unverified": "not verified",
    "smoke": "smoke run", "published": "published",
}  # fmt: skip
REFERENCES = {
    "floor": "what is reached without looking at the picture",
    "label noise": "one annotator against the others: how far the labels agree, not a method",
    "not trained for it": "its training left this task out",
}
"""Rows without a rank."""
BLIND = {
    "scene-blind": "trained without the picture around the head",
    "head-blind": "trained without knowing whose gaze is asked about",
}
"""Rows that lack a part of the input. They have a rank: a method below one has not shown that it uses that part."""
UNKNOWN_FAMILY = "published only"
ORIGIN_COLUMNS = ("brought by", "licence", "paper", "cite", "recipe", "weights")


COSTS = (
    Column("trained", digits=0, name="trained", about="trained parameters"),
    Column("parameters", digits=0, name="total", about="parameters"),
    Column("ms / person", digits=1, name="inference", about="inference per person, ms"),
    Column("training, min", digits=1, name="fit", about="training time, min"),
    Column("memory, GiB", digits=2, name="memory", about="peak memory, GiB"),
)
"""Times are those of the machine a run was on; memory is the GPU's where there was one, else the process's.

Inference is the method's ``forward`` alone (``engine.timing``): what the whole test took holds loading and scoring.
"""


def costs(record: Record) -> dict[str, float | None]:
    """What a run cost, by the names of ``COSTS``; None where its record does not say it."""
    # What made a file of predictions is unknown, and how large it was.
    parameters = {} if record.get("kind") == "score" else record["parameters"]
    seconds, peak = record["wall_seconds"], record["peak_memory_bytes"]
    return {
        "trained": parameters.get("trained"),
        "total": parameters.get("total"),
        "inference": record.get("inference", {}).get("ms_per_person"),
        "fit": seconds.get("fit", 0) / 60 or None,
        "memory": (peak.get("cuda") or peak.get("process") or 0) / 2**30 or None,
    }


def timing(record: Record) -> str:
    """How inference was timed; empty where it was not."""
    found = record.get("inference")
    if not found:
        return ""
    threads = f", {found['threads']} threads" if found["accelerator"] == "cpu" and "threads" in found else ""
    return (
        f"{found['device']}{threads}, {found['precision']}, batch of {found['batch']}, {found['people_per_image']} "
        f"people a picture, median of {found['repeats']}"
    )


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs that differ in nothing but their seed: records by file name without its ending, in the order of seeds.

    On the board of one task it has that ``task``.
    """

    records: Mapping[str, Record]
    task: str = ""

    @property
    def lead(self) -> Record:
        """The record that stands for what all have in common."""
        return next(iter(self.records.values()))

    @property
    def title(self) -> str:
        """The method's title; of an older version than the present one with that version."""
        method = self.lead["method"]
        known = None if self.lead.get("kind") == "score" else known_method(method["name"])
        version = method.get("version", 1)
        return str(method["title"]) + (f", version {version}" if known and version < known.version else "")

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
    def reference(self) -> str:
        """One of ``REFERENCES``; empty for a method that is ranked."""
        if self.lead.get("kind") == "score":
            return ""
        name = self.lead["method"]["name"]
        known = known_method(name)
        left_out = known.left_out(self.lead["config"]["model"]) if known else ()
        return reference(name, self.family) or ("not trained for it" if self.task in left_out else "")

    @property
    def sees(self) -> str:
        """What a prediction can depend on, in words; empty where neither record nor method say it."""
        return seen(self.lead)

    @property
    def blind(self) -> str:
        """One of ``BLIND``; empty for all others, and for a reference."""
        return "" if self.reference else blind(self.sees.split(", "))

    @property
    def runs(self) -> list[str]:
        return [str(record["run"]) for record in self.records.values()]

    @cached_property
    def counted(self) -> list[Record]:
        """Those that a mean is over (``distinct``)."""
        return distinct(self.records.values())

    @property
    def seeds(self) -> str:
        """E.g. ``0``, ``mean of 0, 1, 2``, or ``any (0, 1, 2)`` where they give the same."""
        seeds = ", ".join("-" if record["seed"] is None else str(record["seed"]) for record in self.records.values())
        if len(self.records) == 1:
            return seeds
        return f"mean of {seeds}" if len(self.counted) > 1 else f"any ({seeds})"

    def value(self, metric: str, subset: str = ALL) -> Score | Interval | None:
        """The one run's value with its interval over sources, or ``over_seeds``."""
        if len(self.counted) == 1:
            return score_of(self.lead, metric, subset)
        return over_seeds(self.counted, metric, subset)

    def costs(self) -> dict[str, float | None]:
        """By the names of ``COSTS``, the mean over the runs; None where one of them does not say it."""
        mean = pd.DataFrame(map(costs, self.counted), dtype=float).mean(skipna=False)
        return {str(name): None if pd.isna(value) else float(value) for name, value in mean.items()}

    def about(self, task: str, metrics: Iterable[str]) -> RunGroup | None:
        """Those of the runs that have one of a task's metrics; None where none has."""
        names = set(metrics)
        found = {stem: record for stem, record in self.records.items() if names & record["metrics"].keys()}
        return RunGroup(found, task) if found else None


def distinct(records: Iterable[Record]) -> list[Record]:
    """Seeds that changed something: of runs with the same scores, as those that learn nothing have, the first."""
    found: list[Record] = []
    for record in records:
        if not any(same_scores(record["metrics"], other["metrics"]) for other in found):
            found.append(record)
    return found


def over_seeds(records: Sequence[Record], metric: str, subset: str = ALL) -> Interval | None:
    """The mean over these very runs with Student's interval; None where one of them has no value."""
    scores = [score_of(record, metric, subset) for record in records]
    found = [score.value for score in scores if score is not None]
    return interval(found) if found and len(found) == len(scores) else None


def score_of(record: Record, metric: str, subset: str = ALL) -> Score | None:
    stored = record["metrics"].get(metric, {}).get(subset)
    return Score(**stored) if stored else None


def reference(method: str, family: str) -> str:
    """``label noise`` or ``floor``; empty for a method that competes."""
    known = known_method(method)
    if known and known.reads_annotations:
        return "label noise"
    return "floor" if family == "baseline" else ""


def seen(record: Record) -> str:
    """``MethodCard.sees`` in words; an old record is looked up by its method's name."""
    method = record["method"]
    known = None if record.get("kind") == "score" else known_method(method["name"])
    names = method.get("sees", known.card.sees if known else None)
    return "" if names is None else ", ".join(name for name in get_args(Input) if name in names) or "nothing"


def trained_on(record: Record) -> str:
    """The training data; empty where no parameter was trained here."""
    train = record["data"].get("train")
    if not train or not record["parameters"]["trained"]:
        return ""
    initial = record["weights"].get("initial") and record["config"].get("init")
    other = "" if train["name"] == record["dataset"] else f"{train['name']} "
    return f"{other}{train['split']}{f', started from {initial}' if initial else ''}"


def selection(record: Record) -> str:
    """How the epoch was chosen."""
    return str(record["selection"]) if record["parameters"]["trained"] else "nothing was trained"


def lacks(record: Record) -> list[str]:
    """What an old record, or one of a file of predictions, does not say."""
    return [
        what for what, said in (("intervals", "intervals" in record), ("provenance", "origin" in record["method"]))
        if not said
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class PublishedResult:
    """What one source prints of one method on one data set."""

    title: str
    backbone: str
    family: str
    reference: str
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
    """All results on one data set, or on one task of it; without a protocol there are only published rows.

    Attributes:
        key: the data set's name, with the task's behind it but for the first task.
        groups: ours, best first.
        task: empty for all tasks.
    """

    key: str
    name: str
    title: str
    protocol: Protocol | None
    groups: Sequence[RunGroup]
    published: Sequence[PublishedResult]
    task: str = ""

    @property
    def rows(self) -> list[RunGroup | PublishedResult]:
        return [*self.groups, *self.published]

    @property
    def asks(self) -> str:
        """What the task is, in words."""
        return TASKS.get(self.task, self.task)

    @cached_property
    def _known(self) -> dict[str, tuple[str, bool, int, str]]:
        """Of every metric that a row may have: its task, whether higher is better, digits, and what else to say."""
        uses = metric_uses(self.protocol).items()
        facts = {name: (use.task, use.higher_is_better, use.digits, "") for name, use in uses}
        for rule in (cell.convention for row in self.published for cell in row.cells.values()):
            facts.setdefault(rule.metric, (rule.task, rule.better == "higher", 4, ", only published"))
        return facts

    @cached_property
    def columns(self) -> dict[tuple[str, str], Column]:
        """By metric and subset, those that somebody has a value of: ours first, then what only others print."""
        there = {key for row in self.published for key in row.cells}
        for group in self.groups:
            pairs = {(metric, subset) for metric, found in group.lead["metrics"].items() for subset in found}
            there |= {key for key in pairs if group.value(*key) is not None}
        return {
            (metric, subset): Column(
                metric, "" if subset == ALL else subset, digits, higher, f"{metric}/{subset}",
                f"{'higher' if higher else 'lower'} is better{about}",
            )
            for metric, (task, higher, digits, about) in self._known.items() if self.task in ("", task)
            for subset in SUBSETS if (metric, subset) in there
        }  # fmt: skip

    @cached_property
    def headline(self) -> str:
        """The metric that rows are ranked by: the protocol's, or the first of another task."""
        if self.protocol and self.task in ("", self._known[self.protocol.headline][0]):
            return self.protocol.headline
        return next(iter(self.columns))[0]

    @cached_property
    def ranks(self) -> dict[RunGroup, int]:
        """Places by the headline within a class; neither smoke runs nor references have one."""
        places: dict[RunGroup, int] = {}
        seen: Counter[str] = Counter()
        for group in self.groups:
            if group.result_class != "smoke" and not group.reference and group.value(self.headline) is not None:
                seen[group.result_class] += 1
                places[group] = seen[group.result_class]
        return places

    @cached_property
    def by_task(self) -> list[Board]:
        """A board for every task that somebody has a value of: the rows that answer it, ranked by its headline."""
        tasks = dict.fromkeys([*TASKS, *(facts[0] for facts in self._known.values())])
        boards = [board for board in map(self._of_task, tasks) if board.columns]
        return [replace(board, key=board.key if place else self.name) for place, board in enumerate(boards)]

    def _of_task(self, task: str) -> Board:
        metrics = {metric for metric, facts in self._known.items() if facts[0] == task}
        cells = [
            replace(row, cells={at: cell for at, cell in row.cells.items() if at[0] in metrics})
            for row in self.published
        ]
        groups = [found for group in self.groups if (found := group.about(task, metrics))]
        there = [row for row in cells if row.cells]
        board = replace(self, key=f"{self.name}-{task}", task=task, groups=groups, published=there)
        first = sorted((key[0] for key in board.columns if key[1] == ALL), key=lambda name: name != board.headline)
        return replace(board, groups=ordered(groups, {name: self._known[name][1] for name in first}))


def make_board(name: str, dataset: type[GazeDataset], records: Mapping[str, Record]) -> Board:
    """The board of a data set from its records by file name; those of other protocols or other labels are left out."""
    protocol, labels = dataset.protocol, dataset.card.label_version
    same = {
        stem: record
        for stem, record in records.items()
        if record["protocol"]["id"] == protocol.id and record["data"].get("label_version", labels) == labels
    }
    groups = ordered(group_runs(same), {protocol.headline: protocol.metric(protocol.headline).higher_is_better})
    return Board(name, name, dataset.card.title, protocol, groups, published_rows().get(name, []))


def ordered(groups: Iterable[RunGroup], metrics: Mapping[str, bool]) -> list[RunGroup]:
    """By class, methods before references, then by the metrics (with whether higher is better), the best first."""
    classes = list(HEADINGS)

    def place(group: RunGroup) -> tuple[Any, ...]:
        values = [(number(group.value(metric)), higher) for metric, higher in metrics.items()]
        best = [math.inf if value is None else -value if higher else value for value, higher in values]
        return classes.index(group.result_class), bool(group.reference), best, group.title, group.runs

    return sorted(groups, key=place)


def group_runs(records: Mapping[str, Record]) -> list[RunGroup]:
    """Seeds of one configuration together; of several runs of one seed the newest, the others apart."""
    rounds: dict[tuple[str, int], dict[int | None, str]] = {}
    seen: Counter[tuple[str, int | None]] = Counter()
    full: dict[str, set[str]] = {}
    for data in (record["data"] for record in records.values()):
        full.setdefault(data["fingerprint"], set()).update(data.get("full_fingerprint", "").split())
    for stem in sorted(records, key=lambda stem: (records[stem]["finished"], stem), reverse=True):
        data = records[stem]["data"]
        # Older records have no full fingerprint; where only one is known, they are taken to have that one.
        several = len(full[data["fingerprint"]]) > 1
        same = _identity(records[stem], data.get("full_fingerprint") if several else None)
        seed = records[stem]["seed"]
        rounds.setdefault((same, seen[same, seed]), {})[seed] = stem
        seen[same, seed] += 1
    chosen = ([found[seed] for seed in sorted(found, key=lambda s: (s is None, s or 0))] for found in rounds.values())
    return [RunGroup({stem: records[stem] for stem in stems}) for stems in chosen]


def _identity(record: Record, full_fingerprint: str | None = None) -> str:
    """What runs must have in common for their seeds to be taken together."""
    config = essence(record["config"])
    for name in ("provenance", "seed"):
        config.pop(name, None)
    data, method, weights = record["data"], record["method"], record["weights"]
    if record.get("kind") == "score":
        config["predictions"] = record["run"]  # two files are two methods, whatever they are called
    return json.dumps(
        [record["protocol"]["id"], record["dataset"], record.get("kind"), record["status"]["class"], method["name"],
         method["title"], method.get("version", 1), data.get("version", 1), data["fingerprint"], full_fingerprint,
         data.get("subsets"),
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
    known = known_method(method["name"]) if look_up and record.get("kind") != "score" else None
    if "origin" not in method and known:
        method |= {"licence": known.card.licence, "paper": known.card.paper, "citation": known.card.citation}
    elif "origin" not in method and not look_up:
        return {}
    settings = Counter(setting["origin"] for setting in config.get("provenance", {}).values())
    trained = record["weights"].get("trained")
    values = [*(method.get(key, "") for key in ("origin", "licence", "paper", "citation")),
              ", ".join(f"{count} {origin}" for origin, count in sorted(settings.items())),
              trained["sha256"][:12] if trained else ""]  # fmt: skip
    return {name: value for name, value in zip(ORIGIN_COLUMNS, values, strict=True) if value}


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
        method = known_method(made.method) if made else None
        family = method.card.family if method else UNKNOWN_FAMILY
        new = PublishedResult(
            words.methods.get(cell.row.method, cell.row.title), cell.row.backbone, family,
            reference(made.method, family) if made else "", cell.table.source.title, cell.row.tag,
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
