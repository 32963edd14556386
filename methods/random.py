"""A uniformly random answer: the floor of every table (Recasens et al., NeurIPS 2015, Table 1)."""

from __future__ import annotations

import torch

from gazebench.core.types import Batch, Prediction, stable_key
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard


class Random(Method):
    """A heatmap of uniform noise and a random in-frame score, drawn from ``seed`` and the person's id alone."""

    card = MethodCard(
        title="Random", family="baseline", paper="Recasens et al., NeurIPS 2015, Table 1", sees=frozenset()
    )
    version = 1
    capabilities = frozenset({"point", "heatmap", "inout"})
    trains = False
    sees_images = False
    sources = {"seed": ("ours", "any value will do; the seed of the run is another one")}

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def preprocess(self) -> Preprocess:
        return Preprocess()

    def forward(self, batch: Batch) -> Prediction:
        noise = torch.stack([self._noise(person) for person in batch.person_ids])  # (P, 64 * 64 + 1)
        return Prediction(heatmap=noise[:, :-1].unflatten(1, (64, 64)), inout=noise[:, -1])

    def _noise(self, person: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed((stable_key(person) + self.seed) % 2**63)
        return torch.rand(64 * 64 + 1, generator=generator)
