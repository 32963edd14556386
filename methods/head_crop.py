"""Scene-blind: what the pixels of the head and its place tell, without the picture around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from gazebench.core.types import IN_FRAME, Batch, Prediction
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard, our_choice
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_one_cycle

SIDE, FACE = 224, 32
"""Pixels of the picture and of the head cut out of it."""
EPOCHS = {"gazeworld": 2, "*": 15}
"""As many as Gaze-LLE has there."""


def head_branch(width: int) -> nn.Sequential:
    """(P, 3, 32, 32) heads -> (P, 128): three convolutions and a layer."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (FACE // 8) ** 2, 128),
        nn.ReLU(),
    )


def read_heads(branch: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """What ``head_branch`` makes of each person's head, with its box: (P, 128 + 4), and the boxes' centres (P, 2)."""
    assert batch.images is not None
    head = batch.head.nan_to_num(0.5)  # a row of NaN is a person without a box
    boxes = torch.cat([batch.image_index[:, None], head * SIDE], dim=1)
    faces = roi_align(batch.images.float() / 255, boxes, (FACE, FACE), aligned=True)  # (P, 3, 32, 32)
    return torch.cat([branch(faces - 0.5), head], dim=1), (head[:, :2] + head[:, 2:]) / 2


def distance_in_frame(point: Tensor, batch: Batch) -> Tensor:
    """The mean distance of (P, 2) points to the annotated ones, of people whose target is in the picture."""
    assert batch.targets is not None
    seen = batch.targets.inout == IN_FRAME
    return batch_mean((point[seen] - batch.targets.point[seen]).norm(dim=1))


class HeadCrop(Method):
    """Three convolutions over the head, and a step from its centre: the method that ``gazebench new method`` writes.

    Args:
        width: channels of the first convolution; the others have twice as many.
        lr: highest learning rate.
    """

    card = MethodCard(
        title="Head crop", family="blind", licence="Apache-2.0", sees=frozenset({"head box", "head crop"})
    )
    version = 1
    capabilities = frozenset({"point"})
    sources = {
        "width": ("ours", "a minute of training on a CPU"),
        "lr": ("ours", "the highest that trains steadily"),
    }
    recipes = {
        dataset: {
            **our_choice("as many as Gaze-LLE has", trainer__max_epochs=epochs),
            **our_choice("small batches make the most of few epochs", loader__batch_size=30),
            **our_choice("the others have no point to learn", loader__people="in_frame"),
        }
        for dataset, epochs in EPOCHS.items()
    }

    def __init__(self, width: int = 32, lr: float = 3e-3) -> None:
        super().__init__()
        self.lr = lr
        self.face = head_branch(width)
        self.step = nn.Sequential(nn.Linear(128 + 4, 64), nn.ReLU(), nn.Linear(64, 2))

    def preprocess(self) -> Preprocess:
        """The whole picture, mirrored half the time in training; heads stay as sharp as they are."""
        return Preprocess(size=(SIDE, SIDE), crop=0.0, flip=0.5, box_jitter=0.0)

    def forward(self, batch: Batch) -> Prediction:
        read, centre = read_heads(self.face, batch)
        return Prediction(point=centre + self.step(read))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        point = self(batch).point
        assert point is not None
        return {"distance": distance_in_frame(point, batch)}

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        groups = [{"params": list(self.parameters())}]
        return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))
