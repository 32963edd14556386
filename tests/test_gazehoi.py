"""The GazeHOI parser and protocol on hand-written files in the official layout."""

import csv
import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazehoi import GazeHOI
from gazebench.engine.contract import small_config
from gazebench.engine.predictions import read_predictions
from gazebench.engine.run import Places, bench
from gazebench.metrics.scoring import Scorer

COLUMNS = (
    "file_name", "pair_id", "o_xmin", "o_ymin", "o_xmax", "o_ymax", "oc_x", "oc_y", "object", "aux_object",
    "h_xmin", "h_ymin", "h_xmax", "h_ymax",
)  # fmt: skip
WORDS = {"cup": 0, "fish, bowl": 1, "book": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))


def row(name="a.jpg", pair=0, thing=(50, 60, 70, 80), word="cup", aux="['cup', 'a \"mug\"']", head=(1, 2, 11, 22)):
    return [name, pair, *thing, (thing[0] + thing[2]) / 2, (thing[1] + thing[3]) / 2, word, aux, *head]


def text(cells):
    """One line as Python's own writer puts it: quotation marks where they are needed."""
    with_marks = ('"' + str(c).replace('"', '""') + '"' if set(str(c)) & set(',"') else str(c) for c in cells)
    return ",".join(with_marks)


def dataset(root, files, columns=COLUMNS, **options):
    """Writes {split: rows or lines} and an empty picture for every file name."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "vocab2id.json").write_text(json.dumps(WORDS), encoding="utf-8")
    for split in ("train", "val", "test"):
        lines = [row if isinstance(row, str) else text(row) for row in files.get(split, [])]
        (root / f"{split}-annotations.csv").write_text("\n".join([text(columns), *lines, ""]), encoding="utf-8")
        for line in files.get(split, []):
            name = line[0] if not isinstance(line, str) else line.split(",")[0]
            if name and "\0" not in name and "/" not in name:
                (root / "images" / name).touch()
    return GazeHOI(root, **options)


def test_rows_are_people_those_of_a_picture_together(tmp_path):
    rows = [row("b.jpg", 3), row("a.jpg", 1, word="fish, bowl"), row("b.jpg", 1, (5, 6, 9, 8), "book")]
    records = dataset(tmp_path, {"test": rows}).records("test")
    assert records.images.tolist() == records.groups.tolist() == ["images/b.jpg", "images/a.jpg"]
    assert records.person_id.tolist() == ["b.jpg#3", "b.jpg#1", "a.jpg#1"]
    assert records.person_image.tolist() == [0, 0, 1]
    assert records.columns["label"].tolist() == ["cup", "book", "fish, bowl"]
    assert records.columns["target_box"].tolist() == [[50, 60, 70, 80], [5, 6, 9, 8], [50, 60, 70, 80]]
    assert records.points.tolist() == [[60, 70], [7, 7], [60, 70]]
    assert records.head.tolist() == [[1, 2, 11, 22]] * 3
    assert records.inout.tolist() == [1, 1, 1]
    assert (records.head_unit, records.point_unit) == ("pixel", "pixel")


def test_columns_are_found_by_name(tmp_path):
    order = np.random.default_rng(0).permutation(len(COLUMNS)).tolist()
    plain = dataset(tmp_path / "one", {"test": [row()]}).records("test")
    cells = [9, *(row()[place] for place in order)]
    mixed = dataset(tmp_path / "two", {}, ["", *(COLUMNS[place] for place in order)])
    file = tmp_path / "two" / "test-annotations.csv"
    file.write_text(file.read_text() + text(cells) + "\n", encoding="utf-8-sig")
    (tmp_path / "two" / "images" / "a.jpg").touch()
    assert mixed.records("test").fingerprint() == plain.fingerprint()


def test_a_person_without_a_visible_head_is_left_out_and_counted(tmp_path):
    data = dataset(
        tmp_path, {"test": [row(pair=1), row(pair=2, head=(-1, -1, -1, -1)), row("b.jpg", head=(-1.0,) * 4)]}
    )
    records = data.records("test")
    assert records.person_id.tolist() == ["a.jpg#1"]
    assert records.images.tolist() == ["images/a.jpg"]
    assert not records.issues
    assert data.completeness("test").found["left_out_without_head"] == 2
    assert data.completeness("test").found["categories"] == 3


def test_splits_are_the_official_files(tmp_path):
    files = {split: [row(f"{split}.jpg", n) for n in range(count)]
             for split, count in (("train", 1), ("val", 2), ("test", 4))}  # fmt: skip
    data = dataset(tmp_path, files)
    people = {split: data.records(split).people for split in ("train", "val", "trainval", "test")}
    assert people == {"train": 1, "val": 2, "trainval": 3, "test": 4}


BAD = {
    "13 columns, expected 14": text(row("b.jpg")).rsplit(",", 1)[0],
    "15 columns": text(row("b.jpg")) + ",1",
    "unexpected end of data": text(row("b.jpg", aux="'")).replace("'", '"'),
    "o_ymin is ''": text(row("b.jpg")).replace(",60,", ",,", 1),
    "h_xmax is 'nan'": row("b.jpg", head=(1, 2, "nan", 4)),
    "oc_x is 'left'": text(row("b.jpg")).replace("60.0", "left", 1),
    "no file_name": row(""),
    "object 'spoon' is not in vocab2id.json": row("b.jpg", word="spoon"),
    "object '' is not": row("b.jpg", word=""),
    "head box of no area": row("b.jpg", head=(5, 5, 5, 9)),
    "object box of no area": row("b.jpg", thing=(5, 5, 9, 5)),
    "pair 0 of a.jpg is there twice": row(),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, what):
    data = dataset(tmp_path, {"test": [row(), BAD[what], row("c.jpg")]})
    with pytest.raises(DataError) as error:
        data.records("test")
    assert "test-annotations.csv:3: " in str(error.value)
    assert what in str(error.value)
    assert "bad_rows skip" in str(error.value)
    records = GazeHOI(tmp_path, bad_rows="skip").records("test")
    assert records.person_id.tolist() == ["a.jpg#0", "c.jpg#0"]
    assert [issue.row for issue in records.issues] == [3]


def test_rubbish_never_passes_unnamed(tmp_path):
    rng = np.random.default_rng(3)
    letters = list("0123456789.,-e naxjpg\x00é'\"[]")
    lines, untouched = [], 0
    for pair in range(300):
        line = list(text(row(f"a{pair}.jpg", pair)))
        for _ in range(int(rng.integers(0, 3))):
            line[int(rng.integers(len(line)))] = letters[int(rng.integers(len(letters)))]
        lines.append("".join(line))
        untouched += lines[-1] == text(row(f"a{pair}.jpg", pair))
    dataset(tmp_path, {"test": [row(f"a{pair}.jpg") for pair in range(300)]})
    file = tmp_path / "test-annotations.csv"
    file.write_bytes("\n".join([",".join(COLUMNS), *lines]).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"test-annotations\.csv:\d+: "):
        GazeHOI(tmp_path).records("test")
    records = GazeHOI(tmp_path, bad_rows="skip", missing_images="skip").records("test")
    bad = [issue.row for issue in records.issues if issue.file.endswith(".csv")]
    missing = len(records.issues) - len(bad)
    assert len(lines) + 2 in bad
    assert len(set(bad)) == len(bad) > 30
    assert records.people + len(bad) + missing + records.counts["left_out_without_head"] == len(lines) + 1
    assert records.people >= untouched > 50


def test_missing_pictures_are_named_or_skipped(tmp_path):
    dataset(tmp_path, {"test": [row(f"{n}.jpg") for n in range(4)]})
    for number in (1, 2):
        (tmp_path / "images" / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"2 missing images:\s+images/1\.jpg"):
        GazeHOI(tmp_path).records("test")
    records = GazeHOI(tmp_path, missing_images="skip").records("test")
    assert records.person_id.tolist() == ["0.jpg#0", "3.jpg#0"]
    assert len(records.issues) == 2


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"cup": "one"}', "7"])
def test_a_vocabulary_that_is_none_is_refused(tmp_path, content):
    data = dataset(tmp_path, {"test": [row()]})
    (tmp_path / "vocab2id.json").write_text(content)
    with pytest.raises(DataError, match=r"vocab2id\.json: .*take the file of the release"):
        data.records("test")


def test_files_that_are_none_of_the_release_are_refused(tmp_path):
    data = dataset(tmp_path, {"test": [row()]}, [c.replace("o_xmin", "x0").replace("object", "thing") for c in COLUMNS])
    with pytest.raises(DataError, match=r"test-annotations\.csv:1: the header lacks object, o_xmin"):
        data.records("test")
    (tmp_path / "test-annotations.csv").write_text("")
    with pytest.raises(DataError, match="the header lacks file_name"):
        data.records("test")
    (tmp_path / "vocab2id.json").unlink()
    with pytest.raises(DataError, match=r"holds no vocab2id\.json"):
        data.records("test")


@pytest.mark.parametrize("changed", [row(word="book"), row(thing=(50, 60, 70, 80.5))])
def test_the_fingerprint_covers_what_the_scores_do(tmp_path, changed):
    changed[6:8] = row()[6:8]  # the same point
    one = dataset(tmp_path / "one", {"test": [row()]}).records("test")
    other = dataset(tmp_path / "other", {"test": [changed]}).records("test")
    assert one.fingerprint() != other.fingerprint()
    assert GazeHOI(tmp_path / "one").records("test").fingerprint() == one.fingerprint()


def test_fake_is_read_by_the_true_parser(tmp_path):
    data = GazeHOI.fake(tmp_path, people=8, seed=1)
    for split in ("train", "val", "trainval", "test"):
        records = data.records(split)
        assert records.people >= 8
        width, height = data.size(records, 0)
        assert data.picture(records, 0).shape == (height, width, 3)
        boxes = records.columns["target_box"]
        assert ((records.points > boxes[:, :2]) & (records.points < boxes[:, 2:])).all()
    workers = pickle.loads(pickle.dumps(data))
    assert workers.path(records, 0) == data.path(records, 0)


def batch_of(data, split="test"):
    samples = ImageSamples(data, data.records(split), Preprocess(), augment=False, sees_images=False,
                           bad_images="error", seed=0)  # fmt: skip
    return collate([samples[image] for image in range(len(samples))])


def test_scores_by_hand(tmp_path):
    data = GazeHOI.fake(tmp_path, people=30)
    records, batch = data.records("test"), batch_of(data)
    rng = np.random.default_rng(1)
    sizes = np.array([data.size(records, image) for image in records.person_image])
    point = np.where(rng.random((records.people, 1)) < 0.5, records.points / sizes, rng.random((records.people, 2)))
    label = np.where(rng.random(records.people) < 0.5, records.columns["label"], "nothing of ours").tolist()
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(point=torch.from_numpy(point), extra={"label": label}), batch)
    inside = [x0 <= x <= x1 and y0 <= y <= y1 for (x, y), (x0, y0, x1, y1)
              in zip(point * sizes, records.columns["target_box"], strict=True)]  # fmt: skip
    named = [one == other for one, other in zip(label, records.columns["label"], strict=True)]
    scores = evaluator.compute()
    assert 0 < sum(inside) < len(inside)
    assert scores["gaze_acc"]["all"].value == pytest.approx(np.mean(inside), abs=1e-12)
    assert scores["acc_1_exact"]["all"].value == pytest.approx(np.mean(named), abs=1e-12)
    assert scores["gaze_acc"]["all"].count == scores["acc_1_exact"]["all"].count == records.people
    assert "acc_1" not in scores, "it needs CLIP weights"


def test_a_method_that_names_nothing_has_no_accuracy(tmp_path):
    data = GazeHOI.fake(tmp_path, people=8)
    batch = batch_of(data)
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(point=batch.head[:, :2]), batch)
    assert evaluator.compute().keys() == {"gaze_acc"}
    evaluator.reset()
    evaluator.update(Prediction(extra={"label": ["cup"] * batch.people}), batch)
    assert evaluator.compute().keys() == {"acc_1_exact"}


NAMER = '''
import torch
from gazebench.engine.method import Method, MethodCard
from gazebench.data.transforms import Preprocess
from gazebench.core.types import Prediction


class Namer(Method):
    """Names one of two things, and of some people nothing."""

    card = MethodCard(title="Namer", family="test")
    capabilities = frozenset({"point", "semantic"})
    sees_images = False
    trains = False

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        label = [("laptop", "None", "")[int(left * 1000) % 3] for left in batch.head[:, 0].tolist()]
        return Prediction(point=torch.tensor([[0.4, 0.8]]).repeat(batch.people, 1), extra={"label": label})
'''


def test_stored_labels_score_as_the_run_did(tmp_path):
    root = tmp_path / "data"
    GazeHOI.fake(root, people=40)
    # The word the method says for some is the true one of some.
    for name in root.glob("*-annotations.csv"):
        table = pd.read_csv(name)
        table.loc[::2, "object"] = "laptop"
        table.loc[1::4, "object"] = "None"
        table.to_csv(name, index=False, quoting=csv.QUOTE_MINIMAL)
    words = json.loads((root / "vocab2id.json").read_text())
    (root / "vocab2id.json").write_text(json.dumps(words | {"None": len(words)}))
    method = tmp_path / "namer.py"
    method.write_text(NAMER)
    places = Places(tmp_path / "runs", tmp_path / "boards")
    run = bench(small_config(str(method), "gazehoi", f"--dataset.root={root}"), places)
    assert all(0 < score["all"]["value"] < 1 for score in run.record["metrics"].values())
    stored = run.folder / "predictions.parquet"
    table = pd.read_parquet(stored)[["person_id", "x", "y", "label"]]
    assert set(table["label"]) == {"laptop", "None", ""}
    shutil.copy(stored, tmp_path / "parquet.parquet")
    table.to_csv(tmp_path / "csv.csv", index=False)
    table.to_json(tmp_path / "json.jsonl", orient="records", lines=True)
    table[["person_id", "label"]].to_csv(tmp_path / "words.csv", index=False)
    where = [f"--dataset.root={root}", f"--runs={places.runs}", f"--boards={places.boards}"]
    for file in ("parquet.parquet", "csv.csv", "json.jsonl", "words.csv"):
        assert main(["score", str(tmp_path / file), "gazehoi", *where]) == 0
        scored = json.loads(next((places.boards / "gazehoi").glob(f"{file.split('.')[0]}-*.json")).read_text())
        expected = dict(run.record["metrics"])
        if file == "words.csv":
            del expected["gaze_acc"]
        assert scored["metrics"].keys() == expected.keys(), file
        for metric, subsets in expected.items():
            assert scored["metrics"][metric]["all"] == pytest.approx(subsets["all"], abs=1e-9), file


def test_a_file_without_labels_has_no_accuracy_and_numbers_are_no_labels(tmp_path):
    people = ["a.jpg#0", "b.jpg#0"]
    empty = pd.DataFrame({"person_id": people, "x": 0.5, "y": 0.5, "label": ["", ""]})
    empty.to_csv(tmp_path / "empty.csv", index=False)
    assert "label" not in read_predictions(tmp_path / "empty.csv")
    empty.assign(label=["cup", ""]).to_csv(tmp_path / "some.csv", index=False)
    assert read_predictions(tmp_path / "some.csv")["label"].tolist() == ["cup", ""]
    empty.assign(label=[3, 4]).to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"numbers\.parquet:1: label is 3, not the name"):
        read_predictions(tmp_path / "numbers.parquet")


@pytest.mark.parametrize("method", ["center", "gazelle"])
def test_a_whole_run(tmp_path, method):
    root = tmp_path / "data"
    GazeHOI.fake(root, people=12)
    places = Places(tmp_path / "runs", tmp_path / "boards")
    record = bench(small_config(method, "gazehoi", f"--dataset.root={root}"), places).record
    assert record["metrics"].keys() == {"gaze_acc"}
    assert record["metrics"]["gaze_acc"]["all"]["count"] == record["data"]["found"]["people"]
    assert record["status"]["class"] == "smoke"
