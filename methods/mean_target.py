"""The training set's prior: what can be known of a target without looking at the picture."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gazebench.core.types import IN_FRAME, Batch, Prediction
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, Setting


class MeanTarget(Method):
    """Predicts the mean of all training targets, their density as heatmap, and the share in frame as score."""

    card = MethodCard(title="Mean target", family="baseline")
    capabilities = frozenset({"point", "heatmap", "inout"})
    sees_images = False
    recipes = {"*": {"loader.selection": Setting("last", "ours", "nothing is selected")}}
    mean: Tensor
    density: Tensor
    share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((2,), 0.5))
        self.register_buffer("density", torch.zeros(64, 64))
        self.register_buffer("share", torch.tensor(1.0))

    def preprocess(self) -> Preprocess:
        """Looks at no picture."""
        return Preprocess()

    def observe(self, train: Iterable[Batch]) -> None:
        """Takes the mean and the density of the targets in frame."""
        people, seen, total = 0, 0, torch.zeros(2, dtype=torch.float64)
        density = torch.zeros(64, 64)
        for batch in train:
            assert batch.targets is not None
            point = batch.targets.point[batch.targets.inout == IN_FRAME]
            people, seen = people + batch.people, seen + len(point)
            total += point.double().sum(0)
            density += gaussian_heatmap(point).sum(0)
        self.mean.copy_(total / max(1, seen))
        self.density.copy_(density / density.max().clamp_min(1e-9))
        self.share.fill_(seen / max(1, people))

    def forward(self, batch: Batch) -> Prediction:
        """The same for all."""
        people = batch.people
        return Prediction(
            heatmap=self.density.expand(people, -1, -1),
            point=self.mean.expand(people, -1),
            inout=self.share.expand(people),
        )
