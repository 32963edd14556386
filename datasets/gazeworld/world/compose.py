"""Composing scenes: who and what is where, and who looks at what.

The order is always the same: a place, people, the one salient thing, the others, then the gazes. A gaze goes to the
salient thing with the share ``consistent``, so betting on it pays often; where it goes otherwise only eyes tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import TypedDict, Unpack

from gazebench.datasets.gazeworld.world import figure
from gazebench.datasets.gazeworld.world.catalogue import CATEGORIES, Category
from gazebench.datasets.gazeworld.world.dice import Dice, grid, seeded
from gazebench.datasets.gazeworld.world.pen import Box, Pen, Point
from gazebench.datasets.gazeworld.world.scene import WORLD_VERSION, Backdrop, Look, Person, Scene, TargetKind, Thing

PLACES = {"room": 0.36, "table": 0.26, "park": 0.24, "beach": 0.14}
ASPECTS = {4 / 3: 0.4, 3 / 2: 0.25, 16 / 9: 0.2, 1.0: 0.15}
DEPTH = 0.9
"""From the front of the scene to its far end, in heights of the picture."""
EMPTY: Box = (0.0, 0.0, 0.0, 0.0)
APART = 0.06
"""The least gap between an inconsistent target and the salient box, normalised."""


class Options(TypedDict, total=False):
    """What a world may vary: the aspect (0 for all sorts), people and things at most, and three shares.

    ``crowd``: scenes with up to two people more; ``consistent``: of those whose target is in frame, the ones who look
    at the salient thing; ``outside``: those who look out of the picture.
    """

    aspect: float
    people: int
    things: int
    crowd: float
    consistent: float
    outside: float


DEFAULTS: Options = {"aspect": 0.0, "people": 4, "things": 9, "crowd": 0.05, "consistent": 0.68, "outside": 0.2}


@dataclass(frozen=True)
class Target:
    """What a gaze goes to, at which point and depth."""

    kind: TargetKind
    id: int
    category: str
    point: Point
    depth: float


def compose(seed: int, index: int, split: str, **options: Unpack[Options]) -> Scene:
    """The scene of a key: the same on every machine and in every process, and no other split's.

    Args:
        seed: the world.
        index: the number of the scene in its split.
        split: "train", "val", "test" or any name; each has a random stream of its own.
        **options: see ``Options``.

    Raises:
        TypeError: when an option is unknown.
    """
    if unknown := options.keys() - DEFAULTS.keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(DEFAULTS)}")
    return _Stage(seed, index, split, {**DEFAULTS, **options}).scene()


def window_of(backdrop: Backdrop, aspect: float) -> Box:
    """The box of the window, where nothing hangs; empty and far away where there is none."""
    if backdrop.decor != "window" or backdrop.kind not in ("room", "table"):
        return -9.0, -9.0, -9.0, -9.0
    return backdrop.decor_x - 0.2 / aspect, 0.06, backdrop.decor_x + 0.2 / aspect, 0.47


def overlap(a: Box, b: Box, margin: float = 0.0) -> bool:
    """True when two boxes come nearer than ``margin`` to each other."""
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin


def inside(point: Point, box: Box, margin: float = 0.0) -> bool:
    """True when a point is in a box widened by ``margin``."""
    return box[0] - margin <= point[0] <= box[2] + margin and box[1] - margin <= point[1] <= box[3] + margin


def clipped(box: Box, aspect: float) -> Box:
    """A box of scene units, normalised and cut at the edges of the picture."""
    left, top, right, bottom = box
    return grid(max(0.0, left / aspect)), max(0.0, top), grid(min(1.0, right / aspect)), min(1.0, bottom)


@lru_cache(maxsize=256)
def extent(category: str) -> Box:
    """The box of a thing of size one with its foot at the origin."""
    pen = Pen(None, 0, 0, 1)
    CATEGORIES[category].draw(pen, (0, 0, 0))
    return pen.bounds


def measured(thing: Thing, aspect: float) -> Thing:
    """The thing with its true box."""
    pen = Pen(None, thing.x * aspect, thing.y, thing.size, angle=thing.angle, flip=thing.flip)
    CATEGORIES[thing.category].draw(pen, (0, 0, 0))
    return replace(thing, box=clipped(pen.bounds, aspect))


def subset_of(kind: TargetKind, point: Point, salient: Box) -> str:
    """The subset of a gaze: decided by the point alone, as real annotations are."""
    if kind == "outside":
        return ""
    return "consistent" if inside(point, salient) else "inconsistent"


def aimed(
    person: Person, target: Target, salient: Box, aspect: float, turn: float, lead: Point | None = None
) -> Person:
    """The person looking at a target: the eyes all the way, the head ``turn`` of it.

    Args:
        person: whoever looks.
        target: what they look at.
        salient: box of the salient thing, for the subset.
        aspect: of the picture.
        turn: share of the way from the viewer to the target that the head goes (beyond 60 degrees it goes along).
        lead: yaw and pitch of the head where it is not up to the gaze (a head still turning); eyes go as ever.
    """
    eye = (person.x * aspect, person.y)
    gaze_yaw = gaze_pitch = head_yaw = head_pitch = 0.0
    for _ in range(3):  # the eye moves with the head it is in: a fixed point, found at once
        across, down = target.point[0] * aspect - eye[0], target.point[1] - eye[1]
        into = _into(across, down, (target.depth - person.depth) * DEPTH)
        gaze_yaw = math.degrees(math.atan2(across, -into))
        gaze_pitch = math.degrees(math.atan2(down, math.hypot(across, into)))
        head_yaw = gaze_yaw - (1 - turn) * max(-60.0, min(60.0, gaze_yaw))
        head_pitch = max(-40.0, min(40.0, gaze_pitch * turn))
        if lead:
            head_yaw, head_pitch = lead
        head_yaw, head_pitch = grid(head_yaw), grid(head_pitch)
        off = figure.eye_offset(head_yaw, head_pitch)
        eye = (person.x * aspect + off[0] * person.size, person.y + off[1] * person.size)
    gaze = (grid(target.point[0]), grid(target.point[1]))
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
        subset=subset_of(target.kind, gaze, salient),
    )


def sized(person: Person, aspect: float) -> Person:
    """The person with the true boxes of head and body."""
    angles = (person.head_yaw, person.head_pitch, person.gaze_yaw, person.gaze_pitch)
    head = Pen(None, person.x * aspect, person.y, person.size)
    figure.draw_head(head, person.look, *angles)
    body = Pen(None, person.x * aspect, person.y, person.size)
    figure.draw_figure(body, person.look, person.lean, *angles)
    return replace(person, head=clipped(head.bounds, aspect), body=clipped(body.bounds, aspect))


def _into(across: float, down: float, depth: float) -> float:
    """The depth of a gaze, kept where a head can go and a viewer can read: never straight on, up or down."""
    reach = math.hypot(across, down)
    depth = max(-1.0 * reach, min(0.5 * reach, 0.6 * depth if depth > 0 else depth))
    least = math.sqrt(max(0.0, (0.7 * down) ** 2 - across**2))
    return depth if abs(depth) >= least else -least


class _Stage:
    """A scene in the making."""

    def __init__(self, seed: int, index: int, split: str, options: Options) -> None:
        self.key = (seed, index, split)
        self.options = options
        self.dice = Dice(seeded("gazeworld", WORLD_VERSION, seed, split, index))
        self.aspect = options["aspect"] or self.dice.weigh(ASPECTS)
        self.backdrop = self._backdrop()
        self.window = window_of(self.backdrop, self.aspect)
        self.ids = iter(range(1, 256))
        self.people: list[Person] = []
        self.things: list[Thing] = []

    def scene(self) -> Scene:
        seed, index, split = self.key
        self._invite()
        self._furnish()
        self._look_around()
        return Scene(
            seed=seed,
            split=split,
            index=index,
            frame=0,
            aspect=self.aspect,
            backdrop=self.backdrop,
            things=tuple(self.things),
            people=tuple(self.people),
            salient=self.things[0].id,
        )

    def _backdrop(self) -> Backdrop:
        dice = self.dice
        kind = dice.weigh(PLACES)
        return Backdrop(
            kind=kind,
            palette=dice.integer(0, 5),
            pattern=dice.pick(("plain", "stripes", "dots", "panels", "bricks")),
            flooring=dice.pick(("planks", "tiles", "carpet")),
            decor=dice.pick(("window", "curtain", "none")),
            decor_x=dice.uniform(0.12, 0.88),
            horizon=dice.uniform(0.66, 0.76) if kind == "table" else dice.uniform(0.56, 0.68),
            grain=dice.integer(0, 2**31 - 1),
        )

    # People

    def _invite(self) -> None:
        dice, most = self.dice, self.options["people"]
        many = dice.weigh({n: (0.22, 0.34, 0.26, 0.18)[min(n, 4) - 1] for n in range(1, most + 1)})
        if dice.chance(self.options["crowd"]):
            many = most + dice.integer(1, 2)
        clothes = dice.shuffled(figure.CLOTHES)
        slots = dice.shuffled(range(max(many, 2)))[:many]
        width = 1 / max(many, 2)
        for slot, colour in zip(slots, clothes, strict=False):
            for _ in range(12):
                person = self._someone((slot + dice.uniform(0.22, 0.78)) * width, many, colour)
                if self._stands_free(person):
                    self.people.append(replace(person, id=next(self.ids)))
                    break

    def _someone(self, x: float, many: int, clothes: str) -> Person:
        dice, horizon = self.dice, self.backdrop.horizon
        crowding = min(1.0, 3.0 * self.aspect / (many + 1.6))
        if self.backdrop.kind == "table":
            pose, depth = "bust", dice.uniform(0.5, 0.7)
            size = grid(dice.uniform(0.15, 0.26) * crowding)
            y = horizon - size * dice.uniform(1.5, 2.1)
        else:
            depth = dice.uniform(0.05, 0.95)
            pose = dice.weigh({"standing": 0.68, "sitting": 0.32})
            size = grid(max(0.085, (0.265 - 0.14 * depth) * dice.uniform(0.85, 1.1) * crowding))
            ground = horizon + 0.1 + (1.22 - horizon) * (1 - depth)
            y = ground - figure.FEET[pose] * size
        y = grid(max(0.75 * size + 0.02, min(y, 0.68)))
        look = Look(
            skin=dice.integer(0, len(figure.SKINS) - 1),
            hair=dice.pick(figure.HAIRSTYLES),
            hair_colour=dice.pick(tuple(figure.HAIR_COLOURS)),
            clothes=clothes,
            pattern=dice.pick(("plain", "plain", "stripes", "dots", "dress")),
            trousers=dice.integer(0, len(figure.TROUSERS) - 1),
            pose=pose,
            arms=dice.pick(("down", "down", "hips", "front")),
            glasses=dice.chance(0.15),
            beard=False,
            build=dice.uniform(0.86, 1.08),
        )
        if look.hair in ("short", "bald", "cap", "fringe"):
            look = replace(look, beard=dice.chance(0.3))
        margin = 0.7 * size / self.aspect
        x = grid(max(margin, min(1 - margin, x)))
        nobody = Person(
            id=0,
            look=look,
            x=x,
            y=y,
            size=size,
            depth=depth,
            lean=0.0,
            head=EMPTY,
            body=EMPTY,
            eye=(x, y),
            head_yaw=0.0,
            head_pitch=0.0,
            gaze_yaw=0.0,
            gaze_pitch=0.0,
            gaze=(x, y),
            target_kind="void",
            target_id=0,
            target_category="",
            target_depth=0.0,
            subset="",
        )
        return sized(nobody, self.aspect)

    def _stands_free(self, person: Person) -> bool:
        return not any(
            overlap(person.head, other.head, 0.03)
            or overlap(person.head, _core(other), 0.01)
            or overlap(other.head, _core(person), 0.01)
            for other in self.people
        )

    # Things

    def _furnish(self) -> None:
        dice = self.dice
        names = dice.shuffled(tuple(CATEGORIES))
        if not (dice.chance(0.2) and self._hand_over(names)):
            # In a crowd the salient thing must shrink until it fits.
            tries = count()
            while not self._place(names[0], salient=True, scale=0.97 ** next(tries)):
                names.append(names.pop(0))
            names.pop(0)
        colour = self.things[0].colour
        wanted = 1 + dice.integer(self.options["things"] - 3, self.options["things"])
        for name in names:
            if len(self.things) >= wanted:
                break
            self._place(name, salient=False, shun=colour)

    def _hand_over(self, names: list[str]) -> bool:
        """Puts the salient thing into somebody's hands."""
        dice = self.dice
        name = next(n for n in names if CATEGORIES[n].mount == "rest" and CATEGORIES[n].size < 1.2)
        for person in dice.shuffled(self.people):
            size = grid(person.size * 0.95 * CATEGORIES[name].size)
            y = grid(person.y + person.size * 1.85)
            if y > 0.93 or (self.backdrop.kind == "table" and y > self.backdrop.horizon):
                continue
            look = replace(person.look, arms="front")
            holder = sized(replace(person, look=look), self.aspect)
            thing = self._made(name, person.x, y, size, max(0.0, person.depth - 0.12), "hands", holder.id, True)
            if not any(overlap(thing.box, other.head, 0.02) for other in self.people if other is not person):
                self.people[self.people.index(person)] = holder
                self.things.append(thing)
                names.remove(name)
                return True
        return False

    def _made(
        self,
        name: str,
        x: float,
        y: float,
        size: float,
        depth: float,
        support: str,
        holder: int,
        salient: bool,
        shun: str = "",
    ) -> Thing:
        dice, category = self.dice, CATEGORIES[name]
        tints = [tint for tint in category.tints if tint != shun] or list(category.tints)
        vivid = [tint for tint in tints if tint not in ("grey", "white", "brown", "navy")]
        tilt = {"rest": 4.0, "wall": 3.0, "air": 18.0}[category.mount] if support != "hands" else 8.0
        thing = Thing(
            id=next(self.ids),
            category=name,
            colour=dice.pick(vivid or tints) if salient else dice.pick(tints),
            x=grid(x),
            y=grid(y),
            size=grid(size),
            angle=dice.uniform(-tilt, tilt),
            flip=dice.chance(0.5),
            depth=grid(depth),
            support=support,
            holder=holder,
            box=EMPTY,
        )
        return measured(thing, self.aspect)

    def _place(self, name: str, salient: bool, scale: float = 1.0, shun: str = "") -> bool:
        """Finds a free place, the loneliest of a few: targets should lie in all directions."""
        dice, category = self.dice, CATEGORIES[name]
        size = grid((dice.uniform(0.16, 0.2) if salient else dice.uniform(0.075, 0.115)) * category.size**0.7 * scale)
        best, most = None, 0.0
        for _ in range(24 if salient else 7):
            x = dice.uniform(0.22, 0.78) if salient else dice.uniform(0.04, 0.96)
            y, depth, support = self._spot(category, size)
            left, top, right, bottom = extent(name)
            box = (x + left * size / self.aspect, y + top * size, x + right * size / self.aspect, y + bottom * size)
            if not self._fits(box, depth, salient) or (support in ("shelf", "wall") and overlap(box, self.window)):
                continue
            gap = self._loneliness(box)
            if gap > most:
                best, most = (x, y, depth, support), gap
                if salient:
                    break
        if best:
            x, y, depth, support = best
            self.things.append(self._made(name, x, y, size, depth, support, 0, salient, shun))
        return best is not None

    def _spot(self, category: Category, size: float) -> tuple[float, float, str]:
        """A foot height for a kind of thing, with the depth and the support that go with it."""
        dice, place, horizon = self.dice, self.backdrop.kind, self.backdrop.horizon
        indoors = place in ("room", "table")
        if category.mount == "air":
            return dice.uniform(0.02 + size, max(0.45, size + 0.1)), dice.uniform(0.2, 1.0), ""
        if category.mount == "wall" or dice.chance(0.42):
            y = dice.uniform(size + 0.03, horizon - 0.06)
            if category.mount == "wall" and indoors:
                return y, 1.0, "wall"
            return y, 0.97, "shelf" if indoors else "post"
        y = dice.uniform(horizon + 0.05, 0.97)
        if place == "table":
            return y, grid(0.42 - 0.35 * (y - horizon) / (1 - horizon)), ""
        return y, grid(1 - 0.75 * (y - horizon) / (1 - horizon)), ""

    def _fits(self, box: Box, depth: float, salient: bool) -> bool:
        if not (box[0] > 0.01 and box[1] > 0.01 and box[2] < 0.99 and box[3] < 0.99):
            return False
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        for person in self.people:
            if overlap(box, person.head, 0.045 if salient else 0.03):
                return False
            behind = person.depth < depth
            if behind and (inside(middle, person.body, 0.02) or (salient and overlap(box, _core(person)))):
                return False
        return not any(overlap(box, other.box, 0.03 if i == 0 else -0.01) for i, other in enumerate(self.things))

    def _loneliness(self, box: Box) -> float:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        others = [thing.centre for thing in self.things] + [(person.x, person.y) for person in self.people]
        return 0.05 + min((math.hypot(x - u, y - v) for u, v in others), default=1.0)

    # Gazes

    def _look_around(self) -> None:
        dice = self.dice
        aims: dict[int, Target] = {}
        for person in dice.shuffled(self.people):
            if person.id in aims:
                continue
            target = choose(dice, person, self.people, self.things, self.aspect, self.options)
            aims[person.id] = target
            if target.kind == "person" and target.id not in aims and dice.chance(0.35):
                aims[target.id] = head_of(dice, person)
        salient = self.things[0].box
        for i, person in enumerate(self.people):
            turned = aimed(person, aims[person.id], salient, self.aspect, dice.uniform(0.6, 0.9))
            # Shoulders follow the head hardly more than they please themselves.
            lean = 0.3 * math.sin(math.radians(turned.head_yaw)) + dice.bell(0.4)
            self.people[i] = sized(replace(turned, lean=grid(max(-1.0, min(1.0, lean)))), self.aspect)


def choose(
    dice: Dice, person: Person, people: Sequence[Person], things: Sequence[Thing], aspect: float, options: Options
) -> Target:
    """Draws a target for a person; ``things[0]`` is the salient one."""
    if dice.chance(options["outside"]):
        return _beyond(dice, person, aspect)
    if dice.chance(options["consistent"]) and _visible(person, things[0].centre, aspect):
        return _on(dice, things[0])
    salient = things[0].box
    seen = [thing for thing in things[1:] if _visible(person, thing.centre, aspect)]
    heads = [other for other in people if other.id != person.id and _visible(person, (other.x, other.y), aspect)]
    kind = dice.weigh({"thing": 0.6, "person": 0.25 if heads else 0.0, "void": 0.15})
    if kind == "person":
        target = head_of(dice, dice.pick(heads))
    elif kind == "void" or not seen:
        return _void(dice, person, people, things, aspect)
    else:
        target = _on(dice, dice.pick(seen))
    return _void(dice, person, people, things, aspect) if inside(target.point, salient, APART) else target


def head_of(dice: Dice, person: Person) -> Target:
    """Somebody's head as a target."""
    left, top, right, bottom = person.head
    point = (
        (left + right) / 2 + dice.uniform(-0.15, 0.15) * (right - left),
        (top + bottom) / 2 + dice.uniform(-0.15, 0.15) * (bottom - top),
    )
    return Target("person", person.id, "person", point, person.depth)


def _on(dice: Dice, thing: Thing) -> Target:
    left, top, right, bottom = thing.box
    point = (
        (left + right) / 2 + dice.uniform(-0.2, 0.2) * (right - left),
        (top + bottom) / 2 + dice.uniform(-0.2, 0.2) * (bottom - top),
    )
    return Target("thing", thing.id, thing.category, point, thing.depth)


def _visible(person: Person, point: Point, aspect: float) -> bool:
    """True when a target is far enough from a head for the direction to mean something."""
    return math.hypot((point[0] - person.x) * aspect, point[1] - person.y) >= max(0.14, 1.05 * person.size)


def _void(dice: Dice, person: Person, people: Sequence[Person], things: Sequence[Thing], aspect: float) -> Target:
    """An empty spot: the first clear of everything, or the clearest of many."""
    boxes = [other.head for other in people] + [thing.box for thing in things]
    best, most = (0.5, 0.5), -1.0
    for _ in range(48):
        point = (dice.uniform(0.04, 0.96), dice.uniform(0.04, 0.96))
        if not _visible(person, point, aspect) or inside(point, things[0].box, APART):
            continue
        gap = min(max(b[0] - point[0], point[0] - b[2], b[1] - point[1], point[1] - b[3]) for b in boxes)
        if gap > most:
            best, most = point, gap
        if gap > 0.05:
            break
    return Target("void", 0, "", best, dice.uniform(0.1, 0.9))


def _beyond(dice: Dice, person: Person, aspect: float) -> Target:
    """A point outside the picture, rather on the near side: who looks out seldom looks across everything."""
    best, least = (-0.2, 0.5), math.inf
    for _ in range(3):
        side, along, away = dice.integer(0, 3), dice.uniform(-0.2, 1.2), dice.uniform(0.08, 0.5)
        point = ((-away, along), (1 + away, along), (along, -away), (along, 1 + away))[side]
        toll = math.hypot((max(0.0, min(1.0, point[0])) - person.x) * aspect, max(0.0, min(1.0, point[1])) - person.y)
        if toll < least:
            best, least = point, toll
    return Target("outside", 0, "", best, dice.uniform(-0.4, 0.9))


def _core(person: Person) -> Box:
    """The torso, which hides what is behind it."""
    left, _, right, bottom = person.body
    middle, half = (left + right) / 2, min(0.6 * person.size, (right - left) / 2)
    return middle - half, person.head[3], middle + half, bottom
