"""Pictures of every mode as 8-bit RGB, and 8-bit RGB as networks read it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB; alpha is dropped.

    Of 16-bit grey the high byte is kept, as Pillow keeps it of 16-bit colour (and the upper eight of a TIFF file's 12
    bits). Floats are taken from [0, 1] to [0, 255]. ``Image.convert`` would cut both off at 255.

    Raises:
        ValueError: the numbers have no known scale (mode I, or F beyond [0, 1]); or Pillow cannot convert the mode.
    """
    if image.mode == "RGB":
        return image
    # Pillow opens a 16-bit PGM in mode I, its numbers spread over 16 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        grey = np.asarray(image).astype(np.int64) >> (bits - 8)
    elif image.mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():  # not where NaN either
            raise ValueError(f"mode F, floats from {values.min():g} to {values.max():g}; expected [0, 1]")
        grey = np.rint(values * 255)
    elif image.mode == "I":
        raise ValueError("mode I, 32-bit numbers without a known scale; expected 8 or 16 bits")
    else:
        return image.convert("RGB")
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def normalised(pixels: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32: in [0, 1], then with mean and deviation of the three channels taken out."""
    average, spread = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (mean, deviation))
    return (pixels.float() / 255 - average) / spread
