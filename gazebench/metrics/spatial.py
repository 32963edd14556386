"""Where people look: AUC, distances, angles, in or out of the frame, points in boxes.

Each metric is a pure function and, below it, the thin torchmetrics class of a protocol. The field's protocol
(docs/protocols.md) is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.boxes import FloatArray
from gazebench.core.types import IN_FRAME, UNKNOWN
from gazebench.metrics.base import GazeMetric, PooledMetric, Values

Plane = Literal["normalised", "pixel"]

VAT_SIZE = 64
VAT_REACH = 9
WORST_ANGLE = 180.0
"""Degrees."""
AT_ORIGIN = 1e-6
"""Normalised; a method that answers with the head centre rounds it to float32, and rounding is no direction."""


def in_frame(points: Tensor, owner: Tensor, inout: Tensor) -> tuple[Tensor, Tensor]:
    """The annotations (G, 2) and their people (G,) of those whose target is in frame, by ``inout`` (P,)."""
    keep = (inout == IN_FRAME)[owner]
    return points[keep], owner[keep]


def first_annotation(people: int, points: Tensor, owner: Tensor) -> Tensor:
    """(P, 2) float64 the first annotation of each person, NaN for people without one.

    Args:
        people: how many there are, P.
        points: (G, 2) annotations.
        owner: (G,) int64, the person of each, in any order; of one person's annotations the one of lowest row counts.
    """
    nobody = len(owner)
    first = torch.full((people,), nobody, dtype=torch.int64, device=owner.device)
    first.scatter_reduce_(0, owner, torch.arange(nobody, device=owner.device), "amin")
    return torch.cat([points.double(), points.new_full((1, 2), torch.nan, dtype=torch.float64)])[first]


# Area under the ROC curve ------------------------------------------------------------------------------------------


def auc_points(heatmap: Tensor, points: npt.ArrayLike | Tensor, width: int, height: int) -> float | None:
    """GazeFollow's AUC of one person: the map at the picture's size against the annotators' pixels.

    The map (h, w) is resized bilinearly (``align_corners=False``, float32) to (height, width). Positives are the
    pixels (int(x W), int(y H)), clipped to the last one, each counted once; points with x < 0 are skipped. Ties count
    half. Equal to ``sklearn.metrics.roc_auc_score`` over all pixels, without sorting them: the area needs only how
    many pixels lie below each positive.

    Args:
        heatmap: (h, w), any real values.
        points: (A, 2) normalised.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        The area in [0, 1]; None where there is no positive or no negative pixel.

    Raises:
        ValueError: the map holds values that are not finite.
    """
    _finite(heatmap)
    resized = F.interpolate(heatmap.detach()[None, None].float(), (height, width), mode="bilinear", align_corners=False)
    scores: npt.NDArray[np.float32] = resized[0, 0].cpu().numpy().ravel()
    positive = _pixels(np.asarray(points, dtype=np.float64), width, height)
    if not 0 < len(positive) < scores.size:
        return None
    ranks = sum(int(np.count_nonzero(scores < v)) + int(np.count_nonzero(scores <= v)) for v in scores[positive])
    return _area(ranks / 2, len(positive), scores.size)


class AUCPoints(GazeMetric):
    """GazeFollow's AUC at the image's own size (``auc_points``)."""

    fields = ("heatmap", "points", "point_person", "sizes", "inout")
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        """One area for each person with at least one annotated pixel."""
        points, owner = in_frame(fields["points"], fields["point_person"], fields["inout"])
        areas, people = [], []
        for person in torch.unique(owner).tolist():
            width, height = fields["sizes"][person].tolist()
            area = auc_points(fields["heatmap"][person], points[owner == person].cpu(), width, height)
            if area is not None:
                areas.append(area)
                people.append(person)
        return torch.tensor(areas, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


def auc_rectangle(heatmap: Tensor, point: Tensor) -> Values:
    """VideoAttentionTarget's AUC: the 64 x 64 map against a rectangle around the target.

    Positives are the columns [max(0, int(64x - 9)), min(int(64x + 10), 63)) and the rows likewise, end exclusive, so
    column and row 63 are never positive. Ties count half.

    Args:
        heatmap: (P, 64, 64).
        point: (P, 2) normalised; NaN where there is none.

    Raises:
        ValueError: the maps are not 64 x 64, or hold values that are not finite.
    """
    if heatmap.shape[1:] != (VAT_SIZE, VAT_SIZE):
        raise ValueError(f"this AUC is defined on {VAT_SIZE} x {VAT_SIZE} maps, got {tuple(heatmap.shape[1:])}")
    _finite(heatmap)
    scores = np.ascontiguousarray(heatmap.detach().cpu().float().numpy()).reshape(len(heatmap), VAT_SIZE**2)
    # NumPy sorts floats by vector instructions, far faster than it ranks them; ranks follow by bisection.
    ordered = np.sort(scores, axis=1)
    target = point.detach().cpu().double().numpy()
    values, people = [], []
    for person in np.flatnonzero(np.isfinite(target).all(axis=1)):
        low = np.maximum(0, np.trunc(VAT_SIZE * target[person] - VAT_REACH)).astype(int)
        high = np.minimum(np.trunc(VAT_SIZE * target[person] + VAT_REACH + 1), VAT_SIZE - 1).astype(int)
        positive = scores[person].reshape(VAT_SIZE, VAT_SIZE)[low[1] : high[1], low[0] : high[0]].ravel()
        if positive.size:
            positive = np.sort(positive)  # bisection goes several times faster through ascending needles
            ranks = ordered[person].searchsorted(positive, "left") + ordered[person].searchsorted(positive, "right")
            values.append(_area(ranks.sum() / 2, positive.size, ordered.shape[1]))
            people.append(person)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


class AUCRectangle(GazeMetric):
    """VideoAttentionTarget's AUC (``auc_rectangle``); of several annotations the first one counts."""

    fields = ("heatmap", "points", "point_person", "inout")
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        points, owner = in_frame(fields["points"], fields["point_person"], fields["inout"])
        return auc_rectangle(fields["heatmap"], first_annotation(len(fields["heatmap"]), points, owner))


def _area(midranks: float, positives: int, pixels: int) -> float:
    """Mann-Whitney: the sum of how many pixels lie below each positive, ties half, positives among themselves out."""
    return float((midranks - positives**2 / 2) / (positives * (pixels - positives)))


def _finite(heatmap: Tensor) -> None:
    if not torch.isfinite(heatmap).all():
        raise ValueError("the heatmap holds values that are not finite: a ranking of them means nothing")


def _pixels(points: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.int64]:
    """Flat indices of the annotated pixels, each once."""
    points = points.reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1) & (points[:, 0] >= 0)]
    cells = np.clip(np.trunc(points * (width, height)), 0, (width - 1, height - 1)).astype(np.int64)
    return np.unique(cells[:, 1] * width + cells[:, 0])


# Distances ---------------------------------------------------------------------------------------------------------


def l2_to_mean(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Distance to the mean of a person's annotations: GazeFollow's Avg L2, and L2 where there is one annotation.

    Args:
        point: (P, 2) normalised predictions.
        points: (G, 2) normalised annotations.
        owner: (G,) int64 ascending, the person of each.
    """
    mean, people = _means(points, owner)
    return _distances(point, mean, people), people


def mean_l2(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Mean of the distances to a person's annotations: the *Dist* of the 2015 paper; arguments of ``l2_to_mean``."""
    return _per_person(_distances(point, points, owner), owner, "mean")


def min_l2(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Distance to a person's nearest annotation: Min L2; arguments of ``l2_to_mean``."""
    return _per_person(_distances(point, points, owner), owner, "amin")


class L2ToMean(GazeMetric):
    """Avg L2 of GazeFollow, L2 of the others (``l2_to_mean``)."""

    fields = ("point", "points", "point_person", "inout")
    function = staticmethod(l2_to_mean)

    def values(self, **fields: Any) -> Values:
        """One distance for each person in frame."""
        points, owner = in_frame(fields["points"], fields["point_person"], fields["inout"])
        return self.function(fields[self.fields[0]], points, owner)


class TextL2(L2ToMean):
    """``L2ToMean`` of the points in the text that a vision-language model wrote."""

    fields = ("text_point", "points", "point_person", "inout")


class MeanL2(L2ToMean):
    """The mean of the distances, *Dist* of the 2015 paper (``mean_l2``)."""

    function = staticmethod(mean_l2)


class MinL2(L2ToMean):
    """Min L2 (``min_l2``)."""

    function = staticmethod(min_l2)


# Angles ------------------------------------------------------------------------------------------------------------


def angle(prediction: Tensor, target: Tensor, origin: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """(N,) degrees in [0, 180] between two directions from the head centre (HCLoRA paper, eq. 9), or another origin.

    By the arc tangent of cross and dot product, exact also for small angles, where eq. 9's arc cosine is not. A
    prediction at the origin has no direction and counts as the worst, 180: left out, a method would gain by it. NaN
    where the target is at the origin, which says nothing about any method, and where one of the three is NaN.

    Args:
        prediction: (N, 2) normalised; within ``AT_ORIGIN`` of the origin it is there.
        target: (N, 2) normalised.
        origin: (N, 2) normalised.
        scale: (N, 2) width and height of the plane in which the angle is measured.
    """
    one, other = prediction.double() - origin.double(), target.double() - origin.double()
    nowhere, undefined = (one.abs() < AT_ORIGIN).all(1), (other == 0).all(1) | other.isnan().any(1)
    one, other = one * scale, other * scale
    cross = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    degrees = torch.rad2deg(torch.atan2(cross.abs(), (one * other).sum(1)))
    return degrees.masked_fill(nowhere, WORST_ANGLE).masked_fill(undefined, torch.nan)


def angle_to_mean(
    point: Tensor, points: Tensor, owner: Tensor, origin: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Angle to the mean of a person's annotations, degrees; to the annotation itself where there is one.

    Args:
        point: (P, 2) normalised predictions; one at the origin counts 180.
        points: (G, 2) normalised annotations; those at the origin have no direction and are left out.
        owner: (G,) int64 ascending, the person of each.
        origin: (P, 2) normalised, where each person's angle is measured (``head_centre``); NaN has no value.
        sizes: (P, 2) width, height of each person's picture in pixels.
        plane: where the angle is measured; the paper does not say, so both have their names.
    """
    return _angles(point, *_means(points, owner), origin, sizes, plane)


def mean_angle(
    point: Tensor, points: Tensor, owner: Tensor, origin: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Mean of the angles to a person's annotations, degrees; arguments of ``angle_to_mean``."""
    return _per_person(*_angles(point, points, owner, origin, sizes, plane), "mean")


def min_angle(
    point: Tensor, points: Tensor, owner: Tensor, origin: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Smallest angle to a person's annotations, degrees; arguments of ``angle_to_mean``."""
    return _per_person(*_angles(point, points, owner, origin, sizes, plane), "amin")


def head_centre(head: Tensor) -> Tensor:
    """(P, 2) float64 the centres of boxes (P, 4) xyxy."""
    return (head[:, :2].double() + head[:, 2:].double()) / 2


class AngleToMean(GazeMetric):
    """Angular error at the head centre to the mean annotation, degrees (``angle_to_mean``)."""

    fields = ("point", "points", "point_person", "head", "sizes", "inout")
    function = staticmethod(angle_to_mean)

    def __init__(self, plane: Plane = "normalised", **kwargs: Any) -> None:
        super().__init__(variant=plane, **kwargs)
        self.plane: Plane = plane

    def origin(self, fields: Mapping[str, Any]) -> Tensor:
        """(P, 2) where the angles are measured."""
        return head_centre(fields["head"])

    def values(self, **fields: Any) -> Values:
        """One angle for each person in frame whose origin is known and is not the target."""
        points, owner = in_frame(fields["points"], fields["point_person"], fields["inout"])
        return self.function(fields["point"], points, owner, self.origin(fields), fields["sizes"], self.plane)


class MeanAngle(AngleToMean):
    """Mean angular error over the annotations, degrees (``mean_angle``)."""

    function = staticmethod(mean_angle)


class MinAngle(AngleToMean):
    """Smallest angular error over the annotations, degrees (``min_angle``)."""

    function = staticmethod(min_angle)


class MeanAngleFromEye(MeanAngle):
    """Mean angular error over the annotations as the paper of 2015 measures it: from the annotated eye, degrees."""

    fields = ("point", "points", "point_person", "eye", "sizes", "inout")

    def origin(self, fields: Mapping[str, Any]) -> Tensor:
        """(P, 2) the column ``eye``."""
        eye: Tensor = fields["eye"]
        return eye


def _angles(
    point: Tensor, points: Tensor, owner: Tensor, origin: Tensor, sizes: Tensor, plane: Plane
) -> tuple[Tensor, Tensor]:
    """The angles and their people. Who is left out depends on the truth alone, so it is the same for every method."""
    if plane not in ("normalised", "pixel"):
        raise ValueError(f"plane is {plane!r}; it must be 'normalised' or 'pixel'")
    towards = points.double() - origin.double()[owner]
    known = torch.isfinite(towards).all(1) & (towards != 0).any(1)
    points, owner = points[known], owner[known]
    scale = sizes.double()[owner] if plane == "pixel" else 1.0
    return angle(point[owner], points, origin[owner], scale), owner


def _distances(point: Tensor, points: Tensor, owner: Tensor) -> Tensor:
    return torch.linalg.vector_norm(point.double()[owner] - points.double(), dim=1)


def _means(points: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """(K, 2) float64 the mean annotation of each person who has one, and who they are (K,)."""
    people, group, count = torch.unique(owner, return_inverse=True, return_counts=True)
    total = torch.zeros(len(people), 2, dtype=torch.float64, device=points.device)
    return total.index_add_(0, group, points.double()) / count[:, None], people


def _per_person(values: Tensor, owner: Tensor, reduce: Literal["mean", "amin"]) -> Values:
    people, group = torch.unique(owner, return_inverse=True)
    result = torch.zeros(len(people), dtype=torch.float64, device=values.device)
    return result.scatter_reduce_(0, group, values, reduce, include_self=False), people


# Points in boxes ---------------------------------------------------------------------------------------------------


def in_boxes(point: Tensor, boxes: Tensor) -> Tensor:
    """(P, K) bool: whether each person's point (P, 2) lies in each of that person's boxes (P, K, 4) xyxy.

    The bounds belong to the box; nothing lies in a box of NaN.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return ((point[:, None].double() >= low) & (point[:, None].double() <= high)).all(-1)


def gaze_accuracy(point: Tensor, box: Tensor) -> Values:
    """GazeAcc: 1 where the point lies in the box of the thing looked at, bounds inclusive, else 0.

    Args:
        point: (P, 2) normalised predictions; one that is NaN lies nowhere.
        box: (P, 4) normalised xyxy; people whose box is NaN have no value.
    """
    people = torch.nonzero(~box.isnan().any(1))[:, 0]
    return in_boxes(point[people], box[people, None])[:, 0].double(), people


class GazeAccuracy(GazeMetric):
    """GazeAcc (``gaze_accuracy``)."""

    fields = ("point", "target_box")
    higher_is_better = True
    function = staticmethod(gaze_accuracy)


def head_precision(point: Tensor, target: Tensor, heads: Tensor) -> Values:
    """P.Head: of the predictions that lie in some head, the share whose true target does too, bounds inclusive.

    A precision: only people whose *predicted* point lies in some head have a value, 1 where the true point lies in
    some head as well (whichever), else 0. A prediction of NaN has the value NaN: left out, a diverged model would score
    better.

    Args:
        point: (P, 2) normalised predictions.
        target: (P, 2) normalised; NaN where there is none.
        heads: (P, K, 4) normalised xyxy, the heads of each person's picture; NaN where there are fewer than K.
    """
    unknown = point.isnan().any(1)
    people = torch.nonzero((in_boxes(point, heads).any(1) | unknown) & ~target.isnan().any(1))[:, 0]
    right = in_boxes(target[people], heads[people]).any(1).double()
    return right.masked_fill(unknown[people], torch.nan), people


class HeadPrecision(GazeMetric):
    """P.Head (``head_precision``); of several annotations the first one counts.

    The count is that of the predictions in a head: without any there is no precision.
    """

    fields = ("point", "points", "point_person", "inout", "heads")
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        points, owner = in_frame(fields["points"], fields["point_person"], fields["inout"])
        target = first_annotation(len(fields["point"]), points, owner)
        return head_precision(fields["point"], target, fields["heads"])


# In or out of the frame --------------------------------------------------------------------------------------------


def average_precisions(
    scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], weight: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(D,) average precisions of D weighted draws at once, each as scikit-learn's, whose checks cost more than the sum.

    Args:
        scores: (D, N) or (1, N), where all draws have the same.
        positive: (N,).
        weight: (D, N) or (1, N), >= 0; a draw without positives has NaN.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    weight, places = np.broadcast_arrays(weight, order)
    truth, mass = np.broadcast_arrays(positive[order], np.take_along_axis(weight, places, axis=1))
    hits, counted = (mass * truth).cumsum(axis=1), mass.cumsum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(hits / counted)
        # People of one score come in together: each has the precision at the last of them.
        last = np.append(ranked[:, 1:] != ranked[:, :-1], np.ones((len(ranked), 1), dtype=bool), axis=1)
        place = np.where(last, np.arange(ranked.shape[1]), ranked.shape[1])
        end = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
        shared = np.take_along_axis(precision, np.broadcast_to(end, precision.shape), axis=1)
        return np.asarray((mass * truth * shared).sum(axis=1) / hits[:, -1])


class AveragePrecision(PooledMetric):
    """Average precision of scores and labels (its two ``fields``) pooled over all people."""

    def values(self, **fields: Any) -> Values:
        """(K, 2): score and label, where the label is known."""
        score, label = (fields[name].double() for name in self.fields)
        known = torch.nonzero(label != UNKNOWN)[:, 0]
        return torch.stack([score, label], dim=1)[known], known

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """NaN unless both labels occur."""
        positive = values[:, 1] == 1
        return np.where(weights @ ~positive > 0, average_precisions(values[None, :, 0], positive, weights), np.nan)


class InOutAP(AveragePrecision):
    """Average precision of "the target is in frame", over all people whose label is known."""

    fields = ("inout_score", "inout")
