"""Human performance: one annotator against the rest (the last row of every GazeFollow table)."""

from __future__ import annotations

import torch

from gazebench.core.types import Batch, Prediction, stable_key
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard


class OneAnnotator(Method):
    """Answers with one of a person's annotations, which is then left out of that person's truth.

    Which one depends on the person's id and ``seed`` alone. People with a single annotation have no value: there is
    nobody to compare with.
    """

    card = MethodCard(title="One annotator", family="baseline", note="human performance; reads the annotations")
    capabilities = frozenset({"point", "heatmap"})
    trains = False
    sees_images = False
    reads_annotations = True

    sources = {"seed": ("ours", "any will do; the run's own seed is another")}

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def preprocess(self) -> Preprocess:
        """Looks at no picture."""
        return Preprocess()

    def forward(self, batch: Batch) -> Prediction:
        """The chosen annotation as a point, and the usual Gaussian around it as heatmap."""
        targets = batch.targets
        assert targets is not None
        counts = torch.bincount(targets.point_person, minlength=batch.people)
        start = torch.cumsum(counts, 0) - counts
        drawn = torch.tensor([stable_key(f"{self.seed} {person}") % 2**31 for person in batch.person_ids]).to(counts)
        chosen = drawn % counts.clamp_min(1)
        point = torch.full((batch.people, 2), 0.5, dtype=torch.float64, device=counts.device)
        has = counts > 0
        point[has] = targets.points[(start + chosen)[has]]
        return Prediction(heatmap=gaussian_heatmap(point), point=point, used_annotation=torch.where(has, chosen, -1))
