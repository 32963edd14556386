"""Semantic GazeFollow: labels joined onto GazeFollow's people, in hand-written files of the official layout."""

import json

import numpy as np
import pytest
import torch

from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.datasets.gazefollow_semantic import GazeFollowSemantic
from gazebench.datasets.gazeworld.fakes import write_rows
from gazebench.metrics.scoring import Scorer

CLASSES = {"cup": 0, "book": 1, "person": 2, "fish-bowl": 3, "jar": 4, "bowl": 5}
TRAIN = ("path", "id", "gaze_pseudo_label", "label_id")
TEST = ("path", "eyes_closed", "gaze_gt_labels", "gaze_gt_label", "label_id", "test_label_id")


def person(path, number, eye=0.3, gaze=(0.6, 0.7), inout=1):
    """A row of GazeFollow's annotations; on test there is no in/out."""
    cells = [path, number, 0.1, 0.1, 0.3, 0.8, eye, 0.2, *gaze, 10, 5, 40, 35]
    return [*cells, *([] if path.startswith("test") else [inout]), "source", "meta"]


def dataset(root, train=(), test=(), labels=None, folder=None, **options):
    """Writes annotations, empty pictures and label files {split: rows}."""
    for name, rows in (("train_annotations_release.txt", train), ("test_annotations_release.txt", test)):
        write_rows(root / name, rows)
        for row in rows:
            (root / row[0]).parent.mkdir(parents=True, exist_ok=True)
            (root / row[0]).touch()
    folder, labels = folder or root, {"val": [["train/0/none.jpg", 1, "", -1]], **(labels or {})}
    for split, header in (("train", TRAIN), ("val", TRAIN), ("test", TEST)):
        write_rows(folder / f"gaze-labels-{split}.csv", [header, *labels.get(split, [])])
    (folder / "vocab2id.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    return GazeFollowSemantic(root, **options)


def true(path, label, labels="", number=None):
    return [path, False, labels or label, label, 99, CLASSES.get(label, -1) if number is None else number]


def words(records, column="label"):
    return dict(zip(records.person_id.tolist(), records.columns[column].tolist(), strict=True))


def test_pseudo_labels_are_joined_by_path_and_id(tmp_path):
    train = [person("train/0/a.jpg", 7, 0.1), person("train/0/a.jpg", 8, 0.2), person("train/0/b.jpg", 7),
             person("train/0/c.jpg", 9)]  # fmt: skip
    labels = {"train": [["train/0/b.jpg", 7, "a word that is no class", 811], ["train/0/a.jpg", 8, "cup", 0]],
              "val": [["train/0/c.jpg", 9, "book", 1]]}  # fmt: skip
    data = dataset(tmp_path, train, labels=labels)
    assert words(data.records("train")) == {
        "train/0/a.jpg#0.1": "", "train/0/a.jpg#0.2": "cup", "train/0/b.jpg#0.3": "a word that is no class",
    }  # fmt: skip
    assert words(data.records("val")) == {"train/0/c.jpg#0.3": "book"}
    assert data.records("trainval").people == 4
    assert data.completeness("trainval").found["labelled"] == 3
    assert data.completeness("val").found["labelled"] == 1
    assert data.completeness("val").found["categories"] == len(CLASSES)


def test_true_labels_are_joined_by_path_onto_the_first_person(tmp_path):
    test = [person("test2/0/a.jpg", 1, 0.5), person("test2/0/a.jpg", 2, 0.5), person("test2/0/a.jpg", 3, 0.1),
            person("test2/0/b.jpg", 4), person("test2/0/c.jpg", 5), person("test2/0/d.jpg", 6)]  # fmt: skip
    labels = {"test": [true("test2/0/b.jpg", "cup", "cup-jar-book"), true("test2/0/a.jpg", "fish-bowl"),
                       true("test2/0/c.jpg", "", ""), true("test2/0/d.jpg", "cup", number=-1)]}  # fmt: skip
    records = dataset(tmp_path, test=test, labels=labels).records("test")
    assert words(records) == {
        "test2/0/a.jpg#0.5": "fish-bowl", "test2/0/a.jpg#0.1": "", "test2/0/b.jpg#0.3": "cup",
        "test2/0/c.jpg#0.3": "", "test2/0/d.jpg#0.3": "",
    }  # fmt: skip
    assert set(words(records, "labels").values()) == {"fish-bowl", "", "cup|jar|book"}
    assert not records.issues


def test_people_boxes_and_points_are_gazefollows(tmp_path):
    data = GazeFollowSemantic.fake(tmp_path)
    plain = GazeFollow(tmp_path).records("test")
    records = data.records("test")
    for name in ("person_id", "images", "head", "points", "point_start", "inout"):
        assert np.array_equal(getattr(records, name), getattr(plain, name)), name
    assert records.fingerprint() != plain.fingerprint(), "a score depends on the labels too"


def test_a_person_of_several_rows_has_the_first_label(tmp_path):
    train = [person("train/0/a.jpg", 7), person("train/0/a.jpg", 8)]
    labels = {"train": [["train/0/a.jpg", 7, "", -1], ["train/0/a.jpg", 8, "jar", 4]]}
    assert words(dataset(tmp_path, train, labels=labels).records("train")) == {"train/0/a.jpg#0.3": "jar"}


def test_labels_of_people_gazefollow_leaves_out_are_counted(tmp_path):
    """A row whose in/out is -1 is nobody's; its label is no mistake."""
    train = [person("train/0/a.jpg", 7), person("train/0/b.jpg", 8, inout=-1)]
    labels = {"train": [["train/0/a.jpg", 7, "jar", 4], ["train/0/b.jpg", 8, "cup", 0]]}
    data = dataset(tmp_path, train, labels=labels)
    assert words(data.records("train")) == {"train/0/a.jpg#0.3": "jar"}
    assert data.records("train").counts["labels_of_people_left_out"] == 1


def test_the_labels_may_lie_elsewhere(tmp_path):
    train, labels = [person("train/0/a.jpg", 7)], {"train": [["train/0/a.jpg", 7, "jar", 4]]}
    data = dataset(tmp_path / "gf", train, labels=labels, folder=tmp_path / "labels")
    with pytest.raises(
        DataError, match=r"gf holds no gaze-labels-train\.csv, .*give their folder by --dataset\.labels"
    ):
        data.records("train")
    assert words(GazeFollowSemantic(tmp_path / "gf", labels=tmp_path / "labels").records("train")) == {
        "train/0/a.jpg#0.3": "jar"
    }


def test_a_test_picture_no_row_speaks_of_is_named(tmp_path):
    test = [person("test2/0/a.jpg", 1), person("test2/0/b.jpg", 2)]
    data = dataset(tmp_path, test=test, labels={"test": [true("test2/0/a.jpg", "jar")]})
    with pytest.raises(DataError, match=r"gaze-labels-test\.csv: no row of test2/0/b\.jpg"):
        data.records("test")
    assert len(GazeFollowSemantic(tmp_path, bad_rows="skip").records("test").issues) == 1


def test_scores_by_hand(tmp_path):
    data = GazeFollowSemantic.fake(tmp_path, people=40)
    records, rng = data.records("test"), np.random.default_rng(1)
    one, several = records.columns["label"].tolist(), [text.split("|") for text in records.columns["labels"].tolist()]
    said = [str(rng.choice([*many, "nothing of ours"])) for many in several]
    scorer = Scorer(data.protocol, records)
    scorer.update(np.arange(len(records)), Prediction(point=torch.rand(records.people, 2), label=said))
    known = [p for p in range(records.people) if one[p]]
    scores = scorer.compute()
    assert 0 < len(known) < records.people
    exact, any_of = (
        np.mean(some) for some in zip(*((said[p] == one[p], said[p] in several[p]) for p in known), strict=True)
    )
    assert 0 < exact < any_of < 1
    assert scores["acc_1_exact"]["all"].value == pytest.approx(exact, abs=1e-12)
    assert scores["multi_acc_1_exact"]["all"].value == pytest.approx(any_of, abs=1e-12)
    assert scores["acc_1_exact"]["all"].count == scores["multi_acc_1_exact"]["all"].count == len(known)
    assert scores["avg_l2"]["all"].count == records.people
    assert not {"acc_1", "multi_acc_1"} & scores.keys(), "they need CLIP weights"
