"""Helpers of the parsers of models' answers: they remove thoughts and find JSON in prose."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_BRACKET = re.compile(r"[{\[]")


def without_thoughts(text: str) -> str:
    """The text without the parts between ``<think>`` and ``</think>``, or after a ``<think>`` that is not closed."""
    return _THOUGHTS.sub(" ", text)


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
