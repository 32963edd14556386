"""The protocols questions can be asked by: what a file's card names, and all that is not in the file.

Another one, VL4Gaze's own once it is released, is one more entry: its instructions, how its answers are read and what
is measured. Its questions are rows like ours (``files.Row``), under a card with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gazebench.core.errors import DataError
from gazebench.metrics.protocol import QUESTIONS, ProtocolMetric
from gazebench.vqa.questions.reading import Said, read
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.types import Form

Reader = Callable[[Form, str, str, tuple[int, int] | None], Said]
"""From form, text, finish reason and the size of the picture as shown to what an answer says."""


@dataclass(frozen=True)
class Rules:
    """What a protocol is besides its questions.

    Attributes:
        id: name and version.
        origin: ``ours``, or ``official``.
        instructions: the system prompt of models that were not trained on the questions.
        read: reads an answer.
        metrics: what is measured, in the order it is printed.
    """

    id: str
    origin: str
    instructions: str
    read: Reader
    metrics: tuple[ProtocolMetric, ...]


OURS = Rules(templates().id, "ours", templates().instructions, read, QUESTIONS)
PROTOCOLS: dict[str, Rules] = {OURS.id: OURS}


def rules(card: Mapping[str, Any]) -> Rules:
    """The rules a card names.

    Raises:
        DataError: this version of the suite knows no such protocol, or other words of it.
    """
    name = str(card["protocol"])
    if name not in PROTOCOLS:
        raise DataError(f"questions of the protocol {name}; known here: {', '.join(PROTOCOLS)}; build them anew")
    if name == OURS.id and card["templates"] != templates().digest:
        raise DataError(f"these questions were worded by other templates than those of {name} here; build them anew")
    return PROTOCOLS[name]
