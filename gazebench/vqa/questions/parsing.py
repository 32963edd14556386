"""Answers read by the form of their question, so that models are judged by what they say and not by how they say it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from gazebench.vlm.coordinates import Convention
from gazebench.vlm.parsing import WITHHELD, How, YesNo, answer_parts, yes_or_no
from gazebench.vlm.points import read_point
from gazebench.vqa.questions.directions import read_direction
from gazebench.vqa.questions.geometry import DIRECTIONS
from gazebench.vqa.questions.phrases import read_phrase
from gazebench.vqa.questions.refusals import REFUSED, read_refusal
from gazebench.vqa.types import Form, Refusal

__all__ = ["READER", "REFUSED", "ParsedAnswer", "Status", "as_json", "ask_for_json", "parse", "schema"]

READER: Final = 2
"""Version of the readers of answers, in every record; raised where an answer is read in another way."""
Status = Literal["read", "refused", "cut", "unread"]


@dataclass(frozen=True)
class ParsedAnswer:
    """What an answer says; all fields are at their defaults where it could not be read.

    Attributes:
        refusal: ``ambiguous``, ``non_exist``, ``outside``, or ``refused`` without a reason; "" for an answer.
        point: x, y normalised; of a question for a point.
        direction: sector 0 to 7; of a question for a direction, else -1.
        phrase: the thing named, in lower case and without article; of a question for an object.
        verdict: of a question for yes or no.
        p_yes: probability of "yes" against "no", where the backend gave it.
        how: how it was read: from JSON, from a model's own tag, or from prose.
        cut: whether the answer was cut at the limit of tokens.
    """

    refusal: str = ""
    point: tuple[float, float] | None = None
    direction: int = -1
    phrase: str = ""
    verdict: YesNo = ""
    p_yes: float | None = None
    how: How = field(default="", compare=False)
    cut: bool = field(default=False, compare=False)

    @property
    def valid(self) -> bool:
        """Whether anything could be read."""
        return bool(self.refusal or self.phrase or self.verdict) or self.point is not None or self.direction >= 0

    @property
    def status(self) -> Status:
        """``cut`` is what was cut before anything could be read."""
        if self.refusal:
            return "refused"
        return "read" if self.valid else "cut" if self.cut else "unread"


def parse(
    form: Form,
    text: str,
    finish_reason: str = "",
    size: tuple[int, int] | None = None,
    convention: Convention = Convention(),  # noqa: B008 (frozen)
    p_yes: float | None = None,
) -> ParsedAnswer:
    """Reads an answer to a question of some form.

    Forgiven: thoughts, code fences, JSON, a model's own tags or prose around the answer, and other words for a
    direction. Not forgiven: no answer, several different ones, or numbers that are not of the convention. Of an answer
    that was cut, only what is complete is read.

    Args:
        form: of the question.
        text: the answer, word for word.
        finish_reason: see ``Reply``; what was withheld is a refusal.
        size: (width, height) in pixels of the image as it was shown.
        convention: how the model writes coordinates.
        p_yes: see ``Reply``.
    """
    if finish_reason in WITHHELD:
        return ParsedAnswer(refusal=REFUSED)
    cut = finish_reason == "length"
    if form == "yes_no":
        verdict, how = yes_or_no(text, finish_reason)
        if verdict:
            return ParsedAnswer(verdict=verdict, p_yes=p_yes, how=how, cut=cut)
    for part in answer_parts(text, cut):
        found = _read(form, part, size, convention)
        if found.valid:
            return replace(found, cut=cut)
    return ParsedAnswer(cut=cut)


def _read(form: Form, text: str, size: tuple[int, int] | None, convention: Convention) -> ParsedAnswer:
    refusal = read_refusal(text)
    answer = ParsedAnswer()
    if not refusal or refusal == "outside":  # "to the left, out of the frame" does answer
        if form == "point":
            point, how = read_point(text, convention, size)
            answer = ParsedAnswer(point=point, how=how)
        elif form == "direction":
            direction, how = read_direction(text)
            answer = ParsedAnswer(direction=direction, how=how)
        elif form == "object" and not refusal:
            phrase, how = read_phrase(text)
            answer = ParsedAnswer(phrase=phrase, how=how)
    if answer.valid or not refusal:
        return answer
    return ParsedAnswer(refusal=refusal, how="json" if text.lstrip()[:1] in "{[" else "text")


_NUMBERS: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_ANSWERS: Final[dict[Form, tuple[str, dict[str, Any]]]] = {
    "object": ("object", {"type": "string"}),
    "direction": ("direction", {"type": "string", "enum": list(DIRECTIONS)}),
    "point": ("point_2d", _NUMBERS),
    "yes_no": ("answer", {"type": "string", "enum": ["yes", "no"]}),
}
"""The field of an answer in JSON and its type, by form."""
CANNOT_TELL: Final[dict[Refusal, str]] = {
    "ambiguous": "several people fit", "non_exist": "nobody fits", "outside": "the target is outside the picture",
}  # fmt: skip
"""The values of the field ``cannot_tell`` by reason; "" where the question is answered."""


_EXAMPLES: Final[dict[Form, str]] = {
    "object": "red cup", "direction": "top-right", "point": '{"point_2d": [512, 300]}', "yes_no": "yes",
}  # fmt: skip


def ask_for_json(form: Form) -> str:
    """The words that ask for an answer by ``schema``, since not every server shows a model the schema it is held to."""
    text = f"Answer with JSON of this form: {as_json(form, _EXAMPLES[form])}."
    if form == "yes_no":
        return text
    reasons = ", ".join(f'"{reason}"' for reason in CANNOT_TELL.values())
    return f'{text} Where it cannot be told, "cannot_tell" is one of {reasons}, and "{_ANSWERS[form][0]}" is null.'


def as_json(form: Form, answer: str, refusal: Refusal = "") -> str:
    """A right answer by ``schema``.

    Args:
        form: of the question.
        answer: as it is written without a schema.
        refusal: why there is none; "" where there is.
    """
    name = _ANSWERS[form][0]
    if form == "yes_no":
        return json.dumps({name: answer})
    value = None if refusal else json.loads(answer)[name] if form == "point" else answer
    return json.dumps({"cannot_tell": CANNOT_TELL[refusal] if refusal else "", name: value})


def schema(form: Form) -> dict[str, Any]:
    """The JSON schema of answers to questions of a form: the answer, null with a reason why there is none."""
    name, kind = _ANSWERS[form]
    if form == "yes_no":
        properties = {name: kind}
    else:
        reasons = {"type": "string", "enum": ["", *CANNOT_TELL.values()]}
        properties = {"cannot_tell": reasons, name: {"anyOf": [kind, {"type": "null"}]}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
