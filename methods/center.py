"""The centre of the image for everybody: the oldest baseline (Recasens et al., NeurIPS 2015, Table 1)."""

from __future__ import annotations

import torch

from gazebench.core.types import Batch, Prediction
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard


class Center(Method):
    """Predicts the point (.5, .5); the heatmap is the middle cell of a 5 x 5 grid.

    The published AUC belongs to another grid, which falls with the distance from the centre (docs/protocols.md).
    """

    card = MethodCard(
        title="Centre", family="baseline", paper="Recasens et al., NeurIPS 2015, Table 1", sees=frozenset()
    )
    version = 1
    capabilities = frozenset({"point", "heatmap"})
    trains = False
    sees_images = False

    def preprocess(self) -> Preprocess:
        return Preprocess()

    def forward(self, batch: Batch) -> Prediction:
        heatmap = torch.zeros(batch.people, 5, 5)
        heatmap[:, 2, 2] = 1
        return Prediction(heatmap=heatmap, point=torch.full((batch.people, 2), 0.5))
