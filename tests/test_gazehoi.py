"""The GazeHOI parser and protocol on hand-written files in the official layout."""

import json

import numpy as np
import pytest
import torch

from gazebench.core.types import Prediction
from gazebench.datasets.gazehoi import GazeHOI
from gazebench.datasets.gazeworld.fakes import write_rows
from gazebench.metrics.scoring import Scorer

COLUMNS = (
    "file_name", "pair_id", "o_xmin", "o_ymin", "o_xmax", "o_ymax", "oc_x", "oc_y", "object", "aux_object",
    "h_xmin", "h_ymin", "h_xmax", "h_ymax",
)  # fmt: skip
WORDS = {"cup": 0, "fish, bowl": 1, "book": 2}


def row(name="a.jpg", pair=0, thing=(50, 60, 70, 80), word="cup", aux="['cup', 'a \"mug\"']", head=(1, 2, 11, 22)):
    return [name, pair, *thing, (thing[0] + thing[2]) / 2, (thing[1] + thing[3]) / 2, word, aux, *head]


def dataset(root, rows, columns=COLUMNS):
    """Writes the rows of the test split, and an empty picture for every file name."""
    write_rows(root / "test-annotations.csv", [columns, *rows])
    (root / "vocab2id.json").write_text(json.dumps(WORDS), encoding="utf-8")
    (root / "images").mkdir()
    for cells in rows:
        (root / "images" / cells[columns.index("file_name")]).touch()
    return GazeHOI(root)


def test_rows_are_people_those_of_a_picture_together(tmp_path):
    rows = [row("b.jpg", 3), row("a.jpg", 1, word="fish, bowl"), row("b.jpg", 1, (5, 6, 9, 8), "book")]
    records = dataset(tmp_path, rows).parse("test")
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
    plain = dataset(tmp_path / "one", [row()]).parse("test")
    mixed = dataset(tmp_path / "two", [[9, *(row()[place] for place in order)]], ["", *(COLUMNS[p] for p in order)])
    assert mixed.parse("test").fingerprint() == plain.fingerprint()


def test_a_person_without_a_visible_head_is_left_out_and_counted(tmp_path):
    data = dataset(tmp_path, [row(pair=1), row(pair=2, head=(-1, -1, -1, -1)), row("b.jpg", head=(-1.0,) * 4)])
    records = data.records("test")
    assert records.person_id.tolist() == ["a.jpg#1"]
    assert records.images.tolist() == ["images/a.jpg"]
    assert not records.issues
    assert data.completeness("test").found["left_out_without_head"] == 2
    assert data.completeness("test").found["categories"] == 3


@pytest.mark.parametrize("changed", [row(word="book"), row(thing=(50, 60, 70, 80.5))])
def test_the_fingerprint_covers_what_the_scores_do(tmp_path, changed):
    changed[6:8] = row()[6:8]  # the same point
    one = dataset(tmp_path / "one", [row()]).parse("test")
    other = dataset(tmp_path / "other", [changed]).parse("test")
    assert one.fingerprint() != other.fingerprint()
    assert GazeHOI(tmp_path / "one").parse("test").fingerprint() == one.fingerprint()


def test_scores_by_hand(tmp_path):
    data = GazeHOI.fake(tmp_path, people=30)
    annotations, records, rng = data.parse("test"), data.records("test"), np.random.default_rng(1)
    sizes = records.sizes[records.person_image]
    some = rng.random((records.people, 1)) < 0.5
    point = np.where(some, annotations.points / sizes, rng.random((records.people, 2)))
    label = np.where(rng.random(records.people) < 0.5, records.columns["label"], "nothing of ours").tolist()

    def scores(**answer):
        scorer = Scorer(data.protocol, records)
        scorer.update(np.arange(len(records)), Prediction(**answer))
        return scorer.compute()

    found = scores(point=torch.from_numpy(point), label=label)
    inside = [x0 <= x <= x1 and y0 <= y <= y1 for (x, y), (x0, y0, x1, y1)
              in zip(point * sizes, annotations.columns["target_box"], strict=True)]  # fmt: skip
    named = [one == other for one, other in zip(label, records.columns["label"], strict=True)]
    assert 0 < sum(inside) < len(inside)
    assert found.keys() == {"gaze_acc", "acc_1_exact"}, "acc_1 needs CLIP weights"
    assert found["gaze_acc"]["all"].value == pytest.approx(np.mean(inside), abs=1e-12)
    assert found["acc_1_exact"]["all"].value == pytest.approx(np.mean(named), abs=1e-12)
    assert found["gaze_acc"]["all"].count == found["acc_1_exact"]["all"].count == records.people
    assert scores(point=torch.from_numpy(point)).keys() == {"gaze_acc"}
    assert scores(label=label).keys() == {"acc_1_exact"}
