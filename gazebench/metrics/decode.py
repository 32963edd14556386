"""From a heatmap to a point; which rule is a matter of protocol, and columns made by different rules do not compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def argmax_point(heatmap: Tensor) -> Tensor:
    """(P, h, w) to (P, 2) float32 normalised x, y: index / size of the maximum, the first on ties, no half cell added.

    The convention of Gaze-LLE, MTGS and PaGE (PROTOCOLS 1): the upper left corner of the cell.
    """
    return _first_maximum(heatmap) / _size(heatmap)


def argmax_plus_one(heatmap: Tensor) -> Tensor:
    """(P, h, w) to (P, 2): (index + 1) / size, the lower right corner of the cell; Sharingan's convention."""
    return (_first_maximum(heatmap) + 1) / _size(heatmap)


def dark(heatmap: Tensor, kernel: int = 9) -> Tensor:
    """(P, h, w) to (P, 2): sub-pixel maximum by distribution-aware decoding (Zhang et al., CVPR 2020, eq. 4 to 9).

    The map is blurred by a Gaussian of ``kernel`` cells and brought back to its old maximum; the first maximum m of
    the original then moves by -H^-1 g, gradient and Hessian of the log of the blurred map at m (central differences).
    Where m is next to the border or the Hessian is singular it stays. Divided by the size, as SemGaze does.
    """
    blurred = _blur(heatmap, kernel)
    top, low = heatmap.amax((1, 2), keepdim=True), blurred.amax((1, 2), keepdim=True)
    log = (blurred * top / low.clamp_min(torch.finfo(heatmap.dtype).tiny)).clamp_min(1e-10).log()
    peak = _first_maximum(heatmap)
    height, width = heatmap.shape[1:]
    x, y = peak.long().unbind(1)
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    person = torch.arange(len(heatmap), device=heatmap.device)

    def at(dx: int, dy: int) -> Tensor:
        return log[person, (y + dy).clamp(0, height - 1), (x + dx).clamp(0, width - 1)]

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    xy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = xx * yy - xy * xy
    usable = inner & (determinant.abs() > 1e-12)
    safe = torch.where(usable, determinant, 1.0)
    move = -torch.stack([(yy * gx - xy * gy) / safe, (xx * gy - xy * gx) / safe], dim=1)
    return (peak + torch.where(usable[:, None], move, 0.0)) / _size(heatmap)


Decoder = Literal["argmax", "argmax_plus_one", "dark"]
DECODERS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "argmax": argmax_point,
    "argmax_plus_one": argmax_plus_one,
    "dark": dark,
}


def _first_maximum(heatmap: Tensor) -> Tensor:
    """(P, 2) column and row of the first maximum in reading order, NaN for a map with NaN.

    Not torch's argmax, which promises no order on ties.
    """
    flat = heatmap.flatten(1)
    cell = torch.arange(flat.shape[1], device=flat.device)
    top = flat.amax(1, keepdim=True)
    first = torch.where(flat == top, cell, flat.shape[1] - 1).amin(1)
    width = heatmap.shape[2]
    return torch.stack([first % width, first // width], dim=1).float().masked_fill(top.isnan(), torch.nan)


def _size(heatmap: Tensor) -> Tensor:
    height, width = heatmap.shape[1:]
    return torch.tensor([width, height], dtype=torch.float32, device=heatmap.device)


def _blur(heatmap: Tensor, kernel: int) -> Tensor:
    # OpenCV's sigma for a kernel size, which the published code relies on.
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    offset = torch.arange(kernel, device=heatmap.device, dtype=heatmap.dtype) - kernel // 2
    bell = torch.exp(-(offset**2) / (2 * sigma**2))
    bell = bell / bell.sum()
    padded = F.pad(heatmap[:, None], [kernel // 2] * 4)
    return F.conv2d(F.conv2d(padded, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))[:, 0]
