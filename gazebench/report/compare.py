"""``gazebench compare A B``: two runs on the same people, in words, numbers and pictures."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from matplotlib.figure import Figure
from scipy import stats
from tabulate import tabulate

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.groups import groups, traits
from gazebench.engine.config import Config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places
from gazebench.metrics import functional as F
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.intervals import DRAWS, bootstrap, format_value, mean_of, owners
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.spatial import InOutAP
from gazebench.report.page import find
from gazebench.report.pictures import draw, heatmap_of, scene

INOUT_DRAWS = 999
"""Of average precision, which is no mean and takes a sort a draw."""
USAGE = """gazebench compare A B [--metric NAME] [--out DIR] [--runs DIR] [--seed N]
A, B: the folder or the id of a run; several seeds of one method with commas between them"""


@dataclass(frozen=True)
class Difference:
    """A metric of two runs over the same people.

    Attributes:
        what: which people.
        people, clusters: how many, and from how many sources (clips, pictures), which are drawn as a whole.
        a, b: the two means.
        low, high: 95% percentile interval of b - a, bootstrapped over sources.
        p: of a sign-flip permutation test over sources, two-sided.
    """

    what: str
    people: int
    clusters: int
    a: float
    b: float
    low: float
    high: float
    p: float

    @property
    def mean(self) -> float:
        """The second less the first."""
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out nothing."""
        return self.low > 0 or self.high < 0


def difference(what: str, a: FloatArray, b: FloatArray, clusters: Sequence[str], seed: int = 0) -> Difference:
    """The paired difference of values (N,), with sources as the units of chance.

    People of one clip, or of one picture, are no independent witnesses; so whole sources are drawn and flipped.
    """
    owner, sources = owners(clusters)
    low, high = map(float, bootstrap(mean_of(b - a, owner, sources), sources, seed=seed))
    p = math.nan
    if sources > 1:
        gap = np.bincount(owner, weights=b - a, minlength=sources).astype(np.float64)
        p = _sign_flips(gap, np.random.default_rng(seed))
    return Difference(what, len(a), sources, float(a.mean()), float(b.mean()), low, high, p)


def _sign_flips(gap: FloatArray, rng: np.random.Generator) -> float:
    """Were the two runs interchangeable, each source's difference could as well have the other sign."""
    found = stats.permutation_test(
        (gap, np.zeros_like(gap)), lambda one, other, axis: one.sum(axis) - other.sum(axis), vectorized=True,
        permutation_type="samples", n_resamples=DRAWS, batch=500, rng=rng,
    )  # fmt: skip
    return float(found.pvalue)


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
    seeds: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Method, and the seeds where it has any."""
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.record['method']['title']}" + (f", seed{'s' * (len(self.seeds) > 1)} {seeds}" if seeds else "")


def read_side(name: str, places: Places) -> Side:
    """One side of a comparison by its runs' folders or ids, with commas between them.

    Raises:
        DataError: runs of one side differ in more than the seed.
    """
    first, *others = (_read_run(part, places) for part in ([name] if Path(name).is_dir() else name.split(",")))
    if not others:
        return first
    for other in others:
        if _without_seed(other.record) != _without_seed(first.record):
            raise DataError(f"{first.name} and {other.name} differ in more than the seed; a side is one method")
    seeds = tuple(seed for run in (first, *others) for seed in run.seeds)
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{name}: give every seed once (they are {', '.join(map(str, seeds))})")
    averaged = [str(column) for column in first.people if column == "inout" or str(column).startswith("metric_")]
    people = first.people.copy()
    people[averaged] = sum(run.people[averaged].reindex(people.index) for run in (first, *others)) / len(seeds)
    return Side(name, first.folder, first.record, people, seeds)


def _without_seed(record: Mapping[str, Any]) -> list[Any]:
    settings = {key: value for key, value in record["config"].items() if key not in ("seed", "provenance")}
    return [record["method"]["name"], record["data"]["fingerprint"], settings]


def _read_run(name: str, places: Places) -> Side:
    """A run by its folder or its id below ``runs``.

    Raises:
        DataError: there is none, or several, or it kept no predictions.
    """
    folder = find(name, places)
    predictions = folder / "predictions.parquet"
    if not predictions.is_file():
        raise DataError(f"{folder}: kept no predictions.parquet; repeat the run, or `gazebench eval` its weights")
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    seeds = () if record["seed"] is None else (int(record["seed"]),)
    return Side(name, folder, record, pd.read_parquet(predictions).set_index("person_id"), seeds)


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
        """By person, how much better b is; positive is better."""
        gap = self.joined["b"] - self.joined["a"]
        return gap if self.higher else -gap


def join(a: Side, b: Side, protocol: Protocol, metric: str) -> Pair:
    """The two runs' values of a metric.

    Raises:
        DataError: another dataset, other annotations, or a metric that is no mean over people.
    """
    for key, what in (("name", "datasets"), ("fingerprint", "annotations")):
        if a.record["data"][key] != b.record["data"][key]:
            raise DataError(f"{a.name} and {b.name} were measured on different {what}; nothing can be compared")
    names = [use.name for use in protocol.metrics if _is_mean(use)]
    if metric not in names:
        raise DataError(f"{metric}: compared are means over people: {', '.join(names)}")
    column = f"metric_{metric}"
    for side in (a, b):
        if column not in side.people or side.people[column].isna().all():
            raise DataError(f"{side.name} has no {metric}")
    joined = a.people[["image_id", "group", "subset", column]].rename(columns={column: "a"})
    joined = joined.join(b.people[[column]].rename(columns={column: "b"}), how="inner").dropna(subset=["a", "b"])
    use = next(use for use in protocol.metrics if use.name == metric)
    return Pair(a, b, metric, use.digits, protocol.higher_is_better(metric), joined)


def _is_mean(use: ProtocolMetric) -> bool:
    metric = use.metric()
    return type(metric).reduce is GazeMetric.reduce and metric.unit == "person"


def slices(pair: Pair, dataset: GazeDataset, records: Records, seed: int = 0) -> list[Difference]:
    """Everybody, and groups of people by subset, head size, distance and company."""
    found = []
    for name, mask in groups(pair.joined, traits(dataset, records)):
        chosen = pair.joined[mask]
        found.append(difference(name, chosen["a"].to_numpy(), chosen["b"].to_numpy(), list(chosen["group"]), seed))
    return found


# In or out of the frame ----------------------------------------------------------------------------------------


def in_or_out(a: Side, b: Side, protocol: Protocol, records: Records) -> Pair | None:
    """The two runs' in/out scores of the people whose label the protocol counts, with that label in ``inout``.

    None where the protocol, or one of the runs, has no in/out.
    """
    use = next((use for use in protocol.metrics if use.metric is InOutAP), None)
    if use is None or any(side.people["inout"].isna().all() for side in (a, b)):
        return None
    joined = a.people[["image_id", "group", "subset", "inout"]].rename(columns={"inout": "a"})
    joined = joined.join(b.people[["inout"]].rename(columns={"inout": "b"}), how="inner")
    labels = pd.Series(records.inout, index=[str(person) for person in records.person_id])
    if use.where is not None:
        column, counted = use.where
        labels = labels[np.isin(records.columns[column], list(counted))]
    joined = joined.join(labels.rename("inout"), how="inner").dropna(subset=["a", "b"])
    joined = joined[joined["inout"].isin((IN_FRAME, OUT_OF_FRAME))]
    return Pair(a, b, "in/out", use.digits, True, joined) if joined["inout"].nunique() == 2 else None


def inout_slices(pair: Pair, seed: int = 0) -> list[Difference]:
    """Average precision over everybody; where scores are probabilities, what is given to the truth, by what it is."""
    truth = (pair.joined["inout"] == IN_FRAME).to_numpy()
    a, b = pair.joined["a"].to_numpy(dtype=float), pair.joined["b"].to_numpy(dtype=float)
    clusters = list(pair.joined["group"])
    found = [precision_difference("everybody (average precision)", truth, a, b, clusters, seed)]
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        return found
    for name, mask, side in (("in frame", truth, 1.0), ("out of frame", ~truth, -1.0)):
        one, other = ((side * scores[mask]) + (side < 0) for scores in (a, b))
        names = [cluster for cluster, chosen in zip(clusters, mask, strict=True) if chosen]
        found.append(difference(f"{name} (probability given to it)", one, other, names, seed))
    return found


def precision_difference(
    what: str, truth: npt.NDArray[np.bool_], a: FloatArray, b: FloatArray, clusters: Sequence[str], seed: int = 0
) -> Difference:
    """As ``difference``, of the average precision of two scorings (N,) of the same people.

    Whole sources are drawn by giving their people weights; where the runs are interchangeable, a source's scores
    could as well be the other run's.
    """
    owner, sources = owners(clusters)
    whole, one, other = np.ones((1, len(truth))), a[None], b[None]

    def gap(first: FloatArray, second: FloatArray, weight: FloatArray) -> FloatArray:
        return F.average_precisions(second, truth, weight) - F.average_precisions(first, truth, weight)

    drawn = bootstrap(lambda n: gap(one, other, n[:, owner]), sources, samples=len(truth), seed=seed, draws=INOUT_DRAWS)
    low, high = map(float, drawn)
    p = math.nan
    if sources > 1:
        swapped = np.random.default_rng(seed).integers(0, 2, (INOUT_DRAWS, sources), dtype=bool)
        parts = range(0, INOUT_DRAWS, 50)  # a hundred draws of a large test set at once would fill the memory
        swaps = (swapped[i : i + 50, owner] for i in parts)
        chance = np.concatenate([gap(np.where(s, other, one), np.where(s, one, other), whole) for s in swaps])
        p = float((1 + (np.abs(chance) >= np.abs(gap(one, other, whole)) - 1e-12).sum()) / (1 + INOUT_DRAWS))
    first, second = (float(F.average_precisions(scores, truth, whole)[0]) for scores in (one, other))
    return Difference(what, len(a), sources, first, second, low, high, p)


# Writing -------------------------------------------------------------------------------------------------------


def words(pair: Pair, found: Sequence[Difference]) -> list[str]:
    """What the numbers say, a sentence a group."""
    digits, lines = pair.digits, []
    for one in found:
        better = (one.mean > 0) == pair.higher
        share = f" ({100 * abs(one.mean) / abs(one.a):.0f}%)" if one.a else ""
        span = f"95% interval {one.low:+.{digits}f} to {one.high:+.{digits}f}, p = {one.p:.4f}"
        who = f"{one.what}: {one.people:,} people of {one.clusters:,} sources"
        change = f"{pair.name} {one.a:.{digits}f} → {one.b:.{digits}f}"
        if math.isnan(one.low):
            lines.append(f"{who}: {change}; one source says nothing about chance.")
        elif one.clear:
            lines.append(f"{who}: {pair.b.title} is {'better' if better else 'worse'}, {change}{share}; {span}.")
        else:
            lines.append(f"{who}: no clear difference, {change}; {span}.")
    return lines


def table(pair: Pair, found: Sequence[Difference]) -> str:
    """The same as a Markdown table."""
    digits = pair.digits
    rows = [
        [one.what, f"{one.people:,}", f"{one.clusters:,}", format_value(one.a, digits), format_value(one.b, digits),
         f"{one.mean:+.{digits}f}", f"{one.low:+.{digits}f} to {one.high:+.{digits}f}", f"{one.p:.4f}"]
        for one in found
    ]  # fmt: skip
    headers = ["people", "n", "sources", "A", "B", "B - A", "95% interval", "p"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


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


def samples(pair: Pair, dataset: GazeDataset, records: Records, best: bool, count: int = 4) -> Figure | None:
    """Pictures in which b gains most, or loses most: a above, b below."""
    gain = pair.gain.sort_values(ascending=not best, kind="stable")
    gain = gain[gain > 0] if best else gain[gain < 0]
    chosen = pair.joined.loc[gain.index].drop_duplicates("image_id").head(count)
    if not len(chosen):
        return None
    row_of = {str(person): row for row, person in enumerate(records.person_id)}
    figure = Figure(figsize=(3.6 * len(chosen), 6), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, (key, values) in enumerate(chosen.iterrows()):
        person = row_of[str(key)]
        shown = scene(dataset, records, person)
        for row, (side, name) in enumerate(((pair.a, "a"), (pair.b, "b"))):
            said: Any = side.people.loc[str(key)]
            axis = axes[row][column]
            axis.set_axis_off()
            draw(axis, shown.picture, shown.head, shown.points, (said["x"], said["y"]), heatmap_of(said))
            axis.set_title(f"{side.title}\n{pair.name} {values[name]:.{pair.digits}f}", fontsize=9)
    return figure


def main(arguments: Sequence[str], places: Places) -> int:
    """Compares, prints, writes a page.

    Raises:
        DataError: runs that cannot be compared.
    """
    parser = argparse.ArgumentParser(prog="gazebench compare", usage=USAGE, allow_abbrev=False)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--metric", default="", help="default: the protocol's headline")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    given = parser.parse_args(list(arguments))
    a, b = read_side(given.a, places), read_side(given.b, places)
    kind = load_dataset(a.record["dataset"])
    pair = join(a, b, kind.protocol, given.metric or kind.protocol.headline)
    settings = yaml.safe_load((a.folder / "config.yaml").read_text(encoding="utf-8"))
    dataset = Config(settings).dataset(**settings["dataset"])
    records = dataset.records("test")
    found = slices(pair, dataset, records, given.seed)
    inout = in_or_out(a, b, kind.protocol, records)
    found_inout = [] if inout is None else inout_slices(inout, given.seed)
    page(given.out, pair, dataset, records, found, inout, found_inout)
    print(f"A: {a.title} ({a.folder.name})\nB: {b.title} ({b.folder.name})\n")
    print("\n".join(words(pair, found) + ([] if inout is None else words(inout, found_inout))))
    print(f"\npage {given.out / 'README.md'}")
    return 0


def page(
    folder: Path, pair: Pair, dataset: GazeDataset, records: Records, found: Sequence[Difference], inout: Pair | None,
    found_inout: Sequence[Difference],
) -> None:  # fmt: skip
    """``README.md`` with its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "difference.png": lambda: plot(pair, found),
        "inout.png": lambda: plot(inout, found_inout) if inout else None,
        "best.png": lambda: samples(pair, dataset, records, best=True),
        "worst.png": lambda: samples(pair, dataset, records, best=False),
    }
    drawn = {}
    for name, make in drawings.items():
        figure = make()
        (folder / name).unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(folder / name, dpi=90)
            drawn[name] = f"![]({name})"
    left_out = len(pair.a.people) - len(pair.joined)
    lines = [
        f"# {pair.b.title} against {pair.a.title}: {pair.name} on {dataset.card.title}", "",
        "<!-- generated by `gazebench compare`; do not edit -->", "",
        f"A: {pair.a.title}, run `{pair.a.record['run']}`, class {pair.a.record['status']['class']}. "
        f"B: {pair.b.title}, run `{pair.b.record['run']}`, class {pair.b.record['status']['class']}. "
        f"{len(pair.joined):,} people have a value in both, {left_out:,} of A's have not.", "",
        *(f"- {line}" for line in words(pair, found)), "", table(pair, found), "",
        f"Intervals: percentile bootstrap over sources (clips, pictures), {DRAWS:,} draws; p: sign flips of whole "
        "sources, two-sided, not corrected for the number of groups looked at. Chance of training is not in it; "
        "several seeds are for that.", "",
        *(_inout_lines(inout, found_inout) if inout else ()),
        *(line for name, text in drawn.items() for line in (f"## {_HEADINGS[name]}", "", text, "")),
    ]  # fmt: skip
    write_atomically(folder / "README.md", "\n".join(lines).rstrip("\n") + "\n")


def _inout_lines(pair: Pair, found: Sequence[Difference]) -> list[str]:
    return [
        "## In or out of the frame", "", *(f"- {line}" for line in words(pair, found)), "", table(pair, found), "",
        f"Average precision: {INOUT_DRAWS:,} draws; p: scores of whole sources swapped between the two.", "",
    ]  # fmt: skip


_HEADINGS = {
    "difference.png": "Where B is better",
    "inout.png": "Where B tells better who looks out of the frame",
    "best.png": "Where B gains most (A above, B below)",
    "worst.png": "Where B loses most (A above, B below)",
}
