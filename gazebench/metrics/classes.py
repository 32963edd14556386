"""The metrics as torchmetrics objects: thin, exact under DDP, each person (or pair of people) counted once.

Every class names the ``fields`` it needs and turns them into per-person values by ``values``; the base keeps values
with the key of the person they belong to, gathers them over processes, and drops what came twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from gazebench.core.types import IN_FRAME, UNKNOWN, FloatArray
from gazebench.metrics import functional as F
from gazebench.metrics.functional import Plane, Values


class GazeMetric(Metric, ABC):
    """A mean over people, each counted once; ``compute`` is an empty tensor where nobody has a value.

    ``update(keys, **fields)`` takes the (P,) int64 keys of the people (``types.sample_key``) and the fields by name:
    ``heatmap`` (P, h, w), ``point`` (P, 2), ``points`` (G, 2) with ``point_person`` (G,), ``head`` (P, 4), ``sizes``
    (P, 2) in pixels, ``inout_score`` (P,), ``inout`` (P,), ``heads`` (P, K, 4), ``target_box`` (P, 4), ``label``,
    ``labels``, ``predicted_label`` and ``predicted_class`` (P texts), ``pairs`` (N, 2) and of each pair the labels
    ``lah``, ``laeo``, ``sa`` (N,) and the scores ``lah_score``, ``laeo_score``, ``sa_score`` (N,); coordinates
    normalised. Where the ``unit`` is a pair, the keys are (N,), those of the pairs; where it is a question, see
    ``metrics.vqa``.
    """

    fields: ClassVar[tuple[str, ...]]
    unit: ClassVar[Literal["person", "pair", "question"]] = "person"
    columns: ClassVar[int] = 1
    higher_is_better: bool = False
    is_differentiable: bool = False
    full_state_update: bool = False
    keys: Any
    sources: Any

    def __init__(self, variant: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A MetricCollection merges metrics whose states look alike after one batch, as those of mean and minimum do
        # where everybody has one annotation; a name of its own keeps each apart.
        self._stored = f"stored_{type(self).__name__}{variant}"
        self.add_state("keys", default=[], dist_reduce_fx="cat")
        self.add_state("sources", default=[], dist_reduce_fx="cat")
        self.add_state(self._stored, default=[], dist_reduce_fx="cat")

    @property
    def stored(self) -> Any:
        """The values, one tensor a batch."""
        return getattr(self, self._stored)

    @abstractmethod
    def values(self, **fields: Tensor) -> Values:
        """The values (K,) or (K, n) float64 of those people who have one, and who they are (K,) int64."""

    def update(self, keys: Tensor, **fields: Tensor) -> None:
        """Adds people; those in ``fields`` without a value are left out."""
        values, people = self.values(**{name: fields[name] for name in self.fields})
        self.add(keys.to(people.device)[people], values)

    def add(self, keys: Tensor, values: Tensor, sources: Tensor | None = None) -> None:
        """Adds values that ``values`` made, with the keys of their people.

        Args:
            keys: (K,) int64.
            values: (K,) or (K, n).
            sources: (K,) int64, the same for people of one clip or picture; everybody for themselves when left out.
        """
        self.keys.append(keys.to(self.device))
        self.sources.append((keys if sources is None else sources).to(self.device))
        self.stored.append(values.to(self.device, torch.float64).reshape(len(values), self.columns))
        self._update_count += 1  # what the wrapped update does; compute() warns without it
        self._computed = None

    def sync(self, *arguments: Any, **settings: Any) -> None:
        """Gathers over processes; one that saw nobody takes part with nothing, or the others would wait for it."""
        if not self.keys:
            self.add(torch.zeros(0, dtype=torch.int64), torch.zeros(0, self.columns))
        super().sync(*arguments, **settings)

    def compute(self) -> Tensor:
        """The metric, float64 (); shape (0,) where there is none."""
        self.once = self._once()
        return self.reduce(self.once[0])

    def reduce(self, values: Tensor) -> Tensor:
        """From all people's values to the metric: their mean."""
        return values.mean() if len(values) else values.new_zeros(0)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """(B,) what ``reduce`` gives where the values (K, n) are there (B, K) times; NaN where it gives nothing."""
        rows = torch.from_numpy(values)
        found = [self.reduce(rows.repeat_interleave(torch.from_numpy(times), dim=0)) for times in weights.astype(int)]
        return np.array([float(value) if value.numel() else math.nan for value in found])

    @property
    def count(self) -> int:
        """People counted so far; over all processes when read after ``compute``."""
        return self._count

    _count: int = 0
    once: tuple[Tensor, Tensor] | None = None
    """After ``compute``: everybody's values (K, n), of all processes, and the sources (K,) they are from."""

    def reset(self) -> None:
        """Forgets everybody."""
        super().reset()
        self._count, self.once = 0, None

    def _once(self) -> tuple[Tensor, Tensor]:
        if not len(self.keys):
            self._count = 0
            return torch.zeros(0, self.columns, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        parts = (self.keys, self.stored, self.sources)
        keys, stored, sources = (torch.cat(part) if isinstance(part, list) else part for part in parts)
        first = torch.full_like(keys, len(keys))
        _, group = torch.unique(keys, return_inverse=True)
        first = first.scatter_reduce_(0, group, torch.arange(len(keys), device=keys.device), "amin")
        once = first[: int(group.max()) + 1] if len(keys) else first
        self._count = len(once)
        return stored[once], sources[once]  # in the order of the keys, so that no sum depends on who saw whom


class _InFrame(GazeMetric):
    """Counts people whose target is in frame."""

    def _seen(self, points: Tensor, owner: Tensor, inout: Tensor) -> tuple[Tensor, Tensor]:
        keep = (inout == IN_FRAME)[owner]
        return points[keep], owner[keep]

    def _target(self, people: int, fields: dict[str, Tensor]) -> Tensor:
        """(P, 2) the first annotation of each person in frame, NaN for the others."""
        points, owner = self._seen(fields["points"], fields["point_person"], fields["inout"])
        target = torch.full((people, 2), torch.nan, dtype=torch.float64, device=points.device)
        target[owner.flip(0)] = points.double().flip(0)
        return target


class AUCPoints(_InFrame):
    """GazeFollow's AUC at the picture's own size (``functional.auc_points``)."""

    fields = ("heatmap", "points", "point_person", "sizes", "inout")
    higher_is_better = True

    def values(self, **fields: Tensor) -> Values:
        """One area a person with at least one annotated pixel."""
        points, owner = self._seen(fields["points"], fields["point_person"], fields["inout"])
        areas, people = [], []
        for person in torch.unique(owner).tolist():
            width, height = fields["sizes"][person].tolist()
            area = F.auc_points(fields["heatmap"][person], points[owner == person].cpu(), width, height)
            if area is not None:
                areas.append(area)
                people.append(person)
        return torch.tensor(areas, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


class AUCRectangle(_InFrame):
    """VideoAttentionTarget's AUC (``functional.auc_rectangle``); of several annotations the first one counts."""

    fields = ("heatmap", "points", "point_person", "inout")
    higher_is_better = True

    def values(self, **fields: Tensor) -> Values:
        """One area a person in frame."""
        return F.auc_rectangle(fields["heatmap"], self._target(len(fields["heatmap"]), fields))


class L2ToMean(_InFrame):
    """Avg L2 of GazeFollow, L2 of the others (``functional.l2_to_mean``)."""

    fields = ("point", "points", "point_person", "inout")

    def values(self, **fields: Tensor) -> Values:
        """One distance a person in frame."""
        return F.l2_to_mean(fields["point"], *self._seen(fields["points"], fields["point_person"], fields["inout"]))


class MeanL2(_InFrame):
    """The mean of the distances, *Dist* of the 2015 paper (``functional.mean_l2``)."""

    fields = ("point", "points", "point_person", "inout")

    def values(self, **fields: Tensor) -> Values:
        """One distance a person in frame."""
        return F.mean_l2(fields["point"], *self._seen(fields["points"], fields["point_person"], fields["inout"]))


class MinL2(_InFrame):
    """Min L2 (``functional.min_l2``)."""

    fields = ("point", "points", "point_person", "inout")

    def values(self, **fields: Tensor) -> Values:
        """One distance a person in frame."""
        return F.min_l2(fields["point"], *self._seen(fields["points"], fields["point_person"], fields["inout"]))


class _Angle(_InFrame):
    fields = ("point", "points", "point_person", "head", "sizes", "inout")

    def __init__(self, plane: Plane = "normalised", **kwargs: Any) -> None:
        super().__init__(variant=plane, **kwargs)
        self.plane: Plane = plane

    def _arguments(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        points, owner = self._seen(fields["points"], fields["point_person"], fields["inout"])
        return fields["point"], points, owner, fields["head"], fields["sizes"]


class AngleToMean(_Angle):
    """Angular error to the mean annotation, degrees (``functional.angle_to_mean``)."""

    def values(self, **fields: Tensor) -> Values:
        """One angle a person in frame with a head box."""
        return F.angle_to_mean(*self._arguments(fields), plane=self.plane)


class MeanAngle(_Angle):
    """Mean angular error over the annotations, degrees (``functional.mean_angle``)."""

    def values(self, **fields: Tensor) -> Values:
        """One angle a person in frame with a head box."""
        return F.mean_angle(*self._arguments(fields), plane=self.plane)


class MinAngle(_Angle):
    """Smallest angular error over the annotations, degrees (``functional.min_angle``)."""

    def values(self, **fields: Tensor) -> Values:
        """One angle a person in frame with a head box."""
        return F.min_angle(*self._arguments(fields), plane=self.plane)


class HeadPrecision(_InFrame):
    """P.Head (``functional.head_precision``); of several annotations the first one counts.

    The count is that of the predictions in a head: of none there is no precision.
    """

    fields = ("point", "points", "point_person", "inout", "heads")
    higher_is_better = True

    def values(self, **fields: Tensor) -> Values:
        """Right or wrong, for people in frame whose predicted point lies in a head."""
        return F.head_precision(fields["point"], self._target(len(fields["point"]), fields), fields["heads"])


class GazeAccuracy(GazeMetric):
    """GazeAcc (``functional.gaze_accuracy``)."""

    fields = ("point", "target_box")
    higher_is_better = True

    def values(self, **fields: Tensor) -> Values:
        """Right or wrong, for people whose target has a box."""
        return F.gaze_accuracy(fields["point"], fields["target_box"])


class LabelAccuracy(GazeMetric):
    """Acc@1 of the category as it was named (``functional.label_accuracy``)."""

    fields = ("predicted_label", "label")
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        """Right or wrong, for people whose target has a category."""
        return F.label_accuracy(*(fields[name] for name in self.fields))


class ClassAccuracy(LabelAccuracy):
    """Acc@1 of the class nearest to what was named (``vocabulary.Vocabulary``)."""

    fields = ("predicted_class", "label")


class MultiLabelAccuracy(GazeMetric):
    """MultiAcc@1 of the category as it was named (``functional.multi_label_accuracy``)."""

    fields = ("predicted_label", "labels")
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        """Right or wrong, for people whose target has a category."""
        return F.multi_label_accuracy(*(fields[name] for name in self.fields))


class MultiClassAccuracy(MultiLabelAccuracy):
    """MultiAcc@1 of the class nearest to what was named (``vocabulary.Vocabulary``)."""

    fields = ("predicted_class", "labels")


class _F1(GazeMetric):
    """F1 of truths and scores pooled over all people; its count is that of the values pooled."""

    columns = 2
    higher_is_better = True

    def reduce(self, values: Tensor) -> Tensor:
        """F1; nothing where nothing is positive."""
        value = F.f1(values[:, 0], values[:, 1])
        return values.new_zeros(0) if value is None else values.new_tensor(value)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """F1 of each draw."""
        return F.f1_drawn(values[:, 0] == 1, values[:, 1], weights)


class LookingAtHeads(_F1):
    """F1 LAH by a method's own scores (``functional.looking_at_heads``); it counts lookers."""

    fields = ("lah_score", "lah", "pairs", "inout")

    def values(self, **fields: Tensor) -> Values:
        """(K, 2): truth and score of lookers in frame."""
        return F.looking_at_heads(*(fields[name] for name in self.fields))


class LookingAtHeadsByPoint(_F1):
    """F1 LAH by post-processing of points (``functional.looking_at_heads_by_point``); it counts lookers."""

    fields = ("point", "head", "lah", "pairs", "inout")

    def values(self, **fields: Tensor) -> Values:
        """(K, 2): truth and answer of lookers in frame."""
        return F.looking_at_heads_by_point(*(fields[name] for name in self.fields))


class LookingAtEachOther(_F1):
    """F1 LAEO by a method's own scores (``functional.looking_at_each_other``)."""

    fields = ("laeo_score", "laeo", "pairs")
    unit = "pair"

    def values(self, **fields: Tensor) -> Values:
        """(K, 2): truth and score of ordered pairs."""
        return F.looking_at_each_other(*(fields[name] for name in self.fields))


class LookingAtEachOtherByPoint(_F1):
    """F1 LAEO by post-processing of points (``functional.looking_at_each_other_by_point``)."""

    fields = ("point", "head", "laeo", "pairs")
    unit = "pair"

    def values(self, **fields: Tensor) -> Values:
        """(K, 2): truth and answer of ordered pairs."""
        return F.looking_at_each_other_by_point(*(fields[name] for name in self.fields))


class _AveragePrecision(GazeMetric):
    """Average precision of scores and labels pooled over all people."""

    columns = 2
    higher_is_better = True

    def values(self, **fields: Tensor) -> Values:
        """(K, 2): score and label, where the label is known."""
        score, label = (fields[name].double() for name in self.fields)
        known = torch.nonzero(label != UNKNOWN)[:, 0]
        return torch.stack([score, label], dim=1)[known], known

    def reduce(self, values: Tensor) -> Tensor:
        """Average precision; nothing unless both labels occur."""
        precision = F.average_precision(values[:, 0], values[:, 1] == 1)
        return values.new_zeros(0) if precision is None else values.new_tensor(precision)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Average precision of each draw."""
        positive = values[:, 1] == 1
        return np.where(weights @ ~positive > 0, F.average_precisions(values[None, :, 0], positive, weights), math.nan)


class InOutAP(_AveragePrecision):
    """Average precision of "the target is in frame", over all people whose label is known."""

    fields = ("inout_score", "inout")


class SharedAttention(_AveragePrecision):
    """AP SA: average precision of "they look at the same thing", over all ordered pairs whose label is known."""

    fields = ("sa_score", "sa")
    unit = "pair"
