"""Boxes and points: from the units of a release to normalised, clean ones."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Unit = Literal["pixel", "normalised"]
BOX = ["xmin", "ymin", "xmax", "ymax"]
"""The columns of a box in tables."""


def normalise(values: FloatArray, unit: Unit, sizes: npt.ArrayLike) -> FloatArray:
    """Divides x, y pairs by the image's width and height where they are in pixels.

    Args:
        values: (..., 2 k) x, y pairs along the last axis.
        unit: of the values.
        sizes: (..., 2) width, height in pixels, broadcast against ``values``; a size of 0 gives NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if unit == "normalised":
        return values
    scale = np.asarray(sizes, dtype=np.float64)
    scale = np.where(scale > 0, scale, np.nan)
    return values / np.tile(scale, values.shape[-1] // 2)


def clean_boxes(boxes: FloatArray) -> FloatArray:
    """Swaps reversed corners and clips to the image (the field's box clean-up); (..., 4) normalised xyxy."""
    low = np.minimum(boxes[..., :2], boxes[..., 2:])
    high = np.maximum(boxes[..., :2], boxes[..., 2:])
    return np.clip(np.concatenate([low, high], axis=-1), 0.0, 1.0)


def holds_boxes(column: npt.NDArray[Any]) -> bool:
    """Whether a column of ``Records`` holds boxes: float, (P, 4) or (P, K, 4)."""
    return column.dtype.kind == "f" and column.ndim > 1 and column.shape[-1] == 4


def holds_points(column: npt.NDArray[Any]) -> bool:
    """Whether a column of ``Records`` holds points: float, (P, 2)."""
    return column.dtype.kind == "f" and column.ndim == 2 and column.shape[-1] == 2
