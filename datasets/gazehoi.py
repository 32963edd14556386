"""GazeHOI: people looking at the thing they use, with its box and its category (from five human-object data sets)."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from gazebench.core.types import IN_FRAME, Annotations, Policy, ragged_starts
from gazebench.data.annotations import cached, on_disk, read_table, settle, without_area
from gazebench.data.dataset import Card, GazeDataset
from gazebench.datasets.gazeworld.world import CATEGORIES, Scene, compose, draw
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.semantic import ClassAccuracy, LabelAccuracy
from gazebench.metrics.spatial import GazeAccuracy
from gazebench.metrics.vocabulary import Vocabulary, read_classes

PARSER = 1
"""A change of what ``_read`` makes of the same files is a new number."""

VOCABULARY = "vocab2id.json"
FILES = {name: f"{name}-annotations.csv" for name in ("train", "val", "test")}
SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}

TEXT = ("file_name", "pair_id", "object")
NUMERIC = ("o_xmin", "o_ymin", "o_xmax", "o_ymax", "oc_x", "oc_y", "h_xmin", "h_ymin", "h_xmax", "h_ymax")
THING, POINT, HEAD = slice(0, 4), slice(4, 6), slice(6, 10)
"""Places among the numeric columns."""
NAME, PAIR, OBJECT = range(3)
"""Places among the text columns."""

NO_HEAD = -1
"""``h_xmin`` of people whose head is not visible."""

FAKE_HEIGHT = 96
"""Pixels of the drawn pictures of ``fake``."""


@dataclass(eq=False)
class GazeHOI(GazeDataset):
    """GazeHOI; a sample is a person and the thing they look at, always in frame.

    Column ``label`` is the thing's category, one of the vocabulary's, and ``target_box`` (P, 4) its box.

    Args:
        root: the folder that holds the three annotation files, the vocabulary and ``images``.
        bad_rows: what to do with rows that make no sense.
        subsets: consistent / inconsistent of each test person.
        missing_images: what to do with annotated images that are not there.
        clip_weights: brings free text to the nearest category; without them it has to be the category's own name.
        clip_model: the architecture of those weights, by its name in open_clip.
    """

    missing_images: Policy = "error"
    clip_weights: Path | None = None
    clip_model: str = "ViT-B-32-quickgelu"

    card: ClassVar[Card] = Card(
        name="gazehoi",
        title="GazeHOI",
        licence="research use; the pictures belong to the five data sets they come from",
        source="https://zenodo.org/records/17107341",
        citation="Tafasca, Gupta, Bros, Odobez: Toward semantic gaze target detection. NeurIPS 2024",
        layout="train-annotations.csv\nval-annotations.csv\ntest-annotations.csv\nvocab2id.json\nimages/FILE_NAME ...",
        # What is published (55,995 instances, 463 categories) is not said of a split.
        official={},
        label_version="release of 2024",
        head_boxes="as released, not widened",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="gazehoi",
        version=1,
        unit="person and the thing they look at",
        metrics=(
            ProtocolMetric("gaze_acc", GazeAccuracy),
            ProtocolMetric("acc_1", ClassAccuracy),
            ProtocolMetric("acc_1_exact", LabelAccuracy),
        ),
        headline="gaze_acc",
        notes="acc_1 brings free text to its nearest category by CLIP and needs CLIP weights; acc_1_exact asks for the "
        "category letter by letter.",
    )

    def __post_init__(self) -> None:
        if self.clip_weights is not None:
            words = Vocabulary(Path(self.root or ".") / VOCABULARY, self.clip_model, Path(self.clip_weights))
            self.__dict__["protocol"] = replace(self.protocol, vocabulary=words)

    def parse(self, split: str) -> Annotations:
        """The official file of that name; both training files for ``trainval``."""
        names = [FILES[name] for name in SPLITS[split]]
        root = self.existing_root(*names, VOCABULARY, "images")
        records = cached(
            ["gazehoi", PARSER, str(root.resolve()), split],
            [root / name for name in (*names, VOCABULARY)],
            lambda: _read(root, split, names),
        )
        return settle(records, on_disk(root, records.images.tolist()), self.bad_rows, self.missing_images)

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeHOI:
        """A tiny set of drawn scenes, with ``people`` rows or a few more in each of train, val and test."""
        (root / "images").mkdir(parents=True, exist_ok=True)
        vocabulary = {category: number for number, category in enumerate(sorted(CATEGORIES))}
        (root / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
        for split, file in FILES.items():
            written, index = 0, 0
            with (root / file).open("w", encoding="utf-8", newline="") as lines:
                table = csv.DictWriter(lines, _FAKE_COLUMNS, lineterminator="\n")
                table.writeheader()
                while written < people:
                    rows = _fake_rows(compose(seed, index, split), f"{split}_{index:06d}.jpg", root)
                    table.writerows(rows)
                    written, index = written + len(rows), index + 1
        return cls(root)


_FAKE_COLUMNS = (*TEXT[:2], *NUMERIC[:6], "object", "aux_object", *NUMERIC[6:])


def _fake_rows(scene: Scene, name: str, root: Path) -> list[dict[str, object]]:
    """Draws a scene if somebody looks at a thing in it; a row for each who does."""
    size = np.array([round(FAKE_HEIGHT * scene.aspect), FAKE_HEIGHT])
    rows: list[dict[str, object]] = []
    for person in scene.people:
        if person.target_kind == "thing":
            box = np.multiply(scene.find(person.target_id).box, np.tile(size, 2))
            head = np.multiply(person.head, np.tile(size, 2))
            numbers = np.concatenate([box, (box[:2] + box[2:]) / 2, head]).round(3).tolist()
            rows.append(
                {
                    "file_name": name,
                    "pair_id": person.id,
                    "object": person.target_category,
                    "aux_object": str([person.target_category, "thing"]),
                    **dict(zip(NUMERIC, numbers, strict=True)),
                }
            )
    if rows:
        Image.fromarray(draw(scene, *size.tolist())).save(root / "images" / name, quality=95)
    return rows


def _read(root: Path, split: str, names: list[str]) -> Annotations:
    """The rows of the files, those of a picture together."""
    vocabulary = read_classes(root / VOCABULARY)
    rows = read_table(root, names, TEXT, NUMERIC)
    rows = rows.without(np.array([not cells[NAME] for cells in rows.cells], dtype=bool), "no file_name")
    unknown = np.array([cells[OBJECT] not in vocabulary for cells in rows.cells], dtype=bool)
    rows = rows.without(unknown, lambda row: f"object {rows.cells[row][OBJECT]!r} is not in {VOCABULARY}")
    hidden = rows.numbers[:, HEAD.start] == NO_HEAD
    rows = rows.without(~hidden & without_area(rows.numbers[:, HEAD]), "head box of no area")
    rows = rows.without(without_area(rows.numbers[:, THING]), "object box of no area")
    seen: dict[tuple[str, str], int] = {}
    first = [seen.setdefault((cells[NAME], cells[PAIR]), row) for row, cells in enumerate(rows.cells)]
    rows = rows.without(
        np.array(first, dtype=np.int64) != np.arange(len(rows)),
        lambda row: f"pair {rows.cells[row][PAIR]} of {rows.cells[row][NAME]} is there twice",
    )

    visible = np.flatnonzero(rows.numbers[:, HEAD.start] != NO_HEAD)
    places: dict[str, int] = {}
    image = np.array([places.setdefault(rows.cells[row][NAME], len(places)) for row in visible], dtype=np.int64)
    order = visible[np.argsort(image, kind="stable")]
    numbers = rows.numbers[order]
    images = np.array([f"images/{name}" for name in places], dtype=str)
    return Annotations(
        dataset="gazehoi",
        split=split,
        images=images,
        groups=images,
        person_id=np.array([f"{rows.cells[row][NAME]}#{rows.cells[row][PAIR]}" for row in order], dtype=str),
        person_image=np.sort(image),
        head=numbers[:, HEAD],
        points=numbers[:, POINT],
        point_start=ragged_starts(np.ones(len(order), dtype=int)),
        inout=np.full(len(order), IN_FRAME, dtype=np.int8),
        point_unit="pixel",
        columns={
            "label": np.array([rows.cells[row][OBJECT] for row in order], dtype=str),
            "target_box": numbers[:, THING],
        },
        scored=("label", "target_box"),
        counts={"categories": len(vocabulary), "left_out_without_head": len(rows) - len(order)},
        issues=rows.issues,
    )
