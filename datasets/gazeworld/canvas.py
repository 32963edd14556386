"""Flat shapes in local units: drawn onto an image and its map of ids, or only measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.rng import grid

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

WHITE: Colour = (255, 255, 255)
INK: Colour = (52, 46, 54)


def palette(codes: str) -> tuple[Colour, ...]:
    """RGB colours from hexadecimal codes: ``palette("ff0000 00ff00")``."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, codes.split()))


@lru_cache(maxsize=4096)
def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with a ``share`` (0 to 1) of ``other``."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return r, g, b


def darker(colour: Colour, share: float = 0.18) -> Colour:
    return blend(colour, INK, share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    return blend(colour, WHITE, share)


@lru_cache(maxsize=256)
def arc(start: float, stop: float, steps: int) -> tuple[Point, ...]:
    """``steps`` + 1 points of the unit circle from ``start`` to ``stop`` degrees; 0 is right, 90 is down."""
    angles = (math.radians(start + (stop - start) * k / steps) for k in range(steps + 1))
    return tuple((math.cos(angle), math.sin(angle)) for angle in angles)


class Canvas:
    """A supersampled image and, with ``mask``, the map of the id that was drawn last at each of its pixels.

    Scene units are image heights: x in [0, aspect], y in [0, 1].
    """

    def __init__(self, width: int, height: int, aspect: float, supersample: int, mask: bool) -> None:
        self.size = (width * supersample, height * supersample)
        self.supersample = supersample
        self.scale = (self.size[0] / aspect, float(self.size[1]))
        self.image = Image.new("RGB", self.size)
        self.opaque = ImageDraw.Draw(self.image)
        self.translucent = ImageDraw.Draw(self.image, "RGBA")
        self.map = Image.new("L", self.size) if mask else None
        self.ids = ImageDraw.Draw(self.map) if self.map else None


class Brush:
    """Draws in local units.

    Args:
        canvas: None only measures: ``bounds`` is then the box of everything drawn, in scene units.
        x, y: the local origin, in scene units.
        size: length of a local unit, in scene units.
        angle: by which everything is turned, in degrees.
        flip: whether everything is mirrored left to right.
        wash: a colour and the share of it that is mixed into all others.
        owner: the id written to the map.
    """

    def __init__(
        self,
        canvas: Canvas | None,
        x: float,
        y: float,
        size: float,
        *,
        angle: float = 0.0,
        flip: bool = False,
        wash: tuple[Colour, float] | None = None,
        owner: int = 0,
    ) -> None:
        cos, sin, side = math.cos(math.radians(angle)), math.sin(math.radians(angle)), -size if flip else size
        across, down = canvas.scale if canvas else (1.0, 1.0)
        self.canvas, self.wash, self.owner = canvas, wash, owner
        self.a, self.b, self.x = side * cos * across, -size * sin * across, x * across
        self.c, self.d, self.y = side * sin * down, size * cos * down, y * down
        self.left = self.top = math.inf
        self.right = self.bottom = -math.inf

    @property
    def bounds(self) -> Box:
        """Left, top, right, bottom of everything measured so far, rounded to the grid."""
        return grid(self.left), grid(self.top), grid(self.right), grid(self.bottom)

    def polygon(self, points: Iterable[Point], colour: Colour, alpha: int = 255) -> None:
        """Fills a polygon; with an ``alpha`` below 255 it counts neither for the map nor for ``bounds``."""
        a, b, c, d, x, y = self.a, self.b, self.c, self.d, self.x, self.y
        placed = [(a * u + b * v + x, c * u + d * v + y) for u, v in points]
        if not self.canvas:
            if alpha == 255:
                across, down = zip(*placed, strict=True)
                self.left, self.right = min(self.left, *across), max(self.right, *across)
                self.top, self.bottom = min(self.top, *down), max(self.bottom, *down)
            return
        if self.wash:
            colour = blend(colour, *self.wash)
        if alpha < 255:
            self.canvas.translucent.polygon(placed, fill=(*colour, alpha))
            return
        self.canvas.opaque.polygon(placed, fill=colour)
        if self.canvas.ids:
            self.canvas.ids.polygon(placed, fill=self.owner)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, *, tilt: float = 0.0, alpha: int = 255,
             span: tuple[float, float] = (0, 360)) -> None:  # fmt: skip
        """Fills an ellipse about (x, y), turned by ``tilt`` degrees, or its segment over a ``span`` of degrees."""
        points = [(rx * u, ry * v) for u, v in _edge(span)]
        if tilt:
            cos, sin = arc(tilt, tilt, 1)[0]
            points = [(cos * u - sin * v, sin * u + cos * v) for u, v in points]
        self.polygon([(x + u, y + v) for u, v in points], colour, alpha)

    def band(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour,
             span: tuple[float, float] = (0, 360)) -> None:  # fmt: skip
        """Fills a band along the inside of an ellipse, over a ``span`` of degrees."""
        edge = _edge(span)
        outer = [(x + rx * u, y + ry * v) for u, v in edge]
        inner = [(x + (rx - width) * u, y + (ry - width) * v) for u, v in reversed(edge)]
        self.polygon(outer + inner, colour)

    def rect(self, left: float, top: float, right: float, bottom: float, colour: Colour, *, radius: float = 0.0,
             alpha: int = 255) -> None:  # fmt: skip
        """Fills a rectangle whose corners are rounded by ``radius``."""
        if not radius:
            self.polygon(((left, top), (right, top), (right, bottom), (left, bottom)), colour, alpha)
            return
        r = min(radius, (right - left) / 2, (bottom - top) / 2)
        centres = ((right - r, bottom - r), (left + r, bottom - r), (left + r, top + r), (right - r, top + r))
        corners = [(x, y, arc(90 * k, 90 * k + 90, 3)) for k, (x, y) in enumerate(centres)]
        self.polygon([(x + r * u, y + r * v) for x, y, corner in corners for u, v in corner], colour, alpha)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draws a thick line with round ends and joints."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            cos, sin = (x1 - x0) / length * width / 2, (y1 - y0) / length * width / 2
            far = [(x1 + cos * u - sin * v, y1 + sin * u + cos * v) for u, v in arc(-90, 90, 6)]
            near = [(x0 + cos * u - sin * v, y0 + sin * u + cos * v) for u, v in arc(90, 270, 6)]
            self.polygon(far + near, colour)


def _edge(span: tuple[float, float]) -> tuple[Point, ...]:
    return arc(*span, max(6, int((span[1] - span[0]) / 14)))
