"""Labels of the patches of drawn images, to train an image encoder on. None of them depends on a gaze."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gazebench.datasets.gazeworld.catalogue import CATEGORIES, COLOURS
from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.figure import EYE_LATITUDE, Skull
from gazebench.datasets.gazeworld.scene import Person, Scene

PLACES: Final = ("beach", "park", "room", "table")
CLASSES: Final = (*CATEGORIES, "head", "body", *PLACES)
HEAD: Final = CLASSES.index("head")
COLOUR_WORDS: Final = tuple(COLOURS)
FACE: Final = {
    "left eye": (-23, EYE_LATITUDE, 1.0), "right eye": (23, EYE_LATITUDE, 1.0), "nose": (0, 19, 1.32),
    "mouth": (0, 50, 1.0), "left ear": (-90, 8, 1.03), "right ear": (90, 8, 1.03),
}  # fmt: skip
"""Parts of a face: their places on the ball of ``figure``."""
MIRRORED: Final = (1, 0, 2, 3, 5, 4)
"""The index of the part of the face that each of ``FACE`` becomes in a mirror."""
MIN_SHARE: Final = 0.06
"""The share of a patch that something must fill to count as visible there."""
_INSTANCES = 512
"""Ids in the map of an image: 0 for the place, up to 255 things and people, and as many heads (id + 256)."""
_INSTANCE = np.dtype(
    [("class", int), ("box", float, 4), ("depth", float), ("colour", int), ("salient", int), ("face", float, (6, 3))]
)
_CHUNK = 64


@dataclass
class Patches:
    """N images of S x S pixels and the labels of their G x G patches, row by row; without the N for one image.

    Things, bodies and heads are instances; a patch shows the instance that fills most of it.

    Attributes:
        images: (N, 3, S, S) uint8.
        seen: (N, G * G, K) bool, the ``CLASSES`` in each patch.
        place: (N, G * G, 5) float16: the left, top, right and bottom of the instance's box minus the patch's centre,
            in image sizes, and its depth; NaN where no instance is shown.
        colour: (N, G * G) int8 index into ``COLOUR_WORDS`` of the thing or the clothes, -1 for none.
        salient: (N, G * G) int8, 1 on the salient thing, 0 on other things, -1 elsewhere.
        face: (N, G * G, 6, 3) float16, for each part of ``FACE``: x and y from the patch's centre in patches, and 1 on
            the near side of the head, else 0; NaN where no head is shown.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    place: NDArray[np.float16]
    colour: NDArray[np.int8]
    salient: NDArray[np.int8]
    face: NDArray[np.float16]

    def pick(self, index: NDArray[np.int64], mirrored: bool = False) -> Patches:
        """The images of some indices, mirrored left to right if asked for."""
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
    """Draws at least ``count`` images of a split, in whole chunks, whose people have swapped their poses.

    Args:
        count: least number of images, at least 1.
        seed: seed of the world.
        split: split of the world.
        size: side of the images in pixels.
        patch: side of a patch in pixels, a divisor of ``size``.
        workers: processes that draw.
    """
    starts = range(0, count, _CHUNK)
    scenes: list[Scene] = []
    arrays: list[NDArray[Any]] = []
    with ProcessPoolExecutor(workers) as pool:
        chunks = pool.map(partial(_labelled_chunk, seed=seed, split=split, size=size, patch=patch), starts)
        for start, (drawn, labels) in zip(starts, chunks, strict=True):
            scenes += drawn
            parts = [[getattr(each, field.name) for each in labels] for field in fields(Patches)]
            # Filled chunk by chunk: all at once would take twice the memory.
            arrays = arrays or [np.empty((len(starts) * _CHUNK, *part[0].shape), part[0].dtype) for part in parts]
            for array, part in zip(arrays, parts, strict=True):
                array[start : start + _CHUNK] = part
    return Patches(*arrays), scenes


def _labelled_chunk(start: int, seed: int, split: str, size: int, patch: int) -> tuple[list[Scene], list[Patches]]:
    scenes = [compose(seed, index, split) for index in range(start, start + _CHUNK)]
    scenes = swap_poses(scenes, np.random.default_rng([seed, start]))
    return scenes, [label(scene, size, patch) for scene in scenes]


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


def label(scene: Scene, size: int, patch: int) -> Patches:
    """One image of ``size`` x ``size`` pixels and the labels of its patches of ``patch`` x ``patch`` pixels."""
    image, ids = draw(scene, size, size, mask=True)
    ids = ids.astype(np.int64)
    for person in scene.people:
        left, top, right, bottom = (round(edge * size) for edge in person.head)
        window = ids[top:bottom, left:right]
        window[window == person.id] += 256
    known = _instances(scene)
    grid = size // patch
    cells = ids.reshape(grid, patch, grid, patch).swapaxes(1, 2).reshape(grid * grid, patch * patch)
    row = np.arange(grid * grid)[:, None]
    area = np.bincount((row * _INSTANCES + cells).ravel(), minlength=grid * grid * _INSTANCES)
    area = area.reshape(-1, _INSTANCES)
    seen = np.zeros((grid * grid, len(CLASSES)), dtype=bool)
    where, visible = np.nonzero(area >= MIN_SHARE * patch**2)
    seen[where, known["class"][visible]] = True

    area[:, 0] = 0
    top = area.argmax(1)
    shown = area.max(1) >= MIN_SHARE * patch**2
    top[~shown] = 0
    instance = known[top]
    centre = (np.stack([np.arange(grid * grid) % grid, np.arange(grid * grid) // grid], 1) + 0.5) / grid
    place = np.concatenate([instance["box"] - np.tile(centre, 2), instance["depth"][:, None]], 1)
    face = instance["face"]
    face[..., :2] = (face[..., :2] - centre[:, None]) * grid
    return Patches(
        image.transpose(2, 0, 1),
        seen,
        place.astype(np.float16),
        instance["colour"].astype(np.int8),
        instance["salient"].astype(np.int8),
        face.astype(np.float16),
    )


def _instances(scene: Scene) -> NDArray[Any]:
    """(512,) the labels of each id in the map of a scene."""
    known = np.zeros(_INSTANCES, _INSTANCE)
    known[:] = (CLASSES.index(scene.backdrop.kind), np.nan, np.nan, -1, -1, np.nan)
    for thing in scene.things:
        class_, colour = CLASSES.index(thing.category), COLOUR_WORDS.index(thing.colour)
        known[thing.id] = (class_, thing.box, thing.depth, colour, thing.id == scene.salient, np.nan)
    for person in scene.people:
        skull, face = Skull(person.head_yaw, person.head_pitch), np.empty((len(FACE), 3))
        for part, spot in enumerate(FACE.values()):
            (x, y), towards = skull.spot(*spot)
            face[part] = person.x + x * person.size / scene.aspect, person.y + y * person.size, towards > 0
        colour = COLOUR_WORDS.index(person.clothes)
        known[person.id] = (CLASSES.index("body"), person.body, person.depth, colour, -1, np.nan)
        known[person.id + 256] = (HEAD, person.head, person.depth, -1, -1, face)
    return known
