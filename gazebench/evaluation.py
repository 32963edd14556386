"""Evaluation belongs to the harness: predictions in, metrics per subset and a row per person out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.decode import DECODERS
from gazebench.protocol import ALL, SUBSETS, Protocol
from gazebench.types import Batch, Prediction, sample_key


@dataclass(frozen=True)
class Score:
    """A metric's value and the number of people (or annotated scores) it was taken over."""

    value: float
    count: int


@dataclass(frozen=True)
class ScoredBatch:
    """What the evaluator made of one batch: the decoded points and each person's values by metric."""

    batch: Batch
    prediction: Prediction
    point: Tensor | None
    values: dict[str, tuple[Tensor, Tensor]]


class Evaluator(nn.Module):
    """Scores predictions by a protocol, for all people and per subset.

    A metric without a single sample is absent from ``compute``; there are no sentinel values. Values are exact under
    DDP: states are gathered with each person's key and a person counts once.
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
            # A free text would become the nearest class of a vocabulary here, before it is compared.
            "predicted_label": prediction.extra.get("label"),
            **{name: targets.extra.get(name) for name in ("label", "target_box", "heads")},
        }
        keys = torch.tensor([sample_key(person) for person in batch.person_ids], dtype=torch.int64)
        in_subset = {
            subset: torch.tensor([subset in (ALL, mine) for mine in targets.subset], dtype=torch.bool)
            for subset in SUBSETS
        }
        values: dict[str, tuple[Tensor, Tensor]] = {}
        for use in self.protocol.metrics:
            first: Any = self.metrics[_key(use.name, ALL)]
            given = {name: fields[name] for name in first.fields}
            if any(value is None for value in given.values()):
                continue
            value, sample = first.values(**given)
            values[use.name] = (value, sample)
            for subset in SUBSETS if use.subsets else (ALL,):
                metric: Any = self.metrics[_key(use.name, subset)]
                inside = in_subset[subset][sample]
                metric.add(keys[sample][inside], value[inside])
        return ScoredBatch(batch, prediction, point, values)

    def compute(self) -> dict[str, dict[str, Score]]:
        """``{metric: {subset: Score}}``; what had no sample is absent."""
        scores: dict[str, dict[str, Score]] = {}
        for use in self.protocol.metrics:
            for subset in SUBSETS if use.subsets else (ALL,):
                metric: Any = self.metrics[_key(use.name, subset)]
                value = metric.compute()
                if value.numel():
                    scores.setdefault(use.name, {})[subset] = Score(float(value), int(metric.count))
        return scores

    def reset(self) -> None:
        """Forgets everything."""
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]

    def _resized(self, heatmap: Tensor) -> Tensor:
        if tuple(heatmap.shape[-2:]) == self.protocol.heatmap_size:
            return heatmap
        return F.interpolate(heatmap[:, None], self.protocol.heatmap_size, mode="bilinear", align_corners=False)[:, 0]


def _key(metric: str, subset: str) -> str:
    return f"{metric}/{subset}"


def _without(points: Tensor, owner: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves out the annotation each person's baseline used (position among that person's annotations)."""
    counts = torch.bincount(owner, minlength=len(used))
    start = torch.cumsum(counts, 0) - counts
    position = torch.arange(len(owner), device=owner.device) - start[owner]
    keep = position != used.to(owner.device)[owner]
    return points[keep], owner[keep]
