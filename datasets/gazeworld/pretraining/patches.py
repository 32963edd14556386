"""What every patch of a drawn picture shows: labels to teach an image encoder by, none of which knows of gaze."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gazebench.datasets.gazeworld.world.catalogue import CATEGORIES, COLOURS
from gazebench.datasets.gazeworld.world.compose import compose
from gazebench.datasets.gazeworld.world.draw import draw
from gazebench.datasets.gazeworld.world.figure import EYE_LATITUDE, Skull
from gazebench.datasets.gazeworld.world.scene import Person, Scene

PLACES: Final = ("beach", "park", "room", "table")
CLASSES: Final = (*CATEGORIES, "head", "body", *PLACES)
HEAD: Final = CLASSES.index("head")
COLOUR_WORDS: Final = tuple(COLOURS)
FACE: Final = {
    "left eye": (-23, EYE_LATITUDE, 1.0), "right eye": (23, EYE_LATITUDE, 1.0), "nose": (0, 19, 1.32),
    "mouth": (0, 50, 1.0), "left ear": (-90, 8, 1.03), "right ear": (90, 8, 1.03),
}  # fmt: skip
"""Parts of a face: longitude, latitude and radius on the ball of ``world.figure``."""
MIRRORED: Final = (1, 0, 2, 3, 5, 4)
"""The part of the face that each of ``FACE`` is in a mirror."""
MIN_SHARE: Final = 0.06
"""The least share of a patch that something must fill to count as seen there."""
_POSE = ("lean", "head_yaw", "head_pitch", "gaze_yaw", "gaze_pitch")
_INSTANCES = 512  # 255 things and people, and as many heads
_CHUNK = 64


@dataclass
class Patches:
    """N pictures of S x S pixels and what is true of their G x G patches, row by row; of one picture without the N.

    Attributes:
        images: (N, 3, S, S) uint8.
        seen: (N, G * G, K) bool, the ``CLASSES`` in each patch.
        place: (N, G * G, 5) float16, of the patch's instance: the box's left, top, right, bottom minus the patch's
            centre, in picture sizes, and the depth; NaN where the patch shows no instance. Head and body of a person
            are two instances.
        colour: (N, G * G) int8 index into ``COLOUR_WORDS`` of the thing or the clothes, -1 for none.
        salient: (N, G * G) int8, 1 on the eye-catching thing, 0 on other things, -1 elsewhere.
        face: (N, G * G, 6, 3) float16, of each part of ``FACE``: x and y from the patch's centre in patches, and 1 on
            the near side of the head, else 0; NaN where the patch shows no head.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    place: NDArray[np.float16]
    colour: NDArray[np.int8]
    salient: NDArray[np.int8]
    face: NDArray[np.float16]

    def pick(self, index: NDArray[np.int64], mirrored: bool = False) -> Patches:
        """The pictures of some indices, turned left to right if so wished."""
        some = Patches(*(getattr(self, each.name)[index] for each in fields(self)))
        if not mirrored:
            return some
        side = round(math.sqrt(self.seen.shape[1]))

        def flipped(labels: NDArray[Any]) -> NDArray[Any]:
            rows = labels.reshape(len(index), side, side, *labels.shape[2:])
            return np.ascontiguousarray(rows[:, :, ::-1].reshape(labels.shape))

        left, top, right, bottom, depth = np.moveaxis(flipped(some.place), 2, 0)
        return Patches(
            np.ascontiguousarray(some.images[..., ::-1]),
            flipped(some.seen),
            np.stack([-right, top, -left, bottom, depth], 2),
            flipped(some.colour),
            flipped(some.salient),
            flipped(some.face)[:, :, MIRRORED] * np.array([-1, 1, 1], np.float16),
        )


def gather(count: int, seed: int, split: str, size: int, patch: int, workers: int) -> tuple[Patches, list[Scene]]:
    """Draws at least ``count`` pictures of a world's split, in whole chunks, whose people have swapped their poses.

    Args:
        count: of pictures.
        seed: of the world.
        split: of the world.
        size: side of the pictures in pixels.
        patch: side of a patch in pixels, a divisor of ``size``.
        workers: processes that draw.
    """
    starts = range(0, count, _CHUNK)
    total = len(starts) * _CHUNK
    scenes: list[Scene] = []
    gathered: Patches | None = None
    with ProcessPoolExecutor(workers) as pool:
        chunks = pool.map(partial(_paint, seed=seed, split=split, size=size, patch=patch), starts)
        for start, (painted, labels) in zip(starts, chunks, strict=True):
            scenes += painted
            if gathered is None:
                first = [getattr(labels[0], each.name) for each in fields(Patches)]
                gathered = Patches(*(np.empty((total, *array.shape), array.dtype) for array in first))
            for offset, one in enumerate(labels):
                for each in fields(Patches):
                    getattr(gathered, each.name)[start + offset] = getattr(one, each.name)
    if gathered is None:
        raise ValueError(f"count is at least 1, got {count}")
    return gathered, scenes


def _paint(start: int, seed: int, split: str, size: int, patch: int) -> tuple[list[Scene], list[Patches]]:
    scenes = [compose(seed, index, split) for index in range(start, start + _CHUNK)]
    scenes = swap_poses(scenes, np.random.default_rng([seed, start]))
    return scenes, [label(scene, size, patch) for scene in scenes]


def swap_poses(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Scene]:
    """Gives every person the pose (head, eyes, lean) of somebody else at random, across scenes.

    No gaze in the pictures then has anything to do with what is around it.
    """
    people = [person for scene in scenes for person in scene.people]
    donors = iter([people[i] for i in rng.permutation(len(people))])

    def posed(person: Person, donor: Person) -> Person:
        return replace(person, **{name: getattr(donor, name) for name in _POSE})

    return [replace(scene, people=tuple(posed(person, next(donors)) for person in scene.people)) for scene in scenes]


def label(scene: Scene, size: int, patch: int) -> Patches:
    """One picture of ``size`` pixels a side and the labels of its patches of ``patch`` pixels a side."""
    image, ids = draw(scene, size, size, mask=True)
    parts = ids.astype(np.int64)
    known = _instances(scene, parts, size)
    grid = size // patch
    cells = parts.reshape(grid, patch, grid, patch).swapaxes(1, 2).reshape(grid * grid, patch * patch)
    row = np.arange(grid * grid)[:, None]
    area = np.bincount((row * _INSTANCES + cells).ravel(), minlength=grid * grid * _INSTANCES)
    area = area.reshape(-1, _INSTANCES)
    seen = np.zeros((grid * grid, len(CLASSES)), dtype=bool)
    where, visible = np.nonzero(area >= MIN_SHARE * patch**2)
    seen[where, known.classes[visible]] = True

    area[:, 0] = 0
    top = area.argmax(1)
    shown = area.max(1) >= MIN_SHARE * patch**2
    centre = (np.stack([np.arange(grid * grid) % grid, np.arange(grid * grid) // grid], 1) + 0.5) / grid
    place = np.concatenate([known.boxes[top] - np.tile(centre, 2), known.depths[top, None]], 1)
    place[~shown] = np.nan
    face = known.faces[np.where(shown, top, 0)]
    face[..., :2] = (face[..., :2] - centre[:, None]) * grid
    return Patches(
        image.transpose(2, 0, 1),
        seen,
        place.astype(np.float16),
        np.where(shown, known.colours[top], -1).astype(np.int8),
        np.where(shown, known.salient[top], -1).astype(np.int8),
        face.astype(np.float16),
    )


@dataclass
class _Instances:
    """Of everything with an id, 0 being the backdrop."""

    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    depths: NDArray[np.float64]
    colours: NDArray[np.int64]
    salient: NDArray[np.int64]
    faces: NDArray[np.float64]


def _instances(scene: Scene, parts: NDArray[np.int64], size: int) -> _Instances:
    """What is true of each instance; heads get the number id + 256 in ``parts`` (S, S), which is changed."""
    known = _Instances(
        classes=np.full(_INSTANCES, CLASSES.index(scene.backdrop.kind)),
        boxes=np.zeros((_INSTANCES, 4)),
        depths=np.zeros(_INSTANCES),
        colours=np.full(_INSTANCES, -1),
        salient=np.full(_INSTANCES, -1),
        faces=np.full((_INSTANCES, len(FACE), 3), np.nan),
    )
    for thing in scene.things:
        known.classes[thing.id] = CLASSES.index(thing.category)
        known.boxes[thing.id], known.depths[thing.id] = thing.box, thing.depth
        known.colours[thing.id] = COLOUR_WORDS.index(thing.colour)
        known.salient[thing.id] = thing.id == scene.salient
    for person in scene.people:
        left, top, right, bottom = (round(edge * size) for edge in person.head)
        window = parts[top:bottom, left:right]
        window[window == person.id] += 256
        for part, box, kind in ((person.id, person.body, "body"), (person.id + 256, person.head, "head")):
            known.classes[part], known.boxes[part] = CLASSES.index(kind), box
            known.depths[part] = person.depth
        known.colours[person.id] = COLOUR_WORDS.index(person.clothes)
        skull = Skull(person.head_yaw, person.head_pitch)
        for part, spot in enumerate(FACE.values()):
            (x, y), towards = skull.spot(*spot)
            at = person.x + x * person.size / scene.aspect, person.y + y * person.size
            known.faces[person.id + 256, part] = *at, towards > 0
    return known
