"""The VSGaze parser and protocol on hand-written tables in the layout of the release."""

import importlib.util
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from gazebench.core.errors import DataError
from gazebench.core.types import SOCIAL, Prediction
from gazebench.datasets import vsgaze
from gazebench.datasets.vsgaze import IMAGES, VIDEO, VSGaze, write_table
from gazebench.metrics.scoring import Scorer

BOX = (0.25, 0.25, 0.5, 0.5)
HDF = pytest.mark.skipif(not importlib.util.find_spec("tables"), reason="PyTables is not installed")


def row(path="Show/clip/00000010.jpg", people=(3, 7), inout=(1, 0), gaze=None, lah=None, laeo=None, sa=None, **more):
    """A frame as the release has it: a placeholder first, all ordered pairs of everybody, the placeholder included."""
    gaze = [(0.5, 0.25) if told == 1 else (-1, -1) for told in inout] if gaze is None else gaze
    pairs = list(permutations((-1, *people), 2))
    labels = {"lah_pairs": lah or {}, "laeo_pairs": laeo or {}, "coatt_pairs": sa or {}}
    return {
        "path": path,
        "person_ids": np.array([-1, *people]),
        "head_bboxes": np.array([(0.0,) * 4, *[BOX] * len(people)]),
        "gaze_points": np.array([(-1.0, -1.0), *gaze]),
        "inout": np.array([-1, *inout]),
        "pairs": np.array(pairs).reshape(-1, 2),
        **{name: np.array([of.get(pair, -1) for pair in pairs]) for name, of in labels.items()},
    } | more


def dataset(root, tables, **options):
    """Writes {(part, split): rows} and an empty picture for every path; the parts' other splits hold nobody."""
    root.mkdir(parents=True, exist_ok=True)
    parts = dict.fromkeys(part for part, _ in tables)
    for part in parts:
        (root / IMAGES[part]).mkdir(parents=True, exist_ok=True)
        for split in ("train", "val", "test"):
            rows = tables.get((part, split), [])
            frame = pd.DataFrame(rows) if rows else pd.DataFrame({name: [] for name in row()})
            write_table(root / f"{part}_{split}", frame)
            for cells in rows:
                if isinstance(cells["path"], str) and "/" in cells["path"]:
                    file = root / IMAGES[part] / cells["path"]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
    return VSGaze(root, parts=tuple(parts), **options)


def labels_of(records, name):
    """{(person id of i, of j): label}, of pairs in the order of permutations."""
    ids, start, pairs = records.person_id.tolist(), records.person_start, []
    for image in range(len(records)):
        pairs += permutations(ids[start[image] : start[image + 1]], 2)
    return dict(zip(pairs, records.pairs[name].tolist(), strict=True))


def test_a_frame_becomes_its_people_without_the_placeholder(tmp_path):
    rows = [row("Show/clip/00000011.jpg"), row("Show/clip/00000009.jpg", people=(7,), inout=(-1,))]
    records = dataset(tmp_path, {("vat", "test"): rows}).parse("test")
    assert records.images.tolist() == ["vat/Show/clip/00000009.jpg", "vat/Show/clip/00000011.jpg"]
    assert records.groups.tolist() == ["vat/Show/clip"] * 2
    assert records.person_id.tolist() == [f"{records.images[i]}#{p}" for i, p in ((0, 7), (1, 3), (1, 7))]
    assert records.columns["track"].tolist() == [f"vat/Show/clip#{p}" for p in (7, 3, 7)]
    assert records.columns["part"].tolist() == ["vat"] * 3
    assert records.inout.tolist() == [-1, 1, 0]
    assert records.points.tolist() == [[0.5, 0.25]]
    assert records.point_start.tolist() == [0, 0, 1, 1]
    assert records.head.tolist() == [list(BOX)] * 3
    assert (records.head_unit, records.point_unit) == ("normalised", "normalised")


def test_labels_are_found_by_the_ids_of_the_pair(tmp_path):
    """LAH(i, j): j looks at i. Pairs the release does not speak of, and the placeholder's, are not known."""
    rows = [row(people=(9, 2, 4), inout=(1, 1, -1), lah={(9, 2): 1, (2, 9): 0, (4, 9): 0, (-1, 2): 0},
                laeo={(9, 2): 0, (2, 9): 0}, sa={(2, 4): 1, (4, 2): 1, (-1, 9): 0, (9, -1): 0})]  # fmt: skip
    data = dataset(tmp_path, {("videocoatt", "test"): rows})
    records = data.records("test")
    a, b, c = records.person_id.tolist()
    assert [person.rpartition("#")[2] for person in (a, b, c)] == ["9", "2", "4"]
    known = {name: {pair: label for pair, label in labels_of(records, name).items() if label != -1} for name in SOCIAL}
    assert known == {
        "lah": {(a, b): 1, (b, a): 0, (c, a): 0},
        "laeo": {(a, b): 0, (b, a): 0},
        "sa": {(b, c): 1, (c, b): 1},
    }
    assert data.completeness("test").found["left_out_pairs_with_placeholder"] == 3


def test_pairs_in_any_order_and_twice(tmp_path):
    """Of a pair that is there twice the first label counts."""
    given = {
        "pairs": np.array([(7, 3), (3, 7), (7, 3)]), "lah_pairs": np.array([1, -1, 0]),
        "laeo_pairs": np.array([0, 1, 1]), "coatt_pairs": np.array([-1, -1, -1]),
    }  # fmt: skip
    records = dataset(tmp_path, {("vat", "test"): [row(**given)]}).records("test")
    assert {name: records.pairs[name].tolist() for name in SOCIAL} == {"lah": [-1, 1], "laeo": [1, 0], "sa": [-1, -1]}


def test_parts_follow_each_other_and_splits_are_files(tmp_path):
    tables = {
        ("vat", "train"): [row()],
        ("vat", "val"): [row("Other show/c/1.jpg"), row("Other show/c/2.jpg")],
        ("childplay", "train"): [row("images/v_1-9/v_10.jpg"), row("images/v_1-9/v_9.jpg")],
        ("childplay", "val"): [row("images/u_1-9/u_1.jpg")],
        ("childplay", "test"): [row("images/w_1-9/w_1.jpg")],
        ("vat", "test"): [row("Third show/c/1.jpg")],
    }
    data = dataset(tmp_path, tables)
    frames = {split: data.records(split).images.tolist() for split in ("train", "val", "trainval", "test")}
    assert frames["train"] == ["vat/Show/clip/00000010.jpg", *(f"childplay/images/v_1-9/v_{n}.jpg" for n in (9, 10))]
    assert frames["val"] == ["vat/Other show/c/1.jpg", "vat/Other show/c/2.jpg", "childplay/images/u_1-9/u_1.jpg"]
    assert sorted(frames["trainval"]) == sorted(frames["train"] + frames["val"])
    assert frames["test"] == ["vat/Third show/c/1.jpg", "childplay/images/w_1-9/w_1.jpg"]
    only = VSGaze(tmp_path, parts=("childplay",)).records("train")
    assert only.images.tolist() == frames["train"][1:]


@pytest.mark.parametrize("parts", [(), ("vat", "vat"), ("vat", "vsgaze")])
def test_parts_there_are_not_are_refused(tmp_path, parts):
    with pytest.raises(DataError, match=r"parts .* vat, childplay, videocoatt"):
        VSGaze(tmp_path, parts=parts).records("test")


def test_the_papers_four_parts_are_the_default(tmp_path):
    data = VSGaze.fake(tmp_path)
    assert data.parts == VIDEO == ("vat", "childplay", "videocoatt", "uco_laeo")
    assert set(data.records("test").columns["part"].tolist()) == set(VIDEO)
    everything = VSGaze(tmp_path, parts=tuple(IMAGES)).records("test")
    assert set(everything.columns["part"].tolist()) == set(IMAGES)


def test_gazefollow_has_several_annotators_of_the_last_person(tmp_path):
    """On test; its other labels than LAH do not count, as in MTGS's code."""
    marked = np.array([(0.5, 0.25), (0.75, 0.5), (-1, -1), (-1, -1)])
    cells = row(
        "test2/0/1.jpg", (5, 6), (1, 1), gaze_points_p1=marked, lah={(5, 6): 1}, laeo={(5, 6): 1}, sa={(6, 5): 1}
    )
    cells |= {"inout": np.array([1]), "gaze_points": np.zeros((0, 2))}
    records = dataset(tmp_path, {("gazefollow", "test"): [cells]}).records("test")
    assert records.inout.tolist() == [-1, 1]
    assert records.points_of(0).tolist() == []
    assert records.points_of(1).tolist() == marked[:2].tolist()
    assert records.groups.tolist() == records.images.tolist() == ["gazefollow/test2/0/1.jpg"]
    assert {name: records.pairs[name].tolist() for name in SOCIAL} == {"lah": [1, -1], "laeo": [-1, -1], "sa": [-1, -1]}


def test_a_part_without_some_labels(tmp_path):
    cells = {name: cell for name, cell in row("test2/0/1.jpg").items() if name not in ("laeo_pairs", "coatt_pairs")}
    assert dataset(tmp_path / "one", {("gazefollow", "test"): [cells]}).records("test").people == 2
    with pytest.raises(DataError, match=r"laeo_pairs is 'None', expected n numbers"):
        dataset(tmp_path / "two", {("vat", "test"): [cells]}).records("test")


def test_shows_come_with_spaces_or_underscores(tmp_path):
    data = dataset(tmp_path, {("vat", "test"): [row("West_World/c/1.jpg")]})
    (tmp_path / "vat/images/West_World").rename(tmp_path / "vat/images/West World")
    data = VSGaze(tmp_path, parts=("vat",))
    records = data.records("test")
    assert records.images.tolist() == ["vat/West_World/c/1.jpg"]
    assert data.path(records, 0) == tmp_path / "vat/images/West World/c/1.jpg"


def test_without_pytables_the_release_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(vsgaze.importlib.util, "find_spec", lambda name: None if name == "tables" else find(name))
    dataset(tmp_path, {("vat", "test"): [row()]})
    (tmp_path / "vat_test.parquet").rename(tmp_path / "vat_test.h5")
    with pytest.raises(DataError, match=r"vat_test\.h5: reading HDF5 tables needs PyTables: pip install tables"):
        VSGaze(tmp_path, parts=("vat",)).records("test")


@HDF
def test_the_release_is_read_as_parquet_is(tmp_path, monkeypatch):
    """HDF5 by PyTables, where it is installed, and Parquet of nested lists give the same people."""
    tables = {("vat", "test"): [row(lah={(3, 7): 1, (7, 3): 0})], ("uco_laeo", "test"): [row(laeo={(3, 7): 1})]}
    release = dataset(tmp_path / "release", tables)
    assert (tmp_path / "release/vat_test.h5").is_file()
    monkeypatch.setattr(vsgaze.importlib.util, "find_spec", lambda name: None)
    ours = dataset(tmp_path / "ours", tables)
    assert (tmp_path / "ours/vat_test.parquet").is_file()
    fingerprint = ours.records("test").fingerprint()
    monkeypatch.undo()
    assert release.records("test").fingerprint() == fingerprint


@pytest.mark.parametrize("name", SOCIAL)
def test_the_fingerprint_covers_the_labels(tmp_path, name):
    one = dataset(tmp_path / "one", {("vat", "test"): [row()]}).records("test")
    other = dataset(tmp_path / "other", {("vat", "test"): [row(**{name: {(3, 7): 0}})]}).records("test")
    assert one.fingerprint() != other.fingerprint()
    again = VSGaze(tmp_path / "one", parts=("vat",)).records("test")  # from the cache
    assert again.fingerprint() == one.fingerprint()


def test_which_part_a_metric_is_taken_over(tmp_path):
    """Dist pools everybody in frame, AP the people of VideoAttentionTarget and ChildPlay only."""
    data = VSGaze.fake(tmp_path, people=60)
    data = VSGaze(tmp_path, parts=tuple(IMAGES))
    records = data.records("test")
    rng = np.random.default_rng(0)
    point, said = rng.random((records.people, 2)), rng.random(records.people)
    scorer = Scorer(data.protocol, records)
    scorer.update(np.arange(len(records)), Prediction(point=torch.from_numpy(point), inout=torch.from_numpy(said)))
    scores = scorer.compute()
    seen = np.flatnonzero(records.inout == 1)
    distance = [np.linalg.norm(records.points_of(p) - point[p], axis=1).min() for p in seen]
    assert scores["dist"]["all"].value == pytest.approx(np.mean(distance), abs=1e-12)
    assert scores["dist"]["all"].count == len(seen)
    part = records.columns["part"]
    counted = np.isin(part, ["vat", "childplay"]) & (records.inout != -1)
    assert scores["ap"]["all"].value == pytest.approx(average_precision_score(records.inout[counted], said[counted]))
    assert scores["ap"]["all"].count == counted.sum() < (records.inout != -1).sum()
    assert set(part[seen]) == set(IMAGES)
