"""Drawn images with their annotations in a neutral form: what the data sets' ``fake`` write in their own layouts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gazebench.core.boxes import FloatArray
from gazebench.datasets.gazeworld.annotators import annotate, social
from gazebench.datasets.gazeworld.catalogue import CATEGORIES
from gazebench.datasets.gazeworld.clip import clip
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import Person, Scene

__all__ = ["CATEGORIES", "FakeImage", "FakePerson", "fake_clip", "fake_clips", "fake_images", "write_rows"]

HEIGHT = 96
"""Of the images, in pixels."""


@dataclass(frozen=True)
class FakePerson:
    """A person of an image; everything is normalised.

    Attributes:
        id: unique in the image, the same through a clip.
        head: (4,) xmin, ymin, xmax, ymax.
        body: (4,) as ``head``.
        eye: (2,) x, y.
        gaze: (2,) x, y of the target, beyond [0, 1] when it is outside the image.
        inout: 1 when the target is in the image, 0 when it is outside.
        category: of the thing looked at, ``person`` for a head, "" for an empty spot or a target outside.
        target_box: (4,) of the thing looked at; None when it is no thing.
        annotators: (10, 2) noisy annotations of the target; (0, 2) when it is outside.
    """

    id: int
    head: FloatArray
    body: FloatArray
    eye: FloatArray
    gaze: FloatArray
    inout: int
    category: str
    target_box: FloatArray | None
    annotators: FloatArray


@dataclass(frozen=True)
class FakeImage:
    """An image with all its people.

    Attributes:
        scene: what it shows.
        size: width, height in pixels.
        people: all people.
        things: the categories of all things.
    """

    scene: Scene
    size: tuple[int, int]
    people: list[FakePerson]
    things: list[str]

    def pixels(self, values: FloatArray) -> FloatArray:
        """A point (2,) or a box (4,) in pixels."""
        return values * np.tile(self.size, len(values) // 2)

    @property
    def pairs(self) -> Mapping[str, npt.NDArray[np.int8]]:
        """Labels of pairs of people, 1 or 0, by name (``core.types.SOCIAL``), in the order of ``pairs_of``."""
        return social(self.scene)

    def save(self, file: Path) -> None:
        """Draws the image into a file; its folder is made where it is missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(self.scene, *self.size)).save(file, quality=95)


def fake_clip(seed: int, index: int, split: str, frames: int = 1) -> list[FakeImage]:
    """The frames of one clip; other numbers ``index`` give other clips."""
    return [_image(scene) for scene in clip(seed, index, split, frames)]


def fake_clips(seed: int, split: str, frames: int) -> Iterator[list[FakeImage]]:
    """Clips without end."""
    return (fake_clip(seed, index, split, frames) for index in count())


def fake_images(seed: int, split: str) -> Iterator[FakeImage]:
    """Images without end, each of other people."""
    return (image for frames in fake_clips(seed, split, 1) for image in frames)


def write_rows(file: Path, rows: Iterable[Iterable[object]]) -> None:
    """Writes a comma-separated file; its folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows(rows)


def _image(scene: Scene) -> FakeImage:
    people = [_person(scene, person) for person in scene.people]
    return FakeImage(scene, (round(HEIGHT * scene.aspect), HEIGHT), people, [thing.category for thing in scene.things])


def _person(scene: Scene, person: Person) -> FakePerson:
    return FakePerson(
        id=person.id,
        head=np.array(person.head),
        body=np.array(person.body),
        eye=np.array(person.eye),
        gaze=np.array(person.gaze),
        inout=person.inout,
        category=person.target_category,
        target_box=np.array(scene.find(person.target_id).box) if person.target_kind == "thing" else None,
        annotators=annotate(scene, person),
    )
