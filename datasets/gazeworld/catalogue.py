"""The things of the world: names, mounts, sizes, colours and drawings.

A thing is drawn in local units: the origin is the middle of its foot, up is negative, and it is about one unit high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gazebench.datasets.gazeworld.canvas import INK, WHITE, Brush, Colour, arc, darker, lighter, palette

Mount = Literal["rest", "wall", "air"]
Drawing = Callable[[Brush, Colour], None]

COLOURS: dict[str, Colour] = {
    "red": (217, 66, 60), "orange": (240, 138, 52), "yellow": (247, 205, 74), "green": (90, 162, 88),
    "teal": (42, 157, 148), "blue": (62, 124, 200), "navy": (52, 70, 120), "purple": (132, 92, 176),
    "pink": (240, 134, 166), "brown": (148, 102, 68), "grey": (146, 150, 158), "white": (244, 241, 234),
}  # fmt: skip
"""The colour words of the world."""
WOOD, LEAF, GLASS, CREAM, STEEL = palette("b07e54 549456 bedee8 faeed6 b0b6be")


@dataclass(frozen=True)
class Category:
    """A kind of thing.

    Attributes:
        mount: whether it rests on something, hangs on a wall, or floats in the air.
        size: its height relative to other things.
        tints: the colour words it comes in.
    """

    mount: Mount
    size: float
    tints: tuple[str, ...]
    draw: Drawing


CATEGORIES: dict[str, Category] = {}


def thing(
    name: str, mount: Mount = "rest", size: float = 1.0, tints: str = "red orange yellow green teal blue purple pink"
) -> Callable[[Drawing], Drawing]:
    """Registers the function below as the drawing of a category."""

    def register(draw: Drawing) -> Drawing:
        CATEGORIES[name] = Category(mount, size, tuple(tints.split()), draw)
        return draw

    return register


def _eyes(brush: Brush, x: float, y: float, apart: float, size: float) -> None:
    for side in (-apart, apart):
        brush.oval(x + side, y, size, size, INK)
        brush.oval(x + side - size * 0.3, y - size * 0.35, size * 0.35, size * 0.35, WHITE)


@thing("ball", size=0.85)
def _ball(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.5, 0.5, 0.5, darker(hue))
    brush.oval(-0.03, -0.53, 0.46, 0.46, hue)
    brush.oval(0, -0.5, 0.2, 0.48, CREAM)
    brush.oval(0, -0.5, 0.1, 0.48, hue)
    brush.oval(-0.22, -0.74, 0.12, 0.08, lighter(hue, 0.6), tilt=-35)


@thing("mug", size=0.8)
def _mug(brush: Brush, hue: Colour) -> None:
    brush.band(0.4, -0.48, 0.24, 0.27, 0.09, darker(hue))
    brush.rect(-0.42, -0.92, 0.42, 0, hue, radius=0.12)
    brush.rect(0.2, -0.88, 0.42, -0.02, darker(hue, 0.12), radius=0.1)
    brush.oval(0, -0.9, 0.42, 0.1, darker(hue, 0.3))
    brush.oval(0, -0.88, 0.34, 0.07, (96, 62, 44))
    brush.rect(-0.3, -0.55, 0.08, -0.38, lighter(hue, 0.55))


@thing("book", size=0.7)
def _book(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.78, -0.4, 0.7, -0.02, darker(hue), radius=0.06)
    brush.rect(-0.7, -0.35, 0.74, -0.08, CREAM)
    brush.rect(-0.78, -0.46, 0.7, -0.34, hue, radius=0.05)
    brush.rect(-0.62, -0.72, 0.6, -0.46, lighter(hue, 0.45), radius=0.04)
    brush.rect(-0.56, -0.66, 0.64, -0.52, CREAM)
    brush.rect(-0.66, -0.84, 0.58, -0.7, darker(hue, 0.35), radius=0.05)
    brush.rect(-0.4, -0.8, 0.3, -0.75, lighter(hue, 0.6))


@thing("lamp", size=1.35)
def _lamp(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.05, 0.24, 0.06, darker(WOOD))
    brush.rect(-0.04, -0.6, 0.04, -0.04, WOOD)
    brush.oval(0, -0.3, 0.11, 0.14, WOOD)
    brush.oval(0, -0.55, 0.33, 0.07, (255, 240, 170))
    brush.polygon(((-0.2, -1.0), (0.2, -1.0), (0.38, -0.54), (-0.38, -0.54)), hue)
    brush.polygon(((0.05, -1.0), (0.2, -1.0), (0.38, -0.54), (0.14, -0.54)), darker(hue, 0.14))
    brush.rect(-0.37, -0.6, 0.37, -0.55, lighter(hue, 0.5))


@thing("phone", size=0.8)
def _phone(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.27, -1.0, 0.27, 0, INK, radius=0.09)
    brush.rect(-0.22, -0.9, 0.22, -0.12, hue, radius=0.03)
    brush.polygon(((-0.22, -0.9), (0.12, -0.9), (-0.22, -0.4)), lighter(hue, 0.5))
    brush.oval(0, -0.06, 0.04, 0.04, STEEL)
    for row in range(2):
        for column in (-0.12, 0.08):
            brush.rect(column - 0.05, -0.42 + row * 0.15, column + 0.06, -0.32 + row * 0.15, WHITE, radius=0.03)


@thing("laptop", size=0.95, tints="blue teal purple orange pink")
def _laptop(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.62, -0.92, 0.62, -0.08, darker(STEEL, 0.45), radius=0.06)
    brush.rect(-0.55, -0.85, 0.55, -0.17, hue)
    brush.polygon(((-0.55, -0.85), (0.15, -0.85), (-0.3, -0.17), (-0.55, -0.17)), lighter(hue, 0.25))
    brush.polygon(((-0.64, -0.1), (0.64, -0.1), (0.8, 0), (-0.8, 0)), STEEL)
    brush.rect(-0.2, -0.06, 0.2, -0.02, darker(STEEL))


@thing("plant", size=1.4, tints="orange brown blue pink teal white")
def _plant(brush: Brush, hue: Colour) -> None:
    for tilt, reach, green in ((-62, 0.36, 0.0), (62, 0.36, 0.15), (-28, 0.42, 0.15), (30, 0.42, 0.0), (0, 0.45, 0.08)):
        x, y = 0.24 * (tilt / 71), -0.42 - 0.3 * reach / 0.4 + 0.12 * (abs(tilt) / 62)
        brush.oval(x, y, 0.1, reach * 0.78, darker(LEAF, green), tilt=tilt)
    brush.polygon(((-0.25, -0.42), (0.25, -0.42), (0.18, 0), (-0.18, 0)), hue)
    brush.polygon(((0.06, -0.42), (0.25, -0.42), (0.18, 0), (0.05, 0)), darker(hue, 0.14))
    brush.rect(-0.29, -0.46, 0.29, -0.36, lighter(hue, 0.2), radius=0.03)


@thing("cat", size=1.15, tints="orange grey brown white")
def _cat(brush: Brush, hue: Colour) -> None:
    brush.stroke(((0.26, -0.1), (0.5, -0.16), (0.54, -0.42)), 0.1, darker(hue))
    brush.oval(0, -0.28, 0.32, 0.3, hue)
    brush.oval(0, -0.22, 0.17, 0.2, lighter(hue, 0.5))
    for side in (-1, 1):
        brush.oval(side * 0.15, -0.05, 0.13, 0.06, lighter(hue, 0.25))
        brush.polygon(((side * 0.3, -1.0), (side * 0.31, -0.7), (side * 0.08, -0.85)), darker(hue))
        brush.polygon(((side * 0.27, -0.93), (side * 0.27, -0.74), (side * 0.14, -0.83)), (244, 170, 170))
    brush.oval(0, -0.68, 0.34, 0.25, hue)
    for x in (-0.06, 0.0, 0.06):
        brush.rect(x - 0.015, -0.92, x + 0.015, -0.82, darker(hue, 0.3))
    _eyes(brush, 0, -0.7, 0.14, 0.055)
    brush.oval(0, -0.58, 0.12, 0.07, lighter(hue, 0.6))
    brush.oval(0, -0.62, 0.035, 0.025, (220, 110, 120))


@thing("dog", size=1.2, tints="brown orange grey white")
def _dog(brush: Brush, hue: Colour) -> None:
    brush.stroke(((0.5, -0.42), (0.66, -0.64)), 0.1, hue)
    for x in (-0.26, -0.1, 0.3, 0.46):
        brush.rect(x - 0.07, -0.3, x + 0.07, 0, darker(hue, 0.1 if x in (-0.26, 0.46) else 0.22), radius=0.06)
    brush.rect(-0.34, -0.56, 0.54, -0.2, hue, radius=0.17)
    brush.rect(-0.4, -0.56, -0.16, -0.46, (217, 66, 60), radius=0.04)
    brush.oval(-0.32, -0.74, 0.27, 0.24, hue)
    brush.oval(-0.46, -0.64, 0.19, 0.13, lighter(hue, 0.45))
    brush.oval(-0.6, -0.7, 0.065, 0.05, INK)
    brush.oval(-0.1, -0.7, 0.09, 0.2, darker(hue, 0.35), tilt=-12)
    _eyes(brush, -0.38, -0.8, 0.08, 0.045)


@thing("apple", size=0.75, tints="red green yellow")
def _apple(brush: Brush, hue: Colour) -> None:
    brush.oval(0.17, -0.4, 0.3, 0.4, darker(hue, 0.14))
    brush.oval(-0.15, -0.4, 0.32, 0.4, hue)
    brush.oval(0.02, -0.42, 0.3, 0.34, hue)
    brush.oval(-0.25, -0.56, 0.08, 0.12, lighter(hue, 0.55), tilt=25)
    brush.stroke(((0.0, -0.74), (0.05, -0.96)), 0.07, (110, 76, 52))
    brush.oval(0.2, -0.9, 0.17, 0.08, LEAF, tilt=-24)


@thing("banana", size=0.75, tints="yellow")
def _banana(brush: Brush, hue: Colour) -> None:
    outer = [(0.78 * u, 0.92 * v - 0.92) for u, v in arc(5, 175, 12)]
    brush.polygon(outer + [(0.74 * u, 0.44 * v - 0.96) for u, v in arc(175, 5, 12)], darker(hue))
    brush.polygon(outer[1:-1] + [(0.74 * u, 0.62 * v - 0.94) for u, v in arc(165, 15, 12)], hue)
    for side in (-1, 1):
        brush.stroke(((side * 0.75, -0.84), (side * 0.8, -0.97)), 0.11, (122, 92, 54))


@thing("guitar", size=1.6, tints="brown orange red blue")
def _guitar(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.2, 0.24, 0.2, darker(hue))
    brush.oval(0, -0.42, 0.18, 0.15, darker(hue))
    brush.oval(-0.01, -0.2, 0.21, 0.175, hue)
    brush.oval(-0.01, -0.42, 0.155, 0.13, hue)
    brush.oval(0, -0.34, 0.07, 0.065, INK)
    brush.rect(-0.03, -0.9, 0.03, -0.34, (96, 66, 48))
    brush.rect(-0.055, -1.0, 0.055, -0.87, darker(WOOD, 0.3), radius=0.02)
    brush.rect(-0.09, -0.17, 0.09, -0.13, (96, 66, 48))
    brush.rect(-0.007, -0.95, 0.007, -0.15, CREAM)


@thing("vase", size=1.1)
def _vase(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.36, 0.34, 0.36, hue)
    brush.polygon(((-0.14, -0.95), (0.14, -0.95), (0.2, -0.6), (-0.2, -0.6)), hue)
    brush.polygon(
        ((0.02, -0.95), (0.14, -0.95), (0.2, -0.6), (0.32, -0.36), (0.2, -0.1), (0.08, -0.02)), darker(hue, 0.14)
    )
    brush.oval(0, -0.95, 0.2, 0.06, darker(hue, 0.3))
    brush.rect(-0.32, -0.46, 0.32, -0.36, CREAM)
    brush.rect(-0.33, -0.33, 0.33, -0.29, lighter(hue, 0.5))
    brush.rect(-0.16, -0.06, 0.16, 0, darker(hue, 0.25), radius=0.03)


@thing("cake", size=0.95, tints="pink yellow teal purple")
def _cake(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.06, 0.66, 0.07, STEEL)
    brush.rect(-0.55, -0.5, 0.55, -0.06, (214, 160, 104), radius=0.05)
    brush.rect(-0.55, -0.3, 0.55, -0.22, CREAM)
    brush.oval(0, -0.52, 0.55, 0.1, lighter(hue, 0.3))
    for k, drop in enumerate((0.1, 0.18, 0.08, 0.16, 0.11)):
        brush.rect(-0.55 + 0.22 * k, -0.52, -0.33 + 0.22 * k, -0.44 + drop, hue, radius=0.1)
    for x in (-0.3, 0.0, 0.3):
        brush.rect(x - 0.035, -0.82, x + 0.035, -0.52, CREAM)
        brush.rect(x - 0.035, -0.72, x + 0.035, -0.64, (217, 66, 60))
        brush.oval(x, -0.91, 0.05, 0.09, (250, 180, 60))


@thing("kite", "air", size=1.3)
def _kite(brush: Brush, hue: Colour) -> None:
    brush.stroke(((0, -0.3), (0.12, -0.18), (-0.06, -0.08), (0.06, 0.0)), 0.025, INK)
    for x, y in ((0.09, -0.18), (-0.04, -0.07)):
        brush.polygon(((x, y), (x - 0.09, y - 0.05), (x - 0.07, y + 0.05)), lighter(hue, 0.4))
        brush.polygon(((x, y), (x + 0.09, y - 0.04), (x + 0.08, y + 0.05)), hue)
    brush.polygon(((0, -1.0), (0.34, -0.68), (0, -0.28), (-0.34, -0.68)), hue)
    brush.polygon(((0, -1.0), (0.34, -0.68), (0, -0.68)), lighter(hue, 0.5))
    brush.polygon(((0, -0.68), (0, -0.28), (-0.34, -0.68)), darker(hue))


@thing("balloon", "air", size=1.3)
def _balloon(brush: Brush, hue: Colour) -> None:
    brush.stroke(((0, -0.36), (0.05, -0.2), (-0.02, -0.02)), 0.025, darker(STEEL, 0.3))
    brush.polygon(((0, -0.44), (0.06, -0.34), (-0.06, -0.34)), darker(hue))
    brush.oval(0, -0.7, 0.27, 0.31, darker(hue, 0.1))
    brush.oval(-0.02, -0.71, 0.245, 0.29, hue)
    brush.oval(-0.1, -0.82, 0.06, 0.1, lighter(hue, 0.6), tilt=25)


@thing("bird", "air", size=0.8, tints="blue red yellow teal pink")
def _bird(brush: Brush, hue: Colour) -> None:
    brush.polygon(((0.34, -0.45), (0.74, -0.62), (0.7, -0.3)), darker(hue, 0.3))
    brush.oval(0, -0.4, 0.44, 0.3, hue)
    brush.oval(-0.06, -0.28, 0.28, 0.17, lighter(hue, 0.5))
    brush.oval(-0.38, -0.62, 0.23, 0.22, hue)
    brush.polygon(((-0.56, -0.7), (-0.82, -0.58), (-0.56, -0.54)), (246, 168, 60))
    brush.polygon(((-0.16, -0.5), (0.36, -0.5), (0.3, -1.0)), darker(hue))
    _eyes(brush, -0.43, -0.66, 0.0, 0.055)


@thing("plane", "air", size=0.75, tints="red blue yellow white teal")
def _plane(brush: Brush, hue: Colour) -> None:
    brush.polygon(((0.55, -0.6), (0.72, -1.0), (0.9, -1.0), (0.8, -0.55)), darker(hue))
    brush.rect(-0.9, -0.72, 0.85, -0.32, hue, radius=0.2)
    brush.rect(-0.8, -0.5, 0.8, -0.36, CREAM, radius=0.07)
    brush.polygon(((-0.2, -0.5), (0.24, -0.5), (0.5, -0.02), (0.24, -0.02)), darker(hue, 0.25))
    for x in (-0.5, -0.26, -0.02, 0.22):
        brush.oval(x, -0.58, 0.07, 0.065, GLASS)


@thing("car", size=0.85)
def _car(brush: Brush, hue: Colour) -> None:
    brush.polygon(((-0.5, -0.5), (-0.3, -0.92), (0.3, -0.92), (0.52, -0.5)), hue)
    brush.polygon(((-0.4, -0.52), (-0.25, -0.84), (-0.03, -0.84), (-0.03, -0.52)), GLASS)
    brush.polygon(((0.04, -0.52), (0.04, -0.84), (0.25, -0.84), (0.41, -0.52)), GLASS)
    brush.rect(-0.85, -0.56, 0.85, -0.16, hue, radius=0.14)
    brush.rect(-0.84, -0.3, 0.84, -0.16, darker(hue), radius=0.07)
    brush.oval(0.78, -0.42, 0.08, 0.08, (255, 236, 150))
    for x in (-0.45, 0.46):
        brush.oval(x, -0.17, 0.19, 0.17, INK)
        brush.oval(x, -0.17, 0.09, 0.08, STEEL)


@thing("hat", size=0.75, tints="red navy yellow brown purple green")
def _hat(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.14, 0.78, 0.15, darker(hue))
    brush.oval(0, -0.18, 0.74, 0.12, hue)
    brush.rect(-0.4, -0.95, 0.4, -0.15, hue, radius=0.2)
    brush.rect(0.12, -0.93, 0.4, -0.16, darker(hue, 0.12), radius=0.18)
    brush.rect(-0.4, -0.42, 0.4, -0.22, lighter(hue, 0.6))


@thing("fish bowl", size=0.95, tints="orange red yellow")
def _fish_bowl(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.46, 0.52, 0.46, GLASS)
    brush.oval(0, -0.46, 0.49, 0.43, (124, 190, 222), span=(-15, 195))
    brush.oval(0, -0.46, 0.48, 0.42, (224, 200, 148), span=(40, 140))
    brush.oval(0, -0.88, 0.34, 0.06, lighter(GLASS, 0.5))
    brush.polygon(((0.14, -0.4), (0.32, -0.54), (0.32, -0.28)), darker(hue))
    brush.oval(-0.03, -0.4, 0.2, 0.13, hue)
    _eyes(brush, -0.13, -0.42, 0.0, 0.035)
    brush.oval(-0.3, -0.66, 0.05, 0.1, WHITE, tilt=30)


@thing("teapot", size=0.85)
def _teapot(brush: Brush, hue: Colour) -> None:
    brush.band(-0.48, -0.46, 0.26, 0.26, 0.09, darker(hue))
    brush.polygon(((0.3, -0.3), (0.62, -0.7), (0.78, -0.68), (0.46, -0.1)), darker(hue, 0.1))
    brush.oval(0, -0.4, 0.48, 0.4, hue)
    brush.oval(0, -0.4, 0.48, 0.4, darker(hue, 0.1), span=(10, 170))
    brush.oval(0, -0.76, 0.26, 0.08, darker(hue, 0.25))
    brush.oval(0, -0.9, 0.08, 0.09, darker(hue, 0.25))
    for x in (-0.24, 0.0, 0.24):
        brush.oval(x, -0.44, 0.07, 0.07, lighter(hue, 0.6))


@thing("umbrella", size=1.3)
def _umbrella(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.025, -0.9, 0.025, -0.06, (96, 70, 54))
    brush.band(0.09, -0.08, 0.115, 0.09, 0.05, (96, 70, 54), span=(0, 180))
    brush.oval(0, -0.52, 0.6, 0.44, hue, span=(180, 360))
    brush.oval(0, -0.52, 0.34, 0.44, lighter(hue, 0.5), span=(180, 360))
    brush.oval(0, -0.52, 0.12, 0.44, hue, span=(180, 360))
    brush.rect(-0.02, -1.0, 0.02, -0.94, INK)


@thing("bag", size=1.0, tints="red orange green teal blue purple pink brown")
def _bag(brush: Brush, hue: Colour) -> None:
    brush.band(0, -0.62, 0.22, 0.38, 0.07, darker(hue, 0.35), span=(180, 360))
    brush.polygon(((-0.36, -0.64), (0.36, -0.64), (0.46, 0), (-0.46, 0)), hue)
    brush.polygon(((0.12, -0.64), (0.36, -0.64), (0.46, 0), (0.16, 0)), darker(hue, 0.12))
    brush.rect(-0.4, -0.68, 0.4, -0.54, darker(hue, 0.25), radius=0.04)
    brush.oval(-0.06, -0.28, 0.13, 0.13, lighter(hue, 0.6))


@thing("gift", size=0.9)
def _gift(brush: Brush, hue: Colour) -> None:
    ribbon = CREAM if hue[0] + hue[1] > 300 else (247, 205, 74)
    for side in (-1, 1):
        brush.oval(side * 0.16, -0.88, 0.17, 0.1, darker(ribbon), tilt=side * -28)
    brush.rect(-0.44, -0.66, 0.44, 0, hue)
    brush.rect(0.1, -0.66, 0.44, 0, darker(hue, 0.12))
    brush.rect(-0.5, -0.8, 0.5, -0.58, lighter(hue, 0.18), radius=0.03)
    brush.rect(-0.09, -0.8, 0.09, 0, ribbon)
    brush.oval(0, -0.83, 0.09, 0.08, darker(ribbon, 0.3))


@thing("television", size=1.15, tints="blue teal green orange purple")
def _television(brush: Brush, hue: Colour) -> None:
    brush.stroke(((-0.2, -1.0), (0, -0.78), (0.24, -1.0)), 0.035, INK)
    for x in (-0.34, 0.34):
        brush.rect(x - 0.05, -0.14, x + 0.05, 0, darker(WOOD, 0.4))
    brush.rect(-0.62, -0.8, 0.62, -0.08, WOOD, radius=0.08)
    brush.rect(-0.54, -0.72, 0.32, -0.16, INK, radius=0.1)
    brush.rect(-0.49, -0.67, 0.27, -0.21, hue, radius=0.08)
    brush.oval(-0.11, -0.21, 0.36, 0.3, lighter(hue, 0.4), span=(180, 360))
    brush.oval(0.1, -0.55, 0.07, 0.07, (255, 236, 150))
    for y in (-0.6, -0.42):
        brush.oval(0.47, y, 0.07, 0.07, CREAM)


@thing("flower", size=1.15, tints="red orange pink purple white yellow")
def _flower(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.03, -0.6, 0.03, -0.2, LEAF)
    brush.oval(0.13, -0.42, 0.13, 0.06, LEAF, tilt=-30)
    for x, y in ((0, -0.92), (0.2, -0.78), (0.13, -0.57), (-0.13, -0.57), (-0.2, -0.78)):
        brush.oval(x, y, 0.13, 0.13, hue)
    brush.oval(0, -0.72, 0.11, 0.11, (250, 190, 60) if hue[2] > 90 else (110, 72, 48))
    brush.polygon(((-0.2, -0.28), (0.2, -0.28), (0.14, 0), (-0.14, 0)), (206, 120, 84))
    brush.rect(-0.23, -0.31, 0.23, -0.23, (222, 140, 100), radius=0.03)


@thing("bottle", size=1.15, tints="green blue teal brown red purple")
def _bottle(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.07, -0.92, 0.07, -0.6, hue)
    brush.rect(-0.21, -0.68, 0.21, 0, hue, radius=0.12)
    brush.rect(0.06, -0.62, 0.21, -0.02, darker(hue), radius=0.07)
    brush.rect(-0.21, -0.44, 0.21, -0.16, CREAM)
    brush.rect(-0.12, -0.35, 0.12, -0.28, darker(hue))
    brush.rect(-0.09, -1.0, 0.09, -0.9, (247, 205, 74), radius=0.02)


@thing("chair", size=1.5, tints="brown red teal yellow blue")
def _chair(brush: Brush, hue: Colour) -> None:
    for x, foot in ((-0.22, -0.06), (0.24, -0.06), (-0.28, 0.0), (0.3, 0.0)):
        brush.rect(x - 0.03, -0.45, x + 0.03, foot, darker(hue, 0.4 if foot else 0.25))
    brush.rect(-0.3, -1.0, -0.23, -0.42, darker(hue))
    brush.rect(0.23, -1.0, 0.3, -0.42, darker(hue))
    brush.rect(-0.28, -0.97, 0.28, -0.68, hue, radius=0.07)
    brush.rect(-0.32, -0.5, 0.34, -0.38, lighter(hue, 0.25), radius=0.05)


@thing("clock", "wall", size=1.05)
def _clock(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.5, 0.5, 0.5, hue)
    brush.oval(0, -0.5, 0.4, 0.4, (252, 248, 238))
    for u, v in ((0, -1), (1, 0), (0, 1), (-1, 0)):
        brush.oval(0.33 * u, -0.5 + 0.33 * v, 0.035, 0.035, darker(hue, 0.4))
    brush.stroke(((0, -0.5), (-0.14, -0.66)), 0.07, INK)
    brush.stroke(((0, -0.5), (0.2, -0.62)), 0.05, INK)
    brush.oval(0, -0.5, 0.05, 0.05, hue)


@thing("picture", "wall", size=1.15, tints="orange teal blue pink purple")
def _picture(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.6, -1.0, 0.6, 0, darker(WOOD, 0.25))
    brush.rect(-0.55, -0.95, 0.55, -0.05, (224, 176, 116))
    brush.rect(-0.46, -0.86, 0.46, -0.14, lighter(hue, 0.5))
    brush.oval(0.2, -0.66, 0.11, 0.11, (250, 226, 140))
    brush.polygon(((-0.46, -0.14), (-0.46, -0.3), (-0.15, -0.62), (0.2, -0.14)), hue)
    brush.polygon(((-0.1, -0.14), (0.2, -0.44), (0.46, -0.22), (0.46, -0.14)), darker(hue))


@thing("mirror", "wall", size=1.25, tints="yellow brown pink teal")
def _mirror(brush: Brush, hue: Colour) -> None:
    brush.oval(0, -0.5, 0.36, 0.5, hue)
    brush.oval(0, -0.5, 0.29, 0.43, GLASS)
    brush.polygon(((-0.22, -0.46), (0.12, -0.86), (0.2, -0.78), (-0.2, -0.3)), lighter(GLASS, 0.6))
    brush.polygon(((-0.12, -0.2), (0.25, -0.62), (0.26, -0.52), (-0.05, -0.14)), lighter(GLASS, 0.6))


@thing("robot", size=1.1, tints="blue teal orange red purple grey")
def _robot(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.02, -1.0, 0.02, -0.85, INK)
    brush.oval(0, -0.97, 0.06, 0.05, (250, 190, 60))
    for side in (-1, 1):
        brush.stroke(((side * 0.3, -0.42), (side * 0.42, -0.2)), 0.1, darker(hue, 0.3))
        brush.rect(side * 0.15 - 0.09, -0.14, side * 0.15 + 0.09, 0, darker(hue, 0.3), radius=0.04)
    brush.rect(-0.28, -0.48, 0.28, -0.1, hue, radius=0.06)
    brush.rect(-0.3, -0.88, 0.3, -0.5, lighter(hue, 0.2), radius=0.08)
    brush.rect(-0.22, -0.8, 0.22, -0.58, INK, radius=0.06)
    for x in (-0.1, 0.1):
        brush.oval(x, -0.69, 0.06, 0.06, (140, 240, 220))
    brush.rect(-0.14, -0.38, 0.14, -0.22, CREAM, radius=0.03)


@thing("mushroom", size=0.85, tints="red orange brown purple")
def _mushroom(brush: Brush, hue: Colour) -> None:
    brush.rect(-0.17, -0.55, 0.17, 0, CREAM, radius=0.12)
    brush.rect(0.03, -0.5, 0.17, -0.02, darker(CREAM, 0.14), radius=0.08)
    brush.oval(0, -0.44, 0.5, 0.54, hue, span=(180, 360))
    brush.oval(0, -0.44, 0.5, 0.08, darker(hue))
    for x, y, r in ((-0.24, -0.64, 0.09), (0.05, -0.8, 0.08), (0.28, -0.6, 0.07)):
        brush.oval(x, y, r, r, WHITE)


@thing("duck", size=0.85, tints="yellow white pink")
def _duck(brush: Brush, hue: Colour) -> None:
    brush.polygon(((0.35, -0.4), (0.64, -0.62), (0.55, -0.2)), darker(hue, 0.1))
    brush.oval(0.05, -0.28, 0.5, 0.28, hue)
    brush.oval(0.14, -0.3, 0.26, 0.15, darker(hue, 0.12))
    brush.oval(-0.26, -0.7, 0.27, 0.27, hue)
    brush.polygon(((-0.46, -0.74), (-0.78, -0.64), (-0.46, -0.56)), (240, 138, 52))
    _eyes(brush, -0.32, -0.78, 0.0, 0.055)


@thing("rocket", size=1.3, tints="red blue teal orange purple")
def _rocket(brush: Brush, hue: Colour) -> None:
    for side in (-1, 1):
        brush.polygon(((side * 0.14, -0.4), (side * 0.36, -0.02), (side * 0.12, -0.14)), hue)
    brush.polygon(((-0.09, -0.1), (0.09, -0.1), (0.0, 0.0)), (250, 180, 60))
    brush.oval(0, -0.5, 0.2, 0.45, CREAM)
    brush.polygon(((-0.165, -0.74), (0.165, -0.74), (0.07, -0.94), (0, -1.0), (-0.07, -0.94)), hue)
    brush.oval(0, -0.54, 0.095, 0.08, hue)
    brush.oval(0, -0.54, 0.06, 0.05, GLASS)
    brush.rect(-0.13, -0.16, 0.13, -0.08, darker(hue, 0.3), radius=0.02)
