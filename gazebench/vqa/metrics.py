"""Metrics of questions and answers (gazebench-vqa-v1, docs/vqa.md): the counted thing is a question.

An answer that could not be read, or that refuses what can be answered, is wrong: it costs as much as the worst answer
there is. Texts are measured by torchmetrics.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import BLEUScore

from gazebench.core.boxes import FloatArray
from gazebench.metrics.base import GazeMetric, Values
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.metrics.spatial import angle
from gazebench.vqa.questions.geometry import FARTHEST, steps
from gazebench.vqa.questions.reading import Said, names
from gazebench.vqa.types import Question, QuestionType, Truth

NEAR = 0.1
"""A point counts as found within this share of the picture."""
STRAIGHT_BACK = 180.0
"""Degrees of the worst direction."""
N_GRAM = 4

Similarity = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""From N texts and N others to N cosines."""


class QuestionMetric(GazeMetric):
    """A mean over the questions of a task.

    The fields are ``questions`` and ``truths`` (of each question what is true) and ``said`` (what its answer says);
    keys are those of the questions.
    """

    fields: ClassVar[tuple[str, ...]] = ("questions", "truths", "said")
    unit = "questions"
    task: ClassVar[QuestionType]

    def counts(self, question: Question, truth: Truth) -> bool:
        """Whether the question counts; by default those of the task that can be answered."""
        return question.task == self.task and not truth.refusal

    @abstractmethod
    def value(self, truth: Truth, said: Said) -> Any:
        """The value, or the ``columns`` values, of one question."""

    def values(self, **fields: Any) -> Values:
        """(K, columns) the values of those that count, and which they are."""
        triples = list(zip(*(fields[name] for name in ("questions", "truths", "said")), strict=True))
        chosen = [index for index, (question, truth, _) in enumerate(triples) if self.counts(question, truth)]
        values = self.measured([triples[index] for index in chosen], **fields)
        rows = torch.tensor(values, dtype=torch.float64).reshape(len(chosen), self.columns)
        return rows, torch.tensor(chosen, dtype=torch.int64)

    def measured(self, counted: Sequence[tuple[Question, Truth, Said]], **fields: Any) -> list[Any]:
        """The values of the questions that count."""
        return [self.value(truth, said) for _, truth, said in counted]


# Points ----------------------------------------------------------------------------------------------------------


def _mean(truth: Truth) -> tuple[float, float]:
    x, y = zip(*truth.points, strict=True)
    return sum(x) / len(x), sum(y) / len(y)


def _distance(truth: Truth, said: Said) -> float:
    """L2 to the mean annotation; of no point, that of the corner farthest from it."""
    x, y = _mean(truth)
    if said.point is None:
        return math.hypot(max(x, 1 - x), max(y, 1 - y))
    return math.hypot(said.point[0] - x, said.point[1] - y)


class PointDistance(QuestionMetric):
    """Mean distance to the mean annotation, normalised, as Avg L2."""

    task = "point"

    def value(self, truth: Truth, said: Said) -> float:
        """At most sqrt(2)."""
        return _distance(truth, said)


class PointWithin(QuestionMetric):
    """Share of points at most ``NEAR`` from the mean annotation."""

    task = "point"
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> float:
        """1 or 0."""
        return float(said.point is not None and _distance(truth, said) <= NEAR)


class PointAngle(QuestionMetric):
    """Mean angular error at the head centre against the mean annotation, degrees, in the normalised plane."""

    task = "point"

    def counts(self, question: Question, truth: Truth) -> bool:
        """Of people with a head box only, and where the target is not its very centre."""
        if not super().counts(question, truth) or math.isnan(truth.head[0]):
            return False
        return _mean(truth) != _centre(truth)

    def value(self, truth: Truth, said: Said) -> float:
        """0 to 180; of no point, 180."""
        if said.point is None:
            return STRAIGHT_BACK
        given = (torch.tensor([each], dtype=torch.float64) for each in (said.point, _mean(truth), _centre(truth)))
        found = float(angle(*given))
        return STRAIGHT_BACK if math.isnan(found) else found


def _centre(truth: Truth) -> tuple[float, float]:
    x0, y0, x1, y1 = truth.head
    return (x0 + x1) / 2, (y0 + y1) / 2


# Directions ------------------------------------------------------------------------------------------------------


class DirectionAccuracy(QuestionMetric):
    """Share of right sectors."""

    task = "direction"
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> float:
        """1 or 0."""
        return float(said.direction == truth.direction)


class DirectionSteps(QuestionMetric):
    """Mean number of sectors of 45 degrees between answer and truth."""

    task = "direction"

    def value(self, truth: Truth, said: Said) -> float:
        """0 to 4; of no direction, 4."""
        return float(FARTHEST if said.direction < 0 else steps(said.direction, truth.direction))


# Things ----------------------------------------------------------------------------------------------------------


def _named(truth: Truth, said: Said) -> bool:
    return bool(said.phrase) and any(names(said.phrase, label) for label in truth.labels)


class ObjectAccuracy(QuestionMetric):
    """Share of answers that name a right category, by its word or a synonym (``questions.reading.names``)."""

    task = "object"
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> float:
        """1 or 0."""
        return float(_named(truth, said))


class ObjectSimilarity(QuestionMetric):
    """Mean CLIP similarity of answer and description as texts; of no answer, 0."""

    fields = ("questions", "truths", "said", "vocabulary")
    task = "object"
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> float:
        """Not alone: texts are embedded together."""
        raise NotImplementedError

    def measured(self, counted: Sequence[tuple[Question, Truth, Said]], **fields: Any) -> list[Any]:
        """Cosines, of several descriptions the largest."""
        similarity: Similarity = fields["vocabulary"].similarity
        values = [0.0] * len(counted)
        texts = [(row, said.phrase, one) for row, (_, truth, said) in enumerate(counted) if said.phrase
                 for one in truth.references]  # fmt: skip
        if texts:
            rows, phrases, references = zip(*texts, strict=True)
            for row, found in zip(rows, similarity(phrases, references), strict=True):
                values[row] = max(values[row], float(found))
        return values


def _words(text: str) -> str:
    """A description as it is compared: lower case, without its article."""
    first, _, rest = text.lower().partition(" ")
    return rest if first in ("a", "an", "the") and rest else text.lower()


class ObjectBLEU(QuestionMetric):
    """BLEU-4 of the corpus with add-one smoothing of the higher orders, by torchmetrics, articles left out."""

    task = "object"
    columns = 2 * N_GRAM + 2
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> list[float]:
        """Matches and totals of the orders 1 to 4, length of the answer and of the nearest description."""
        score = BLEUScore(N_GRAM, smooth=True)
        score.update([said.phrase], [[_words(one) for one in truth.references]])
        return [*score.numerator.tolist(), *score.denominator.tolist(), float(score.preds_len), float(score.target_len)]

    def reduce(self, values: Tensor) -> Tensor:
        """From the sums; nothing of nothing."""
        return values.new_tensor(self._of(values.sum(0))) if len(values) else values.new_zeros(0)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """From the sums of each draw."""
        return np.array([self._of(torch.from_numpy(total)) for total in weights @ values])

    @staticmethod
    def _of(total: Tensor) -> float:
        """BLEU of the summed columns."""
        # An order without a match would make torchmetrics say 0 before it smooths. Of descriptions that are all short
        # an order may have nothing to match; it is smoothed to 1.
        matches, totals = total[:N_GRAM], total[N_GRAM : 2 * N_GRAM]
        if not totals[0] or not matches[0]:
            return 0.0
        score = BLEUScore(N_GRAM, smooth=True)
        score.numerator, score.denominator = matches.clamp_min(torch.finfo(matches.dtype).tiny), totals
        score.preds_len, score.target_len = total[-2], total[-1]
        score._update_count = 1  # what an update does; compute() warns without it
        return float(score.compute())


class ObjectROUGE(QuestionMetric):
    """Mean ROUGE-L (F) by torchmetrics, of several descriptions the best, articles left out."""

    task = "object"
    higher_is_better = True

    def value(self, truth: Truth, said: Said) -> float:
        """0 to 1."""
        if not said.phrase:
            return 0.0
        references = [_words(one) for one in truth.references]
        found = rouge_score(said.phrase, references, accumulate="best", rouge_keys="rougeL")
        return float(found["rougeL_fmeasure"])


# Refusals --------------------------------------------------------------------------------------------------------


Flags = npt.NDArray[np.bool_]


def _ratio(hits: FloatArray, over: FloatArray) -> FloatArray:
    """Their quotient, NaN where there is nothing to share."""
    return np.where(over > 0, hits / np.where(over > 0, over, 1), math.nan)


class _Refusal(QuestionMetric):
    """Questions of which half cannot be answered; whether the reason is right does not count."""

    task = "recognition"
    columns = 2
    higher_is_better = True

    def counts(self, question: Question, truth: Truth) -> bool:
        """All of the task."""
        return question.task == self.task

    def value(self, truth: Truth, said: Said) -> list[float]:
        """Whether it was to be refused, and was; an answer that cannot be read is the wrong one of the two."""
        due = bool(truth.refusal)
        return [float(due), float(bool(said.refusal) if said.parsed else not due)]

    def reduce(self, values: Tensor) -> Tensor:
        """From (K, 2) truths and answers; nothing where it is a share of nothing."""
        found = self.drawn(values.numpy(), np.ones((1, len(values))))
        return values.new_tensor(found[0]) if np.isfinite(found[0]) else values.new_zeros(0)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """The share of each draw."""
        hits, over = (weights @ part.astype(float) for part in self.share(values[:, 0] == 1, values[:, 1] == 1))
        return _ratio(hits, over)

    @abstractmethod
    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """What each of K questions counts, and what it could."""


class RefusalAccuracy(_Refusal):
    """Share of questions rightly answered or rightly refused."""

    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Of all."""
        return due == done, np.ones(len(due))


class RefusalPrecision(_Refusal):
    """Of the refusals, the share that was due."""

    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Of those refused."""
        return due & done, done


class RefusalRecall(_Refusal):
    """Of what cannot be answered, the share that was refused."""

    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Of those to be refused."""
        return due & done, due


class FalseRefusal(_Refusal):
    """Of what can be answered, the share that was refused."""

    higher_is_better = False

    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Of those to be answered."""
        return done & ~due, ~due


class RefusalF1(_Refusal):
    """F1 of refusing; 0 where nothing is refused rightly."""

    def share(self, due: Flags, done: Flags) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """2 TP of 2 TP + FP + FN."""
        return 2 * (due & done), due.astype(float) + done


# Everything ------------------------------------------------------------------------------------------------------

_RIGHT: dict[QuestionType, Callable[[Truth, Said], bool]] = {
    "object": _named,
    "direction": lambda truth, said: said.direction == truth.direction,
    "point": lambda truth, said: said.point is not None and _distance(truth, said) <= NEAR,
    "recognition": lambda truth, said: said.parsed and bool(said.refusal) == bool(truth.refusal),
}


class Overall(QuestionMetric):
    """The mean over tasks of the share of right answers: category, sector, point within ``NEAR``, refusal."""

    columns = 2
    higher_is_better = True

    def counts(self, question: Question, truth: Truth) -> bool:
        """All but the points of people who look out of the picture, which AP in/out is about."""
        return question.task == "recognition" or not truth.refusal

    def measured(self, counted: Sequence[tuple[Question, Truth, Said]], **fields: Any) -> list[Any]:
        """The task, by its place in ``_RIGHT``, and whether the answer is right."""
        places = {task: place for place, task in enumerate(_RIGHT)}
        return [
            [float(places[question.task]), float(_RIGHT[question.task](truth, said))]
            for question, truth, said in counted
        ]

    def value(self, truth: Truth, said: Said) -> float:
        """Not without its question."""
        raise NotImplementedError

    def reduce(self, values: Tensor) -> Tensor:
        """Each task counts the same; nothing of nothing."""
        if not len(values):
            return values.new_zeros(0)
        return values.new_tensor(self.drawn(values.numpy(), np.ones((1, len(values))))[0])

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Of each draw, over the tasks that there are."""
        tasks = [values[:, 0] == place for place in range(len(_RIGHT))]
        shares = [_ratio(weights @ (task * values[:, 1]), weights @ task.astype(float)) for task in tasks if task.any()]
        return np.mean(shares, axis=0)


class Parsed(QuestionMetric):
    """Share of all answers that could be read."""

    higher_is_better = True

    def counts(self, question: Question, truth: Truth) -> bool:
        """All."""
        return True

    def value(self, truth: Truth, said: Said) -> float:
        """1 or 0."""
        return float(said.parsed)


QUESTIONS = (
    ProtocolMetric("vqa_object", ObjectAccuracy, subsets=False),
    ProtocolMetric("vqa_object_clip", ObjectSimilarity, subsets=False),
    ProtocolMetric("vqa_object_bleu", ObjectBLEU, subsets=False),
    ProtocolMetric("vqa_object_rouge", ObjectROUGE, subsets=False),
    ProtocolMetric("vqa_direction", DirectionAccuracy, subsets=False),
    ProtocolMetric("vqa_direction_steps", DirectionSteps, subsets=False, digits=2),
    ProtocolMetric("vqa_point", PointWithin, subsets=False),
    ProtocolMetric("vqa_point_l2", PointDistance, subsets=False),
    ProtocolMetric("vqa_point_angle", PointAngle, subsets=False, digits=2),
    ProtocolMetric("vqa_refusal", RefusalAccuracy, subsets=False),
    ProtocolMetric("vqa_refusal_precision", RefusalPrecision, subsets=False),
    ProtocolMetric("vqa_refusal_recall", RefusalRecall, subsets=False),
    ProtocolMetric("vqa_refusal_f1", RefusalF1, subsets=False),
    ProtocolMetric("vqa_false_refusal", FalseRefusal, subsets=False),
    ProtocolMetric("vqa_overall", Overall, subsets=False),
    ProtocolMetric("vqa_parsed", Parsed, subsets=False),
)
"""Columns of methods that answer questions (gazebench-vqa-v1, docs/vqa.md); one named after a task is its headline."""
