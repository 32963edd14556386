"""The decoder of Gaze-LLE (Ryan et al., CVPR 2025), with the names and shapes of its published weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from gazebench.core.weights import misfits


@dataclass
class Encoded:
    """What an adapted backbone says of a batch.

    Attributes:
        features: (B, C, h, w) float32, or (P, C, h, w) where every person has features of their own.
        owner: (P,) the row of ``features`` of each person; None: person p owns row p.
        low: of the adapted blocks in order, the low-rank features A(X) of their first projection, (P, h w, r).
        prior: (P, h w) the head prior; None where the head plays no part.
    """

    features: Tensor
    owner: Tensor | None
    low: list[Tensor] = field(default_factory=list)
    prior: Tensor | None = None


class GazeDecoder(nn.Module):
    """Scene features and head boxes -> one gaze heatmap, and optionally one in-frame probability, per person.

    Args:
        in_dim: channels of the backbone's features.
        grid: rows and columns of the feature map; fixed, since the position embedding is part of the weights.
        dim: width of the decoder, a multiple of 4 and of ``heads``.
        layers: transformer blocks.
        heads: attention heads.
        inout: whether to predict if the target is in frame.
        out_size: height and width of the heatmap.
        drop_path: stochastic depth of every block.
    """

    pos_embed: Tensor

    def __init__(
        self,
        in_dim: int = 768,
        grid: tuple[int, int] = (32, 32),
        dim: int = 256,
        layers: int = 3,
        heads: int = 8,
        inout: bool = False,
        out_size: tuple[int, int] = (64, 64),
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.grid, self.out_size, self.inout = grid, out_size, inout
        self.linear = nn.Conv2d(in_dim, dim, kernel_size=1)
        self.register_buffer("pos_embed", sine_positions(dim, *grid))
        # The published weights were trained with this norm's eps, 1e-5; timm's default block has 1e-6 by now.
        self.transformer = nn.Sequential(
            *(Block(dim, heads, mlp_ratio=4, drop_path=drop_path, norm_layer=nn.LayerNorm) for _ in range(layers))
        )
        self.heatmap_head = nn.Sequential(
            nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
            nn.Conv2d(dim, 1, kernel_size=1, bias=False),
            nn.Sigmoid(),
        )
        self.head_token = nn.Embedding(1, dim)
        if inout:
            self.inout_token = nn.Embedding(1, dim)
            self.inout_head = nn.Sequential(
                nn.Linear(dim, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 1), nn.Sigmoid()
            )

    def forward(
        self, features: Tensor, head: Tensor, image_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predicts for P people in B images.

        Args:
            features: (B, in_dim, h, w), or (P, in_dim, h, w) of one's own for each person.
            head: (P, 4) normalised xyxy; a row of NaN is a person without a box.
            image_index: (P,) int64, the row of ``features`` each person belongs to; None: person p owns row p.

        Returns:
            heatmap: (P, *out_size) in [0, 1].
            inout: (P,) probability of being in frame; None without ``inout``.
        """
        return self.probabilities(*self.logits(features, head, image_index))

    def logits(self, features: Tensor, head: Tensor, image_index: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The same before the sigmoids, for a stable loss: heatmap (P, 2h, 2w), not resized, and inout (P,)."""
        if features.shape[-2:] != self.grid:
            raise ValueError(f"the decoder was made for a grid of {self.grid}, got features {tuple(features.shape)}")
        x = self.linear(features) + self.pos_embed
        if image_index is not None:
            x = x[image_index]
        x = x + head_map(head, *self.grid)[:, None] * self.head_token.weight[:, :, None, None]  # (P, dim, h, w)
        x = x.flatten(2).mT
        if self.inout:
            x = torch.cat([self.inout_token.weight.expand(len(x), 1, -1), x], dim=1)
        x = self.transformer(x)  # (P, [1 +] h w, dim)
        inout = None
        if self.inout:
            inout = self.inout_head[:-1](x[:, 0]).squeeze(1)
            x = x[:, 1:]
        heatmap = self.heatmap_head[:-1](x.mT.unflatten(2, self.grid)).squeeze(1)
        return heatmap, inout

    def probabilities(self, heatmap: Tensor, inout: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Turns ``logits`` into what ``forward`` returns; the heatmap is resized after the sigmoid, in float32."""
        heatmap = heatmap.float().sigmoid()
        if heatmap.shape[1:] != self.out_size:
            heatmap = F.interpolate(heatmap[:, None], self.out_size, mode="bilinear", antialias=True).squeeze(1)
        return heatmap, None if inout is None else inout.float().sigmoid()


def head_map(head: Tensor, rows: int, columns: int) -> Tensor:
    """(P, 4) normalised xyxy -> (P, rows, columns) float32: 1 in the cells of the box, 0 elsewhere.

    Corners are rounded to the nearest cell border, half to even, and the far one is excluded, so a box of less than
    half a cell can vanish, as it does in the official code. No comparison holds for NaN: a missing box stays empty.
    """
    # In float64, like the official code: a float32 product could round to a tie that is none.
    scale = torch.tensor([columns, rows, columns, rows], dtype=torch.float64, device=head.device)
    left, top, right, bottom = (head.double() * scale).round().unbind(1)
    x = torch.arange(columns, device=head.device)
    y = torch.arange(rows, device=head.device)
    across = (x >= left[:, None]) & (x < right[:, None])
    down = (y >= top[:, None]) & (y < bottom[:, None])
    return (down[:, :, None] & across[:, None, :]).float()


def sine_positions(dim: int, rows: int, columns: int) -> Tensor:
    """(dim, rows, columns) float32: sines and cosines interleaved, of x in the first half, of y in the second."""
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4, got {dim}")
    half = dim // 2
    frequency = torch.exp(torch.arange(0.0, half, 2) * -(math.log(10000.0) / half))

    def waves(length: int) -> Tensor:
        phase = frequency[:, None] * torch.arange(length)
        return torch.stack([phase.sin(), phase.cos()], dim=1).flatten(0, 1)

    x = waves(columns)[:, None, :].expand(half, rows, columns)
    y = waves(rows)[:, :, None].expand(half, rows, columns)
    return torch.cat([x, y])


def official_state(decoder: GazeDecoder) -> dict[str, Tensor]:
    """The weights as the official repository saves them: its names, no backbone, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in decoder.state_dict().items()}


def load_official(decoder: GazeDecoder, state: Mapping[str, Tensor], allow_missing_inout: bool = False) -> None:
    """Loads official Gaze-LLE weights; a backbone among them is passed over.

    Args:
        decoder: filled in place, and left as it was when the weights do not fit.
        state: the official state dict.
        allow_missing_inout: lets a decoder with ``inout`` start from weights without it (its in/out parts keep
            their initial values), as the official VideoAttentionTarget recipe starts from GazeFollow's.

    Raises:
        ValueError: keys are missing or unknown, or a shape differs; the message names them.
    """
    own = decoder.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    inout = {key for key in own if key.startswith("inout")}
    without = bool(inout) and not inout & given.keys()
    found = misfits(own, given, may_lack=inout if without and allow_missing_inout else ())
    if found:
        hint = "; weights without in/out load into it with allow_missing_inout=True"
        only = without and not misfits(own, given, may_lack=inout)
        raise ValueError(f"the weights do not fit the decoder: {found}{hint if only else ''}")
    decoder.load_state_dict({**own, **given})
