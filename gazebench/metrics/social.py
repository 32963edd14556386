"""Who looks at whom (protocol of MTGS): F1 of looking at heads and at each other, AP of shared attention."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gazebench.core.boxes import FloatArray
from gazebench.core.types import IN_FRAME, UNKNOWN
from gazebench.metrics.base import PooledMetric, Values
from gazebench.metrics.spatial import AveragePrecision

THRESHOLD = 0.5
"""Above it a social score says yes (MTGS's script; its function's own default is .6)."""


class F1(PooledMetric):
    """F1 of truths and scores (K, 2) pooled over all people; its count is that of the values pooled."""

    about = "social"

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """NaN where nothing is positive, neither in truth nor in score."""
        positive, claimed = values[:, 0] == 1, values[:, 1] > THRESHOLD
        right, wrong = weights @ (positive & claimed), weights @ (positive != claimed)
        with np.errstate(invalid="ignore"):
            return np.asarray(2 * right / (2 * right + wrong))


def looking_at_heads(score: Tensor, label: Tensor, pairs: Tensor, inout: Tensor) -> Values:
    """What F1 LAH is taken of: for each looker, whether a head is looked at, and its score.

    Of all the candidates of a looker only the one of highest score keeps it (the first of equal ones). Where a head is
    looked at, the score is that of the first who is, 0 unless that is the candidate kept; else it is the highest.

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
    positive, there, lookers = _lookers(label, looker, inout)
    kept_score = torch.where(there & (positive != kept), 0.0, highest)
    kept_score[looker[score.isnan()]] = torch.nan
    return torch.stack([there.double(), kept_score], dim=1)[lookers], lookers


class LookingAtHeads(F1):
    """F1 LAH by a method's own scores (``looking_at_heads``); it counts lookers in frame."""

    fields = ("lah_score", "lah", "pairs", "inout")
    function = staticmethod(looking_at_heads)


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
    positive, there, lookers = _lookers(label, looker, inout)
    anywhere = _first(inside, looker, len(inout)) < len(pairs)
    right = torch.cat([inside, inside.new_zeros(1)])[positive]
    claimed = torch.where(there, right, anywhere).double()
    claimed[point.isnan().any(1)] = torch.nan
    return torch.stack([there.double(), claimed], dim=1)[lookers], lookers


class LookingAtHeadsByPoint(F1):
    """F1 LAH by post-processing of points (``looking_at_heads_by_point``); it counts lookers in frame."""

    fields = ("point", "head", "lah", "pairs", "inout")
    function = staticmethod(looking_at_heads_by_point)


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
    kept_score = torch.where((row == kept[pairs[:, 1]]) | score.isnan(), score.double(), 0.0)
    rows = torch.nonzero(label != UNKNOWN)[:, 0]
    return torch.stack([label.double(), kept_score], dim=1)[rows], rows


class LookingAtEachOther(F1):
    """F1 LAEO by a method's own scores (``looking_at_each_other``); it counts ordered pairs."""

    fields = ("laeo_score", "laeo", "pairs")
    unit = "pair"
    function = staticmethod(looking_at_each_other)


def looking_at_each_other_by_point(point: Tensor, head: Tensor, label: Tensor, pairs: Tensor) -> Values:
    """F1 LAEO by post-processing (PP): 1 where each one's point lies strictly inside the other's head.

    Arguments as in ``looking_at_heads_by_point``; the rows of ``pairs`` whose label is known have a value.
    """
    inside = torch.zeros(len(point), len(point), dtype=torch.bool, device=pairs.device)
    inside[pairs[:, 0], pairs[:, 1]] = _point_in_head(point, head, pairs)
    claimed = (inside & inside.T)[pairs[:, 0], pairs[:, 1]].double()
    claimed[point.isnan().any(1)[pairs].any(1)] = torch.nan
    rows = torch.nonzero(label != UNKNOWN)[:, 0]
    return torch.stack([label.double(), claimed], dim=1)[rows], rows


class LookingAtEachOtherByPoint(F1):
    """F1 LAEO by post-processing of points (``looking_at_each_other_by_point``); it counts ordered pairs."""

    fields = ("point", "head", "laeo", "pairs")
    unit = "pair"
    function = staticmethod(looking_at_each_other_by_point)


class SharedAttention(AveragePrecision):
    """AP SA: average precision of "they look at the same thing", over all ordered pairs whose label is known."""

    fields = ("sa_score", "sa")
    unit = "pair"
    about = "social"


def _lookers(label: Tensor, looker: Tensor, inout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P,) the first pair in which each person looks at a head, (P,) whether there is one, and who is counted."""
    positive = _first(label == 1, looker, len(inout))
    known = (inout == IN_FRAME) & (_first(label != UNKNOWN, looker, len(inout)) < len(label))
    return positive, positive < len(label), torch.nonzero(known)[:, 0]


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
