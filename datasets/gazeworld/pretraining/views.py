"""What a model may learn from in pre-training: drawn scenes, and views of them that hold no answer.

A ``View`` lists what is where. Which thing is salient, where anybody looks, what at, and the subset are not in it, and
everything in ``pretraining`` but this module makes its labels from views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gazebench.datasets.gazeworld.canvas import Box
from gazebench.datasets.gazeworld.compose import with_boxes
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.figure import EYE_LATITUDE, FEET, Skull
from gazebench.datasets.gazeworld.rng import grid
from gazebench.datasets.gazeworld.scene import Person, Scene

FACE: Final = {
    "left eye": (-23, EYE_LATITUDE, 1.0), "right eye": (23, EYE_LATITUDE, 1.0), "nose": (0, 19, 1.32),
    "mouth": (0, 50, 1.0), "left ear": (-90, 8, 1.03), "right ear": (90, 8, 1.03),
}  # fmt: skip
"""Parts of a face: their places on the ball of ``figure``. None moves with the pupils."""
SMALLEST: Final = 0.5
"""The least factor by which people are made smaller."""
HEADS: Final = 256
"""The head of person ``id`` is the instance ``id + HEADS``."""


@dataclass(frozen=True)
class Instance:
    """A thing, a body or a head.

    Attributes:
        id: its value in the map of the image.
        name: the category of a thing, ``body`` or ``head``.
        box: normalised xyxy.
        depth: 0 at the viewer to 1 at the far end.
        colour: the colour word of the thing or the clothes; "" for a head.
        parts: for a head, x, y (normalised) and near (1 or 0) of each part of ``FACE``.
    """

    id: int
    name: str
    box: Box
    depth: float
    colour: str = ""
    parts: tuple[tuple[float, float, bool], ...] = ()


@dataclass(frozen=True)
class View:
    """The kind of the place, and the things and people in it."""

    place: str
    instances: tuple[Instance, ...]


def view(scene: Scene) -> View:
    """What may be learnt of a scene."""
    seen = [Instance(thing.id, thing.category, thing.box, thing.depth, thing.colour) for thing in scene.things]
    for person in scene.people:
        skull, parts = Skull(person.head_yaw, person.head_pitch), []
        for spot in FACE.values():
            (x, y), towards = skull.spot(*spot)
            parts.append((person.x + x * person.size / scene.aspect, person.y + y * person.size, towards > 0))
        seen.append(Instance(person.id, "body", person.body, person.depth, person.clothes))
        seen.append(Instance(person.id + HEADS, "head", person.head, person.depth, "", tuple(parts)))
    return View(scene.backdrop.kind, tuple(seen))


class Drawn(NamedTuple):
    """The view of a scene, its image (S, S, 3), and the map (S, S) of the ids of things and people."""

    view: View
    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]


def drawn(scene: Scene, size: int) -> Drawn:
    """The scene in ``size`` x ``size`` pixels."""
    return Drawn(view(scene), *draw(scene, size, size, mask=True))


def swap_poses(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Scene]:
    """Gives every person the pose (head, eyes, lean) of a random person of all scenes.

    The gazes in the images then have nothing to do with what is around them.
    """
    people = [person for scene in scenes for person in scene.people]
    donors = iter([people[i] for i in rng.permutation(len(people))])

    def posed(person: Person, donor: Person) -> Person:
        pose = {name: getattr(donor, name) for name in ("lean", "head_yaw", "head_pitch", "gaze_yaw", "gaze_pitch")}
        return replace(person, **pose)

    return [replace(scene, people=tuple(posed(person, next(donors)) for person in scene.people)) for scene in scenes]


def shrink_people(scene: Scene, rng: np.random.Generator) -> Scene:
    """Makes everybody whose hands are free smaller, by a factor of ``SMALLEST`` to 1; their feet stay in place."""
    holders = {thing.holder for thing in scene.things}

    def shrunk(person: Person) -> Person:
        size = person.size if person.id in holders else grid(person.size * rng.uniform(SMALLEST, 1))
        lower = grid((person.size - size) * FEET[person.look.pose])
        smaller = replace(person, size=size, y=person.y + lower, eye=(person.eye[0], person.eye[1] + lower))
        return with_boxes(smaller, scene.aspect)

    return replace(scene, people=tuple(shrunk(person) for person in scene.people))
