"""The continuous branch of OmniGF: from hidden states to heatmaps, in/out and pairs (section 3.2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.types import SOCIAL


class HeatmapDecoder(nn.Module):
    """Person tokens times image tokens -> heatmaps, by transposed convolutions.

    Args:
        dim: width of the hidden states.
        width: channels after the first, 1 x 1 convolution; every doubling of the map halves them.
        deconvolutions: how many times the map's sides double.
        out_size: height and width of the heatmaps, to which the last map is resized bilinearly.
    """

    def __init__(
        self, dim: int, width: int = 256, deconvolutions: int = 2, out_size: tuple[int, int] = (64, 64)
    ) -> None:
        super().__init__()
        self.out_size = out_size
        self.reduce = nn.Conv2d(dim, width, 1)
        blocks: list[nn.Module] = []
        for _ in range(deconvolutions):
            blocks += [nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1), nn.GroupNorm(8, width // 2)]
            blocks += [nn.GELU()]
            width //= 2
        self.enlarge = nn.Sequential(*blocks)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor, person: Tensor, row: Tensor) -> Tensor:
        """(R, C, h, w) image tokens, (P, C) person tokens, (P,) their rows -> (P, *out_size), any real numbers."""
        x = F.gelu(self.reduce(image[row] * person[:, :, None, None]))
        x = self.out(self.enlarge(x))
        if x.shape[-2:] != self.out_size:
            x = F.interpolate(x, self.out_size, mode="bilinear", align_corners=False)
        return x.squeeze(1)


class Positions(nn.Module):
    """A learnt projection of sines and cosines of where each of h x w image tokens lies: -> (C, h, w).

    It fits a grid of any size, unlike a table of one vector a token.
    """

    octaves: ClassVar[int] = 5

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        axes = []
        for side in grid:
            place = (torch.arange(side)[:, None] + 0.5) / side
            angle = math.pi * 2.0 ** torch.arange(self.octaves) * place
            axes.append(torch.cat([angle.sin(), angle.cos(), place], dim=1))
        rows, columns = axes
        waves = torch.cat(
            [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)], dim=2
        )  # (h, w, 2 (2 octaves + 1))
        self.register_buffer("waves", waves, persistent=False)
        self.project = nn.Linear(waves.shape[2], dim)

    def forward(self) -> Tensor:
        projected: Tensor = self.project(self.waves)
        return projected.permute(2, 0, 1)


@dataclass(frozen=True)
class GazeOutputs:
    """Outputs of the gaze branch for P people and their N ordered pairs.

    Attributes:
        maps: (P, h, w) heatmaps, any real numbers.
        inout: (P,) logits of a target in frame.
        pairs: (N, 3) logits of ``SOCIAL``; None where pairs are not judged.
    """

    maps: Tensor
    inout: Tensor
    pairs: Tensor | None


class GazeBranch(nn.Module):
    """All heads of the branch.

    Args:
        dim: width of the hidden states.
        width: hidden width of the heads.
        deconvolutions: number of upsampling layers of the heatmap decoder.
        out_size: height and width of the heatmaps.
        social: whether pairs are judged.
        grid: rows and columns of image tokens, to which embeddings of their positions are added before the product with
            the person token; None adds nothing.
        residual: whether a projection of the heads' embeddings is added to the person tokens.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        deconvolutions: int,
        out_size: tuple[int, int] = (64, 64),
        social: bool = False,
        grid: tuple[int, int] | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.positions = None if grid is None else Positions(dim, grid)
        self.residual = nn.Linear(dim, dim) if residual else None
        self.heatmap = HeatmapDecoder(dim, width, deconvolutions, out_size)
        self.inout = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, 1))
        self.pairs: nn.Sequential | None = None
        if social:
            self.pairs = nn.Sequential(
                nn.Linear(2 * dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(SOCIAL))
            )

    def forward(
        self, image: Tensor, person: Tensor, row: Tensor, pairs: Tensor, heads: Tensor | None = None
    ) -> GazeOutputs:
        """The outputs from hidden states.

        Args:
            image: (R, C, h, w) image tokens.
            person: (P, C) person tokens.
            row: (P,) the image of each person among the R.
            pairs: (N, 2) pairs of people.
            heads: (P, C) the heads' embeddings, for a branch with a residual.
        """
        if self.positions is not None:
            image = image + self.positions()
        if self.residual is not None:
            assert heads is not None
            person = person + self.residual(F.layer_norm(heads, heads.shape[1:]))  # as large as hidden states
        judged = None if self.pairs is None else self.pairs(person[pairs].flatten(1))
        return GazeOutputs(self.heatmap(image, person, row), self.inout(person).squeeze(1), judged)
