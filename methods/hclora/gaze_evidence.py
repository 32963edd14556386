"""What is asked of the low-rank features of adapted layers in training: gaze-evidence maps and gaze vectors.

HCLoRA's paper, section 4.2 and Table 4. It leaves the auxiliary heads and the alternatives' losses open; both are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.methods.hclora.gaze_cone import cell_centres

_EPSILON = 1e-6


def pooled_at_head(low: Tensor, prior: Tensor) -> Tensor:
    """The mean of (P, N, r) features weighted by the (P, N) head prior: (P, r); zeros where the prior is empty."""
    return torch.einsum("pnr,pn->pr", low, prior) / (prior.sum(1, keepdim=True) + _EPSILON)


class GazeEvidence(nn.Module):
    """f_aux of equation 4: low-rank features -> logits of a map on the token grid.

    The head's features ask and every place answers by where it lies from the head: whatever the map knows was in the
    head tokens, and it is told in the places of the scene tokens. Low-rank features of the places themselves are left
    out on purpose. With them the penalty was soon met by maps of what is salient, the very shortcut it is to cure.

    Args:
        rank: r of the features.
        dim: width of question and answer.
    """

    def __init__(self, rank: int, dim: int = 32) -> None:
        super().__init__()
        self.question = nn.Sequential(nn.Linear(rank, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.place = nn.Sequential(nn.Linear(4, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.scale = dim**-0.5

    def forward(self, low: Tensor, prior: Tensor, head: Tensor, grid: tuple[int, int]) -> Tensor:
        """(P, N, r) features, (P, N) prior, (P, 2) head centres -> (P, N) logits, N = h w."""
        question = self.question(pooled_at_head(low, prior))
        offset = cell_centres(grid, head.device).flatten(0, 1) - head[:, None]  # (P, N, 2)
        direction = offset / (offset.norm(dim=-1, keepdim=True) + _EPSILON)
        answer = self.place(torch.cat([offset, direction], dim=-1))
        return self.scale * torch.einsum("pd,pnd->pn", question, answer)


class GazeVector(nn.Module):
    """The plain alternative: a direction in the picture from the head's low-rank features.

    Args:
        rank: r of the features.
        dim: hidden width, halved.
    """

    def __init__(self, rank: int, dim: int = 32) -> None:
        super().__init__()
        self.direction = nn.Sequential(nn.Linear(rank, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2))

    def forward(self, low: Tensor, prior: Tensor, head: Tensor, grid: tuple[int, int]) -> Tensor:
        """(P, N, r) features and (P, N) prior -> (P, 2) a vector that is not normalised."""
        return self.direction(pooled_at_head(low, prior))


def divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """KL(truth || softmax(logits)) of (P, N) logits and a (P, N) non-negative map that is made to sum to 1: (P,)."""
    truth = truth / truth.sum(1, keepdim=True).clamp_min(_EPSILON)
    return F.kl_div(logits.log_softmax(1), truth, reduction="none").sum(1)
