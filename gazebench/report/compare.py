"""Two runs on the same people, in words, numbers and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.groups import groups, traits
from gazebench.engine.run import Places
from gazebench.metrics.intervals import DRAWS, bootstrap, mean_of, owners
from gazebench.metrics.protocol import Protocol
from gazebench.metrics.spatial import InOutAP, average_precisions
from gazebench.report import run_data
from gazebench.report.board_rows import group_runs
from gazebench.report.pictures import draw, scene
from gazebench.report.table import Cell, Column, Table

INOUT_DRAWS = 999
"""Of average precision, which is no mean and takes a sort a draw."""


@dataclass(frozen=True)
class Difference:
    """A metric of two runs over the same people.

    Attributes:
        what: which people.
        people, sources: how many, and of how many sources (clips, images), which are drawn as a whole.
        a, b: the two means.
        low, high: 95% percentile interval of b - a, bootstrapped over sources; NaN of a single source.
        p: of a sign-flip permutation test over sources, two-sided; likewise.
    """

    what: str
    people: int
    sources: int
    a: float
    b: float
    low: float
    high: float
    p: float

    @property
    def mean(self) -> float:
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low > 0 or self.high < 0


def difference(what: str, a: FloatArray, b: FloatArray, of: Sequence[str], seed: int = 0) -> Difference:
    """The paired difference of the values (N,) of people whose sources are ``of``.

    People of one clip, or of one image, are not independent, so whole sources are drawn and flipped.
    """
    owner, sources = owners(of)
    low, high = map(float, bootstrap(mean_of(b - a, owner, sources), sources, seed=seed))
    p = math.nan
    if sources > 1:
        gap = np.bincount(owner, weights=b - a, minlength=sources).astype(np.float64)
        # Were the two runs interchangeable, each source's difference could as well have the other sign.
        p = stats.permutation_test(
            (gap, np.zeros_like(gap)), lambda one, other, axis: one.sum(axis) - other.sum(axis), vectorized=True,
            permutation_type="samples", n_resamples=DRAWS, batch=500, rng=np.random.default_rng(seed),
        ).pvalue  # fmt: skip
    return Difference(what, len(a), sources, float(a.mean()), float(b.mean()), low, high, float(p))


@dataclass(frozen=True, eq=False)
class Side:
    """One run, or several of one method with different seeds.

    Attributes:
        folder, record: of the run, or of the first of them.
        people: by person id, metrics and in/out scores averaged over the seeds; points and heatmaps are the first's.
        seeds: of all.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    people: pd.DataFrame
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return str(self.record["method"]["title"]) + (f", seed{'s' * (len(self.seeds) > 1)} {seeds}" if seeds else "")


def read_side(name: str, places: Places) -> Side:
    """One side of a comparison by its runs' folders or ids, with commas between them.

    Raises:
        DataError: runs of one side differ in more than the seed.
    """
    parts = [name] if Path(name).is_dir() else name.split(",")
    folders = [run_data.find_run(part, places) for part in parts]
    records = [run_data.read_record(folder) for folder in folders]
    if len(group_runs({str(place): record for place, record in enumerate(records)})) > 1:
        raise DataError(f"{name}: a side is one method; its runs differ in the seed, and in nothing else")
    scored = []
    for folder in folders:
        found = run_data.people(folder)
        if found is None:
            raise DataError(f"{folder}: kept no scores.parquet; repeat the run, or `gazebench eval` its weights")
        scored.append(found)
    people = scored[0].copy()
    averaged = [str(column) for column in people if column == "inout" or str(column).startswith("metric_")]
    people[averaged] = sum(run[averaged].reindex(people.index) for run in scored) / len(scored)
    seeds = tuple(int(record["seed"]) for record in records if record["seed"] is not None)
    return Side(name, folders[0], records[0], people, seeds)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs joined on the people both have a value of.

    Attributes:
        name, digits: of what is compared.
        higher: whether more of it is better.
        joined: by person id ``a`` and ``b``, ``image_id``, ``group`` and ``subset``.
    """

    a: Side
    b: Side
    name: str
    digits: int
    higher: bool
    joined: pd.DataFrame

    @property
    def gain(self) -> pd.Series[float]:
        """By person, how much better b is than a."""
        gap = self.joined["b"] - self.joined["a"]
        return gap if self.higher else -gap


def join(a: Side, b: Side, protocol: Protocol, metric: str) -> Pair:
    """The two runs' values of a metric.

    Raises:
        DataError: another dataset, other annotations, or a metric that is no mean over people.
    """
    said = a.record["data"].keys() & b.record["data"].keys()  # older records have no full fingerprint
    for key, what in (("name", "datasets"), ("fingerprint", "annotations"), ("full_fingerprint", "annotations")):
        if key in said and a.record["data"][key] != b.record["data"][key]:
            raise DataError(f"{a.name} and {b.name} were measured on different {what}; nothing can be compared")
    names = [use.name for use in protocol.metrics if run_data.is_mean_over_people(use)]
    if metric not in names:
        raise DataError(f"{metric}: compared are means over people: {', '.join(names)}")
    column = f"metric_{metric}"
    for side in (a, b):
        if column not in side.people or side.people[column].isna().all():
            raise DataError(f"{side.name} has no {metric}")
    use = protocol.metric(metric)
    return Pair(a, b, metric, use.digits, use.higher_is_better, _joined(a, b, column))


def _joined(a: Side, b: Side, column: str) -> pd.DataFrame:
    joined = a.people[["image_id", "group", "subset", column]].rename(columns={column: "a"})
    return joined.join(b.people[column].rename("b"), how="inner").dropna(subset=["a", "b"])


def by_group(pair: Pair, records: Records, seed: int = 0) -> list[Difference]:
    """Everybody, and groups of people by subset, head size, distance and company."""
    parts = ((name, pair.joined[mask]) for name, mask in groups(pair.joined, traits(records)))
    return [difference(name, one["a"].to_numpy(), one["b"].to_numpy(), list(one["group"]), seed) for name, one in parts]


def in_or_out(a: Side, b: Side, protocol: Protocol, records: Records) -> Pair | None:
    """The two runs' in/out scores of the people whose label the protocol counts, with that label in ``inout``.

    None where the protocol, or one of the runs, has no in/out.
    """
    use = next((use for use in protocol.metrics if use.metric is InOutAP), None)
    if use is None or any(side.people["inout"].isna().all() for side in (a, b)):
        return None
    labels = pd.Series(records.inout, index=[str(person) for person in records.person_id])
    if use.where is not None:
        column, counted = use.where
        labels = labels[np.isin(records.columns[column], list(counted))]
    joined = _joined(a, b, "inout").join(labels.rename("inout"), how="inner")
    joined = joined[joined["inout"].isin((IN_FRAME, OUT_OF_FRAME))]
    return Pair(a, b, "in/out", use.digits, True, joined) if joined["inout"].nunique() == 2 else None


def by_inout(pair: Pair, seed: int = 0) -> list[Difference]:
    """Average precision over everybody; of probabilities also what is given to the truth, in and out of frame apart."""
    truth = (pair.joined["inout"] == IN_FRAME).to_numpy()
    a, b = pair.joined["a"].to_numpy(dtype=float), pair.joined["b"].to_numpy(dtype=float)
    sources = list(pair.joined["group"])
    found = [precision_difference("everybody (average precision)", truth, a, b, sources, seed)]
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        return found
    names = pair.joined["group"]
    inside = difference("in frame (probability given to it)", a[truth], b[truth], list(names[truth]), seed)
    outside = difference(
        "out of frame (probability given to it)", 1 - a[~truth], 1 - b[~truth], list(names[~truth]), seed
    )
    return [*found, inside, outside]


def precision_difference(
    what: str, truth: npt.NDArray[np.bool_], a: FloatArray, b: FloatArray, of: Sequence[str], seed: int = 0
) -> Difference:
    """As ``difference``, of the average precision of two scorings (N,) of the same people.

    Whole sources are drawn by giving their people weights; where the runs are interchangeable, a source's scores
    could as well be the other run's.
    """
    owner, sources = owners(of)
    whole, one, other = np.ones((1, len(truth))), a[None], b[None]

    def gap(first: FloatArray, second: FloatArray, weight: FloatArray) -> FloatArray:
        return average_precisions(second, truth, weight) - average_precisions(first, truth, weight)

    drawn = bootstrap(lambda n: gap(one, other, n[:, owner]), sources, samples=len(truth), seed=seed, draws=INOUT_DRAWS)
    low, high = map(float, drawn)
    p = math.nan
    if sources > 1:
        swapped = np.random.default_rng(seed).integers(0, 2, (INOUT_DRAWS, sources), dtype=bool)
        parts = range(0, INOUT_DRAWS, 50)  # a hundred draws of a large test set at once would fill the memory
        swaps = (swapped[i : i + 50, owner] for i in parts)
        chance = np.concatenate([gap(np.where(s, other, one), np.where(s, one, other), whole) for s in swaps])
        p = float((1 + (np.abs(chance) >= np.abs(gap(one, other, whole)) - 1e-12).sum()) / (1 + INOUT_DRAWS))
    first, second = (float(average_precisions(scores, truth, whole)[0]) for scores in (one, other))
    return Difference(what, len(a), sources, first, second, low, high, p)


def words(pair: Pair, found: Sequence[Difference]) -> list[str]:
    """What the numbers say, a sentence a group."""
    digits, lines = pair.digits, []
    for one in found:
        better = "better" if (one.mean > 0) == pair.higher else "worse"
        share = f" ({100 * abs(one.mean) / abs(one.a):.0f}%)" if one.a else ""
        span = f"95% interval {one.low:+.{digits}f} to {one.high:+.{digits}f}, p = {one.p:.4f}"
        change = f"{pair.name} {one.a:.{digits}f} → {one.b:.{digits}f}"
        if math.isnan(one.low):
            finding = f"{change}; one source says nothing about chance"
        elif one.clear:
            finding = f"{pair.b.title} is {better}, {change}{share}; {span}"
        else:
            finding = f"no clear difference, {change}; {span}"
        lines.append(f"{one.what}: {one.people:,} people of {one.sources:,} sources: {finding}.")
    return lines


def table(pair: Pair, found: Sequence[Difference]) -> Table:
    digits = pair.digits
    columns = [Column("people"), Column("n", digits=0), Column("sources", digits=0), Column("A", digits=digits),
               Column("B", digits=digits), *map(Column, ("B - A", "95% interval", "p"))]  # fmt: skip
    rows: list[list[Cell]] = [
        [one.what, one.people, one.sources, one.a, one.b, f"{one.mean:+.{digits}f}",
         f"{one.low:+.{digits}f} to {one.high:+.{digits}f}", f"{one.p:.4f}"]
        for one in found
    ]  # fmt: skip
    return Table(columns, rows)


def plot(pair: Pair, found: Sequence[Difference]) -> Figure:
    """The differences with their intervals, best side right."""
    figure = Figure(figsize=(8, 0.42 * len(found) + 1.4), layout="constrained")
    axis = figure.subplots()
    sign = 1 if pair.higher else -1
    for row, one in enumerate(found):
        ends = sorted((sign * one.low, sign * one.high))
        colour = "#666666" if not one.clear else ("#1b7837" if sign * one.mean > 0 else "#b2182b")
        axis.plot(ends, [row, row], color=colour, linewidth=2)
        axis.plot([sign * one.mean], [row], "o", color=colour)
    axis.axvline(0, color="#999999", linewidth=1)
    axis.set_yticks(range(len(found)), [f"{one.what} ({one.people:,})" for one in found])
    axis.invert_yaxis()
    axis.set_xlabel(f"worse  ←  {pair.name}: {pair.b.title} against {pair.a.title}  →  better")
    return figure


def samples(pair: Pair, dataset: GazeDataset, records: Records, *, best: bool, count: int = 4) -> Figure | None:
    """Images in which b gains most, or loses most: a above, b below; None where there is none."""
    gain = pair.gain.sort_values(ascending=not best, kind="stable")
    gain = gain[gain > 0] if best else gain[gain < 0]
    chosen = pair.joined.loc[gain.index].drop_duplicates("image_id").head(count)
    if not len(chosen):
        return None
    row_of = {str(person): row for row, person in enumerate(records.person_id)}
    maps = [run_data.heatmaps(side.folder, list(map(str, chosen.index))) for side in (pair.a, pair.b)]
    figure = Figure(figsize=(3.6 * len(chosen), 6), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, (key, values) in enumerate(chosen.iterrows()):
        shown = scene(dataset, records, row_of[str(key)])
        for row, (side, name) in enumerate(((pair.a, "a"), (pair.b, "b"))):
            person: Any = side.people.loc[str(key)]
            axis = axes[row][column]
            axis.set_axis_off()
            draw(axis, shown.image, shown.head, shown.points, (person["x"], person["y"]), maps[row].get(str(key)))
            axis.set_title(f"{side.title}\n{pair.name} {values[name]:.{pair.digits}f}", fontsize=9)
    return figure


def compare(a: Side, b: Side, out: Path, *, metric: str = "", seed: int = 0) -> list[str]:
    """Writes ``README.md`` with its figures into a folder; returns what the numbers say, a sentence a group.

    Args:
        a: one side.
        b: the other.
        out: the folder.
        metric: the protocol's headline where none is given.
        seed: of the resampling.

    Raises:
        DataError: runs that cannot be compared.
    """
    dataset = run_data.dataset_of(a.folder)
    protocol = dataset.protocol
    pair = join(a, b, protocol, metric or protocol.headline)
    records = dataset.records("test")
    found = by_group(pair, records, seed)
    inout = in_or_out(a, b, protocol, records)
    found_inout = [] if inout is None else by_inout(inout, seed)
    out.mkdir(parents=True, exist_ok=True)
    drawings = [
        ("difference.png", "Where B is better", plot(pair, found)),
        ("inout.png", "Where B tells better who looks out of the frame", plot(inout, found_inout) if inout else None),
        *(
            (f"{name}.png", f"Where B {does} most (A above, B below)", samples(pair, dataset, records, best=best))
            for name, does, best in (("best", "gains", True), ("worst", "loses", False))
        ),
    ]
    drawn = []
    for name, heading, figure in drawings:
        (out / name).unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(out / name, dpi=90)
            drawn += [f"## {heading}", "", f"![]({name})", ""]
    sides = (f"{name}: {side.title}, run `{side.record['run']}`, class {side.record['status']['class']}."
             for name, side in (("A", a), ("B", b)))  # fmt: skip
    lines = [
        f"# {b.title} against {a.title}: {pair.name} on {dataset.card.title}", "",
        "<!-- generated by `gazebench compare`; do not edit -->", "",
        f"{' '.join(sides)} {len(pair.joined):,} people have a value in both, {len(a.people) - len(pair.joined):,} of "
        "A's have not.", "", *_findings(pair, found),
        f"Intervals: percentile bootstrap over sources (clips, images), {DRAWS:,} draws; p: sign flips of whole "
        "sources, two-sided, not corrected for the number of groups looked at. The chance of training is not in it; "
        "several seeds are for that.", "",
    ]  # fmt: skip
    if inout:
        how = f"Average precision: {INOUT_DRAWS:,} draws; p: scores of whole sources swapped between the two."
        lines += ["## In or out of the frame", "", *_findings(inout, found_inout), how, ""]
    write_atomically(out / "README.md", "\n".join([*lines, *drawn]).rstrip("\n") + "\n")
    return words(pair, found) + ([] if inout is None else words(inout, found_inout))


def _findings(pair: Pair, found: Sequence[Difference]) -> list[str]:
    return [*(f"- {line}" for line in words(pair, found)), "", table(pair, found).markdown(), ""]
