"""Metrics of gazebench-vqa-v2: those of version 1 under names of their own, and yes / no questions about two people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from gazebench.core.boxes import FloatArray
from gazebench.core.types import SOCIAL
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.metrics.spatial import AveragePrecision
from gazebench.vqa.metrics import QUESTION_METRICS, RIGHT, Accuracy, Answered, Overall, QuestionMetric, RefusalF1
from gazebench.vqa.questions.parsing import ParsedAnswer
from gazebench.vqa.types import Question, QuestionType, Truth

NAME = "questions_v2"
"""Of the task: the ``unit`` of these metrics, and the column of predictions files."""
FOUR: tuple[QuestionType, ...] = ("object", "direction", "point", "recognition")


class _YesNo(QuestionMetric):
    """Of yes / no questions that have a label; an answer that is neither counts as the wrong one of the two."""

    def counts(self, question: Question, truth: Truth) -> bool:
        return question.task == self.task and bool(truth.answer)

    @staticmethod
    def pair(truth: Truth, answer: ParsedAnswer) -> list[float]:
        """Whether the truth is yes, and whether the answer is."""
        due = truth.answer == "yes"
        return [float(due), float(answer.verdict == "yes" if answer.verdict else not due)]


class YesNoAccuracy(_YesNo, Accuracy):
    """Share of right answers."""


class YesNoF1(_YesNo, RefusalF1):
    """F1 of "yes"."""

    def value(self, truth: Truth, answer: ParsedAnswer) -> list[float]:
        return self.pair(truth, answer)


class YesNoAP(_YesNo, AveragePrecision):
    """Average precision of the probability of "yes", where the backend gave one at all.

    An answer without a probability counts with 1 or 0, and one that is neither yes nor no with the wrong one.
    """

    fields = QuestionMetric.fields

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        """Score and label; NaN where no answer has a probability."""
        if all(answer.p_yes is None for _, _, answer in counted):
            return [[math.nan, math.nan]] * len(counted)
        return [self.value(truth, answer) for _, truth, answer in counted]

    def value(self, truth: Truth, answer: ParsedAnswer) -> list[float]:
        due, hard = self.pair(truth, answer)
        return [hard if answer.p_yes is None else answer.p_yes, due]

    def values(self, **fields: Any) -> Any:
        rows, chosen = QuestionMetric.values(self, **fields)
        known = ~rows[:, 0].isnan()
        return rows[known], chosen[known]


class MeanOf(Overall):
    """The mean share of right answers over a fixed set of question types; there is none where one is lacking."""

    of: ClassVar[tuple[str, ...]]

    def counts(self, question: Question, truth: Truth) -> bool:
        if question.task in SOCIAL:
            return question.task in self.of and bool(truth.answer)
        return question.task in self.of and super().counts(question, truth)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        found = super().drawn(values, weights)
        lacking = len(np.unique(values[:, 0])) < len(self.of)
        return np.full(len(weights), math.nan) if lacking else found


def _made(kind: Callable[[], GazeMetric], **attributes: Any) -> GazeMetric:
    """A metric that counts the items of this task."""
    made = kind()
    for name, value in {"unit": NAME, **attributes}.items():
        setattr(made, name, value)
    return made


def _social(task: str) -> tuple[ProtocolMetric, ...]:
    kinds = {"": YesNoAccuracy, "_f1": YesNoF1, "_ap": YesNoAP}
    return tuple(
        ProtocolMetric(f"vqa2_{task}{name}", partial(_made, kind, task=task), subsets=False)
        for name, kind in kinds.items()
    )


QUESTION_METRICS_V2 = (
    *(
        ProtocolMetric(use.name.replace("vqa_", "vqa2_"), partial(_made, use.metric), subsets=False, digits=use.digits)
        for use in QUESTION_METRICS
        if use.metric is not Overall
    ),
    *(use for task in SOCIAL for use in _social(task)),
    ProtocolMetric("vqa2_overall", partial(_made, MeanOf, of=FOUR), subsets=False),
    ProtocolMetric("vqa2_social", partial(_made, MeanOf, of=SOCIAL), subsets=False),
)
"""Columns of answers to gazebench-vqa-v2; none has the name of a column of version 1, which other questions gave."""
assert set(RIGHT) == {*FOUR, *SOCIAL}
