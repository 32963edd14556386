"""A pen that draws flat shapes in local units onto a picture, onto a map of ids, or only measures them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.world.dice import grid

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

WHITE: Colour = (255, 255, 255)
INK: Colour = (52, 46, 54)


@lru_cache(maxsize=4096)
def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with ``share`` (0 to 1) of ``other`` stirred in."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return r, g, b


def darker(colour: Colour, share: float = 0.18) -> Colour:
    """A shadow of the colour, leaning to the ink."""
    return blend(colour, INK, share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """A light of the colour, leaning to white."""
    return blend(colour, WHITE, share)


@lru_cache(maxsize=256)
def arc(start: float, stop: float, steps: int) -> tuple[Point, ...]:
    """Points of the unit circle from ``start`` to ``stop`` degrees, clockwise on screen (0 right, 90 down)."""
    angles = (math.radians(start + (stop - start) * k / steps) for k in range(steps + 1))
    return tuple((math.cos(angle), math.sin(angle)) for angle in angles)


class Canvas:
    """A supersampled picture and, where asked for, the map of who was drawn last at each of its pixels.

    Scene units are heights of the picture: x in [0, aspect], y in [0, 1].
    """

    def __init__(self, width: int, height: int, aspect: float, supersample: int, mask: bool) -> None:
        self.size = (width * supersample, height * supersample)
        self.supersample = supersample
        self.scale = (self.size[0] / aspect, float(self.size[1]))
        self.picture = Image.new("RGB", self.size)
        self.opaque = ImageDraw.Draw(self.picture)
        self.clear = ImageDraw.Draw(self.picture, "RGBA")
        self.map = Image.new("L", self.size) if mask else None
        self.ids = ImageDraw.Draw(self.map) if self.map else None


class Pen:
    """Draws in local units: the origin at ``x, y`` and one unit ``size`` heights long, turned and flipped.

    Without a canvas the pen only measures; ``bounds`` is the box of all it drew, in scene units.
    ``wash`` fades every colour to a common one; ``owner`` is the id written to the map.
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
        turn = math.radians(angle)
        side = -size if flip else size
        self.canvas, self.wash, self.owner = canvas, wash, owner
        self.a, self.b, self.c, self.d = (
            side * math.cos(turn),
            -size * math.sin(turn),
            side * math.sin(turn),
            size * math.cos(turn),
        )
        self.x, self.y = x, y
        self.left = self.top = math.inf
        self.right = self.bottom = -math.inf
        if canvas:
            across, down = canvas.scale
            self.a, self.b, self.x = self.a * across, self.b * across, x * across
            self.c, self.d, self.y = self.c * down, self.d * down, y * down

    @property
    def bounds(self) -> Box:
        """Left, top, right, bottom of everything measured so far, rounded to the grid."""
        return grid(self.left), grid(self.top), grid(self.right), grid(self.bottom)

    def polygon(self, points: Iterable[Point], colour: Colour, alpha: int = 255) -> None:
        """Fills a polygon; shadows and lights (``alpha`` below 255) leave no trace on map and bounds."""
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
            self.canvas.clear.polygon(placed, fill=(*colour, alpha))
            return
        self.canvas.opaque.polygon(placed, fill=colour)
        if self.canvas.ids:
            self.canvas.ids.polygon(placed, fill=self.owner)

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, *, tilt: float = 0.0, alpha: int = 255
    ) -> None:
        """Fills an ellipse about (x, y), turned by ``tilt`` degrees."""
        self.pie(x, y, rx, ry, 0, 360, colour, tilt=tilt, alpha=alpha)

    def pie(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        start: float,
        stop: float,
        colour: Colour,
        *,
        tilt: float = 0.0,
        alpha: int = 255,
    ) -> None:
        """Fills the segment of an ellipse from ``start`` to ``stop`` degrees, cut along its chord."""
        steps = max(6, int((stop - start) / 14))
        points = [(rx * u, ry * v) for u, v in arc(start, stop, steps)]
        if tilt:
            cos, sin = arc(tilt, tilt, 1)[0]
            points = [(cos * u - sin * v, sin * u + cos * v) for u, v in points]
        self.polygon([(x + u, y + v) for u, v in points], colour, alpha)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour) -> None:
        """Draws an elliptic ring, ``width`` wide to the inside, leaving its hole untouched."""
        self.bow(x, y, rx, ry, 0, 360, width, colour)

    def bow(
        self, x: float, y: float, rx: float, ry: float, start: float, stop: float, width: float, colour: Colour
    ) -> None:
        """Draws an arc of an ellipse as a band, ``width`` wide to the inside."""
        edge = arc(start, stop, max(6, int((stop - start) / 14)))
        outer = [(x + rx * u, y + ry * v) for u, v in edge]
        inner = [(x + (rx - width) * u, y + (ry - width) * v) for u, v in reversed(edge)]
        self.polygon(outer + inner, colour)

    def bar(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: Colour,
        *,
        round_by: float = 0.0,
        alpha: int = 255,
    ) -> None:
        """Fills a rectangle, its corners rounded by a radius."""
        if not round_by:
            self.polygon(((left, top), (right, top), (right, bottom), (left, bottom)), colour, alpha)
            return
        r = min(round_by, (right - left) / 2, (bottom - top) / 2)
        corners = (
            (right - r, bottom - r, 0),
            (left + r, bottom - r, 90),
            (left + r, top + r, 180),
            (right - r, top + r, 270),
        )
        self.polygon(
            [(x + r * u, y + r * v) for x, y, start in corners for u, v in arc(start, start + 90, 3)], colour, alpha
        )

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draws a thick line with round ends and joints."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            cos, sin = (x1 - x0) / length * width / 2, (y1 - y0) / length * width / 2
            far = [(x1 + cos * u - sin * v, y1 + sin * u + cos * v) for u, v in arc(-90, 90, 6)]
            near = [(x0 + cos * u - sin * v, y0 + sin * u + cos * v) for u, v in arc(90, 270, 6)]
            self.polygon(far + near, colour)
