"""The rule on hand-made cases, split files and their cards, and what a result says of them."""

import hashlib
import json

import numpy as np
import pytest

from gazebench.core.errors import DataError
from gazebench.data import saliency_splits as subsets
from gazebench.engine.contract import small_config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import bench
from gazebench.report import run_page
from gazebench.report.board import refresh

WORLD = load_dataset("gazeworld")
SMALL = {"train": 2, "val": 2, "test": 4}


@pytest.mark.parametrize(("inside", "points"), [(6, 10), (1, 1), (4, 7), (10, 10), (5, 10), (0, 1), (3, 7), (0, 0)])
def test_more_than_half_of_the_points(inside, points):
    expected = "consistent" if 2 * inside > points else "inconsistent" if points else ""
    assert subsets.verdict(inside, points) == expected


def test_edges_belong_to_a_region_and_overlaps_count_once():
    regions = np.array([[0.2, 0.2, 0.4, 0.4], [0.3, 0.3, 0.6, 0.6]])
    points = np.array([[0.2, 0.2], [0.4, 0.3], [0.35, 0.35], [0.6, 0.6], [0.61, 0.5], [0.1, 0.3]])
    assert subsets.inside(points, regions).tolist() == [True, True, True, True, False, False]
    assert not subsets.inside(points, np.zeros((0, 4))).any()
    assert subsets.inside(np.zeros((0, 2)), regions).shape == (0,)


def people():
    records = WORLD(**SMALL).records("test")
    return [str(person) for person in records.person_id], np.diff(records.point_start), records.inout


def write(path, rows, header=subsets.COLUMNS):
    path.write_text("\n".join(["\t".join(header), *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def with_card(path, **more):
    card = {"name": "mine", "prober": {"model": "m"}, "rule": {}, "complete": True, **more}
    card["sha256"] = {"split": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))


def test_a_split_with_its_card(tmp_path):
    ids, points, inout = people()
    rows = [
        (i, "consistent" if inside else "", n, n, "answer") for i, n, inside in zip(ids, points, inout, strict=True)
    ]
    path = write(tmp_path / "test.tsv", rows)
    with_card(path)
    for given in (path, tmp_path):
        identity = WORLD(**SMALL, subsets=given).identity("test")["subsets"]
        assert identity["name"] == "mine"
        assert identity["verified"]
        assert (identity["unnamed"], identity["unknown"], identity["undecided"]) == (0, 0, 0)
        assert subsets.defects(identity) == []
    assert WORLD(**SMALL, subsets=tmp_path).identity("val")["subsets"] is None, "the folder has nothing for val"


def test_a_changed_split_or_one_of_other_annotations_is_noticed(tmp_path):
    ids, points, _ = people()
    path = write(tmp_path / "test.tsv", [(ids[0], "consistent", 1, points[0], "answer")])
    with_card(path)
    path.write_text(path.read_text().replace("\tconsistent", "\tinconsistent"))
    with pytest.raises(DataError, match=r"changed since its card.*--build"):
        WORLD(**SMALL, subsets=path).records("test")
    path = write(tmp_path / "other.tsv", [(ids[0], "consistent", 1, points[0] + 1, "answer")])
    with pytest.raises(DataError, match="other annotations"):
        WORLD(**SMALL, subsets=path).records("test")


def test_who_is_missing_where(tmp_path):
    ids, _, inout = people()
    inside = [person for person, seen in zip(ids, inout, strict=True) if seen]
    path = write(tmp_path / "test.tsv", [(inside[0], ""), ("stranger", "consistent")], subsets.COLUMNS[:2])
    identity = WORLD(**SMALL, subsets=path).identity("test")["subsets"]
    assert (identity["unnamed"], identity["unnamed_examples"]) == (len(inside) - 1, inside[1:4])
    assert (identity["unknown"], identity["unknown_examples"]) == (1, ["stranger"])
    assert identity["undecided"] == 1
    found = subsets.defects(identity)
    assert any("without a card" in text for text in found)
    assert any(inside[1] in text for text in found)


@pytest.mark.parametrize(
    ("rows", "header", "place"),
    [
        ([], ("id", "subset"), ":1: "),
        ([("a", "maybe")], subsets.COLUMNS[:2], ":2: .*maybe"),
        ([("a", "consistent", 1)], subsets.COLUMNS[:2], ":2: "),
        ([("a", "consistent"), ("a", "consistent")], subsets.COLUMNS[:2], ":3: a "),
        ([("a", "consistent", "x", 2, "")], subsets.COLUMNS, ":2: "),
        ([("a", "consistent", 1.5, 2, "")], subsets.COLUMNS, ":2: "),
        ([("a", "consistent", 1, 2)], subsets.COLUMNS, ":2: "),
        ([("a", "consistent")], subsets.COLUMNS[:2], ": none of its 1 people"),
    ],
)
def test_rubbish_is_named(tmp_path, rows, header, place):
    path = write(tmp_path / "test.tsv", rows, header)
    with pytest.raises(DataError, match=f"{path.name}{place}"):
        WORLD(**SMALL, subsets=path).records("test")


def test_a_bad_card_and_an_unknown_name(tmp_path):
    path = write(tmp_path / "test.tsv", [("a", "consistent")], subsets.COLUMNS[:2])
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(DataError, match=r"test\.json"):
        subsets.read(path)
    with pytest.raises(DataError, match=r"oracle.*spectral-residual"):
        WORLD(**SMALL, subsets=tmp_path / "nonsense").records("test")


def test_shipped_splits_fit_the_standard_world():
    """Every shipped split of a dataset that is at hand covers it, and is what its card says."""
    for name in ("oracle", "spectral-residual"):
        identity = WORLD(subsets=name).identity("test")["subsets"]
        assert identity["verified"]
        assert identity["complete"]
        assert (identity["unnamed"], identity["unknown"], subsets.defects(identity)) == (0, 0, [])


def test_a_result_tells_whose_subsets_it_is_reported_by(tmp_path, places):
    ids, _, inout = people()
    half = [person for person, seen in zip(ids, inout, strict=True) if seen][::2]
    path = write(tmp_path / "mine.tsv", [(person, "consistent") for person in half], subsets.COLUMNS[:2])
    config = small_config("center", "gazeworld", f"--dataset.subsets={path}", "--dataset.test=4")
    outcome = bench(config, places)
    assert "mine.tsv" in refresh(places.boards, "gazeworld", WORLD)
    assert "mine.tsv" in run_page.write(outcome.folder, places).read_text()
    found = outcome.record["metrics"]["avg_l2"]
    assert (found["consistent"]["count"], "inconsistent" in found) == (len(half), False)
    assert outcome.record["data"]["subsets"]["name"] == "mine.tsv"
    assert any("a file without a card" in reason for reason in outcome.record["status"]["reasons"])
