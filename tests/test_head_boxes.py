"""Head boxes of one's own: read, matched to people, and named in records."""

from dataclasses import replace
from itertools import cycle

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import box_iou

from gazebench.core.errors import DataError
from gazebench.data.head_boxes import BOX, OVERLAP, attach
from gazebench.engine.config import essence, settings_digest
from gazebench.engine.contract import small_config
from gazebench.engine.registry import entries, load_dataset
from gazebench.engine.run import bench

WORLD = load_dataset("gazeworld")
SPLITS = ("train", "val", "test")


def boxes_of(records, boxes=None):
    """A table with a row for each person."""
    table = pd.DataFrame(records.head if boxes is None else boxes, columns=BOX)
    table["image"] = records.images[records.person_image]
    table["person_id"] = records.person_id
    return table


def stored(table, path):
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def records():
    return WORLD(train=6, val=3, test=30).records("test")


@pytest.mark.parametrize(
    ("name", "ending"),
    [*zip((name for name, entry in entries("datasets").items() if entry.ours), cycle([".csv", ".csv.gz", ".parquet"]))],
)
def test_every_data_set_takes_the_boxes_of_a_detector(name, ending, tmp_path):
    """Detections of all splits in one file, a tenth smaller than the annotated boxes, in any order."""
    data = load_dataset(name).fake(tmp_path / "data", people=8)
    plain = {split: data.records(split) for split in SPLITS}
    shrunk = {split: 0.95 * plain[split].head + 0.05 * plain[split].head[:, [2, 3, 0, 1]] for split in SPLITS}
    table = pd.concat([boxes_of(plain[split], shrunk[split]).drop(columns="person_id") for split in SPLITS])
    table = table.dropna().sample(frac=1, random_state=0).assign(score=0.9)
    own = replace(data, head_boxes=stored(table, tmp_path / f"boxes{ending}"))
    for split in SPLITS:
        found = own.records(split)
        np.testing.assert_allclose(found.head, shrunk[split], atol=1e-12)
        assert found.person_id.tolist() == plain[split].person_id.tolist()
        assert found.fingerprint() != plain[split].fingerprint()
        for column in found.columns:
            np.testing.assert_array_equal(found.columns[column], plain[split].columns[column])


def test_boxes_named_by_person_are_taken_as_they_are(records, tmp_path):
    same, identity = attach(records, stored(boxes_of(records), tmp_path / "same.parquet"), "error")
    assert same.fingerprint() == records.fingerprint()
    assert (identity["by_id"], identity["by_overlap"], identity["boxes_unused"]) == (records.people, 0, 0)
    anywhere = np.random.default_rng(0).random((records.people, 2)) / 2
    table = boxes_of(records, np.hstack([anywhere, anywhere + 0.3])).drop(columns="image")
    found, _ = attach(records, stored(table, tmp_path / "ids.parquet"), "error")
    np.testing.assert_array_equal(found.head, table[BOX])


def test_a_box_beyond_the_border_is_clipped_and_reversed_corners_are_ordered(records, tmp_path):
    table = boxes_of(records)
    table.loc[0, BOX] = [0.3, 0.4, -0.1, 1.2]
    found, _ = attach(records, stored(table, tmp_path / "a.csv"), "error")
    assert found.head[0].tolist() == [0.0, 0.4, 0.3, 1.0]


@pytest.mark.parametrize("seed", range(4))
def test_detections_go_to_the_people_they_overlap_most(records, tmp_path, seed):
    """Against a loop over images that takes the largest of a matrix of IoUs again and again."""
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, records.people)  # detections of each person, none of some
    owner = np.repeat(np.arange(records.people), times)
    size = np.tile(records.head[owner, 2:] - records.head[owner, :2], 2)
    table = boxes_of(records).iloc[owner].reset_index(drop=True)
    table[BOX] = np.clip(records.head[owner] + rng.normal(0, 0.25, size.shape) * size, 0, 1)
    table = table[(table["xmax"] > table["xmin"] + 0.001) & (table["ymax"] > table["ymin"] + 0.001)]
    named = rng.random(len(table)) < 0.1
    table["person_id"] = table["person_id"].where(named & ~table["person_id"].where(named).duplicated(), "")
    found, identity = attach(records, stored(table, tmp_path / "boxes.parquet"), "skip")

    expected = {person: box for person, *box in table.loc[table["person_id"] != "", ["person_id", *BOX]].to_numpy()}
    by_id = len(expected)
    for image, name in enumerate(records.images):
        people = [p for p in np.flatnonzero(records.person_image == image) if records.person_id[p] not in expected]
        boxes = table.loc[(table["image"] == name) & (table["person_id"] == ""), BOX].to_numpy()
        iou = box_iou(torch.from_numpy(records.head[people]), torch.from_numpy(boxes)).numpy()
        while iou.size and iou.max() >= OVERLAP:
            mine, box = np.unravel_index(iou.argmax(), iou.shape)
            expected[records.person_id[people[mine]]] = boxes[box]
            iou[mine], iou[:, box] = 0, 0
    assert 0 < by_id < len(expected) < records.people
    assert found.person_id.tolist() == [person for person in records.person_id if person in expected]
    np.testing.assert_array_equal(found.head, np.array([expected[person] for person in found.person_id], dtype=float))
    assert (identity["by_id"], identity["by_overlap"]) == (by_id, len(expected) - by_id)
    assert identity["people_without"] == len(found.issues) == records.people - len(expected)
    assert identity["boxes_unused"] == len(table) - len(expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"xmax": 640.0}, r"row 3: .*normalised.*640"),
        ({"ymin": np.nan}, "row 3: .*finite"),
        ({"ymin": "many"}, "row 3: .*finite.*many"),
        ({"xmin": 0.5, "xmax": 0.5}, "row 3: no area"),
        ({"xmin": 1.2, "xmax": 1.4}, "row 3: no area"),
        ({"image": "", "person_id": ""}, "row 3: neither"),
        ({"person_id": "test/0#1"}, "row 3: .*two rows"),
        ({"person_id": "nobody"}, "row 3: .*'nobody' in image 'test/"),
        ({"image": "test/29"}, "row 3: .* in image 'test/29'"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_bad_row_is_named(records, tmp_path, row, message, ending):
    table = boxes_of(records)
    assert table["person_id"][0] == "test/0#1"
    for name, value in row.items():
        if isinstance(value, str):
            table[name] = table[name].astype(str)
        table.loc[2, name] = value
    with pytest.raises(DataError, match=rf"boxes\{ending}: {message}"):
        attach(records, stored(table, tmp_path / f"boxes{ending}"), "error")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,xmin,ymin,xmax\n", "columns are image, xmin"),
        ("a.csv", "xmin,ymin,xmax,ymax\n1,1,2,2\n", "columns are"),
        ("a.csv", "image,xmin,ymin,xmax,ymax\n", "no rows"),
        ("a.csv", "", "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.txt", "image", "unknown ending"),
        ("", "", "no such file"),
    ],
)
def test_a_bad_file_is_refused(records, tmp_path, name, content, message):
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_text(content)
    with pytest.raises(DataError, match=rf"{path.name}.*{message}"):
        attach(records, path, "error")


def test_people_without_a_box_stop_the_run_or_are_left_out_and_counted(records, tmp_path):
    path = stored(boxes_of(records).drop(index=[1, 4]), tmp_path / "boxes.csv")
    first, second = records.person_id[[1, 4]]
    with pytest.raises(DataError, match=rf"2 of {records.people} people .*{first}, {second}.*missing_boxes skip"):
        attach(records, path, "error")
    data = WORLD(train=6, val=3, test=30, head_boxes=path, missing_boxes="skip")
    assert data.records("test").people == records.people - 2
    completeness = data.completeness("test")
    assert (completeness.issues, completeness.state) == (2, "partial")
    with pytest.raises(DataError, match=r"of gazeworld/train.*an image in the file: 'test/0'"):
        WORLD(train=6, val=3, test=30, head_boxes=path).records("train")


def test_a_record_names_them_and_a_run_depends_on_them(places, tmp_path):
    world = WORLD(train=6, val=3, test=4)
    table = pd.concat([boxes_of(world.records(split)) for split in SPLITS])
    moved = table.assign(xmin=table["xmin"] * 0.9)
    given = {"plain": [], "same": [table], "moved": [moved]}
    made = {}
    for name, tables in given.items():
        (tmp_path / name).mkdir()
        options = [f"--dataset.head_boxes={stored(each, tmp_path / name / 'boxes.parquet')}" for each in tables]
        made[name] = bench(small_config("center", "gazeworld", *options), places).record
    assert len({record["run"] for record in made.values()}) == 3
    assert made["plain"]["data"]["head_boxes"] == "exact"
    for name in ("same", "moved"):
        data = made[name]["data"]
        assert data["own_head_boxes"]["file"] == made[name]["config"]["dataset"]["head_boxes"] == "boxes.parquet"
        assert data["own_head_boxes"]["by_id"] == made[name]["samples"]["people"]
        assert "head boxes of boxes.parquet" in " ".join(made[name]["status"]["reasons"])
        assert str(tmp_path) not in str(made[name])
    assert made["same"]["data"]["own_head_boxes"]["sha256"] != made["moved"]["data"]["own_head_boxes"]["sha256"]


def test_runs_without_them_are_those_they_were():
    values = small_config("center").public()
    before = {
        **values,
        "dataset": {k: v for k, v in values["dataset"].items() if k not in ("head_boxes", "missing_boxes")},
    }
    assert len(before["dataset"]) == len(values["dataset"]) - 2
    assert settings_digest(values) == settings_digest(before)
    assert essence({**values, "dataset": {**values["dataset"], "head_boxes": "a.csv"}}) != essence(before)
