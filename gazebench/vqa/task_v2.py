"""Questions of gazebench-vqa-v2 as a task of the suite."""

from __future__ import annotations

from typing import ClassVar

from gazebench.metrics.protocol import ProtocolMetric
from gazebench.vqa.metrics_v2 import NAME, QUESTION_METRICS_V2
from gazebench.vqa.question_builder import BalancedQuestionBuilder, QuestionBuilder
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.task import Questions


class QuestionsV2(Questions):
    """Questions whose wording tells nothing, and yes / no questions about who looks at whom; else as ``Questions``."""

    name: ClassVar[str] = NAME
    metrics: ClassVar[tuple[ProtocolMetric, ...]] = QUESTION_METRICS_V2
    id: ClassVar[str] = templates(2).id
    superseded_by: ClassVar[str] = ""
    instructions: ClassVar[str] = templates(2).instructions
    digest: ClassVar[str] = templates(2).digest
    builder: ClassVar[type[QuestionBuilder]] = BalancedQuestionBuilder
