"""A protocol fixes how a dataset is scored: unit, decoder, metrics, subsets, and where a model is selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gazebench.metrics.classes import (
    AngleToMean,
    AUCPoints,
    GazeMetric,
    L2ToMean,
    LookingAtEachOther,
    LookingAtEachOtherByPoint,
    LookingAtHeads,
    LookingAtHeadsByPoint,
    MeanAngle,
    MeanL2,
    MinAngle,
    MinL2,
    SharedAttention,
)
from gazebench.metrics.decode import DECODERS
from gazebench.metrics.vocabulary import Vocabulary
from gazebench.vqa.metrics import (
    DirectionAccuracy,
    DirectionSteps,
    FalseRefusal,
    ObjectAccuracy,
    ObjectBLEU,
    ObjectROUGE,
    ObjectSimilarity,
    Overall,
    Parsed,
    PointAngle,
    PointDistance,
    PointWithin,
    RefusalAccuracy,
    RefusalF1,
    RefusalPrecision,
    RefusalRecall,
)
from gazebench.vqa.questions.templates import templates

ALL = "all"
SUBSETS = (ALL, "consistent", "inconsistent")
"""Subsets only report; they never change the test set (HCLoRA paper, section 5.1)."""


@dataclass(frozen=True)
class Use:
    """One metric of a protocol.

    Attributes:
        name: the column's name, e.g. ``avg_l2``.
        metric: makes the torchmetrics object.
        subsets: also reported per subset; False for metrics that need people outside the frame, or pairs of people.
        digits: decimals in tables.
        where: a text column of the records and the values of it that count; None takes everybody.
    """

    name: str
    metric: Callable[[], GazeMetric]
    subsets: bool = True
    digits: int = 4
    where: tuple[str, frozenset[str]] | None = None


SEVERAL_ANNOTATORS = (
    Use("auc", AUCPoints),
    Use("avg_l2", L2ToMean),
    Use("min_l2", MinL2),
    Use("mean_l2", MeanL2),
    Use("avg_angle", AngleToMean, digits=2),
    Use("min_angle", MinAngle, digits=2),
    Use("mean_angle", MeanAngle, digits=2),
)
"""GazeFollow's columns: for test sets in which a person's target was marked by several people."""

SOCIAL_GAZE = (
    Use("f1_lah", LookingAtHeads, subsets=False),
    Use("f1_lah_pp", LookingAtHeadsByPoint, subsets=False),
    Use("f1_laeo", LookingAtEachOther, subsets=False),
    Use("f1_laeo_pp", LookingAtEachOtherByPoint, subsets=False),
    Use("ap_sa", SharedAttention, subsets=False),
)
"""VSGaze's social columns: by a method's own scores, and by post-processing of its points (``_pp``), never mixed."""


QUESTIONS = (
    Use("vqa_object", ObjectAccuracy, subsets=False),
    Use("vqa_object_clip", ObjectSimilarity, subsets=False),
    Use("vqa_object_bleu", ObjectBLEU, subsets=False),
    Use("vqa_object_rouge", ObjectROUGE, subsets=False),
    Use("vqa_direction", DirectionAccuracy, subsets=False),
    Use("vqa_direction_steps", DirectionSteps, subsets=False, digits=2),
    Use("vqa_point", PointWithin, subsets=False),
    Use("vqa_point_l2", PointDistance, subsets=False),
    Use("vqa_point_angle", PointAngle, subsets=False, digits=2),
    Use("vqa_refusal", RefusalAccuracy, subsets=False),
    Use("vqa_refusal_precision", RefusalPrecision, subsets=False),
    Use("vqa_refusal_recall", RefusalRecall, subsets=False),
    Use("vqa_refusal_f1", RefusalF1, subsets=False),
    Use("vqa_false_refusal", FalseRefusal, subsets=False),
    Use("vqa_overall", Overall, subsets=False),
    Use("vqa_parsed", Parsed, subsets=False),
)
"""Columns of methods that answer questions (gazebench-vqa-v1, docs/vqa.md); one named after a task is its headline."""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored; whatever changes a number is a new version, a further column is none.

    Attributes:
        name: of the benchmark this belongs to.
        version: ours; the record of every result carries it.
        unit: what one sample is.
        decoder: key of ``gazebench.metrics.decode.DECODERS``; turns a heatmap into a point.
        heatmap_size: (h, w) a heatmap is resized to (bilinear) before scoring.
        metrics: the columns, in order.
        headline: the metric the leaderboard sorts by and that selects an epoch on ``selection_split``.
        selection_split: never ``test``.
        origin: ``official`` where the rules are published, ``ours`` where nothing is.
        notes: what a reader must know to compare numbers.
        vocabulary: brings the categories a method names to those of the benchmark, where the user gave CLIP weights;
            None compares letter by letter only, in columns of another name.
    """

    name: str
    version: int
    unit: str
    metrics: tuple[Use, ...]
    headline: str
    decoder: str = "argmax"
    heatmap_size: tuple[int, int] = (64, 64)
    selection_split: str = "val"
    origin: str = "official"
    notes: str = ""
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        names = [use.name for use in self.metrics]
        if self.headline not in names:
            raise ValueError(f"protocol {self.name}: headline {self.headline!r} is none of {names}")
        if self.decoder not in DECODERS:
            raise ValueError(f"protocol {self.name}: decoder {self.decoder!r} is none of {sorted(DECODERS)}")
        if self.selection_split == "test":
            raise ValueError(f"protocol {self.name}: nobody selects on test")
        others = [use.name for use in self.metrics if use.subsets and use.metric().unit != "person"]
        if others:
            raise ValueError(
                f"protocol {self.name}: {others} score pairs or questions, which are in no subset: subsets=False"
            )

    @property
    def id(self) -> str:
        """Name and version, e.g. ``gazefollow-v1``."""
        return f"{self.name}-v{self.version}"

    def use(self, name: str) -> Use:
        """The metric of that name."""
        return next(use for use in self.metrics if use.name == name)

    def higher_is_better(self, name: str) -> bool:
        """The sort order of a column."""
        return bool(self.use(name).metric().higher_is_better)

    def describe(self) -> dict[str, Any]:
        """What a record says of the protocol."""
        limited = {use.name: {use.where[0]: sorted(use.where[1])} for use in self.metrics if use.where is not None}
        more: dict[str, Any] = {"where": limited} if limited else {}
        if self.vocabulary is not None:
            more["vocabulary"] = self.vocabulary.describe()
        if any(use.metric().unit == "question" for use in self.metrics):
            more["questions"] = {"id": templates().id, "templates": templates().digest}
        return {
            "id": self.id,
            "unit": self.unit,
            "decoder": self.decoder,
            "heatmap_size": list(self.heatmap_size),
            "metrics": {use.name: type(use.metric()).__name__ for use in self.metrics},
            "headline": self.headline,
            "selection_split": self.selection_split,
            "origin": self.origin,
            **more,
        }
