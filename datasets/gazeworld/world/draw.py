"""Drawing scenes: the place, then people and things from far to near, then a grain over all."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from gazebench.datasets.gazeworld.world import figure
from gazebench.datasets.gazeworld.world.catalogue import CATEGORIES, COLOURS, WOOD
from gazebench.datasets.gazeworld.world.dice import Dice, seeded
from gazebench.datasets.gazeworld.world.pen import WHITE, Canvas, Colour, Pen, blend, darker, lighter
from gazebench.datasets.gazeworld.world.scene import Person, Scene, Thing

Picture = npt.NDArray[np.uint8]

WALLS: tuple[Colour, ...] = (
    (226, 214, 196),
    (206, 218, 214),
    (214, 206, 222),
    (230, 206, 190),
    (200, 210, 224),
    (216, 220, 196),
)
FLOORS: tuple[Colour, ...] = (
    (186, 150, 118),
    (168, 156, 146),
    (196, 164, 130),
    (150, 136, 132),
    (178, 160, 150),
    (160, 140, 116),
)
SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((150, 200, 232), (222, 238, 242)),
    ((168, 196, 226), (244, 226, 206)),
    ((132, 188, 222), (206, 232, 238)),
    ((190, 206, 222), (232, 236, 236)),
    ((176, 188, 224), (250, 222, 206)),
    ((146, 206, 218), (230, 242, 226)),
)
GRASS: tuple[Colour, ...] = (
    (152, 186, 118),
    (134, 176, 124),
    (168, 188, 116),
    (144, 172, 130),
    (158, 178, 132),
    (126, 172, 132),
)
SAND: Colour = (236, 214, 172)
SEA: Colour = (98, 170, 194)


@overload
def draw(scene: Scene, width: int, height: int, mask: Literal[False] = False) -> Picture: ...
@overload
def draw(scene: Scene, width: int, height: int, mask: Literal[True]) -> tuple[Picture, Picture]: ...
def draw(scene: Scene, width: int, height: int, mask: bool = False) -> Picture | tuple[Picture, Picture]:
    """Draws a scene at any size; another aspect than its own squeezes it, as resizing would.

    Args:
        scene: what to draw.
        width: in pixels.
        height: in pixels.
        mask: whether to return the map of ids as well.

    Returns:
        (height, width, 3) uint8 RGB; with ``mask`` also (height, width) uint8, the id of the thing or person seen at
        each pixel, 0 for the place.
    """
    canvas = Canvas(width, height, scene.aspect, 3 if height <= 320 else 2, mask)
    _place(canvas, scene)
    holders = {thing.holder: thing for thing in scene.things if thing.holder}
    actors: list[tuple[float, int, Person | Thing | None]] = [(t.depth, t.id, t) for t in scene.things if not t.holder]
    actors += [(person.depth, person.id, person) for person in scene.people]
    if scene.backdrop.kind == "table":
        actors.append((0.45, 0, None))
    for _, _, actor in sorted(actors, key=lambda item: (-item[0], item[1])):
        if actor is None:
            _table(canvas, scene)
        elif isinstance(actor, Person):
            _person(canvas, scene, actor)
            if actor.id in holders:
                _thing(canvas, scene, holders[actor.id])
                _hands(canvas, scene, actor, holders[actor.id])
        else:
            _thing(canvas, scene, actor)
    picture = ImageChops.multiply(canvas.picture.reduce(canvas.supersample), _grain(scene, width, height))
    pixels = np.array(picture)
    if canvas.map is None:
        return pixels
    # The middle sample of each pixel: ids cannot be averaged.
    middle = canvas.supersample // 2
    return pixels, np.array(canvas.map)[middle :: canvas.supersample, middle :: canvas.supersample].copy()


def _grain(scene: Scene, width: int, height: int) -> Image.Image:
    """Paper: a coarse mottle, the same at every size, under a light that falls off to the edges."""
    noise = np.frombuffer(seeded("grain", scene.backdrop.grain).bytes(96 * 72), dtype=np.uint8).reshape(72, 96)
    rows, columns = np.ogrid[-35.5:36.5, -47.5:48.5]
    edge = (rows / 36) ** 2 + (columns / 48) ** 2
    light = 255 - noise // 44 - (edge * 4).astype(np.uint8)
    return Image.fromarray(light.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")


def _gradient(canvas: Canvas, top: float, bottom: float, first: Colour, last: Colour) -> None:
    """Fills the rows from ``top`` to ``bottom`` with a run of colours."""
    steps, width = 24, canvas.size[0]
    for k in range(steps):
        y0, y1 = (top + (bottom - top) * (k + j) / steps for j in (0, 1))
        canvas.opaque.rectangle(
            (0, y0 * canvas.scale[1], width, y1 * canvas.scale[1]), fill=blend(first, last, k / (steps - 1))
        )


def _place(canvas: Canvas, scene: Scene) -> None:
    if scene.backdrop.kind in ("room", "table"):
        _indoors(canvas, scene)
    else:
        _outdoors(canvas, scene)


def _indoors(canvas: Canvas, scene: Scene) -> None:
    backdrop, aspect = scene.backdrop, scene.aspect
    # Behind a table the wall ends below its edge, out of sight.
    horizon = backdrop.horizon + (0.06 if backdrop.kind == "table" else 0.0)
    wall, floor = WALLS[backdrop.palette], FLOORS[backdrop.palette]
    _gradient(canvas, 0, horizon, lighter(wall, 0.35), lighter(wall, 0.1))
    pen = Pen(canvas, 0, 0, 1)
    soft = darker(wall, 0.03)
    if backdrop.pattern == "stripes":
        for k in range(int(aspect / 0.12) + 1):
            pen.bar(0.12 * k, 0, 0.12 * k + 0.05, horizon, soft, alpha=150)
    elif backdrop.pattern == "dots":
        for row in range(int(horizon / 0.09) + 1):
            for k in range(int(aspect / 0.11) + 1):
                pen.polygon(_diamond(0.11 * k + 0.055 * (row % 2), 0.09 * row + 0.03, 0.014), soft)
    elif backdrop.pattern == "panels":
        pen.bar(0, horizon - 0.2, aspect, horizon, lighter(wall, 0.3))
        pen.bar(0, horizon - 0.205, aspect, horizon - 0.19, darker(wall, 0.12))
        for k in range(int(aspect / 0.2) + 1):
            pen.bar(0.2 * k + 0.02, horizon - 0.17, 0.2 * k + 0.17, horizon - 0.045, lighter(wall, 0.18))
    elif backdrop.pattern == "bricks":
        for row in range(int(horizon / 0.07) + 1):
            pen.bar(0, 0.07 * row, aspect, 0.07 * row + 0.005, soft)
            for k in range(int(aspect / 0.16) + 1):
                x = 0.16 * k + 0.08 * (row % 2)
                pen.bar(x, 0.07 * row, x + 0.005, 0.07 * row + 0.07, soft)
    if backdrop.decor == "window":
        _window(pen, backdrop.decor_x * aspect, SKIES[backdrop.palette])
    elif backdrop.decor == "curtain":
        for side in (0.0, aspect):
            for k in range(3):
                pen.oval(
                    side, 0.0, 0.2 - 0.05 * k, horizon + 0.25, blend(wall, FLOORS[backdrop.palette - 1], 0.25 + 0.1 * k)
                )
    pen.bar(0, horizon - 0.022, aspect, horizon, lighter(wall, 0.45))
    _gradient(canvas, horizon, 1, darker(floor, 0.08), lighter(floor, 0.16))
    pen.bar(0, horizon, aspect, horizon + 0.012, darker(floor, 0.3))
    line = darker(floor, 0.16)
    if backdrop.flooring == "planks":
        for k in range(-7, 8):
            pen.polygon(_ray(aspect, horizon, 0.24 * k, 0.004), line)
    elif backdrop.flooring == "tiles":
        rows = [horizon + (1 - horizon) * share for share in (0.0, 0.14, 0.34, 0.62, 1.0)]
        for row, (top, bottom) in enumerate(pairwise(rows)):
            far, near = (0.6 + 0.9 * (y - horizon) / (1 - horizon) for y in (top, bottom))
            for k in range(-8 + row % 2, 8, 2):
                corners = ((k, far, top), (k + 1, far, top), (k + 1, near, bottom), (k, near, bottom))
                pen.polygon([(aspect / 2 + 0.2 * column * wide, y) for column, wide, y in corners], line)


def _diamond(x: float, y: float, r: float) -> tuple[tuple[float, float], ...]:
    return (x, y - r), (x + r, y), (x, y + r), (x - r, y)


def _ray(aspect: float, horizon: float, offset: float, half: float) -> tuple[tuple[float, float], ...]:
    """A line of the floor, spreading towards the viewer."""
    far, near = aspect / 2 + offset, aspect / 2 + 1.9 * offset
    return (far - half, horizon), (far + half, horizon), (near + 2 * half, 1.0), (near - 2 * half, 1.0)


def _window(pen: Pen, x: float, sky: tuple[Colour, Colour]) -> None:
    pen.bar(x - 0.17, 0.06, x + 0.17, 0.44, lighter(WOOD, 0.65))
    for left in (x - 0.15, x + 0.01):
        pen.bar(left, 0.08, left + 0.14, 0.42, blend(*sky, 0.35))
        pen.polygon(
            ((left, 0.42), (left, 0.36), (left + 0.06, 0.33), (left + 0.14, 0.37), (left + 0.14, 0.42)), (172, 196, 160)
        )
        pen.polygon(((left, 0.2), (left, 0.14), (left + 0.05, 0.08), (left + 0.1, 0.08)), WHITE, 70)
    pen.bar(x - 0.2, 0.44, x + 0.2, 0.465, lighter(WOOD, 0.5))


def _outdoors(canvas: Canvas, scene: Scene) -> None:
    backdrop, aspect = scene.backdrop, scene.aspect
    horizon, (high, low) = backdrop.horizon, SKIES[backdrop.palette]
    grass = GRASS[backdrop.palette]
    dice = Dice(seeded("outdoors", backdrop.grain))
    pen = Pen(canvas, 0, 0, 1)
    _gradient(canvas, 0, horizon, high, low)
    for _ in range(dice.integer(2, 4)):
        x, y, size = dice.uniform(0, aspect), dice.uniform(0.05, 0.28), dice.uniform(0.05, 0.09)
        for dx, r in ((-0.9, 0.55), (0.0, 0.8), (0.85, 0.6)):
            pen.oval(x + dx * size, y, r * 1.3 * size, r * 0.62 * size, WHITE, alpha=150)
    if backdrop.kind == "beach":
        _gradient(canvas, horizon - 0.13, horizon + 0.06, darker(SEA, 0.06), lighter(SEA, 0.3))
        _gradient(canvas, horizon + 0.04, 1, SAND, SAND)
        for _ in range(7):
            x, y = dice.uniform(0, aspect), dice.uniform(horizon - 0.11, horizon - 0.01)
            pen.bar(x, y, x + dice.uniform(0.06, 0.16), y + 0.005, lighter(SEA, 0.5), round_by=0.0025)
        for drop, colour in ((0.0, lighter(SAND, 0.5)), (0.018, SAND)):
            pen.oval(aspect / 2, horizon + drop + 0.3, aspect * 1.6, 0.3, colour)
        speck = darker(SAND, 0.12)
    else:
        for k, share in enumerate((0.5, 0.28)):
            x, tall = dice.uniform(0, aspect), dice.uniform(0.08, 0.2) / (k + 1)
            pen.oval(x, horizon + 0.06, aspect * 0.62, tall + 0.06, blend(grass, low, share))
        for _ in range(dice.integer(3, 6)):
            _tree(
                pen,
                dice.uniform(0, aspect),
                horizon + 0.015,
                dice.uniform(0.1, 0.24),
                blend(darker(grass, 0.25), low, 0.3),
            )
        _gradient(canvas, horizon, 1, lighter(grass, 0.05), lighter(grass, 0.28))
        speck = darker(grass, 0.06)
    for _ in range(46):
        x, y = dice.uniform(0, aspect), dice.uniform(horizon + 0.05, 1)
        reach = 0.012 + 0.03 * (y - horizon)
        pen.polygon(
            (
                (x - reach, y),
                (x - reach / 3, y - reach),
                (x, y - reach / 4),
                (x + reach / 2, y - reach),
                (x + reach, y),
            ),
            speck,
        )


def _tree(pen: Pen, x: float, y: float, size: float, leaves: Colour) -> None:
    pen.bar(x - 0.07 * size, y - 0.4 * size, x + 0.07 * size, y, blend(WOOD, leaves, 0.4))
    pen.oval(x, y - 0.65 * size, 0.34 * size, 0.4 * size, leaves)
    pen.oval(x - 0.08 * size, y - 0.74 * size, 0.2 * size, 0.22 * size, lighter(leaves, 0.14))


def _table(canvas: Canvas, scene: Scene) -> None:
    horizon, aspect = scene.backdrop.horizon, scene.aspect
    wood = blend(WOOD, FLOORS[scene.backdrop.palette], 0.55)
    _gradient(canvas, horizon, 1, wood, lighter(wood, 0.22))
    pen = Pen(canvas, 0, 0, 1)
    for k in range(1, 5):
        y = horizon + (1 - horizon) * (k / 5) ** 1.4
        pen.bar(0, y, aspect, y + 0.004, darker(wood, 0.1))
    pen.bar(0, horizon, aspect, horizon + 0.012, lighter(wood, 0.45))
    if canvas.ids:
        canvas.ids.rectangle((0, horizon * canvas.scale[1], *canvas.size), fill=0)


def _person(canvas: Canvas, scene: Scene, person: Person) -> None:
    x, size = person.x * scene.aspect, person.size
    if person.look.pose != "bust":
        feet = person.y + figure.FEET[person.look.pose] * size
        Pen(canvas, x, feet, size).oval(0, 0, 0.95, 0.17, (40, 36, 48), alpha=60)
    figure.draw_figure(
        Pen(canvas, x, person.y, size, owner=person.id),
        person.look,
        person.lean,
        person.head_yaw,
        person.head_pitch,
        person.gaze_yaw,
        person.gaze_pitch,
    )


def _hands(canvas: Canvas, scene: Scene, person: Person, thing: Thing) -> None:
    pen = Pen(canvas, 0, 0, 1, owner=person.id)
    radius = 0.15 * person.size
    reach = min(0.5 * (thing.box[2] - thing.box[0]) * scene.aspect, 0.5 * person.size)
    for side in (-1, 1):
        pen.oval(
            thing.centre[0] * scene.aspect + side * reach,
            thing.y - radius,
            radius,
            radius,
            figure.SKINS[person.look.skin],
        )


def _thing(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    aspect, salient = scene.aspect, thing.id == scene.salient
    left, top, right, bottom = thing.box
    x, y = thing.x * aspect, thing.y
    half, middle = (right - left) * aspect / 2, (left + right) / 2 * aspect
    wide = half + 0.02
    place = Pen(canvas, 0, 0, 1)
    surroundings = WALLS[scene.backdrop.palette]
    if thing.support == "shelf":
        place.bar(middle - wide, y + 0.022, middle + wide, y + 0.034, (60, 50, 60), alpha=50)
        place.bar(middle - wide, y, middle + wide, y + 0.022, blend(WOOD, surroundings, 0.3))
        place.bar(middle - wide, y, middle + wide, y + 0.007, lighter(WOOD, 0.4))
    elif thing.support == "post":
        base = scene.backdrop.horizon + 0.05
        trunk = blend(WOOD, (150, 150, 140), 0.35)
        place.oval(middle, base, 0.04, 0.008, (40, 36, 48), alpha=60)
        place.bar(middle - 0.009, y, middle + 0.009, base, trunk)
        place.bar(middle - wide, y, middle + wide, y + 0.016, lighter(trunk, 0.2), round_by=0.008)
    elif not thing.holder and CATEGORIES[thing.category].mount == "rest":
        if salient:
            rug = COLOURS["red" if thing.colour not in ("red", "orange", "pink") else "blue"]
            place.oval(middle, y, wide + 0.07, 0.052, blend(rug, WHITE, 0.25))
            place.oval(middle, y, wide + 0.05, 0.036, blend(rug, WHITE, 0.6))
        place.oval(middle, y, wide, 0.02, (40, 36, 48), alpha=70)
    if salient and not thing.holder:
        for k, alpha in ((1.75, 50), (1.4, 70)):
            place.oval(
                middle, (top + bottom) / 2, k * half + 0.02, k * (bottom - top) / 2 + 0.02, (255, 250, 220), alpha=alpha
            )
    pen = Pen(
        canvas,
        x,
        y,
        thing.size,
        angle=thing.angle,
        flip=thing.flip,
        wash=None if salient else (blend(surroundings, (150, 146, 150), 0.3), 0.24),
        owner=thing.id,
    )
    CATEGORIES[thing.category].draw(pen, COLOURS[thing.colour])
