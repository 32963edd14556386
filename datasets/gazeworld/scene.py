"""The description of a scene: all of its truth, and all that drawing it needs, as plain numbers and words.

Points and boxes are normalised (x / width, y / height; (0, 0) top left), sizes are in image heights, angles in
degrees. Every number but the aspect is a multiple of 1/4096, so a description is the same text on every machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from gazebench.datasets.gazeworld.canvas import Box, Point

World = Literal[1, 2]
"""The versions of the world: a key gives the same scene for ever, and another one in another version."""
WORLD_VERSION: World = 1
"""The world of the committed records, and the default. To make world 2 the default, change this and train anew."""

TargetKind = Literal["thing", "person", "void", "outside"]
EMPTY: Box = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Look:
    """The appearance of a person; ``skin`` and ``trousers`` are indices of ``figure.SKINS`` and ``figure.TROUSERS``.

    Dark glasses hide the eyes.
    """

    skin: int
    hair: str
    hair_colour: str
    clothes: str
    pattern: str
    trousers: int
    pose: str
    arms: str
    glasses: bool | Literal["dark"]
    beard: bool
    build: float


@dataclass(frozen=True)
class Thing:
    """A thing.

    Attributes:
        id: unique among the things and people of a scene, constant over a clip; the value in masks.
        category: a key of ``catalogue.CATEGORIES``, unique in the scene.
        x, y: the middle of its foot.
        depth: 0 at the viewer to 1 at the far end of the scene.
        support: "" (ground, table or air), "wall", "shelf", "post" or "hands".
        holder: the id of the person who holds it, or 0.
        box: xmin, ymin, xmax, ymax, tight around what is drawn, within the image.
    """

    id: int
    category: str
    colour: str
    x: float
    y: float
    size: float
    angle: float
    flip: bool
    depth: float
    support: str
    holder: int
    box: Box = EMPTY

    @property
    def centre(self) -> Point:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Person:
    """A person and what they look at; ``compose`` fills in the fields that have defaults.

    Attributes:
        id: unique among the things and people of a scene.
        x, y: the middle of the skull.
        size: from crown to chin.
        head, body: tight boxes around the head with its hair and around the whole person, within the image.
        eye: the point between the eyes, where the gaze starts.
        head_yaw, head_pitch: where the head points; gaze_yaw, gaze_pitch: where the eyes point. Yaw 0 is towards
            the viewer, 90 towards the right edge, 180 into the image; pitch is positive downwards.
        gaze: the target point, beyond [0, 1] when it is outside the image.
        target_kind: a thing, a person (their head), an empty spot ("void"), or something outside the image.
        target_id, target_category: 0 and "" for an empty spot and for what is outside.
        target_depth: depth of the target, as of a thing; beyond [0, 1] for some targets outside.
        subset: "consistent" when the gaze is in the salient box, "inconsistent" elsewhere in the image, else "".
    """

    id: int
    look: Look
    x: float
    y: float
    size: float
    depth: float
    lean: float = 0.0
    head: Box = EMPTY
    body: Box = EMPTY
    eye: Point = (0.0, 0.0)
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    gaze_yaw: float = 0.0
    gaze_pitch: float = 0.0
    gaze: Point = (0.0, 0.0)
    target_kind: TargetKind = "void"
    target_id: int = 0
    target_category: str = ""
    target_depth: float = 0.0
    subset: str = ""

    @property
    def inout(self) -> int:
        """1 when the target is in the image, 0 when it is outside."""
        return int(self.target_kind != "outside")

    @property
    def clothes(self) -> str:
        """The colour word of the clothes, unique in the scene."""
        return self.look.clothes


@dataclass(frozen=True)
class Backdrop:
    """The place; ``palette`` is an index of the colours in ``draw``, ``grain`` the seed of its texture."""

    kind: str
    palette: int
    pattern: str
    flooring: str
    decor: str
    decor_x: float
    horizon: float
    grain: int


@dataclass(frozen=True)
class Scene:
    """The content of one image.

    Attributes:
        seed, split, index: the key it was composed from.
        frame: its number in a clip, else 0.
        aspect: width / height.
        salient: the id of the thing that stands out.
    """

    seed: int
    split: str
    index: int
    frame: int
    aspect: float
    backdrop: Backdrop
    things: tuple[Thing, ...]
    people: tuple[Person, ...]
    salient: int
    version: World = WORLD_VERSION

    @property
    def salient_box(self) -> Box:
        return self.find(self.salient).box

    def find(self, thing: int) -> Thing:
        """The thing of an id; KeyError when there is none."""
        return {t.id: t for t in self.things}[thing]

    def boxes(self) -> dict[int, Box]:
        """The boxes of all possible targets, things and people's heads, by id."""
        return {thing.id: thing.box for thing in self.things} | {person.id: person.head for person in self.people}

    def to_json(self) -> str:
        """One line of JSON, the same bytes for the same scene."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)
