"""Semantic GazeFollow: GazeFollow's people, and the category of what each of them looks at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from gazebench.core.errors import DataError
from gazebench.core.types import Annotations, Issue
from gazebench.data.annotations import (
    VOCABULARY,
    CategoryDataset,
    Rows,
    label_file,
    number,
    read_rows,
    texts,
    train_or_val,
)
from gazebench.data.dataset import Card
from gazebench.datasets.gazefollow import COLUMNS, FILES, GazeFollow, fake_names, read_edition
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.semantic import ClassAccuracy, LabelAccuracy, MultiClassAccuracy, MultiLabelAccuracy
from gazebench.metrics.vocabulary import read_classes

TRAIN, VAL, TEST = (f"gaze-labels-{name}.csv" for name in ("train", "val", "test"))
PSEUDO = ["path", "id", "gaze_pseudo_label", "label_id"]
TRUE = ["path", "gaze_gt_label", "gaze_gt_labels", "test_label_id"]
UNLABELLED = -1
"""Number of a label that does not count."""
MOST = 5
"""Right labels a test person may have."""


@dataclass(eq=False)
class GazeFollowSemantic(GazeFollow, CategoryDataset):
    """Semantic GazeFollow; people, boxes and points are those of GazeFollow, whose files and images are in ``root``.

    Column ``label`` is the category of what a person looks at, "" where nobody told: on train and val a pseudo label,
    on test the first of the right ones, all of which ``labels`` holds, joined by ``|``. Of a test image with several
    people the label is that of the first one, as SemGaze's code has it. ``val`` is the people of the images that
    ``gaze-labels-val.csv`` names, ``train`` everybody else.

    Args:
        root: the folder of GazeFollow: the two annotation files, ``train`` and ``test2``.
        labels: the folder of the label files and the vocabulary; ``root`` unless given.
    """

    labels: Path | None = None

    card: ClassVar[Card] = Card(
        name="gazefollow_semantic",
        title="semantic GazeFollow",
        licence="research use; the pictures belong to their owners",
        source="https://zenodo.org/records/17107341 (labels), http://gazefollow.csail.mit.edu (pictures)",
        citation="Tafasca, Gupta, Bros, Odobez: Toward semantic gaze target detection. NeurIPS 2024; and GazeFollow",
        layout=f"{GazeFollow.card.layout}\nand here or in --dataset.labels:\n{TRAIN}\n{VAL}\n{TEST}\n{VOCABULARY}",
        official={"test": {"people": 4782, "in_frame": 4782, "categories": 346}},
        label_version="gazefollow_extended, labels of 2024",
        head_boxes="annotated",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="gazefollow_semantic",
        version=1,
        unit="person: image path and eye x",
        metrics=(
            *COLUMNS,
            ProtocolMetric("acc_1", ClassAccuracy),
            ProtocolMetric("multi_acc_1", MultiClassAccuracy),
            ProtocolMetric("acc_1_exact", LabelAccuracy),
            ProtocolMetric("multi_acc_1_exact", MultiLabelAccuracy),
        ),
        headline="avg_l2",
        notes="acc_1 and multi_acc_1 bring free text to its nearest category by CLIP and need CLIP weights; those "
        "named exact ask for the category letter by letter. Where is scored for everybody, what for the labelled.",
    )

    @property
    def label_folder(self) -> Path:
        return Path(self.labels or self.root or ".")

    def parse(self, split: str) -> Annotations:
        """GazeFollow's people of that split with their labels, joined by path and id, on test by path."""
        self.existing_root(FILES["test" if split == "test" else "trainval"])
        folder = self.label_folder
        names = (TRAIN, VAL, TEST, VOCABULARY)
        missing = [name for name in names if not (folder / label_file(folder, name)).is_file()]
        if missing:
            raise DataError(
                f"{self.label_folder} holds no {', '.join(missing)}; the labels are released at {self.card.source}: "
                "put them there, or give their folder by --dataset.labels"
            )
        classes = read_classes(self.label_folder / VOCABULARY)
        if split == "test":
            annotations = self._true(classes)
        else:
            val = self._rows(PSEUDO, VAL).table["path"]
            annotations = self._pseudo(set(val))
            annotations = train_or_val(annotations, split, np.isin(annotations.images, texts(val)))
        labelled = int((annotations.columns["label"] != "").sum())
        counts = {**annotations.counts, "labelled": labelled, "categories": len(classes)}
        return self.checked(replace(annotations, counts=counts))

    def _rows(self, columns: Sequence[str], *names: str) -> Rows:
        """The rows of label files, whose first column is a path."""
        folder = self.label_folder
        return read_rows(folder, [label_file(folder, name) for name in names], paths=columns[:1], text=columns[1:])

    def _pseudo(self, val: set[str]) -> Annotations:
        """The training people with their pseudo labels, which need be no classes of the vocabulary."""
        people = self.annotations("trainval")
        names, ids = people.images[people.person_image].tolist(), people.columns["rows"].tolist()
        owner = {(name, row): person for person, name in enumerate(names) for row in ids[person].split()}
        rows = self._rows(PSEUDO, TRAIN, VAL)
        _keep_labelled(rows, "gaze_pseudo_label", "label_id")
        rows.reject((rows.table["file"] == 0) & rows.table["path"].isin([*val]), f"{{path}} is in {VAL} too")
        rows.reject(rows.table.duplicated(["path", "id"]), "{path}, id {id} is there twice")

        # GazeFollow's rows of in/out -1 are nobody's here, so their labels are no mistake.
        known = set(owner)
        if not known.issuperset(_keys(rows)):
            known = set(_keys(read_edition(self.existing_root(), "trainval")))
        strange = [key not in known for key in _keys(rows)]
        rows.reject(strange, f"{FILES['trainval']} has no row of {{path}}, id {{id}}")
        person = np.array([owner.get(key, -1) for key in _keys(rows)], dtype=np.int64)
        labelled, first = np.unique(person, return_index=True)  # of several rows of a person the first one counts
        label = np.full(people.people, "", dtype=object)
        label[labelled[labelled >= 0]] = rows.table["gaze_pseudo_label"].to_numpy()[first[labelled >= 0]]
        left_out = int((person < 0).sum())
        return self._with(people, label, np.full_like(label, ""), rows.issues, labels_of_people_left_out=left_out)

    def _true(self, classes: Mapping[str, int]) -> Annotations:
        """The test people with their labels, all of them classes of the vocabulary."""
        people = self.annotations("test")
        rows = self._rows(TRUE, TEST)
        named = set(rows.table["path"])
        _keep_labelled(rows, "gaze_gt_label", "test_label_id")
        rows.reject(rows.table.duplicated("path"), "{path} is there twice")
        cells = rows.table[TRUE[1:]].itertuples(index=False)
        rows.reject(
            [not _sound(name, several, label_id, classes) for name, several, label_id in cells],
            f"gaze_gt_label {{gaze_gt_label!r}}, test_label_id {{test_label_id:.0f}}, gaze_gt_labels "
            f"{{gaze_gt_labels!r}}: expected a class of {VOCABULARY}, its number, and at most {MOST} classes",
        )
        first = dict(zip(people.images.tolist(), people.person_start[:-1].tolist(), strict=True))
        rows.reject(~rows.table["path"].isin([*first]), f"{FILES['test']} has no row of {{path}}")
        label, labels = (np.full(people.people, "", dtype=object) for _ in range(2))
        for path, name, several in rows.table[TRUE[:3]].itertuples(index=False):
            label[first[path]], labels[first[path]] = name, "|".join(_split(several or name, classes))
        unnamed = [Issue(TEST, 0, f"no row of {image}") for image in first if image not in named]
        return self._with(people, label, labels, [*rows.issues, *unnamed])

    def _with(
        self, people: Annotations, label: Iterable[str], labels: Iterable[str], issues: Iterable[Issue], **counts: int
    ) -> Annotations:
        return replace(
            people,
            dataset=self.card.name,
            columns={**people.columns, "label": texts(label), "labels": texts(labels)},
            scored=("label", "labels"),
            counts={**people.counts, **counts},
            issues=(*people.issues, *issues),
        )

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeFollowSemantic:
        """GazeFollow's tiny set of drawn images with the labels of what people look at in them."""
        from gazebench.datasets.gazeworld.fakes import CATEGORIES, fake_images, write_rows

        super().fake(root, people=people, seed=seed)
        classes = {name: number for number, name in enumerate(sorted({*CATEGORIES, "person"}))}
        (root / VOCABULARY).write_text(json.dumps(classes), encoding="utf-8")
        for split, file, columns in (("train", TRAIN, PSEUDO), ("val", VAL, PSEUDO), ("test", TEST, TRUE)):
            rows: list[list[object]] = [[*columns]]
            for name, image in zip(fake_names(split), fake_images(seed, split), strict=False):
                if not (root / name).is_file():
                    break
                seen = [person for person in image.people if person.inout]
                # On test the first person in frame has a label, with a second one beside it.
                for person in seen[:1] if split == "test" else seen:
                    label = person.target_category
                    other = next((thing.category for thing in image.scene.things if thing.category != label), "")
                    middle = [label, f"{label}-{other}" if label else ""] if split == "test" else [person.id, label]
                    rows.append([name, *middle, classes.get(label, UNLABELLED)])
            write_rows(root / file, rows)
        return cls(root)


def _keys(rows: Rows) -> list[tuple[str, str]]:
    return [*zip(rows.table["path"], rows.table["id"], strict=True)]


def _keep_labelled(rows: Rows, label: str, label_id: str) -> None:
    """Keeps the rows that give a label, in one column its name, in the other its number; to give none is no mistake."""
    rows.table[label_id] = [number(text) if text else UNLABELLED for text in rows.table[label_id]]
    rows.reject(rows.table[label_id] % 1 != 0, "the label's id is not a whole number")
    rows.keep((rows.table[label] != "") & (rows.table[label_id] != UNLABELLED))


def _sound(label: str, several: str, label_id: float, classes: Mapping[str, int]) -> bool:
    """Whether a test row gives a class, its number, and at most ``MOST`` right classes."""
    names = _split(several or label, classes)
    return classes.get(label) == label_id and len(names) <= MOST and classes.keys() >= {*names}


def _split(text: str, classes: Iterable[str]) -> list[str]:
    """``a-b-c`` as its parts, unless it is one class with hyphens."""
    return [text] if text in classes else text.split("-")
