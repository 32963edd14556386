"""What a vision-language model is asked about people's gaze and what it answers, as text (OmniGF, equations 1 and 2).

A person is one line of the prompt and one line of the answer, both with the name ``P0``, ``P1`` ... Coordinates are
whole numbers from 0 to 999, the grounding convention of Qwen3-VL.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import yaml

from gazebench.vqa.questions.geometry import LARGEST, whole

GAZE_PAD: Final = "<|gaze_pad|>"
"""The token whose embedding a head's takes the place of."""
PROMPTS: Final[dict[str, str]] = yaml.safe_load((Path(__file__).parent / "gaze_prompts.yaml").read_text("utf-8"))

Status = Literal["inside", "outside", "unknown"]
LONGEST_CATEGORY: Final = 60
"""Of a category in characters; what is longer is cut."""


@dataclass(frozen=True)
class Answer:
    """One person's answer.

    Attributes:
        status: of the gaze target; ``unknown`` is that of people nobody annotated, and is never learnt or generated.
        point: x, y from 0 to 999; only with ``inside``.
        category: what is looked at, "" where that is not said.
    """

    status: Status
    point: tuple[int, int] | None = None
    category: str = ""


class Piece(NamedTuple):
    """A part of an answer line that is tokenised by itself.

    Cuts lie where Qwen's pre-tokeniser cuts too, so that pieces and whole lines give the same tokens.
    """

    text: str
    learnt: bool


def person_line(index: int, box: Sequence[float], slot: bool) -> str:
    """A person's line of the prompt, equation 1.

    Args:
        index: the i of ``Pi``.
        box: normalised xyxy of the head; NaN is written as null.
        slot: whether a ``<|gaze_pad|>`` comes first.
    """
    known = all(math.isfinite(side) for side in box)
    described = json.dumps({"bbox_2d": [whole(side) for side in box] if known else None})
    return f"{GAZE_PAD if slot else ''}P{index}: {described}"


def opening(index: int) -> str:
    """What a person's line of the answer begins with, up to the status; its first token is the person's anchor."""
    return f'P{index}: {{"status": "'


TO_POINT: Final = '", "point_2d": ['
BETWEEN: Final = ", "
TO_CATEGORY: Final = '], "category": "'


def closing(*, category: bool, point: bool, last: bool) -> str:
    """What a line ends with; all but the last line with a line break."""
    return ('"}' if category or not point else "]}") + ("" if last else "\n")


def answer_pieces(index: int, answer: Answer, *, semantic: bool, last: bool) -> list[Piece]:
    """A person's line of the answer, equation 2.

    Nothing is learnt of a person whose answer is unknown. Where categories are asked for and this person's is not
    known, the line ends after the point and nothing is learnt of its end.
    """
    learnt = answer.status != "unknown"
    pieces = [Piece(opening(index), learnt), Piece(answer.status, learnt)]
    if answer.point is None:
        return [*pieces, Piece(closing(category=False, point=False, last=last), learnt)]
    x, y = answer.point
    pieces += [Piece(text, learnt) for text in (TO_POINT, str(x), BETWEEN, str(y))]
    category = clean_category(answer.category) if semantic else ""
    if category:
        pieces += [Piece(TO_CATEGORY, learnt), Piece(category, learnt)]
    end = closing(category=bool(category), point=True, last=last)
    return [*pieces, Piece(end, learnt and (bool(category) or not semantic))]


def clean_category(text: str) -> str:
    """A category that can stand between quotes: no quotes or backslashes, letters or digits at both ends."""
    text = unicodedata.normalize("NFC", text)
    printable = "".join(character if character.isprintable() else " " for character in text)
    words = re.sub(r'["\\]', " ", printable).split()
    return re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(words)[:LONGEST_CATEGORY])


def parse_answers(text: str, people: int) -> list[Answer | None]:
    """The answers in a text that may be anything, of ``people`` people; None where one is missing or malformed.

    Of several lines for one person the first well-formed one counts. An answer is well-formed if it has a status of
    ``inside`` or ``outside`` and, when inside, a point of two numbers from 0 to 999.
    """
    found: list[Answer | None] = [None] * people
    place = 0
    while match := _NAME.search(text, place):
        place = match.end()
        try:
            read, place = _JSON.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        index = int(match[1])
        if index < people and found[index] is None:
            found[index] = _checked(read)
    return found


_NAME = re.compile(r"P(\d{1,4})\s*:\s*(?=\{)")
_JSON = json.JSONDecoder()


def _checked(read: dict[str, Any]) -> Answer | None:
    if read.get("status") == "outside":
        return Answer("outside")
    point, category = read.get("point_2d"), read.get("category", "")
    if read.get("status") != "inside" or not isinstance(point, list) or len(point) != 2:
        return None
    if not all(type(value) in (int, float) and 0 <= value <= LARGEST for value in point):
        return None
    return Answer("inside", (round(point[0]), round(point[1])), category if isinstance(category, str) else "")


def as_json(answer: Answer | None) -> str:
    """An answer as the object of equation 2; "" where there is none."""
    if answer is None:
        return ""
    fields: dict[str, Any] = {"status": answer.status}
    if answer.point is not None:
        fields["point_2d"] = list(answer.point)
    if answer.category:
        fields["category"] = answer.category
    return json.dumps(fields, ensure_ascii=False)
