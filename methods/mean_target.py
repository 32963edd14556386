"""The prior of the training set: what can be known of a target without looking at the image."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gazebench.core.types import IN_FRAME, Batch, Prediction
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, our_choice


class MeanTarget(Method):
    """Predicts the mean of all training targets, their density as heatmap, and the share in frame as in-frame score."""

    card = MethodCard(title="Mean target", family="baseline", sees=frozenset())
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    sees_images = False
    recipes = {"*": our_choice("there is nothing to select", loader__selection="last")}
    mean: Tensor
    density: Tensor
    share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((2,), 0.5))
        self.register_buffer("density", torch.zeros(64, 64))
        self.register_buffer("share", torch.tensor(1.0))

    def preprocess(self) -> Preprocess:
        return Preprocess()

    def observe(self, train: Iterable[Batch]) -> None:
        people, in_frame, total = 0, 0, torch.zeros(2, dtype=torch.float64)
        density = torch.zeros(64, 64)
        for batch in train:
            assert batch.targets is not None
            point = batch.targets.point[batch.targets.inout == IN_FRAME]
            people, in_frame = people + batch.people, in_frame + len(point)
            total += point.double().sum(0)
            density += gaussian_heatmap(point).sum(0)
        self.mean.copy_(total / max(1, in_frame))
        self.density.copy_(density / density.max().clamp_min(1e-9))
        self.share.fill_(in_frame / max(1, people))

    def forward(self, batch: Batch) -> Prediction:
        people = batch.people
        return Prediction(
            heatmap=self.density.expand(people, -1, -1),
            point=self.mean.expand(people, -1),
            inout=self.share.expand(people),
        )
