"""What a study has measured so far, by row and seed, and what that says about its claims."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from gazebench.core.types import stable_key
from gazebench.metrics.intervals import LEAST, Interval, interval
from gazebench.metrics.protocol import ALL
from gazebench.report.board_rows import distinct
from gazebench.report.table import Cell, Column, Table
from gazebench.study.plan import Claim, OverlayFigure, Plan, PlannedRun, PlannedTable
from gazebench.study.store import Store


@dataclass(frozen=True)
class Verdict:
    """A claim held against the results.

    Attributes:
        before: of ``against``, over the seeds that both sides have.
        after: of ``row``.
        gain: by which share of ``before`` the row is better, seed by seed; negative when it is worse. Its interval is
            at ``Plan.level``.
        says: by the whole interval of ``gain``; without an interval nothing can be told.
        look: the number, from 0, of the look that decided, or of the last that has all its seeds.
    """

    claim: Claim
    before: Interval
    after: Interval
    gain: Interval
    says: Literal["holds", "does not hold", "cannot tell", "missing"]
    look: int

    @property
    def open(self) -> bool:
        """Whether further seeds may decide it: not where the seeds change nothing."""
        return self.says == "cannot tell" and not (self.gain.half is None and self.gain.count >= LEAST)


@dataclass(frozen=True)
class Pick:
    """A person that is drawn: their metric in the row above, and in the one below where there is one."""

    person: str
    image: str
    above: float
    below: float | None


class Summary:
    """The stored results that belong to a plan as it is written now.

    Args:
        plan: results of other options than the plan's count as missing.
        store: where they are.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan = plan
        self.store = store
        stored = store.results()
        every = plan.runs_of(plan.rows, plan.looks[-1])
        recorded = {run: stored[run.row, run.seed] for run in every if (run.row, run.seed) in stored}
        self.every: dict[PlannedRun, dict[str, Any]] = {
            run: entry for run, entry in recorded.items() if entry["arguments"] == list(run.arguments)
        }
        """Those of ``entries``, and those of further seeds, which only claims read."""
        self.entries = {run: self.every[run] for run in plan.runs if run in self.every}
        self.missing = [run for run in plan.runs if run not in self.entries]
        self.outdated = [run for run in self.missing if run in recorded]
        """Those of ``missing`` that were recorded with other options."""

    @cached_property
    def people(self) -> pd.DataFrame:
        """The stored people of these very runs."""
        frame = self.store.people()
        known = {(run.row, run.seed, entry["run"]) for run, entry in self.every.items()}
        keys = zip(frame["row"], frame["seed"], frame["run"], strict=True)
        return frame[pd.Series([key in known for key in keys], index=frame.index, dtype=bool)]

    def of(self, row: str, *, further: bool = False) -> dict[int, dict[str, Any]]:
        """The results of a row by seed; ``further``: also those of seeds that only claims read."""
        return {run.seed: entry for run, entry in (self.every if further else self.entries).items() if run.row == row}

    def counted(self, row: str) -> list[int]:
        """The seeds that a mean is over: of those that changed no score, as where nothing is trained, the first."""
        entries = self.of(row)
        first = {id(entry) for entry in distinct(entries.values())}
        return [seed for seed, entry in entries.items() if id(entry) in first]

    def values(
        self, row: str, metric: str, subset: str, over: float | None = None, *, further: bool = False
    ) -> dict[int, float]:
        """A metric by seed, or the number of people whose value is larger than ``over``; ``further`` as for ``of``."""
        found = self.of(row, further=further)
        if over is None:
            scores = {seed: entry["metrics"].get(metric, {}).get(subset) for seed, entry in found.items()}
            return {seed: float(score["value"]) for seed, score in scores.items() if score is not None}
        counts = {}
        for seed, people in self.persons(row, subset).groupby("seed"):
            if seed in found and f"metric_{metric}" in people and people[f"metric_{metric}"].notna().any():
                counts[int(str(seed))] = float((people[f"metric_{metric}"] > over).sum())
        return counts

    def persons(self, row: str, subset: str = ALL) -> pd.DataFrame:
        """The people of a row, over all seeds, those of further ones included."""
        frame = self.people[self.people["row"] == row]
        return frame if subset == ALL else frame[frame["subset"] == subset]

    def interval(self, row: str, metric: str, subset: str, over: float | None = None) -> Interval:
        """Mean and interval over the ``counted`` seeds; nothing where one of them has no value."""
        values, seeds = self.values(row, metric, subset, over), self.counted(row)
        return interval([values[seed] for seed in seeds] if values.keys() >= set(seeds) else [])

    def table(self, planned: PlannedTable, *, seeds: bool = False) -> Table:
        """A table of means with their intervals; a row without any result shows dashes.

        Args:
            planned: its layout.
            seeds: the last column says how many seeds a row has.
        """
        names = [(metric, subset) for subset in planned.subsets for metric in planned.columns]
        uses = self.plan.metrics
        columns = [Column(label) for label in planned.labels] + [
            Column(planned.columns[metric], subset.capitalize(), uses[metric].digits, uses[metric].higher_is_better,
                   f"{metric} ({subset})")
            for metric, subset in names
        ]  # fmt: skip
        rows: list[list[Cell]] = []
        for row, cells in planned.rows.items():
            values = [self.interval(row, *name) for name in names]
            rows.append([*(cells or (self.plan.rows[row].title,)), *values])
            if seeds:
                rows[-1].append(str(len(self.counted(row))))
        return Table([*columns, *([Column("seeds")] if seeds else [])], rows, marks=True)

    def verdict(self, claim: Claim) -> Verdict:
        """Holds a claim against the results, paired by seed."""
        after = self.values(claim.row, claim.metric, claim.subset, claim.over, further=True)
        before = self.values(claim.against, claim.metric, claim.against_subset, claim.over, further=True)
        higher = self.plan.metrics[claim.metric].higher_is_better and claim.over is None
        gains = {seed: _gain(before[seed], after[seed], higher) for seed in before if seed in after}
        # The first look that decides stands, whatever later seeds say: that is what the correction is made for.
        for look, seeds in enumerate(self.plan.looks):
            there = [seed for seed in seeds if seed in gains]
            if look and len(there) < len(seeds):
                break
            gain = interval([gains[seed] for seed in there], self.plan.level)
            one, other = (interval([side[seed] for seed in there]) for side in (before, after))
            whole = gain.half is not None and len(there) == len(seeds)
            if not gain.count:
                found = Verdict(claim, one, other, gain, "missing", look)
            elif whole and gain.low >= claim.at_least:
                return Verdict(claim, one, other, gain, "holds", look)
            elif whole and gain.high < claim.at_least:
                return Verdict(claim, one, other, gain, "does not hold", look)
            else:
                found = Verdict(claim, one, other, gain, "cannot tell", look)
        return found

    def wanted(self) -> list[PlannedRun]:
        """The runs of further seeds that open claims need for their next look, recorded ones included."""
        rows: dict[int, set[str]] = {}
        for verdict in map(self.verdict, self.plan.claims):
            if verdict.open and verdict.look + 1 < len(self.plan.looks):
                rows.setdefault(verdict.look + 1, set()).update((verdict.claim.row, verdict.claim.against))
        runs = []
        for look, of in sorted(rows.items()):
            runs += self.plan.runs_of([key for key in self.plan.rows if key in of], self.plan.looks[look])
        return list(dict.fromkeys(run for run in runs if run.seed not in self.plan.seeds))

    def drawn_seed(self, figure: OverlayFigure) -> int | None:
        """The seed whose predictions an overlay shows: the one it names, or the first that its rows have."""
        seeds = self.plan.seeds if figure.seed is None else (figure.seed,)
        return next((seed for seed in seeds if all(seed in self.of(row) for row in figure.rows)), None)

    def picks(self, figure: OverlayFigure) -> list[Pick]:
        """Whom an overlay shows, one person an image, always the same ones.

        Those whom the change from the upper row to the lower helps most, those whom the upper serves worst, or any.
        """
        seed = self.drawn_seed(figure)
        column = f"metric_{figure.metric}"
        if seed is None or column not in self.people:
            return []
        people = [self.persons(row, figure.subset) for row in figure.rows]
        sides = [frame[frame["seed"] == seed].set_index("person_id") for frame in people]
        both = sides[0][["image_id"]].assign(above=sides[0][column])
        if len(sides) > 1:
            both = both.join(sides[1][column].rename("below"), how="inner")
        both = both.dropna()
        sign = 1 if self.plan.metrics[figure.metric].higher_is_better else -1
        if figure.pick == "random":
            order = pd.Series([stable_key(f"{figure.file} {person}") for person in both.index], index=both.index)
        else:
            order = sign * (both["above"] if figure.pick == "worst" else both["above"] - both["below"])
        chosen = both.assign(order=order).sort_values("order", kind="stable").drop_duplicates("image_id")
        return [
            Pick(
                str(person), str(row["image_id"]), float(row["above"]), float(row["below"]) if "below" in row else None
            )
            for person, row in chosen.head(figure.count).iterrows()
        ]


def _gain(before: float, after: float, higher_is_better: bool) -> float:
    """By which share of ``before`` the other is better; NaN where ``before`` is nothing."""
    if not before:
        return math.nan
    return (after - before if higher_is_better else before - after) / before
