"""Gaze-LLE: a frozen ViT, a light transformer decoder, and the head box as a prompt.

Ryan et al., Gaze-LLE: Gaze Target Estimation via Large-Scale Learned Encoders, CVPR 2025. The decoder has the names
and shapes of the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from gazebench.core.files import cache_folder
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Batch, Prediction
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, Published, Recipe, chosen, from_code, our_choice
from gazebench.nn.backbones import ComputeDtype, build_backbone, weights_grade
from gazebench.nn.feature_cache import CachedEncoder
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_cosine, adam_one_cycle


@dataclass
class Encoded:
    """Backbone features of a batch.

    Attributes:
        features: (R, C, h, w) float32, one row an image or one row a person.
        row: (P,) int64, the row of each person; None: person p has row p.
    """

    features: Tensor
    row: Tensor | None


class GazeDecoder(nn.Module):
    """Image features and head boxes -> for each person a gaze heatmap and, with ``inout``, a probability.

    Args:
        in_dim: channels C of the features.
        grid: (h, w) of the features; fixed, since the position embedding is part of the weights.
        dim: width D, a multiple of 4 and of ``heads``.
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
        # nn.LayerNorm: its eps, 1e-5, is that of the published weights; the default of timm's block is 1e-6.
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

    def forward(self, encoded: Encoded, head: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicts for P people.

        Args:
            encoded: features of their images.
            head: (P, 4) normalised xyxy; a row of NaN is a person without a box.

        Returns:
            (P, *out_size) heatmaps in [0, 1], and (P,) probabilities of being in frame, None without ``inout``.
        """
        if encoded.features.shape[-2:] != self.grid:
            raise ValueError(f"the decoder was made for a grid of {self.grid}, got {tuple(encoded.features.shape)}")
        x = self.linear(encoded.features) + self.pos_embed  # (R, D, h, w)
        x = x if encoded.row is None else x[encoded.row]  # (P, D, h, w)
        x = x + head_map(head, *self.grid)[:, None] * self.head_token.weight[:, :, None, None]
        x = x.flatten(2).mT  # (P, h w, D)
        if self.inout:
            # x.shape[0]: an exporter takes len(x) for a constant.
            x = torch.cat([self.inout_token.weight.expand(x.shape[0], 1, -1), x], dim=1)  # (P, 1 + h w, D)
        x = self.transformer(x)
        inout = None
        if self.inout:
            inout = self.inout_head[:-1](x[:, 0]).squeeze(1).float().sigmoid()  # float32 under autocast too
            x = x[:, 1:]
        x = x.mT.unflatten(2, self.grid)  # (P, D, h, w)
        heatmap = self.heatmap_head[:-1](x).squeeze(1).float().sigmoid()  # (P, 2h, 2w)
        if heatmap.shape[1:] != self.out_size:
            heatmap = F.interpolate(heatmap[:, None], self.out_size, mode="bilinear", antialias=True).squeeze(1)
        return heatmap, inout


def head_map(head: Tensor, rows: int, columns: int) -> Tensor:
    """(P, 4) normalised xyxy -> (P, rows, columns) float32: 1 in the cells of the box, 0 elsewhere.

    As in the official code, corners are rounded to the nearest cell border, half to even, and the far one is excluded:
    a box smaller than half a cell can vanish. A row of NaN gives an empty map, since comparisons with NaN are false.
    """
    # float64, like the official code: a product in float32 could round to a tie.
    scale = torch.tensor([columns, rows, columns, rows], dtype=torch.float64, device=head.device)
    left, top, right, bottom = (head.double() * scale).round()[:, :, None].unbind(1)  # (P, 1) each
    x, y = torch.arange(columns, device=head.device), torch.arange(rows, device=head.device)
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return (down[:, :, None] & across[:, None, :]).float()


def sine_positions(dim: int, rows: int, columns: int) -> Tensor:
    """(dim, rows, columns) float32: sines and cosines by turns, of the column in the first half, then of the row."""
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4, got {dim}")
    half = dim // 2  # timm's build_sincos2d_pos_embed rounds otherwise: 2e-6 from the published table
    frequency = torch.exp(torch.arange(0.0, half, 2) * -(math.log(10000.0) / half))

    def waves(length: int) -> Tensor:  # (half, length)
        phase = frequency[:, None] * torch.arange(length)
        return torch.stack([phase.sin(), phase.cos()], dim=1).flatten(0, 1)

    across, down = waves(columns)[:, None, :], waves(rows)[:, :, None]
    return torch.cat([across.expand(half, rows, columns), down.expand(half, rows, columns)])


LAST_EPOCH = our_choice("the official code picks its epoch on the test set; we keep the last", loader__selection="last")
GAZEFOLLOW: Recipe = LAST_EPOCH | from_code(
    "train_gazefollow.py",
    trainer__max_epochs=15, loader__batch_size=60, loader__people="in_frame",
    model__lr=1e-3, model__schedule="cosine", model__inout=False,
)  # fmt: skip
VAT: Recipe = LAST_EPOCH | from_code(
    "train_vat.py",
    trainer__max_epochs=8, loader__batch_size=60, loader__train_stride=6, loader__people="labelled",
    model__lr=1e-5, model__lr_inout=1e-2, model__schedule="constant", model__inout=True, model__inout_weight=1.0,
) | from_code("train_vat.py, --init_ckpt", init="from:gazefollow")  # fmt: skip
OTHER: Recipe = our_choice(
    "a data set without a published recipe", trainer__max_epochs=15, loader__people="labelled", model__inout=True
)
GAZEWORLD: Recipe = {
    **our_choice(
        "GazeWorld runs on two CPU cores in minutes",
        trainer__max_epochs=2, loader__people="labelled", model__inout=True, model__backbone="tiny",
    ),
    **our_choice("two epochs of drawn scenes need none, and crops make heads harder to read", model__augment=False),
    **our_choice(
        "the in/out loss is ten times the heatmap's; with weight 1 it dominated what they share (docs/verification.md)",
        model__inout_weight=0.03,
    ),
}  # fmt: skip
EMBEDDED = ("tiny", "tiny2")
"""The embedded backbones, of one size. Records name ``tiny``, which was taught what is salient; ``tiny2`` was not. To
make it the default, change ``model__backbone`` of ``GAZEWORLD`` and train anew."""
TINY: Recipe = {
    **our_choice(
        "fits the embedded backbone and two CPU cores",
        model__image_size=224, model__dim=128, model__layers=2, model__heads=4, init=None,
    ),
    **our_choice(
        "small batches make the most of few people: 8 a step beat 16 and 32 at equal cost (docs/verification.md)",
        model__lr=1.5e-3, model__lr_inout=1.5e-3, model__schedule="one_cycle", loader__batch_size=8,
    ),
}  # fmt: skip


class GazeLLE(Method):
    """Gaze-LLE on any ViT backbone of the suite.

    Args:
        backbone: ``dinov2_vitb14``, ``dinov3_vitl16``, ``ViT-B-16-SigLIP2-512`` and others
            (``gazebench list``), ``timm:NAME`` for any plain ViT of timm, ``tiny`` or ``tiny2``.
        backbone_weights: ``pretrained``, ``random``, a file or an address.
        backbone_source: ``hub``, ``timm``, ``transformers``, ``open_clip`` or ``openai``, whose copy of the pretrained
            weights to take; default: one that is on this machine already, else the first that the backbone names.
        compute_dtype: precision of the frozen encoder.
        image_size: side of the square input in pixels; 0 is 32 patches of the backbone (448 for DINOv2).
        dim: width of the decoder.
        layers: transformer blocks of the decoder.
        heads: attention heads of the decoder.
        drop_path: stochastic depth of the decoder.
        inout: also predict whether the target is in frame.
        inout_weight: weight of the in/out loss.
        lr: learning rate.
        lr_inout: learning rate of the in/out parts; default: ``lr``.
        augment: crop, flip and jitter head boxes in training.
        schedule: ``cosine`` anneals to 1e-7, once an epoch; ``one_cycle`` warms up and anneals at every step;
            ``constant`` does neither.
        fused_attention: torch's fused kernel, or the plain product that keeps every attention weight.
        feature_cache: folder that keeps the frozen features of test images, and without ``augment`` of training
            images; ``default`` is the user's cache folder, ``off`` keeps nothing.
        feature_cache_gib: largest size of that folder in GiB (an image takes 3 MiB with ViT-B at 448).
    """

    card = MethodCard(
        title="Gaze-LLE",
        family="frozen foundation model",
        paper="Ryan et al., CVPR 2025",
        citation="ryan2025gazelle",
        licence="MIT (official weights)",
        sees=frozenset({"picture", "head box"}),
    )
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    published = {
        f"gazelle_{backbone}{suffix}": Published(
            f"https://github.com/fkryan/gazelle/releases/download/v1.0.0/gazelle_{backbone}{suffix}.pt",
            {"backbone": backbone, "inout": bool(suffix)},
        )
        for backbone, suffix in product(("dinov2_vitb14", "dinov2_vitl14"), ("", "_inout"))
    }
    stage = ("backbone", "dim", "layers")
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
    recipes = {"gazefollow": GAZEFOLLOW, "vat": VAT, "gazeworld": GAZEWORLD, "*": OTHER}
    sources = {
        "backbone": ("paper", "DINOv2 ViT-B and ViT-L"),
        "backbone_weights": ("paper", "pretrained and frozen"),
        "backbone_source": ("ours", "no effect on results: all copies hold the same weights"),
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
        "feature_cache": ("ours", "no effect on results; frozen features need not be computed twice"),
        "feature_cache_gib": ("ours", "no effect on results; a disk is finite"),
    }

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
        self.side = image_size or self.backbone.input_size
        grid = self.backbone.grid(self.side)
        self.decoder = GazeDecoder(self.backbone.embed_dim, grid, dim, layers, heads, inout, drop_path=drop_path)
        for module in self.modules():
            if hasattr(module, "fused_attn"):  # timm's switch; DINOv2's own code has none
                setattr(module, "fused_attn", fused_attention)  # noqa: B010  (unknown to nn.Module's types)
        self.augment = augment
        self.inout_weight, self.lr, self.lr_inout, self.schedule = inout_weight, lr, lr_inout or lr, schedule
        folder = {"default": cache_folder() / "features", "off": None}.get(feature_cache, feature_cache)
        self.new_encoder = partial(CachedEncoder, self.backbone, folder, int(feature_cache_gib * 2**30))
        self.encoder = self.new_encoder()

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        recipe = super().recipe(dataset, model)
        return {**recipe, **TINY} if chosen(recipe, model, "backbone") in EMBEDDED else recipe

    def preprocess(self) -> Preprocess:
        return Preprocess.square(self.side, self.augment)

    def encode(self, batch: Batch) -> Encoded:
        """The frozen features, one row an image."""
        assert batch.images is not None
        return Encoded(self.frozen(batch.images), batch.image_index)

    def frozen(self, images: Tensor) -> Tensor:
        """The part of the backbone before anything that learns; from the cache where an image comes again as it was."""
        if self.training and self.augment:
            return self.encoder.uncached(images)
        return self.encoder(images, alone=self.training)

    def decode(self, encoded: Encoded, batch: Batch) -> Prediction:
        heatmap, inout = self.decoder(encoded, batch.head)
        return Prediction(heatmap=heatmap, inout=inout)

    def forward(self, batch: Batch) -> Prediction:
        return self.decode(self.encode(batch), batch)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.decoder_losses(self(batch), batch)

    def decoder_losses(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy of the heatmaps of people in frame, and of in/out where it is predicted and known."""
        targets, heatmap, inout = batch.targets, prediction.heatmap, prediction.inout
        assert targets is not None
        assert heatmap is not None
        in_frame = targets.inout == IN_FRAME
        with torch.autocast(heatmap.device.type, enabled=False):  # BCE of probabilities needs float32
            truth = gaussian_heatmap(targets.point[in_frame], self.decoder.out_size)
            losses = {"heatmap": batch_mean(F.binary_cross_entropy(heatmap[in_frame], truth, reduction="none"))}
            if inout is not None:
                known = in_frame | (targets.inout == OUT_OF_FRAME)
                bce = F.binary_cross_entropy(inout[known], in_frame[known].float(), reduction="none")
                losses["inout"] = self.inout_weight * batch_mean(bce)
        return losses

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The trained parameters, in groups of one learning rate (default ``lr``)."""
        inout = {name: parameter for name, parameter in self.decoder.named_parameters() if name.startswith("inout")}
        others = [parameter for name, parameter in self.decoder.named_parameters() if name not in inout]
        return [{"params": others}, {"params": list(inout.values()), "lr": self.lr_inout}]

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        groups = [group for group in self.parameter_groups() if group["params"]]
        if self.schedule == "constant":
            return torch.optim.Adam(groups, lr=self.lr), None
        if self.schedule == "one_cycle":
            return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))
        return adam_cosine(groups, self.lr, self.trainer.max_epochs or 1)

    def export(self) -> dict[str, Tensor]:
        """The decoder under its official names, without the backbone, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.decoder.state_dict().items()}

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads an export or an official checkpoint, strictly; a backbone in it is ignored."""
        given = {name: value for name, value in weights.items() if not name.startswith("backbone.")}
        remedy = "--model.backbone, .image_size, .dim, .layers and .inout must be those the weights were trained with"
        load_strictly(self.decoder, given, what="Gaze-LLE's decoder", may_lack=may_lack, remedy=remedy)

    def optional_parts(self) -> list[set[str]]:
        """The in/out head, which is not trained on GazeFollow."""
        return [{name for name in self.decoder.state_dict() if name.startswith("inout")}]

    def weights_identity(self) -> dict[str, Any]:
        identity = self.backbone.identity()
        return {"grade": weights_grade(identity["weights"]), "name": identity["name"], "backbone": identity}
