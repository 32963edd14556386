"""Directions as eight sectors of 45 degrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

DIRECTIONS: Final = ("right", "top-right", "above", "top-left", "left", "bottom-left", "below", "bottom-right")
"""The sectors, counter-clockwise; each is 45 degrees wide and centred on its name's own direction."""
FARTHEST: Final = 4
"""The largest number of steps from one sector to another."""


def sector(start: Sequence[float], end: Sequence[float], size: tuple[int, int]) -> int:
    """The sector 0 to 7 from a point to another, as a viewer sees the image; -1 where they coincide.

    Args:
        start: x, y normalised.
        end: x, y normalised.
        size: width, height of the image in pixels, which the angle is measured in.
    """
    across, up = (end[0] - start[0]) * size[0], (start[1] - end[1]) * size[1]
    if across == up == 0 or not math.isfinite(across + up):
        return -1
    return round(math.degrees(math.atan2(up, across)) / 45) % 8


def steps(one: int, other: int) -> int:
    """The number of sectors from one direction to another, 0 to 4."""
    apart = abs(one - other) % 8
    return min(apart, 8 - apart)
