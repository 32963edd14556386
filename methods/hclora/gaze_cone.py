"""The gaze cone of HCLoRA's paper: a soft mask around the true direction, and the evidence that falls outside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EPSILON = 1e-6


def cell_centres(size: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """(h, w, 2) float32: x, y of the centre of every cell of a grid, normalised."""
    height, width = size
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def cone_mask(
    head: Tensor, target: Tensor, size: tuple[int, int], angle: float = 60.0, sharpness: float = 50.0
) -> Tensor:
    """The soft cone C(p), equations 5 and 6: near 1 inside, 0 outside and behind, 1/4 at the head itself.

    Args:
        head: (P, 2) centre of the head, normalised.
        target: (P, 2) true gaze target, normalised; where it is NaN or the head's centre, so is the mask or the cone
            has no direction (then 1/4 everywhere near the head's own column of values: see the tests).
        size: (h, w) of the mask; its cells stand for their centres.
        angle: theta, the full opening in degrees, below 180.
        sharpness: alpha, per unit of normalised length.

    Returns:
        (P, h, w) float32 in [0, 1].
    """
    if not 0 < angle < 180:
        raise ValueError(f"a cone opens by more than 0 and less than 180 degrees, got {angle}")
    direction = (target - head) / ((target - head).norm(dim=-1, keepdim=True) + _EPSILON)
    offset = cell_centres(size, head.device) - head[:, None, None]  # (P, h, w, 2)
    along = (offset * direction[:, None, None]).sum(-1)
    across = (offset - along[..., None] * direction[:, None, None]).norm(dim=-1)
    border = along.clamp_min(0) * math.tan(math.radians(angle) / 2) - across
    return (sharpness * border).sigmoid() * (sharpness * along).sigmoid()


def outside_ratio(evidence: Tensor, cone: Tensor) -> Tensor:
    """The share of evidence outside the cone, equation 7: (P, h, w) >= 0 and (P, h, w) in [0, 1] -> (P,) in [0, 1]."""
    return (evidence * (1 - cone)).flatten(1).sum(1) / evidence.flatten(1).sum(1)
