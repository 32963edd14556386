"""Free answers parsed forgivingly, so that models are judged by what they mean and not by its form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gazebench.vlm.coordinates import LARGEST
from gazebench.vlm.parsing import json_values, numbers, without_thoughts
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.types import Form

LONGEST: Final = 4000
"""Characters of an answer that are parsed; what a model writes after them is repetition."""
REFUSED: Final = "refused"
"""A refusal that gives no reason."""


@dataclass(frozen=True)
class ParsedAnswer:
    """What an answer says; all fields are at their defaults where it could not be parsed.

    Attributes:
        refusal: ``ambiguous``, ``non_exist``, ``outside``, or ``refused`` without a reason; "" for an answer.
        point: x, y normalised; of a question for a point.
        direction: sector 0 to 7; of a question for a direction, else -1.
        phrase: the thing named, in lower case and without article; of a question for an object.
        verdict: "yes" or "no"; of a question for one of them.
        p_yes: probability of "yes" against "no", where the backend gave it.
    """

    refusal: str = ""
    point: tuple[float, float] | None = None
    direction: int = -1
    phrase: str = ""
    verdict: str = ""
    p_yes: float | None = None

    @property
    def valid(self) -> bool:
        """Whether anything could be parsed."""
        return bool(self.refusal or self.phrase or self.verdict) or self.point is not None or self.direction >= 0


def parse(form: Form, text: str, finish_reason: str = "", size: tuple[int, int] | None = None) -> ParsedAnswer:
    """Parses an answer to a question of some form.

    Forgiven: thoughts, code fences, JSON or prose around the answer, other words for a direction, coordinates as
    fractions, per cent, or (where one is over 1000 and ``size`` is known) pixels. Not forgiven: no answer, or several
    different ones.

    Args:
        form: of the question.
        text: the answer.
        finish_reason: as the server gave it; what a content filter withheld is a refusal.
        size: (width, height) in pixels of the image as it was shown.
    """
    if finish_reason == "content_filter":
        return ParsedAnswer(refusal=REFUSED)
    text = without_thoughts(text[:LONGEST]).replace("```json", " ").replace("```", " ").strip()
    if refusal := _refusal(text):
        return ParsedAnswer(refusal=refusal)
    if not text:
        return ParsedAnswer()
    if form == "yes_no":
        said = text.lower().strip(" .*\"'")
        return ParsedAnswer(verdict=said if said in ("yes", "no") else "")
    if form == "point":
        return ParsedAnswer(point=_point(text, size))
    if form == "direction":
        return ParsedAnswer(direction=_direction(text))
    return ParsedAnswer(phrase=_phrase(text))


# Refusals --------------------------------------------------------------------------------------------------------

_REASONS: Final = (
    ("outside", r"outside (of )?(the )?(picture|image|frame|photo|scene|view)|out of (the )?(frame|picture|image|view)"
                r"|off[- ](camera|screen|frame)|beyond the (picture|image|frame|edge)|\"status\": ?\"outside\""),
    ("ambiguous", r"several people|multiple (people|persons|individuals)|more than one (person|people|individual)"
                  r"|(two|three|both|many) (people|persons) (fit|match)|ambiguous|unclear (who|which|whom)"
                  r"|which (person|of them|one)"),
    ("non_exist", r"nobody (fits|matches|is there|like)|no (such )?(person|one|individual|people)\b"
                  r"|there (is|are) no\b|does(n't| not) exist|not (present|in the (picture|image))"
                  r"|(is|are)n't any|no head"),
)  # fmt: skip
_REFUSES: Final = re.compile(
    r"\b(can ?not|can't|could not|couldn't|unable to|impossible to|not possible to) "
    r"(tell|be (answered|determined|told|said)|determine|answer|say|identify|know|see|provide|help|assist|locate|find)"
    r"|unanswerable|not answerable|\"answerable\": ?false|i('m| am) (sorry|not able)|refuse to answer"
    r"|undetermin|not enough information|insufficient information"
)


def _refusal(text: str) -> str:
    low = " ".join(text.lower().replace("’", "'").split())
    for reason, pattern in _REASONS:
        if re.search(pattern, low):
            return reason
    return REFUSED if _REFUSES.search(low) else ""


# Points ----------------------------------------------------------------------------------------------------------

_NUMBER: Final = r"-?\d+(?:\.\d+)?"
_PAIRS: Final = (
    re.compile(rf"x\d?[\"']?\s*[:=]\s*[\"']?({_NUMBER})[\"']?%?[\s,;]*(?:and\s+)?"
               rf"[\"']?y\d?[\"']?\s*[:=]\s*[\"']?({_NUMBER})", re.IGNORECASE),
    re.compile(rf"[(\[<]\s*({_NUMBER})\s*%?\s*[,;\s]\s*({_NUMBER})\s*%?\s*[)\]>]"),
    re.compile(rf"^\s*({_NUMBER})\s*%?\s*[,;\s]\s*({_NUMBER})\s*%?\s*\.?\s*$"),
)  # fmt: skip


def _point(text: str, size: tuple[int, int] | None) -> tuple[float, float] | None:
    found = list(dict.fromkeys(_json_points(json_values(text)[0])))
    for pattern in _PAIRS:
        if not found:
            found = list(dict.fromkeys((float(x), float(y)) for x, y in pattern.findall(text)))
    if len(found) > 1:  # an answer that is announced as such counts
        announced = re.split(r"(?i)\banswer\b\s*(?:is\b)?[\s:*]*", text)
        return _point(announced[-1], size) if len(announced) > 1 else None
    return _scaled(*found[0], text=text, size=size) if found else None


def _json_points(values: Iterable[Any], depth: int = 0) -> Iterator[tuple[float, float]]:
    for value in values:
        if isinstance(value, list) and value and numbers(value):
            if len(value) == 2:
                yield float(value[0]), float(value[1])
            elif len(value) == 4:  # a box: its centre
                x0, y0, x1, y1 = map(float, value)
                yield (x0 + x1) / 2, (y0 + y1) / 2
        elif isinstance(value, list) and depth < 12:
            yield from _json_points(value, depth + 1)
        elif isinstance(value, dict) and depth < 12:
            if numbers([value.get("x"), value.get("y")]):
                yield float(value["x"]), float(value["y"])
            else:
                yield from _json_points(value.values(), depth + 1)


def _scaled(x: float, y: float, text: str, size: tuple[int, int] | None) -> tuple[float, float] | None:
    largest = max(x, y)
    if "%" in text and largest <= 100:
        scale: Sequence[float] = (100, 100)
    elif largest <= 1 and not (x.is_integer() and y.is_integer()):
        scale = (1, 1)
    elif largest <= LARGEST + 1:  # 1000 for the edge is a slip of one
        scale = (LARGEST, LARGEST)
    elif size is not None:
        scale = size
    else:
        return None
    point = x / scale[0], y / scale[1]
    if not all(-0.05 <= value <= 1.05 for value in point):
        return None
    return min(1.0, max(0.0, point[0])), min(1.0, max(0.0, point[1]))


# Directions ------------------------------------------------------------------------------------------------------

_AXES: Final = {
    "left": r"left(wards?)?|west",
    "right": r"right(wards?)?|east",
    "up": r"up(wards?)?|upper|top|above|north|higher",
    "down": r"down(wards?)?|lower|bottom|below|beneath|south",
}
_SECTORS: Final = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""Right minus left, up minus down, in the order of ``geometry.DIRECTIONS``."""


def _direction(text: str) -> int:
    low = text.lower()
    for part in (low, re.split(r"\banswer\b\W*", low)[-1], low.splitlines()[0]):
        words = re.sub(r"(north|south)[- ]?(east|west)", r"\1 \2", part)
        has = {axis: re.search(rf"\b({pattern})\b", words) is not None for axis, pattern in _AXES.items()}
        if (has["left"] and has["right"]) or (has["up"] and has["down"]):
            continue
        axes = has["right"] - has["left"], has["up"] - has["down"]
        if axes in _SECTORS:
            return _SECTORS.index(axes)
    return -1


# Objects ---------------------------------------------------------------------------------------------------------

_LEAD: Final = re.compile(
    r"^.*?\b(?:look(?:s|ing|ed)?|gaz(?:e|es|ing|ed)|star(?:es|ing)|glanc(?:es|ing)|focus(?:ed|ing)?|directed|fixed|eyes)\b"
    r"[^.]*?\b(?:at|on|upon|towards?)\b\s*",
    re.DOTALL,
)
_ARTICLE: Final = re.compile(
    r"^(?:(?:it|this|that)(?:'s| is)\s+|(?:probably|likely|perhaps)\s+)?(?:an?|the|some|his|her|their|its)\s+"
)
_AFTER: Final = re.compile(
    r"\s+(?:of|on|in|at|with|near|next|beside|behind|under|above|below|that|which|who|held|holding|to|from|by|for|and)"
    r"\b.*|[,;:(].*"
)


def _phrase(text: str) -> str:
    values = [value for value in json_values(text)[0] if isinstance(value, dict)]
    texts = [item for value in values for item in value.values() if isinstance(item, str) and item.strip()]
    low = " ".join((texts[0] if texts else text).lower().replace("’", "'").split())
    low = re.split(r"\banswer\b\s*:\s*", low)[-1]
    low = _LEAD.sub("", low, count=1) or low
    low = re.split(r"\.(?:\s|$)|\n", low.strip(" \"'*`-"))[0]
    return _ARTICLE.sub("", low.strip(" \"'*`.!-")).strip(" \"'*`.!-")


def names(phrase: str, label: str) -> bool:
    """Whether a phrase names a category, by its own word or a synonym, as its head noun or as the whole phrase.

    Words after a preposition only describe: a "cup on the table" is a cup and no table.
    """
    head = _AFTER.sub("", phrase.lower()).strip() or phrase.lower()
    for word in templates().same(label):
        if re.search(rf"\b{re.escape(word)}(e?s)?$", head) or phrase.lower() == word:
            return True
    return False
