"""Scores predictions by a protocol, for everybody and per subset: records and predictions in, values out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor, nn

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.types import SOCIAL, Item, Prediction, Records, pairs_of, stable_key
from gazebench.metrics.base import GazeMetric, Values
from gazebench.metrics.intervals import bootstrap, mean_of
from gazebench.metrics.protocol import ALL, SUBSETS, Protocol, ProtocolMetric


@dataclass(frozen=True)
class Score:
    """A metric's value and the number of people (or pairs, or items) it was taken over.

    ``low`` and ``high`` are its 95% interval over ``sources`` clips or images (``intervals.bootstrap``); None where it
    was not asked for, where there is a single source, or where some draw of them has no value.
    """

    value: float
    count: int
    low: float | None = None
    high: float | None = None
    sources: int | None = None


class ScoredTask(Interface):
    """What scoring needs of a task (``data.task.Task``)."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[ProtocolMetric, ...]]

    def fields(self, items: Sequence[Item], truths: Sequence[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """The fields its metrics read."""


Items = Mapping[str, tuple[Sequence[Item], Sequence[Any]]]
"""By task, items with their truths; ``Item.person`` counts through the people of the prediction."""


class Scorer(nn.Module):
    """Scores predictions of some records by a protocol, for all people and per subset.

    A metric without a single sample is absent from ``compute``; there are no sentinel values. Values are exact for any
    number of processes: states are gathered with each person's (or pair's, or item's) key, which counts once.

    Args:
        protocol: of the data set.
        records: who is scored; the truth.
        tasks: further tasks whose items are scored.
        alone: this process sees everybody, whatever other processes there are; it gathers nothing.
    """

    def __init__(
        self, protocol: Protocol, records: Records, tasks: Sequence[ScoredTask] = (), *, alone: bool = False
    ) -> None:
        super().__init__()
        self.protocol, self.records, self.tasks = protocol, records, tasks
        self.columns = (*protocol.metrics, *(column for task in tasks for column in task.metrics))
        self.counts_pairs = any(column.metric().unit == "pair" for column in self.columns)
        self.metrics = nn.ModuleDict(
            {
                _key(column.name, subset): column.metric()
                for column in self.columns
                for subset in (SUBSETS if column.subsets else (ALL,))
            }
        )
        metric: Any
        for metric in self.metrics.values() if alone else ():
            metric.distributed_available_fn = lambda: False

    def update(self, images: IntArray, prediction: Prediction, items: Items | None = None) -> dict[str, Values]:
        """Adds the people of whole images.

        Args:
            images: positions in the records, of all images whose people ``prediction`` is about, in its order.
            prediction: of their people.
            items: of the tasks, about these people.

        Returns:
            Each metric's values with the people (pairs, items) they belong to.

        Raises:
            ValueError: scores of pairs are not one probability a pair.
        """
        prediction = prediction.to("cpu")  # scoring is small and exact in float64, whatever made the prediction
        records = self.records.of_images(images)
        fields, keys, sources = self._fields(records, prediction)
        of_task = self._add_tasks(prediction, items or {}, keys, sources)
        subsets = records.columns.get("subset", np.full(records.people, ""))
        values: dict[str, Values] = {}
        for column in self.columns:
            metric: Any = self.metrics[_key(column.name, ALL)]
            known = fields | of_task.get(metric.unit, {})
            given = {name: known.get(name) for name in metric.fields}
            if metric.unit not in keys or any(value is None for value in given.values()):
                continue
            value, sample = metric.values(**given)
            if column.where is not None:
                name, counted = column.where
                counts = torch.from_numpy(np.isin(records.columns[name], sorted(counted)))[sample]
                value, sample = value[counts], sample[counts]
            values[column.name] = (value, sample)
            key, source = keys[metric.unit][sample], sources[metric.unit][sample]
            metric.add(key, value, source)
            for subset in SUBSETS[1:] if column.subsets else ():
                inside = torch.from_numpy(subsets == subset)[sample]
                part: Any = self.metrics[_key(column.name, subset)]
                part.add(key[inside], value[inside], source[inside])
        return values

    def _fields(
        self, records: Records, prediction: Prediction
    ) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """What metrics of people and pairs may read, by name; by unit the keys of what is counted and of its source."""
        image = records.person_image
        points = torch.from_numpy(records.points)
        owner = torch.from_numpy(np.repeat(np.arange(records.people), np.diff(records.point_start)))
        if prediction.used_annotation is not None:  # the one a baseline has copied is left out
            used = torch.from_numpy(records.point_start[:-1]) + prediction.used_annotation
            others = torch.arange(len(points)) != used[owner]
            points, owner = points[others], owner[others]
        pairs = torch.from_numpy(pairs_of(image))
        vocabulary = self.protocol.vocabulary
        label = prediction.label
        fields: dict[str, Any] = {
            **{name: _tensor(column) for name, column in records.columns.items()},
            **{name: torch.from_numpy(labels.astype(np.int64)) for name, labels in records.pairs.items()},
            "heatmap": self.protocol.heatmap(prediction),
            "point": self.protocol.point(prediction),
            "text_point": prediction.text_point,
            "inout_score": prediction.inout,
            "predicted_label": label,
            "predicted_class": None if label is None or vocabulary is None else vocabulary.nearest(label),
            **{f"{name}_score": _probabilities(name, prediction, len(pairs)) for name in SOCIAL},
            "points": points,
            "point_person": owner,
            "head": torch.from_numpy(records.head).float(),  # as methods see it
            "sizes": torch.from_numpy(records.sizes[image]),
            "inout": torch.from_numpy(records.inout.astype(np.int64)),
            "pairs": pairs,
            "vocabulary": vocabulary,
        }
        ids = [str(person) for person in records.person_id]
        keys = {"person": _keys(ids)}
        sources = {"person": _keys(str(group) for group in records.groups[image])}
        if self.counts_pairs:  # a crowd has a million of them
            keys["pair"] = _keys(f"{ids[i]}\n{ids[j]}" for i, j in pairs.tolist())
            sources["pair"] = sources["person"][pairs[:, 0]]
        return fields, keys, sources

    def _add_tasks(
        self,
        prediction: Prediction,
        given: Items,
        keys: dict[str, Tensor],
        sources: dict[str, Tensor],
    ) -> dict[str, dict[str, Any]]:
        """By task, what its metrics read besides; the keys of its items and of their sources join the others."""
        fields: dict[str, dict[str, Any]] = {}
        for task in self.tasks:
            outputs = prediction.outputs.get(task.name)
            if outputs is None:
                continue
            items, truths = given.get(task.name, ((), ()))
            if len(outputs) != len(items):
                raise ValueError(f'{task.name}: {len(outputs)} outputs for {len(items)} items; one each, "" for none')
            if items:
                fields[task.name] = task.fields(items, truths, outputs)
                keys[task.name] = _keys(item.id for item in items)
                sources[task.name] = sources["person"][[item.person for item in items]]
        return fields

    def compute(self, *, intervals: bool = False) -> dict[str, dict[str, Score]]:
        """``{metric: {subset: Score}}``; what had no sample is absent.

        Args:
            intervals: also find the 95% interval of every value; seconds on thousands of images.
        """
        scores: dict[str, dict[str, Score]] = {}
        found: dict[tuple[str, str], GazeMetric] = {}
        for column in self.columns:
            for subset in SUBSETS if column.subsets else (ALL,):
                metric: Any = self.metrics[_key(column.name, subset)]
                value = metric.compute()
                if value.numel():
                    scores.setdefault(column.name, {})[subset] = Score(float(value), int(metric.count))
                    found[column.name, subset] = metric
        for (name, subset), (low, high, sources) in intervals_of(found).items() if intervals else ():
            scores[name][subset] = replace(scores[name][subset], low=low, high=high, sources=sources)
        return scores


def intervals_of(metrics: Mapping[tuple[str, str], GazeMetric]) -> dict[tuple[str, str], tuple[float, float, int]]:
    """Lower end, upper end and number of sources, by what the metrics are called; ``compute`` comes first.

    Means over the same people are taken together: drawing thousands of images thousands of times is what costs.
    """
    together: dict[bytes, list[tuple[str, str]]] = {}
    for name, metric in metrics.items():
        assert metric.once is not None, "compute() comes first"
        alone = b"" if _is_mean(metric) else repr(name).encode()
        together.setdefault(metric.once[1].numpy().tobytes() + alone, []).append(name)
    found = {}
    for names in together.values():
        ends, sources = _drawn([metrics[name] for name in names])
        for name, (low, high) in zip(names, ends, strict=True):
            if math.isfinite(low) and math.isfinite(high):
                found[name] = (low, high, sources)
    return found


def _drawn(metrics: Sequence[GazeMetric]) -> tuple[list[tuple[float, float]], int]:
    """The ends of the intervals of metrics over the same people, and the number of their sources."""
    once = [metric.once for metric in metrics if metric.once is not None]
    values = np.concatenate([values.numpy() for values, _ in once], axis=1)
    names, owner = np.unique(once[0][1].numpy(), return_inverse=True)
    sources = len(names)

    def pooled(counts: FloatArray) -> FloatArray:
        return metrics[0].drawn(values, counts[:, owner])[None]

    statistic = mean_of(values, owner, sources) if _is_mean(metrics[0]) else pooled
    low, high = bootstrap(statistic, sources, samples=len(values))
    return list(zip(low.tolist(), high.tolist(), strict=True)), sources


def _is_mean(metric: GazeMetric) -> bool:
    return type(metric).reduce is GazeMetric.reduce


def _tensor(column: Any) -> Any:
    return column.tolist() if column.dtype.kind == "U" else torch.from_numpy(column)


def _probabilities(name: str, prediction: Prediction, pairs: int) -> Tensor | None:
    scores: Tensor | None = getattr(prediction, name)
    if scores is not None and (scores.shape != (pairs,) or (scores < 0).any() or (scores > 1).any()):
        raise ValueError(
            f"{name} has shape {tuple(scores.shape)}, or leaves [0, 1]: give each of the {pairs} rows of Batch.pairs a "
            "probability, not a logit"
        )
    return scores


def _keys(names: Iterable[str]) -> Tensor:
    return torch.tensor([stable_key(name) for name in names], dtype=torch.int64)


def _key(metric: str, subset: str) -> str:
    return f"{metric}/{subset}"
