"""Head-blind: what the picture alone tells, whoever in it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from gazebench.core.types import Batch, Prediction
from gazebench.engine.method import Published
from gazebench.methods.gazelle import Encoded, GazeLLE


class SceneOnly(GazeLLE):
    """Gaze-LLE without its head prompt: one heatmap and one in/out score a picture, for everybody in it.

    All else is Gaze-LLE's: frozen backbone, decoder, losses, settings. So the difference between the two rows is what
    Gaze-LLE gets out of knowing whose gaze is asked about.

    Args:
        gazelle: everything ``GazeLLE`` takes.
    """

    card = replace(
        GazeLLE.card, title="Saliency (Gaze-LLE, no head)", family="blind", sees=frozenset({"picture"}), citation="",
        paper="the head prompt taken out of Ryan et al., CVPR 2025", licence="Apache-2.0",
    )  # fmt: skip
    version = 1
    published: ClassVar[Mapping[str, Published]] = {}

    def __init__(self, **gazelle: Any) -> None:
        super().__init__(**gazelle)
        self.decoder.head_token.requires_grad_(False)  # it meets no head

    def decode(self, encoded: Encoded, batch: Batch) -> Prediction:
        """The decoder once a picture, on no head box; the same for all of its people."""
        features, row = encoded.features, encoded.row
        nobody = torch.full((len(features), 4), torch.nan, device=features.device)
        heatmap, inout = self.decoder(Encoded(features, None), nobody)
        of = slice(None) if row is None else row
        return Prediction(heatmap=heatmap[of], inout=None if inout is None else inout[of])
