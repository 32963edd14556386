"""Ways to adapt a backbone to gaze following: head-conditioned local LoRA, and those the paper compares it with.

All of them run the blocks before the first adapted one once an image, without a graph, since nothing there learns.
Head-conditioned LoRA runs the others once a person, since its update depends on whose head is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gazebench.data.transforms import cell_centres
from gazebench.methods.gazelle import Encoded
from gazebench.nn.backbones import ViTBackbone

PROJECTIONS: dict[str, tuple[str, ...]] = {
    "qkv": ("attn.qkv", "attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "proj": ("attn.proj",),
    "fc1": ("mlp.fc1", "mlp.fc1_g", "mlp.fc1_x"),
    "fc2": ("mlp.fc2",),
}
"""The modules in timm's blocks that each projection may be made of; a block has one of them, or all that follow."""

Gate = Literal["local", "free"]

BlockOutput = tuple[Tensor, Tensor | None]
"""The tokens after a block, and the low-rank features A(X) of its first projection where it has any."""


@dataclass(frozen=True)
class LowRank:
    """Low-rank updates: the projections (of ``PROJECTIONS``) that have them, and those of ``HeadConditionedLoRA``."""

    projections: Sequence[str] = ("qkv",)
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    gate: Gate = "local"

    def __post_init__(self) -> None:
        wrong = [name for name in self.projections if name not in PROJECTIONS]
        if wrong or not self.projections:
            raise ValueError(f"projections are among {', '.join(PROJECTIONS)}, got {wrong or 'none'}")


@dataclass
class LocallyEncoded(Encoded):
    """Features of head-conditioned LoRA, one row a person, and what the auxiliary heads read.

    Attributes:
        low_rank: for each adapted block in order, A(X) of its first projection, (P, h w, r).
        prior: (P, h w) the head prior H.
    """

    low_rank: list[Tensor]
    prior: Tensor


def head_prior(head: Tensor, grid: tuple[int, int], scale: float = 0.5) -> Tensor:
    """The soft prior H of a head box on the token grid, equation 3.

    Args:
        head: (P, 4) normalised xyxy; a row of NaN (no box) has an empty prior.
        grid: (h, w) of the tokens.
        scale: s of the equation as a share of the box's side, taken to be at least a cell.

    Returns:
        (P, h, w) float32 in [0, 1].
    """
    centre = (head[:, :2] + head[:, 2:]) / 2
    cells = torch.tensor([grid[1], grid[0]], dtype=head.dtype, device=head.device)
    side = ((head[:, 2:] - head[:, :2]) * cells).clamp_min(1.0)  # (P, 2) in cells
    offset = (cell_centres(grid, head.device) - centre[:, None, None]) * cells  # (P, h, w, 2) in cells
    exponent = (offset.square() / (2 * (scale * side).square() + 1e-6)[:, None, None]).sum(-1)
    return torch.exp(-exponent).nan_to_num(0.0)


def linears(block: nn.Module, projections: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers of a block that the projections are made of, by their last names."""
    found: dict[str, Any] = dict(block.named_modules())
    names = [name for projection in projections for name in PROJECTIONS[projection] if name in found]
    return {name.rpartition(".")[2]: found[name] for name in names}


class HeadConditionedLoRA(nn.Module):
    """The residual of one projection, equation 2: (A(X) * M(b)) B, with M(b) = H * 2 sigmoid(g(H)).

    The gating network g has two layers; it maps the prior at a token to one value for each of the r ranks. The factor
    H is ours and makes the update vanish away from the head. Without it (``gate`` ``free``) M(b) = 2 sigmoid(g(H)), a
    network's output as in the paper: whether the update is local is then learnt, and it reaches prefix tokens and
    people without a box. g starts at 0, so M starts at H, or at 1; B starts at 0, so the adapted backbone starts as the
    frozen one.

    Args:
        in_features: width d of the projection's input.
        out_features: width of its output.
        rank: r.
        alpha: the update is scaled by alpha / r, as in LoRA.
        dropout: dropout of the input of A.
        gate_dim: hidden width of g.
        gate: ``local`` with the factor H, ``free`` without it.

    Attributes:
        prior: (P, N) while ``add_to`` is to act; None: the projection stays as it is.
        low_rank: (P, N, r) what the last call of ``add_to`` found for A(X).
    """

    prior: Tensor | None = None
    low_rank: Tensor | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        gate_dim: int = 16,
        gate: Gate = "local",
    ) -> None:
        super().__init__()
        self.local = gate == "local"
        self.down = nn.Linear(in_features, rank, bias=False)  # A
        self.up = nn.Linear(rank, out_features, bias=False)  # B
        last = nn.Linear(gate_dim, rank)
        self.gate = nn.Sequential(nn.Linear(1, gate_dim), nn.GELU(), last)  # g
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        for zero in (self.up.weight, last.weight, last.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, d) tokens and their (P, N) prior -> the update (P, N, out_features), and A(X) (P, N, r)."""
        low_rank, height = self.down(self.dropout(x)), prior[..., None]
        modulation = 2 * self.gate(height).sigmoid()  # M(b), (P, N, r) in [0, 2]
        if self.local:
            modulation = height * modulation
        # The factors meet in the r channels: at the projection's width, each would cost as much as a pass over it.
        return self.up(low_rank * (self.scale * modulation).to(low_rank.dtype)), low_rank

    def add_to(self, projection: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of a frozen projection, equation 1; the projection's weights keep their names."""
        if self.prior is None:
            return output
        update, self.low_rank = self(inputs[0], self.prior)
        return output.add_(update)  # in place: nothing else holds the output yet


class Adaptation(nn.Module):
    """Base of the adaptations: runs a backbone of which some blocks learn.

    Args:
        backbone: what is adapted; the method owns it, so it is no part of this module.
        blocks: the adapted ones: how many of the last (0: all), or their indices.
        checkpointing: recompute these block by block in the backward pass instead of keeping activations.
        compiled: run the blocks from the first adapted one on through ``torch.compile``.
    """

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
        self.prefix = backbone.prefix_tokens
        self.shared: Callable[[Tensor], Tensor] = partial(backbone.tokens, blocks=self.blocks[0])
        """Images -> (B, prefix + h w, C), what enters the first adapted block; a method may put a cache here."""
        self.run_adapted = torch.compile(self.adapted, dynamic=True) if compiled else self.adapted

    def forward(self, backbone: ViTBackbone, images: Tensor, head: Tensor, image_index: Tensor) -> Encoded:
        """(B, 3, H, W) images, and head boxes (P, 4) and images (P,) of the people in them -> features."""
        grid = backbone.grid((images.shape[-2], images.shape[-1]))
        with backbone.autocast():
            rotary = backbone.rotary(grid)
            tokens, _ = self.run_adapted(backbone, self.shared(images), rotary, None)
            return Encoded(backbone.finish(tokens, grid), image_index)

    def adapted(
        self, backbone: ViTBackbone, tokens: Tensor, rotary: Tensor | None, prior: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """All blocks from the first adapted one on: the tokens after them, and the low-rank features where any are."""
        low_rank = []
        for index in range(self.blocks[0], len(backbone.blocks)):
            if self.checkpointing and torch.is_grad_enabled():
                given = (backbone, index, tokens, rotary, prior)
                tokens, low = checkpoint(self.run_block, *given, use_reentrant=False)
            else:
                tokens, low = self.run_block(backbone, index, tokens, rotary, prior)
            low_rank += [] if low is None else [low]
        return tokens, low_rank

    def run_block(
        self, backbone: ViTBackbone, index: int, tokens: Tensor, rotary: Tensor | None, prior: Tensor | None
    ) -> BlockOutput:
        return backbone.run_block(index, tokens, rotary), None


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


class LocalAdaptation(Adaptation):
    """Head-conditioned local LoRA (HCLoRA) in the chosen projections of the chosen blocks.

    Class and register tokens have no place in the image: their prior is 0, so with the local gate they get no update.
    ``head_scale`` is the ``scale`` of ``head_prior``.
    """

    def __init__(
        self, backbone: ViTBackbone, low_rank: LowRank = LowRank(), head_scale: float = 0.5, **options: Any
    ) -> None:
        super().__init__(backbone, **options)
        self.head_scale, self.residuals = head_scale, nn.ModuleDict()
        for index in self.blocks:
            for name, linear in linears(backbone.blocks[index], low_rank.projections).items():
                residual = HeadConditionedLoRA(
                    linear.in_features,
                    linear.out_features,
                    low_rank.rank,
                    low_rank.alpha,
                    low_rank.dropout,
                    gate=low_rank.gate,
                )
                self.residuals[f"{index}_{name}"] = residual
                linear.register_forward_hook(residual.add_to)

    def forward(self, backbone: ViTBackbone, images: Tensor, head: Tensor, image_index: Tensor) -> LocallyEncoded:
        grid = backbone.grid((images.shape[-2], images.shape[-1]))
        prior = head_prior(head, grid, self.head_scale).flatten(1)  # (P, h w)
        with backbone.autocast():
            rotary = backbone.rotary(grid)
            tokens = self.shared(images)[image_index]  # (P, prefix + h w, C)
            tokens, low_rank = self.run_adapted(backbone, tokens, rotary, nn.functional.pad(prior, (self.prefix, 0)))
            features = backbone.finish(tokens, grid)
        return LocallyEncoded(features, None, [low[:, self.prefix :] for low in low_rank], prior)

    def run_block(
        self, backbone: ViTBackbone, index: int, tokens: Tensor, rotary: Tensor | None, prior: Tensor | None
    ) -> BlockOutput:
        residuals: list[Any] = [part for name, part in self.residuals.items() if name.startswith(f"{index}_")]
        for residual in residuals:
            residual.prior = prior
        tokens = backbone.run_block(index, tokens, rotary)
        low_rank = residuals[0].low_rank if residuals else None
        for residual in residuals:
            residual.prior = residual.low_rank = None
        return tokens, low_rank


class PromptTuning(Adaptation):
    """Deep visual prompt tuning (Jia et al., ECCV 2022): ``prompts`` learnt tokens for each adapted block."""

    def __init__(self, backbone: ViTBackbone, prompts: int = 10, **options: Any) -> None:
        super().__init__(backbone, **options)
        # Initialised as in the paper: uniform, by the fan of patch embedding and width.
        bound = (6 / (3 * backbone.patch_size**2 + backbone.embed_dim)) ** 0.5
        self.prompts = nn.ParameterDict(
            {f"{index}": torch.empty(prompts, backbone.embed_dim).uniform_(-bound, bound) for index in self.blocks}
        )

    def run_block(
        self, backbone: ViTBackbone, index: int, tokens: Tensor, rotary: Tensor | None, prior: Tensor | None
    ) -> BlockOutput:
        """The block on its prompts between class and patch tokens; the prompts are taken out again."""
        if index not in self.blocks:
            return backbone.run_block(index, tokens, rotary), None
        prompts = self.prompts[f"{index}"].expand(len(tokens), -1, -1).to(tokens.dtype)
        tokens = torch.cat([tokens[:, : self.prefix], prompts, tokens[:, self.prefix :]], dim=1)
        tokens = backbone.run_block(index, tokens, rotary, prompts.shape[1])
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix + prompts.shape[1] :]], dim=1), None


class PlainLoRA(Adaptation):
    """LoRA (Hu et al., ICLR 2022) by peft: the same update for every person and place."""

    def __init__(self, backbone: ViTBackbone, low_rank: LowRank = LowRank(), **options: Any) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

        super().__init__(backbone, **options)
        blocks = "|".join(map(str, self.blocks))
        places = "|".join(re.escape(name) for projection in low_rank.projections for name in PROJECTIONS[projection])
        config = LoraConfig(
            r=low_rank.rank,
            lora_alpha=low_rank.alpha,  # type: ignore[arg-type]  # peft divides, whatever the number
            lora_dropout=low_rank.dropout,
            target_modules=rf"blocks\.({blocks})\.({places})",
        )
        inject_adapter_in_model(config, backbone.model)


class FullFineTuning(Adaptation):
    """The chosen blocks and the final norm learn; where all blocks are chosen, the embedding does too."""

    def __init__(self, backbone: ViTBackbone, **options: Any) -> None:
        super().__init__(backbone, **options)
        model = backbone.model
        learning = [model.norm, *(backbone.blocks[index] for index in self.blocks)]
        for part in [model] if len(self.blocks) == len(backbone.blocks) else learning:
            part.requires_grad_(True)
