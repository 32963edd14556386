"""ChildPlay: children and adults at play, up to three annotated people a clip, targets in and out of the frame."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Annotations, Policy, Records, ragged_starts
from gazebench.data.annotations import Rows, cached, on_disk, read_rows, settle, without_area
from gazebench.data.dataset import Card, GazeDataset
from gazebench.datasets.gazeworld.world import Scene, clip, draw
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.spatial import AngleToMean, AUCRectangle, HeadPrecision, InOutAP, L2ToMean

PARSER = 1
"""A change of what ``_read`` makes of the same files is a new number."""

COLUMNS = (
    "clip", "frame", "person_id", "bbox_x", "bbox_y", "bbox_width", "bbox_height", "gaze_class", "gaze_x", "gaze_y",
    "is_child",
)  # fmt: skip
NUMERIC = slice(1, 7)
FRAME, PERSON, CORNER, SIZE = 0, 1, slice(2, 4), slice(4, 6)
"""Places among the numeric columns."""
CLASS, GAZE, CHILD = 7, slice(8, 10), 10
"""Places among all columns."""

INSIDE, OUTSIDE = "inside_visible", "outside_frame"
LEFT_OUT = frozenset({"gaze_shift", "inside_occluded", "inside_uncertain", "eyes_closed", "not_annotated"})
"""Classes the protocol leaves out: neither surely in nor surely out."""

WITHOUT_PICTURE = frozenset({("4yWavYq9_Ks_405-451", 48)})
"""Clips and frames the release annotates past the clip's end (its 47 frames are 405 to 451): no picture exists."""

CLIP = re.compile(r"(?P<video>.+)_(?P<start>\d+)-\d+")
SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}

FAKE_HEIGHT, FAKE_FRAMES, FAKE_START = 96, 4, 120
"""Pixels, frames and first frame number of the drawn clips of ``fake``."""


@dataclass(eq=False)
class ChildPlay(GazeDataset):
    """ChildPlay; a group is a clip, its frames stand in order.

    Column ``is_child`` (0 or 1) tells children from adults, ``track`` follows a person through a clip, and ``heads``
    (P, K, 4) holds every annotated head of the person's frame, one's own and those of people left out included.

    Args:
        root: the folder that holds ``annotations`` and ``images``.
        bad_rows: what to do with rows that make no sense.
        subsets: consistent / inconsistent of each test person.
        missing_images: what to do with annotated frames that are not there.
    """

    missing_images: Policy = "error"

    card: ClassVar[Card] = Card(
        name="childplay",
        title="ChildPlay",
        licence="research use; the videos belong to their owners",
        source="https://zenodo.org/records/8252535",
        citation="Tafasca, Gupta, Odobez: ChildPlay: a new benchmark for understanding children's gaze behaviour. "
        "ICCV 2023",
        layout="annotations/train/VIDEO_START-END.csv ...\nannotations/val/VIDEO_START-END.csv ...\n"
        "annotations/test/VIDEO_START-END.csv ...\nimages/VIDEO_START-END/VIDEO_START.jpg ...",
        official={"train": {"clips": 330}, "val": {"clips": 26}, "trainval": {"clips": 356}, "test": {"clips": 45}},
        label_version="release of 2023",
        head_boxes="annotated",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="childplay",
        version=1,
        unit="person in a frame",
        metrics=(
            ProtocolMetric("auc", AUCRectangle),
            ProtocolMetric("l2", L2ToMean),
            ProtocolMetric("angle", AngleToMean, digits=2),
            ProtocolMetric("ap", InOutAP, subsets=False),
            ProtocolMetric("p_head", HeadPrecision),
        ),
        headline="l2",
        notes="p_head takes the annotated heads of a frame; Sharingan's code takes squared boxes of a head detector.",
    )

    def parse(self, split: str) -> Annotations:
        """The official folder of that name; both training folders for ``trainval``."""
        folders = [f"annotations/{name}" for name in SPLITS[split]]
        root = self.existing_root(*folders, "images")
        files = _files(root, folders)
        records = cached(
            ["childplay", PARSER, str(root.resolve()), split],
            [root / file for file in files.values()],
            lambda: _read(root, split, files),
        )
        images = [self._file(image) for image in records.images.tolist()]
        return settle(records, on_disk(root, images), self.bad_rows, self.missing_images)

    def path(self, records: Records, image: int) -> Path:
        """The file of a frame, under its clip's folder as spelt on disk."""
        return self.existing_root() / self._file(str(records.images[image]))

    def _file(self, key: str) -> str:
        _, clip, name = key.split("/")
        return f"images/{self._folders.get(clip, clip)}/{name}"

    @cached_property
    def _folders(self) -> dict[str, str]:
        return {_canonical(folder.name): folder.name for folder in (self.existing_root() / "images").iterdir()}

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> ChildPlay:
        """A tiny set of drawn clips, with ``people`` rows or a few more in each of train, val and test."""
        for number, split in enumerate(("train", "val", "test")):
            written, index = 0, 0
            while written < people:
                video = f"dr_wn-{number}{index:03d}"
                written += _fake_clip(root, split, video, clip(seed, index, split, FAKE_FRAMES))
                index += 1
        return cls(root)


def _fake_clip(root: Path, split: str, video: str, scenes: Sequence[Scene]) -> int:
    """Draws a clip's frames and writes its rows; the number of those the protocol keeps."""
    name = f"{video}_{FAKE_START}-{FAKE_START + len(scenes) - 1}"
    images, labels = root / "images" / name, root / "annotations" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    rows, kept = [",".join(COLUMNS)], 0
    for frame, scene in enumerate(scenes, start=1):
        size = np.array([round(FAKE_HEIGHT * scene.aspect), FAKE_HEIGHT])
        Image.fromarray(draw(scene, *size.tolist())).save(images / f"{video}_{FAKE_START + frame - 1}.jpg", quality=95)
        for person in scene.people:
            left, top, right, bottom = (np.array(person.head).reshape(2, 2) * size).ravel()
            # The first person of a clip looks away at its end: a row the protocol leaves out.
            away = frame == len(scenes) and person is scene.people[0]
            label = "gaze_shift" if away else INSIDE if person.inout else OUTSIDE
            kept += not away
            gaze = np.multiply(person.gaze, size) if label == INSIDE else (-1, -1)
            numbers = [left, top, right - left, bottom - top]
            rows.append(
                f"{name},{frame},{person.id},{','.join(f'{n:.3f}' for n in numbers)},{label},"
                f"{gaze[0]:.3f},{gaze[1]:.3f},{person.id % 2}"
            )
    (labels / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return kept


def _canonical(clip: str) -> str:
    """The clip without the mark one of them carries for its lower frame rate."""
    return re.sub(r"-downsampled?$", "", clip)


def _files(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """Annotation files relative to the root by clip, sorted by it.

    Raises:
        DataError: a folder holds none, a clip is there twice, or a file's name or header is not that of a clip.
    """
    files: dict[str, str] = {}
    for folder in folders:
        found = sorted((root / folder).glob("*.csv"))
        if not found:
            raise DataError(f"{root / folder} holds no annotation files VIDEO_START-END.csv")
        for file in found:
            clip = _canonical(file.stem)
            if not CLIP.fullmatch(clip):
                raise DataError(f"{file}: not the name of a clip, VIDEO_START-END.csv; move it elsewhere")
            if clip in files:
                raise DataError(f"{file}: the same clip as {root / files[clip]}; remove one of the two")
            with file.open(encoding="utf-8-sig", errors="replace") as lines:
                header = lines.readline().strip()
            if header.split(",") != list(COLUMNS):
                raise DataError(f"{file}:1: the header is {header[:200]!r}, expected {','.join(COLUMNS)!r}")
            files[clip] = f"{folder}/{file.name}"
    return dict(sorted(files.items()))


def _read(root: Path, split: str, files: Mapping[str, str]) -> Annotations:
    """All clips as records: the people of a frame together, frames of a clip by number."""
    clips = list(files)
    rows = _sound(read_rows(root, list(files.values()), (len(COLUMNS),), NUMERIC), clips)
    frame, person = rows.numbers[:, FRAME].astype(np.int64), rows.numbers[:, PERSON].astype(np.int64)
    label = np.array([cells[CLASS] for cells in rows.cells], dtype=str)
    head, gaze = _head(rows), _gaze(rows)

    without_point = (gaze == -1).any(axis=1)
    without_picture = np.array(
        [(clips[file], number) in WITHOUT_PICTURE for file, number in zip(rows.file, frame, strict=True)], dtype=bool
    )
    other_class = np.isin(label, list(LEFT_OUT))
    kept = ~(without_point | without_picture | other_class)
    order = np.lexsort((person, frame, rows.file))
    order = order[kept[order]]

    # Heads of a picture are those of all its rows, whatever is known of their gaze.
    picture = _pictures(rows.file, frame)[1]
    heads = _by_picture(head, picture)[picture[order]]
    file, frame, person = rows.file[order], frame[order], person[order]
    first, image = _pictures(file, frame)
    visible = label[order] == INSIDE
    people = [f"{clips[f]}/{n}#{p}" for f, n, p in zip(file, frame, person, strict=True)]
    return Annotations(
        dataset="childplay",
        split=split,
        images=np.array([_image(clips[file[row]], int(frame[row])) for row in first], dtype=str),
        groups=np.array([clips[file[row]] for row in first], dtype=str),
        person_id=np.array(people, dtype=str),
        person_image=image,
        head=head[order],
        points=gaze[order][visible],
        point_start=ragged_starts(visible.astype(int)),
        inout=np.where(visible, IN_FRAME, OUT_OF_FRAME).astype(np.int8),
        point_unit="pixel",
        columns={
            "track": np.array([f"{clips[f]}#{p}" for f, p in zip(file, person, strict=True)], dtype=str),
            "is_child": np.array([rows.cells[row][CHILD] == "1" for row in order], dtype=np.int8),
            "heads": heads,
        },
        scored=("heads",),
        counts={
            "clips": len(clips),
            "left_out_without_point": int(without_point.sum()),
            "left_out_without_picture": int(without_picture.sum()),
            "left_out_other_class": int(other_class.sum()),
        },
        issues=rows.issues,
    )


def _sound(rows: Rows, clips: Sequence[str]) -> Rows:
    """The rows that make sense."""
    # The header was checked when the file was found; here it is the row whose numbers are words.
    rows = replace(rows, issues=tuple(issue for issue in rows.issues if issue.row != 1))
    strange = [_canonical(cells[0]) != clips[file] for file, cells in zip(rows.file, rows.cells, strict=True)]
    rows = rows.without(np.array(strange, dtype=bool), lambda row: f"clip is {rows.cells[row][0]!r}, not the file's")
    counted = rows.numbers[:, [FRAME, PERSON]]
    odd = (counted != np.trunc(counted)).any(axis=1) | (counted < (1, 0)).any(axis=1) | (counted > 2**53).any(axis=1)
    rows = rows.without(odd, "frame must be a whole number from 1 and person_id one from 0")
    known = {INSIDE, OUTSIDE, *LEFT_OUT}
    unknown = np.array([cells[CLASS] not in known for cells in rows.cells], dtype=bool)
    rows = rows.without(
        unknown, lambda row: f"gaze_class is {rows.cells[row][CLASS]!r}, expected {', '.join(sorted(known))}"
    )
    # A negative size would pass as reversed corners.
    rows = rows.without((rows.numbers[:, SIZE] <= 0).any(axis=1) | without_area(_head(rows)), "head box of no area")
    inside = np.array([cells[CLASS] == INSIDE for cells in rows.cells], dtype=bool)
    rows = rows.without(
        inside & ~np.isfinite(_gaze(rows)).all(axis=1),
        lambda row: f"gaze is {', '.join(rows.cells[row][GAZE])!r}, expected two numbers",
    )
    grown = np.array([cells[CHILD] not in ("0", "1") for cells in rows.cells], dtype=bool)
    rows = rows.without(grown, lambda row: f"is_child is {rows.cells[row][CHILD]!r}, expected 0 or 1")
    keys = np.column_stack([rows.file, rows.numbers[:, [FRAME, PERSON]].astype(np.int64)])
    again = np.ones(len(rows), dtype=bool)
    again[np.unique(keys, axis=0, return_index=True)[1]] = False
    return rows.without(again, lambda row: f"person {keys[row, 2]} is in frame {keys[row, 1]} twice")


def _head(rows: Rows) -> FloatArray:
    """(R, 4) head boxes xyxy."""
    corner = rows.numbers[:, CORNER]
    return np.concatenate([corner, corner + rows.numbers[:, SIZE]], axis=1)


def _gaze(rows: Rows) -> FloatArray:
    """(R, 2) targets of the rows in frame; NaN where there is no number, and in other rows, where it means nothing."""
    gaze = np.full((len(rows), 2), np.nan)
    for row, cells in enumerate(rows.cells):
        if cells[CLASS] == INSIDE:
            with suppress(ValueError):
                gaze[row] = [float(cell) for cell in cells[GAZE]]
    return gaze


def _image(clip: str, frame: int) -> str:
    name = CLIP.fullmatch(clip)
    assert name is not None, "``_files`` lets no other through"
    return f"images/{clip}/{name['video']}_{int(name['start']) + frame - 1}.jpg"


def _pictures(file: IntArray, frame: IntArray) -> tuple[IntArray, IntArray]:
    """The first row of each picture (file, frame), in their order, and the number of each row's picture."""
    _, first, number = np.unique(np.column_stack([file, frame]), axis=0, return_index=True, return_inverse=True)
    return first, number.reshape(-1).astype(np.int64)


def _by_picture(boxes: FloatArray, picture: IntArray) -> FloatArray:
    """(I, K, 4) the boxes (R, 4) of each picture, NaN beyond their number; K is the largest number."""
    counts = np.bincount(picture)
    dense = np.full((len(counts), int(counts.max(initial=0)), 4), np.nan)
    order = np.argsort(picture, kind="stable")
    place = np.arange(len(order)) - np.repeat(ragged_starts(counts)[:-1], counts)
    dense[picture[order], place] = boxes[order]
    return dense
