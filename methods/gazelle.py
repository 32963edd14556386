"""Gaze-LLE: a frozen foundation model, a light transformer decoder, and the head box as a prompt.

Ryan et al., Gaze-LLE: Gaze Target Estimation via Large-Scale Learned Encoders, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Batch, Prediction
from gazebench.core.weights import read_weights
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, Published, Recipe, Setting
from gazebench.nn.backbones import ComputeDtype, build_backbone
from gazebench.nn.feature_cache import CachedEncoder, default_folder
from gazebench.nn.gaze_decoder import Encoded, GazeDecoder, load_official, official_state
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_cosine, adam_one_cycle, trainable


def _official(place: str, **values: Any) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, "official code", place) for name, value in values.items()}


def _ours(why: str, **values: Any) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, "ours", why) for name, value in values.items()}


GAZEFOLLOW: Recipe = {
    **_official(
        "train_gazefollow.py",
        trainer__max_epochs=15,
        loader__batch_size=60,
        loader__people="in_frame",
        model__lr=1e-3,
        model__schedule="cosine",
        model__inout=False,
    ),
    **_ours("the official code picks its epoch on the test set; the last one is what can be had without", **{
        "loader.selection": "last"}),
}  # fmt: skip

VAT: Recipe = {
    **_official(
        "train_vat.py",
        trainer__max_epochs=8,
        loader__batch_size=60,
        loader__train_stride=6,
        loader__people="labelled",
        model__lr=1e-5,
        model__lr_inout=1e-2,
        model__schedule="constant",
        model__inout=True,
        model__inout_weight=1.0,
    ),
    **_ours("the official code picks its epoch on the test set; the last one is what can be had without", **{
        "loader.selection": "last"}),
    **_official("train_vat.py, --init_ckpt", init="from:gazefollow"),
}  # fmt: skip

TINY: Recipe = _ours(
    "fits the embedded backbone and two CPU cores",
    model__image_size=224,
    model__dim=128,
    model__layers=2,
    model__heads=4,
    init=None,
) | _ours(
    "small batches make the most of few people: 8 a step beat 16 and 32 at equal cost (docs/verification.md)",
    model__lr=1.5e-3,
    model__lr_inout=1.5e-3,
    model__schedule="one_cycle",
    loader__batch_size=8,
)


class GazeLLE(Method):
    """Gaze-LLE on any ViT backbone of the suite.

    Args:
        backbone: ``dinov2_vits14``, ``dinov2_vitb14``, ``dinov2_vitl14`` or ``tiny``.
        backbone_weights: ``pretrained``, ``random`` or a file.
        backbone_source: ``hub``, ``timm`` or a clone of DINOv2's repository; by default whichever has the weights.
        compute_dtype: of the frozen encoder.
        image_size: side of the square input in pixels; 0 is the backbone's own (448 for DINOv2).
        dim: width of the decoder.
        layers: its transformer blocks.
        heads: their attention heads.
        drop_path: their stochastic depth.
        inout: also predict whether the target is in frame.
        inout_weight: of that loss.
        lr: learning rate.
        lr_inout: that of the in/out parts; the same as ``lr`` when not given.
        fused_attention: torch's fused kernel, or the plain product that keeps every attention weight.
        augment: crop, flip and jitter head boxes in training.
        schedule: ``cosine`` anneals to 1e-7, once an epoch; ``one_cycle`` warms up and anneals at every step;
            ``constant`` does neither.
        feature_cache: folder that remembers the frozen features at evaluation; ``default`` is the user's cache
            folder, ``off`` keeps nothing.
        feature_cache_gib: how far that folder may grow (an image takes 3 MiB with ViT-B at 448).
    """

    card = MethodCard(
        title="Gaze-LLE",
        family="frozen foundation model",
        paper="Ryan et al., CVPR 2025",
        citation="ryan2025gazelle",
        licence="MIT (official weights)",
    )
    capabilities = frozenset({"point", "heatmap", "inout"})
    published = {
        f"gazelle_{backbone}{suffix}": Published(
            f"https://github.com/fkryan/gazelle/releases/download/v1.0.0/gazelle_{backbone}{suffix}.pt",
            {"backbone": backbone, "inout": bool(suffix)},
        )
        for backbone, suffix in product(("dinov2_vitb14", "dinov2_vitl14"), ("", "_inout"))
    }
    stage = ("backbone", "dim", "layers")
    sources = {
        "backbone": ("paper", "DINOv2 ViT-B and ViT-L"),
        "backbone_weights": ("paper", "pretrained and frozen"),
        "backbone_source": ("ours", "torch.hub as in the official code where its weights are wanted, timm otherwise"),
        "compute_dtype": ("official code", "none: float32"),
        "image_size": ("paper", "448 x 448"),
        "dim": ("paper", "256"),
        "layers": ("paper", "3"),
        "heads": ("paper", "8"),
        "drop_path": ("paper", "0.1"),
        "inout": ("official code", "only the VideoAttentionTarget models have it"),
        "inout_weight": ("paper", "VideoAttentionTarget: 1"),
        "lr": ("paper", "GazeFollow: 1e-3"),
        "lr_inout": ("official code", "train_vat.py gives the in/out parts a rate of their own"),
        "augment": ("paper", "crop, flip and jitter with probability .5 each"),
        "schedule": ("paper", "GazeFollow: cosine to 1e-7"),
        "fused_attention": ("ours", "torch's own choice; the same function up to rounding"),
        "feature_cache": ("ours", "no effect on any result; frozen features need not be computed twice"),
        "feature_cache_gib": ("ours", "no effect on any result; a disk is finite"),
    }
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
    recipes = {
        "gazefollow": GAZEFOLLOW,
        "vat": VAT,
        "*": {
            **_ours("a dataset without a published recipe", **{
                "trainer.max_epochs": 15, "loader.people": "labelled", "model.inout": True}),
        },
        "gazeworld": {
            **_ours("the embedded world runs on two CPU cores in minutes", **{
                "trainer.max_epochs": 2, "loader.people": "labelled", "model.inout": True, "model.backbone": "tiny"}),
            **_ours("two epochs over drawn scenes need none, and crops make heads harder to read", **{
                "model.augment": False}),
            **_ours("the in/out loss is ten times the heatmap's; with weight 1 it led what they share "
                    "(docs/verification.md)", **{"model.inout_weight": 0.03}),
        },
    }  # fmt: skip

    def __init__(
        self,
        backbone: str = "dinov2_vitb14",
        backbone_weights: str = "pretrained",
        backbone_source: str | None = None,
        compute_dtype: ComputeDtype = "float32",
        image_size: int = 0,
        dim: int = 256,
        layers: int = 3,
        heads: int = 8,
        drop_path: float = 0.1,
        inout: bool = False,
        inout_weight: float = 1.0,
        lr: float = 1e-3,
        lr_inout: float | None = None,
        augment: bool = True,
        schedule: Literal["cosine", "constant", "one_cycle"] = "cosine",
        fused_attention: bool = True,
        feature_cache: str = "default",
        feature_cache_gib: float = 8.0,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, backbone_weights, backbone_source, compute_dtype)
        side = image_size or self.backbone.input_size
        self.size = (side, side)
        grid = self.backbone.grid(self.size)
        self.decoder = GazeDecoder(self.backbone.embed_dim, grid, dim, layers, heads, inout, drop_path=drop_path)
        for module in self.modules():
            if hasattr(module, "fused_attn"):  # timm's switch; DINOv2's own code decides for itself
                setattr(module, "fused_attn", fused_attention)  # noqa: B010  (unknown to nn.Module's types)
        self.augment = augment
        self.inout_weight, self.lr, self.lr_inout, self.schedule = inout_weight, lr, lr_inout or lr, schedule
        folder = {"default": default_folder(), "off": None}.get(feature_cache, feature_cache)
        self.encoder = CachedEncoder(self.backbone, folder, int(feature_cache_gib * 2**30))

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The official recipe, or one that fits the tiny backbone."""
        recipe = dict(super().recipe(dataset, model))
        chosen = recipe.get("model.backbone")
        backbone = model.get("backbone", chosen.value if chosen else "dinov2_vitb14")
        return {**recipe, **TINY} if backbone == "tiny" else recipe

    def preprocess(self) -> Preprocess:
        """448 x 448, aspect not kept; targets are 64 x 64 with sigma 3 (official code)."""
        if not self.augment:
            return Preprocess(size=self.size, crop=0.0, flip=0.0, box_jitter=0.0)
        return Preprocess(size=self.size)

    def encode(self, batch: Batch) -> Encoded:
        """The features of a batch; frozen ones come from the cache at evaluation."""
        assert batch.images is not None
        if self.training:
            with torch.no_grad():
                return Encoded(self.backbone(batch.images), batch.image_index)
        return Encoded(self.encoder(batch.images), batch.image_index)

    def forward(self, batch: Batch) -> Prediction:
        """One encode per image, then one decoder pass per person."""
        encoded = self.encode(batch)
        heatmap, inout = self.decoder(encoded.features, batch.head, encoded.owner)
        return Prediction(heatmap=heatmap, inout=inout)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self(batch), batch)

    def losses(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """BCE on the heatmaps of people in frame, and on in/out where it is predicted (official code)."""
        targets, heatmap = batch.targets, prediction.heatmap
        assert targets is not None
        assert heatmap is not None
        with torch.autocast(heatmap.device.type, enabled=False):  # BCE of probabilities needs float32
            seen = targets.inout == IN_FRAME
            truth = gaussian_heatmap(targets.point[seen], self.decoder.out_size)
            losses = {"heatmap": batch_mean(F.binary_cross_entropy(heatmap[seen].float(), truth, reduction="none"))}
            if prediction.inout is not None:
                known = seen | (targets.inout == OUT_OF_FRAME)
                score = prediction.inout[known].float()
                losses["inout"] = self.inout_weight * batch_mean(
                    F.binary_cross_entropy(score, seen[known].float(), reduction="none")
                )
        return losses

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What learns and at which rate; the in/out parts have one of their own."""
        return [
            {"params": trainable(self.decoder, lambda name: not name.startswith("inout"))},
            {"params": trainable(self.decoder, lambda name: name.startswith("inout")), "lr": self.lr_inout},
        ]

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """Adam over ``parameter_groups``."""
        groups = [group for group in self.parameter_groups() if group["params"]]
        if self.schedule == "constant":
            return torch.optim.Adam(groups, lr=self.lr), None
        if self.schedule == "one_cycle":
            return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))
        return adam_cosine(groups, self.lr, self.trainer.max_epochs or 1)

    def load_initial(self, path: Path) -> None:
        """Starts from Gaze-LLE weights; those of GazeFollow have no in/out parts, which then start afresh."""
        load_official(self.decoder, read_weights(path), allow_missing_inout=True)

    def export(self) -> dict[str, Tensor]:
        """The decoder in the official form: no backbone."""
        return official_state(self.decoder)

    def load_export(self, weights: Mapping[str, Tensor]) -> None:
        """Strictly, from ours or the official checkpoints."""
        load_official(self.decoder, weights)

    def weights_identity(self) -> dict[str, Any]:
        """Which backbone, and whose weights it has."""
        identity = self.backbone.identity()
        grade = {"pretrained": "published", "embedded": "embedded", "random": "random"}.get(identity["weights"], "file")
        return {"grade": grade, "name": identity["name"], "backbone": identity}
