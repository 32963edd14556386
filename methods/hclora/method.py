"""Gaze-LLE with an adapted backbone: head-conditioned local LoRA and the out-of-cone penalty, and their baselines.

Wang et al., Enhancing Gaze Reasoning in Vision Foundation Models for Gaze Following (equations and tables below).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.types import IN_FRAME, Batch
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import cone_mask, gaussian_heatmap
from gazebench.engine.method import MethodCard, Origin, Published, Recipe, Setting, chosen, from_paper, our_choice
from gazebench.methods.gazelle import EMBEDDED, Encoded, GazeLLE
from gazebench.methods.hclora.adaptation import (
    Adaptation,
    FullFineTuning,
    Gate,
    LocalAdaptation,
    LocallyEncoded,
    LowRank,
    PlainLoRA,
    PromptTuning,
)
from gazebench.methods.hclora.supervision import GazeEvidence, GazeVector, TokenEvidence, divergence, outside_ratio
from gazebench.nn.backbones import depth
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import trainable

Kind = Literal["frozen", "full", "vpt", "lora", "hclora"]
Supervision = Literal["none", "vector", "heatmap", "cone", "ooc"]
Evidence = Literal["head", "tokens"]

TITLES = {"frozen": "Gaze-LLE", "full": "Gaze-LLE + FT", "vpt": "Gaze-LLE + VPT", "lora": "Gaze-LLE + LoRA"}
SUPERVISED = {"none": "", "vector": " + gaze vector", "heatmap": " + heatmap", "cone": " + gaze cone", "ooc": " + OOC"}
ADAPTED = ("backbone.", "adaptation.")
"""Prefixes of the parameters in an export that adapt the backbone; the others are the decoder's."""

WHY_LAST_THIRD = "the paper does not say; the last third of the backbone keeps one more person cheap"
NEAREST = "the paper does not say; the nearest public value, of a plain-LoRA Gaze-LLE by the same first author, is "
TINY: Recipe = {
    **our_choice("as a share of the width more than 8 of 768; not compared on its own", model__rank=16),
    **our_choice("twice the rank, as with rank 8", model__alpha=32.0),
    **our_choice("no person is seen twice in an epoch", model__dropout=0.0),
    **our_choice("B starts at 0 and has one epoch to grow (docs/verification.md)", model__lr_adaptation=3e-3),
    **our_choice(WHY_LAST_THIRD, model__adapted_blocks=2),
    **our_choice("all adapted blocks", model__supervised_layers=2),
}


class HCLoRA(GazeLLE):
    """Gaze-LLE on an adapted backbone, by default adapted locally at the head, with the out-of-cone penalty.

    Args:
        adaptation: ``hclora`` (the paper's), or a row it is compared with: ``frozen`` (Gaze-LLE itself), ``full``
            fine-tuning, ``vpt`` (visual prompts), ``lora`` (plain LoRA).
        supervision: how the low-rank features of ``hclora`` are supervised: ``ooc`` (the paper's), or a row of its
            Table 4: ``none``, ``vector``, ``heatmap``, ``cone``.
        adapted_blocks: how many of the last blocks are adapted (0: all), or the list of their indices.
        projections: which of ``qkv``, ``proj``, ``fc1``, ``fc2`` have low-rank updates.
        rank: r of the low-rank updates.
        alpha: the updates are scaled by alpha / r (the paper's alpha is ``cone_sharpness``).
        dropout: dropout of the updates' input.
        head_scale: s of equation 3 as a share of the head box's side.
        gate: M(b) of equation 2: ``local``, the prior H times a network's output; ``free``, that output alone (the
            paper's form).
        evidence: what f_aux of equation 4 reads: ``head``, the low-rank features at the head and every place's
            position; ``tokens``, every place's own low-rank features (the paper's form).
        prompts: learnt tokens of each block, of ``vpt``.
        supervised_layers: L, how many of the last adapted blocks are supervised.
        aux_weight: lambda of equation 8, with any ``supervision``.
        cone_angle: theta in degrees, the full opening.
        cone_sharpness: alpha of equation 6, per unit of normalised length.
        lr_adaptation: learning rate of what adapts the backbone; default: ``lr``.
        checkpointing: recompute adapted blocks in the backward pass: less memory, more time.
        compile: run the adapted blocks through ``torch.compile``.
        gazelle: everything ``GazeLLE`` takes.
    """

    card = MethodCard(
        title="HCLoRA + OOC",
        family="adapted foundation model",
        paper="Wang et al., Enhancing Gaze Reasoning in Vision Foundation Models for Gaze Following",
        citation="wang2026hclora",
        licence="Apache-2.0 (written from the paper; no code was published)",
        sees=frozenset({"picture", "head box"}),
    )
    version = 1
    published: ClassVar[Mapping[str, Published]] = {}
    stage = (*GazeLLE.stage, "adaptation", "supervision", "adapted_blocks", "projections", "rank", "prompts", "gate")
    sources: ClassVar[Mapping[str, tuple[Origin, str]]] = {
        "adaptation": ("paper", "section 4.1"),
        "supervision": ("paper", "section 4.2"),
        "adapted_blocks": ("ours", WHY_LAST_THIRD),
        "projections": ("ours", NEAREST + "qkv"),
        "rank": ("ours", NEAREST + "8"),
        "alpha": ("ours", NEAREST + "16"),
        "dropout": ("ours", NEAREST + "0.1"),
        "head_scale": ("ours", "equation 3 gives no value of s; here the prior falls to 0.61 at the box's sides"),
        "gate": ("ours", "section 4.1 passes H through a network, and M is its output (`free`); the factor H is ours"),
        "evidence": ("ours", "equation 4 maps the tokens' own low-rank features (`tokens`); studies/finding has both"),
        "prompts": ("ours", "the paper does not give the prompts of its VPT row; 10 is the smallest customary number"),
        "supervised_layers": ("ours", "the paper does not say; the last three adapted blocks"),
        "aux_weight": (
            "ours",
            "the paper does not say; of 1, 0.3 and 0.1 the smallest did best on GazeWorld, with another in/out weight",
        ),
        "cone_angle": ("ours", "the paper does not say; 60 degrees is a customary opening of gaze cones"),
        "cone_sharpness": ("ours", "the paper does not say; with 50 the border is some 0.1 of the image wide"),
        "lr_adaptation": ("ours", "the paper does not say; the decoder's own rate"),
        "checkpointing": ("ours", "no effect on results"),
        "compile": ("ours", "no effect on results beyond rounding"),
    }

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """Gaze-LLE's recipe, and how much of the backbone is adapted at which rate."""
        recipe: dict[str, Setting] = {**super().recipe(dataset, model)}
        backbone, kind = chosen(recipe, model, "backbone") or "dinov2_vitb14", model.get("adaptation", "hclora")
        tiny = backbone in EMBEDDED
        if blocks := depth(backbone):
            recipe |= our_choice(WHY_LAST_THIRD, model__adapted_blocks=max(1, blocks // 3))
        if tiny:
            recipe |= TINY
        if kind != "hclora":
            recipe |= from_paper("Tables 1 and 2: the rows compared with have none", model__supervision="none")
        if kind in ("full", "vpt", "lora"):
            recipe |= our_choice("the customary form adapts every block", model__adapted_blocks=0)
        if kind in ("full", "vpt", "lora") and tiny:
            rate = 3e-4 if kind == "full" else 2e-3
            recipe |= our_choice("below HCLoRA's, since it changes every token", model__lr_adaptation=rate)
        if kind == "full" and not tiny:
            recipe |= our_choice("a customary rate for pretrained weights", model__lr_adaptation=1e-5)
        return recipe

    def __init__(
        self,
        adaptation: Kind = "hclora",
        supervision: Supervision = "ooc",
        adapted_blocks: int | list[int] = 0,
        projections: list[str] | None = None,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.1,
        head_scale: float = 0.5,
        gate: Gate = "local",
        evidence: Evidence = "head",
        prompts: int = 10,
        supervised_layers: int = 3,
        aux_weight: float = 0.1,
        cone_angle: float = 60.0,
        cone_sharpness: float = 50.0,
        lr_adaptation: float | None = None,
        checkpointing: bool = False,
        compile: bool = False,
        **gazelle: Any,
    ) -> None:
        super().__init__(**gazelle)
        if adaptation != "hclora" and supervision != "none":
            raise ValueError(
                f"supervision {supervision!r} needs the low-rank features of adaptation 'hclora'; with "
                f"{adaptation!r} give --model.supervision none"
            )
        if evidence == "tokens" and supervision in ("none", "vector"):
            raise ValueError(f"evidence 'tokens' is of a map; supervision {supervision!r} has none")
        self.kind, self.supervision = adaptation, supervision
        as_written = [what for what, is_so in (("equation 4", evidence == "tokens"), ("gate", gate == "free")) if is_so]
        of_paper = f" ({' and '.join(as_written)} as written)" if as_written else ""
        self.title = TITLES.get(adaptation) or f"HCLoRA{SUPERVISED[supervision]}{of_paper}"
        self.aux_weight, self.cone_angle, self.cone_sharpness = aux_weight, cone_angle, cone_sharpness
        self.lr_adaptation = lr_adaptation or self.lr
        self._identity = super().weights_identity()  # before the backbone is changed
        options: dict[str, Any] = {"blocks": adapted_blocks, "checkpointing": checkpointing, "compiled": compile}
        low_rank = LowRank(projections or ["qkv"], rank, alpha, dropout, gate)
        self.adaptation: Adaptation | None = None
        if adaptation == "full":
            self.adaptation = FullFineTuning(self.backbone, **options)
        elif adaptation == "vpt":
            self.adaptation = PromptTuning(self.backbone, prompts, **options)
        elif adaptation == "lora":
            self.adaptation = PlainLoRA(self.backbone, low_rank, **options)
        elif adaptation == "hclora":
            self.adaptation = LocalAdaptation(self.backbone, low_rank, head_scale, **options)
        if self.adaptation is not None and self.adaptation.blocks[0]:
            self.encoder = self.new_encoder(blocks=self.adaptation.blocks[0])
            self.adaptation.shared = self.frozen
        self.auxiliary = nn.ModuleList()
        if self.adaptation is not None and supervision != "none":
            of_map = TokenEvidence if evidence == "tokens" else GazeEvidence
            head = GazeVector if supervision == "vector" else of_map
            self.auxiliary.extend(head(rank) for _ in range(min(supervised_layers, len(self.adaptation.blocks))))

    def encode(self, batch: Batch) -> Encoded:
        """The adapted features: one row an image, or one row a person where they depend on the head."""
        if self.adaptation is None:
            return super().encode(batch)
        assert batch.images is not None
        return self.adaptation(self.backbone, batch.images, batch.head, batch.image_index)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 8: Gaze-LLE's losses, and lambda times the mean auxiliary loss of the last L adapted layers."""
        encoded = self.encode(batch)
        losses = self.decoder_losses(self.decode(encoded, batch), batch)
        if isinstance(encoded, LocallyEncoded) and self.auxiliary:
            losses["auxiliary"] = self.aux_weight * self.auxiliary_loss(encoded, batch)
        return losses

    def auxiliary_loss(self, encoded: LocallyEncoded, batch: Batch) -> Tensor:
        """The mean over layers and over the people in frame with a head box; the others have no direction."""
        assert batch.targets is not None
        head = (batch.head[:, :2] + batch.head[:, 2:]) / 2  # (P, 2) centres
        seen = (batch.targets.inout == IN_FRAME) & head.isfinite().all(1)
        head, target, prior = head[seen], batch.targets.point[seen], encoded.prior[seen]
        layers = zip(self.auxiliary, encoded.low_rank[-len(self.auxiliary) :], strict=True)
        with torch.autocast(head.device.type, enabled=False):
            outputs = [layer(low[seen].float(), prior, head, self.decoder.grid) for layer, low in layers]
            return batch_mean(torch.stack([self.layer_loss(output, head, target) for output in outputs]))

    def layer_loss(self, output: Tensor, head: Tensor, target: Tensor) -> Tensor:
        """The loss (P,) of one auxiliary head's output, by ``supervision``.

        Args:
            output: (P, 2) gaze vectors, or (P, h w) logits of the evidence map.
            head: (P, 2) normalised head centres.
            target: (P, 2) normalised gaze targets.
        """
        grid = self.decoder.grid
        if self.supervision == "vector":
            return 1 - F.cosine_similarity(output, target - head, dim=1)
        if self.supervision == "heatmap":
            sigma = 3.0 * grid[0] / self.decoder.out_size[0]  # as wide as the decoder's target
            return divergence(output, gaussian_heatmap(target, grid, sigma).flatten(1))
        cone = cone_mask(head, target, grid, self.cone_angle, self.cone_sharpness)
        if self.supervision == "cone":
            return divergence(output, cone.flatten(1))
        return outside_ratio(output.softmax(1).unflatten(1, grid), cone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        adapting = [*trainable(self.backbone), *(trainable(self.adaptation) if self.adaptation else [])]
        return [
            *super().parameter_groups(),
            {"params": adapting, "lr": self.lr_adaptation},
            {"params": trainable(self.auxiliary)},
        ]

    def export(self) -> dict[str, Tensor]:
        """The decoder under its official names, and what adapts the backbone; no frozen weights, no auxiliary heads."""
        return super().export() | {name: value.detach().cpu() for name, value in self.adapting().items()}

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads the decoder and what adapts the backbone, strictly."""
        adapting = {name: value for name, value in weights.items() if name.startswith(ADAPTED)}
        remedy = (
            "--model.adaptation, .projections, .rank and .adapted_blocks must be those the weights were trained with"
        )
        what = f"adaptation {self.kind!r}"
        load_strictly(self.adapting(), adapting, what=what, may_lack=may_lack, remedy=remedy)
        super().load_export({name: weights[name] for name in weights.keys() - adapting.keys()}, may_lack)

    def optional_parts(self) -> list[set[str]]:
        """Training may start from Gaze-LLE's decoder, or from a model adapted in the same way to another data set."""
        return [*super().optional_parts(), set(self.adapting())]

    def adapting(self) -> dict[str, Tensor]:
        """The parameters that adapt the backbone, by their names in the export."""
        return {name: p for name, p in self.named_parameters() if name.startswith(ADAPTED) and p.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the auxiliary heads, which training goes on with and ``export`` leaves out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["auxiliary"] = self.auxiliary.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.auxiliary.load_state_dict(checkpoint["auxiliary"])
        super().on_load_checkpoint(checkpoint)

    def weights_identity(self) -> dict[str, Any]:
        """Names the backbone as it was before it was adapted."""
        return self._identity
