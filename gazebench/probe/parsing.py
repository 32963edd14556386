"""Parses a prober's answer into regions: formats and scales vary, but the answer must be complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gazebench.core.boxes import FloatArray, clean_boxes
from gazebench.vlm.coordinates import LARGEST
from gazebench.vlm.parsing import json_values, numbers, without_thoughts

Convention = Literal["0-999", "unit"]
"""The expected coordinates: whole numbers from 0 to 999 (999 is the right or lower edge), or from 0 to 1."""

MOST_REGIONS = 20
"""An answer with more regions is rejected: the model repeats itself."""

_NATIVE = re.compile(r"\(\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\)\s*,\s*\(\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\)")
"""Boxes as older Qwen-VL models write them: (x0,y0),(x1,y1)."""
_CORNERS = (("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"),
            ("x_min", "y_min", "x_max", "y_max"), ("left", "top", "right", "bottom"))  # fmt: skip
_NOT_A_REGION = re.compile(r"point|score|conf|prob|size|scale|colou?r|head|person|observer|subject|thought|reason")
"""Names of JSON fields whose four numbers are no region, or are the person who was asked about."""


@dataclass(frozen=True, eq=False)
class ParsedAnswer:
    """The regions in an answer.

    Attributes:
        regions: (K, 4) float64 xyxy, normalised, inside the image, with area; K = 0 when the answer is unusable.
        problem: why the answer is unusable; "" if it is usable.
    """

    regions: FloatArray
    problem: str = ""

    @property
    def usable(self) -> bool:
        return not self.problem


def parse_answer(
    text: str, finish_reason: str, size: tuple[int, int], convention: Convention = "0-999", may_be_none: bool = False
) -> ParsedAnswer:
    """Finds the regions in an answer.

    Accepted: code fences, prose and thoughts around the JSON, one box instead of a list, other field names, corners in
    the wrong order, boxes that extend beyond the edge, and coordinates in pixels of the image shown (if one is over
    1000) or from 0 to 1 (if all are at most 1 and one is no whole number). Unusable: an answer that was cut, that names
    no region, or that has other numbers.

    Args:
        text: the answer.
        finish_reason: see ``Reply``.
        size: (width, height) in pixels of the image as it was shown.
        convention: the expected coordinates.
        may_be_none: whether an answer without a region is usable, as it is where regions are computed.
    """
    if finish_reason == "length":
        return _unusable("cut at the limit of tokens")
    if finish_reason == "content_filter":
        return _unusable("withheld by a content filter")
    text = without_thoughts(text)
    if not text.strip():
        return _unusable("empty")
    values, cut = json_values(text)
    if cut:
        return _unusable("the JSON is not closed")
    found = [(_has_names(value), list(_boxes(value))) for value in values]
    if any(named and boxes for named, boxes in found):  # a box in the prose is then the head that was asked about
        found = [(named, boxes) for named, boxes in found if named]
    boxes = [box for _, some in found for box in some]
    if not boxes:
        boxes = [tuple(map(float, match)) for match in _NATIVE.findall(text) if numbers(match)]
    if not boxes and may_be_none and values:
        return ParsedAnswer(np.zeros((0, 4)))
    if not boxes:
        return _unusable("no box in it")
    if len(boxes) > MOST_REGIONS:
        return _unusable(f"{len(boxes)} boxes, more than {MOST_REGIONS}")
    return _normalised(np.array(boxes, dtype=np.float64), size, convention)


def _has_names(value: Any) -> bool:
    """Whether a JSON value is an object, or a list with one."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _normalised(boxes: FloatArray, size: tuple[int, int], convention: Convention) -> ParsedAnswer:
    if not np.isfinite(boxes).all():
        return _unusable("a coordinate that is not finite")
    largest, whole = boxes.max(), bool((boxes == np.rint(boxes)).all())
    if convention == "unit" or (largest <= 1 and not whole):
        scale = np.ones(4)
    elif largest <= 1000:  # some models write 1000 for the edge
        scale = np.full(4, float(LARGEST))
    else:
        scale = np.array([*size, *size], dtype=np.float64)
    boxes = boxes / scale
    if (boxes > 1.05).any() or (boxes < -0.05).any():
        return _unusable("a box far outside the image")
    boxes = clean_boxes(boxes)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return ParsedAnswer(np.unique(boxes, axis=0)) if len(boxes) else _unusable("no box with an area")


def _boxes(value: Any, depth: int = 0) -> Iterator[tuple[float, ...]]:
    """Every box in a JSON value."""
    if depth > 12:
        return
    if isinstance(value, list):
        if len(value) == 4 and numbers(value):
            yield tuple(map(float, value))
            return
        for item in value:
            yield from _boxes(item, depth + 1)
    elif isinstance(value, dict):
        for names in _CORNERS:
            corners: list[Any] = [value.get(name) for name in names]
            if numbers(corners):
                yield tuple(map(float, corners))
                return
        for name, item in value.items():
            if not _NOT_A_REGION.search(name.lower()):
                yield from _boxes(item, depth + 1)


def _unusable(problem: str) -> ParsedAnswer:
    return ParsedAnswer(np.zeros((0, 4)), problem)
