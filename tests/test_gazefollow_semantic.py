"""Semantic GazeFollow: labels joined onto GazeFollow's people, in hand-written files of the official layout."""

import csv
import json
import pickle

import numpy as np
import pytest
import torch

from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.datasets.gazefollow_semantic import GazeFollowSemantic
from gazebench.engine.contract import small_config
from gazebench.engine.run import Places, bench
from gazebench.metrics.scoring import Scorer

CLASSES = {"cup": 0, "book": 1, "person": 2, "fish-bowl": 3, "jar": 4, "bowl": 5}
TRAIN = ("path", "id", "gaze_pseudo_label", "label_id")
TEST = ("path", "eyes_closed", "gaze_gt_labels", "gaze_gt_label", "label_id", "test_label_id")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))


def person(path, number, eye=0.3, gaze=(0.6, 0.7), inout=1):
    """A row of GazeFollow's annotations; on test there is no in/out."""
    cells = [path, number, 0.1, 0.1, 0.3, 0.8, eye, 0.2, *gaze, 10, 5, 40, 35]
    return [*cells, *([] if path.startswith("test") else [inout]), "source", "meta"]


def dataset(root, train=(), test=(), labels=None, folder=None, **options):
    """Writes annotations, empty pictures and label files {split: rows}, of which lines may be given as they are."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train_annotations_release.txt", train), ("test_annotations_release.txt", test)):
        (root / name).write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
        for row in rows:
            (root / row[0]).parent.mkdir(parents=True, exist_ok=True)
            (root / row[0]).touch()
    folder = folder or root
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab2id.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    for split, header in (("train", TRAIN), ("val", TRAIN), ("test", TEST)):
        with (folder / f"gaze-labels-{split}.csv").open("w", encoding="utf-8", newline="") as lines:
            table = csv.writer(lines, lineterminator="\n")
            table.writerow(header)
            table.writerows((labels or {}).get(split, []))
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
    assert data.completeness("test").found["categories"] == len(CLASSES)


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


BAD_TRAIN = {
    "train_annotations_release.txt has no row of train/0/x.jpg, id 7": ["train/0/x.jpg", 7, "cup", 0],
    "train_annotations_release.txt has no row of train/0/a.jpg, id 9": ["train/0/a.jpg", 9, "cup", 0],
    "train/0/a.jpg, id 7 is there twice": ["train/0/a.jpg", 7, "cup", 0],
    "train/0/c.jpg is in gaze-labels-val.csv too": ["train/0/c.jpg", 9, "cup", 0],
    "3 columns, expected 4": ["train/0/a.jpg", 7, "cup"],
    "the label's id is 'one', expected a whole number": ["train/0/a.jpg", 8, "cup", "one"],
}


@pytest.mark.parametrize("what", BAD_TRAIN)
def test_a_bad_pseudo_label_is_named_or_skipped_and_counted(tmp_path, what):
    train = [person("train/0/a.jpg", 7), person("train/0/c.jpg", 9)]
    labels = {"train": [["train/0/a.jpg", 7, "jar", 4], BAD_TRAIN[what]], "val": [["train/0/c.jpg", 9, "", ""]]}
    data = dataset(tmp_path, train, labels=labels)
    with pytest.raises(DataError) as error:
        data.records("train")
    assert f"gaze-labels-train.csv:3: {what}" in str(error.value)
    assert "bad_rows skip" in str(error.value)
    records = GazeFollowSemantic(tmp_path, bad_rows="skip").records("train")
    assert words(records) == {"train/0/a.jpg#0.3": "jar"}
    assert [issue.row for issue in records.issues] == [3]


BAD_TEST = {
    "test_annotations_release.txt has no row of test2/0/x.jpg": true("test2/0/x.jpg", "cup"),
    "test2/0/a.jpg is there twice": true("test2/0/a.jpg", "cup"),
    "gaze_gt_label 'spoon' is not in vocab2id.json": true("test2/0/b.jpg", "spoon", number=3),
    "test_label_id of 'cup' is 1, vocab2id.json has 0": true("test2/0/b.jpg", "cup", number=1),
    "gaze_gt_labels names 'spoon', which is not in vocab2id.json": true("test2/0/b.jpg", "cup", "cup-spoon"),
    "gaze_gt_labels names 6 categories, at most 5": true("test2/0/b.jpg", "cup", "cup-jar-book-bowl-person-cup"),
    "5 columns, expected 6": ["test2/0/b.jpg", False, "cup", "cup", 0],
}


@pytest.mark.parametrize("what", BAD_TEST)
def test_a_bad_true_label_is_named_or_skipped_and_counted(tmp_path, what):
    test = [person("test2/0/a.jpg", 1), person("test2/0/b.jpg", 2)]
    labels = {"test": [true("test2/0/a.jpg", "jar"), BAD_TEST[what], true("test2/0/b.jpg", "", "")]}
    if BAD_TEST[what][0] == "test2/0/b.jpg" and len(BAD_TEST[what]) == len(TEST):
        labels["test"].pop()
    data = dataset(tmp_path, test=test, labels=labels)
    with pytest.raises(DataError) as error:
        data.records("test")
    assert f"gaze-labels-test.csv:3: {what}" in str(error.value)
    records = GazeFollowSemantic(tmp_path, bad_rows="skip").records("test")
    assert words(records) == {"test2/0/a.jpg#0.3": "jar", "test2/0/b.jpg#0.3": ""}
    assert [issue.row for issue in records.issues] == [3]


def test_a_test_picture_no_row_speaks_of_is_named(tmp_path):
    test = [person("test2/0/a.jpg", 1), person("test2/0/b.jpg", 2)]
    data = dataset(tmp_path, test=test, labels={"test": [true("test2/0/a.jpg", "jar")]})
    with pytest.raises(DataError, match=r"gaze-labels-test\.csv: no row of test2/0/b\.jpg"):
        data.records("test")
    assert len(GazeFollowSemantic(tmp_path, bad_rows="skip").records("test").issues) == 1


def test_files_that_are_none_of_the_release_are_refused(tmp_path):
    data = dataset(tmp_path, [person("train/0/a.jpg", 7)], labels={})
    (tmp_path / "gaze-labels-val.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"gaze-labels-val\.csv:1: the header lacks id, gaze_pseudo_label, label_id"):
        data.records("train")
    (tmp_path / "vocab2id.json").write_text("[]")
    with pytest.raises(DataError, match=r"vocab2id\.json: .*take the file of the release"):
        data.records("train")


def test_rubbish_never_passes_unnamed(tmp_path):
    rng = np.random.default_rng(3)
    letters = list("0123456789.,-e naxjpg/\x00é'\"")
    train = [person(f"train/0/{n}.jpg", n) for n in range(300)]
    dataset(tmp_path, train, labels={})
    lines, untouched = [",".join(TRAIN)], 0
    for n in range(300):
        whole = f"train/0/{n}.jpg,{n},cup,0"
        line = list(whole)
        for _ in range(int(rng.integers(0, 3))):
            line[int(rng.integers(len(line)))] = letters[int(rng.integers(len(letters)))]
        lines.append("".join(line))
        untouched += lines[-1] == whole
    (tmp_path / "gaze-labels-train.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"gaze-labels-train\.csv:\d+: "):
        GazeFollowSemantic(tmp_path).records("train")
    records = GazeFollowSemantic(tmp_path, bad_rows="skip").records("train")
    assert records.people == 300, "a bad label costs the label, not the person"
    labelled = int((records.columns["label"] != "").sum())
    assert 50 < untouched <= labelled < 300
    assert len(records.issues) > 50


def test_fake_is_read_by_the_true_parser(tmp_path):
    data = GazeFollowSemantic.fake(tmp_path, people=8, seed=1)
    for split in ("train", "val", "trainval", "test"):
        records = data.records(split)
        assert records.people >= 8
        labels = set(records.columns["label"].tolist())
        assert labels - {""}
        assert labels <= {"", *json.loads((tmp_path / "vocab2id.json").read_text())}
    assert "" in labels
    assert any("|" in text for text in records.columns["labels"].tolist())
    workers = pickle.loads(pickle.dumps(data))
    assert workers.path(records, 0) == data.path(records, 0)


def batch_of(data, split="test"):
    samples = ImageSamples(data, data.records(split), Preprocess(), augment=False, sees_images=False,
                           bad_images="error", seed=0)  # fmt: skip
    return collate([samples[image] for image in range(len(samples))])


def test_scores_by_hand(tmp_path):
    data = GazeFollowSemantic.fake(tmp_path, people=40)
    records, batch = data.records("test"), batch_of(data)
    rng = np.random.default_rng(1)
    one, several = records.columns["label"].tolist(), [text.split("|") for text in records.columns["labels"].tolist()]
    said = [str(rng.choice([*many, "nothing of ours"])) for many in several]
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(point=torch.rand(batch.people, 2), extra={"label": said}), batch)
    known = [p for p in range(records.people) if one[p]]
    scores = evaluator.compute()
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


@pytest.mark.parametrize("method", ["center", "gazelle"])
def test_a_whole_run(tmp_path, method):
    root = tmp_path / "data"
    GazeFollowSemantic.fake(root, people=12)
    places = Places(tmp_path / "runs", tmp_path / "boards")
    record = bench(small_config(method, "gazefollow_semantic", f"--dataset.root={root}"), places).record
    assert {"auc", "avg_l2", "min_l2", "avg_angle"} <= record["metrics"].keys()
    assert not {"acc_1_exact", "multi_acc_1_exact"} & record["metrics"].keys()
    assert record["status"]["class"] == "smoke"
