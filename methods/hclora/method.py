"""Gaze-LLE with an adapted backbone: head-conditioned local LoRA, the out-of-cone penalty, and what they compare with.

Wang et al., Enhancing Gaze Reasoning in Vision Foundation Models for Gaze Following (equations and tables below).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.types import IN_FRAME, Batch, Prediction
from gazebench.core.weights import misfits, read_weights
from gazebench.data.transforms import gaussian_heatmap
from gazebench.engine.method import MethodCard, Origin, Published, Recipe, Setting
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora.adaptation import (
    Adaptation,
    Encoded,
    FullFineTuning,
    LocalAdaptation,
    PlainLoRA,
    PromptTuning,
)
from gazebench.methods.hclora.gaze_cone import cone_mask, outside_ratio
from gazebench.methods.hclora.gaze_evidence import GazeEvidence, GazeVector, divergence
from gazebench.nn.gaze_decoder import load_official, official_state
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import trainable

Kind = Literal["frozen", "full", "vpt", "lora", "hclora"]
Supervision = Literal["none", "vector", "heatmap", "cone", "ooc"]

TITLES = {"frozen": "Gaze-LLE", "full": "Gaze-LLE + FT", "vpt": "Gaze-LLE + VPT", "lora": "Gaze-LLE + LoRA"}
SUPERVISED = {"none": "", "vector": " + gaze vector", "heatmap": " + heatmap", "cone": " + gaze cone", "ooc": " + OOC"}


_LAST_THIRD = {"dinov2_vits14": 4, "dinov2_vitb14": 4, "dinov2_vitl14": 8, "tiny": 2}
_TINY = {
    name: Setting(value, "ours", why)
    for name, value, why in (
        ("model.rank", 16, "as a share of the width more than 8 of 768; not compared on its own"),
        ("model.alpha", 32.0, "twice the rank, as with rank 8"),
        ("model.dropout", 0.0, "no person is seen twice in an epoch"),
        ("model.lr_adaptation", 3e-3, "B starts at 0 and has one epoch to grow (docs/verification.md)"),
        ("model.supervised_layers", 2, "all adapted blocks"),
    )
}
_WHOLE = ("full", "vpt", "lora")
_UNSAID = "the paper does not say; "
_NEAREST = "the nearest public value, of a plain-LoRA Gaze-LLE by the same first author, is "


class HCLoRA(GazeLLE):
    """Gaze-LLE on a backbone that is adapted, by default locally at the head with the out-of-cone penalty.

    Args:
        adaptation: ``hclora`` (the paper's), or a row it is compared with: ``frozen`` (Gaze-LLE itself), ``full``
            fine-tuning, ``vpt`` (visual prompts), ``lora`` (plain LoRA).
        supervision: of the low-rank features of ``hclora``: ``ooc`` (the paper's), or a row of its Table 4: ``none``,
            ``vector``, ``heatmap``, ``cone``.
        adapted_blocks: how many of the last blocks are adapted (0: all), or the list of their indices.
        projections: which of ``qkv``, ``proj``, ``fc1``, ``fc2`` the low-rank updates are in.
        rank: r of the low-rank updates.
        alpha: they are scaled by alpha / r (not the paper's alpha, which is ``cone_sharpness``).
        dropout: of what goes into them.
        head_scale: s of equation 3 as a share of the head box's side.
        prompts: learnt tokens a block, of ``vpt``.
        supervised_layers: L, how many of the last adapted blocks are supervised.
        aux_weight: lambda of equation 8; with any ``supervision``.
        cone_angle: theta in degrees, the full opening.
        cone_sharpness: alpha of equation 6, per unit of normalised length.
        lr_adaptation: learning rate of what adapts the backbone; that of ``lr`` when not given.
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
    )
    published: ClassVar[Mapping[str, Published]] = {}
    stage = (*GazeLLE.stage, "adaptation", "supervision", "adapted_blocks", "projections", "rank", "prompts")
    sources: ClassVar[Mapping[str, tuple[Origin, str]]] = {
        "adaptation": ("paper", "section 4.1"),
        "supervision": ("paper", "section 4.2"),
        "adapted_blocks": (
            "ours",
            _UNSAID + "here the last third of the backbone, which keeps one more person cheap",
        ),
        "projections": ("ours", _UNSAID + _NEAREST + "qkv"),
        "rank": ("ours", _UNSAID + _NEAREST + "8"),
        "alpha": ("ours", _UNSAID + _NEAREST + "16"),
        "dropout": ("ours", _UNSAID + _NEAREST + "0.1"),
        "head_scale": (
            "ours",
            "equation 3 has s_x and s_y without a value: the prior falls to 0.61 at the box's sides",
        ),
        "prompts": ("ours", "the paper does not give the prompts of its VPT row; 10 is the smallest that is customary"),
        "supervised_layers": ("ours", _UNSAID + "the last three adapted blocks"),
        "aux_weight": (
            "ours",
            _UNSAID + "on GazeWorld less was better, 1, 0.3, 0.1, the last with another in/out weight",
        ),
        "cone_angle": ("ours", _UNSAID + "60 degrees is a customary opening of gaze cones"),
        "cone_sharpness": ("ours", _UNSAID + "with 50 the border is some 0.1 of the picture wide"),
        "lr_adaptation": ("ours", _UNSAID + "the decoder's own rate"),
        "checkpointing": ("ours", "no effect on results"),
        "compile": ("ours", "no effect on results but rounding"),
    }

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """Gaze-LLE's for the dataset, and how much of the backbone is adapted."""
        recipe = dict(super().recipe(dataset, model))
        chosen = recipe.get("model.backbone")
        backbone = model.get("backbone", chosen.value if chosen else "dinov2_vitb14")
        blocks = _LAST_THIRD.get(backbone)
        if blocks:
            recipe["model.adapted_blocks"] = Setting(blocks, *cls.sources["adapted_blocks"])
        if backbone == "tiny":
            recipe |= _TINY
        if model.get("adaptation", "hclora") != "hclora":
            recipe["model.supervision"] = Setting("none", "paper", "Tables 1 and 2: the rows compared with have none")
        if model.get("adaptation") in _WHOLE:
            recipe["model.adapted_blocks"] = Setting(0, "ours", "the customary form adapts every block")
            if backbone == "tiny":
                rate = 3e-4 if model["adaptation"] == "full" else 2e-3
                recipe["model.lr_adaptation"] = Setting(rate, "ours", "below HCLoRA's, for it moves every token")
        if model.get("adaptation") == "full" and backbone != "tiny":
            recipe["model.lr_adaptation"] = Setting(1e-5, "ours", "a customary rate for pretrained weights")
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
                f"{adaptation!r} say --model.supervision none"
            )
        self.kind, self.supervision = adaptation, supervision
        self.title = TITLES.get(adaptation) or f"HCLoRA{SUPERVISED[supervision]}"
        self.aux_weight, self.cone_angle, self.cone_sharpness = aux_weight, cone_angle, cone_sharpness
        self.lr_adaptation = lr_adaptation or self.lr
        self._identity = super().weights_identity()  # before anything is changed in the backbone
        options: dict[str, Any] = {"blocks": adapted_blocks, "checkpointing": checkpointing, "compiled": compile}
        low_rank: dict[str, Any] = {
            "projections": projections or ["qkv"],
            "rank": rank,
            "alpha": alpha,
            "dropout": dropout,
        }
        self.adaptation: Adaptation | None = None
        if adaptation == "full":
            self.adaptation = FullFineTuning(self.backbone, **options)
        elif adaptation == "vpt":
            self.adaptation = PromptTuning(self.backbone, prompts, **options)
        elif adaptation == "lora":
            self.adaptation = PlainLoRA(self.backbone, **low_rank, **options)
        elif adaptation == "hclora":
            self.adaptation = LocalAdaptation(self.backbone, **low_rank, head_scale=head_scale, **options)
        self.auxiliary = nn.ModuleList()
        if supervision != "none":
            assert self.adaptation is not None
            layers = min(supervised_layers, len(self.adaptation.blocks))
            self.auxiliary.extend(
                GazeVector(rank) if supervision == "vector" else GazeEvidence(rank) for _ in range(layers)
            )

    def encode(self, batch: Batch) -> Encoded:
        """The adapted features: of every image, or of every person where they depend on the head."""
        if self.adaptation is None:
            return super().encode(batch)
        assert batch.images is not None
        return self.adaptation(self.backbone, batch.images, batch.head, batch.image_index)

    def forward(self, batch: Batch) -> Prediction:
        """Gaze-LLE's prediction; in training also what the auxiliary heads say."""
        encoded = self.encode(batch)
        heatmap, inout = self.decoder(encoded.features, batch.head, encoded.owner)
        prediction = Prediction(heatmap=heatmap, inout=inout)
        if self.training and self.auxiliary:
            assert encoded.prior is not None
            head, prior = _centre(batch.head), encoded.prior
            with torch.autocast(heatmap.device.type, enabled=False):
                low = encoded.low[-len(self.auxiliary) :]
                said = [
                    aux(z.float(), prior, head, self.decoder.grid) for aux, z in zip(self.auxiliary, low, strict=True)
                ]
            self._aux = said
        return prediction

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 8: Gaze-LLE's losses, and lambda times the mean over layers of the auxiliary one."""
        self._aux = None
        losses = super().losses(self(batch), batch)
        if self._aux is None:
            return losses
        targets = batch.targets
        assert targets is not None
        head = _centre(batch.head)
        seen = (targets.inout == IN_FRAME) & head.isfinite().all(1)  # the others have no direction
        said = torch.stack([layer[seen] for layer in self._aux])
        each = torch.stack([self.auxiliary_loss(layer, head[seen], targets.point[seen]) for layer in said])
        losses["auxiliary"] = self.aux_weight * batch_mean(each)
        return losses

    def auxiliary_loss(self, said: Tensor, head: Tensor, target: Tensor) -> Tensor:
        """What one layer's head said (P, ...), head centres and targets (P, 2), normalised -> its loss (P,)."""
        grid = self.decoder.grid
        if self.supervision == "vector":
            return 1 - F.cosine_similarity(said, target - head, dim=1)
        if self.supervision == "heatmap":
            sigma = 3.0 * grid[0] / self.decoder.out_size[0]  # as wide as the decoder's target
            return divergence(said, gaussian_heatmap(target, grid, sigma).flatten(1))
        cone = cone_mask(head, target, grid, self.cone_angle, self.cone_sharpness)
        if self.supervision == "cone":
            return divergence(said, cone.flatten(1))
        return outside_ratio(said.softmax(1).unflatten(1, grid), cone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Gaze-LLE's, and what adapts the backbone at a rate of its own."""
        adapting = [*trainable(self.backbone), *(trainable(self.adaptation) if self.adaptation else [])]
        return [
            *super().parameter_groups(),
            {"params": adapting, "lr": self.lr_adaptation},
            {"params": trainable(self.auxiliary)},
        ]

    def load_initial(self, path: Path) -> None:
        """Starts from Gaze-LLE's decoder, or from a model adapted in the same way on another dataset."""
        weights = read_weights(path)
        if any(name.startswith(_ADAPTED) for name in weights):
            self._load_adapted(weights)
        load_official(self.decoder, _decoder_part(weights), allow_missing_inout=True)

    def export(self) -> dict[str, Tensor]:
        """The decoder in the official form, and what adapts the backbone; no frozen weights, no auxiliary heads."""
        return {**official_state(self.decoder), **self._adapted()}

    def load_export(self, weights: Mapping[str, Tensor]) -> None:
        """Strictly; the backbone is an equal one, from whichever source."""
        self._load_adapted(weights)
        load_official(self.decoder, _decoder_part(weights))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Training goes on with the auxiliary heads, which ``export`` leaves out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["auxiliary"] = self.auxiliary.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See ``on_save_checkpoint``."""
        self.auxiliary.load_state_dict(checkpoint["auxiliary"])
        super().on_load_checkpoint(checkpoint)

    def weights_identity(self) -> dict[str, Any]:
        """Of the backbone before it was adapted."""
        return self._identity

    def _learning(self) -> dict[str, Tensor]:
        """The parameters that adapt the backbone, by their names in the export."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith(_ADAPTED) and parameter.requires_grad
        }

    def _adapted(self) -> dict[str, Tensor]:
        return {name: parameter.detach().cpu().clone() for name, parameter in self._learning().items()}

    def _load_adapted(self, weights: Mapping[str, Tensor]) -> None:
        own = self._learning()
        given = {name: value for name, value in weights.items() if name.startswith(_ADAPTED)}
        found = misfits(own, given)
        if found:
            raise ValueError(
                f"the weights do not fit adaptation {self.kind!r}: {found}; use the --model.adaptation, .projections, "
                "...rank and .adapted_blocks they were trained with"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(given[name])


_ADAPTED = ("backbone.", "adaptation.")


def _decoder_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(_ADAPTED)}


def _centre(box: Tensor) -> Tensor:
    """(P, 4) boxes -> (P, 2) centres."""
    return (box[:, :2] + box[:, 2:]) / 2
