"""Coordinates as Qwen-VL models write them: whole numbers from 0 to 999."""

from __future__ import annotations

from typing import Final

LARGEST: Final = 999
"""The largest coordinate, which stands for 1."""


def whole(value: float) -> int:
    """A normalised coordinate as the nearest whole number from 0 to 999; values outside [0, 1] are clipped."""
    return min(LARGEST, max(0, round(value * LARGEST)))
