"""A uniformly random answer: the floor of every table (Recasens et al., 2015, Table 1)."""

from __future__ import annotations

import torch

from gazebench.core.types import Batch, Prediction, stable_key
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard


class Random(Method):
    """A heatmap of noise and a random in-frame score; a person's answer depends on its id and ``seed`` alone."""

    card = MethodCard(title="Random", family="baseline", paper="Recasens et al., NeurIPS 2015, Table 1")
    capabilities = frozenset({"point", "heatmap", "inout"})
    trains = False
    sees_images = False

    sources = {"seed": ("ours", "any will do; the run's own seed is another")}

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def preprocess(self) -> Preprocess:
        """Looks at no picture."""
        return Preprocess()

    def forward(self, batch: Batch) -> Prediction:
        """(P, 64, 64) uniform noise."""
        noise = torch.stack([self._noise(person) for person in batch.person_ids])
        return Prediction(heatmap=noise[:, :-1].unflatten(1, (64, 64)), inout=noise[:, -1])

    def _noise(self, person: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed((stable_key(person) + self.seed) % 2**63)
        return torch.rand(64 * 64 + 1, generator=generator)
