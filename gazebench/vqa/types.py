"""Questions about gaze and what is true of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Form = Literal["object", "direction", "point", "yes_no"]
"""What a question asks for: what somebody looks at, in which direction, at which point, or yes or no."""
QuestionType = Literal["object", "direction", "point", "recognition", "lah", "laeo", "sa"]
"""What a question counts for.

Those of ``recognition`` have any form but yes / no, and half of them cannot be answered. The last three are yes / no
questions about two people, named as the labels in ``core.types.SOCIAL``.
"""
Observer = Literal["box", "unique", "ambiguous", "non_exist"]
"""How a question refers to its person: by a head box, or by words that fit one, several or no person."""
Refusal = Literal["", "ambiguous", "non_exist", "outside"]
"""Why a question cannot be answered: several people fit, nobody does, or the target is outside the image."""


@dataclass(frozen=True)
class Question:
    """A question about a person of an image.

    Attributes:
        id: unique in the split: the person's id and the question type.
        task: the question type, which decides what the answer counts for; a method must not use it, since a user's
            question comes without.
        form: what is asked for.
        observer: how the person is referred to.
        text: the question.
        other: of a question about two people, the second one's place among the people of the image, else -1. Of
            ``lah`` it is the one who may be looked at.
    """

    id: str
    task: QuestionType
    form: Form
    observer: Observer
    text: str
    other: int = -1


@dataclass(frozen=True)
class Truth:
    """What is known of a question's answer; a method sees it in its loss, never in its forward at evaluation.

    Attributes:
        answer: the answer as it should be written; "" where a yes / no question has no label.
        refusal: why there is none; "" where there is.
        points: the annotated points, normalised; empty with a refusal.
        head: xyxy normalised; NaN where it is not known.
        size: width, height of the image in pixels.
        direction: sector 0 to 7 (``questions.geometry``), -1 where there is none.
        labels: the right categories; empty where they are not annotated.
        references: descriptions of the target; likewise.
    """

    answer: str
    refusal: Refusal = ""
    points: tuple[tuple[float, float], ...] = ()
    head: tuple[float, float, float, float] = (math.nan,) * 4
    size: tuple[int, int] = (1, 1)
    direction: int = -1
    labels: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
