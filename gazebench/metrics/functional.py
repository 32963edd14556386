"""The field's metrics as pure functions; PROTOCOLS sections 1 and 6 are the specification.

A sample without a value is left out: functions over several people return the values together with the people (or the
pairs of people) they belong to. There are no sentinel values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor

from gazebench.core.types import IN_FRAME, UNKNOWN, FloatArray

Plane = Literal["normalised", "pixel"]
Values = tuple[Tensor, Tensor]
"""Values (K,) float64 and the people, or pairs, they belong to (K,) int64, ascending."""

VAT_SIZE = 64
VAT_REACH = 9
SOCIAL_THRESHOLD = 0.5
"""Above it a social score says yes (MTGS's script; its function's own default is .6)."""


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
    scores: npt.NDArray[np.float32] = resized[0, 0].cpu().numpy()
    return _auc(scores.ravel(), _pixels(np.asarray(points, dtype=np.float64), width, height))


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


def l2_to_mean(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Distance to the mean of a person's annotations: GazeFollow's Avg L2, and L2 where there is one annotation.

    Args:
        point: (P, 2) normalised predictions.
        points: (G, 2) normalised annotations.
        owner: (G,) int64 ascending, the person of each.
    """
    people, group = torch.unique(owner, return_inverse=True)
    mean = _sums(points.double(), group, len(people)) / _sums(torch.ones(len(owner), 1), group, len(people))
    return torch.linalg.vector_norm(point.double()[people] - mean, dim=1), people


def mean_l2(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Mean of the distances to a person's annotations: the *Dist* of the 2015 paper; arguments of ``l2_to_mean``."""
    return _per_person(torch.linalg.vector_norm(point.double()[owner] - points.double(), dim=1), owner, "mean")


def min_l2(point: Tensor, points: Tensor, owner: Tensor) -> Values:
    """Distance to a person's nearest annotation: Min L2; arguments of ``l2_to_mean``."""
    return _per_person(torch.linalg.vector_norm(point.double()[owner] - points.double(), dim=1), owner, "amin")


def angle(prediction: Tensor, target: Tensor, head: Tensor) -> Tensor:
    """(N,) degrees in [0, 180] between the directions from the head centres (HCLoRA paper, eq. 9); all (N, 2).

    By the arc tangent of cross and dot product, exact also for small angles, where eq. 9's arc cosine is not. NaN
    where the prediction or the target coincides with the head centre, or the centre is unknown.
    """
    one, other = prediction.double() - head.double(), target.double() - head.double()
    cross = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    degrees = torch.rad2deg(torch.atan2(cross.abs(), (one * other).sum(1)))
    undefined = (one == 0).all(1) | (other == 0).all(1)
    return degrees.masked_fill(undefined, torch.nan)


def head_center(head: Tensor) -> Tensor:
    """(P, 4) boxes to (P, 2) centres."""
    return (head[:, :2].double() + head[:, 2:].double()) / 2


def angle_to_mean(
    point: Tensor, points: Tensor, owner: Tensor, head: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Angle to the mean of a person's annotations, degrees; to the annotation itself where there is one.

    Args:
        point: (P, 2) normalised predictions.
        points: (G, 2) normalised annotations.
        owner: (G,) int64 ascending, the person of each.
        head: (P, 4) normalised boxes; people without a box have no value.
        sizes: (P, 2) width, height of each person's picture in pixels.
        plane: where the angle is measured; the paper does not say, so both have their names.
    """
    people, group = torch.unique(owner, return_inverse=True)
    mean = _sums(points.double(), group, len(people)) / _sums(torch.ones(len(owner), 1), group, len(people))
    scale = _scale(sizes, plane)[people]
    degrees = angle(point.double()[people] * scale, mean * scale, head_center(head)[people] * scale)
    return _defined(degrees, people, point)


def mean_angle(
    point: Tensor, points: Tensor, owner: Tensor, head: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Mean of the angles to a person's annotations, degrees; arguments of ``angle_to_mean``."""
    return _per_person(*_angles(point, points, owner, head, sizes, plane), "mean")


def min_angle(
    point: Tensor, points: Tensor, owner: Tensor, head: Tensor, sizes: Tensor, plane: Plane = "normalised"
) -> Values:
    """Smallest angle to a person's annotations, degrees; arguments of ``angle_to_mean``."""
    return _per_person(*_angles(point, points, owner, head, sizes, plane), "amin")


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


def label_accuracy(predicted: Sequence[str], truth: Sequence[str]) -> Values:
    """Acc@1: 1 where the predicted category is the true one, letter by letter, else 0.

    Args:
        predicted: P categories; "" is no answer, which is wrong.
        truth: P categories; people whose category is "" have no value.

    Raises:
        ValueError: not one prediction a person.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predicted labels for {len(truth)} people")
    people = [person for person, label in enumerate(truth) if label]
    right = [float(predicted[person] == truth[person]) for person in people]
    return torch.tensor(right, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


def multi_label_accuracy(predicted: Sequence[str], truths: Sequence[str]) -> Values:
    """MultiAcc@1: 1 where the predicted category is any of the true ones, letter by letter, else 0.

    Args:
        predicted: P categories; "" is no answer, which is wrong.
        truths: P texts, the right categories of each joined by ``|``; people with "" have no value.

    Raises:
        ValueError: not one prediction a person.
    """
    if len(predicted) != len(truths):
        raise ValueError(f"{len(predicted)} predicted labels for {len(truths)} people")
    people = [person for person, labels in enumerate(truths) if labels]
    right = [float(predicted[person] in truths[person].split("|")) for person in people]
    return torch.tensor(right, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


def looking_at_heads(score: Tensor, label: Tensor, pairs: Tensor, inout: Tensor) -> Values:
    """What F1 LAH is taken of: for each looker, whether a head is looked at, and the score said of it.

    Of all the candidates of a looker only the one of highest score keeps it (the first of equal ones). Where somebody
    is looked at, the score is that of the first who is, 0 unless that is the candidate kept; else it is the highest.

    Args:
        score: (N,) of the pairs: j looks at i's head; those that are NaN make their looker's NaN.
        label: (N,) 1, 0 or -1 (not known).
        pairs: (N, 2) people i and j (``types.pairs_of``).
        inout: (P,) 1 where the looker's target is in frame: only then there is a value.

    Returns:
        (K, 2) truth and score, and the lookers: those in frame of whom at least one label is known.
    """
    looker = pairs[:, 1]
    highest, kept = _best(score, looker, len(inout))
    positive = _first(label == 1, looker, len(inout))
    there, right = positive < len(pairs), positive == kept
    known = (inout == IN_FRAME) & (_first(label != UNKNOWN, looker, len(inout)) < len(pairs))
    said = torch.where(there & ~right, 0.0, highest)
    said[looker[score.isnan()]] = torch.nan
    lookers = torch.nonzero(known)[:, 0]
    return torch.stack([there.double(), said], dim=1)[lookers], lookers


def looking_at_each_other(score: Tensor, label: Tensor, pairs: Tensor) -> Values:
    """What F1 LAEO is taken of: each ordered pair's label and score, once all but the best pair of each j is set to 0.

    Args:
        score: (N,) of the pairs; those that are NaN stay it.
        label: (N,) 1, 0 or -1; pairs of -1 compete but have no value.
        pairs: (N, 2) people i and j (``types.pairs_of``).

    Returns:
        (K, 2) truth and score, and the rows of ``pairs``.
    """
    people = int(pairs.max()) + 1 if len(pairs) else 0
    kept = _best(score, pairs[:, 1], people)[1]
    row = torch.arange(len(pairs), device=pairs.device)
    said = torch.where((row == kept[pairs[:, 1]]) | score.isnan(), score.double(), 0.0)
    rows = torch.nonzero(label != UNKNOWN)[:, 0]
    return torch.stack([label.double(), said], dim=1)[rows], rows


def looking_at_heads_by_point(point: Tensor, head: Tensor, label: Tensor, pairs: Tensor, inout: Tensor) -> Values:
    """F1 LAH by post-processing (PP): as ``looking_at_heads``, with a score of 1 or 0 that follows from the point.

    Where somebody is looked at, it is 1 if the point lies strictly inside the head of the first who is; else if it
    lies strictly inside any head of the picture but the looker's own, which is then a false positive.

    Args:
        point: (P, 2) normalised predictions; those that are NaN have the score NaN.
        head: (P, 4) normalised xyxy; nothing lies in a head of NaN.
        label: (N,) 1, 0 or -1: j looks at i's head.
        pairs: (N, 2) people i and j (``types.pairs_of``).
        inout: (P,) 1 where the looker's target is in frame: only then there is a value.
    """
    looker, inside = pairs[:, 1], _point_in_head(point, head, pairs)
    positive = _first(label == 1, looker, len(inout))
    there = positive < len(pairs)
    known = (inout == IN_FRAME) & (_first(label != UNKNOWN, looker, len(inout)) < len(pairs))
    anywhere = _first(inside, looker, len(inout)) < len(pairs)
    right = torch.cat([inside, inside.new_zeros(1)])[positive]
    said = torch.where(there, right, anywhere).double()
    said[point.isnan().any(1)] = torch.nan
    lookers = torch.nonzero(known)[:, 0]
    return torch.stack([there.double(), said], dim=1)[lookers], lookers


def looking_at_each_other_by_point(point: Tensor, head: Tensor, label: Tensor, pairs: Tensor) -> Values:
    """F1 LAEO by post-processing (PP): 1 where each one's point lies strictly inside the other's head.

    Arguments as in ``looking_at_heads_by_point``; the rows of ``pairs`` whose label is known have a value.
    """
    inside = torch.zeros(len(point), len(point), dtype=torch.bool, device=pairs.device)
    inside[pairs[:, 0], pairs[:, 1]] = _point_in_head(point, head, pairs)
    said = (inside & inside.T)[pairs[:, 0], pairs[:, 1]].double()
    said[point.isnan().any(1)[pairs].any(1)] = torch.nan
    rows = torch.nonzero(label != UNKNOWN)[:, 0]
    return torch.stack([label.double(), said], dim=1)[rows], rows


def f1(truth: Tensor, score: Tensor, threshold: float = SOCIAL_THRESHOLD) -> float | None:
    """F1 of "the score is above the threshold"; None where nothing is positive, neither in truth nor in score.

    NaN where a score is: left out, a diverged model would score better.
    """
    if score.isnan().any():
        return float("nan")
    positive, said = truth == 1, score > threshold
    wrong = int((positive != said).sum())
    right = int((positive & said).sum())
    return 2 * right / (2 * right + wrong) if right + wrong else None


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Average precision (scikit-learn's); None unless there are both positives and negatives, NaN where a score is."""
    truth = positive.cpu().numpy().astype(bool)
    if truth.all() or not truth.any():
        return None
    if scores.isnan().any():
        return float("nan")
    return float(average_precision_score(truth, scores.double().cpu().numpy()))


def f1_drawn(
    positive: npt.NDArray[np.bool_], score: FloatArray, weights: FloatArray, threshold: float = SOCIAL_THRESHOLD
) -> FloatArray:
    """(B,) ``f1`` where the samples (K,) are there (B, K) times; NaN where nothing is positive."""
    said = score > threshold
    right, wrong = weights @ (positive & said), weights @ (positive != said)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * right / (2 * right + wrong))


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


def _point_in_head(point: Tensor, head: Tensor, pairs: Tensor) -> Tensor:
    """(N,) bool: whether j's point lies strictly inside i's head (the bounds do not belong to it here)."""
    box, looked = head.double()[pairs[:, 0]], point.double()[pairs[:, 1]]
    return ((looked > box[:, :2]) & (looked < box[:, 2:])).all(1)


def _first(marked: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups,) int64 the first marked row of each group; the number of rows where there is none."""
    rows = torch.nonzero(marked)[:, 0]
    first = torch.full((groups,), len(marked), dtype=torch.int64, device=group.device)
    return first.scatter_reduce_(0, group[rows], rows, "amin")


def _best(score: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(groups,) the highest score of each group, float64, and the first row that has it; NaN never is."""
    sound = score.double().nan_to_num(nan=-torch.inf)
    highest = torch.full((groups,), -torch.inf, dtype=torch.float64, device=score.device)
    highest.scatter_reduce_(0, group, sound, "amax")
    return highest, _first(sound == highest[group], group, groups)


def _auc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.int64]) -> float | None:
    if not 0 < len(positive) < scores.size:
        return None
    ranks = sum(int(np.count_nonzero(scores < v)) + int(np.count_nonzero(scores <= v)) for v in scores[positive])
    return _area(ranks / 2, len(positive), scores.size)


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


def _angles(
    point: Tensor, points: Tensor, owner: Tensor, head: Tensor, sizes: Tensor, plane: Plane
) -> tuple[Tensor, Tensor]:
    scale = _scale(sizes, plane)[owner]
    degrees = angle(point.double()[owner] * scale, points.double() * scale, head_center(head)[owner] * scale)
    return _defined(degrees, owner, point)


def _scale(sizes: Tensor, plane: Plane) -> Tensor:
    if plane not in ("normalised", "pixel"):
        raise ValueError(f"plane is {plane!r}; it must be 'normalised' or 'pixel'")
    return sizes.double() if plane == "pixel" else torch.ones_like(sizes, dtype=torch.float64)


def _defined(values: Tensor, people: Tensor, point: Tensor) -> Values:
    # A prediction that is not a number stays in and spoils the mean: left out, a diverged model would score better.
    known = ~values.isnan() | point[people].isnan().any(1)
    return values[known], people[known]


def _sums(values: Tensor, group: Tensor, groups: int) -> Tensor:
    total = torch.zeros(groups, values.shape[1], dtype=torch.float64, device=group.device)
    return total.index_add_(0, group, values.to(total))


def _per_person(values: Tensor, owner: Tensor, reduce: Literal["mean", "amin"]) -> Values:
    people, group = torch.unique(owner, return_inverse=True)
    result = torch.zeros(len(people), dtype=torch.float64, device=values.device)
    return result.scatter_reduce_(0, group, values, reduce, include_self=False), people
