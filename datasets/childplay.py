"""ChildPlay: children and adults at play, up to three annotated people a clip, targets in and out of the frame."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gazebench.core.boxes import BOX, FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Annotations
from gazebench.data.annotations import (
    PARTS_OF_SPLIT,
    POINT,
    ReleasedDataset,
    annotation_files,
    number,
    people_of,
    read_rows,
    texts,
    without_area,
)
from gazebench.data.dataset import COMPLETE, Card
from gazebench.metrics.protocol import ONE_TARGET_IN_VIDEO, Protocol, ProtocolMetric
from gazebench.metrics.spatial import HeadPrecision

CORNER, SIZE = ["bbox_x", "bbox_y"], ["bbox_width", "bbox_height"]
COLUMNS = ("clip", "frame", "person_id", *CORNER, *SIZE, "gaze_class", *POINT, "is_child")
"""Of the annotation files; boxes and gaze points are in pixels, frames count from 1."""

INSIDE, OUTSIDE = "inside_visible", "outside_frame"
LEFT_OUT = ("gaze_shift", "inside_occluded", "inside_uncertain", "eyes_closed", "not_annotated")
"""Gaze classes that the protocol leaves out: neither surely in nor surely out of the frame."""

WITHOUT_IMAGE = ("images/4yWavYq9_Ks_405-451/4yWavYq9_Ks_452.jpg",)
"""A frame that the release annotates past its clip's end (405 to 451): no image exists."""

CLIP = re.compile(r"(?P<video>.+)_(?P<start>\d+)-(?P<end>\d+)")
LIST = Path(__file__).with_name("childplay_clips.tsv")
"""The release's 401 clips: split, name as released, and the number of frames.

Nine names end in ``-downsampled``: those clips were filmed at 60 frames a second and hold every other frame. The names
of the others say how many frames there are.
"""


@dataclass(eq=False)
class ChildPlay(ReleasedDataset):
    """ChildPlay; a group is a clip, its frames stand in order.

    Column ``is_child`` (0 or 1) tells children from adults, ``track`` follows a person through a clip, and ``heads``
    (P, K, 4) holds every annotated head of the person's frame, their own and those of people left out included.

    Args:
        root: the folder that holds ``annotations`` and ``images``.
    """

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
    version = 2
    protocol: ClassVar[Protocol] = Protocol(
        name="childplay",
        version=1,
        unit="person in a frame",
        metrics=(*ONE_TARGET_IN_VIDEO, ProtocolMetric("p_head", HeadPrecision)),
        headline="l2",
        notes="p_head takes the annotated heads of a frame; Sharingan's code takes squared boxes of a head detector.",
    )

    def parse(self, split: str) -> Annotations:
        """The official folder of that name; both training folders for ``trainval``."""
        folders = [f"annotations/{part}" for part in PARTS_OF_SPLIT[split]]
        root = self.existing_root(*folders, "images")
        clips = _clips(root, folders)
        return self.checked(self.cached(clips.values(), lambda: _read(root, split, clips), split))

    def inventory(self, split: str) -> list[dict[str, Any]]:
        """One row a clip of the release's list or of this copy.

        ``frames`` are expected, ``pictures`` found; ``annotated`` counts the frames that its annotation file names,
        whoever is in them, and ``without_picture`` those of them that have none.
        """
        root = self.existing_root("annotations", "images")
        folders = [f"annotations/{part}" for part in PARTS_OF_SPLIT[split]]
        clips = _clips(root, [folder for folder in folders if any(annotation_files(root / folder, "*.csv"))])
        annotated = self.cached(clips.values(), lambda: _annotated(root, clips), "frames", split)
        listed = {clip for clip, (part, _) in released().items() if part in PARTS_OF_SPLIT[split]}
        return [self._row(clip, clips.get(clip, ""), annotated.get(clip, ())) for clip in sorted({*clips, *listed})]

    def _row(self, clip: str, file: str, annotated: Sequence[int]) -> dict[str, Any]:
        """Of ``inventory``; a clip without an annotation file has an empty name and no annotated frames."""
        frames = _frames(clip, file)
        names = self.listed(f"images/{self.on_disk('images', clip)}")
        pictures = sum(name.endswith(".jpg") for name in names)
        images = {frame: _image(clip, frame) for frame in annotated}
        within = [image for frame, image in images.items() if frame <= frames]
        without = sum(image.rpartition("/")[2] not in names for image in within)
        part, _ = released().get(clip, (None, 0))
        verdict = next(
            (
                words
                for amiss, words in (
                    (not file, "without an annotation file"),
                    (part is None, "not in the release's list"),
                    (part not in file.split("/"), "of another split"),
                    ({*images.values()} - {*within, *WITHOUT_IMAGE}, "annotated beyond its end"),
                    (not pictures, "without pictures"),
                    (without, "with annotated frames without a picture"),
                    (pictures > frames, "with more pictures than frames"),
                )
                if amiss
            ),
            COMPLETE,
        )
        return {
            "clip": clip, "frames": frames, "pictures": pictures, "annotated": len(images), "without_picture": without,
            "verdict": verdict,
        }  # fmt: skip

    def image_file(self, image: str) -> str:
        """The file of a frame, below its clip's folder as spelt on disk."""
        _, clip, name = image.split("/")
        return f"images/{self.on_disk('images', clip)}/{name}"

    @staticmethod
    def canonical(name: str) -> str:
        """The clip without the mark of a lower frame rate, which copies of the release spell in several ways."""
        return re.sub(r"-downsampled?$", "", name)

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> ChildPlay:
        """A tiny set of drawn clips, with ``people`` rows or a few more in each of train, val and test."""
        from gazebench.datasets.gazeworld.fakes import fake_clips, write_rows

        start = 120
        for part, split in enumerate(("train", "val", "test")):
            written = 0
            for index, frames in enumerate(fake_clips(seed, split, frames=4)):
                video = f"dr_wn-{part}{index:03d}"
                clip = f"{video}_{start}-{start + len(frames) - 1}"
                rows: list[list[object]] = []
                for frame, image in enumerate(frames, start=1):
                    image.save(root / _image(clip, frame))
                    for person in image.people:
                        # The first person of a clip looks away at its end: a row the protocol leaves out.
                        away = frame == len(frames) and person is image.people[0]
                        label = "gaze_shift" if away else INSIDE if person.inout else OUTSIDE
                        box = image.pixels(person.head)
                        gaze = image.pixels(person.gaze) if label == INSIDE else (-1, -1)
                        numbers = [f"{value:.3f}" for value in (*box[:2], *box[2:] - box[:2], *gaze)]
                        rows.append([clip, frame, person.id, *numbers[:4], label, *numbers[4:], person.id % 2])
                        written += not away
                write_rows(root / "annotations" / split / f"{clip}.csv", [COLUMNS, *rows])
                if written >= people:
                    break
        return cls(root)


@cache
def released() -> dict[str, tuple[str, int]]:
    """Split and number of frames of the release's clips, by name without ``-downsampled``."""
    table = pd.read_csv(LIST, sep="\t")
    return {ChildPlay.canonical(clip): (split, frames) for split, clip, frames in table.itertuples(index=False)}


def _frames(clip: str, file: str) -> int:
    """The frames of a clip: those of the release's list, or for another clip those its name says."""
    name = CLIP.fullmatch(clip)
    assert name is not None, "``_clips`` lets no other through"
    every = 1 + int(name["end"]) - int(name["start"])
    halved = Path(file).name.partition(".csv")[0] != clip
    return released().get(clip, ("", -(-every // 2) if halved else every))[1]


def _annotated(root: Path, clips: Mapping[str, str]) -> dict[str, list[int]]:
    """The numbers of the frames that each clip's annotation file names."""
    table = read_rows(root, [*clips.values()], text=[], numbers=["frame"]).table
    found = table.groupby("file")["frame"].unique()
    return {clip: sorted(found.get(place, np.zeros(0)).astype(int).tolist()) for place, clip in enumerate(clips)}


def _clips(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """Annotation files relative to the root by clip, sorted by it.

    Raises:
        DataError: a folder holds none, a clip is there twice, or a file's name is not that of a clip.
    """
    clips: dict[str, str] = {}
    for folder in folders:
        found = sorted(annotation_files(root / folder, "*.csv"))
        if not found:
            raise DataError(f"{root / folder} holds no annotation files VIDEO_START-END.csv")
        for file in found:
            clip = ChildPlay.canonical(file.name.partition(".csv")[0])
            if not CLIP.fullmatch(clip):
                raise DataError(f"{file}: not the name of a clip, VIDEO_START-END.csv; move it elsewhere")
            if clip in clips:
                raise DataError(f"{file}: the same clip as {root / clips[clip]}; remove one of the two")
            clips[clip] = f"{folder}/{file.name}"
    return dict(sorted(clips.items()))


def _read(root: Path, split: str, clips: Mapping[str, str]) -> Annotations:
    """The people of all clips: those of a frame together, the frames of a clip by number."""
    rows = read_rows(
        root,
        [*clips.values()],
        text=["clip", "gaze_class", *POINT, "is_child"],
        numbers=["frame", "person_id", *CORNER, *SIZE],
    )
    table = rows.table
    table["group"] = texts(clips)[table["file"]]
    # A point has a meaning only where the gaze is inside the frame.
    table[POINT] = table[POINT].map(number).where(table["gaze_class"] == INSIDE)
    table[BOX] = np.hstack([table[CORNER], table[CORNER] + table[SIZE].to_numpy()])
    rows.reject(table["clip"].map(ChildPlay.canonical) != table["group"], "clip is {clip!r}, not the file's")
    counted = rows.table[["frame", "person_id"]].to_numpy()
    rows.reject(
        ((counted % 1 != 0) | (counted < (1, 0)) | (counted > 2**53)).any(axis=1),
        "frame must be a whole number from 1 and person_id one from 0",
    )
    rows.table["frames"] = rows.table["group"].map({clip: _frames(clip, file) for clip, file in clips.items()})
    rows.table["image"] = [
        _image(clip, int(frame)) for clip, frame in zip(rows.table["group"], rows.table["frame"], strict=True)
    ]
    rows.reject(
        (rows.table["frame"] > rows.table["frames"]) & ~rows.table["image"].isin(WITHOUT_IMAGE),
        "frame {frame:.0f} of a clip of {frames} frames",
    )
    classes = [INSIDE, OUTSIDE, *LEFT_OUT]
    rows.reject(
        ~rows.table["gaze_class"].isin(classes), f"gaze_class is {{gaze_class!r}}, expected {', '.join(classes)}"
    )
    # A negative size would pass as reversed corners.
    rows.reject((rows.table[SIZE] <= 0).any(axis=1) | without_area(rows.table[BOX]), "head box of no area")
    inside = rows.table["gaze_class"] == INSIDE
    rows.reject(inside & ~np.isfinite(rows.table[POINT].to_numpy()).all(axis=1), "gaze is not two numbers")
    rows.reject(~rows.table["is_child"].isin(["0", "1"]), "is_child is {is_child!r}, expected 0 or 1")
    rows.reject(
        rows.table.duplicated(["file", "frame", "person_id"]), "person {person_id:.0f} is in frame {frame:.0f} twice"
    )

    table = rows.table
    clip, frame, person = table["group"], table["frame"].astype(np.int64), table["person_id"].astype(np.int64)
    table["track"] = clip + "#" + person.astype(str)
    table["person_id"] = clip + "/" + frame.astype(str) + "#" + person.astype(str)
    table["inout"] = np.where(table["gaze_class"] == INSIDE, IN_FRAME, OUT_OF_FRAME)
    heads, table["number"] = _heads(table)
    left_out = {
        "without_point": (table[POINT] == -1).any(axis=1),
        "without_picture": table["image"].isin(WITHOUT_IMAGE),
        "other_class": table["gaze_class"].isin(LEFT_OUT),
    }
    kept = ~np.any([*left_out.values()], axis=0)
    rows.table = table = table.assign(person=person)[kept].sort_values(["file", "frame", "person"])
    return people_of(
        rows,
        "childplay",
        split,
        {
            "track": table["track"],
            "is_child": (table["is_child"] == "1").astype(np.int8),
            "heads": heads[table["number"]],
        },
        point_unit="pixel",
        scored=("heads",),
        counts={"clips": len(clips), **{f"left_out_{name}": int(marked.sum()) for name, marked in left_out.items()}},
    )


def _image(clip: str, frame: int) -> str:
    name = CLIP.fullmatch(clip)
    assert name is not None, "``_clips`` lets no other through"
    return f"images/{clip}/{name['video']}_{int(name['start']) + frame - 1}.jpg"


def _heads(table: pd.DataFrame) -> tuple[FloatArray, IntArray]:
    """(I, K, 4) the head boxes of each image, NaN beyond their number, and (R,) the image of each row."""
    image, images = pd.factorize(table["image"])
    place = table.groupby(image).cumcount().to_numpy()
    heads = np.full((len(images), place.max(initial=-1) + 1, 4), np.nan)
    heads[image, place] = table[BOX]
    return heads, image
