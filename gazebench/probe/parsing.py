"""Parses a prober's answer into regions: formats vary, but the answer must be complete and in its convention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gazebench.core.boxes import FloatArray, clean_boxes
from gazebench.vlm.coordinates import Convention
from gazebench.vlm.parsing import WITHHELD, answer_parts, json_values
from gazebench.vlm.points import LONGEST_LIST, read_boxes

MOST_REGIONS = 20
"""An answer with more regions is rejected: the model repeats itself."""
SLACK = 0.05
"""How far a box may extend beyond the image, as a share of it."""


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
    text: str,
    finish_reason: str,
    size: tuple[int, int],
    convention: Convention = Convention(),  # noqa: B008 (frozen)
    may_be_none: bool = False,
) -> ParsedAnswer:
    """Finds the regions in an answer.

    Accepted: code fences, prose and thoughts around the JSON, one box instead of a list, other field names, a model's
    own tags, corners in the wrong order, and boxes that extend a little beyond the edge. Unusable: an answer that was
    cut, that names no region, or whose numbers are not of the convention.

    Args:
        text: the answer.
        finish_reason: see ``Reply``.
        size: (width, height) in pixels of the image as it was shown.
        convention: of the coordinates.
        may_be_none: whether an answer without a region is usable, as it is where regions are computed.
    """
    if finish_reason == "length":
        return _unusable("cut at the limit of tokens")
    if finish_reason in WITHHELD:
        return _unusable("withheld by a content filter")
    if not (parts := answer_parts(text, longest=LONGEST_LIST)):
        return _unusable("empty")
    values, cut = json_values(parts[-1])
    if cut:
        return _unusable("the JSON is not closed")
    written = read_boxes(text)
    if not written and may_be_none and values:
        return ParsedAnswer(np.zeros((0, 4)))
    if not written:
        return _unusable("no box in it")
    if len(written) > MOST_REGIONS:
        return _unusable(f"{len(written)} boxes, more than {MOST_REGIONS}")
    found = [one.box(convention, size) for one in written]
    boxes = np.array([one for one in found if one is not None], dtype=np.float64).reshape(-1, 4)
    if len(boxes) < len(found) or not ((boxes >= -SLACK) & (boxes <= 1 + SLACK)).all():
        return _unusable(f"numbers that are not of the convention {convention.name}, or a box far outside the image")
    boxes = clean_boxes(boxes)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return ParsedAnswer(np.unique(boxes, axis=0)) if len(boxes) else _unusable("no box with an area")


def _unusable(problem: str) -> ParsedAnswer:
    return ParsedAnswer(np.zeros((0, 4)), problem)
