"""The description of a scene: all of its truth and all that drawing it needs, as plain numbers and words.

Points and boxes are normalised (x / width, y / height; (0, 0) top left), sizes are heights of the picture, angles
degrees. Every number but the aspect is a multiple of 1/4096, so a description is the same text on every machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gazebench.datasets.gazeworld.world.pen import Box, Point

WORLD_VERSION = 1
"""Rises whenever the same key would give another description."""

TargetKind = Literal["thing", "person", "void", "outside"]


@dataclass(frozen=True)
class Look:
    """What a person looks like, whatever they look at; ``skin`` and ``trousers`` count through the palettes."""

    skin: int
    hair: str
    hair_colour: str
    clothes: str
    pattern: str
    trousers: int
    pose: str
    arms: str
    glasses: bool
    beard: bool
    build: float


@dataclass(frozen=True)
class Thing:
    """A thing with its foot at (x, y).

    Attributes:
        id: unique among the things and people of a scene, stable over a clip, the value in masks.
        category: its name, unique in the scene.
        depth: 0 at the viewer to 1 at the far end of the scene.
        support: what it rests on: "" (ground, table or air), "wall", "shelf", "post" or "hands".
        holder: the id of the person who holds it, 0 for nobody.
        box: xmin, ymin, xmax, ymax, tight around what is drawn, within the picture.
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
    box: Box

    @property
    def centre(self) -> Point:
        """The middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Person:
    """A person, what they look like and what they look at.

    Attributes:
        id: unique among the things and people of a scene, stable over a clip, the value in masks.
        x, y: the middle of the skull.
        size: crown to chin.
        head: tight box around the head with its hair, within the picture; body: the same of the whole person.
        eye: the point between the eyes, where the gaze starts.
        head_yaw, head_pitch: where the head points; gaze_yaw, gaze_pitch: where the eyes point. Yaw 0 is towards
            the viewer, 90 towards the right edge, 180 into the picture; pitch is positive downwards.
        gaze: the true target, beyond [0, 1] when it is outside the picture.
        target_kind, target_id, target_category: a thing, a person (their head), an empty spot ("void") or something
            outside; the id is 0 and the category "" for the latter two.
        target_depth: as the depth of things, beyond [0, 1] outside.
        subset: "consistent" when the gaze is in the salient box, "inconsistent" elsewhere in the picture, else "".
    """

    id: int
    look: Look
    x: float
    y: float
    size: float
    depth: float
    lean: float
    head: Box
    body: Box
    eye: Point
    head_yaw: float
    head_pitch: float
    gaze_yaw: float
    gaze_pitch: float
    gaze: Point
    target_kind: TargetKind
    target_id: int
    target_category: str
    target_depth: float
    subset: str

    @property
    def inout(self) -> int:
        """1 when the target is in the picture, 0 when it is outside."""
        return int(self.target_kind != "outside")

    @property
    def clothes(self) -> str:
        """The colour word of the clothes, unique in the scene."""
        return self.look.clothes


@dataclass(frozen=True)
class Backdrop:
    """The place: its kind, palette, patterns, the height of its horizon and the seed of its grain."""

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
    """A picture of ``aspect`` = width / height; ``frame`` counts through a clip.

    The thing of id ``salient`` is the one a gaze-blind observer would bet on.
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
    version: int = WORLD_VERSION

    @property
    def name(self) -> str:
        """A key of the scene that is unique in its world."""
        return f"{self.split}-{self.index:06d}" + (f"-{self.frame:04d}" if self.frame else "")

    @property
    def salient_box(self) -> Box:
        """The box a gaze-blind observer would bet on."""
        return self.find(self.salient).box

    def find(self, thing: int) -> Thing:
        """The thing of an id; KeyError when there is none."""
        return {t.id: t for t in self.things}[thing]

    def to_json(self) -> str:
        """One line of JSON, the same bytes for the same scene."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The inverse of ``to_json``; ValueError when the text is of another world version."""
        fields: dict[str, Any] = json.loads(text)
        if fields["version"] != WORLD_VERSION:
            raise ValueError(f"scene of world version {fields['version']}, this is version {WORLD_VERSION}")
        things = tuple(Thing(**{**thing, "box": tuple(thing["box"])}) for thing in fields["things"])
        people = tuple(
            Person(
                **{
                    **person,
                    "look": Look(**person["look"]),
                    **{name: tuple(person[name]) for name in ("head", "body", "eye", "gaze")},
                }
            )
            for person in fields["people"]
        )
        return cls(**{**fields, "backdrop": Backdrop(**fields["backdrop"]), "things": things, "people": people})
