"""Drawing scenes: the place, then people and things from far to near, then a grain over everything."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from gazebench.datasets.gazeworld import figure
from gazebench.datasets.gazeworld.canvas import WHITE, Brush, Canvas, Colour, blend, darker, lighter, palette
from gazebench.datasets.gazeworld.catalogue import CATEGORIES, COLOURS, WOOD
from gazebench.datasets.gazeworld.rng import Rng, seeded
from gazebench.datasets.gazeworld.scene import Person, Scene, Thing

Pixels = npt.NDArray[np.uint8]

# By `Backdrop.palette`.
WALLS = palette("e2d6c4 cedad6 d6cede e6cebe c8d2e0 d8dcc4")
FLOORS = palette("ba9676 a89c92 c4a482 968884 b2a096 a08c74")
SKIES = tuple(
    zip(
        palette("96c8e8 a8c4e2 84bcde becede b0bce0 92ceda"),  # at the top
        palette("deeef2 f4e2ce cee8ee e8ecec fadece e6f2e2"),  # at the horizon
        strict=True,
    )
)
GRASS = palette("98ba76 86b07c a8bc74 90ac82 9eb284 7eac84")
SAND: Colour = (236, 214, 172)
SEA: Colour = (98, 170, 194)
SHADOW: Colour = (40, 36, 48)


@overload
def draw(scene: Scene, width: int, height: int, mask: Literal[False] = False) -> Pixels: ...
@overload
def draw(scene: Scene, width: int, height: int, mask: Literal[True]) -> tuple[Pixels, Pixels]: ...
def draw(scene: Scene, width: int, height: int, mask: bool = False) -> Pixels | tuple[Pixels, Pixels]:
    """Draws a scene at any size; an aspect other than its own squeezes it, as resizing would.

    Returns:
        (height, width, 3) uint8 RGB; with ``mask`` also (height, width) uint8, the id of the thing or person seen at
        each pixel, 0 for the place.
    """
    canvas = Canvas(width, height, scene.aspect, 3 if height <= 320 else 2, mask)
    if scene.backdrop.kind in ("room", "table"):
        _indoors(canvas, scene)
    else:
        _outdoors(canvas, scene)
    held = {thing.holder: thing for thing in scene.things if thing.holder}
    layers: list[tuple[float, int, Person | Thing | None]] = [(t.depth, t.id, t) for t in scene.things if not t.holder]
    layers += [(person.depth, person.id, person) for person in scene.people]
    if scene.backdrop.kind == "table":
        layers.append((0.45, 0, None))
    for _, _, layer in sorted(layers, key=lambda item: (-item[0], item[1])):
        if layer is None:
            _table(canvas, scene)
        elif isinstance(layer, Thing):
            _thing(canvas, scene, layer)
        else:
            _person(canvas, scene, layer)
            if layer.id in held:
                _thing(canvas, scene, held[layer.id])
                _hands(canvas, scene, layer, held[layer.id])
    pixels = np.array(ImageChops.multiply(canvas.image.reduce(canvas.supersample), _grain(scene, width, height)))
    if canvas.map is None:
        return pixels
    # The middle sample of each pixel, because ids cannot be averaged.
    middle = canvas.supersample // 2
    return pixels, np.array(canvas.map)[middle :: canvas.supersample, middle :: canvas.supersample].copy()


def _grain(scene: Scene, width: int, height: int) -> Image.Image:
    """A coarse mottle, the same at every size, and a light that falls off to the edges."""
    noise = np.frombuffer(seeded("grain", scene.backdrop.grain).bytes(96 * 72), dtype=np.uint8).reshape(72, 96)
    rows, columns = np.ogrid[-35.5:36.5, -47.5:48.5]
    edge = (rows / 36) ** 2 + (columns / 48) ** 2
    light = 255 - noise // 44 - (edge * 4).astype(np.uint8)
    return Image.fromarray(light.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")


def _gradient(canvas: Canvas, top: float, bottom: float, first: Colour, last: Colour) -> None:
    """Fills the rows from ``top`` to ``bottom`` with colours from ``first`` to ``last``."""
    steps, width = 24, canvas.size[0]
    for k in range(steps):
        y0, y1 = ((top + (bottom - top) * (k + j) / steps) * canvas.scale[1] for j in (0, 1))
        canvas.opaque.rectangle((0, y0, width, y1), fill=blend(first, last, k / (steps - 1)))


def _indoors(canvas: Canvas, scene: Scene) -> None:
    backdrop, aspect = scene.backdrop, scene.aspect
    # Behind a table the wall ends below the table's edge, out of sight.
    horizon = backdrop.horizon + (0.06 if backdrop.kind == "table" else 0.0)
    wall, floor = WALLS[backdrop.palette], FLOORS[backdrop.palette]
    brush = Brush(canvas, 0, 0, 1)
    _gradient(canvas, 0, horizon, lighter(wall, 0.35), lighter(wall, 0.1))
    _wallpaper(brush, backdrop.pattern, aspect, horizon, wall)
    if backdrop.decor == "window":
        _window(brush, backdrop.decor_x * aspect, SKIES[backdrop.palette])
    elif backdrop.decor == "curtain":
        for side in (0.0, aspect):
            for k in range(3):
                colour = blend(wall, FLOORS[backdrop.palette - 1], 0.25 + 0.1 * k)
                brush.oval(side, 0.0, 0.2 - 0.05 * k, horizon + 0.25, colour)
    brush.rect(0, horizon - 0.022, aspect, horizon, lighter(wall, 0.45))
    _gradient(canvas, horizon, 1, darker(floor, 0.08), lighter(floor, 0.16))
    brush.rect(0, horizon, aspect, horizon + 0.012, darker(floor, 0.3))
    line, middle = darker(floor, 0.16), aspect / 2
    if backdrop.flooring == "planks":
        for k in range(-7, 8):
            far, near = middle + 0.24 * k, middle + 1.9 * (0.24 * k)
            brush.polygon(
                ((far - 0.004, horizon), (far + 0.004, horizon), (near + 0.008, 1.0), (near - 0.008, 1.0)), line
            )
    elif backdrop.flooring == "tiles":
        rows = [horizon + (1 - horizon) * share for share in (0.0, 0.14, 0.34, 0.62, 1.0)]
        for row, (top, bottom) in enumerate(pairwise(rows)):
            far, near = (0.6 + 0.9 * (y - horizon) / (1 - horizon) for y in (top, bottom))
            for k in range(-8 + row % 2, 8, 2):
                corners = ((k, far, top), (k + 1, far, top), (k + 1, near, bottom), (k, near, bottom))
                brush.polygon([(middle + 0.2 * column * wide, y) for column, wide, y in corners], line)


def _wallpaper(brush: Brush, pattern: str, aspect: float, horizon: float, wall: Colour) -> None:
    soft = darker(wall, 0.03)
    if pattern == "stripes":
        for k in range(int(aspect / 0.12) + 1):
            brush.rect(0.12 * k, 0, 0.12 * k + 0.05, horizon, soft, alpha=150)
    elif pattern == "dots":
        for row in range(int(horizon / 0.09) + 1):
            for k in range(int(aspect / 0.11) + 1):
                x, y, r = 0.11 * k + 0.055 * (row % 2), 0.09 * row + 0.03, 0.014
                brush.polygon(((x, y - r), (x + r, y), (x, y + r), (x - r, y)), soft)
    elif pattern == "panels":
        brush.rect(0, horizon - 0.2, aspect, horizon, lighter(wall, 0.3))
        brush.rect(0, horizon - 0.205, aspect, horizon - 0.19, darker(wall, 0.12))
        for k in range(int(aspect / 0.2) + 1):
            brush.rect(0.2 * k + 0.02, horizon - 0.17, 0.2 * k + 0.17, horizon - 0.045, lighter(wall, 0.18))
    elif pattern == "bricks":
        for row in range(int(horizon / 0.07) + 1):
            brush.rect(0, 0.07 * row, aspect, 0.07 * row + 0.005, soft)
            for k in range(int(aspect / 0.16) + 1):
                x = 0.16 * k + 0.08 * (row % 2)
                brush.rect(x, 0.07 * row, x + 0.005, 0.07 * row + 0.07, soft)


def _window(brush: Brush, x: float, sky: tuple[Colour, Colour]) -> None:
    brush.rect(x - 0.17, 0.06, x + 0.17, 0.44, lighter(WOOD, 0.65))
    for left in (x - 0.15, x + 0.01):
        brush.rect(left, 0.08, left + 0.14, 0.42, blend(*sky, 0.35))
        hill = ((0, 0.42), (0, 0.36), (0.06, 0.33), (0.14, 0.37), (0.14, 0.42))
        brush.polygon([(left + dx, y) for dx, y in hill], (172, 196, 160))
        brush.polygon(((left, 0.2), (left, 0.14), (left + 0.05, 0.08), (left + 0.1, 0.08)), WHITE, 70)
    brush.rect(x - 0.2, 0.44, x + 0.2, 0.465, lighter(WOOD, 0.5))


def _outdoors(canvas: Canvas, scene: Scene) -> None:
    backdrop, aspect, horizon = scene.backdrop, scene.aspect, scene.backdrop.horizon
    high, low = SKIES[backdrop.palette]
    rng = Rng("outdoors", backdrop.grain)
    brush = Brush(canvas, 0, 0, 1)
    _gradient(canvas, 0, horizon, high, low)
    for _ in range(rng.integer(2, 4)):
        x, y, size = rng.uniform(0, aspect), rng.uniform(0.05, 0.28), rng.uniform(0.05, 0.09)
        for dx, r in ((-0.9, 0.55), (0.0, 0.8), (0.85, 0.6)):
            brush.oval(x + dx * size, y, r * 1.3 * size, r * 0.62 * size, WHITE, alpha=150)
    if backdrop.kind == "beach":
        _gradient(canvas, horizon - 0.13, horizon + 0.06, darker(SEA, 0.06), lighter(SEA, 0.3))
        _gradient(canvas, horizon + 0.04, 1, SAND, SAND)
        for _ in range(7):
            x, y = rng.uniform(0, aspect), rng.uniform(horizon - 0.11, horizon - 0.01)
            brush.rect(x, y, x + rng.uniform(0.06, 0.16), y + 0.005, lighter(SEA, 0.5), radius=0.0025)
        for drop, colour in ((0.0, lighter(SAND, 0.5)), (0.018, SAND)):
            brush.oval(aspect / 2, horizon + drop + 0.3, aspect * 1.6, 0.3, colour)
        speck = darker(SAND, 0.12)
    else:
        grass = GRASS[backdrop.palette]
        leaves = blend(darker(grass, 0.25), low, 0.3)
        for k, share in enumerate((0.5, 0.28)):
            x, tall = rng.uniform(0, aspect), rng.uniform(0.08, 0.2) / (k + 1)
            brush.oval(x, horizon + 0.06, aspect * 0.62, tall + 0.06, blend(grass, low, share))
        for _ in range(rng.integer(3, 6)):
            x, y, size = rng.uniform(0, aspect), horizon + 0.015, rng.uniform(0.1, 0.24)
            brush.rect(x - 0.07 * size, y - 0.4 * size, x + 0.07 * size, y, blend(WOOD, leaves, 0.4))
            brush.oval(x, y - 0.65 * size, 0.34 * size, 0.4 * size, leaves)
            brush.oval(x - 0.08 * size, y - 0.74 * size, 0.2 * size, 0.22 * size, lighter(leaves, 0.14))
        _gradient(canvas, horizon, 1, lighter(grass, 0.05), lighter(grass, 0.28))
        speck = darker(grass, 0.06)
    for _ in range(46):
        x, y = rng.uniform(0, aspect), rng.uniform(horizon + 0.05, 1)
        r = 0.012 + 0.03 * (y - horizon)
        brush.polygon(((x - r, y), (x - r / 3, y - r), (x, y - r / 4), (x + r / 2, y - r), (x + r, y)), speck)


def _table(canvas: Canvas, scene: Scene) -> None:
    horizon, aspect = scene.backdrop.horizon, scene.aspect
    wood = blend(WOOD, FLOORS[scene.backdrop.palette], 0.55)
    _gradient(canvas, horizon, 1, wood, lighter(wood, 0.22))
    brush = Brush(canvas, 0, 0, 1)
    for k in range(1, 5):
        y = horizon + (1 - horizon) * (k / 5) ** 1.4
        brush.rect(0, y, aspect, y + 0.004, darker(wood, 0.1))
    brush.rect(0, horizon, aspect, horizon + 0.012, lighter(wood, 0.45))
    if canvas.ids:
        canvas.ids.rectangle((0, horizon * canvas.scale[1], *canvas.size), fill=0)


def _person(canvas: Canvas, scene: Scene, person: Person) -> None:
    x, size = person.x * scene.aspect, person.size
    if person.look.pose != "bust":
        feet = person.y + figure.FEET[person.look.pose] * size
        Brush(canvas, x, feet, size).oval(0, 0, 0.95, 0.17, SHADOW, alpha=60)
    brush = Brush(canvas, x, person.y, size, owner=person.id)
    angles = (person.head_yaw, person.head_pitch, person.gaze_yaw, person.gaze_pitch)
    figure.draw_figure(brush, person.look, person.lean, *angles)


def _hands(canvas: Canvas, scene: Scene, person: Person, thing: Thing) -> None:
    brush = Brush(canvas, 0, 0, 1, owner=person.id)
    radius, skin = 0.15 * person.size, figure.SKINS[person.look.skin]
    reach = min(0.5 * (thing.box[2] - thing.box[0]) * scene.aspect, 0.5 * person.size)
    for side in (-1, 1):
        brush.oval(thing.centre[0] * scene.aspect + side * reach, thing.y - radius, radius, radius, skin)


def _thing(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A thing on its support; the salient one glows and keeps its full colours."""
    aspect, salient, category = scene.aspect, thing.id == scene.salient, CATEGORIES[thing.category]
    left, top, right, bottom = thing.box
    half, middle, y = (right - left) * aspect / 2, (left + right) / 2 * aspect, thing.y
    wide = half + 0.02
    surroundings = WALLS[scene.backdrop.palette]
    under = Brush(canvas, 0, 0, 1)
    if thing.support == "shelf":
        under.rect(middle - wide, y + 0.022, middle + wide, y + 0.034, (60, 50, 60), alpha=50)
        under.rect(middle - wide, y, middle + wide, y + 0.022, blend(WOOD, surroundings, 0.3))
        under.rect(middle - wide, y, middle + wide, y + 0.007, lighter(WOOD, 0.4))
    elif thing.support == "post":
        base, trunk = scene.backdrop.horizon + 0.05, blend(WOOD, (150, 150, 140), 0.35)
        under.oval(middle, base, 0.04, 0.008, SHADOW, alpha=60)
        under.rect(middle - 0.009, y, middle + 0.009, base, trunk)
        under.rect(middle - wide, y, middle + wide, y + 0.016, lighter(trunk, 0.2), radius=0.008)
    elif not thing.holder and category.mount == "rest":
        if salient:
            rug = COLOURS["red" if thing.colour not in ("red", "orange", "pink") else "blue"]
            under.oval(middle, y, wide + 0.07, 0.052, blend(rug, WHITE, 0.25))
            under.oval(middle, y, wide + 0.05, 0.036, blend(rug, WHITE, 0.6))
        under.oval(middle, y, wide, 0.02, SHADOW, alpha=70)
    if salient and not thing.holder:
        for k, alpha in ((1.75, 50), (1.4, 70)):
            rx, ry = k * half + 0.02, k * (bottom - top) / 2 + 0.02
            under.oval(middle, (top + bottom) / 2, rx, ry, (255, 250, 220), alpha=alpha)
    wash = None if salient else (blend(surroundings, (150, 146, 150), 0.3), 0.24)
    brush = Brush(
        canvas, thing.x * aspect, y, thing.size, angle=thing.angle, flip=thing.flip, wash=wash, owner=thing.id
    )
    category.draw(brush, COLOURS[thing.colour])
