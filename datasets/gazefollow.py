"""GazeFollow, in the edition every recent method uses: gazefollow_extended (head boxes and in/out labels)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, UNKNOWN, Annotations
from gazebench.data.annotations import (
    POINT,
    ReleasedDataset,
    Rows,
    far_outside,
    label_file,
    people_of,
    read_rows,
    train_or_val,
    without_area,
)
from gazebench.data.dataset import Card
from gazebench.metrics.protocol import SEVERAL_ANNOTATORS, Protocol, ProtocolMetric
from gazebench.metrics.spatial import MeanAngleFromEye

EXTENDED = "https://github.com/ejcgt/attention-target-detection"
FILES = {"trainval": "train_annotations_release.txt", "test": "test_annotations_release.txt"}
NUMBERS = ("body_x", "body_y", "body_width", "body_height", "eye_x", "eye_y", *POINT, *BOX)
LAYOUTS = (
    ("path", "id", *NUMBERS, "in_out", "source", "meta"),
    ("path", "id", *NUMBERS, "source", "meta"),
)
COLUMNS_OF_2015 = 12
"""Of the rows of the first release, which has no head boxes."""
INOUT = {"1": IN_FRAME, "0": OUT_OF_FRAME, "-1": UNKNOWN, None: IN_FRAME}
"""Labels of the files; in the layout without a label everybody is in frame."""
COLUMNS = (*SEVERAL_ANNOTATORS, ProtocolMetric("mean_angle_eye", MeanAngleFromEye, digits=2))
"""Of the protocol: those of several annotators, and the angle of the paper of 2015."""


@dataclass(eq=False)
class GazeFollow(ReleasedDataset):
    """GazeFollow: one person is an image path and an eye x, with about ten annotators each on test.

    Column ``rows`` holds the ids of a person's rows (the second column of the files), joined by blanks, ``eye`` the
    annotated eye (P, 2).

    Args:
        root: the folder that holds the two annotation files, ``train`` and ``test2``.
    """

    card: ClassVar[Card] = Card(
        name="gazefollow",
        title="GazeFollow",
        licence="research use; the pictures belong to their owners",
        source=f"http://gazefollow.csail.mit.edu; the edition with head boxes, gazefollow_extended, at {EXTENDED}",
        citation="Recasens, Khosla, Vondrick, Torralba: Where are they looking? NeurIPS 2015; head boxes and in/out "
        "labels by Chong et al., ECCV 2018 and CVPR 2020",
        layout="train_annotations_release.txt\ntest_annotations_release.txt\ntrain/00000093/00093103.jpg ...\n"
        "test2/00000000/00000001.jpg ...",
        official={"test": {"people": 4782, "in_frame": 4782}},
        label_version="gazefollow_extended",
        head_boxes="annotated",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="gazefollow",
        version=1,
        unit="person: image path and eye x",
        metrics=COLUMNS,
        headline="avg_l2",
        notes="avg_l2 is the distance to the mean annotation; the 2015 paper's Dist is mean_l2.",
    )

    def parse(self, split: str) -> Annotations:
        """The official test file, or the official training file divided by ``held_out``."""
        annotations = self.annotations("test" if split == "test" else "trainval")
        return self.checked(train_or_val(annotations, split, held_out(annotations.images)))

    def annotations(self, edition: str) -> Annotations:
        """The people of one of the two files, ``trainval`` or ``test``; bad rows are not looked at yet."""
        root = self.existing_root(FILES[edition])
        return self.cached([label_file(root, FILES[edition])], lambda: _people(read_edition(root, edition), edition))

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeFollow:
        """A tiny set of drawn images, with ``people`` or a few more in each of train, val and test."""
        from gazebench.datasets.gazeworld.fakes import fake_images, write_rows

        rows: dict[str, list[list[object]]] = {edition: [] for edition in FILES}
        for split in ("train", "val", "test"):
            test, written = split == "test", 0
            for name, image in zip(fake_names(split), fake_images(seed, split), strict=False):
                image.save(root / name)
                for person in image.people:
                    x, y, right, bottom = person.body
                    for gaze in image.annotations(person) if test else [person.gaze if person.inout else (-1, -1)]:
                        numbers = [x, y, right - x, bottom - y, *person.eye, *gaze, *image.pixels(person.head)]
                        cells = [name, person.id, *(f"{number:.6g}" for number in numbers)]
                        cells += ["drawn", "original"] if test else [person.inout, "drawn", "original"]
                        rows["test" if test else "trainval"].append(cells)
                    written += bool(person.inout or not test)
                if written >= people:
                    break
        for edition, name in FILES.items():
            write_rows(root / name, rows[edition])
        return cls(root)


def fake_names(split: str) -> Iterator[str]:
    """Image paths that fall into the split; the n-th fake image of a split has the n-th of them."""
    names = (f"{'test2' if split == 'test' else 'train'}/{n // 1000:08d}/{n:08d}.jpg" for n in count())
    return names if split == "test" else (name for name in names if held_out([name])[0] == (split == "val"))


def held_out(images: Iterable[str]) -> npt.NDArray[np.bool_]:
    """(I,) whether each training image is for validation.

    A rule of ours rather than a list, so that it holds for any edition and order of the release: an image is held out
    where the first 32 bits of sha256(salt:path), as a fraction, are under ``share``; both stand in
    ``splits/gazefollow/val.json``. All people of an image fall on the same side.
    """
    rule = json.loads((files("gazebench.splits") / "gazefollow" / "val.json").read_text(encoding="utf-8"))
    digests = (hashlib.sha256(f"{rule['salt']}:{image}".encode()).hexdigest() for image in images)
    return np.array([int(digest[:8], 16) / 2**32 < rule["share"] for digest in digests], dtype=bool)


def read_edition(root: Path, edition: str) -> Rows:
    """The well-formed rows of one of the two files.

    Raises:
        DataError: it is the file of 2015.
    """
    file = label_file(root, FILES[edition])
    rows = read_rows(root, [file], paths=["path"], text=["id", "in_out"], numbers=NUMBERS, layouts=LAYOUTS)
    if rows.table.empty and any(issue.what.startswith(f"{COLUMNS_OF_2015} columns") for issue in rows.issues):
        raise DataError(
            f"{root / file}: its rows have {COLUMNS_OF_2015} columns, those of GazeFollow's release of 2015, which has "
            f"no head boxes; take gazefollow_extended, which adds them and in/out labels ({EXTENDED})"
        )
    return rows


def _people(rows: Rows, edition: str) -> Annotations:
    """Groups the rows by person; rows whose in/out label is -1 are dropped, as everywhere in the field."""
    rows.reject(rows.table["path"] == "", "no image path")
    rows.reject([label not in INOUT for label in rows.table["in_out"]], "in/out is {in_out!r}, expected 1, 0 or -1")
    rows.reject(without_area(rows.table[BOX]), "head box of no area")
    inout = rows.table["inout"] = [INOUT[label] for label in rows.table["in_out"]]
    rows.reject(
        (np.array(inout) == IN_FRAME) & far_outside(rows.table[POINT]),
        "gaze {gaze_x:g},{gaze_y:g} of a person in frame lies outside the picture; expected numbers in [0, 1]",
    )
    rows.keep(rows.table["inout"] != UNKNOWN)
    table = rows.table
    table["image"] = table["group"] = table["path"]
    table["person_id"] = [f"{path}#{eye!r}" for path, eye in zip(table["path"], table["eye_x"].tolist(), strict=True)]
    ids = table.groupby("person_id")["id"].agg(" ".join)
    columns = {"rows": table["person_id"].map(ids).to_numpy(), "eye": table[["eye_x", "eye_y"]].to_numpy()}
    return people_of(rows, "gazefollow", edition, columns, point_unit="normalised")
