"""What all readers of models' answers need: thoughts left out, JSON found in prose."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


def without_thoughts(text: str) -> str:
    """The text without what stands between ``<think>`` and ``</think>``, or after a ``<think>`` that is not closed."""
    return _THOUGHTS.sub(" ", text)


def json_values(text: str) -> tuple[list[Any], bool]:
    """The outermost JSON values with brackets in a text, and whether one was opened and never closed."""
    decoder, values, place = json.JSONDecoder(), [], 0
    while (opening := _next_bracket(text, place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, opening)
            values.append(value)
        except (ValueError, RecursionError):
            if not _closes(text, opening):
                return values, True
            place = opening + 1
    return values, False


def _next_bracket(text: str, start: int) -> int:
    found = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(found, default=-1)


def _closes(text: str, opening: int) -> bool:
    depth = 0
    for sign in text[opening:]:
        depth += (sign in "[{") - (sign in "]}")
        if not depth:
            return True
    return False


def numbers(values: Any) -> bool:
    """Whether all of some values are finite numbers, or text that is one."""
    try:
        return all(not isinstance(value, bool) and math.isfinite(float(value)) for value in values)
    except (TypeError, ValueError, OverflowError):
        return False
