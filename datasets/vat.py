"""VideoAttentionTarget: one gaze target per person and frame, many of them outside the frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from gazebench.core.boxes import BOX, FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Annotations
from gazebench.data.annotations import (
    POINT,
    ReleasedDataset,
    annotation_files,
    ordered,
    people_of,
    read_rows,
    texts,
    train_or_val,
    without_area,
)
from gazebench.data.dataset import Card
from gazebench.metrics.protocol import ONE_TARGET_IN_VIDEO, Protocol

COLUMNS = ("frame", *BOX, *POINT)
"""Of the track files, which have no header; boxes and gaze points are in pixels."""

SMOOTHING = 11
"""Frames of the moving average over a track's boxes (official code)."""

VAL_SHOWS = ("Before_Sunrise", "Orange_is_the_New_Black", "Project_Runway")
"""Shows of the official training set that are held out for validation."""


@dataclass(eq=False)
class VAT(ReleasedDataset):
    """VideoAttentionTarget; a group is a clip, its frames stand in order.

    A show's name is written with underscores in every id and image name, whether its folder on disk has spaces or not.

    Args:
        root: the folder that holds ``annotations`` and ``images``.
    """

    card: ClassVar[Card] = Card(
        name="vat",
        title="VideoAttentionTarget",
        licence="research use; the pictures belong to their owners",
        source="https://github.com/ejcgt/attention-target-detection",
        citation="Chong, Wang, Ruiz, Rehg: Detecting attended visual targets in video. CVPR 2020",
        layout="annotations/train/SHOW/CLIP/s00.txt ...\nannotations/test/SHOW/CLIP/s00.txt ...\n"
        "images/SHOW/CLIP/00002720.jpg ...",
        official={
            "trainval": {"images": 58507, "people": 132563, "in_frame": 88919},
            "test": {"images": 13127, "people": 31978, "in_frame": 20655},
        },
        label_version="release of 2020",
        head_boxes="annotated, smoothed over 11 frames",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="vat",
        version=1,
        unit="person in a frame",
        metrics=ONE_TARGET_IN_VIDEO,
        headline="l2",
    )

    def parse(self, split: str) -> Annotations:
        """The official test folder, or the official train folder divided by show."""
        folder = "test" if split == "test" else "train"
        root = self.existing_root(f"annotations/{folder}", "images")
        tracks = _tracks(root, folder)
        edition = "test" if split == "test" else "trainval"
        annotations = self.cached(tracks.values(), lambda: _read(root, edition, tracks), edition)
        val = np.array([clip.split("/")[0] in VAL_SHOWS for clip in annotations.groups.tolist()], dtype=bool)
        return self.checked(train_or_val(annotations, split, val))

    def label_files(self, split: str) -> Mapping[str, str]:
        return _tracks(self.existing_root(), "test" if split == "test" else "train")

    def image_file(self, image: str) -> str:
        """The file of a frame, below its show's folder as spelt on disk."""
        _, show, rest = image.split("/", 2)
        return f"images/{self.on_disk('images', show)}/{rest}"

    def settled(self, annotations: Annotations) -> Annotations:
        """The boxes smoothed along their tracks."""
        assert annotations.lines is not None
        file, line = annotations.lines.T
        order = np.lexsort((line, file))
        head = np.empty_like(annotations.head)
        head[order] = smooth(annotations.head[order], file[order])
        return replace(annotations, head=head)

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> VAT:
        """A tiny set of drawn clips, with ``people`` rows or a few more in each of train, val and test."""
        from gazebench.datasets.gazeworld.fakes import fake_clips, write_rows

        for split, show in (("train", "Drawn Show"), ("val", "Before Sunrise"), ("test", "Drawn Titanic")):
            written = 0
            for index, frames in enumerate(fake_clips(seed, split, frames=4)):
                start = 1000 * index
                clip = f"{show}/{start}_{start + len(frames)}"
                tracks: dict[int, list[list[object]]] = {}
                for number, image in enumerate(frames, start):
                    image.save(root / "images" / clip / f"{number:08d}.jpg")
                    for person in image.people:
                        gaze = image.pixels(person.gaze).astype(int) if person.inout else (-1, -1)
                        cells = [f"{number:08d}.jpg", *np.round(image.pixels(person.head)).astype(int), *gaze]
                        tracks.setdefault(person.id, []).append(cells)
                labels = root / "annotations" / ("test" if split == "test" else "train") / clip
                for number, rows in enumerate(tracks.values()):
                    write_rows(labels / f"s{number:02d}.txt", rows)
                written += sum(map(len, tracks.values()))
                if written >= people:
                    break
        return cls(root)


def _tracks(root: Path, folder: str) -> dict[str, str]:
    """Track files relative to the root by ``show/clip/track``, sorted by it.

    Raises:
        DataError: there is none, or a show is there twice, with spaces and with underscores.
    """
    tracks: dict[str, str] = {}
    for file in annotation_files(root / "annotations" / folder, "*/*/*.txt"):
        show, clip, name = file.parts[-3:]
        key = f"{VAT.canonical(show)}/{clip}/{name.partition('.txt')[0]}"
        if key in tracks:
            raise DataError(f"{file}: the same track as {root / tracks[key]}; remove one of the two folders")
        tracks[key] = f"annotations/{folder}/{show}/{clip}/{name}"
    if not tracks:
        raise DataError(f"{root / 'annotations' / folder} holds no track files SHOW/CLIP/s00.txt")
    return dict(sorted(tracks.items()))


def _read(root: Path, edition: str, tracks: Mapping[str, str]) -> Annotations:
    """The people of all tracks, boxes not smoothed yet: those of a frame together, the frames of a clip by number."""
    rows = read_rows(root, [*tracks.values()], text=["frame"], numbers=[*BOX, *POINT], layouts=[COLUMNS])
    rows.reject(rows.table["frame"] == "", "no frame file")
    rows.reject(without_area(rows.table[BOX]), "head box of no area")
    rows.reject(rows.table.duplicated(["file", "frame"]), "{frame} is in the track twice")

    table = rows.table
    table[BOX] = ordered(table[BOX])
    table["inout"] = np.where((table[POINT] == -1).all(axis=1), OUT_OF_FRAME, IN_FRAME)
    table[POINT] = table[POINT].clip(lower=0)  # one negative coordinate alone means 0 (official code)
    table["group"] = texts(track.rpartition("/")[0] for track in tracks)[table["file"]]
    name = texts(track.rpartition("/")[2] for track in tracks)[table["file"]]
    table["track"] = table["group"] + "#" + name
    table["image"] = "images/" + table["group"] + "/" + table["frame"]
    table["person_id"] = table["group"] + "/" + table["frame"].map(lambda name: Path(name).stem) + "#" + name
    # Names of frames grow by a digit where their numbers do.
    rows.table = table.assign(digits=table["frame"].str.len()).sort_values(["group", "digits", "frame", "file"])
    return people_of(rows, "vat", edition, {"track": rows.table["track"]}, point_unit="pixel")


def smooth(boxes: FloatArray, track: IntArray) -> FloatArray:
    """(N, 4) moving average over ``SMOOTHING`` rows of each track, its first and last row repeated beyond its ends.

    Args:
        boxes: (N, 4), the rows of a track together and in order.
        track: (N,) ascending.
    """
    first, last = np.searchsorted(track, track, "left"), np.searchsorted(track, track, "right") - 1
    rows, reach = np.arange(len(boxes)), SMOOTHING // 2
    total = np.zeros_like(boxes)
    for offset in range(-reach, reach + 1):
        total += boxes[np.clip(rows + offset, first, last)]
    return total / SMOOTHING
