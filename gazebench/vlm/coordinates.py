"""How models write coordinates: a declared convention for each model family, never a guess from the numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from gazebench.core.errors import DataError

LARGEST: Final = 999
"""The largest coordinate that questions ask for, which stands for 1."""
Scale = Literal["thousand", "pixels", "unit", "percent"]
"""Whole numbers from 0 to 999 (1000 is read as the edge), pixels of the image shown, shares of 1, or per cent."""
Y_FIRST: Final = "-yx"


def whole(value: float) -> int:
    """A normalised coordinate as the nearest whole number from 0 to 999; values outside [0, 1] are clipped."""
    return min(LARGEST, max(0, round(value * LARGEST)))


@dataclass(frozen=True)
class Convention:
    """How coordinates are written.

    Attributes:
        scale: what stands for the right and lower edge.
        y_first: whether a pair without names is y, x (a box y0, x0, y1, x1).
        multiple: of pixels; the model resizes its image to whole multiples of so many pixels and counts those.
    """

    scale: Scale = "thousand"
    y_first: bool = False
    multiple: int = 1

    @property
    def name(self) -> str:
        """What ``named`` takes: the scale, with ``-yx`` where y comes first."""
        return self.scale + Y_FIRST * self.y_first

    def edges(self, size: tuple[int, int] | None) -> tuple[float, float] | None:
        """What stands for the right and the lower edge; None for pixels of an image whose size is not known."""
        if self.scale != "pixels":
            edge = {"thousand": LARGEST, "unit": 1, "percent": 100}[self.scale]
            return edge, edge
        if size is None:
            return None
        width, height = (max(1, round(side / self.multiple)) * self.multiple for side in size)
        return width, height

    def point(self, x: float, y: float, size: tuple[int, int] | None = None) -> tuple[float, float] | None:
        """A point in [0, 1]; None where the numbers are not of this convention.

        Shares, such as 0.5 or 1.0, are neither thousandths nor pixels, which are whole numbers. An int counts as whole.

        Args:
            x: as written.
            y: as written.
            size: (width, height) in pixels of the image as it was shown.
        """
        edges = self.edges(size)
        if edges is None or (self.scale in ("thousand", "pixels") and looks_like_shares(x, y)):
            return None
        slip = 1 if self.scale == "thousand" else 0  # 1000 for the edge
        if not (0 <= x <= edges[0] + slip and 0 <= y <= edges[1] + slip):
            return None
        return min(1.0, x / edges[0]), min(1.0, y / edges[1])


def looks_like_shares(*values: float) -> bool:
    """Whether all numbers are at most 1 and one is written with a decimal point."""
    return max(map(abs, values)) <= 1 and any(isinstance(value, float) for value in values)


def named(name: str) -> Convention:
    """The convention of a name: a scale, with ``-yx`` where y comes first.

    Raises:
        DataError: there is none.
    """
    for scale in get_args(Scale):
        if name.removesuffix(Y_FIRST) == scale:
            return Convention(scale, name.endswith(Y_FIRST))
    raise DataError(f"coordinates {name!r}: choose {', '.join(get_args(Scale))}, with {Y_FIRST} where y comes first")


class Family(NamedTuple):
    """A model family: what its models' names contain, how it writes coordinates, and where that is said."""

    pattern: str
    convention: Convention
    source: str


FAMILIES: Final[dict[str, Family]] = {
    "Qwen2.5-VL": Family(
        r"qwen2[._]5-?vl", Convention("pixels", multiple=28),
        "github.com/QwenLM/Qwen3-VL cookbooks/spatial_understanding.ipynb of Qwen2.5-VL, issue 1623: pixels of the "
        "image resized to multiples of 28",
    ),
    "Qwen3-VL": Family(
        r"qwen3([._]\d)?(-?vl|-?omni)?", Convention(), "github.com/QwenLM/Qwen3-VL README, issue 1741: 0 to 999 or 1000"
    ),
    "Qwen2-VL": Family(r"qwen(2)?-?vl", Convention(), "github.com/QwenLM/Qwen3-VL issues 663 and 1485: [0, 1000)"),
    "Molmo": Family(
        r"molmoe?-", Convention("percent"), "huggingface.co/allenai/Molmo-7B-O-0924/discussions/1: 0 to 100"
    ),
    "Gemini": Family(
        r"gemini", Convention(y_first=True),
        "commonly known of its API ([ymin, xmin, ymax, xmax] and [y, x], 0 to 1000), not checked against its guide",
    ),
    "InternVL": Family(
        r"intern-?vl", Convention(), "github.com/OpenGVLab/InternVL issue 844, of its chat data format: 0 to 1000"
    ),
    "GLM-V": Family(r"glm-?\d([._]\d)?v", Convention(), "github.com/zai-org/GLM-V, grounding: 0 to 1000"),
    "DeepSeek-VL2": Family(
        r"deepseek-?vl2", Convention(), "huggingface.co/AskUI/PTA-1/discussions/2, by its authors: 0 to 999"
    ),
    "LLaVA": Family(
        r"llava", Convention("unit"),
        "github.com/haotian-liu/LLaVA issue 606: shares of 1 of the image padded to a square; they are read as shares "
        "of the image itself, which is right for square images only",
    ),
    "Moondream": Family(r"moondream", Convention("unit"), "docs.moondream.ai, skill point: 0 to 1"),
}  # fmt: skip
"""How model families write coordinates when left to themselves. The first that fits a name counts.

PaliGemma needs no entry: its ``<locNNNN>`` tokens say their scale and order themselves.
"""


def family_of(model: str) -> str:
    """The family of a model's name; "" where none is known."""
    low = model.lower()
    return next((name for name, family in FAMILIES.items() if re.search(family.pattern, low)), "")


def convention_of(model: str, name: str = "") -> Convention:
    """The convention of a name, or by default of a model's family; of others what questions ask for, thousandths.

    Raises:
        DataError: there is no such convention.
    """
    family = family_of(model)
    own = FAMILIES[family].convention if family else Convention()
    return own if name in ("", own.name) else named(name)
