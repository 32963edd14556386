"""People: a flat body under a head that is a ball with a face on it.

Every feature of a face is a patch of the ball. Turning the ball and dropping depth is all it takes to get frontal,
three-quarter, profile and averted heads, so what the picture shows of a gaze is what the geometry says of it.

Angles are degrees. Yaw 0 faces the viewer, 90 the right edge of the picture, 180 into the picture; pitch is positive
downwards. Heads are drawn about the middle of the skull, crown to chin one unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from gazebench.datasets.gazeworld.world.catalogue import COLOURS
from gazebench.datasets.gazeworld.world.pen import INK, WHITE, Colour, Pen, Point, arc, blend, darker, lighter
from gazebench.datasets.gazeworld.world.scene import Look

Vector = tuple[float, float, float]

SKINS: tuple[Colour, ...] = (
    (255, 222, 196),
    (246, 203, 168),
    (232, 180, 138),
    (206, 150, 106),
    (168, 114, 76),
    (128, 84, 58),
    (98, 64, 48),
)
HAIR_COLOURS: dict[str, Colour] = {
    "black": (44, 38, 44),
    "dark brown": (82, 54, 42),
    "brown": (128, 82, 54),
    "auburn": (158, 76, 46),
    "blond": (226, 182, 98),
    "grey": (172, 172, 178),
}
HAIRSTYLES = ("short", "fringe", "bob", "long", "bun", "ponytail", "curly", "bald", "cap")
HAIRLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "short": ((-15, 72), (-75, 62)),
    "fringe": ((-12, 76), (-82, 74)),
    "bob": ((0, 92), (-72, 68)),
    "long": ((0, 92), (-75, 62)),
    "cap": ((-5, 70),),
    "bald": ((22, 50),),
}
"""Hair grows on caps of the ball about the back of the head: their latitudes and radii."""
CLOTHES = ("red", "orange", "yellow", "green", "teal", "blue", "navy", "purple", "pink", "brown", "grey", "white")
TROUSERS: tuple[Colour, ...] = ((66, 82, 116), (84, 78, 84), (120, 98, 80), (92, 106, 92), (150, 132, 108))

HALF_WIDTH, HALF_HEIGHT = 0.40, 0.5
EYE_LATITUDE = 2.0
REACH = 38.0
"""How far eyes turn in the head, in degrees."""
FEET = {"standing": 3.95, "sitting": 2.62, "bust": 3.4}
"""How far below the middle of the head a figure ends, in head heights."""


@lru_cache(maxsize=4096)
def direction(longitude: float, latitude: float) -> Vector:
    """The unit vector of a place on the ball at rest: longitude 0 the nose, 90 the ear on the right of the picture.

    Latitude is positive downwards.
    """
    lon, lat = math.radians(longitude), math.radians(latitude)
    return math.cos(lat) * math.sin(lon), math.sin(lat), math.cos(lat) * math.cos(lon)


class Skull:
    """The turned ball, with everything that maps its surface to the plane of the picture."""

    def __init__(self, yaw: float, pitch: float) -> None:
        self.cos_yaw, self.sin_yaw = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        self.cos_pitch, self.sin_pitch = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
        self.front = self.turn((0.0, 0.0, 1.0))
        # A head is deeper than it is wide.
        self.half_width = HALF_WIDTH * (1 + 0.12 * abs(self.front[0]))

    def turn(self, v: Vector) -> Vector:
        """Rotates a vector of the head at rest into the scene: x right, y down, z towards the viewer."""
        x, y, z = v
        down, out = y * self.cos_pitch + z * self.sin_pitch, z * self.cos_pitch - y * self.sin_pitch
        return x * self.cos_yaw + out * self.sin_yaw, down, out * self.cos_yaw - x * self.sin_yaw

    def flat(self, x: float, y: float, swell: float = 1.0) -> Point:
        """From the unit disc to head units: an egg whose chin is narrow and goes with the face."""
        jaw = y * abs(y) if y > 0 else 0.0
        return swell * (self.half_width * x * (1 - 0.2 * jaw) + 0.07 * self.front[0] * jaw), swell * HALF_HEIGHT * y

    def spot(self, longitude: float, latitude: float, radius: float = 1.0) -> tuple[Point, float]:
        """Where a place of the surface lands, and its depth towards the viewer (negative when hidden)."""
        x, y, z = self.turn(direction(longitude, latitude))
        return self.flat(x * radius, y * radius), z

    def outline(self, swell: float = 1.0) -> list[Point]:
        """The silhouette."""
        return [self.flat(u, v, swell) for u, v in arc(0, 360, 28)]

    def patch(self, longitude: float, latitude: float, width: float, height: float, radius: float = 1.0) -> list[Point]:
        """An ellipse on the surface, foreshortened; empty on the far side. Half axes in radii of the ball."""
        lon, lat = math.radians(longitude), math.radians(latitude)
        x, y, z = self.turn(direction(longitude, latitude))
        if z < 0.03:
            return []
        ax, ay, _ = self.turn((math.cos(lon) * width, 0.0, -math.sin(lon) * width))
        bx, by, _ = self.turn(
            (-math.sin(lat) * math.sin(lon) * height, math.cos(lat) * height, -math.sin(lat) * math.cos(lon) * height)
        )
        x, y = x * radius, y * radius
        return [self.flat(x + ax * u + bx * v, y + ay * u + by * v) for u, v in arc(0, 360, 14)]

    def sheet(self, places: Sequence[tuple[float, float, float]]) -> list[Point]:
        """A polygon of (longitude, latitude, radius); empty when its first place is on the far side."""
        if self.turn(direction(*places[0][:2]))[2] < 0:
            return []
        return [self.spot(*place)[0] for place in places]

    def cap(self, longitude: float, latitude: float, radius: float, swell: float = 1.0) -> list[Point]:
        """The visible part of the spherical cap of angular ``radius`` about a place; ``swell`` lifts its rim.

        The cap's edge is a circle; where it passes behind the ball the outline closes it.
        """
        ax, ay, az = self.turn(direction(longitude, latitude))
        plane = max(math.hypot(ax, ay), 1e-6)
        ex, ey = (ax / plane, ay / plane) if plane > 1e-6 else (1.0, 0.0)
        cos, sin = math.cos(math.radians(radius)), math.sin(math.radians(radius))
        bound = -cos * az / (sin * plane)
        if bound >= 1:
            return self.outline(swell) if az >= cos else []
        half = math.degrees(math.acos(max(bound, -1.0)))
        edge = []
        for u, v in arc(-half, half, 18):
            along, across = cos * plane - sin * u * az, sin * v
            edge.append(self.flat(along * ex - across * ey, along * ey + across * ex))
        if bound <= -1:
            # A cap beyond the far pole leaves a hole; the seam between rim and hole lies within the ring.
            around = [self.flat(v * ey - u * ex, -u * ey - v * ex, swell) for u, v in arc(0, 360, 28)]
            return edge if -az < cos else around + edge
        u, v = arc(half, half, 1)[0]
        stop = math.degrees(math.atan2(sin * v, cos * plane - sin * u * az))
        rim = [self.flat(u * ex - v * ey, u * ey + v * ex, swell) for u, v in arc(stop, -stop, 18)]
        return edge + rim


def eye_offset(yaw: float, pitch: float) -> Point:
    """Where the point between the eyes lies from the middle of the skull, in head units, hidden or not."""
    return Skull(yaw, pitch).spot(0, EYE_LATITUDE)[0]


def draw_head(pen: Pen, look: Look, yaw: float, pitch: float, gaze_yaw: float, gaze_pitch: float) -> None:
    """The head with its hair (but for what hangs below the chin, see ``draw_mane``), face and eyes."""
    skull = Skull(yaw, pitch)
    skin, hair = SKINS[look.skin], HAIR_COLOURS[look.hair_colour]
    facing = skull.front[2]
    if facing < 0:
        _nose(pen, skull, skin)
    if look.hair == "curly":
        _curls(pen, skull, hair)
    if look.hair in ("bun", "ponytail") and skull.turn(direction(180, -40))[2] < 0:
        _knot(pen, skull, look.hair, hair)
    for side in (-90, 90):
        if skull.turn(direction(side, 4))[2] < 0:
            _ear(pen, skull, side, skin)
    pen.polygon(skull.outline(), skin)
    _face(pen, skull, look, skin, hair, _bounded(gaze_yaw - yaw), _bounded(gaze_pitch - pitch))
    _hair(pen, skull, look, hair)
    for side in (-90, 90):
        if skull.turn(direction(side, 4))[2] >= 0 and look.hair not in ("bob", "long"):
            _ear(pen, skull, side, skin)
    if look.hair in ("bun", "ponytail") and skull.turn(direction(180, -40))[2] >= 0:
        _knot(pen, skull, look.hair, hair)
    if look.glasses:
        _glasses(pen, skull)
    if facing >= 0:
        _nose(pen, skull, skin)


def _bounded(angle: float) -> float:
    return max(-REACH, min(REACH, (angle + 180) % 360 - 180)) / REACH


def _fill(pen: Pen, points: list[Point], colour: Colour) -> None:
    if points:
        pen.polygon(points, colour)


def _nose(pen: Pen, skull: Skull, skin: Colour) -> None:
    colour = darker(blend(skin, (214, 96, 80), 0.22), 0.1)
    bridge, tip, left, right = (
        skull.spot(*place)[0] for place in ((0, -2, 1.0), (0, 19, 1.32), (-10, 25, 1.0), (10, 25, 1.0))
    )
    for side in (left, right):
        pen.polygon((bridge, tip, side), colour)
    pen.polygon((left, tip, right), darker(colour, 0.12))


def _ear(pen: Pen, skull: Skull, side: int, skin: Colour) -> None:
    (x, y), z = skull.spot(side, 8, 1.03)
    width = 0.06 + 0.04 * abs(z)
    pen.oval(x, y, width, 0.13, darker(skin, 0.1))
    pen.oval(x, y, width * 0.55, 0.08, darker(skin, 0.25))


def _face(pen: Pen, skull: Skull, look: Look, skin: Colour, hair: Colour, aside: float, down: float) -> None:
    if look.beard:
        _fill(pen, skull.cap(0, 64, 46), hair)
    for side in (-1, 1):
        _fill(pen, skull.patch(side * 38, 26, 0.16, 0.11), blend(skin, (232, 96, 90), 0.28))
        _fill(pen, skull.patch(side * 23, EYE_LATITUDE, 0.235, 0.27), darker(skin, 0.3))
        _fill(pen, skull.patch(side * 23, EYE_LATITUDE + 1, 0.21, 0.24), WHITE)
        _fill(pen, skull.patch(side * 23 + 8 * aside, EYE_LATITUDE + 1 + 8 * down, 0.115, 0.135), INK)
        brow = [
            (side * lon, EYE_LATITUDE - lat, 1.02)
            for lon, lat in ((22, 25), (10, 21), (11, 17), (22, 20), (35, 17), (34, 21))
        ]
        _fill(pen, skull.sheet(brow), darker(hair, 0.1) if look.hair_colour != "grey" else darker(hair, 0.3))
    low = [(lon, 54 - lon * lon / 42, 1.0) for lon in (0, 7, 14, 21)]
    high = [(lon, 47 - lon * lon / 75, 1.0) for lon in (14, 7, 0, -7, -14)]
    smile = [*low, *high, *((-lon, lat, 1.0) for lon, lat, _ in reversed(low[1:]))]
    _fill(pen, skull.sheet(smile), (150, 56, 58))


def _hair(pen: Pen, skull: Skull, look: Look, hair: Colour) -> None:
    for latitude, radius in HAIRLINES.get(look.hair, HAIRLINES["short"]):
        _fill(pen, skull.cap(180, latitude, radius, 1.16 if look.hair == "curly" else 1.07), hair)
    if look.hair in ("short", "fringe", "bob", "long"):
        _fill(pen, skull.cap(180, -80, 26), lighter(hair, 0.09))
    if look.hair == "cap":
        colour = COLOURS[look.clothes]
        rim = [(lon, -30.0, 1.04) for lon in (55, 28, 0, -28, -55)]
        brim = [(lon, -27.0, 1.52 - abs(lon) / 160) for lon in (-48, -24, 0, 24, 48)]
        visor = [skull.spot(*place)[0] for place in rim + brim]
        if skull.front[2] < 0:
            pen.polygon(visor, darker(colour, 0.3))
        _fill(pen, skull.cap(180, -80, 68, 1.1), colour)
        if skull.front[2] >= 0:
            pen.polygon(visor, darker(colour, 0.3))


def _curls(pen: Pen, skull: Skull, hair: Colour) -> None:
    x, y, _ = skull.turn(direction(180, -55))
    for u, v in arc(0, 324, 9):
        pen.oval(0.16 * x + 0.36 * u, 0.18 * y + 0.36 * v, 0.2, 0.2, hair)
    pen.oval(0.16 * x, 0.18 * y, 0.42, 0.42, hair)


def _knot(pen: Pen, skull: Skull, style: str, hair: Colour) -> None:
    if style == "bun":
        (x, y), _ = skull.spot(180, -62, 1.28)
        pen.oval(x, y, 0.2, 0.19, darker(hair, 0.1))
        pen.oval(x - 0.03, y - 0.03, 0.13, 0.12, lighter(hair, 0.12))
        return
    (x, y), _ = skull.spot(180, -28, 1.12)
    sway = 0.16 * -skull.front[0]
    pen.polygon(
        (
            (x - 0.09, y - 0.06),
            (x + 0.09, y - 0.06),
            (x + sway + 0.15, y + 0.4),
            (x + sway * 1.3, y + 0.72),
            (x + sway - 0.15, y + 0.4),
        ),
        darker(hair, 0.1),
    )
    pen.oval(x, y, 0.11, 0.1, (217, 66, 60))


def _glasses(pen: Pen, skull: Skull) -> None:
    for side in (-1, 1):
        outer = skull.patch(side * 23, EYE_LATITUDE, 0.3, 0.31, 1.04)
        if outer:
            pen.polygon([*outer, *skull.patch(side * 23, EYE_LATITUDE, 0.25, 0.26, 1.04)], INK)
    if skull.front[2] > 0.05:
        pen.stroke([skull.spot(lon, EYE_LATITUDE - 2, 1.05)[0] for lon in (-7, 7)], 0.045, INK)


def draw_mane(pen: Pen, look: Look, yaw: float, pitch: float) -> None:
    """Hair that hangs beside and below the head; behind the body of who faces the viewer, before it otherwise."""
    if look.hair not in ("bob", "long"):
        return
    hair, back = HAIR_COLOURS[look.hair_colour], -Skull(yaw, pitch).front[0]
    length = 0.62 if look.hair == "bob" else 1.25
    x = 0.17 * back
    pen.oval(x, -0.04, 0.48, 0.48, darker(hair, 0.12))
    pen.bar(x - 0.5 + 0.1 * abs(back), -0.1, x + 0.5 - 0.1 * abs(back), length, darker(hair, 0.12), round_by=0.2)


def draw_body(pen: Pen, look: Look, lean: float) -> None:
    """Torso, arms and legs; ``lean`` in [-1, 1] turns the shoulders a little to one side."""
    skin, top, build = SKINS[look.skin], COLOURS[look.clothes], look.build
    trousers = TROUSERS[look.trousers]
    if look.pose == "standing":
        for side in (-1, 1):
            pen.stroke(
                ((side * 0.27 * build, 2.2), (side * 0.29 * build, 3.72)),
                0.42 * build,
                darker(trousers, 0.1 if side > 0 else 0.0),
            )
            pen.oval(side * 0.32 * build, 3.84, 0.28, 0.11, INK)
    shoulder, waist = 0.68 * build * (1 - 0.12 * abs(lean)), 0.56 * build
    twist = 0.08 * lean
    hem = 2.75 if look.pose == "bust" else 2.3
    for side in (-1, 1):
        if look.arms != "front":
            _arm(pen, look, side, shoulder, twist, top, skin)
    if look.pose == "standing" and look.pattern == "dress":
        pen.polygon(((-waist, 1.8), (waist, 1.8), (waist * 1.45, 2.95), (-waist * 1.45, 2.95)), top)
    pen.polygon(
        (
            (twist - 0.2, 0.62),
            (twist + 0.2, 0.62),
            (twist + shoulder * 0.82, 0.74),
            (twist + shoulder, 0.95),
            (waist, hem - 0.08),
            (waist * 0.9, hem),
            (-waist * 0.9, hem),
            (-waist, hem - 0.08),
            (twist - shoulder, 0.95),
            (twist - shoulder * 0.82, 0.74),
        ),
        top,
    )
    if look.pattern == "stripes":
        for y in (1.1, 1.5, 1.9):
            half = shoulder + (waist - shoulder) * (y - 0.95) / 1.3
            pen.bar(-half + twist * 0.6, y, half + twist * 0.6, y + 0.18, lighter(top, 0.5))
    elif look.pattern == "dots":
        for k in range(9):
            pen.oval(twist + 0.36 * build * (k % 3 - 1), 1.12 + 0.38 * (k // 3), 0.075, 0.075, lighter(top, 0.55))
    # A round neckline looks the same from behind: the body must not tell where its owner looks.
    pen.bar(twist - 0.19, 0.3, twist + 0.19, 0.76, darker(skin, 0.14), round_by=0.14)
    if look.pose == "sitting":
        for side in (-1, 1):
            pen.stroke(((side * 0.32 * build, 2.24), (side * 0.98 * build, 2.34)), 0.44, darker(trousers, 0.08))
        for side in (1, -1):
            pen.stroke(((side * 0.98 * build, 2.38), (side * -0.3, 2.5)), 0.3, trousers)
            pen.oval(side * -0.42, 2.52, 0.2, 0.11, INK)
    if look.arms == "front":
        for side in (-1, 1):
            _arm(pen, look, side, shoulder, twist, top, skin)


def _arm(pen: Pen, look: Look, side: int, shoulder: float, twist: float, top: Colour, skin: Colour) -> None:
    start = (twist + side * (shoulder - 0.12), 0.92)
    elbow, hand = {
        "down": ((side * (shoulder + 0.12), 1.5), (side * (shoulder + 0.1), 2.15)),
        "hips": ((side * (shoulder + 0.42), 1.5), (side * (shoulder - 0.06), 1.98)),
        "front": ((side * (shoulder + 0.06), 1.62), (side * 0.3, 1.72)),
    }[look.arms]
    if look.arms == "down":
        pen.oval(hand[0], hand[1] + 0.14, 0.16, 0.19, skin)
    pen.stroke((start, elbow, hand), 0.32, darker(top, 0.12))
    if look.arms == "front":
        pen.oval(*hand, 0.17, 0.17, skin)


def draw_figure(
    pen: Pen, look: Look, lean: float, yaw: float, pitch: float, gaze_yaw: float, gaze_pitch: float
) -> None:
    """A whole person about the middle of the head."""
    away = Skull(yaw, pitch).front[2] < 0
    if not away:
        draw_mane(pen, look, yaw, pitch)
    draw_body(pen, look, lean)
    if away:
        draw_mane(pen, look, yaw, pitch)
    draw_head(pen, look, yaw, pitch, gaze_yaw, gaze_pitch)
