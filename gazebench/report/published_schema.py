"""What the files of published numbers may hold: their JSON schemas, units and tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from gazebench.metrics.protocol import SUBSETS

UNITS = {
    "fraction": Decimal(1),
    "percent": Decimal(100),
    "normalised": Decimal("1.4143"),  # the diagonal of the unit square
    "degree": Decimal(180),
    "people": Decimal("Infinity"),
}
"""What values are given in, and the largest possible one: a slipped decimal point rarely stays below it."""
TAGS = {
    "paper": "printed in this paper, whose text is at hand",
    "author-reported": "reported by a method's authors, quoted from another source",
    "official code": "seen in official code",
    "re-run": "somebody else's re-run, quoted from another source",
}
"""How close to its origin a row was read."""

PRINTED = re.compile(r"\d+|\d*\.\d+")
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_KEY = {"type": "string", "pattern": r"^[a-z0-9]+([_+-][a-z0-9]+)*$"}
_TEXT_BY_NAME = {"type": "object", "additionalProperties": _TEXT}
_DIGITS = {"type": "string", "pattern": "^[0-9]+$"}
_NAMES = {"type": "object", "minProperties": 1, "propertyNames": _KEY, "additionalProperties": _TEXT}


def _closed(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "additionalProperties": False, "required": list(required), "properties": properties
    }  # fmt: skip


CONVENTIONS_SCHEMA = _closed(
    ["conventions", "datasets", "methods"],
    conventions={
        "type": "object", "minProperties": 1, "propertyNames": _KEY,
        "additionalProperties": _closed(
            ["metric", "unit", "better", "stated", "text"],
            metric=_KEY, unit={"enum": list(UNITS)}, better={"enum": ["higher", "lower"]}, text=_TEXT,
            stated={"enum": ["paper", "official code", "inferred", "not stated"]},
            tolerance={"type": "string", "pattern": rf"^({PRINTED.pattern})$"},
        ),
    },
    datasets=_NAMES, methods=_NAMES, backbones={"type": "object", "additionalProperties": _TEXT},
    stand_ins={"type": "object", "additionalProperties": _TEXTS},
    runs={
        "type": "object", "propertyNames": _KEY,
        "additionalProperties": _closed(
            ["method"], method=_TEXT, backbone=_TEXT, options=_TEXT_BY_NAME, unlike=_TEXT_BY_NAME,
        ),
    },
)  # fmt: skip
SOURCE_SCHEMA = _closed(
    ["source", "tables"],
    figures={"type": "array", "minItems": 1, "items": _closed(
        ["id", "place", "title", "dataset"], id=_KEY, place=_TEXT, title=_TEXT, dataset=_TEXT
    )},
    source=_closed(["key", "title"], key=_KEY, title=_TEXT, authors=_TEXT, url=_TEXT, text=_TEXT, notes=_TEXTS),
    tables={"type": "array", "minItems": 1, "items": _closed(
        ["id", "place", "title", "dataset", "tag", "labels", "columns", "rows"],
        id=_KEY, place=_TEXT, title=_TEXT, dataset=_TEXT, tag={"enum": list(TAGS)}, notes=_TEXTS, quotes=_TEXTS,
        labels={"type": "array", "items": _TEXT, "minItems": 1},
        columns={"type": "array", "minItems": 1, "items": _closed(
            ["header", "subset", "convention", "decimals"],
            header=_TEXT, group=_TEXT, dataset=_TEXT, subset={"enum": list(SUBSETS)}, convention=_TEXT,
            decimals=_DIGITS,
        )},
        rows={"type": "array", "minItems": 1, "items": _closed(
            ["labels", "method", "values"],
            labels={"type": "array", "items": {"type": ["string", "null"]}},
            values={"type": "array", "items": {"type": ["string", "null"]}},
            cite=_DIGITS, method=_TEXT, backbone=_TEXT, tag={"enum": list(TAGS)}, note=_TEXT, decimals=_DIGITS,
            underlined={"type": "array", "items": _DIGITS, "uniqueItems": True},
            conventions={"type": "object", "additionalProperties": _TEXT},
        )},
    )},
)  # fmt: skip
