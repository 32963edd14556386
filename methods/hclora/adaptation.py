"""Ways to adapt a backbone to gaze following: head-conditioned local LoRA, and those it is compared with.

All of them run the blocks before the first adapted one without a graph and once an image. Head-conditioned LoRA runs
the others once a person, for its update depends on whose head is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gazebench.methods.hclora.gaze_cone import cell_centres
from gazebench.nn.backbones import ViTBackbone
from gazebench.nn.gaze_decoder import Encoded

Projection = Literal["qkv", "proj", "fc1", "fc2"]
PROJECTIONS: dict[str, str] = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
"""Where a transformer block keeps its projections, in timm and in DINOv2's repository alike."""

_EPSILON = 1e-6


def head_prior(head: Tensor, grid: tuple[int, int], scale: float = 0.5) -> Tensor:
    """The soft prior H of a head box on the token grid, equation 3.

    Args:
        head: (P, 4) normalised xyxy; a row of NaN (no box) has an empty prior.
        grid: (h, w) of the tokens.
        scale: s as a share of the box's side; s is at least that share of a cell.

    Returns:
        (P, h, w) float32 in [0, 1].
    """
    centre = (head[:, :2] + head[:, 2:]) / 2
    cells = torch.tensor([grid[1], grid[0]], dtype=head.dtype, device=head.device)
    side = ((head[:, 2:] - head[:, :2]) * cells).clamp_min(1.0)
    offset = (cell_centres(grid, head.device) - centre[:, None, None]) * cells  # in cells, as (u, v) of the paper
    exponent = (offset.square() / (2 * (scale * side).square() + _EPSILON)[:, None, None]).sum(-1)
    return torch.exp(-exponent).nan_to_num(0.0)


class HeadConditionedLoRA(nn.Module):
    """The residual of one projection, equation 2: (A(X) * M(b)) B, with M(b) = H * 2 sigmoid(g(H)).

    g is a two-layer network on the prior's value at a token, one output a rank. The factor H, which a free network
    would not have, makes sure that the update vanishes where the head is not; g starts at 0, hence M at H.

    Args:
        in_features: width d of the projection's input.
        out_features: of its output.
        rank: r.
        alpha: the update is scaled by alpha / r, as in LoRA.
        dropout: of the input of A.
        gate_dim: hidden width of g.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, alpha: float, dropout: float = 0.0, gate_dim: int = 16
    ) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)  # A
        self.up = nn.Linear(rank, out_features, bias=False)  # B
        last = nn.Linear(gate_dim, rank)
        self.gate = nn.Sequential(nn.Linear(1, gate_dim), nn.GELU(), last)
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        nn.init.zeros_(self.up.weight)  # no change at first
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def modulation(self, prior: Tensor) -> Tensor:
        """M(b): (P, N) prior -> (P, N, r) in [0, 2]."""
        height = prior[..., None]
        return height * 2 * self.gate(height).sigmoid()

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, d) tokens and their (P, N) prior -> the update (P, N, out_features), and A(X) (P, N, r)."""
        low = self.down(self.dropout(x))
        # The factors meet in the r channels: as wide as the projection, each would cost as much as a pass over it.
        return self.up(low * (self.scale * self.modulation(prior)).to(low.dtype)), low


class _Tap:
    """A forward hook that adds a residual to a frozen projection; the weights keep their names and their digest."""

    def __init__(self, residual: HeadConditionedLoRA) -> None:
        self.residual = residual
        self.prior: Tensor | None = None
        self.low: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.prior is None:  # the projection is used by somebody else
            return output
        update, self.low = self.residual(inputs[0], self.prior)
        return output.add_(update)  # nobody else has seen the output: no third tensor of its size is needed


class Adaptation(nn.Module):
    """Base: some blocks of a backbone run with something to learn; ``forward`` gives the features of a batch.

    Args:
        backbone: what is adapted. It is no part of this module: the method owns it.
        blocks: the adapted ones: how many of the last (0: all), or their indices.
        checkpointing: recompute block by block in the backward pass instead of keeping activations.
        compiled: run the blocks from the first adapted one on through ``torch.compile``.
    """

    per_person = False
    embeds = False
    head_scale = 0.5

    def __init__(
        self,
        backbone: ViTBackbone,
        blocks: int | Sequence[int] = 0,
        checkpointing: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if checkpointing and compiled:
            raise ValueError("checkpointing and compiled exclude each other: the compiler decides what to recompute")
        self.blocks = chosen_blocks(blocks, len(backbone.blocks))
        self.checkpointing = checkpointing
        self._run = torch.compile(self.adapted, dynamic=True) if compiled else self.adapted

    @property
    def first(self) -> int:
        """The first adapted block: those before it run once an image, without a graph."""
        return self.blocks[0]

    def forward(self, backbone: ViTBackbone, images: Tensor, head: Tensor, image_index: Tensor) -> Encoded:
        """(B, 3, H, W) images and the boxes (P, 4) of P people in them -> their features."""
        grid = backbone.grid((images.shape[-2], images.shape[-1]))
        prior = None
        with backbone.autocast():
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.embeds):
                tokens = backbone.embed(images)
                for block in backbone.blocks[: self.first]:
                    tokens = block(tokens)
            if self.per_person:
                tokens = tokens[image_index]
                prior = head_prior(head, grid, self.head_scale).flatten(1)
            tokens, low = self._run(backbone, tokens, prior)
            features = backbone.finish(tokens, grid)
        low = [each[:, backbone.prefix_tokens :] for each in low]
        return Encoded(features, None if self.per_person else image_index, low, prior)

    def adapted(self, backbone: ViTBackbone, tokens: Tensor, prior: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """All blocks from the first adapted one on."""
        low: list[Tensor] = []
        for index, block in enumerate(backbone.blocks[self.first :], self.first):
            if self.checkpointing and torch.is_grad_enabled():
                tokens, found = checkpoint(self.block, block, index, tokens, prior, use_reentrant=False)
            else:
                tokens, found = self.block(block, index, tokens, prior)
            low += found
        return tokens, low

    def block(self, block: nn.Module, index: int, tokens: Tensor, prior: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """One of these blocks: the tokens after it, and its low-rank features where it has any."""
        return block(tokens), []


def chosen_blocks(blocks: int | Sequence[int], depth: int) -> list[int]:
    """Ascending indices: of the last ``blocks`` blocks (0: of all), or the given ones, negative from the end."""
    if isinstance(blocks, int):
        wrong = [] if 0 <= blocks <= depth else [blocks]
        blocks = range(depth - (blocks or depth), depth)
    else:
        wrong = [index for index in blocks if not -depth <= index < depth]
    if wrong or not blocks:
        raise ValueError(f"the backbone has {depth} blocks, 0 to {depth - 1}; cannot adapt {wrong or 'none'}")
    return sorted({index % depth for index in blocks})


def _known(projections: Sequence[str]) -> Sequence[str]:
    wrong = [name for name in projections if name not in PROJECTIONS]
    if wrong or not projections:
        raise ValueError(f"projections are among {', '.join(PROJECTIONS)}, got {wrong or 'none'}")
    return projections


class LocalAdaptation(Adaptation):
    """Head-conditioned local LoRA (HCLoRA) in the chosen projections of the chosen blocks.

    The class token, and any other prefix token, has no place in the picture: its prior is 0 and it gets no update.

    Args:
        backbone: see ``Adaptation``.
        projections: which of ``PROJECTIONS``.
        rank: r.
        alpha: see ``HeadConditionedLoRA``.
        dropout: see ``HeadConditionedLoRA``.
        head_scale: see ``head_prior``.
        options: of ``Adaptation``.
    """

    per_person = True

    def __init__(
        self,
        backbone: ViTBackbone,
        projections: Sequence[str] = ("qkv",),
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        head_scale: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(backbone, **options)
        self.head_scale = head_scale
        self.prefix = backbone.prefix_tokens
        self.residuals = nn.ModuleDict()
        self._taps: dict[int, list[_Tap]] = {}
        for index in self.blocks:
            for name in _known(projections):
                linear: Any = backbone.blocks[index].get_submodule(PROJECTIONS[name])
                residual = HeadConditionedLoRA(linear.in_features, linear.out_features, rank, alpha, dropout)
                self.residuals[f"{index}_{name}"] = residual
                tap = _Tap(residual)
                linear.register_forward_hook(tap)
                self._taps.setdefault(index, []).append(tap)

    def block(self, block: nn.Module, index: int, tokens: Tensor, prior: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The block with the residuals of its projections."""
        assert prior is not None
        taps = self._taps.get(index, [])
        padded = nn.functional.pad(prior, (self.prefix, 0))
        for tap in taps:
            tap.prior = padded
        tokens = block(tokens)
        low = [tap.low for tap in taps[:1] if tap.low is not None]
        for tap in taps:
            tap.prior = tap.low = None
        return tokens, low


class PromptTuning(Adaptation):
    """Deep visual prompt tuning (Jia et al., ECCV 2022): every adapted block sees prompts of its own.

    Args:
        backbone: see ``Adaptation``.
        prompts: learnt tokens a block.
        options: of ``Adaptation``.
    """

    def __init__(self, backbone: ViTBackbone, prompts: int = 10, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.prefix = backbone.prefix_tokens
        # The initialisation of the paper: uniform, by the fan of patch embedding and width.
        bound = (6 / (3 * backbone.patch_size**2 + backbone.embed_dim)) ** 0.5
        self.prompts = nn.ParameterDict(
            {f"{index}": torch.empty(prompts, backbone.embed_dim).uniform_(-bound, bound) for index in self.blocks}
        )

    def block(self, block: nn.Module, index: int, tokens: Tensor, prior: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The block on the tokens and its prompts, which then leave."""
        if index not in self.blocks:
            return block(tokens), []
        prompts = self.prompts[f"{index}"].expand(len(tokens), -1, -1)
        start = tokens[:, : self.prefix]
        tokens = block(torch.cat([start, prompts.to(tokens.dtype), tokens[:, self.prefix :]], dim=1))
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix + prompts.shape[1] :]], dim=1), []


class PlainLoRA(Adaptation):
    """LoRA (Hu et al., ICLR 2022) by peft in the chosen projections; the same update for everybody, everywhere.

    Args:
        backbone: its projections are replaced by peft's.
        projections: which of ``PROJECTIONS``.
        rank: r.
        alpha: the update is scaled by alpha / r.
        dropout: of its input.
        options: of ``Adaptation``.
    """

    def __init__(
        self,
        backbone: ViTBackbone,
        projections: Sequence[str] = ("qkv",),
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

        super().__init__(backbone, **options)
        blocks = "|".join(map(str, self.blocks))
        places = "|".join(re.escape(PROJECTIONS[name]) for name in _known(projections))
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides, whatever the number
            lora_dropout=dropout,
            target_modules=rf"blocks\.({blocks})\.({places})",
        )
        inject_adapter_in_model(config, backbone.model)


class FullFineTuning(Adaptation):
    """The chosen blocks and the final norm learn; where all are chosen, the embedding does too.

    Args:
        backbone: is thawed.
        options: of ``Adaptation``.
    """

    def __init__(self, backbone: ViTBackbone, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.embeds = len(self.blocks) == len(backbone.blocks)
        learning = [backbone.model.norm, *(backbone.blocks[index] for index in self.blocks)]
        for module in learning:
            module.requires_grad_(True)
        if self.embeds:
            backbone.model.patch_embed.requires_grad_(True)
            backbone.model.cls_token.requires_grad_(True)
            backbone.model.pos_embed.requires_grad_(True)
