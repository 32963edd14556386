"""Questions about gaze as a task of the suite: any method may declare it, any predictions file may answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gazebench.core.types import Item, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.task import ItemSource, Task
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.vqa.metrics import QUESTION_METRICS
from gazebench.vqa.question_builder import QuestionBuilder
from gazebench.vqa.questions.parsing import READER, ParsedAnswer, parse
from gazebench.vqa.questions.templates import templates


class Questions(Task):
    """Questions of gazebench-vqa-v1; ``Item.input`` is a ``vqa.types.Question``, the truth a ``vqa.types.Truth``.

    Another protocol, such as VL4Gaze's own, is a subclass in ``protocols.PROTOCOLS``.

    Args:
        parsed: the answers, where they are parsed already.
        further: further fields that metrics may read.

    Attributes:
        id: name and version of the protocol.
        origin: ``ours``, or ``official``.
        superseded_by: the id of the protocol that replaces this one, which stays for its records; "" for none.
        instructions: the system prompt of models that were not trained on the questions.
        digest: of the texts.
        parse: parses an answer.
        builder: makes the questions.
    """

    name: ClassVar[str] = "questions"
    metrics: ClassVar[tuple[ProtocolMetric, ...]] = QUESTION_METRICS
    id: ClassVar[str] = templates().id
    origin: ClassVar[str] = "ours"
    superseded_by: ClassVar[str] = "gazebench-vqa-v2"
    instructions: ClassVar[str] = templates().instructions
    digest: ClassVar[str] = templates().digest
    parse = staticmethod(parse)
    builder: ClassVar[type[QuestionBuilder]] = QuestionBuilder

    def __init__(self, parsed: Sequence[ParsedAnswer] | None = None, **further: Any) -> None:
        self.parsed, self.further = parsed, further

    def source(self, dataset: GazeDataset, records: Records) -> ItemSource:
        return self.builder(dataset, records)

    def fields(self, items: Sequence[Item], truths: Sequence[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """``questions``, ``truths`` and ``parsed``, the parsed answers."""
        questions = [item.input for item in items]
        parsed = self.parsed
        if parsed is None:
            parsed = [self.parse(question.form, text) for question, text in zip(questions, outputs, strict=True)]
        return {"questions": questions, "truths": truths, "parsed": parsed, **self.further}

    def describe(self) -> dict[str, Any]:
        return {"id": self.id, "templates": self.digest, "reader": READER}
