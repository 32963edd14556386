"""Semantic GazeFollow: GazeFollow's people, and the category of what each of them looks at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gazebench.core.errors import DataError
from gazebench.core.types import Annotations, Issue, Records
from gazebench.data.annotations import Rows, read_rows, read_table
from gazebench.data.dataset import Card
from gazebench.datasets.gazefollow import FILES, NUMERIC, WITH_INOUT, WITHOUT_INOUT, GazeFollow, fake_names
from gazebench.datasets.gazeworld.world import CATEGORIES, Scene, compose
from gazebench.metrics.protocol import SEVERAL_ANNOTATORS, Protocol, ProtocolMetric
from gazebench.metrics.semantic import ClassAccuracy, LabelAccuracy, MultiClassAccuracy, MultiLabelAccuracy
from gazebench.metrics.vocabulary import Vocabulary, read_classes

VOCABULARY = "vocab2id.json"
TRAIN, VAL, TEST = (f"gaze-labels-{name}.csv" for name in ("train", "val", "test"))
PSEUDO = ("path", "id", "gaze_pseudo_label", "label_id")
TRUE = ("path", "gaze_gt_label", "gaze_gt_labels", "test_label_id")
UNLABELLED = -1
"""``label_id`` where the label does not count."""
MOST = 5
"""Right labels a test person may have."""


@dataclass(eq=False)
class GazeFollowSemantic(GazeFollow):
    """Semantic GazeFollow; people, boxes and points are those of GazeFollow, whose files and pictures are in ``root``.

    Column ``label`` is the category of what a person looks at, "" where nobody told: on train and val a pseudo label,
    on test the first of the right ones, all of which ``labels`` holds, joined by ``|``. Of a test picture with several
    people the label is that of the first one, as SemGaze's code has it. ``val`` is the people of the pictures that
    ``gaze-labels-val.csv`` names, ``train`` everybody else.

    Args:
        root: the folder of GazeFollow: the two annotation files, ``train`` and ``test2``.
        bad_rows: what to do with rows that make no sense, and with labels of nobody.
        subsets: consistent / inconsistent of each test person.
        missing_images: what to do with annotated images that are not there.
        labels: the folder of the label files and the vocabulary; ``root`` unless given.
        clip_weights: brings free text to the nearest category; without them it has to be the category's own name.
        clip_model: the architecture of those weights, by its name in open_clip.
    """

    labels: Path | None = None
    clip_weights: Path | None = None
    clip_model: str = "ViT-B-32-quickgelu"

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
            *SEVERAL_ANNOTATORS,
            ProtocolMetric("acc_1", ClassAccuracy),
            ProtocolMetric("multi_acc_1", MultiClassAccuracy),
            ProtocolMetric("acc_1_exact", LabelAccuracy),
            ProtocolMetric("multi_acc_1_exact", MultiLabelAccuracy),
        ),
        headline="avg_l2",
        notes="acc_1 and multi_acc_1 bring free text to its nearest category by CLIP and need CLIP weights; those "
        "named exact ask for the category letter by letter. Where is scored for everybody, what for the labelled.",
    )

    def __post_init__(self) -> None:
        if self.clip_weights is not None:
            words = Vocabulary(self._folder / VOCABULARY, self.clip_model, Path(self.clip_weights))
            self.__dict__["protocol"] = replace(self.protocol, vocabulary=words)

    @property
    def _folder(self) -> Path:
        return Path(self.labels or self.root or ".")

    def parse(self, split: str) -> Annotations:
        """GazeFollow's people of that split with their labels, joined by path and id, on test by path."""
        self.existing_root(FILES["test" if split == "test" else "trainval"])
        missing = [name for name in (TRAIN, VAL, TEST, VOCABULARY) if not (self._folder / name).is_file()]
        if missing:
            raise DataError(
                f"{self._folder} holds no {', '.join(missing)}; the labels are released at {self.card.source}: put "
                "them there, or give their folder by --dataset.labels"
            )
        classes = read_classes(self._folder / VOCABULARY)
        if split == "test":
            records = self._true(classes)
        else:
            validation = {cells[0] for cells in read_table(self._folder, [VAL], PSEUDO, ()).cells}
            records = self._pseudo(validation)
            if split != "trainval":
                val = np.array([image in validation for image in records.images.tolist()], dtype=bool)
                records = records.select((val if split == "val" else ~val)[records.person_image], split)
        labelled = int((records.columns["label"] != "").sum())
        counts = {**records.counts, "labelled": labelled, "categories": len(classes)}
        return self.settled(replace(records, counts=counts))

    def _pseudo(self, validation: set[str]) -> Annotations:
        """The training people with their pseudo labels, which need be no classes of the vocabulary."""
        records = self.annotations("trainval")
        names, ids = records.images[records.person_image].tolist(), records.columns["rows"].tolist()
        owner = {(name, row): person for person, name in enumerate(names) for row in ids[person].split()}
        rows = _labelled(read_table(self._folder, [TRAIN, VAL], PSEUDO, ()), PSEUDO.index("gaze_pseudo_label"))
        torn = [not file and cells[0] in validation for file, cells in zip(rows.file, rows.cells, strict=True)]
        rows = rows.without(np.array(torn, dtype=bool), lambda row: f"{rows.cells[row][0]} is in {VAL} too")
        rows = _once(rows, 2)
        lost = np.array([tuple(cells[:2]) not in owner for cells in rows.cells], dtype=bool)
        # GazeFollow's rows of in/out -1 are nobody's here, so their labels are no mistake.
        known = self._rows() if lost.any() else set()
        strange = np.array([tuple(cells[:2]) not in known for cells in rows.cells], dtype=bool)
        rows = rows.without(lost & strange, lambda row: _stranger(FILES["trainval"], rows.cells[row][:2]))
        label = np.full(records.people, "", dtype=object)
        for cells in reversed(rows.cells):  # of several rows of a person the first one counts
            if (person := owner.get((cells[0], cells[1]))) is not None:
                label[person] = cells[2]
        counts = {"labels_of_people_left_out": int((lost & ~strange).sum())}
        return self._with(records, label, np.full_like(label, ""), rows.issues, counts)

    def _rows(self) -> set[tuple[str, ...]]:
        """Path and id of every row of the training annotations."""
        rows = read_rows(self.existing_root(), [FILES["trainval"]], (WITHOUT_INOUT, WITH_INOUT), NUMERIC)
        return {tuple(cells[:2]) for cells in rows.cells}

    def _true(self, classes: dict[str, int]) -> Annotations:
        """The test people with their labels, all of them classes of the vocabulary."""
        records = self.annotations("test")
        given = read_table(self._folder, [TEST], TRUE, ())
        rows = _once(_labelled(given, TRUE.index("gaze_gt_label")), 1)
        wrong = [_wrong(cells, classes) for cells in rows.cells]
        rows = rows.without(np.array([bool(what) for what in wrong], dtype=bool), lambda row: wrong[row])
        first = dict(zip(records.images.tolist(), records.person_start[:-1].tolist(), strict=True))
        strange = np.array([cells[0] not in first for cells in rows.cells], dtype=bool)
        rows = rows.without(strange, lambda row: _stranger(FILES["test"], rows.cells[row][:1]))
        label, labels = (np.full(records.people, "", dtype=object) for _ in range(2))
        for path, name, several, _ in rows.cells:
            label[first[path]], labels[first[path]] = name, "|".join(_split(several or name, classes))
        named = {cells[0] for cells in given.cells}
        unnamed = [Issue(TEST, 0, f"no row of {image}") for image in first if image not in named]
        return self._with(records, label, labels, (*rows.issues, *unnamed), {})

    def _with(
        self,
        records: Records,
        label: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        issues: tuple[Issue, ...],
        counts: dict[str, int],
    ) -> Annotations:
        return replace(
            records,
            dataset=self.card.name,
            columns={**records.columns, "label": label.astype(str), "labels": labels.astype(str)},
            scored=("label", "labels"),
            counts={**records.counts, **counts},
            issues=(*records.issues, *issues),
        )

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeFollowSemantic:
        """GazeFollow's tiny set of drawn scenes with the labels of what people look at in them."""
        super().fake(root, people=people, seed=seed)
        classes = {name: number for number, name in enumerate(sorted({*CATEGORIES, "person"}))}
        (root / VOCABULARY).write_text(json.dumps(classes), encoding="utf-8")
        for split, file, columns in (("train", TRAIN, PSEUDO), ("val", VAL, PSEUDO), ("test", TEST, TRUE)):
            with (root / file).open("w", encoding="utf-8", newline="") as lines:
                table = csv.writer(lines, lineterminator="\n")
                table.writerow(columns)
                for index, name in enumerate(fake_names(split)):
                    if not (root / name).is_file():
                        break
                    table.writerows(_fake_rows(compose(seed, index, split), name, classes))
        return cls(root)


def _fake_rows(scene: Scene, name: str, classes: dict[str, int]) -> list[list[object]]:
    """A training row for everybody in frame; on test one for the first of them, with a second label beside it."""
    seen = [person for person in scene.people if person.inout]
    if not name.startswith("test"):
        return [[name, p.id, p.target_category, classes.get(p.target_category, UNLABELLED)] for p in seen]
    if not seen:
        return []
    label = seen[0].target_category
    others = [label, next(thing.category for thing in scene.things if thing.category != label)] if label else []
    return [[name, label, "-".join(others), classes.get(label, UNLABELLED)]]


def _labelled(rows: Rows, name: int) -> Rows:
    """The rows that give a label (its name is in that column, its number in the last); to give none is no mistake."""
    strange = np.array([not _is_number(cells[-1]) for cells in rows.cells], dtype=bool)
    rows = rows.without(strange, lambda row: f"the label's id is {rows.cells[row][-1]!r}, expected a whole number")
    return rows.only(np.array([bool(cells[name]) and _id(cells) != UNLABELLED for cells in rows.cells], dtype=bool))


def _once(rows: Rows, width: int) -> Rows:
    """The rows whose first ``width`` cells were not there before."""
    first: dict[tuple[str, ...], int] = {}
    again = [first.setdefault(tuple(cells[:width]), row) != row for row, cells in enumerate(rows.cells)]
    return rows.without(
        np.array(again, dtype=bool), lambda row: f"{', id '.join(rows.cells[row][:width])} is there twice"
    )


def _stranger(file: str, key: list[str]) -> str:
    return f"{file} has no row of {', id '.join(key)}"


def _is_number(text: str) -> bool:
    try:
        return not text or float(text).is_integer()
    except ValueError:
        return False


def _id(cells: list[str]) -> int:
    return int(float(cells[-1])) if cells[-1] else UNLABELLED


def _wrong(cells: list[str], classes: dict[str, int]) -> str:
    """What is wrong with a test row that gives a label; empty where nothing is."""
    label, number = cells[1], _id(cells)
    if label not in classes:
        return f"gaze_gt_label {label!r} is not in {VOCABULARY}"
    if classes[label] != number:
        return f"test_label_id of {label!r} is {number}, {VOCABULARY} has {classes[label]}"
    several = _split(cells[2] or label, classes)
    strange = [name for name in several if name not in classes]
    if strange:
        return f"gaze_gt_labels names {strange[0]!r}, which is not in {VOCABULARY}"
    if len(several) > MOST:
        return f"gaze_gt_labels names {len(several)} categories, at most {MOST} are expected"
    return ""


def _split(text: str, classes: Iterable[str]) -> list[str]:
    """``a-b-c`` as its parts, unless it is one class with hyphens."""
    return [text] if text in classes else text.split("-")
