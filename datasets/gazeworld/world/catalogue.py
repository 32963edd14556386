"""The things of the world: a name, where it may rest, how large it is and the few shapes it is drawn with.

A recipe draws in local units: origin at the middle of the foot, y upwards negative, about one unit high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gazebench.datasets.gazeworld.world.pen import INK, WHITE, Colour, Pen, arc, darker, lighter

Mount = Literal["rest", "wall", "air"]
Recipe = Callable[[Pen, Colour], None]

COLOURS: dict[str, Colour] = {
    "red": (217, 66, 60),
    "orange": (240, 138, 52),
    "yellow": (247, 205, 74),
    "green": (90, 162, 88),
    "teal": (42, 157, 148),
    "blue": (62, 124, 200),
    "navy": (52, 70, 120),
    "purple": (132, 92, 176),
    "pink": (240, 134, 166),
    "brown": (148, 102, 68),
    "grey": (146, 150, 158),
    "white": (244, 241, 234),
}
"""The colour words of the world and what they mean."""

WOOD: Colour = (176, 126, 84)
LEAF: Colour = (84, 148, 86)
GLASS: Colour = (190, 222, 232)
CREAM: Colour = (250, 238, 214)
STEEL: Colour = (176, 182, 190)


@dataclass(frozen=True)
class Category:
    """A kind of thing; ``size`` is its height against the usual one, ``tints`` the colours it comes in."""

    name: str
    mount: Mount
    size: float
    tints: tuple[str, ...]
    draw: Recipe


CATEGORIES: dict[str, Category] = {}

BRIGHT = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")


def thing(
    name: str, mount: Mount = "rest", size: float = 1.0, tints: tuple[str, ...] = BRIGHT
) -> Callable[[Recipe], Recipe]:
    """Registers a recipe."""

    def register(draw: Recipe) -> Recipe:
        CATEGORIES[name] = Category(name, mount, size, tints, draw)
        return draw

    return register


def _eyes(pen: Pen, x: float, y: float, apart: float, size: float) -> None:
    for side in (-apart, apart):
        pen.oval(x + side, y, size, size, INK)
        pen.oval(x + side - size * 0.3, y - size * 0.35, size * 0.35, size * 0.35, WHITE)


@thing("ball", size=0.85)
def _ball(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.5, 0.5, 0.5, darker(hue))
    pen.oval(-0.03, -0.53, 0.46, 0.46, hue)
    pen.oval(0, -0.5, 0.2, 0.48, CREAM)
    pen.oval(0, -0.5, 0.1, 0.48, hue)
    pen.oval(-0.22, -0.74, 0.12, 0.08, lighter(hue, 0.6), tilt=-35)


@thing("mug", size=0.8)
def _mug(pen: Pen, hue: Colour) -> None:
    pen.ring(0.4, -0.48, 0.24, 0.27, 0.09, darker(hue))
    pen.bar(-0.42, -0.92, 0.42, 0, hue, round_by=0.12)
    pen.bar(0.2, -0.88, 0.42, -0.02, darker(hue, 0.12), round_by=0.1)
    pen.oval(0, -0.9, 0.42, 0.1, darker(hue, 0.3))
    pen.oval(0, -0.88, 0.34, 0.07, (96, 62, 44))
    pen.bar(-0.3, -0.55, 0.08, -0.38, lighter(hue, 0.55))


@thing("book", size=0.7)
def _book(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.78, -0.4, 0.7, -0.02, darker(hue), round_by=0.06)
    pen.bar(-0.7, -0.35, 0.74, -0.08, CREAM)
    pen.bar(-0.78, -0.46, 0.7, -0.34, hue, round_by=0.05)
    pen.bar(-0.62, -0.72, 0.6, -0.46, lighter(hue, 0.45), round_by=0.04)
    pen.bar(-0.56, -0.66, 0.64, -0.52, CREAM)
    pen.bar(-0.66, -0.84, 0.58, -0.7, darker(hue, 0.35), round_by=0.05)
    pen.bar(-0.4, -0.8, 0.3, -0.75, lighter(hue, 0.6))


@thing("lamp", size=1.35)
def _lamp(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.05, 0.24, 0.06, darker(WOOD))
    pen.bar(-0.04, -0.6, 0.04, -0.04, WOOD)
    pen.oval(0, -0.3, 0.11, 0.14, WOOD)
    pen.oval(0, -0.55, 0.33, 0.07, (255, 240, 170))
    pen.polygon(((-0.2, -1.0), (0.2, -1.0), (0.38, -0.54), (-0.38, -0.54)), hue)
    pen.polygon(((0.05, -1.0), (0.2, -1.0), (0.38, -0.54), (0.14, -0.54)), darker(hue, 0.14))
    pen.bar(-0.37, -0.6, 0.37, -0.55, lighter(hue, 0.5))


@thing("phone", size=0.8)
def _phone(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.27, -1.0, 0.27, 0, INK, round_by=0.09)
    pen.bar(-0.22, -0.9, 0.22, -0.12, hue, round_by=0.03)
    pen.polygon(((-0.22, -0.9), (0.12, -0.9), (-0.22, -0.4)), lighter(hue, 0.5))
    pen.oval(0, -0.06, 0.04, 0.04, STEEL)
    for row in range(2):
        for column in (-0.12, 0.08):
            pen.bar(column - 0.05, -0.42 + row * 0.15, column + 0.06, -0.32 + row * 0.15, WHITE, round_by=0.03)


@thing("laptop", size=0.95, tints=("blue", "teal", "purple", "orange", "pink"))
def _laptop(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.62, -0.92, 0.62, -0.08, darker(STEEL, 0.45), round_by=0.06)
    pen.bar(-0.55, -0.85, 0.55, -0.17, hue)
    pen.polygon(((-0.55, -0.85), (0.15, -0.85), (-0.3, -0.17), (-0.55, -0.17)), lighter(hue, 0.25))
    pen.polygon(((-0.64, -0.1), (0.64, -0.1), (0.8, 0), (-0.8, 0)), STEEL)
    pen.bar(-0.2, -0.06, 0.2, -0.02, darker(STEEL))


@thing("plant", size=1.4, tints=("orange", "brown", "blue", "pink", "teal", "white"))
def _plant(pen: Pen, hue: Colour) -> None:
    for tilt, reach, green in ((-62, 0.36, 0.0), (62, 0.36, 0.15), (-28, 0.42, 0.15), (30, 0.42, 0.0), (0, 0.45, 0.08)):
        lean = tilt / 71
        low = abs(tilt) / 62
        pen.oval(
            0.24 * lean,
            -0.42 - 0.3 * reach / 0.4 + 0.12 * low,
            0.1,
            reach * 0.78,
            darker(LEAF, green),
            tilt=tilt,
        )
    pen.polygon(((-0.25, -0.42), (0.25, -0.42), (0.18, 0), (-0.18, 0)), hue)
    pen.polygon(((0.06, -0.42), (0.25, -0.42), (0.18, 0), (0.05, 0)), darker(hue, 0.14))
    pen.bar(-0.29, -0.46, 0.29, -0.36, lighter(hue, 0.2), round_by=0.03)


@thing("cat", size=1.15, tints=("orange", "grey", "brown", "white"))
def _cat(pen: Pen, hue: Colour) -> None:
    pen.stroke(((0.26, -0.1), (0.5, -0.16), (0.54, -0.42)), 0.1, darker(hue))
    pen.oval(0, -0.28, 0.32, 0.3, hue)
    pen.oval(0, -0.22, 0.17, 0.2, lighter(hue, 0.5))
    for side in (-1, 1):
        pen.oval(side * 0.15, -0.05, 0.13, 0.06, lighter(hue, 0.25))
        pen.polygon(((side * 0.3, -1.0), (side * 0.31, -0.7), (side * 0.08, -0.85)), darker(hue))
        pen.polygon(((side * 0.27, -0.93), (side * 0.27, -0.74), (side * 0.14, -0.83)), (244, 170, 170))
    pen.oval(0, -0.68, 0.34, 0.25, hue)
    for x in (-0.06, 0.0, 0.06):
        pen.bar(x - 0.015, -0.92, x + 0.015, -0.82, darker(hue, 0.3))
    _eyes(pen, 0, -0.7, 0.14, 0.055)
    pen.oval(0, -0.58, 0.12, 0.07, lighter(hue, 0.6))
    pen.oval(0, -0.62, 0.035, 0.025, (220, 110, 120))


@thing("dog", size=1.2, tints=("brown", "orange", "grey", "white"))
def _dog(pen: Pen, hue: Colour) -> None:
    pen.stroke(((0.5, -0.42), (0.66, -0.64)), 0.1, hue)
    for x in (-0.26, -0.1, 0.3, 0.46):
        pen.bar(x - 0.07, -0.3, x + 0.07, 0, darker(hue, 0.1 if x in (-0.26, 0.46) else 0.22), round_by=0.06)
    pen.bar(-0.34, -0.56, 0.54, -0.2, hue, round_by=0.17)
    pen.bar(-0.4, -0.56, -0.16, -0.46, (217, 66, 60), round_by=0.04)
    pen.oval(-0.32, -0.74, 0.27, 0.24, hue)
    pen.oval(-0.46, -0.64, 0.19, 0.13, lighter(hue, 0.45))
    pen.oval(-0.6, -0.7, 0.065, 0.05, INK)
    pen.oval(-0.1, -0.7, 0.09, 0.2, darker(hue, 0.35), tilt=-12)
    _eyes(pen, -0.38, -0.8, 0.08, 0.045)


@thing("apple", size=0.75, tints=("red", "green", "yellow"))
def _apple(pen: Pen, hue: Colour) -> None:
    pen.oval(0.17, -0.4, 0.3, 0.4, darker(hue, 0.14))
    pen.oval(-0.15, -0.4, 0.32, 0.4, hue)
    pen.oval(0.02, -0.42, 0.3, 0.34, hue)
    pen.oval(-0.25, -0.56, 0.08, 0.12, lighter(hue, 0.55), tilt=25)
    pen.stroke(((0.0, -0.74), (0.05, -0.96)), 0.07, (110, 76, 52))
    pen.oval(0.2, -0.9, 0.17, 0.08, LEAF, tilt=-24)


@thing("banana", size=0.75, tints=("yellow",))
def _banana(pen: Pen, hue: Colour) -> None:
    outer = [(0.78 * u, 0.92 * v - 0.92) for u, v in arc(5, 175, 12)]
    pen.polygon(outer + [(0.74 * u, 0.44 * v - 0.96) for u, v in arc(175, 5, 12)], darker(hue))
    pen.polygon(outer[1:-1] + [(0.74 * u, 0.62 * v - 0.94) for u, v in arc(165, 15, 12)], hue)
    for side in (-1, 1):
        pen.stroke(((side * 0.75, -0.84), (side * 0.8, -0.97)), 0.11, (122, 92, 54))


@thing("guitar", size=1.6, tints=("brown", "orange", "red", "blue"))
def _guitar(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.2, 0.24, 0.2, darker(hue))
    pen.oval(0, -0.42, 0.18, 0.15, darker(hue))
    pen.oval(-0.01, -0.2, 0.21, 0.175, hue)
    pen.oval(-0.01, -0.42, 0.155, 0.13, hue)
    pen.oval(0, -0.34, 0.07, 0.065, INK)
    pen.bar(-0.03, -0.9, 0.03, -0.34, (96, 66, 48))
    pen.bar(-0.055, -1.0, 0.055, -0.87, darker(WOOD, 0.3), round_by=0.02)
    pen.bar(-0.09, -0.17, 0.09, -0.13, (96, 66, 48))
    pen.bar(-0.007, -0.95, 0.007, -0.15, CREAM)


@thing("vase", size=1.1)
def _vase(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.36, 0.34, 0.36, hue)
    pen.polygon(((-0.14, -0.95), (0.14, -0.95), (0.2, -0.6), (-0.2, -0.6)), hue)
    pen.polygon(
        ((0.02, -0.95), (0.14, -0.95), (0.2, -0.6), (0.32, -0.36), (0.2, -0.1), (0.08, -0.02)), darker(hue, 0.14)
    )
    pen.oval(0, -0.95, 0.2, 0.06, darker(hue, 0.3))
    pen.bar(-0.32, -0.46, 0.32, -0.36, CREAM)
    pen.bar(-0.33, -0.33, 0.33, -0.29, lighter(hue, 0.5))
    pen.bar(-0.16, -0.06, 0.16, 0, darker(hue, 0.25), round_by=0.03)


@thing("cake", size=0.95, tints=("pink", "yellow", "teal", "purple"))
def _cake(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.06, 0.66, 0.07, STEEL)
    pen.bar(-0.55, -0.5, 0.55, -0.06, (214, 160, 104), round_by=0.05)
    pen.bar(-0.55, -0.3, 0.55, -0.22, CREAM)
    pen.oval(0, -0.52, 0.55, 0.1, lighter(hue, 0.3))
    for k, drop in enumerate((0.1, 0.18, 0.08, 0.16, 0.11)):
        pen.bar(-0.55 + 0.22 * k, -0.52, -0.33 + 0.22 * k, -0.44 + drop, hue, round_by=0.1)
    for x in (-0.3, 0.0, 0.3):
        pen.bar(x - 0.035, -0.82, x + 0.035, -0.52, CREAM)
        pen.bar(x - 0.035, -0.72, x + 0.035, -0.64, (217, 66, 60))
        pen.oval(x, -0.91, 0.05, 0.09, (250, 180, 60))


@thing("kite", "air", size=1.3)
def _kite(pen: Pen, hue: Colour) -> None:
    pen.stroke(((0, -0.3), (0.12, -0.18), (-0.06, -0.08), (0.06, 0.0)), 0.025, INK)
    for x, y in ((0.09, -0.18), (-0.04, -0.07)):
        pen.polygon(((x, y), (x - 0.09, y - 0.05), (x - 0.07, y + 0.05)), lighter(hue, 0.4))
        pen.polygon(((x, y), (x + 0.09, y - 0.04), (x + 0.08, y + 0.05)), hue)
    pen.polygon(((0, -1.0), (0.34, -0.68), (0, -0.28), (-0.34, -0.68)), hue)
    pen.polygon(((0, -1.0), (0.34, -0.68), (0, -0.68)), lighter(hue, 0.5))
    pen.polygon(((0, -0.68), (0, -0.28), (-0.34, -0.68)), darker(hue))


@thing("balloon", "air", size=1.3)
def _balloon(pen: Pen, hue: Colour) -> None:
    pen.stroke(((0, -0.36), (0.05, -0.2), (-0.02, -0.02)), 0.025, darker(STEEL, 0.3))
    pen.polygon(((0, -0.44), (0.06, -0.34), (-0.06, -0.34)), darker(hue))
    pen.oval(0, -0.7, 0.27, 0.31, darker(hue, 0.1))
    pen.oval(-0.02, -0.71, 0.245, 0.29, hue)
    pen.oval(-0.1, -0.82, 0.06, 0.1, lighter(hue, 0.6), tilt=25)


@thing("bird", "air", size=0.8, tints=("blue", "red", "yellow", "teal", "pink"))
def _bird(pen: Pen, hue: Colour) -> None:
    pen.polygon(((0.34, -0.45), (0.74, -0.62), (0.7, -0.3)), darker(hue, 0.3))
    pen.oval(0, -0.4, 0.44, 0.3, hue)
    pen.oval(-0.06, -0.28, 0.28, 0.17, lighter(hue, 0.5))
    pen.oval(-0.38, -0.62, 0.23, 0.22, hue)
    pen.polygon(((-0.56, -0.7), (-0.82, -0.58), (-0.56, -0.54)), (246, 168, 60))
    pen.polygon(((-0.16, -0.5), (0.36, -0.5), (0.3, -1.0)), darker(hue))
    _eyes(pen, -0.43, -0.66, 0.0, 0.055)


@thing("plane", "air", size=0.75, tints=("red", "blue", "yellow", "white", "teal"))
def _plane(pen: Pen, hue: Colour) -> None:
    pen.polygon(((0.55, -0.6), (0.72, -1.0), (0.9, -1.0), (0.8, -0.55)), darker(hue))
    pen.bar(-0.9, -0.72, 0.85, -0.32, hue, round_by=0.2)
    pen.bar(-0.8, -0.5, 0.8, -0.36, CREAM, round_by=0.07)
    pen.polygon(((-0.2, -0.5), (0.24, -0.5), (0.5, -0.02), (0.24, -0.02)), darker(hue, 0.25))
    for x in (-0.5, -0.26, -0.02, 0.22):
        pen.oval(x, -0.58, 0.07, 0.065, GLASS)


@thing("car", size=0.85)
def _car(pen: Pen, hue: Colour) -> None:
    pen.polygon(((-0.5, -0.5), (-0.3, -0.92), (0.3, -0.92), (0.52, -0.5)), hue)
    pen.polygon(((-0.4, -0.52), (-0.25, -0.84), (-0.03, -0.84), (-0.03, -0.52)), GLASS)
    pen.polygon(((0.04, -0.52), (0.04, -0.84), (0.25, -0.84), (0.41, -0.52)), GLASS)
    pen.bar(-0.85, -0.56, 0.85, -0.16, hue, round_by=0.14)
    pen.bar(-0.84, -0.3, 0.84, -0.16, darker(hue), round_by=0.07)
    pen.oval(0.78, -0.42, 0.08, 0.08, (255, 236, 150))
    for x in (-0.45, 0.46):
        pen.oval(x, -0.17, 0.19, 0.17, INK)
        pen.oval(x, -0.17, 0.09, 0.08, STEEL)


@thing("hat", size=0.75, tints=("red", "navy", "yellow", "brown", "purple", "green"))
def _hat(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.14, 0.78, 0.15, darker(hue))
    pen.oval(0, -0.18, 0.74, 0.12, hue)
    pen.bar(-0.4, -0.95, 0.4, -0.15, hue, round_by=0.2)
    pen.bar(0.12, -0.93, 0.4, -0.16, darker(hue, 0.12), round_by=0.18)
    pen.bar(-0.4, -0.42, 0.4, -0.22, lighter(hue, 0.6))


@thing("fish bowl", size=0.95, tints=("orange", "red", "yellow"))
def _fish_bowl(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.46, 0.52, 0.46, GLASS)
    pen.pie(0, -0.46, 0.49, 0.43, -15, 195, (124, 190, 222))
    pen.pie(0, -0.46, 0.48, 0.42, 40, 140, (224, 200, 148))
    pen.oval(0, -0.88, 0.34, 0.06, lighter(GLASS, 0.5))
    pen.polygon(((0.14, -0.4), (0.32, -0.54), (0.32, -0.28)), darker(hue))
    pen.oval(-0.03, -0.4, 0.2, 0.13, hue)
    _eyes(pen, -0.13, -0.42, 0.0, 0.035)
    pen.oval(-0.3, -0.66, 0.05, 0.1, WHITE, tilt=30)


@thing("teapot", size=0.85)
def _teapot(pen: Pen, hue: Colour) -> None:
    pen.ring(-0.48, -0.46, 0.26, 0.26, 0.09, darker(hue))
    pen.polygon(((0.3, -0.3), (0.62, -0.7), (0.78, -0.68), (0.46, -0.1)), darker(hue, 0.1))
    pen.oval(0, -0.4, 0.48, 0.4, hue)
    pen.pie(0, -0.4, 0.48, 0.4, 10, 170, darker(hue, 0.1))
    pen.oval(0, -0.76, 0.26, 0.08, darker(hue, 0.25))
    pen.oval(0, -0.9, 0.08, 0.09, darker(hue, 0.25))
    for x in (-0.24, 0.0, 0.24):
        pen.oval(x, -0.44, 0.07, 0.07, lighter(hue, 0.6))


@thing("umbrella", size=1.3)
def _umbrella(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.025, -0.9, 0.025, -0.06, (96, 70, 54))
    pen.bow(0.09, -0.08, 0.115, 0.09, 0, 180, 0.05, (96, 70, 54))
    pen.pie(0, -0.52, 0.6, 0.44, 180, 360, hue)
    pen.pie(0, -0.52, 0.34, 0.44, 180, 360, lighter(hue, 0.5))
    pen.pie(0, -0.52, 0.12, 0.44, 180, 360, hue)
    pen.bar(-0.02, -1.0, 0.02, -0.94, INK)


@thing("bag", size=1.0, tints=("red", "orange", "green", "teal", "blue", "purple", "pink", "brown"))
def _bag(pen: Pen, hue: Colour) -> None:
    pen.bow(0, -0.62, 0.22, 0.38, 180, 360, 0.07, darker(hue, 0.35))
    pen.polygon(((-0.36, -0.64), (0.36, -0.64), (0.46, 0), (-0.46, 0)), hue)
    pen.polygon(((0.12, -0.64), (0.36, -0.64), (0.46, 0), (0.16, 0)), darker(hue, 0.12))
    pen.bar(-0.4, -0.68, 0.4, -0.54, darker(hue, 0.25), round_by=0.04)
    pen.oval(-0.06, -0.28, 0.13, 0.13, lighter(hue, 0.6))


@thing("gift", size=0.9)
def _gift(pen: Pen, hue: Colour) -> None:
    ribbon = CREAM if hue[0] + hue[1] > 300 else (247, 205, 74)
    for side in (-1, 1):
        pen.oval(side * 0.16, -0.88, 0.17, 0.1, darker(ribbon), tilt=side * -28)
    pen.bar(-0.44, -0.66, 0.44, 0, hue)
    pen.bar(0.1, -0.66, 0.44, 0, darker(hue, 0.12))
    pen.bar(-0.5, -0.8, 0.5, -0.58, lighter(hue, 0.18), round_by=0.03)
    pen.bar(-0.09, -0.8, 0.09, 0, ribbon)
    pen.oval(0, -0.83, 0.09, 0.08, darker(ribbon, 0.3))


@thing("television", size=1.15, tints=("blue", "teal", "green", "orange", "purple"))
def _television(pen: Pen, hue: Colour) -> None:
    pen.stroke(((-0.2, -1.0), (0, -0.78), (0.24, -1.0)), 0.035, INK)
    for x in (-0.34, 0.34):
        pen.bar(x - 0.05, -0.14, x + 0.05, 0, darker(WOOD, 0.4))
    pen.bar(-0.62, -0.8, 0.62, -0.08, WOOD, round_by=0.08)
    pen.bar(-0.54, -0.72, 0.32, -0.16, INK, round_by=0.1)
    pen.bar(-0.49, -0.67, 0.27, -0.21, hue, round_by=0.08)
    pen.pie(-0.11, -0.21, 0.36, 0.3, 180, 360, lighter(hue, 0.4))
    pen.oval(0.1, -0.55, 0.07, 0.07, (255, 236, 150))
    for y in (-0.6, -0.42):
        pen.oval(0.47, y, 0.07, 0.07, CREAM)


@thing("flower", size=1.15, tints=("red", "orange", "pink", "purple", "white", "yellow"))
def _flower(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.03, -0.6, 0.03, -0.2, LEAF)
    pen.oval(0.13, -0.42, 0.13, 0.06, LEAF, tilt=-30)
    for x, y in ((0, -0.92), (0.2, -0.78), (0.13, -0.57), (-0.13, -0.57), (-0.2, -0.78)):
        pen.oval(x, y, 0.13, 0.13, hue)
    pen.oval(0, -0.72, 0.11, 0.11, (250, 190, 60) if hue[2] > 90 else (110, 72, 48))
    pen.polygon(((-0.2, -0.28), (0.2, -0.28), (0.14, 0), (-0.14, 0)), (206, 120, 84))
    pen.bar(-0.23, -0.31, 0.23, -0.23, (222, 140, 100), round_by=0.03)


@thing("bottle", size=1.15, tints=("green", "blue", "teal", "brown", "red", "purple"))
def _bottle(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.07, -0.92, 0.07, -0.6, hue)
    pen.bar(-0.21, -0.68, 0.21, 0, hue, round_by=0.12)
    pen.bar(0.06, -0.62, 0.21, -0.02, darker(hue), round_by=0.07)
    pen.bar(-0.21, -0.44, 0.21, -0.16, CREAM)
    pen.bar(-0.12, -0.35, 0.12, -0.28, darker(hue))
    pen.bar(-0.09, -1.0, 0.09, -0.9, (247, 205, 74), round_by=0.02)


@thing("chair", size=1.5, tints=("brown", "red", "teal", "yellow", "blue"))
def _chair(pen: Pen, hue: Colour) -> None:
    for x, foot in ((-0.22, -0.06), (0.24, -0.06), (-0.28, 0.0), (0.3, 0.0)):
        pen.bar(x - 0.03, -0.45, x + 0.03, foot, darker(hue, 0.4 if foot else 0.25))
    pen.bar(-0.3, -1.0, -0.23, -0.42, darker(hue))
    pen.bar(0.23, -1.0, 0.3, -0.42, darker(hue))
    pen.bar(-0.28, -0.97, 0.28, -0.68, hue, round_by=0.07)
    pen.bar(-0.32, -0.5, 0.34, -0.38, lighter(hue, 0.25), round_by=0.05)


@thing("clock", "wall", size=1.05)
def _clock(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.5, 0.5, 0.5, hue)
    pen.oval(0, -0.5, 0.4, 0.4, (252, 248, 238))
    for u, v in ((0, -1), (1, 0), (0, 1), (-1, 0)):
        pen.oval(0.33 * u, -0.5 + 0.33 * v, 0.035, 0.035, darker(hue, 0.4))
    pen.stroke(((0, -0.5), (-0.14, -0.66)), 0.07, INK)
    pen.stroke(((0, -0.5), (0.2, -0.62)), 0.05, INK)
    pen.oval(0, -0.5, 0.05, 0.05, hue)


@thing("picture", "wall", size=1.15, tints=("orange", "teal", "blue", "pink", "purple"))
def _picture(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.6, -1.0, 0.6, 0, darker(WOOD, 0.25))
    pen.bar(-0.55, -0.95, 0.55, -0.05, (224, 176, 116))
    pen.bar(-0.46, -0.86, 0.46, -0.14, lighter(hue, 0.5))
    pen.oval(0.2, -0.66, 0.11, 0.11, (250, 226, 140))
    pen.polygon(((-0.46, -0.14), (-0.46, -0.3), (-0.15, -0.62), (0.2, -0.14)), hue)
    pen.polygon(((-0.1, -0.14), (0.2, -0.44), (0.46, -0.22), (0.46, -0.14)), darker(hue))


@thing("mirror", "wall", size=1.25, tints=("yellow", "brown", "pink", "teal"))
def _mirror(pen: Pen, hue: Colour) -> None:
    pen.oval(0, -0.5, 0.36, 0.5, hue)
    pen.oval(0, -0.5, 0.29, 0.43, GLASS)
    pen.polygon(((-0.22, -0.46), (0.12, -0.86), (0.2, -0.78), (-0.2, -0.3)), lighter(GLASS, 0.6))
    pen.polygon(((-0.12, -0.2), (0.25, -0.62), (0.26, -0.52), (-0.05, -0.14)), lighter(GLASS, 0.6))


@thing("robot", size=1.1, tints=("blue", "teal", "orange", "red", "purple", "grey"))
def _robot(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.02, -1.0, 0.02, -0.85, INK)
    pen.oval(0, -0.97, 0.06, 0.05, (250, 190, 60))
    for side in (-1, 1):
        pen.stroke(((side * 0.3, -0.42), (side * 0.42, -0.2)), 0.1, darker(hue, 0.3))
        pen.bar(side * 0.15 - 0.09, -0.14, side * 0.15 + 0.09, 0, darker(hue, 0.3), round_by=0.04)
    pen.bar(-0.28, -0.48, 0.28, -0.1, hue, round_by=0.06)
    pen.bar(-0.3, -0.88, 0.3, -0.5, lighter(hue, 0.2), round_by=0.08)
    pen.bar(-0.22, -0.8, 0.22, -0.58, INK, round_by=0.06)
    for x in (-0.1, 0.1):
        pen.oval(x, -0.69, 0.06, 0.06, (140, 240, 220))
    pen.bar(-0.14, -0.38, 0.14, -0.22, CREAM, round_by=0.03)


@thing("mushroom", size=0.85, tints=("red", "orange", "brown", "purple"))
def _mushroom(pen: Pen, hue: Colour) -> None:
    pen.bar(-0.17, -0.55, 0.17, 0, CREAM, round_by=0.12)
    pen.bar(0.03, -0.5, 0.17, -0.02, darker(CREAM, 0.14), round_by=0.08)
    pen.pie(0, -0.44, 0.5, 0.54, 180, 360, hue)
    pen.oval(0, -0.44, 0.5, 0.08, darker(hue))
    for x, y, r in ((-0.24, -0.64, 0.09), (0.05, -0.8, 0.08), (0.28, -0.6, 0.07)):
        pen.oval(x, y, r, r, WHITE)


@thing("duck", size=0.85, tints=("yellow", "white", "pink"))
def _duck(pen: Pen, hue: Colour) -> None:
    pen.polygon(((0.35, -0.4), (0.64, -0.62), (0.55, -0.2)), darker(hue, 0.1))
    pen.oval(0.05, -0.28, 0.5, 0.28, hue)
    pen.oval(0.14, -0.3, 0.26, 0.15, darker(hue, 0.12))
    pen.oval(-0.26, -0.7, 0.27, 0.27, hue)
    pen.polygon(((-0.46, -0.74), (-0.78, -0.64), (-0.46, -0.56)), (240, 138, 52))
    _eyes(pen, -0.32, -0.78, 0.0, 0.055)


@thing("rocket", size=1.3, tints=("red", "blue", "teal", "orange", "purple"))
def _rocket(pen: Pen, hue: Colour) -> None:
    for side in (-1, 1):
        pen.polygon(((side * 0.14, -0.4), (side * 0.36, -0.02), (side * 0.12, -0.14)), hue)
    pen.polygon(((-0.09, -0.1), (0.09, -0.1), (0.0, 0.0)), (250, 180, 60))
    pen.oval(0, -0.5, 0.2, 0.45, CREAM)
    pen.polygon(((-0.165, -0.74), (0.165, -0.74), (0.07, -0.94), (0, -1.0), (-0.07, -0.94)), hue)
    pen.oval(0, -0.54, 0.095, 0.08, hue)
    pen.oval(0, -0.54, 0.06, 0.05, GLASS)
    pen.bar(-0.13, -0.16, 0.13, -0.08, darker(hue, 0.3), round_by=0.02)
