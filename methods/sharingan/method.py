"""The method: what it sees, its losses and its recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.rgb import normalised
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Batch, Prediction
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import HeadCrops, Preprocess, gaussian_heatmap, stretched
from gazebench.engine.method import Method, MethodCard, Recipe, from_code, our_choice
from gazebench.methods.sharingan.network import Answer, SharinganNet
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_one_cycle, warm_cosine

MEAN: Final = (0.44232, 0.40506, 0.36457)
DEVIATION: Final = (0.28674, 0.27776, 0.27995)

GAZEFOLLOW: Recipe = {
    **from_code(
        "gazefollow.yaml",
        trainer__max_epochs=20, loader__batch_size=48, loader__people="in_frame", loader__selection="val",
        model__lr=1e-4, model__schedule="warm_cosine", model__trained="all", model__widen_heads=0.1,
        model__angular_weight=3.0, model__inout_weight=0.0,
    ),
}  # fmt: skip
VAT: Recipe = {
    **from_code(
        "videoattentiontarget.yaml",
        trainer__max_epochs=2, loader__batch_size=48, loader__people="labelled", loader__selection="val",
        model__lr=1e-6, model__lr_inout=3e-4, model__schedule="constant", model__trained="decoders",
        model__widen_heads=0.05, model__angular_weight=0.0, model__inout_weight=10.0, init="from:gazefollow",
    ),
}  # fmt: skip
CHILDPLAY: Recipe = {**VAT, **from_code("childplay.yaml", model__widen_heads=0.0)}
VSGAZE: Recipe = {
    **VAT,
    **our_choice("clips of several data sets; its social scores are those of the points", trainer__max_epochs=2),
}
OTHER: Recipe = {
    **GAZEFOLLOW,
    **our_choice(
        "a data set without a published recipe",
        trainer__max_epochs=15, loader__people="labelled", loader__selection="last", model__inout_weight=10.0,
    ),
}  # fmt: skip
GAZEWORLD: Recipe = {
    **OTHER,
    **our_choice(
        "a small ViT and a narrow ResNet-18, for two CPU cores",
        model__width=96, model__depth=4, model__heads=4, model__decoder_width=32, model__channels=16,
        trainer__max_epochs=4,
    ),
    **our_choice("small batches make the most of few epochs", loader__batch_size=16),
    **our_choice("few epochs need a rate that falls", model__lr=1e-3, model__schedule="one_cycle"),
    **our_choice("four epochs of drawn scenes need none", model__augment=False),
}  # fmt: skip


class Sharingan(Method):
    """Sharingan: one transformer over image tokens and a token a person; all people of a picture at once.

    The official code adds the heads that a detector finds to the person asked about; here the people of a picture are
    those of the data set.

    Args:
        width: of the tokens.
        depth: blocks of the encoder.
        heads: of its attention.
        decoder_width: channels of the decoder.
        channels: of the first convolution of the head's ResNet-18.
        side: of picture and head crop in pixels.
        widen_heads: how much of their width and height head boxes grow on every side, before they become squares.
        angular_weight: weight of the loss of the gaze direction; 0 leaves that branch untrained.
        inout_weight: weight of the in/out loss; 0 leaves the in/out decoder untrained.
        trained: ``all``, or the ``decoders`` alone, all else fixed with its batch norms.
        lr: learning rate.
        lr_inout: learning rate of the in/out decoder; default: ``lr``.
        schedule: ``warm_cosine`` rises over a fifth of the steps and falls to 0, ``one_cycle`` is for few epochs,
            ``constant`` does neither.
        weight_decay: of AdamW.
        augment: crop, flip, jitter head boxes and change colours in training.
    """

    card = MethodCard(
        title="Sharingan",
        family="transformer over image and people",
        paper="Tafasca et al., CVPR 2024",
        citation="tafasca2024sharingan",
        licence="CC BY-NC 4.0 (official weights, not for commercial use)",
        sees=frozenset({"picture", "head box", "head crop"}),
    )
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    stage = ("width", "depth", "heads", "decoder_width", "channels", "side")
    offline = (
        "--model.width=32", "--model.depth=4", "--model.heads=2", "--model.decoder_width=32", "--model.channels=4",
        "--model.side=64",
    )  # fmt: skip
    recipes = {
        "gazefollow": GAZEFOLLOW, "vat": VAT, "childplay": CHILDPLAY, "vsgaze": VSGAZE, "gazeworld": GAZEWORLD,
        "*": OTHER,
    }  # fmt: skip
    sources = {
        "width": ("official code", "ViT-B"),
        "depth": ("official code", "ViT-B"),
        "heads": ("official code", "ViT-B"),
        "decoder_width": ("official code", "configuration of the released checkpoints"),
        "channels": ("official code", "ResNet-18"),
        "side": ("official code", "224"),
        "widen_heads": ("official code", "data sets: GazeFollow's"),
        "angular_weight": ("official code", "gazefollow.yaml"),
        "inout_weight": ("official code", "videoattentiontarget.yaml"),
        "trained": ("official code", "gazefollow.yaml"),
        "lr": ("official code", "gazefollow.yaml"),
        "lr_inout": ("official code", "videoattentiontarget.yaml has one of its own"),
        "schedule": ("official code", "four of twenty epochs warm up; no stochastic weight averaging here"),
        "weight_decay": ("official code", "AdamW"),
        "augment": ("official code", "crop, flip, colours; every part has probability .5 here"),
    }

    def __init__(
        self,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_width: int = 128,
        channels: int = 64,
        side: int = 224,
        widen_heads: float = 0.1,
        angular_weight: float = 3.0,
        inout_weight: float = 10.0,
        trained: Literal["all", "decoders"] = "all",
        lr: float = 1e-4,
        lr_inout: float | None = None,
        schedule: Literal["warm_cosine", "one_cycle", "constant"] = "warm_cosine",
        weight_decay: float = 1e-3,
        augment: bool = True,
    ) -> None:
        super().__init__()
        self.crops = HeadCrops(side, widen_heads, widen_heads, square=True)
        self.angular_weight, self.inout_weight = angular_weight, inout_weight
        self.trained, self.augment = trained, augment
        self.lr, self.lr_inout, self.schedule = lr, lr if lr_inout is None else lr_inout, schedule
        self.weight_decay = weight_decay
        self.network = SharinganNet(width, depth, heads, decoder_width, channels, side)
        unused = [
            *([] if trained == "all" else ["gaze_encoder", "image_tokenizer", "encoder"]),
            *([] if angular_weight else ["gaze_encoder.gaze_predictor"]),
            *([] if inout_weight else ["inout_decoder"]),
        ]
        for part in unused:
            self.network.get_submodule(part).requires_grad_(False)

    def preprocess(self) -> Preprocess:
        share = 0.5 if self.augment else 0.0
        size = (self.crops.side, self.crops.side)
        return Preprocess(size, crop=share, flip=share, box_jitter=share, jitter=0.1, colour=share, heads=self.crops)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.trained == "decoders":
            self.network.gaze_encoder.eval()
        return self

    def answer(self, batch: Batch) -> tuple[Answer, Tensor]:
        """What the network says of a batch, raw, and the boxes (P, 4) it was given, normalised."""
        assert batch.images is not None
        assert batch.heads is not None
        sizes = batch.sizes[batch.image_index]
        known = batch.head.isfinite().all(1)
        boxes = self.crops.boxes(batch.head, sizes) / sizes.double().repeat(1, 2)
        boxes = boxes.clamp(0, 1).float().masked_fill(~known[:, None], 0.0)  # as the official code fills places
        heads = normalised(batch.heads, MEAN, DEVIATION) * known[:, None, None, None]
        answer = self.network(normalised(batch.images, MEAN, DEVIATION), batch.image_index, heads, boxes)
        return answer, boxes

    def forward(self, batch: Batch) -> Prediction:
        answer, _ = self.answer(batch)
        return Prediction(heatmap=stretched(answer.heatmap), inout=answer.inout.sigmoid())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error of heatmaps and the angle of gaze directions in frame, and the in/out cross-entropy."""
        (answer, boxes), targets = self.answer(batch), batch.targets
        assert targets is not None
        inside = targets.inout == IN_FRAME
        point = targets.point[inside]
        truth = gaussian_heatmap(point, (64, 64), around="point")
        losses = {"heatmap": 1000 * batch_mean((answer.heatmap[inside] - truth).square())}
        if self.angular_weight:
            # In the square picture, as the network sees it.
            direction = F.normalize(point - (boxes[inside, :2] + boxes[inside, 2:]) / 2, dim=1)
            cosine = (direction * answer.vector[inside]).sum(1)
            losses["angle"] = self.angular_weight * batch_mean((1 - cosine) / 2)
        if self.inout_weight:
            known = inside | (targets.inout == OUT_OF_FRAME)
            bce = F.binary_cross_entropy_with_logits(answer.inout[known], inside[known].float(), reduction="none")
            losses["inout"] = self.inout_weight * batch_mean(bce)
        return losses

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        learnt = [(name, each) for name, each in self.network.named_parameters() if each.requires_grad]
        last = [each for name, each in learnt if name.startswith("inout_decoder")]
        others = [each for name, each in learnt if not name.startswith("inout_decoder")]
        groups: list[dict[str, Any]] = [{"params": others}, *([{"params": last, "lr": self.lr_inout}] if last else [])]
        steps = int(self.trainer.estimated_stepping_batches)
        if self.schedule == "one_cycle":
            return adam_one_cycle(groups, self.lr, steps)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        return optimizer, None if self.schedule == "constant" else warm_cosine(optimizer, steps, 0.2)

    def export(self) -> dict[str, Tensor]:
        """The whole network under its official names, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads an export or an official checkpoint, strictly; in the latter names begin with ``model.``."""
        own = {name.removeprefix("model."): value for name, value in weights.items()}
        remedy = f"--model.{', .'.join(self.stage)} must be those the weights were trained with"
        load_strictly(self.network, own, what=self.card.title, may_lack=may_lack, remedy=remedy)
