"""The method: what it sees, its losses and its recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Batch, Prediction
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import Clips, HeadCrops, Preprocess, gaussian_heatmap, stretched
from gazebench.engine.method import Method, MethodCard, Recipe, from_code, from_paper, our_choice
from gazebench.methods.chong.network import Answer, ChongNet, Steps
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_one_cycle
from gazebench.nn.tracks import TrackStates

INOUT = ("compress_conv1_inout", "compress_bn1_inout", "compress_conv2_inout", "compress_bn2_inout", "fc_inout")
DECODER = ("convlstm_scene", "deconv1", "deconv2", "deconv3", "conv4", "fc_inout")
"""What the second stage trains."""

LAST_EPOCH = our_choice("the official code evaluates on the test set and names no rule", loader__selection="last")
GAZEFOLLOW: Recipe = {
    **LAST_EPOCH,
    **from_code(
        "train_on_gazefollow.py",
        trainer__max_epochs=70, loader__batch_size=48, loader__people="labelled",
        model__lr=2.5e-4, model__trained="all", model__widen_heads=0.1, model__inout_weight=0.0,
    ),
}  # fmt: skip
VAT: Recipe = {
    **LAST_EPOCH,
    **from_code(
        "train_on_videoatttarget.py",
        trainer__max_epochs=3, loader__people="labelled",
        model__lr=5e-5, model__lr_inout=2.5e-4, model__trained="decoder", model__widen_heads=0.0, model__temporal=True,
    ),
    **our_choice("16 windows of 3 frames a step there; a window is of a clip here, not of a track",
                 loader__batch_size=48),
    **from_paper("section 4.2, from the model trained on GazeFollow", init="from:gazefollow"),
}  # fmt: skip
CHILDPLAY: Recipe = {
    **VAT,
    **our_choice("a data set of clips without a recipe in the paper: VideoAttentionTarget's", trainer__max_epochs=3),
}
VSGAZE: Recipe = {
    **CHILDPLAY,
    **our_choice("clips of several data sets; its social scores are those of the points", trainer__max_epochs=3),
}
OTHER: Recipe = {
    **GAZEFOLLOW,
    **our_choice("a data set without a published recipe", trainer__max_epochs=15, model__inout_weight=100.0),
}
GAZEWORLD: Recipe = {
    **OTHER,
    **our_choice(
        "narrow and short, for two CPU cores",
        model__width=16, model__blocks=(1, 1, 1, 1, 1), trainer__max_epochs=4,
    ),
    **our_choice("small batches make the most of few epochs", loader__batch_size=16),
    **our_choice("few epochs need a rate that falls", model__lr=2e-3, model__schedule="one_cycle"),
    **our_choice("four epochs of drawn scenes need none", model__augment=False),
}  # fmt: skip


class Chong(Method):
    """Chong et al.: where a person looks, by a trunk for the picture and one for the head.

    For single pictures, or, with ``temporal``, with a ConvLSTM that remembers the earlier frames of each track.

    Args:
        width: channels of the first convolution of both trunks.
        blocks: bottlenecks of the five groups of both trunks.
        side: of picture and head crop in pixels, a multiple of 32.
        widen_heads: how much of their width and height head boxes grow on the left and above; on the right and below
            it is the same share of the box so widened.
        inout_weight: weight of the in/out loss; 0 leaves the in/out branch untrained.
        temporal: the network for clips.
        skip_norms_of_one: with ``temporal``: a batch of one row passes without the norms of bottlenecks and decoder, as
            in the official code; a frame's answer then depends on its batch.
        frames: of a training window of a clip.
        chunk: of them in a training batch; gradients go no further back.
        trained: ``all``, or the ``decoder`` alone with the last layer of the in/out branch, all batch norms fixed.
        lr: learning rate.
        lr_inout: learning rate of the last layer of the in/out branch; default: ``lr``.
        schedule: ``constant``, or ``one_cycle``, which warms up and anneals at every step.
        augment: crop, flip, jitter head boxes and change colours in training.
    """

    card = MethodCard(
        title="Chong et al.",
        family="two branches",
        paper="Chong et al., CVPR 2020",
        citation="chong2020detecting",
        licence="MIT (official weights)",
        sees=frozenset({"picture", "head box", "head crop"}),
    )
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    stage = ("width", "blocks", "side")
    offline = ("--model.width=8", "--model.blocks=[1,1,1,1,1]", "--model.side=64")
    recipes = {
        "gazefollow": GAZEFOLLOW, "vat": VAT, "childplay": CHILDPLAY, "vsgaze": VSGAZE, "gazeworld": GAZEWORLD,
        "*": OTHER,
    }  # fmt: skip
    sources = {
        "width": ("paper", "ResNet-50"),
        "blocks": ("official code", "model.py: ResNet-50 and a group of two"),
        "side": ("official code", "config.py: 224"),
        "widen_heads": ("official code", "dataset.py: on GazeFollow"),
        "inout_weight": ("official code", "train_on_videoatttarget.py"),
        "temporal": ("paper", "GazeFollow has single pictures"),
        "skip_norms_of_one": ("ours", "no batch may change an answer; the official code skips them"),
        "frames": ("official code", "train_on_videoatttarget.py"),
        "chunk": ("official code", "train_on_videoatttarget.py"),
        "trained": ("official code", "train_on_gazefollow.py"),
        "lr": ("official code", "train_on_gazefollow.py"),
        "lr_inout": ("official code", "train_on_videoatttarget.py has one of its own"),
        "schedule": ("official code", "none"),
        "augment": ("official code", "dataset.py; the suite jitters every side of a box by itself"),
    }

    def __init__(
        self,
        width: int = 64,
        blocks: tuple[int, int, int, int, int] = (3, 4, 6, 3, 2),
        side: int = 224,
        widen_heads: float = 0.1,
        inout_weight: float = 100.0,
        temporal: bool = False,
        skip_norms_of_one: bool = False,
        frames: int = 50,
        chunk: int = 3,
        trained: Literal["all", "decoder"] = "all",
        lr: float = 2.5e-4,
        lr_inout: float | None = None,
        schedule: Literal["constant", "one_cycle"] = "constant",
        augment: bool = True,
    ) -> None:
        super().__init__()
        self.crops = HeadCrops(side, widen_heads, widen_heads * (1 + widen_heads))
        self.inout_weight, self.trained, self.augment = inout_weight, trained, augment
        self.lr, self.lr_inout, self.schedule = lr, lr if lr_inout is None else lr_inout, schedule
        self.network = ChongNet(width, blocks, side, temporal, skip_norms_of_one)
        self.clips = Clips(frames, chunk) if temporal else None
        self.tracks = TrackStates()
        self.network.fixed_norms = trained == "decoder"
        for name, parameter in self.network.named_parameters():
            part = name.split(".")[0]
            learns = (trained == "all" or part in DECODER) and (inout_weight > 0 or part not in INOUT)
            parameter.requires_grad_(learns and parameter.requires_grad)

    def preprocess(self) -> Preprocess:
        share = 0.5 if self.augment else 0.0
        size = (self.crops.side, self.crops.side)
        return Preprocess(
            size, crop=share, flip=share, box_jitter=share, colour=share, heads=self.crops, clips=self.clips
        )

    def on_train_epoch_start(self) -> None:
        self.tracks.clear()

    def on_validation_epoch_start(self) -> None:
        self.tracks.clear()

    def on_predict_start(self) -> None:
        self.tracks.clear()

    def answer(self, batch: Batch) -> Answer:
        """What the network says of a batch, raw."""
        boxes = self.crops.boxes(batch.head, batch.sizes[batch.image_index])
        if self.clips is None:
            found: Answer = self.network(*self.network.inputs(batch, boxes))
            return found
        empty = self.network.fc_inout.weight.new_zeros(self.network.state_shape)
        sequence, place, states = self.tracks.begin(batch, empty)
        steps = Steps(sequence, place, (states[:, 0].transpose(0, 1), states[:, 1].transpose(0, 1)))
        found = self.network(*self.network.inputs(batch, boxes), steps)
        assert found.state is not None
        self.tracks.end(torch.stack(found.state).permute(2, 0, 1, 3, 4, 5))
        return found

    def forward(self, batch: Batch) -> Prediction:
        answer = self.answer(batch)
        return Prediction(heatmap=stretched(answer.heatmap), inout=answer.inout.sigmoid())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error of heatmaps of people in frame, and the cross-entropy of in/out where it is known."""
        answer, targets = self.answer(batch), batch.targets
        assert targets is not None
        inside = targets.inout == IN_FRAME
        truth = gaussian_heatmap(targets.point[inside], self.network.heatmap_size, around="window")
        losses = {"heatmap": 10000 * batch_mean((answer.heatmap[inside] - truth).square())}
        if self.inout_weight:
            known = inside | (targets.inout == OUT_OF_FRAME)
            bce = F.binary_cross_entropy_with_logits(answer.inout[known], inside[known].float(), reduction="none")
            losses["inout"] = self.inout_weight * batch_mean(bce)
        return losses

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        learnt = [(name, each) for name, each in self.network.named_parameters() if each.requires_grad]
        last = [each for name, each in learnt if name.startswith("fc_inout")]
        others = [each for name, each in learnt if not name.startswith("fc_inout")]
        groups: list[dict[str, Any]] = [{"params": others}, *([{"params": last, "lr": self.lr_inout}] if last else [])]
        if self.schedule == "one_cycle":
            return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))
        return torch.optim.Adam(groups, lr=self.lr), None

    def export(self) -> dict[str, Tensor]:
        """The whole network under its official names, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}

    def optional_parts(self) -> list[set[str]]:
        """What the network for clips has beyond that for pictures."""
        names = set(self.network.state_dict())
        return [{name for name in names if ".bn_ds." in name}, {name for name in names if "convlstm" in name}]

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads an export or an official checkpoint, strictly; PyTorch 0.4.0 wrote none of the batch counters."""
        counters = {name for name in self.network.state_dict() if name.endswith("num_batches_tracked")}
        remedy = f"--model.{', .'.join(self.stage)} must be those the weights were trained with"
        load_strictly(self.network, weights, what=self.card.title, may_lack={*may_lack, *counters}, remedy=remedy)
