"""A protocol fixes how a data set is scored: unit, decoder, metrics, subsets, and where an epoch is selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gazebench.core.types import Prediction
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.decode import DECODERS
from gazebench.metrics.social import (
    LookingAtEachOther,
    LookingAtEachOtherByPoint,
    LookingAtHeads,
    LookingAtHeadsByPoint,
    SharedAttention,
)
from gazebench.metrics.spatial import (
    AngleToMean,
    AUCPoints,
    AUCRectangle,
    InOutAP,
    L2ToMean,
    MeanAngle,
    MeanL2,
    MinAngle,
    MinL2,
    TextL2,
)
from gazebench.metrics.vocabulary import Vocabulary

ALL = "all"
SUBSETS = (ALL, "consistent", "inconsistent")
"""Subsets only report; they never change the test set (HCLoRA paper, section 5.1)."""
TASKS = {
    "gaze": "Gaze point and in/out",
    "social": "Social gaze",
    "semantic": "Semantic gaze",
    "questions": "Questions about gaze, version 1",
    "questions_v2": "Questions about gaze, version 2",
}
"""What is asked of a method: a board each, with a ranking of its own. Other names are those of plug-ins' tasks."""


@dataclass(frozen=True)
class ProtocolMetric:
    """One metric of a protocol or of a task: a column of tables.

    Attributes:
        name: the column's name, e.g. ``avg_l2``.
        metric: makes the torchmetrics object.
        subsets: also reported per subset; False for metrics that need people outside the frame, or that count pairs
            or items of a task.
        digits: decimals in tables.
        where: a text column of the records and the values of it that count, for metrics of people; None takes
            everybody.
    """

    name: str
    metric: Callable[[], GazeMetric]
    subsets: bool = True
    digits: int = 4
    where: tuple[str, frozenset[str]] | None = None

    def __post_init__(self) -> None:
        unit = self.metric().unit
        if unit != "person" and (self.subsets or self.where is not None):
            raise ValueError(f"{self.name} counts {unit}s, which are in no subset or column: subsets=False, no where")

    @property
    def higher_is_better(self) -> bool:
        """The sort order of the column."""
        return bool(self.metric().higher_is_better)

    @property
    def task(self) -> str:
        """Whose board the column stands on: a key of ``TASKS``, or the name of the task whose items are counted."""
        metric = self.metric()
        return metric.about if metric.unit in ("person", "pair") else metric.unit


SEVERAL_ANNOTATORS = (
    ProtocolMetric("auc", AUCPoints),
    ProtocolMetric("avg_l2", L2ToMean),
    ProtocolMetric("min_l2", MinL2),
    ProtocolMetric("mean_l2", MeanL2),
    ProtocolMetric("avg_angle", AngleToMean, digits=2),
    ProtocolMetric("min_angle", MinAngle, digits=2),
    ProtocolMetric("mean_angle", MeanAngle, digits=2),
    ProtocolMetric("text_l2", TextL2),
)
"""GazeFollow's columns: for test sets in which a person's target was marked by several people."""

ONE_TARGET_IN_VIDEO = (
    ProtocolMetric("auc", AUCRectangle),
    ProtocolMetric("l2", L2ToMean),
    ProtocolMetric("angle", AngleToMean, digits=2),
    ProtocolMetric("ap", InOutAP, subsets=False),
    ProtocolMetric("text_l2", TextL2),
)
"""VideoAttentionTarget's columns: for one target a person and frame, which may be out of frame."""

SOCIAL_GAZE = (
    ProtocolMetric("f1_lah", LookingAtHeads, subsets=False),
    ProtocolMetric("f1_lah_pp", LookingAtHeadsByPoint, subsets=False),
    ProtocolMetric("f1_laeo", LookingAtEachOther, subsets=False),
    ProtocolMetric("f1_laeo_pp", LookingAtEachOtherByPoint, subsets=False),
    ProtocolMetric("ap_sa", SharedAttention, subsets=False),
)
"""VSGaze's social columns: by a method's own scores, and by post-processing of its points (``_pp``), never mixed."""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored. Whatever changes a number is a new version; a further column is none.

    Attributes:
        name: of the benchmark this belongs to.
        version: ours; the record of every result carries it.
        unit: what one sample is.
        metrics: the columns, in order.
        headline: the metric the leaderboard sorts by and that selects an epoch on ``selection_split``.
        decoder: key of ``gazebench.metrics.decode.DECODERS``; turns a heatmap into a point.
        heatmap_size: (h, w) a heatmap is resized to (bilinear) before scoring.
        selection_split: never ``test``.
        origin: ``official`` where the rules are published, ``ours`` where nothing is.
        notes: what a reader must know to compare numbers.
        vocabulary: brings the categories a method names to those of the benchmark, where the user gave CLIP weights;
            None compares letter by letter only, in columns of another name.
        superseded_by: id of the version that replaces this one.
        variant: the decoder, where it is not the protocol's own.
    """

    name: str
    version: int
    unit: str
    metrics: tuple[ProtocolMetric, ...]
    headline: str
    decoder: str = "argmax"
    heatmap_size: tuple[int, int] = (64, 64)
    selection_split: str = "val"
    origin: str = "official"
    notes: str = ""
    vocabulary: Vocabulary | None = None
    superseded_by: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.metrics]
        if self.headline not in names or self.decoder not in DECODERS or self.selection_split == "test":
            raise ValueError(
                f"protocol {self.name}: headline {self.headline!r} must be one of {names}, decoder {self.decoder!r} "
                f"one of {sorted(DECODERS)}, and selection_split not test"
            )

    @property
    def id(self) -> str:
        """Name and version, e.g. ``gazefollow-v1``, or ``gazefollow-v1+dark`` with another decoder."""
        return f"{self.name}-v{self.version}" + (f"+{self.variant}" if self.variant else "")

    def decoded_by(self, decoder: str) -> Protocol:
        """The protocol with another decoder, whose results stand on no board of this one."""
        return self if decoder == self.decoder else replace(self, decoder=decoder, variant=decoder)

    @property
    def several_annotators(self) -> bool:
        """Whether several people marked a test person's target: then a metric asks for the nearest of them."""
        return any(isinstance(column.metric(), MinL2) for column in self.metrics)

    @property
    def reads(self) -> set[str]:
        """Names of all fields and columns that a score depends on."""
        where = {column.where[0] for column in self.metrics if column.where is not None}
        return {"subset", *where, *(field for column in self.metrics for field in column.metric().fields)}

    def metric(self, name: str) -> ProtocolMetric:
        """The metric of that name."""
        return next(column for column in self.metrics if column.name == name)

    def heatmap(self, prediction: Prediction) -> Tensor | None:
        """(P, h, w) float32 the predicted maps at ``heatmap_size``; None where there are none."""
        if prediction.heatmap is None:
            return None
        heatmap = prediction.heatmap.float()
        if tuple(heatmap.shape[-2:]) == self.heatmap_size:
            return heatmap
        return F.interpolate(heatmap[:, None], self.heatmap_size, mode="bilinear", align_corners=False)[:, 0]

    def point(self, prediction: Prediction) -> Tensor | None:
        """(P, 2) the predicted points, decoded from the maps where the method gives none; None without either."""
        if prediction.point is not None:
            return prediction.point
        heatmap = self.heatmap(prediction)
        return None if heatmap is None else DECODERS[self.decoder](heatmap)

    def describe(self) -> dict[str, Any]:
        """What a record says of the protocol."""
        where = {column.name: column.where for column in self.metrics if column.where is not None}
        return {
            "id": self.id,
            "unit": self.unit,
            "decoder": self.decoder,
            "heatmap_size": list(self.heatmap_size),
            "metrics": {column.name: type(column.metric()).__name__ for column in self.metrics},
            "headline": self.headline,
            "selection_split": self.selection_split,
            "origin": self.origin,
            **({"where": {name: {of: sorted(values)} for name, (of, values) in where.items()}} if where else {}),
            **({"vocabulary": self.vocabulary.describe()} if self.vocabulary is not None else {}),
        }
