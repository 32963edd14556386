"""Questions about gaze as a task of the suite: any method may declare it, any predictions file may answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gazebench.core.boxes import FloatArray
from gazebench.core.types import Item, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.task import ItemSource, Task
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.vqa.interview import Interviewer
from gazebench.vqa.metrics import QUESTIONS
from gazebench.vqa.questions.reading import read
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.types import Question, Truth


class Questions(Task):
    """Questions of gazebench-vqa-v1; ``Item.input`` is a ``vqa.types.Question``, the truth a ``vqa.types.Truth``."""

    name: ClassVar[str] = "questions"
    metrics: ClassVar[tuple[ProtocolMetric, ...]] = QUESTIONS

    def source(self, dataset: GazeDataset, records: Records) -> ItemSource:
        return _Source(dataset, records)

    def fields(self, items: Sequence[Item], truths: Sequence[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """``questions``, ``truths``, and ``said``: what each answer says."""
        questions: list[Question] = [item.input for item in items]
        return {
            "questions": questions,
            "truths": list(truths),
            "said": [read(question.form, output) for question, output in zip(questions, outputs, strict=True)],
        }

    def describe(self) -> dict[str, Any]:
        return {"id": templates().id, "templates": templates().digest}


class _Source(ItemSource):
    def __init__(self, dataset: GazeDataset, records: Records) -> None:
        self.interviewer = Interviewer(dataset, records)

    def items(
        self, image: int, head: FloatArray, points: Sequence[FloatArray], size: tuple[int, int]
    ) -> list[tuple[Item, Truth]]:
        asked = self.interviewer.about(image, head, points, size)
        return [(Item(question.id, question.person, question), truth) for question, truth in asked]
