"""Drawn images with their annotations: what the data sets' ``fake`` write in their own layouts."""

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
from gazebench.datasets.gazeworld.canvas import Box, Point
from gazebench.datasets.gazeworld.catalogue import CATEGORIES
from gazebench.datasets.gazeworld.clip import clip
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import Person, Scene

__all__ = ["CATEGORIES", "FakeImage", "fake_clip", "fake_clips", "fake_images", "write_rows"]

HEIGHT = 96
"""Height of the images in pixels."""


@dataclass(frozen=True)
class FakeImage:
    """A scene to be drawn into a file; points and boxes of its people and things are normalised."""

    scene: Scene

    @property
    def people(self) -> tuple[Person, ...]:
        return self.scene.people

    @property
    def pairs(self) -> Mapping[str, npt.NDArray[np.int8]]:
        """Labels of pairs of people, 1 or 0, by name (``core.types.SOCIAL``), in the order of ``pairs_of``."""
        return social(self.scene)

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        return round(HEIGHT * self.scene.aspect), HEIGHT

    def pixels(self, values: Point | Box) -> FloatArray:
        """A point (2,) or a box (4,) in pixels."""
        return np.array(values) * np.tile(self.size, len(values) // 2)

    def annotations(self, person: Person) -> FloatArray:
        """(10, 2) noisy annotations of a person's target; (0, 2) when it is outside."""
        return annotate(self.scene, person)

    def save(self, file: Path) -> None:
        """Draws the image into a file; its folder is made where it is missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(self.scene, *self.size)).save(file, quality=95)


def fake_clip(seed: int, index: int, split: str, frames: int = 1) -> list[FakeImage]:
    """The frames of one clip; other numbers ``index`` give other clips."""
    return [FakeImage(scene) for scene in clip(seed, index, split, frames)]


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
