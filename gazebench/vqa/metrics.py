"""Metrics of questions and answers (gazebench-vqa-v1, docs/vqa.md); what they count is questions.

An answer that could not be parsed, or that refuses what can be answered, is wrong: it counts as the worst answer
possible. Texts are measured by torchmetrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import BLEUScore

from gazebench.core.boxes import FloatArray
from gazebench.metrics.base import GazeMetric, PooledMetric, Values
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.metrics.spatial import angle
from gazebench.vqa.questions.geometry import FARTHEST, steps
from gazebench.vqa.questions.parsing import ParsedAnswer, Status
from gazebench.vqa.questions.phrases import names
from gazebench.vqa.types import Question, QuestionType, Truth

NEAR = 0.1
"""A point within this distance of the mean annotation is right; normalised."""
N_GRAM = 4

Answered = tuple[Question, Truth, ParsedAnswer]


class QuestionMetric(GazeMetric):
    """A mean over the questions of a type.

    The fields are ``questions``, ``truths`` and ``parsed`` (the parsed answers), three parallel lists.
    """

    fields: ClassVar[tuple[str, ...]] = ("questions", "truths", "parsed")
    unit = "questions"
    task: ClassVar[QuestionType]

    def counts(self, question: Question, truth: Truth) -> bool:
        """Whether the question counts; by default those of the type that can be answered."""
        return question.task == self.task and not truth.refusal

    def value(self, truth: Truth, answer: ParsedAnswer) -> Any:
        """The value, or the ``columns`` values, of one question."""
        raise NotImplementedError

    def values(self, **fields: Any) -> Values:
        """(K, columns) the values of the questions that count, and their positions."""
        answered = list(zip(*(fields[name] for name in QuestionMetric.fields), strict=True))
        chosen = [index for index, (question, truth, _) in enumerate(answered) if self.counts(question, truth)]
        values = self.measured([answered[index] for index in chosen], **fields)
        rows = torch.tensor(values, dtype=torch.float64).reshape(len(chosen), self.columns)
        return rows, torch.tensor(chosen, dtype=torch.int64)

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        """The values of the questions that count."""
        return [self.value(truth, answer) for _, truth, answer in counted]


# Right answers ---------------------------------------------------------------------------------------------------


def _near(truth: Truth, answer: ParsedAnswer) -> bool:
    return answer.point is not None and math.dist(answer.point, _mean(truth)) <= NEAR


def _named(truth: Truth, answer: ParsedAnswer) -> bool:
    return bool(answer.phrase) and any(names(answer.phrase, label) for label in truth.labels)


RIGHT: dict[QuestionType, Callable[[Truth, ParsedAnswer], bool]] = {
    "object": _named,
    "direction": lambda truth, answer: answer.direction == truth.direction,
    "point": _near,
    "recognition": lambda truth, answer: answer.valid and bool(answer.refusal) == bool(truth.refusal),
    **dict.fromkeys(("lah", "laeo", "sa"), lambda truth, answer: answer.verdict == truth.answer),
}
"""Whether an answer is right, by question type."""


class Accuracy(QuestionMetric):
    """Share of right answers (``RIGHT``) to the questions of a type."""

    higher_is_better = True

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        return float(RIGHT[self.task](truth, answer))


class ObjectAccuracy(Accuracy):
    """Share of answers that name a right category, by its word or a synonym (``questions.phrases.names``)."""

    task = "object"


class DirectionAccuracy(Accuracy):
    """Share of right sectors."""

    task = "direction"


class PointWithin(Accuracy):
    """Share of points at most ``NEAR`` from the mean annotation."""

    task = "point"


def _ratio(hits: FloatArray, over: FloatArray) -> FloatArray:
    """Their quotient, NaN where the denominator is 0."""
    return np.where(over > 0, hits / np.where(over > 0, over, 1), math.nan)


class _Pooled(PooledMetric, QuestionMetric):
    """Metrics of all questions together."""


# Points ----------------------------------------------------------------------------------------------------------


def _mean(truth: Truth) -> tuple[float, float]:
    x, y = zip(*truth.points, strict=True)
    return sum(x) / len(x), sum(y) / len(y)


def _centre(truth: Truth) -> tuple[float, float]:
    x0, y0, x1, y1 = truth.head
    return (x0 + x1) / 2, (y0 + y1) / 2


class PointDistance(QuestionMetric):
    """Mean L2 distance to the mean annotation, normalised; without a point, that of the corner farthest from it."""

    task = "point"

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        x, y = _mean(truth)
        if answer.point is None:
            return math.hypot(max(x, 1 - x), max(y, 1 - y))
        return math.hypot(answer.point[0] - x, answer.point[1] - y)


class PointAngle(QuestionMetric):
    """Mean angular error at the head centre against the mean annotation, degrees, in the normalised plane.

    Of people with a head box whose centre is not the target; without a point, or with one at the centre, 180.
    """

    task = "point"

    def counts(self, question: Question, truth: Truth) -> bool:
        return super().counts(question, truth) and not math.isnan(truth.head[0]) and _mean(truth) != _centre(truth)

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        given = (answer.point or _centre(truth), _mean(truth), _centre(truth))  # no point counts as one at the centre
        return float(angle(*(torch.tensor([each], dtype=torch.float64) for each in given)))


class DirectionSteps(QuestionMetric):
    """Mean number of sectors of 45 degrees between answer and truth, 0 to 4; without a direction 4."""

    task = "direction"

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        return float(FARTHEST if answer.direction < 0 else steps(answer.direction, truth.direction))


# Objects ---------------------------------------------------------------------------------------------------------


class ObjectSimilarity(QuestionMetric):
    """Mean CLIP cosine of answer and description as texts, of several descriptions the largest; without an answer 0."""

    fields = (*QuestionMetric.fields, "vocabulary")
    task = "object"
    higher_is_better = True

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        values = [0.0] * len(counted)
        texts = [
            (row, answer.phrase, one)
            for row, (_, truth, answer) in enumerate(counted) if answer.phrase
            for one in truth.references
        ]  # fmt: skip
        if texts:  # embedded together
            rows, phrases, references = zip(*texts, strict=True)
            for row, found in zip(rows, fields["vocabulary"].similarity(phrases, references), strict=True):
                values[row] = max(values[row], float(found))
        return values


class ObjectJudged(QuestionMetric):
    """Share of descriptions that a judge model takes for right, of those it gave a readable verdict on.

    No description is wrong without a verdict.
    """

    fields = (*QuestionMetric.fields, "judged")
    task = "object"
    higher_is_better = True

    def values(self, **fields: Any) -> Values:
        rows, chosen = super().values(**fields)
        known = ~rows[:, 0].isnan()
        return rows[known], chosen[known]

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        verdicts = fields["judged"]
        return [float(verdicts.get(question.id, math.nan)) if answer.phrase else 0.0 for question, _, answer in counted]


class ObjectUnjudged(QuestionMetric):
    """Share of descriptions whose verdict could not be read."""

    fields = (*QuestionMetric.fields, "judged")
    task = "object"
    higher_is_better = False

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        return [float(bool(answer.phrase) and question.id not in fields["judged"]) for question, _, answer in counted]


def _words(text: str) -> str:
    """A description as it is compared: lower case, without its article."""
    first, _, rest = text.lower().partition(" ")
    return rest if first in ("a", "an", "the") and rest else text.lower()


class ObjectBLEU(_Pooled):
    """BLEU-4 of the corpus with add-one smoothing of the higher orders, as torchmetrics, articles left out.

    Torchmetrics returns 0 before it smooths if an order has no match; here only the first order decides that.
    """

    task = "object"
    columns = 2 * N_GRAM + 2

    def value(self, truth: Truth, answer: ParsedAnswer) -> list[float]:
        """Matches and totals of the orders 1 to 4, length of the answer and of the nearest description."""
        score = BLEUScore(N_GRAM)
        score.update([answer.phrase], [[_words(one) for one in truth.references]])
        return [*score.numerator.tolist(), *score.denominator.tolist(), float(score.preds_len), float(score.target_len)]

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        matches, totals, lengths = np.split(weights @ values, [N_GRAM, 2 * N_GRAM], axis=1)
        smooth = np.arange(N_GRAM) > 0
        found = matches[:, 0] > 0
        precision = (matches[found] + smooth) / (totals[found] + smooth)
        brevity = np.minimum(1, np.exp(1 - lengths[found, 1] / lengths[found, 0]))
        bleu = np.zeros(len(weights))
        bleu[found] = brevity * np.exp(np.log(precision).mean(axis=1))
        return bleu


class ObjectROUGE(QuestionMetric):
    """Mean ROUGE-L (F) by torchmetrics, of several descriptions the best, articles left out."""

    task = "object"
    higher_is_better = True

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        if not answer.phrase:
            return 0.0
        references = [_words(one) for one in truth.references]
        found = rouge_score(answer.phrase, references, accumulate="best", rouge_keys="rougeL")
        return float(found["rougeL_fmeasure"])


# Refusals and overall --------------------------------------------------------------------------------------------


Flags = npt.NDArray[np.bool_]


class _Refusal(_Pooled):
    """Recognition questions, half of which cannot be answered; whether the reason is right does not count."""

    task = "recognition"

    def counts(self, question: Question, truth: Truth) -> bool:
        return question.task == self.task

    def value(self, truth: Truth, answer: ParsedAnswer) -> list[float]:
        """Whether it was to be refused, and was; an answer that could not be parsed is the wrong one of the two."""
        due = bool(truth.refusal)
        return [float(due), float(bool(answer.refusal) if answer.valid else not due)]

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        hits, over = (weights @ part.astype(float) for part in self.share(values[:, 0] == 1, values[:, 1] == 1))
        return _ratio(hits, over)

    @staticmethod
    def share(due: Flags, done: Flags) -> tuple[Any, Any]:
        """From whether each question was to be refused and was, (K,), to what it adds to numerator and denominator."""
        raise NotImplementedError


class RefusalAccuracy(_Refusal):
    """Share of questions rightly answered or rightly refused."""

    share = staticmethod(lambda due, done: (due == done, np.ones(len(due))))


class RefusalPrecision(_Refusal):
    """Of the refusals, the share that was due."""

    share = staticmethod(lambda due, done: (due & done, done))


class RefusalRecall(_Refusal):
    """Of the questions that cannot be answered, the share that was refused."""

    share = staticmethod(lambda due, done: (due & done, due))


class FalseRefusal(_Refusal):
    """Of the questions that can be answered, the share that was refused."""

    higher_is_better = False
    share = staticmethod(lambda due, done: (done & ~due, ~due))


class RefusalF1(_Refusal):
    """F1 of refusing: 2 TP of 2 TP + FP + FN."""

    share = staticmethod(lambda due, done: (2 * (due & done), due.astype(float) + done))


class Overall(_Pooled):
    """The mean over question types of the share of right answers: category, sector, point within ``NEAR``, refusal."""

    def counts(self, question: Question, truth: Truth) -> bool:
        """All but the points of people who look outside the image; AP in/out measures those."""
        return question.task == "recognition" or not truth.refusal

    def measured(self, counted: Sequence[Answered], **fields: Any) -> list[Any]:
        """The type, by its place in ``RIGHT``, and whether the answer is right."""
        place = {task: float(index) for index, task in enumerate(RIGHT)}
        return [
            [place[question.task], float(RIGHT[question.task](truth, answer))] for question, truth, answer in counted
        ]

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        tasks = [values[:, 0] == place for place in range(len(RIGHT))]
        shares = [_ratio(weights @ (task * values[:, 1]), weights @ task.astype(float)) for task in tasks if task.any()]
        return np.mean(shares, axis=0)


class Parsed(QuestionMetric):
    """Share of all answers that could be parsed."""

    higher_is_better = True

    def counts(self, question: Question, truth: Truth) -> bool:
        return True

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        return float(answer.valid)


class _Status(QuestionMetric):
    """Share of all answers with a status."""

    status: ClassVar[Status]

    def counts(self, question: Question, truth: Truth) -> bool:
        return True

    def value(self, truth: Truth, answer: ParsedAnswer) -> float:
        return float(answer.status == self.status)


class Refused(_Status):
    """Share of all answers that refuse, rightly or not."""

    status = "refused"


class Cut(_Status):
    """Share of all answers that were cut at the limit of tokens before anything could be read."""

    status = "cut"


class Unread(_Status):
    """Share of all answers that are complete and could not be read."""

    status = "unread"


QUESTION_METRICS = (
    ProtocolMetric("vqa_overall", Overall, subsets=False),
    ProtocolMetric("vqa_object", ObjectAccuracy, subsets=False),
    ProtocolMetric("vqa_direction", DirectionAccuracy, subsets=False),
    ProtocolMetric("vqa_point", PointWithin, subsets=False),
    ProtocolMetric("vqa_refusal", RefusalAccuracy, subsets=False),
    ProtocolMetric("vqa_false_refusal", FalseRefusal, subsets=False),
    ProtocolMetric("vqa_parsed", Parsed, subsets=False),
    ProtocolMetric("vqa_object_clip", ObjectSimilarity, subsets=False),
    ProtocolMetric("vqa_object_bleu", ObjectBLEU, subsets=False),
    ProtocolMetric("vqa_object_rouge", ObjectROUGE, subsets=False),
    ProtocolMetric("vqa_object_judge", ObjectJudged, subsets=False),
    ProtocolMetric("vqa_object_judge_open", ObjectUnjudged, subsets=False),
    ProtocolMetric("vqa_direction_steps", DirectionSteps, subsets=False, digits=2),
    ProtocolMetric("vqa_point_l2", PointDistance, subsets=False),
    ProtocolMetric("vqa_point_angle", PointAngle, subsets=False, digits=2),
    ProtocolMetric("vqa_refusal_precision", RefusalPrecision, subsets=False),
    ProtocolMetric("vqa_refusal_recall", RefusalRecall, subsets=False),
    ProtocolMetric("vqa_refusal_f1", RefusalF1, subsets=False),
    ProtocolMetric("vqa_refused", Refused, subsets=False),
    ProtocolMetric("vqa_cut", Cut, subsets=False),
    ProtocolMetric("vqa_unread", Unread, subsets=False),
)
"""Columns of methods that answer questions (docs/vqa.md); one named after a question type is its headline; boards
rank by the first."""
