"""People: a flat body under a head that is a ball with a face on it.

Every feature of a face is a patch of the ball's surface. The ball is turned and its depth dropped, which gives frontal,
three-quarter, profile and averted heads; so the drawn direction of a gaze is exactly that of the scene.

Angles are in degrees. Yaw 0 faces the viewer, 90 the right edge of the image, 180 into the image; pitch is positive
downwards. Heads are drawn about the middle of the skull, one unit from crown to chin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from gazebench.datasets.gazeworld.canvas import INK, WHITE, Brush, Colour, Point, arc, blend, darker, lighter, palette
from gazebench.datasets.gazeworld.catalogue import COLOURS
from gazebench.datasets.gazeworld.scene import Look

Vector = tuple[float, float, float]
Place = tuple[float, float, float]
"""Longitude, latitude and distance from the middle of the ball in its radii."""

SKINS = palette("ffdec4 f6cba8 e8b48a ce966a a8724c 80543a 624030")
TROUSERS = palette("425274 544e54 786250 5c6a5c 96846c")
CLOTHES = ("red", "orange", "yellow", "green", "teal", "blue", "navy", "purple", "pink", "brown", "grey", "white")
HAIR_COLOURS: dict[str, Colour] = {
    "black": (44, 38, 44), "dark brown": (82, 54, 42), "brown": (128, 82, 54),
    "auburn": (158, 76, 46), "blond": (226, 182, 98), "grey": (172, 172, 178),
}  # fmt: skip
HAIRSTYLES = ("short", "fringe", "bob", "long", "bun", "ponytail", "curly", "bald", "cap")
HAIRLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "short": ((-15, 72), (-75, 62)),
    "fringe": ((-12, 76), (-82, 74)),
    "bob": ((0, 92), (-72, 68)),
    "long": ((0, 92), (-75, 62)),
    "cap": ((-5, 70),),
    "bald": ((22, 50),),
}
"""The latitudes and radii of the caps of the ball, about the back of the head, that are covered with hair."""

HALF_WIDTH, HALF_HEIGHT = 0.40, 0.5
EYE_LATITUDE = 2.0
LARGEST_EYE_TURN = 38.0
"""Largest turn of the eyes in the head, in degrees."""
FEET = {"standing": 3.95, "sitting": 2.62, "bust": 3.4}
"""Distance from the middle of the head to the lower end of the figure, in head heights."""


@lru_cache(maxsize=4096)
def direction(longitude: float, latitude: float) -> Vector:
    """The unit vector of a place on the unturned ball: longitude 0 is the nose, 90 the ear on the right of the image.

    Latitude is positive downwards.
    """
    lon, lat = math.radians(longitude), math.radians(latitude)
    return math.cos(lat) * math.sin(lon), math.sin(lat), math.cos(lat) * math.cos(lon)


class Skull:
    """The turned ball: maps its surface to the plane of the image."""

    def __init__(self, yaw: float, pitch: float) -> None:
        self.cos_yaw, self.sin_yaw = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        self.cos_pitch, self.sin_pitch = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
        self.front = self.turn((0.0, 0.0, 1.0))
        # A head is deeper than it is wide.
        self.half_width = HALF_WIDTH * (1 + 0.12 * abs(self.front[0]))

    def turn(self, v: Vector) -> Vector:
        """Rotates a vector of the unturned head into the scene: x right, y down, z towards the viewer."""
        x, y, z = v
        down, out = y * self.cos_pitch + z * self.sin_pitch, z * self.cos_pitch - y * self.sin_pitch
        return x * self.cos_yaw + out * self.sin_yaw, down, out * self.cos_yaw - x * self.sin_yaw

    def flat(self, x: float, y: float, swell: float = 1.0) -> Point:
        """From the unit disc to head units: an egg shape whose narrow chin turns with the face."""
        jaw = y * abs(y) if y > 0 else 0.0
        return swell * (self.half_width * x * (1 - 0.2 * jaw) + 0.07 * self.front[0] * jaw), swell * HALF_HEIGHT * y

    def spot(self, longitude: float, latitude: float, radius: float = 1.0) -> tuple[Point, float]:
        """The position of a place in head units, and its depth towards the viewer (negative: on the far side)."""
        x, y, z = self.turn(direction(longitude, latitude))
        return self.flat(x * radius, y * radius), z

    def faces_viewer(self, longitude: float, latitude: float) -> bool:
        return self.turn(direction(longitude, latitude))[2] >= 0

    def outline(self, swell: float = 1.0) -> list[Point]:
        return [self.flat(u, v, swell) for u, v in arc(0, 360, 28)]

    def patch(self, longitude: float, latitude: float, width: float, height: float, radius: float = 1.0) -> list[Point]:
        """A foreshortened ellipse on the surface, with half axes in radii of the ball; empty on the far side."""
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

    def sheet(self, places: Sequence[Place]) -> list[Point]:
        """A polygon through places of the surface; empty when the first one is on the far side."""
        return [self.spot(*place)[0] for place in places] if self.faces_viewer(*places[0][:2]) else []

    def cap(self, longitude: float, latitude: float, radius: float, swell: float = 1.0) -> list[Point]:
        """The visible part of the spherical cap of angular ``radius`` about a place; ``swell`` lifts its rim.

        The edge of the cap is a circle; where it passes behind the ball, the outline of the ball closes it.
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
            # A cap that reaches beyond the far pole leaves a hole; the seam from rim to hole lies within the ring.
            around = [self.flat(v * ey - u * ex, -u * ey - v * ex, swell) for u, v in arc(0, 360, 28)]
            return edge if -az < cos else around + edge
        u, v = arc(half, half, 1)[0]
        stop = math.degrees(math.atan2(sin * v, cos * plane - sin * u * az))
        return edge + [self.flat(u * ex - v * ey, u * ey + v * ex, swell) for u, v in arc(stop, -stop, 18)]


def eye_offset(yaw: float, pitch: float) -> Point:
    """From the middle of the skull to the point between the eyes, in head units, whether or not it is visible."""
    return Skull(yaw, pitch).spot(0, EYE_LATITUDE)[0]


def draw_figure(
    brush: Brush, look: Look, lean: float, yaw: float, pitch: float, gaze_yaw: float, gaze_pitch: float
) -> None:
    """Draws a whole person about the middle of the head; ``lean`` in [-1, 1] turns the shoulders to one side."""
    away = Skull(yaw, pitch).front[2] < 0
    if not away:
        _hanging_hair(brush, look, yaw, pitch)
    _body(brush, look, lean)
    if away:
        _hanging_hair(brush, look, yaw, pitch)
    draw_head(brush, look, yaw, pitch, gaze_yaw, gaze_pitch)


def draw_head(brush: Brush, look: Look, yaw: float, pitch: float, gaze_yaw: float, gaze_pitch: float) -> None:
    """Draws face, eyes and hair, except for hair below the chin."""
    skull = Skull(yaw, pitch)
    skin, hair = SKINS[look.skin], HAIR_COLOURS[look.hair_colour]
    knot_in_front = skull.faces_viewer(180, -40)
    ears = {side: skull.faces_viewer(side, 4) for side in (-90, 90)}
    if skull.front[2] < 0:
        _nose(brush, skull, skin)
    if look.hair == "curly":
        _curls(brush, skull, hair)
    if not knot_in_front:
        _knot(brush, skull, look.hair, hair)
    for side, visible in ears.items():
        if not visible:
            _ear(brush, skull, side, skin)
    brush.polygon(skull.outline(), skin)
    _face(brush, skull, look, skin, hair, _eye_turn(gaze_yaw - yaw), _eye_turn(gaze_pitch - pitch))
    _hair(brush, skull, look, hair)
    for side, visible in ears.items():
        if visible and look.hair not in ("bob", "long"):
            _ear(brush, skull, side, skin)
    if knot_in_front:
        _knot(brush, skull, look.hair, hair)
    if look.glasses:
        _glasses(brush, skull, dark=look.glasses == "dark")
    if skull.front[2] >= 0:
        _nose(brush, skull, skin)


def _eye_turn(angle: float) -> float:
    """The turn of the eyes in the head as a share of the largest one, in [-1, 1]."""
    return max(-LARGEST_EYE_TURN, min(LARGEST_EYE_TURN, (angle + 180) % 360 - 180)) / LARGEST_EYE_TURN


def _fill(brush: Brush, points: list[Point], colour: Colour) -> None:
    if points:
        brush.polygon(points, colour)


def _nose(brush: Brush, skull: Skull, skin: Colour) -> None:
    colour = darker(blend(skin, (214, 96, 80), 0.22), 0.1)
    places: tuple[Place, ...] = ((0, -2, 1.0), (0, 19, 1.32), (-10, 25, 1.0), (10, 25, 1.0))
    bridge, tip, left, right = (skull.spot(*place)[0] for place in places)
    for side in (left, right):
        brush.polygon((bridge, tip, side), colour)
    brush.polygon((left, tip, right), darker(colour, 0.12))


def _ear(brush: Brush, skull: Skull, side: int, skin: Colour) -> None:
    (x, y), z = skull.spot(side, 8, 1.03)
    width = 0.06 + 0.04 * abs(z)
    brush.oval(x, y, width, 0.13, darker(skin, 0.1))
    brush.oval(x, y, width * 0.55, 0.08, darker(skin, 0.25))


def _face(brush: Brush, skull: Skull, look: Look, skin: Colour, hair: Colour, aside: float, down: float) -> None:
    """Beard, cheeks, eyes, brows and mouth; ``aside`` and ``down`` in [-1, 1] place the pupils."""
    if look.beard:
        _fill(brush, skull.cap(0, 64, 46), hair)
    brow = ((22, 25), (10, 21), (11, 17), (22, 20), (35, 17), (34, 21))
    for side in (-1, 1):
        _fill(brush, skull.patch(side * 38, 26, 0.16, 0.11), blend(skin, (232, 96, 90), 0.28))
        _fill(brush, skull.patch(side * 23, EYE_LATITUDE, 0.235, 0.27), darker(skin, 0.3))
        _fill(brush, skull.patch(side * 23, EYE_LATITUDE + 1, 0.21, 0.24), WHITE)
        _fill(brush, skull.patch(side * 23 + 8 * aside, EYE_LATITUDE + 1 + 8 * down, 0.115, 0.135), INK)
        shape = [(side * lon, EYE_LATITUDE - lat, 1.02) for lon, lat in brow]
        _fill(brush, skull.sheet(shape), darker(hair, 0.1 if look.hair_colour != "grey" else 0.3))
    low = [(lon, 54 - lon * lon / 42, 1.0) for lon in (0, 7, 14, 21)]
    high = [(lon, 47 - lon * lon / 75, 1.0) for lon in (14, 7, 0, -7, -14)]
    smile = [*low, *high, *((-lon, lat, 1.0) for lon, lat, _ in reversed(low[1:]))]
    _fill(brush, skull.sheet(smile), (150, 56, 58))


def _hair(brush: Brush, skull: Skull, look: Look, hair: Colour) -> None:
    for latitude, radius in HAIRLINES.get(look.hair, HAIRLINES["short"]):
        _fill(brush, skull.cap(180, latitude, radius, 1.16 if look.hair == "curly" else 1.07), hair)
    if look.hair in ("short", "fringe", "bob", "long"):
        _fill(brush, skull.cap(180, -80, 26), lighter(hair, 0.09))
    if look.hair == "cap":
        rim = [(lon, -30.0, 1.04) for lon in (55, 28, 0, -28, -55)]
        brim = [(lon, -27.0, 1.52 - abs(lon) / 160) for lon in (-48, -24, 0, 24, 48)]
        visor = [skull.spot(*place)[0] for place in rim + brim]
        crown = skull.cap(180, -80, 68, 1.1)
        colour = COLOURS[look.clothes]
        layers = [(visor, darker(colour, 0.3)), (crown, colour)]
        for points, shade in layers if skull.front[2] < 0 else reversed(layers):
            _fill(brush, points, shade)


def _curls(brush: Brush, skull: Skull, hair: Colour) -> None:
    x, y, _ = skull.turn(direction(180, -55))
    for u, v in arc(0, 324, 9):
        brush.oval(0.16 * x + 0.36 * u, 0.18 * y + 0.36 * v, 0.2, 0.2, hair)
    brush.oval(0.16 * x, 0.18 * y, 0.42, 0.42, hair)


def _knot(brush: Brush, skull: Skull, style: str, hair: Colour) -> None:
    """The bun or ponytail at the back of the head; nothing for other styles."""
    if style == "bun":
        (x, y), _ = skull.spot(180, -62, 1.28)
        brush.oval(x, y, 0.2, 0.19, darker(hair, 0.1))
        brush.oval(x - 0.03, y - 0.03, 0.13, 0.12, lighter(hair, 0.12))
    elif style == "ponytail":
        (x, y), _ = skull.spot(180, -28, 1.12)
        sway = 0.16 * -skull.front[0]
        top = ((x - 0.09, y - 0.06), (x + 0.09, y - 0.06))
        tail = ((x + sway + 0.15, y + 0.4), (x + sway * 1.3, y + 0.72), (x + sway - 0.15, y + 0.4))
        brush.polygon(top + tail, darker(hair, 0.1))
        brush.oval(x, y, 0.11, 0.1, (217, 66, 60))


def _glasses(brush: Brush, skull: Skull, dark: bool) -> None:
    for side in (-1, 1):
        outer = skull.patch(side * 23, EYE_LATITUDE, 0.3, 0.31, 1.04)
        if outer and dark:
            brush.polygon(outer, INK)
        elif outer:
            brush.polygon([*outer, *skull.patch(side * 23, EYE_LATITUDE, 0.25, 0.26, 1.04)], INK)
    if skull.front[2] > 0.05:
        brush.stroke([skull.spot(lon, EYE_LATITUDE - 2, 1.05)[0] for lon in (-7, 7)], 0.045, INK)


def _hanging_hair(brush: Brush, look: Look, yaw: float, pitch: float) -> None:
    """Hair beside and below the head: behind the body of a person who faces the viewer, otherwise before it."""
    if look.hair in ("bob", "long"):
        hair, back = darker(HAIR_COLOURS[look.hair_colour], 0.12), -Skull(yaw, pitch).front[0]
        x, narrower, end = 0.17 * back, 0.1 * abs(back), 0.62 if look.hair == "bob" else 1.25
        brush.oval(x, -0.04, 0.48, 0.48, hair)
        brush.rect(x - 0.5 + narrower, -0.1, x + 0.5 - narrower, end, hair, radius=0.2)


def _body(brush: Brush, look: Look, lean: float) -> None:
    skin, top, build, trousers = SKINS[look.skin], COLOURS[look.clothes], look.build, TROUSERS[look.trousers]
    if look.pose == "standing":
        for side in (-1, 1):
            leg = ((side * 0.27 * build, 2.2), (side * 0.29 * build, 3.72))
            brush.stroke(leg, 0.42 * build, darker(trousers, 0.1 if side > 0 else 0.0))
            brush.oval(side * 0.32 * build, 3.84, 0.28, 0.11, INK)
    shoulder, waist, twist = 0.68 * build * (1 - 0.12 * abs(lean)), 0.56 * build, 0.08 * lean
    hem = 2.75 if look.pose == "bust" else 2.3
    if look.arms != "front":
        _arms(brush, look, shoulder, twist)
    if look.pose == "standing" and look.pattern == "dress":
        brush.polygon(((-waist, 1.8), (waist, 1.8), (waist * 1.45, 2.95), (-waist * 1.45, 2.95)), top)
    torso = [(twist + 0.2, 0.62), (twist + shoulder * 0.82, 0.74), (twist + shoulder, 0.95)]
    torso += [(waist, hem - 0.08), (waist * 0.9, hem), (-waist * 0.9, hem), (-waist, hem - 0.08)]
    torso += [(twist - shoulder, 0.95), (twist - shoulder * 0.82, 0.74), (twist - 0.2, 0.62)]
    brush.polygon(torso, top)
    if look.pattern == "stripes":
        for y in (1.1, 1.5, 1.9):
            half = shoulder + (waist - shoulder) * (y - 0.95) / 1.3
            brush.rect(-half + twist * 0.6, y, half + twist * 0.6, y + 0.18, lighter(top, 0.5))
    elif look.pattern == "dots":
        for k in range(9):
            brush.oval(twist + 0.36 * build * (k % 3 - 1), 1.12 + 0.38 * (k // 3), 0.075, 0.075, lighter(top, 0.55))
    # A round neckline looks the same from behind: the body must not tell where its owner looks.
    brush.rect(twist - 0.19, 0.3, twist + 0.19, 0.76, darker(skin, 0.14), radius=0.14)
    if look.pose == "sitting":
        for side in (-1, 1):
            brush.stroke(((side * 0.32 * build, 2.24), (side * 0.98 * build, 2.34)), 0.44, darker(trousers, 0.08))
        for side in (1, -1):
            brush.stroke(((side * 0.98 * build, 2.38), (side * -0.3, 2.5)), 0.3, trousers)
            brush.oval(side * -0.42, 2.52, 0.2, 0.11, INK)
    if look.arms == "front":
        _arms(brush, look, shoulder, twist)


def _arms(brush: Brush, look: Look, shoulder: float, twist: float) -> None:
    skin, sleeve = SKINS[look.skin], darker(COLOURS[look.clothes], 0.12)
    for side in (-1, 1):
        start = (twist + side * (shoulder - 0.12), 0.92)
        elbow, hand = {
            "down": ((side * (shoulder + 0.12), 1.5), (side * (shoulder + 0.1), 2.15)),
            "hips": ((side * (shoulder + 0.42), 1.5), (side * (shoulder - 0.06), 1.98)),
            "front": ((side * (shoulder + 0.06), 1.62), (side * 0.3, 1.72)),
        }[look.arms]
        if look.arms == "down":
            brush.oval(hand[0], hand[1] + 0.14, 0.16, 0.19, skin)
        brush.stroke((start, elbow, hand), 0.32, sleeve)
        if look.arms == "front":
            brush.oval(*hand, 0.17, 0.17, skin)
