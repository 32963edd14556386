"""Composing scenes: places of people and things, and the target of every gaze.

The order is always the same: the place, people, the one salient thing, the other things, the gazes. A gaze goes to the
salient thing with probability ``Rules.consistent``: a model that always predicts that thing is often right, and must
read the eyes to be right about the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

from gazebench.datasets.gazeworld import figure
from gazebench.datasets.gazeworld.canvas import Box, Brush, Point
from gazebench.datasets.gazeworld.catalogue import CATEGORIES, Category
from gazebench.datasets.gazeworld.rng import Rng, grid
from gazebench.datasets.gazeworld.scene import (
    WORLD_VERSION,
    Backdrop,
    Look,
    Person,
    Scene,
    TargetKind,
    Thing,
    World,
)

PLACES = {"room": 0.36, "table": 0.26, "park": 0.24, "beach": 0.14}
ASPECTS = {4 / 3: 0.4, 3 / 2: 0.25, 16 / 9: 0.2, 1.0: 0.15}
OUTSIDE = 0.2
"""The share of people who look out of the image."""
DEPTH = 0.9
"""From the front of the scene to its far end, in image heights."""
APART = 0.06
"""The least distance of an inconsistent target from the salient box, normalised."""


@dataclass(frozen=True)
class Rules:
    """What differs between the versions of the world; pairs are ranges, sizes are in image heights.

    Attributes:
        people: how often so many people are meant to be in a scene.
        crowd: the share of scenes with five or six people.
        consistent: the share of the people who look into the image that look at the salient thing, if far enough.
        others: what the others look at, where there is one: shares of things, heads, empty spots.
        returned: how often a person looked at looks back.
        head: from crown to chin of a person at the viewer, and what is lost of it at the far end.
        table_head: of a person behind a table.
        smallest_head: the least of all.
        things: how many.
        salient_size, thing_size: heights, before the category's own size.
        salient_x: where the salient thing stands.
        dark: the share of the glasses that hide the eyes.
        glasses: the share of people with glasses.
        hidden: the largest share of a head's box that nearer people and things may hide.
        column: where a person stands in their column of the image, in its widths.
    """

    people: Mapping[int, float]
    crowd: float
    consistent: float
    others: tuple[float, float, float]
    returned: float
    head: tuple[float, float]
    table_head: tuple[float, float]
    smallest_head: float
    things: tuple[int, int]
    salient_size: tuple[float, float]
    thing_size: tuple[float, float]
    salient_x: tuple[float, float]
    glasses: float = 0.15
    dark: float = 0.0
    hidden: float = 0.0
    column: tuple[float, float] = (0.22, 0.78)


RULES: Mapping[World, Rules] = {
    1: Rules(
        people={1: 0.22, 2: 0.34, 3: 0.26, 4: 0.18}, crowd=0.05, consistent=0.68, others=(0.6, 0.25, 0.15),
        returned=0.35, head=(0.265, 0.14), table_head=(0.15, 0.26), smallest_head=0.085, things=(7, 10),
        salient_size=(0.16, 0.2), thing_size=(0.075, 0.115), salient_x=(0.22, 0.78),
    ),
    2: Rules(
        people={1: 0.1, 2: 0.25, 3: 0.3, 4: 0.35}, crowd=0.15, consistent=0.55, others=(0.62, 0.33, 0.05),
        returned=0.45, head=(0.17, 0.105), table_head=(0.09, 0.17), smallest_head=0.05, things=(10, 14),
        salient_size=(0.12, 0.16), thing_size=(0.06, 0.1), salient_x=(0.06, 0.94), glasses=0.3, dark=0.4, hidden=0.35,
        column=(-0.3, 1.3),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """The target of a gaze; the fields are those of ``Person`` that begin with ``target_``, and the gaze point."""

    kind: TargetKind
    id: int
    category: str
    point: Point
    depth: float


def compose(seed: int, index: int, split: str, version: World = WORLD_VERSION) -> Scene:
    """The scene of a key: the same on every machine and in every process.

    Args:
        seed: seed of the world.
        index: number of the scene in its split.
        split: any name; each has random numbers of its own.
        version: of the world.
    """
    return _Composer(seed, index, split, version).scene()


def overlap(a: Box, b: Box, margin: float = 0.0) -> bool:
    """Whether two boxes are less than ``margin`` apart."""
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin


def inside(point: Point, box: Box, margin: float = 0.0) -> bool:
    """Whether a point is in a box widened by ``margin``."""
    return box[0] - margin <= point[0] <= box[2] + margin and box[1] - margin <= point[1] <= box[3] + margin


def _clipped(box: Box, aspect: float) -> Box:
    """A box in scene units, normalised and cut at the edges of the image."""
    left, top, right, bottom = box
    return grid(max(0.0, left / aspect)), max(0.0, top), grid(min(1.0, right / aspect)), min(1.0, bottom)


@lru_cache(maxsize=256)
def _extent(category: str) -> Box:
    """The box of a thing of size one with its foot at the origin."""
    brush = Brush(None, 0, 0, 1)
    CATEGORIES[category].draw(brush, (0, 0, 0))
    return brush.bounds


def with_box(thing: Thing, aspect: float) -> Thing:
    """The thing with the box of its drawing."""
    brush = Brush(None, thing.x * aspect, thing.y, thing.size, angle=thing.angle, flip=thing.flip)
    CATEGORIES[thing.category].draw(brush, (0, 0, 0))
    return replace(thing, box=_clipped(brush.bounds, aspect))


def with_boxes(person: Person, aspect: float) -> Person:
    """The person with the boxes of their drawn head and body."""
    angles = (person.head_yaw, person.head_pitch, person.gaze_yaw, person.gaze_pitch)
    head, body = (Brush(None, person.x * aspect, person.y, person.size) for _ in range(2))
    figure.draw_head(head, person.look, *angles)
    figure.draw_figure(body, person.look, person.lean, *angles)
    return replace(person, head=_clipped(head.bounds, aspect), body=_clipped(body.bounds, aspect))


def aimed(
    person: Person, target: Target, salient: Box, aspect: float, turn: float, head: Point | None = None
) -> Person:
    """The person looking at a target.

    Args:
        person: the person who looks.
        target: the target of the gaze.
        salient: box of the salient thing, which decides the subset.
        aspect: width / height of the image.
        turn: share of the way from the viewer to the target that the head turns; the eyes turn all the way. Beyond 60
            degrees the head turns as far as the eyes do.
        head: yaw and pitch of the head, if they do not follow from ``turn`` (while it is still turning).
    """
    eye = (person.x * aspect, person.y)
    gaze_yaw = gaze_pitch = head_yaw = head_pitch = 0.0
    for _ in range(3):  # the eye moves with the head that it turns: a fixed point, found at once
        across, down = target.point[0] * aspect - eye[0], target.point[1] - eye[1]
        into = _into(across, down, (target.depth - person.depth) * DEPTH)
        gaze_yaw = math.degrees(math.atan2(across, -into))
        gaze_pitch = math.degrees(math.atan2(down, math.hypot(across, into)))
        head_yaw = gaze_yaw - (1 - turn) * max(-60.0, min(60.0, gaze_yaw))
        head_pitch = max(-40.0, min(40.0, gaze_pitch * turn))
        head_yaw, head_pitch = map(grid, head or (head_yaw, head_pitch))
        off = figure.eye_offset(head_yaw, head_pitch)
        eye = (person.x * aspect + off[0] * person.size, person.y + off[1] * person.size)
    gaze = (grid(target.point[0]), grid(target.point[1]))
    # The point alone decides the subset, as with real annotations.
    subset = "" if target.kind == "outside" else "consistent" if inside(gaze, salient) else "inconsistent"
    return replace(
        person,
        eye=(grid(eye[0] / aspect), grid(eye[1])),
        head_yaw=head_yaw,
        head_pitch=head_pitch,
        gaze_yaw=grid(gaze_yaw),
        gaze_pitch=grid(gaze_pitch),
        gaze=gaze,
        target_kind=target.kind,
        target_id=target.id,
        target_category=target.category,
        target_depth=target.depth,
        subset=subset,
    )


def _into(across: float, down: float, depth: float) -> float:
    """The depth of a gaze, limited to what a head can do and a viewer can read: never straight on, up or down."""
    reach = math.hypot(across, down)
    depth = max(-1.0 * reach, min(0.5 * reach, 0.6 * depth if depth > 0 else depth))
    least = math.sqrt(max(0.0, (0.7 * down) ** 2 - across**2))
    return depth if abs(depth) >= least else -least


class _Composer:
    """A scene in the making."""

    def __init__(self, seed: int, index: int, split: str, version: World) -> None:
        self.key, self.version, self.rules = (seed, index, split), version, RULES[version]
        self.rng = Rng("gazeworld", version, seed, split, index)
        self.aspect = self.rng.weighted(ASPECTS)
        self.backdrop = self._backdrop()
        self.indoors = self.backdrop.kind in ("room", "table")
        self.window: Box | None = None  # where nothing hangs
        if self.indoors and self.backdrop.decor == "window":
            half = 0.2 / self.aspect
            self.window = (self.backdrop.decor_x - half, 0.06, self.backdrop.decor_x + half, 0.47)
        self.ids = iter(range(1, 256))
        self.people: list[Person] = []
        self.things: list[Thing] = []

    def scene(self) -> Scene:
        self._add_people()
        self._add_things()
        self._add_gazes()
        (seed, index, split), salient = self.key, self.things[0].id
        things, people = tuple(self.things), tuple(self.people)
        return Scene(seed, split, index, 0, self.aspect, self.backdrop, things, people, salient, self.version)

    def _backdrop(self) -> Backdrop:
        rng = self.rng
        kind = rng.weighted(PLACES)
        return Backdrop(
            kind=kind,
            palette=rng.integer(0, 5),
            pattern=rng.choice(("plain", "stripes", "dots", "panels", "bricks")),
            flooring=rng.choice(("planks", "tiles", "carpet")),
            decor=rng.choice(("window", "curtain", "none")),
            decor_x=rng.uniform(0.12, 0.88),
            horizon=rng.uniform(0.66, 0.76) if kind == "table" else rng.uniform(0.56, 0.68),
            grain=rng.integer(0, 2**31 - 1),
        )

    # People

    def _add_people(self) -> None:
        rng = self.rng
        number = rng.weighted(self.rules.people)
        if rng.chance(self.rules.crowd):
            number = rng.integer(5, 6)
        clothes = rng.shuffled(figure.CLOTHES)
        columns = max(number, 2)
        for column, colour in zip(rng.shuffled(range(columns))[:number], clothes, strict=False):
            for _ in range(12):
                person = self._new_person((column + rng.uniform(*self.rules.column)) * (1 / columns), number, colour)
                if self._stands_free(person):
                    self.people.append(replace(person, id=next(self.ids)))
                    break

    def _new_person(self, x: float, number: int, clothes: str) -> Person:
        rng, horizon, rules = self.rng, self.backdrop.horizon, self.rules
        crowding = min(1.0, 3.0 * self.aspect / (number + 1.6))
        if self.backdrop.kind == "table":
            pose, depth = "bust", rng.uniform(0.5, 0.7)
            size = grid(rng.uniform(*rules.table_head) * crowding)
            y = horizon - size * rng.uniform(1.5, 2.1)
        else:
            depth = rng.uniform(0.05, 0.95)
            pose = rng.weighted({"standing": 0.68, "sitting": 0.32})
            size = grid(
                max(rules.smallest_head, (rules.head[0] - rules.head[1] * depth) * rng.uniform(0.85, 1.1) * crowding)
            )
            ground = horizon + 0.1 + (1.22 - horizon) * (1 - depth)
            y = ground - figure.FEET[pose] * size
        y = grid(max(0.75 * size + 0.02, min(y, 0.68)))
        look = Look(
            skin=rng.integer(0, len(figure.SKINS) - 1),
            hair=rng.choice(figure.HAIRSTYLES),
            hair_colour=rng.choice(tuple(figure.HAIR_COLOURS)),
            clothes=clothes,
            pattern=rng.choice(("plain", "plain", "stripes", "dots", "dress")),
            trousers=rng.integer(0, len(figure.TROUSERS) - 1),
            pose=pose,
            arms=rng.choice(("down", "down", "hips", "front")),
            glasses=rng.chance(rules.glasses),
            beard=False,
            build=rng.uniform(0.86, 1.08),
        )
        if look.hair in ("short", "bald", "cap", "fringe"):
            look = replace(look, beard=rng.chance(0.3))
        if rules.dark and look.glasses and rng.chance(rules.dark):
            look = replace(look, glasses="dark")
        margin = 0.7 * size / self.aspect
        x = grid(max(margin, min(1 - margin, x)))
        return with_boxes(Person(id=0, look=look, x=x, y=y, size=size, depth=depth), self.aspect)

    def _stands_free(self, person: Person) -> bool:
        if self.rules.hidden:
            return all(
                covered(far.head, near.head, torso(near)) <= self.rules.hidden
                for other in self.people
                for near, far in [sorted((person, other), key=lambda each: each.depth)]
            )
        return not any(
            overlap(person.head, other.head, 0.03)
            or overlap(person.head, torso(other), 0.01)
            or overlap(other.head, torso(person), 0.01)
            for other in self.people
        )

    # Things

    def _add_things(self) -> None:
        rng = self.rng
        names = rng.shuffled(tuple(CATEGORIES))
        if not (rng.chance(0.2) and self._hold_salient(names)):
            # In a crowd the salient thing shrinks until it fits.
            tries = count()
            while not self._place(names[0], salient=True, scale=0.97 ** next(tries)):
                names.append(names.pop(0))
            names.pop(0)
        colour = self.things[0].colour
        wanted = rng.integer(*self.rules.things)
        for name in names:
            if len(self.things) >= wanted:
                break
            self._place(name, salient=False, avoid=colour)

    def _hold_salient(self, names: list[str]) -> bool:
        """Puts the salient thing into the hands of a person, if it fits there, and removes its name from ``names``."""
        name = next(n for n in names if CATEGORIES[n].mount == "rest" and CATEGORIES[n].size < 1.2)
        for person in self.rng.shuffled(self.people):
            size = grid(person.size * 0.95 * CATEGORIES[name].size)
            y = grid(person.y + person.size * 1.85)
            if y > 0.93 or (self.backdrop.kind == "table" and y > self.backdrop.horizon):
                continue
            holder = with_boxes(replace(person, look=replace(person.look, arms="front")), self.aspect)
            depth = max(0.0, person.depth - 0.12)
            thing = self._new_thing(name, person.x, y, size, depth, "hands", holder=holder.id, salient=True)
            if not any(overlap(thing.box, other.head, 0.02) for other in self.people if other is not person):
                self.people[self.people.index(person)] = holder
                self.things.append(thing)
                names.remove(name)
                return True
        return False

    def _new_thing(self, name: str, x: float, y: float, size: float, depth: float, support: str, *, salient: bool,
                   holder: int = 0, avoid: str = "") -> Thing:  # fmt: skip
        """A thing in a colour other than ``avoid``; vivid if it is salient."""
        rng, category = self.rng, CATEGORIES[name]
        tints = [tint for tint in category.tints if tint != avoid] or list(category.tints)
        vivid = [tint for tint in tints if tint not in ("grey", "white", "brown", "navy")]
        tilt = {"rest": 4.0, "wall": 3.0, "air": 18.0}[category.mount] if support != "hands" else 8.0
        thing = Thing(
            id=next(self.ids),
            category=name,
            colour=rng.choice(vivid or tints) if salient else rng.choice(tints),
            x=grid(x),
            y=grid(y),
            size=grid(size),
            angle=rng.uniform(-tilt, tilt),
            flip=rng.chance(0.5),
            depth=grid(depth),
            support=support,
            holder=holder,
        )
        return with_box(thing, self.aspect)

    def _place(self, name: str, salient: bool, scale: float = 1.0, avoid: str = "") -> bool:
        """Puts a thing where there is room: a few places are tried, and the loneliest taken, to spread the targets."""
        rng, category = self.rng, CATEGORIES[name]
        size = grid(
            rng.uniform(*(self.rules.salient_size if salient else self.rules.thing_size)) * category.size**0.7 * scale
        )
        left, top, right, bottom = _extent(name)
        best, most = None, 0.0
        for _ in range(24 if salient else 7):
            x = rng.uniform(*self.rules.salient_x) if salient else rng.uniform(0.04, 0.96)
            y, depth, support = self._spot(category, size)
            box = (x + left * size / self.aspect, y + top * size, x + right * size / self.aspect, y + bottom * size)
            hangs = support in ("shelf", "wall")
            if not self._has_room(box, depth, salient) or (hangs and self.window and overlap(box, self.window)):
                continue
            gap = self._loneliness(box)
            if gap > most:
                best, most = (x, y, size, depth, support), gap
                if salient:
                    break
        if best:
            self.things.append(self._new_thing(name, *best, salient=salient, avoid=avoid))
        return best is not None

    def _spot(self, category: Category, size: float) -> tuple[float, float, str]:
        """A random height of the foot, with the depth and the support that go with it."""
        rng, place, horizon = self.rng, self.backdrop.kind, self.backdrop.horizon
        if category.mount == "air":
            return rng.uniform(0.02 + size, max(0.45, size + 0.1)), rng.uniform(0.2, 1.0), ""
        if category.mount == "wall" or rng.chance(0.42):
            y = rng.uniform(size + 0.03, horizon - 0.06)
            if category.mount == "wall" and self.indoors:
                return y, 1.0, "wall"
            return y, 0.97, "shelf" if self.indoors else "post"
        y = rng.uniform(horizon + 0.05, 0.97)
        far, span = (0.42, 0.35) if place == "table" else (1, 0.75)
        return y, grid(far - span * (y - horizon) / (1 - horizon)), ""

    def _has_room(self, box: Box, depth: float, salient: bool) -> bool:
        if not (box[0] > 0.01 and box[1] > 0.01 and box[2] < 0.99 and box[3] < 0.99):
            return False
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        for person in self.people:
            hides = self.rules.hidden and not salient and depth < person.depth
            if hides and covered(person.head, box) <= self.rules.hidden:
                continue
            if overlap(box, person.head, 0.045 if salient else 0.03):
                return False
            hidden = inside(middle, person.body, 0.02) or (salient and overlap(box, torso(person)))
            if person.depth < depth and hidden:
                return False
        return not any(overlap(box, other.box, 0.03 if i == 0 else -0.01) for i, other in enumerate(self.things))

    def _loneliness(self, box: Box) -> float:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        others = [thing.centre for thing in self.things] + [(person.x, person.y) for person in self.people]
        return 0.05 + min((math.hypot(x - u, y - v) for u, v in others), default=1.0)

    # Gazes

    def _add_gazes(self) -> None:
        rng = self.rng
        targets: dict[int, Target] = {}
        for person in rng.shuffled(self.people):
            if person.id in targets:
                continue
            target = choose(rng, person, self.people, self.things, self.aspect, self.version)
            targets[person.id] = target
            if target.kind == "person" and target.id not in targets and rng.chance(self.rules.returned):
                targets[target.id] = _head(rng, person)
        salient = self.things[0].box
        for i, person in enumerate(self.people):
            turned = aimed(person, targets[person.id], salient, self.aspect, rng.uniform(0.6, 0.9))
            # Shoulders follow the head, but mostly they are turned at random.
            lean = 0.3 * math.sin(math.radians(turned.head_yaw)) + rng.normal(0.4)
            self.people[i] = with_boxes(replace(turned, lean=grid(max(-1.0, min(1.0, lean)))), self.aspect)


def choose(
    rng: Rng, person: Person, people: Sequence[Person], things: Sequence[Thing], aspect: float, version: World
) -> Target:
    """Draws a target for a person; ``things[0]`` is the salient one."""
    rules = RULES[version]
    if rng.chance(OUTSIDE):
        return _outside(rng, person, aspect)
    if rng.chance(rules.consistent) and _far_enough(person, things[0].centre, aspect):
        return _thing(rng, things[0])
    seen = [thing for thing in things[1:] if _far_enough(person, thing.centre, aspect)]
    heads = [other for other in people if other.id != person.id and _far_enough(person, (other.x, other.y), aspect)]
    kind = rng.weighted(
        {"thing": rules.others[0], "person": rules.others[1] if heads else 0.0, "void": rules.others[2]}
    )
    if kind == "person":
        target = _head(rng, rng.choice(heads))
    elif kind == "thing" and seen:
        target = _thing(rng, rng.choice(seen))
    else:
        return _void(rng, person, people, things, aspect)
    return _void(rng, person, people, things, aspect) if inside(target.point, things[0].box, APART) else target


def _head(rng: Rng, person: Person) -> Target:
    return Target("person", person.id, "person", _within(rng, person.head, 0.15), person.depth)


def _thing(rng: Rng, thing: Thing) -> Target:
    return Target("thing", thing.id, thing.category, _within(rng, thing.box, 0.2), thing.depth)


def _within(rng: Rng, box: Box, share: float) -> Point:
    """A point of a box, up to a ``share`` of its sides from its middle."""
    left, top, right, bottom = box
    return (
        (left + right) / 2 + rng.uniform(-share, share) * (right - left),
        (top + bottom) / 2 + rng.uniform(-share, share) * (bottom - top),
    )


def _void(rng: Rng, person: Person, people: Sequence[Person], things: Sequence[Thing], aspect: float) -> Target:
    """An empty spot: the first that is clear of everything, or the clearest of many."""
    boxes = [other.head for other in people] + [thing.box for thing in things]
    best, most = (0.5, 0.5), -1.0
    for _ in range(48):
        point = (rng.uniform(0.04, 0.96), rng.uniform(0.04, 0.96))
        if not _far_enough(person, point, aspect) or inside(point, things[0].box, APART):
            continue
        gap = min(max(b[0] - point[0], point[0] - b[2], b[1] - point[1], point[1] - b[3]) for b in boxes)
        if gap > most:
            best, most = point, gap
        if gap > 0.05:
            break
    return Target("void", 0, "", best, rng.uniform(0.1, 0.9))


def _outside(rng: Rng, person: Person, aspect: float) -> Target:
    """A point outside the image, preferably beyond a near edge: few people look out across the whole image."""
    best, least = (-0.2, 0.5), math.inf
    for _ in range(3):
        side, along, away = rng.integer(0, 3), rng.uniform(-0.2, 1.2), rng.uniform(0.08, 0.5)
        point = ((-away, along), (1 + away, along), (along, -away), (along, 1 + away))[side]
        edge = [max(0.0, min(1.0, value)) for value in point]
        distance = math.hypot((edge[0] - person.x) * aspect, edge[1] - person.y)
        if distance < least:
            best, least = point, distance
    return Target("outside", 0, "", best, rng.uniform(-0.4, 0.9))


def _far_enough(person: Person, point: Point, aspect: float) -> bool:
    """Whether a target is far enough from a head for the gaze to have a visible direction."""
    return math.hypot((point[0] - person.x) * aspect, point[1] - person.y) >= max(0.14, 1.05 * person.size)


def covered(box: Box, *covers: Box) -> float:
    """At most this share of a box is covered by others."""
    shared = 0.0
    for other in covers:
        across, down = (min(box[k + 2], other[k + 2]) - max(box[k], other[k]) for k in (0, 1))
        shared += max(0.0, across) * max(0.0, down)
    return shared / max(1e-9, (box[2] - box[0]) * (box[3] - box[1]))


def torso(person: Person) -> Box:
    """The part of the body that hides what is behind it."""
    left, _, right, bottom = person.body
    middle, half = (left + right) / 2, min(0.6 * person.size, (right - left) / 2)
    return middle - half, person.head[3], middle + half, bottom
