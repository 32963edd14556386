"""Evaluation belongs to the harness: predictions in, metrics per subset and a row per person out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.types import SOCIAL, Batch, FloatArray, Prediction, sample_key
from gazebench.metrics.classes import GazeMetric
from gazebench.metrics.decode import DECODERS
from gazebench.metrics.intervals import bootstrap, mean_of
from gazebench.metrics.protocol import ALL, SUBSETS, Protocol
from gazebench.vqa.questions.reading import Said, read


@dataclass(frozen=True)
class Score:
    """A metric's value and the number of people (or pairs, or annotated scores) it was taken over.

    ``low`` and ``high`` are its 95% interval over ``sources`` clips or pictures (``intervals.bootstrap``); None where
    it was not asked for, where there is a single source, or where some draw of them has no value.
    """

    value: float
    count: int
    low: float | None = None
    high: float | None = None
    sources: int | None = None


@dataclass(frozen=True)
class ScoredBatch:
    """What the evaluator made of one batch: the decoded points and each person's (or pair's) values by metric."""

    batch: Batch
    prediction: Prediction
    point: Tensor | None
    values: dict[str, tuple[Tensor, Tensor]]


class Evaluator(nn.Module):
    """Scores predictions by a protocol, for all people and per subset.

    A metric without a single sample is absent from ``compute``; there are no sentinel values. Values are exact under
    DDP: states are gathered with each person's (or pair's) key and a person (or pair) counts once.
    """

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.metrics = nn.ModuleDict(
            {
                _key(use.name, subset): use.metric()
                for use in protocol.metrics
                for subset in (SUBSETS if use.subsets else (ALL,))
            }
        )

    def update(self, prediction: Prediction, batch: Batch) -> ScoredBatch:
        """Adds the people of one batch; ``batch.targets`` must be there.

        Returns:
            The decoded points (P, 2), normalised, and per metric its values with the people they belong to.

        Raises:
            ValueError: there are no targets, or scores of pairs are not as ``types.Prediction`` says.
        """
        # Scoring is small and exact in NumPy's float64: it happens on the CPU whatever made the prediction.
        prediction, batch = prediction.to("cpu"), batch.to("cpu")
        targets = batch.targets
        if targets is None:
            raise ValueError("cannot score a batch without targets")
        heatmap = None if prediction.heatmap is None else self._resized(prediction.heatmap.float())
        point = prediction.point
        if point is None and heatmap is not None:
            point = DECODERS[self.protocol.decoder](heatmap)
        points, owner = targets.points, targets.point_person
        if prediction.used_annotation is not None:
            points, owner = _without(points, owner, prediction.used_annotation)
        fields: dict[str, Any] = {
            "heatmap": heatmap,
            "point": point,
            "points": points,
            "point_person": owner,
            "head": batch.head,
            "sizes": batch.sizes[batch.image_index],
            "inout_score": prediction.inout,
            "inout": targets.inout,
            "predicted_label": prediction.extra.get("label"),
            "predicted_class": self._classes(prediction.extra.get("label")),
            **{name: targets.extra.get(name) for name in ("label", "labels", "target_box", "heads", *SOCIAL)},
            "pairs": batch.pairs,
            "questions": batch.questions,
            "truths": targets.answers,
            "said": _said(prediction, batch),
            "similarity": None if self.protocol.vocabulary is None else self.protocol.vocabulary.similarity,
        }
        fields |= {f"{name}_score": _probabilities(name, prediction, len(fields["pairs"])) for name in SOCIAL}
        keys = {"person": _keys(batch.person_ids)}
        sources = {"person": _keys(batch.groups[image] for image in batch.image_index.tolist())}
        if any(targets.extra.get(name) is not None for name in SOCIAL):
            ids = batch.person_ids
            keys["pair"] = _keys(f"{ids[i]}\n{ids[j]}" for i, j in fields["pairs"].tolist())
            sources["pair"] = sources["person"][fields["pairs"][:, 0]]
        if batch.questions:
            keys["question"] = _keys(question.id for question in batch.questions)
            sources["question"] = sources["person"][[question.person for question in batch.questions]]
        in_subset = {
            subset: torch.tensor([subset == mine for mine in targets.subset], dtype=torch.bool)
            for subset in SUBSETS[1:]
        }
        values: dict[str, tuple[Tensor, Tensor]] = {}
        for use in self.protocol.metrics:
            first: Any = self.metrics[_key(use.name, ALL)]
            given = {name: fields[name] for name in first.fields}
            if any(value is None for value in given.values()):
                continue
            value, sample = first.values(**given)
            if use.where is not None:
                column, counted = use.where
                counts = torch.tensor([name in counted for name in targets.extra[column]], dtype=torch.bool)[sample]
                value, sample = value[counts], sample[counts]
            values[use.name] = (value, sample)
            key, source = keys[first.unit][sample], sources[first.unit][sample]
            first.add(key, value, source)
            for subset in SUBSETS[1:] if use.subsets else ():
                metric: Any = self.metrics[_key(use.name, subset)]
                inside = in_subset[subset][sample]
                metric.add(key[inside], value[inside], source[inside])
        return ScoredBatch(batch, prediction, point, values)

    def compute(self, *, intervals: bool = False) -> dict[str, dict[str, Score]]:
        """``{metric: {subset: Score}}``; what had no sample is absent.

        Args:
            intervals: also find the 95% interval of every value; seconds on thousands of pictures.
        """
        scores: dict[str, dict[str, Score]] = {}
        found: dict[tuple[str, str], GazeMetric] = {}
        for use in self.protocol.metrics:
            for subset in SUBSETS if use.subsets else (ALL,):
                metric: Any = self.metrics[_key(use.name, subset)]
                value = metric.compute()
                if value.numel():
                    scores.setdefault(use.name, {})[subset] = Score(float(value), int(metric.count))
                    found[use.name, subset] = metric
        for (name, subset), (low, high, sources) in intervals_of(found).items() if intervals else ():
            scores[name][subset] = replace(scores[name][subset], low=low, high=high, sources=sources)
        return scores

    def reset(self) -> None:
        """Forgets everything."""
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]

    def _classes(self, labels: Sequence[str] | None) -> list[str] | None:
        """The vocabulary's nearest classes, where there is a vocabulary."""
        vocabulary = self.protocol.vocabulary
        return None if labels is None or vocabulary is None else vocabulary.nearest(labels)

    def _resized(self, heatmap: Tensor) -> Tensor:
        if tuple(heatmap.shape[-2:]) == self.protocol.heatmap_size:
            return heatmap
        return F.interpolate(heatmap[:, None], self.protocol.heatmap_size, mode="bilinear", align_corners=False)[:, 0]


def intervals_of(metrics: Mapping[tuple[str, str], GazeMetric]) -> dict[tuple[str, str], tuple[float, float, int]]:
    """Lower end, upper end and number of sources, by what the metrics are called.

    Means over the same people are taken together: drawing thousands of pictures thousands of times is what costs.
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


def _said(prediction: Prediction, batch: Batch) -> list[Said] | None:
    """What a method's answers say; None where it gives none, or was asked nothing."""
    answers: Sequence[str] | None = prediction.extra.get("answers")
    if answers is None or not batch.questions:
        return None
    if len(answers) != len(batch.questions):
        raise ValueError(f'{len(answers)} answers to {len(batch.questions)} questions: one each, "" for none')
    return [read(question.form, answer) for question, answer in zip(batch.questions, answers, strict=True)]


def _probabilities(name: str, prediction: Prediction, pairs: int) -> Tensor | None:
    """A method's scores of the pairs."""
    scores: Tensor | None = prediction.extra.get(name)
    if scores is None:
        return None
    if scores.shape != (pairs,):
        raise ValueError(f"{name} has shape {tuple(scores.shape)} for {pairs} pairs: one score a row of Batch.pairs")
    if (scores < 0).any() or (scores > 1).any():
        raise ValueError(
            f"{name} leaves [0, 1] ({float(scores.min()):.3g} to {float(scores.max()):.3g}): give probabilities, not "
            "logits"
        )
    return scores


def _keys(names: Iterable[str]) -> Tensor:
    return torch.tensor([sample_key(name) for name in names], dtype=torch.int64)


def _key(metric: str, subset: str) -> str:
    return f"{metric}/{subset}"


def _without(points: Tensor, owner: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves out the annotation each person's baseline used (position among that person's annotations)."""
    counts = torch.bincount(owner, minlength=len(used))
    start = torch.cumsum(counts, 0) - counts
    position = torch.arange(len(owner), device=owner.device) - start[owner]
    keep = position != used.to(owner.device)[owner]
    return points[keep], owner[keep]
