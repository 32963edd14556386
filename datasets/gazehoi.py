"""GazeHOI: people looking at the thing they use, with its box and its category (from five human-object data sets)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gazebench.core.boxes import BOX
from gazebench.core.types import IN_FRAME, Annotations
from gazebench.data.annotations import (
    PARTS_OF_SPLIT,
    POINT,
    VOCABULARY,
    CategoryDataset,
    label_file,
    people_of,
    read_rows,
    without_area,
)
from gazebench.data.dataset import Card
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.semantic import ClassAccuracy, LabelAccuracy
from gazebench.metrics.spatial import GazeAccuracy
from gazebench.metrics.vocabulary import read_classes

FILE = "{}-annotations.csv"
OBJECT_BOX, OBJECT_CENTRE = ["o_xmin", "o_ymin", "o_xmax", "o_ymax"], ["oc_x", "oc_y"]
HEAD = ["h_xmin", "h_ymin", "h_xmax", "h_ymax"]
NO_HEAD = -1
"""``h_xmin`` of people whose head is not visible."""


@dataclass(eq=False)
class GazeHOI(CategoryDataset):
    """GazeHOI; a sample is a person and the thing they look at, always in frame.

    Column ``label`` is the thing's category, one of the vocabulary's, and ``target_box`` (P, 4) its box.

    Args:
        root: the folder that holds the three annotation files, the vocabulary and ``images``.
    """

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

    def parse(self, split: str) -> Annotations:
        """The official file of that name; both training files for ``trainval``."""
        files = [FILE.format(part) for part in PARTS_OF_SPLIT[split]]
        root = self.existing_root(*files, VOCABULARY, "images")
        files = [label_file(root, file) for file in files]
        return self.checked(self.cached([*files, VOCABULARY], lambda: _read(root, split, files), split))

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeHOI:
        """A tiny set of drawn images, with ``people`` rows or a few more in each of train, val and test."""
        from gazebench.datasets.gazeworld.fakes import CATEGORIES, fake_images, write_rows

        columns = ["file_name", "pair_id", *OBJECT_BOX, *OBJECT_CENTRE, "object", "aux_object", *HEAD]
        for split in ("train", "val", "test"):
            rows: list[list[object]] = []
            for index, image in enumerate(fake_images(seed, split)):
                name = f"{split}_{index:06d}.jpg"
                looking = [person for person in image.people if person.target_kind == "thing"]
                if looking:
                    image.save(root / "images" / name)
                for person in looking:
                    box, head = image.pixels(image.scene.find(person.target_id).box), image.pixels(person.head)
                    words = [person.target_category, str([person.target_category, "thing"])]
                    numbers = np.round([*box, *(box[:2] + box[2:]) / 2, *head], 3)
                    rows.append([name, person.id, *numbers[:6], *words, *numbers[6:]])
                if len(rows) >= people:
                    break
            write_rows(root / FILE.format(split), [columns, *rows])
        vocabulary = {category: number for number, category in enumerate(sorted(CATEGORIES))}
        (root / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
        return cls(root)


def _read(root: Path, split: str, files: list[str]) -> Annotations:
    """The people of the files, those of an image together."""
    vocabulary = read_classes(root / VOCABULARY)
    numbers = [*OBJECT_BOX, *OBJECT_CENTRE, *HEAD]
    rows = read_rows(root, files, paths=["file_name"], text=["pair_id", "object"], numbers=numbers)
    rows.reject(rows.table["file_name"] == "", "no file_name")
    rows.reject(~rows.table["object"].isin([*vocabulary]), f"object {{object!r}} is not in {VOCABULARY}")
    hidden = rows.table["h_xmin"] == NO_HEAD
    rows.reject(~hidden & without_area(rows.table[HEAD]), "head box of no area")
    rows.reject(without_area(rows.table[OBJECT_BOX]), "object box of no area")
    rows.reject(rows.table.duplicated(["file_name", "pair_id"]), "pair {pair_id} of {file_name} is there twice")

    hidden = rows.table["h_xmin"] == NO_HEAD
    rows.keep(~hidden)
    rows.table = table = rows.table.rename(columns=dict(zip([*HEAD, *OBJECT_CENTRE], [*BOX, *POINT], strict=True)))
    table["image"] = table["group"] = "images/" + table["file_name"]
    table["person_id"] = table["file_name"] + "#" + table["pair_id"]
    table["inout"] = IN_FRAME
    return people_of(
        rows,
        "gazehoi",
        split,
        {"label": table["object"], "target_box": table[OBJECT_BOX]},
        point_unit="pixel",
        scored=("label", "target_box"),
        counts={"categories": len(vocabulary), "left_out_without_head": int(hidden.sum())},
    )
