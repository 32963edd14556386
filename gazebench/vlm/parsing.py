"""What all readers of models' answers share: the answer without thoughts, JSON in prose, refusals, yes or no."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

LONGEST: Final = 4000
"""Characters of an answer that are read, after its thoughts are removed; what comes after them is repetition."""
How = Literal["", "json", "tag", "text"]
"""How an answer was read: from JSON, from a model's own tag, or from prose; "" where it was not."""
YesNo = Literal["", "yes", "no"]
"""A verdict; "" where none could be read."""
WITHHELD: Final = ("content_filter", "refusal")
"""Finish reasons of answers that were withheld."""

_THOUGHT: Final = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
_CLOSED: Final = re.compile(
    rf"</{_THOUGHT}>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_OPEN: Final = re.compile(
    rf"<{_THOUGHT}>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)
_BRACKET: Final = re.compile(r"[{\[]")


def without_thoughts(text: str) -> str:
    """The text after the last closing tag of thoughts, up to an opening one that is not closed."""
    for closed in _CLOSED.finditer(text):
        place = closed.end()
    answer = text[place:] if _CLOSED.search(text) else text
    return _OPEN.split(answer, maxsplit=1)[0]


_FENCE: Final = re.compile(r"```[a-z]*|<\|(?:im_end|endoftext|eot_id|end|return)\|>|</s>", re.IGNORECASE)
_CONTAINER: Final = re.compile(
    r"<answer>(.*?)(?:</answer>|\Z)|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)"
    r"|\\boxed\{((?:\\text\{[^{}]*\}|[^{}]|\{[^{}]*\})*)\}",
    re.DOTALL | re.IGNORECASE,
)
_ANNOUNCED: Final = re.compile(
    r"\b(?:answer|verdict|conclusion|prediction|judge?ment|response)\b[*_\s]*(?::|=|\bis\b|\bwould be\b)[\s:*_`]*"
    r"|^[#*\s]*(?:final )?answer[*#\s]*\n+",
    re.IGNORECASE | re.MULTILINE,
)


def answer_parts(text: str, cut: bool = False, longest: int = LONGEST) -> list[str]:
    """The parts of an answer to be read, in this order: what it marks or announces as its answer, and all of it.

    Each is without thoughts and fences.

    Args:
        text: word for word.
        cut: whether it was cut at the limit of tokens; its last, incomplete sentence is then left out.
        longest: characters of a part.
    """
    text = _FENCE.sub(" ", without_thoughts(text)).strip()
    if cut:
        text = _complete(text)
    marked = [next((group for group in match.groups() if group), "") for match in _CONTAINER.finditer(text)]
    if not marked:
        *_, last = [None, *_ANNOUNCED.finditer(text)]
        marked = [text[last.end() :]] if last else []
    parts = [re.sub(r"\\text\{([^{}]*)\}", r"\1", part).strip() for part in marked[-1:]]
    return [part[:longest] for part in dict.fromkeys([*parts, text]) if part]


_END: Final = re.compile(r"[\])}>\n。]|[.!?](?=\s)")


def _complete(text: str) -> str:
    """A cut text up to its last complete sentence, line or bracket."""
    *_, last = [None, *_END.finditer(text)]
    return text[: last.end()] if last else ""


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return [part for part in (one.strip() for one in re.split(r"(?<=[.!?;])\s+|\n+|。", text)) if part]


def json_values(text: str) -> tuple[list[Any], bool]:
    """The outermost JSON objects and lists in a text, and whether one was opened and never closed."""
    # Not the library json_repair: it completes JSON that was cut. Of 31,306 answers of three boxes, cut at every place,
    # version 0.64 read a box that was never there in 1,200; and it keeps only the last of several objects.
    decoder, values, place = json.JSONDecoder(), list[Any](), 0
    while opening := _BRACKET.search(text, place):
        try:
            value, place = decoder.raw_decode(text, opening.start())
            values.append(value)
        except (ValueError, RecursionError):
            if not _closes(text[opening.start() :]):
                return values, True
            place = opening.end()
    return values, False


def _closes(text: str) -> bool:
    depth = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if not depth:
            return True
    return False


def numbers(values: Any) -> bool:
    """Whether all values are finite numbers, or texts of such."""
    try:
        return all(not isinstance(value, bool) and math.isfinite(float(value)) for value in values)
    except (TypeError, ValueError, OverflowError):
        return False


def number(value: Any) -> float:
    """A number, or a text of one; an int where it is written without a decimal point."""
    if isinstance(value, str):
        return float(value) if "." in value else int(value)
    return int(value) if isinstance(value, int) else float(value)


def fields(text: str) -> Iterator[tuple[str, Any]]:
    """The fields of all JSON objects in a text, with their names in lower case; also those of objects within."""
    waiting = json_values(text)[0][::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from ((str(name).lower(), item) for name, item in value.items())
            waiting += [item for item in value.values() if isinstance(item, dict | list)][::-1]
        elif isinstance(value, list):
            waiting += [item for item in value if isinstance(item, dict)][::-1]


# Yes or no -------------------------------------------------------------------------------------------------------

_YES: Final = r"(?:yes|yeah|yep|true|correct|right|match(?:es)?|affirmative)"
_NO: Final = r"(?:no|nope|false|incorrect|wrong|mismatch|negative|not (?:correct|right|true|a match))"
_VERDICT: Final = re.compile(rf"\b(?:(?P<no>{_NO})|(?P<yes>{_YES}))\b(?![-'’])", re.IGNORECASE)
_FIELD: Final = re.compile(r"verdict|answer|correct|match|same|judg|result|label|looking|shar|yes|mutual|response")
_NAMELY: Final = re.compile(
    r"(?:[,;:.]\s*|\b(?:so|thus|hence|therefore|is|be|with|say|probably|likely)\s+)$", re.IGNORECASE
)


def yes_or_no(text: str, finish_reason: str = "") -> tuple[YesNo, How]:
    """Whether an answer says yes or no, and how it was read; an answer that says both, or neither, is not read.

    Read are the words yes, no, true, false, correct, incorrect and the like as the field of a JSON object, as a text of
    its own, at its beginning or end, and after "verdict:" or "answer:".

    Args:
        text: word for word, thoughts included.
        finish_reason: see ``Reply``.
    """
    if finish_reason in WITHHELD:
        return "", ""
    cut = finish_reason == "length"
    for part in answer_parts(text, cut):
        values = [found for name, value in fields(part) if _FIELD.search(name) and (found := _said(value))]
        if values:
            return ("", "") if len(set(values)) > 1 else (values[0], "json")
        if found := _in_prose(part):
            return found, "text"
    if cut and (parts := answer_parts(text)) and (found := _at_the_beginning(_plain(parts[-1]))):
        return found, "text"
    return "", ""


def _said(value: Any) -> YesNo:
    """A verdict in a field: a truth value, or a text that is one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _in_prose(value) if isinstance(value, str) else ""


def _plain(text: str) -> str:
    return re.sub(r"[*_`\"“”]+", "", text).strip(" \n([{'-#")


_STANDING: Final = re.compile(
    r"\s*(?:$|[.,;:!?)\]}\n—–-]|(?:and|or|because|since|as|it|they|the|he|she|this|that|both)\b)", re.IGNORECASE
)
"""What follows a verdict; "no problem" and "right now" are none."""
_AND: Final = re.compile(r"[\s,./|]*(?:and|or|but also|but)?[\s,./|]*", re.IGNORECASE)


def _at_the_beginning(text: str) -> YesNo:
    found = [match for match in _VERDICT.finditer(text) if _STANDING.match(text, match.end())]
    if not found or found[0].start():
        return ""
    first, *more = found
    if more and _AND.fullmatch(text, first.end(), more[0].start()) and _word(more[0]) != _word(first):
        return ""  # "yes and no"
    return _word(first)


_SHORT: Final = re.compile(
    r"(?:(?:they|he|she|it|both) (?:are|is|do|does)|definitely|absolutely|certainly|indeed|of course|not)"
    r"(?P<no>(?<=not)| not|n['’]t)?(?: at all| really| quite)?\W*",
    re.IGNORECASE,
)
"""A whole answer without the word: "they are not", "absolutely"."""


def _in_prose(text: str) -> YesNo:
    text = _plain(text)
    if short := _SHORT.fullmatch(text):
        return "yes" if short["no"] is None else "no"
    found = list(_VERDICT.finditer(text))
    if not found or not found[0].start():
        return _at_the_beginning(text)
    last = found[-1]
    if not text[last.end() :].strip(" .!)]}'\n") and (
        len(set(map(_word, found))) == 1 or _NAMELY.search(text[: last.start()])
    ):
        return _word(last)
    telling = {
        _word(match) for match in found if _NAMELY.search(text[: match.start()]) and _STANDING.match(text, match.end())
    }
    return telling.pop() if len(telling) == 1 else ""


def _word(match: re.Match[str]) -> YesNo:
    return "yes" if match["yes"] else "no"


def verdict_token(tokens: Sequence[str]) -> int | None:
    """The place of the token that says yes or no: the first such token after the thoughts; None where there is none."""
    text = "".join(tokens)
    *_, closed = [None, *_CLOSED.finditer(text)]
    place, start = 0, closed.end() if closed else 0
    for index, token in enumerate(tokens):
        if place >= start and bare(token) in ("yes", "no"):
            return index
        place += len(token)
    return None


def share_of_yes(odds: Mapping[str, float]) -> float | None:
    """P(yes) / (P(yes) + P(no)) from the probabilities of tokens, whatever their case, spaces and quotes."""
    sums = {word: sum(p for token, p in odds.items() if bare(token) == word) for word in ("yes", "no")}
    total = sum(sums.values())
    return sums["yes"] / total if total > 0 else None


def bare(token: str) -> str:
    """A token without spaces, quotes and punctuation, in lower case."""
    return token.strip(" \n\t\"'`*_.,:{}Ġ▁").lower()
