"""Labels of the patches of drawn images, to train an image encoder on: what is seen where, and in what colour."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gazebench.datasets.gazeworld.catalogue import CATEGORIES, COLOURS
from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.pretraining.views import HEADS, Drawn, View, drawn, shrink_people, swap_poses
from gazebench.datasets.gazeworld.scene import Scene

PLACES: Final = ("beach", "park", "room", "table")
CLASSES: Final = (*CATEGORIES, "head", "body", *PLACES)
HEAD: Final = CLASSES.index("head")
COLOUR_WORDS: Final = tuple(COLOURS)
MIRRORED: Final = (1, 0, 2, 3, 5, 4)
"""The index of the part of the face that each of ``FACE`` becomes in a mirror."""
MIN_SHARE: Final = 0.06
"""The share of a patch that something must fill to count as visible there."""
_INSTANCES = 2 * HEADS
"""Ids in the map of an image: 0 for the place, up to 255 things and people, and as many heads."""
_INSTANCE = np.dtype([("class", int), ("box", float, 4), ("depth", float), ("colour", int), ("face", float, (6, 3))])
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
        face: (N, G * G, 6, 3) float16, for each part of ``FACE``: x and y from the patch's centre in patches, and 1 on
            the near side of the head, else 0; NaN where no head is shown.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    place: NDArray[np.float16]
    colour: NDArray[np.int8]
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
            flipped(some.face)[:, :, MIRRORED] * np.array([-1, 1, 1], np.float16),
        )


def gather(count: int, seed: int, split: str, size: int, patch: int, workers: int) -> tuple[Patches, list[Scene]]:
    """Draws at least ``count`` images of a split, in whole chunks, of people in swapped poses and of other sizes.

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
    rng = np.random.default_rng([seed, start])
    scenes = [shrink_people(scene, rng) for scene in swap_poses(scenes, rng)]
    return scenes, [label(drawn(scene, size), patch) for scene in scenes]


def label(seen_scene: Drawn, patch: int) -> Patches:
    """A square image and the labels of its patches of ``patch`` x ``patch`` pixels."""
    view, image, ids = seen_scene
    size, parts = len(image), ids.astype(np.int64)
    for head in view.instances:
        if head.id > HEADS:
            left, top, right, bottom = (round(edge * size) for edge in head.box)
            window = parts[top:bottom, left:right]
            window[window == head.id - HEADS] = head.id
    known = _instances(view)
    grid = size // patch
    cells = parts.reshape(grid, patch, grid, patch).swapaxes(1, 2).reshape(grid * grid, patch * patch)
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
        face.astype(np.float16),
    )


def _instances(view: View) -> NDArray[Any]:
    """(512,) the labels of each id in the map of an image."""
    known = np.zeros(_INSTANCES, _INSTANCE)
    known[:] = (CLASSES.index(view.place), np.nan, np.nan, -1, np.nan)
    for each in view.instances:
        colour = COLOUR_WORDS.index(each.colour) if each.colour else -1
        known[each.id] = (CLASSES.index(each.name), each.box, each.depth, colour, each.parts or np.nan)
    return known
