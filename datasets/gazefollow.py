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
from PIL import Image

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, UNKNOWN, Annotations, Policy, ragged_starts
from gazebench.data.annotations import cached, on_disk, read_rows, settle, without_area
from gazebench.data.dataset import Card, GazeDataset
from gazebench.datasets.gazeworld.world import Scene, annotate, compose, draw
from gazebench.metrics.protocol import SEVERAL_ANNOTATORS, Protocol

PARSER = 2
"""A change of what ``_read`` makes of the same file is a new number."""

FILES = {"trainval": "train_annotations_release.txt", "test": "test_annotations_release.txt"}
INOUT = {"1": IN_FRAME, "0": OUT_OF_FRAME, "-1": UNKNOWN}
# Columns: path, id, body x, y, w, h, eye x, y, gaze x, y, head xmin, ymin, xmax, ymax, [in/out,] source, meta.
WITHOUT_INOUT, WITH_INOUT = 16, 17
BODY, EYE, GAZE, HEAD = slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 12)
NUMERIC = slice(2, 14)

FAKE_HEIGHT = 96
"""Pixels of the drawn pictures of ``fake``."""


@dataclass(eq=False)
class GazeFollow(GazeDataset):
    """GazeFollow (PROTOCOLS: one person is an image path and an eye x; about ten annotators each on test).

    Column ``rows`` holds the ids of a person's rows (the second column of the files), joined by blanks.

    Args:
        root: the folder that holds the two annotation files, ``train`` and ``test2``.
        bad_rows: what to do with rows that make no sense.
        subsets: consistent / inconsistent of each test person.
        missing_images: what to do with annotated images that are not there.
    """

    missing_images: Policy = "error"

    card: ClassVar[Card] = Card(
        name="gazefollow",
        title="GazeFollow",
        licence="research use; the pictures belong to their owners",
        source="http://gazefollow.csail.mit.edu",
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
        metrics=SEVERAL_ANNOTATORS,
        headline="avg_l2",
        notes="avg_l2 is the distance to the mean annotation; the 2015 paper's Dist is mean_l2.",
    )

    def parse(self, split: str) -> Annotations:
        """The official test file, or the official training file divided by ``held_out``."""
        records = self.annotations("test" if split == "test" else "trainval")
        if split in ("train", "val"):
            val = held_out(records.images)
            records = records.select((val if split == "val" else ~val)[records.person_image], split)
        return self.settled(records)

    def annotations(self, edition: str) -> Annotations:
        """What stands in one of the two files, ``trainval`` or ``test``, whatever is wrong with it."""
        root = self.existing_root(FILES[edition])
        return cached(
            ["gazefollow", PARSER, str(root.resolve()), edition],
            [root / FILES[edition]],
            lambda: _read(root, edition),
        )

    def settled(self, records: Annotations) -> Annotations:
        """The records without what is wrong with them, or an error that names it."""
        found = on_disk(self.existing_root(), records.images.tolist())
        return settle(records, found, self.bad_rows, self.missing_images)

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeFollow:
        """A tiny set of drawn scenes, with ``people`` or a few more in each of train, val and test."""
        rows: dict[str, list[str]] = {edition: [] for edition in FILES}
        for split in ("train", "val", "test"):
            written = 0
            for index, name in enumerate(fake_names(split)):
                scene = compose(seed, index, split)
                rows["test" if split == "test" else "trainval"] += _fake_rows(scene, name, root)
                written += sum(person.inout or split != "test" for person in scene.people)
                if written >= people:
                    break
        for edition, lines in rows.items():
            (root / FILES[edition]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return cls(root)


def fake_names(split: str) -> Iterator[str]:
    """Image paths that fall into the split; ``fake`` draws the scene of an index under the name of that index."""
    names = (f"{'test2' if split == 'test' else 'train'}/{n // 1000:08d}/{n:08d}.jpg" for n in count())
    return names if split == "test" else (name for name in names if held_out([name])[0] == (split == "val"))


def _fake_rows(scene: Scene, name: str, root: Path) -> Iterator[str]:
    """Draws a scene below ``root``; its rows: ten annotators of those in frame on test, else everybody once."""
    width, height = round(FAKE_HEIGHT * scene.aspect), FAKE_HEIGHT
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(scene, width, height)).save(root / name, quality=95)
    test = name.startswith("test")
    for person in scene.people:
        left, top, right, bottom = person.body
        for x, y in annotate(scene, person) if test else [person.gaze if person.inout else (-1.0, -1.0)]:
            box = np.multiply(person.head, (width, height, width, height))
            numbers = [left, top, right - left, bottom - top, *person.eye, x, y, *box]
            label = [] if test else [str(person.inout)]
            yield ",".join([name, str(person.id), *(f"{n:.6g}" for n in numbers), *label, "drawn", "original"])


def held_out(images: Iterable[str]) -> npt.NDArray[np.bool_]:
    """(I,) whether each training image is for validation.

    A rule of ours rather than a list, so that it holds for any edition and order of the release: an image is held out
    where the first 32 bits of sha256(salt:path), as a fraction, are under ``share``; both stand in
    ``splits/gazefollow/val.json``. All people of an image fall on the same side.
    """
    rule = json.loads((files("gazebench.splits") / "gazefollow" / "val.json").read_text(encoding="utf-8"))
    drawn = (hashlib.sha256(f"{rule['salt']}:{image}".encode()).hexdigest()[:8] for image in images)
    return np.array([int(digits, 16) / 2**32 < rule["share"] for digits in drawn], dtype=bool)


def _read(root: Path, edition: str) -> Annotations:
    """Groups the rows of one annotation file by person; rows whose in/out label is -1 are dropped, as everywhere."""
    rows = read_rows(root, [FILES[edition]], (WITHOUT_INOUT, WITH_INOUT), NUMERIC)
    rows = rows.without(np.array([not cells[0] for cells in rows.cells], dtype=bool), "no image path")
    labels = [cells[14] if len(cells) == WITH_INOUT else "1" for cells in rows.cells]
    unlabelled = np.array([label not in INOUT for label in labels], dtype=bool)
    rows = rows.without(unlabelled, lambda row: f"in/out is {labels[row]!r}, expected 1, 0 or -1")
    rows = rows.without(without_area(rows.numbers[:, HEAD]), "head box of no area")

    inout = np.array(
        [INOUT[cells[14]] if len(cells) == WITH_INOUT else IN_FRAME for cells in rows.cells], dtype=np.int8
    )
    known = np.flatnonzero(inout != UNKNOWN)
    inout, numbers = inout[known], rows.numbers[known]
    images: dict[str, int] = {}
    people: dict[tuple[int, float], int] = {}
    image = np.array([images.setdefault(rows.cells[row][0], len(images)) for row in known], dtype=np.int64)
    eye_x = numbers[:, EYE.start].tolist()
    person = np.array(
        [people.setdefault(key, len(people)) for key in zip(image.tolist(), eye_x, strict=True)], dtype=int
    )

    # People in the order of their images, each with the box of the first annotator.
    first = np.unique(person, return_index=True)[1]
    order = np.argsort(image[first], kind="stable")
    place = np.argsort(order)[person]
    first = first[order]
    ids: list[list[str]] = [[] for _ in people]
    for row, owner in zip(known, place, strict=True):
        ids[owner].append(rows.cells[row][1])
    visible = np.flatnonzero(inout == IN_FRAME)
    counts = np.bincount(place[visible], minlength=len(people))
    names = np.array(list(images), dtype=str)
    return Annotations(
        dataset="gazefollow",
        split=edition,
        images=names,
        groups=names,
        person_id=np.array([f"{names[image[row]]}#{eye_x[row]!r}" for row in first], dtype=str),
        person_image=image[first],
        head=numbers[first, HEAD],
        points=numbers[visible[np.argsort(place[visible], kind="stable")], GAZE],
        point_start=ragged_starts(counts),
        inout=np.where(counts > 0, IN_FRAME, OUT_OF_FRAME).astype(np.int8),
        columns={"rows": np.array([" ".join(some) for some in ids], dtype=str)},
        issues=rows.issues,
    )
