"""Auxiliary supervision of the low-rank features of adapted blocks: gaze evidence inside the cone, and alternatives.

HCLoRA's paper, section 4.2 and Table 4. The paper leaves the auxiliary heads and the alternatives' losses open; both
are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.data.transforms import cell_centres

EPSILON = 1e-6


def outside_ratio(evidence: Tensor, cone: Tensor) -> Tensor:
    """The share of evidence outside the cone, equation 7: (P, h, w) >= 0 and (P, h, w) in [0, 1] -> (P,) in [0, 1]."""
    return (evidence * (1 - cone)).flatten(1).sum(1) / evidence.flatten(1).sum(1)


def divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """(P,) KL(truth || softmax(logits)) of (P, N) logits and a (P, N) map >= 0, which is scaled to sum to 1."""
    truth = truth / truth.sum(1, keepdim=True).clamp_min(EPSILON)
    return F.kl_div(logits.log_softmax(1), truth, reduction="none").sum(1)


def pooled_at_head(low_rank: Tensor, prior: Tensor) -> Tensor:
    """The mean of (P, N, r) features weighted by the (P, N) head prior: (P, r); zeros where the prior is empty."""
    return torch.einsum("pnr,pn->pr", low_rank, prior) / (prior.sum(1, keepdim=True) + EPSILON)


class GazeEvidence(nn.Module):
    """f_aux of equation 4, our form: low-rank features -> logits of a gaze-evidence map on the token grid.

    A query read from the head's features meets a key of every place, made from where it lies from the head. So
    whatever the map knows comes from the head tokens, and the penalty cannot be met by a map of what is salient.
    ``TokenEvidence`` is the equation as the paper writes it.

    Args:
        rank: r of the features.
        dim: width of query and keys.
    """

    def __init__(self, rank: int, dim: int = 32) -> None:
        super().__init__()
        self.question = nn.Sequential(nn.Linear(rank, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))  # the query
        self.place = nn.Sequential(nn.Linear(4, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))  # the keys
        self.scale = dim**-0.5

    def forward(self, low_rank: Tensor, prior: Tensor, head: Tensor, grid: tuple[int, int]) -> Tensor:
        """(P, N, r) features, (P, N) prior, (P, 2) head centres, (h, w) grid -> (P, N) logits, N = h w."""
        query = self.question(pooled_at_head(low_rank, prior))
        offset = cell_centres(grid, head.device).flatten(0, 1) - head[:, None]  # (P, N, 2)
        direction = offset / (offset.norm(dim=-1, keepdim=True) + EPSILON)
        keys = self.place(torch.cat([offset, direction], dim=-1))  # (P, N, dim)
        return self.scale * torch.einsum("pd,pnd->pn", query, keys)


class TokenEvidence(nn.Module):
    """f_aux of equation 4 as the paper writes it: each place's logit from that place's own low-rank features.

    The paper gives no layers; two, applied to every token alike, are ours. The class token is left out, as it has no
    place in the image.
    """

    def __init__(self, rank: int, dim: int = 32) -> None:
        super().__init__()
        out = nn.Linear(2 * dim, 1, bias=False)  # the softmax over places would not see a bias
        self.logit = nn.Sequential(nn.Linear(rank, 2 * dim), nn.GELU(), out)

    def forward(self, low_rank: Tensor, prior: Tensor, head: Tensor, grid: tuple[int, int]) -> Tensor:
        """(P, N, r) features -> (P, N) logits; the other arguments, those of ``GazeEvidence``, are not used."""
        return self.logit(low_rank).squeeze(-1)


class GazeVector(nn.Module):
    """The plain alternative: a direction in the image from the head's low-rank features; arguments as above."""

    def __init__(self, rank: int, dim: int = 32) -> None:
        super().__init__()
        self.direction = nn.Sequential(nn.Linear(rank, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2))

    def forward(self, low_rank: Tensor, prior: Tensor, head: Tensor, grid: tuple[int, int]) -> Tensor:
        """(P, N, r) features and (P, N) prior -> (P, 2), a vector of any length."""
        return self.direction(pooled_at_head(low_rank, prior))
