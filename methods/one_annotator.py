"""Human performance: one annotator against the others (the last row of the GazeFollow tables)."""

from __future__ import annotations

import torch

from gazebench.core.types import Batch, Prediction, stable_key
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard


class OneAnnotator(Method):
    """Answers with one of a person's annotations, which scoring then leaves out of that person's truth.

    The annotation is drawn from ``seed`` and the person's id alone. A person with a single annotation has no score,
    since there is nobody to compare with.
    """

    card = MethodCard(title="One annotator", family="baseline", sees=frozenset({"annotations"}))
    version = 1
    capabilities = frozenset({"point", "heatmap"})
    trains = False
    sees_images = False
    reads_annotations = True
    sources = {"seed": ("ours", "any value will do; the seed of the run is another one")}

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def preprocess(self) -> Preprocess:
        return Preprocess()

    def forward(self, batch: Batch) -> Prediction:
        targets = batch.targets
        assert targets is not None
        counts = torch.bincount(targets.point_person, minlength=batch.people)
        first = torch.cumsum(counts, 0) - counts
        drawn = torch.tensor([stable_key(f"{self.seed} {person}") % 2**31 for person in batch.person_ids]).to(counts)
        chosen = drawn % counts.clamp_min(1)
        point = torch.full((batch.people, 2), 0.5, dtype=torch.float64, device=counts.device)
        has = counts > 0
        point[has] = targets.points[(first + chosen)[has]]
        return Prediction(heatmap=gaussian_heatmap(point), point=point, used_annotation=torch.where(has, chosen, -1))
