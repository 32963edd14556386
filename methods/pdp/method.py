"""The method: what it sees, its losses and its recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Batch, Prediction
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import Clips, HeadCrops, Preprocess, gaussian_heatmap, stretched
from gazebench.engine.method import Method, MethodCard, Recipe, from_code, our_choice
from gazebench.methods.pdp.network import FRAMES, Answer, PDPNet, divergence, patch_distribution
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_one_cycle

TRUNKS = ("conv1_", "bn1_", "layer", "attn.")
"""Beginnings of the names that the second stage leaves alone, beside all norms."""

LAST_EPOCH = our_choice("the official code picks its epoch on the test set; we keep the last", loader__selection="last")
GAZEFOLLOW: Recipe = {
    **LAST_EPOCH,
    **from_code(
        "train_gazefollow_patch.py",
        trainer__max_epochs=35, loader__batch_size=80, loader__people="labelled",
        model__lr=2.5e-4, model__lr_attention=1.25e-4, model__schedule="steps", model__trained="all",
        model__widen_heads=0.1, model__heatmap_weight=10000.0, model__patch_weight=20.0,
    ),
}  # fmt: skip
VAT: Recipe = {
    **LAST_EPOCH,
    **from_code(
        "train_videoatt_patch.py",
        trainer__max_epochs=5, loader__batch_size=80, loader__people="labelled",
        model__lr=5e-5, model__lr_attention=5e-5, model__schedule="halved", model__trained="decoder",
        model__widen_heads=0.0, model__heatmap_weight=5000.0, model__patch_weight=40.0, model__temporal=True,
        init="from:gazefollow",
    ),
}  # fmt: skip
CHILDPLAY: Recipe = {
    **VAT,
    **our_choice("a data set of clips without a recipe in the paper: VideoAttentionTarget's", trainer__max_epochs=5),
}
VSGAZE: Recipe = {
    **CHILDPLAY,
    **our_choice("clips of several data sets; its social scores are those of the points", trainer__max_epochs=5),
}
OTHER: Recipe = {
    **GAZEFOLLOW,
    **our_choice("a data set without a published recipe", trainer__max_epochs=15, model__schedule="constant"),
}
GAZEWORLD: Recipe = {
    **OTHER,
    **our_choice(
        "narrow and short, for two CPU cores",
        model__width=16, model__blocks=(1, 1, 1, 1, 1), trainer__max_epochs=4,
    ),
    **our_choice("drawn scenes have no depth", model__depth=False, model__patch_weight=40.0),
    **our_choice("small batches make the most of few epochs", loader__batch_size=16),
    **our_choice("few epochs need a rate that falls", model__lr=2e-3, model__lr_attention=1e-3,
                 model__schedule="one_cycle"),
    **our_choice("four epochs of drawn scenes need none", model__augment=False),
}  # fmt: skip


class PDP(Method):
    """PDP: a heatmap, and a distribution over patches of the picture and the outside.

    For single pictures, or, with ``temporal``, with an attention among five frames of each track, later ones too.

    Args:
        depth: also read depth maps (``--dataset.depth``), as the published method does.
        width: channels of the first convolution of both trunks.
        blocks: bottlenecks of the five groups of both trunks.
        side: of picture and head crop in pixels, a multiple of 32.
        temporal: the network for clips.
        widen_heads: how much of their width and height head boxes grow on the left and above; on the right and below
            it is the same share of the box so widened.
        heatmap_weight: weight of the squared error of heatmaps.
        patch_weight: weight of the loss of the distribution.
        trained: ``all``, or the ``decoder``: all but the trunks and their attention, with all batch norms fixed.
        lr: learning rate.
        lr_attention: learning rate of the projection of the patch attention; default: ``lr``.
        schedule: ``steps`` multiplies the rate by .2 after epochs 18, 22 and 28 (without depth 15, 22 and 30),
            ``halved`` by .5 after epoch 3, ``one_cycle`` warms up and anneals at every step, ``constant`` does neither.
        augment: crop, flip, jitter head boxes and change colours in training.
    """

    card = MethodCard(
        title="PDP",
        family="two branches",
        paper="Miao et al., WACV 2023",
        citation="miao2023patch",
        licence="none given: the official code and weights come without one, so nobody but the authors may use them",
        sees=frozenset({"picture", "head box", "head crop"}),
    )
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    stage = ("depth", "width", "blocks", "side")
    offline = ("--model.depth=false", "--model.width=8", "--model.blocks=[1,1,1,1,1]", "--model.side=64")
    recipes = {
        "gazefollow": GAZEFOLLOW, "vat": VAT, "childplay": CHILDPLAY, "vsgaze": VSGAZE, "gazeworld": GAZEWORLD,
        "*": OTHER,
    }  # fmt: skip
    sources = {
        "depth": ("official code", "unless --not_use_depth"),
        "width": ("paper", "ResNet-50"),
        "blocks": ("official code", "pdp_model.py: ResNet-50 and a group of two"),
        "side": ("official code", "224"),
        "temporal": ("paper", "GazeFollow has single pictures"),
        "widen_heads": ("official code", "dataset.py: on GazeFollow"),
        "heatmap_weight": ("official code", "train_gazefollow_patch.py"),
        "patch_weight": ("official code", "train_gazefollow_patch.py: 20 with depth, 40 without"),
        "trained": ("official code", "train_gazefollow_patch.py"),
        "lr": ("official code", "train_gazefollow_patch.py"),
        "lr_attention": ("official code", "half the rate on GazeFollow"),
        "schedule": ("official code", "train_gazefollow_patch.py"),
        "augment": ("official code", "dataset.py; the suite jitters every side of a box by itself"),
    }

    def __init__(
        self,
        depth: bool = True,
        width: int = 64,
        blocks: tuple[int, int, int, int, int] = (3, 4, 6, 3, 2),
        side: int = 224,
        temporal: bool = False,
        widen_heads: float = 0.1,
        heatmap_weight: float = 10000.0,
        patch_weight: float = 20.0,
        trained: Literal["all", "decoder"] = "all",
        lr: float = 2.5e-4,
        lr_attention: float | None = None,
        schedule: Literal["steps", "halved", "one_cycle", "constant"] = "steps",
        augment: bool = True,
    ) -> None:
        super().__init__()
        self.depth, self.crops = depth, HeadCrops(side, widen_heads, widen_heads * (1 + widen_heads))
        self.heatmap_weight, self.patch_weight = heatmap_weight, patch_weight
        self.trained, self.augment, self.schedule = trained, augment, schedule
        self.lr, self.lr_attention = lr, lr if lr_attention is None else lr_attention
        self.network = PDPNet(depth, width, blocks, side, temporal)
        self.clips = Clips.of_windows(FRAMES) if temporal else None
        self.network.fixed_norms = trained == "decoder"
        if trained == "decoder":
            for name, parameter in self.network.named_parameters():
                if name.startswith(TRUNKS) or "bn" in name:
                    parameter.requires_grad_(False)

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        recipe = super().recipe(dataset, model)
        without = str(model.get("depth", True)).lower() == "false"
        if not without or recipe.get("model.patch_weight") == VAT["model.patch_weight"]:
            return recipe
        return {**recipe, **from_code("train_gazefollow_patch.py, --not_use_depth", model__patch_weight=40.0)}

    def preprocess(self) -> Preprocess:
        share = 0.5 if self.augment else 0.0
        size = (self.crops.side, self.crops.side)
        return Preprocess(
            size, crop=share, flip=share, box_jitter=share, jitter=0.1, colour=share, heads=self.crops,
            depth=self.depth, clips=self.clips,
        )  # fmt: skip

    def answer(self, batch: Batch) -> Answer:
        """What the network says of a batch, raw."""
        parts = []
        for part in (batch, *([] if batch.context is None else [batch.context])):
            boxes = self.crops.boxes(part.head, part.sizes[part.image_index])
            parts.append(self.network.inputs(part, boxes))
        pictures, row, maps, faces = (torch.cat(each) for each in zip(*parts, strict=True))
        row[batch.people :] += len(batch.image_ids)
        found: Answer = self.network(pictures, row, maps, faces, batch.window)
        return found

    def forward(self, batch: Batch) -> Prediction:
        answer = self.answer(batch)
        return Prediction(heatmap=stretched(answer.heatmap), inout=1 - answer.distribution[:, -1])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Heatmaps, empty for people who look out of the picture, and patches, of all people who are annotated."""
        answer, targets = self.answer(batch), batch.targets
        assert targets is not None
        known = (targets.inout == IN_FRAME) | (targets.inout == OUT_OF_FRAME)
        inside = targets.inout[known] == IN_FRAME
        truth = gaussian_heatmap(targets.point[known], self.network.heatmap_size, around="window")
        truth = truth * inside[:, None, None]
        patches = patch_distribution(truth, inside, self.network.cells)
        return {
            "heatmap": self.heatmap_weight * batch_mean((answer.heatmap[known] - truth).square()),
            "patches": self.patch_weight * batch_mean(divergence(patches, answer.distribution[known])),
        }

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        learnt = [(name, each) for name, each in self.network.named_parameters() if each.requires_grad]
        attention = [each for name, each in learnt if name.startswith("qkv_proj")]
        others = [each for name, each in learnt if not name.startswith("qkv_proj")]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": attention, "lr": self.lr_attention}]
        if self.schedule == "one_cycle":
            return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))
        optimizer = torch.optim.Adam(groups, lr=self.lr)
        if self.schedule == "constant":
            return optimizer, None
        if self.schedule == "halved":
            return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], 0.5)
        epochs = [18, 22, 28] if self.depth else [15, 22, 30]
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, epochs, 0.2)

    def export(self) -> dict[str, Tensor]:
        """The whole network under its official names, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}

    def optional_parts(self) -> list[set[str]]:
        """What the network for clips has beyond that for pictures."""
        return [{name for name in self.network.state_dict() if name.startswith(("temporal_", "fc_inout"))}]

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads an export or an official checkpoint, strictly (official code drops what does not fit)."""
        own = {name.removeprefix("module."): value for name, value in weights.items()}
        remedy = f"--model.{', .'.join(self.stage)} must be those the weights were trained with"
        load_strictly(self.network, own, what=self.card.title, may_lack=may_lack, remedy=remedy)
