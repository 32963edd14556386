"""VideoAttentionTarget: one gaze target per person and frame, many of them outside the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Annotations, Policy, Records, ragged_starts
from gazebench.data.annotations import cached, on_disk, read_rows, settle, without_area
from gazebench.data.dataset import Card, GazeDataset
from gazebench.datasets.gazeworld.world import Scene, clip, draw
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.spatial import AngleToMean, AUCRectangle, InOutAP, L2ToMean

PARSER = 1
"""A change of what ``_read`` makes of the same files is a new number."""

SMOOTHING = 11
"""Frames of the moving average over a track's boxes (official code)."""

VAL_SHOWS = ("Before_Sunrise", "Orange_is_the_New_Black", "Project_Runway")
"""Train shows held out for validation."""

FOLDERS = {"trainval": "train", "test": "test"}
# Columns: frame file, xmin, ymin, xmax, ymax, gaze x, gaze y.
COLUMNS = 7
HEAD, GAZE = slice(0, 4), slice(4, 6)

FAKE_HEIGHT, FAKE_FRAMES = 96, 4
"""Pixels and frames of the drawn clips of ``fake``."""


@dataclass(eq=False)
class VAT(GazeDataset):
    """VideoAttentionTarget; a group is a clip, its frames stand in order.

    A show's name is written with underscores in every id and image key, whether its folder on disk has spaces or not.

    Args:
        root: the folder that holds ``annotations`` and ``images``.
        bad_rows: what to do with rows that make no sense.
        subsets: consistent / inconsistent of each test person.
        missing_images: what to do with annotated frames that are not there.
    """

    missing_images: Policy = "error"

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
        metrics=(
            ProtocolMetric("auc", AUCRectangle),
            ProtocolMetric("l2", L2ToMean),
            ProtocolMetric("angle", AngleToMean, digits=2),
            ProtocolMetric("ap", InOutAP, subsets=False),
        ),
        headline="l2",
    )

    def parse(self, split: str) -> Annotations:
        """The official test folder, or the official train folder divided by show."""
        edition = "test" if split == "test" else "trainval"
        root = self.existing_root(f"annotations/{FOLDERS[edition]}", "images")
        tracks = _tracks(root, FOLDERS[edition])
        records = cached(
            ["vat", PARSER, str(root.resolve()), edition],
            [root / track for track in tracks.values()],
            lambda: _read(root, edition, tracks),
        )
        if split in ("train", "val"):
            val = np.array([group.startswith(tuple(f"{show}/" for show in VAL_SHOWS)) for group in records.groups])
            records = records.select((val if split == "val" else ~val)[records.person_image], split)
        files = [self._file(image) for image in records.images.tolist()]
        return settle(records, on_disk(root, files), self.bad_rows, self.missing_images)

    def path(self, records: Records, image: int) -> Path:
        """The file of a frame, under its show's folder as spelt on disk."""
        return self.existing_root() / self._file(str(records.images[image]))

    def _file(self, key: str) -> str:
        _, show, rest = key.split("/", 2)
        return f"images/{self._folders.get(show, show)}/{rest}"

    @cached_property
    def _folders(self) -> dict[str, str]:
        return {_canonical(folder.name): folder.name for folder in (self.existing_root() / "images").iterdir()}

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> VAT:
        """A tiny set of drawn clips, with ``people`` rows or a few more in each of train, val and test."""
        for split, show in (("train", "Drawn Show"), ("val", "Before Sunrise"), ("test", "Drawn Titanic")):
            folder, written, index = FOLDERS["test" if split == "test" else "trainval"], 0, 0
            while written < people:
                scenes = clip(seed, index, split, FAKE_FRAMES)
                place, start = f"{show}/{1000 * index}_{1000 * index + FAKE_FRAMES}", 1000 * index
                written += _fake_clip(root, folder, place, start, scenes)
                index += 1
        return cls(root)


def _fake_clip(root: Path, folder: str, place: str, start: int, scenes: Sequence[Scene]) -> int:
    """Draws a clip's frames and writes a track for each person; the number of rows."""
    images, labels = root / "images" / place, root / "annotations" / folder / place
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    tracks: dict[int, list[str]] = {}
    for frame, scene in enumerate(scenes, start):
        size = np.array([round(FAKE_HEIGHT * scene.aspect), FAKE_HEIGHT])
        Image.fromarray(draw(scene, *size.tolist())).save(images / f"{frame:08d}.jpg", quality=95)
        for person in scene.people:
            corners = np.round(np.multiply(person.head, np.tile(size, 2))).astype(int).tolist()
            gaze = np.multiply(person.gaze, size).astype(int).tolist() if person.inout else [-1, -1]
            tracks.setdefault(person.id, []).append(f"{frame:08d}.jpg,{','.join(map(str, corners + gaze))}")
    for number, rows in enumerate(tracks.values()):
        (labels / f"s{number:02d}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return sum(map(len, tracks.values()))


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


def _canonical(show: str) -> str:
    return show.replace(" ", "_")


def _tracks(root: Path, folder: str) -> dict[str, str]:
    """Track files relative to the root by ``show/clip/track``, sorted by it.

    Raises:
        DataError: there is none, or a show is there twice, with spaces and with underscores.
    """
    tracks: dict[str, str] = {}
    for file in (root / "annotations" / folder).glob("*/*/*.txt"):
        show, clip, name = file.parts[-3:]
        key = f"{_canonical(show)}/{clip}/{file.stem}"
        if key in tracks:
            raise DataError(f"{file}: the same track as {root / tracks[key]}; remove one of the two folders")
        tracks[key] = f"annotations/{folder}/{show}/{clip}/{name}"
    if not tracks:
        raise DataError(f"{root / 'annotations' / folder} holds no track files SHOW/CLIP/s00.txt")
    return dict(sorted(tracks.items()))


def _read(root: Path, edition: str, tracks: dict[str, str]) -> Annotations:
    """All tracks as records: every person of a frame together, frames of a clip by number."""
    rows = read_rows(root, list(tracks.values()), (COLUMNS,), slice(1, COLUMNS))
    rows = rows.without(np.array([not cells[0] for cells in rows.cells], dtype=bool), "no frame file")
    rows = rows.without(without_area(rows.numbers[:, HEAD]), "head box of no area")
    seen: dict[tuple[int, str], int] = {}
    keys = zip(rows.file.tolist(), (cells[0] for cells in rows.cells), strict=True)
    first = np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
    rows = rows.without(first != np.arange(len(rows)), lambda row: f"{rows.cells[row][0]} is in the track twice")

    raw, gaze = rows.numbers[:, HEAD], rows.numbers[:, GAZE]
    ordered = np.concatenate([np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1)
    head = smooth(ordered, rows.file)
    visible = ~(gaze == -1).all(axis=1)

    names = [track.rsplit("/", 1) for track in tracks]
    frames = [(names[file][0], len(cells[0]), cells[0]) for file, cells in zip(rows.file, rows.cells, strict=True)]
    place = {frame: index for index, frame in enumerate(sorted(set(frames)))}
    image = np.array([place[frame] for frame in frames], dtype=np.int64)
    order = np.lexsort((rows.file, image))
    people = [f"{clip}/{Path(frame).stem}#{names[rows.file[row]][1]}"
              for row, (clip, _, frame) in ((row, frames[row]) for row in order)]  # fmt: skip
    return Annotations(
        dataset="vat",
        split=edition,
        images=np.array([f"images/{clip}/{frame}" for clip, _, frame in place], dtype=str),
        groups=np.array([clip for clip, _, _ in place], dtype=str),
        person_id=np.array(people, dtype=str),
        person_image=image[order],
        head=head[order],
        points=np.maximum(gaze[order][visible[order]], 0.0),
        point_start=ragged_starts(visible[order].astype(int)),
        inout=np.where(visible[order], IN_FRAME, OUT_OF_FRAME).astype(np.int8),
        point_unit="pixel",
        issues=rows.issues,
    )
