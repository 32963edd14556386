"""The networks of Miao et al. (WACV 2023); parameters have the official names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.nn.scene_face import BLOCKS, SceneFace

FRAMES = 5
"""Frames of a window of the network for clips."""


@dataclass
class Answer:
    """What the network says of P people.

    Attributes:
        heatmap: (P, 64, 64), unbounded.
        logits: (P, 50): of the 49 patches, row by row, and of the outside.
    """

    heatmap: Tensor
    logits: Tensor

    @property
    def distribution(self) -> Tensor:
        """(P, 50): sigmoids divided by their sum, not a softmax."""
        share = self.logits.sigmoid()
        return share / (share.sum(1, keepdim=True) + 1e-8)


class PDPNet(SceneFace):
    """Heatmap and patch distribution of P people.

    Args:
        depth: whether pictures have a depth map as their fourth channel.
        width: of the first convolution.
        blocks: bottlenecks of the five groups.
        side: of the inputs in pixels.
        temporal: with attention over the frames of a window.
    """

    def __init__(
        self,
        depth: bool = True,
        width: int = 64,
        blocks: Sequence[int] = BLOCKS,
        side: int = 224,
        temporal: bool = False,
    ) -> None:
        super().__init__(4 if depth else 3, width, blocks, side)
        channels, tokens = 8 * width, self.cells**2 + 1
        self.outside_embedding = nn.Parameter(torch.randn(1, channels))
        self.patch_pos_embedding = nn.Parameter(torch.randn(tokens, channels))
        self.qkv_proj = nn.Linear(channels, 3 * channels)
        self.inout_patch_encode = nn.Conv1d(channels, channels // 2, 1)
        self.inout_patch_pred = nn.Conv1d(channels // 2, 1, 1)
        self.deconv_encode = nn.Conv2d(channels, channels, 1, bias=False)
        # In published checkpoints, but without effect.
        self.compress_conv1_inout = nn.Conv1d(channels, 1, 1).requires_grad_(False)
        self.temporal = temporal
        if temporal:
            self.temporal_pos_embed = nn.Parameter(torch.randn(FRAMES, 1, tokens))
            self.temporal_mapping = nn.Conv1d(channels, 1, 1)
            self.temporal_attention = nn.MultiheadAttention(tokens, 1)
            self.temporal_attention.out_proj.requires_grad_(False)  # only the weights are read
            self.temporal_proj_1 = nn.Conv1d(channels, channels, 1)
            self.temporal_norm_1 = nn.LayerNorm((channels, tokens))
            self.fc_inout = nn.Linear(tokens, 1).requires_grad_(False)  # without effect, too
        self.initialise()

    def forward(
        self, pictures: Tensor, row: Tensor, head_map: Tensor, faces: Tensor, window: Tensor | None = None
    ) -> Answer:
        """Answers for P people; arguments as ``attended``'s, which may have further rows behind theirs.

        With ``temporal``, ``window`` (P, 5) are the rows of the frames of each person's window, by default five times
        their own. A row's place is the first where it stands.
        """
        features, _ = self.attended(pictures, row, head_map, faces)
        cells = self.encoded(features).flatten(2).mT  # (P, h w, C)
        outside = self.outside_embedding.expand(len(cells), 1, -1)
        tokens = torch.cat([cells, outside], dim=1) + self.patch_pos_embedding
        query, key, value = self.qkv_proj(tokens).chunk(3, dim=2)
        tokens = tokens + (query @ key.mT).softmax(dim=2) @ value  # logits are not divided by sqrt(C)
        by_channel = tokens.mT  # (P, C, 50)
        if self.temporal:
            by_channel = self._over_time(by_channel, window)
        logits = self.inout_patch_pred(F.relu(self.inout_patch_encode(by_channel))).squeeze(1)
        grid = by_channel[:, :, :-1].unflatten(2, (self.cells, self.cells))
        return Answer(self.decoded(F.relu(self.deconv_encode(grid))), logits)

    def _over_time(self, tokens: Tensor, window: Tensor | None) -> Tensor:
        """(P, C, 50) of the people of windows (P, 5), the frames of each mixed."""
        if window is None:
            which = torch.arange(len(tokens), device=tokens.device)
            windows, place = which[:, None].expand(-1, FRAMES), torch.zeros_like(which)
        else:
            windows, which = window.unique(dim=0, return_inverse=True)
            place = (window == torch.arange(len(window), device=window.device)[:, None]).int().argmax(1)
        told = self.temporal_mapping(tokens).squeeze(1)[windows]  # (N, 5, 50)
        asking = told.transpose(0, 1) + self.temporal_pos_embed
        _, weights = self.temporal_attention(asking, asking, asking)  # (N, 5, 5)
        values = self.temporal_proj_1(tokens)[windows].flatten(2)  # (N, 5, C 50)
        mixed = tokens[windows] + (weights @ values).view(*windows.shape, *tokens.shape[1:])
        return self.temporal_norm_1(mixed[which, place])


def patch_distribution(heatmap: Tensor, inside: Tensor, cells: int) -> Tensor:
    """Targets (P, cells² + 1): the highest value of the heatmap (P, h, w) in every patch, and 1 outside, normalised.

    Patches have ``h // cells`` cells a side; what is left over on the right and below (of 64, the last row and column)
    belongs to none. ``inside`` (P,) is True for people who look into the picture.
    """
    patch = heatmap.shape[1] // cells
    shown = F.max_pool2d(heatmap[:, None, : cells * patch, : cells * patch], patch).flatten(1)
    target = torch.cat([shown, (~inside[:, None]).to(shown.dtype)], dim=1)
    return target / target.sum(1, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)


def divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """(P,) the paper's loss of two distributions (P, 50)."""
    least = 2.2204e-16
    return (target * (least + target / (predicted + least)).log()).sum(1)
