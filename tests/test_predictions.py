"""The predictions file: three formats, one score; bad rows are named; what a run writes, ``score`` reads."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gazebench.cli.main import main
from gazebench.core.errors import DataError, UserError
from gazebench.core.types import Batch, Prediction, Records, pairs_of
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine import predictions
from gazebench.engine.contract import small_config
from gazebench.engine.predictions import PartWriter, PredictionFile, chunks, merge_parts
from gazebench.engine.run import bench
from gazebench.engine.score import Measured, score


def world(test=12):
    return GazeWorld(train=2, val=2, test=test)


def answers(dataset, seed=0):
    """A row a person with every column there is; objects as dicts, heatmaps as flat lists."""
    records, rng = dataset.records("test"), np.random.default_rng(seed)
    ids = records.person_id.astype(str)
    others = [{} for _ in ids]
    for i, j in pairs_of(records.person_image).tolist():
        others[j][str(ids[i])] = float(rng.random())
    maps = rng.random((len(ids), 6 * 8)).astype(np.float32)
    return pd.DataFrame({
        "person_id": ids, "x": rng.random(len(ids)), "y": rng.random(len(ids)), "inout": rng.random(len(ids)),
        "label": rng.choice(["cup", "None", "nan", "", "12"], len(ids)), "lah": others, "sa": others,
        "heatmap": list(maps), "heatmap_h": 6, "heatmap_w": 8,
    })  # fmt: skip


def written(frame, path, **options):
    """The file in the format of its ending."""
    texts = {name: frame[name].map(json.dumps) for name in ("lah", "laeo", "sa", "questions") if name in frame}
    if path.suffix == ".csv":
        frame.drop(columns="heatmap", errors="ignore").assign(**texts).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        rows = frame.to_dict("records")
        rows = [row | {"heatmap": row["heatmap"].tolist()} if "heatmap" in row else row for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        maps = {"heatmap": [row.astype("<f4").tobytes() for row in frame["heatmap"]]} if "heatmap" in frame else {}
        pq.write_table(pa.Table.from_pandas(frame.assign(**texts, **maps)), path, **options)
    return path


def values(record):
    return {(name, subset): found for name, subsets in record["metrics"].items() for subset, found in subsets.items()}


def test_three_formats_score_alike_in_any_order(tmp_path, monkeypatch):
    dataset = world()
    frame = answers(dataset)
    shuffled = frame.sample(frac=1, random_state=0)
    whole = values(score(written(frame, tmp_path / "a.parquet"), dataset))
    assert {name for name, _ in whole} >= {"auc", "avg_l2", "ap", "acc_1_exact", "f1_lah", "f1_lah_pp", "ap_sa"}
    assert values(score(written(shuffled, tmp_path / "b.parquet", row_group_size=7), dataset)) == whole
    assert values(score(written(shuffled, tmp_path / "c.jsonl"), dataset)) == whole
    without_maps = {key: found for key, found in whole.items() if key[0] != "auc"}
    assert values(score(written(frame, tmp_path / "d.csv"), dataset)) == without_maps
    monkeypatch.setattr(predictions, "ROWS", 5)  # batches that cut through row groups
    assert values(score(written(shuffled, tmp_path / "e.parquet", row_group_size=7), dataset)) == whole


def test_points_of_texts_are_stored_and_scored_apart(tmp_path):
    """Where a model's text and its heatmap say different places, each has its error; in both forms of a file."""
    dataset = world()
    frame = answers(dataset)[["person_id", "x", "y"]]
    of_texts = frame.assign(x=1 - frame["x"], y=frame["y"] / 2)
    both = frame.assign(text_x=of_texts["x"], text_y=of_texts["y"])
    records = dataset.records("test")
    writer = PartWriter(tmp_path / "part.parquet", dataset.protocol)
    batch = batch_of(records, range(len(records)))
    points = [torch.tensor(both[[x, y]].to_numpy()) for x, y in (("x", "y"), ("text_x", "text_y"))]
    writer.write(batch, Prediction(point=points[0], text_point=points[1]))
    writer.close()
    alone = {name: score(written(one, tmp_path / f"{name}.csv"), dataset)["metrics"]
             for name, one in {"points": frame, "texts": of_texts}.items()}  # fmt: skip
    for path in (written(both, tmp_path / "both.csv"), tmp_path / "part.parquet"):
        found = score(path, dataset)["metrics"]
        assert found["avg_l2"] == alone["points"]["avg_l2"]
        assert found["text_l2"] == alone["texts"]["avg_l2"]
    assert {"all", "inconsistent"} <= found["text_l2"].keys()
    assert "text_l2" not in alone["points"]


def test_columns_that_are_not_there_or_empty_make_their_metrics_absent(tmp_path):
    dataset = world()
    frame = answers(dataset)
    points = score(written(frame[["person_id", "x", "y"]], tmp_path / "points.csv"), dataset)["metrics"]
    assert not {"auc", "ap", "f1_lah", "acc_1_exact"} & points.keys()
    empty = frame[["person_id", "x", "y"]].assign(inout=np.nan, label=None, heatmap_h=None)
    assert score(written(empty, tmp_path / "empty.csv"), dataset)["metrics"] == points
    maps = score(written(frame.drop(columns=["x", "y"]), tmp_path / "maps.parquet"), dataset)["metrics"]
    assert maps["auc"] == score(written(frame, tmp_path / "all.parquet"), dataset)["metrics"]["auc"]
    assert maps["avg_l2"] != points["avg_l2"], "decoded from the heatmaps"


def test_a_label_is_taken_letter_by_letter(tmp_path):
    dataset = world()
    truth = dataset.records("test").columns["label"]
    truth[:] = np.resize(["None", "NA", "12", "true", "nan"], len(truth))
    frame = pd.DataFrame({"person_id": dataset.records("test").person_id.astype(str), "label": truth})
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        found = score(written(frame, tmp_path / name), dataset)["metrics"]["acc_1_exact"]["all"]
        assert (found["value"], found["count"]) == (1, len(truth))


BAD = {
    "x in pixels": ({"x": 640}, "x is 640.*normalised"),
    "y in pixels": ({"y": -3.5}, r"y is -3\.5.*normalised"),
    "x that is no number": ({"x": "left"}, "x"),
    "x with an underscore": ({"x": "0_1"}, "x"),
    "x that is infinite": ({"x": "inf"}, "x"),
    "no y where others have one": ({"y": None}, "y"),
    "no inout where others have one": ({"inout": None}, "inout"),
    "a person twice": ({}, "person"),
    "no person": ({"person_id": None}, "person_id"),
    "a label that is no text": ({"label": 3}, "label"),
    "pairs that are no object": ({"lah": "{"}, "lah"),
    "pairs in a list": ({"lah": "[1]"}, "lah"),
    "a score of a pair that is a word": ({"lah": {"a": "much"}}, "lah"),
    "a score of a pair above 1": ({"sa": {"a": 1.5}}, "sa"),
    "a score of a pair that is no number": ({"lah": {"a": float("nan")}}, "lah"),
    "nobody of a pair": ({"lah": {}}, None),
    "a heatmap of another size": ({"heatmap": np.zeros(6, np.float32), "heatmap_h": 2, "heatmap_w": 3}, "heatmap"),
    "a heatmap that does not fit its size": ({"heatmap": np.zeros(5, np.float32)}, "heatmap"),
    "a heatmap that is not finite": ({"heatmap": np.full(48, np.nan, np.float32)}, "heatmap"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named(tmp_path, case):
    change, column = BAD[case]
    dataset = world()
    frame = answers(dataset).astype(object)
    change = {"person_id": frame.at[0, "person_id"]} if "twice" in case else change
    for name, value in change.items():
        frame.at[2, name] = value
    rows = [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in frame.to_dict("records")
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"bad\.jsonl:3: .*{column}" if column else r"bad\.jsonl.*same picture"):
        score(path, dataset)


@pytest.mark.parametrize(
    ("x", "y"),
    [(640, 480), (65, 50), (500, 800), (-0.8, 0.4), (0.5, 2)],
    ids=["pixels", "per cent", "1/1000", "-1", "2"],
)
def test_points_in_another_unit_are_refused(tmp_path, x, y):
    frame = answers(world())
    path = written(frame.assign(x=frame["x"] * 0 + x, y=frame["y"] * 0 + y), tmp_path / "units.csv")
    name, value = ("x", x) if not -0.5 <= x <= 1.5 else ("y", y)
    with pytest.raises(DataError, match=rf"units\.csv:2: {name} is {float(value)}"):
        score(path, world())


def test_points_a_little_outside_the_picture_are_scored(tmp_path):
    dataset = world()
    frame = answers(dataset)[["person_id"]].assign(x=-0.5, y=1.5)
    found = score(written(frame, tmp_path / "outside.csv"), dataset)["metrics"]["avg_l2"]["all"]
    records = dataset.records("test")
    far = [np.linalg.norm(records.points_of(p).mean(0) - (-0.5, 1.5)) for p in np.flatnonzero(records.inout == 1)]
    assert found["value"] == pytest.approx(np.mean(far), abs=1e-12)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("lost", [["x", "y"], ["y"]])
def test_points_without_a_number_are_refused(tmp_path, ending, lost):
    """Were they left out instead, a diverged model would have a result without distances."""
    frame = answers(world())[["person_id", "x", "y", "inout"]].assign(**dict.fromkeys(lost, np.nan))
    with pytest.raises(DataError, match=rf"nan\.{ending}: .*rows 1 to {len(frame)} .*{' and '.join(lost)}"):
        score(written(frame, tmp_path / f"nan.{ending}"), world())


def test_nothing_warns_while_a_file_is_scored(tmp_path, places, recwarn):
    """Most metrics and subsets have nobody here: a defined result, of which there is nothing to say."""
    GazeFollow.fake(tmp_path / "gf", people=4)
    records = GazeFollow(tmp_path / "gf").records("test")
    written(pd.DataFrame({"person_id": records.person_id, "x": 0.5, "y": 0.5}), tmp_path / "mine.csv")
    assert main(["score", str(tmp_path / "mine.csv"), "gazefollow", f"--dataset.root={tmp_path / 'gf'}",
                 f"--boards={places.boards}"]) == 0  # fmt: skip
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "person_id,x,y\n"),
     ("a.jsonl", '{"person_id": "a", "x": 1, "y": 1}\n{"x"\n'), ("a.jsonl", "[1]\n"), ("a.csv", "who,x,y\n"),
     ("a.txt", ""), ("a.parquet", "PAR1"), ("a.csv", ""), ("a.csv", "person_id,x,y\nnobody,0.5,0.5\n")],
)  # fmt: skip
def test_a_file_that_is_none_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"a\.{Path(name).suffix[1:]}"):
        score(tmp_path / name, world())
    with pytest.raises(DataError, match="no such file"):
        PredictionFile(tmp_path / "nowhere.csv")


def test_people_who_are_left_out(tmp_path):
    dataset = world()
    records, frame = dataset.records("test"), answers(dataset)
    some = written(frame.iloc[1:], tmp_path / "some.parquet")
    with pytest.raises(DataError, match=str(records.person_id[0])):
        score(some, dataset)
    record = score(some, dataset, partial=True)
    assert (record["samples"]["people"], record["status"]["class"]) == (records.people - 1, "smoke")
    assert any("1 people" in reason for reason in record["status"]["reasons"])
    more = pd.concat([frame, frame.iloc[:1].assign(person_id="a stranger")])
    assert score(written(more, tmp_path / "more.parquet"), dataset)["samples"]["people"] == records.people


@pytest.mark.parametrize("name", ["gazelle", "one_annotator", "center", "chong", "pdp", "sharingan"])
def test_scoring_the_file_of_a_run_gives_exactly_its_record(tmp_path, places, name):
    outcome = bench(small_config(name), places)
    file = outcome.folder / "predictions.parquet"
    again = score(file, GazeWorld(train=6, val=3, test=4), title="again")
    assert (again["metrics"], again["samples"]) == (outcome.record["metrics"], outcome.record["samples"])
    assert (again["method"]["name"], again["kind"], again["status"]["class"]) == ("again", "score", "smoke")
    made = PredictionFile(file).provenance
    assert made["run"] == outcome.record["run"]
    assert (made["method"]["name"], made["method"]["version"]) == (name, 1)
    assert str(tmp_path) not in json.dumps(made), "no folder of this machine"


def test_scores_found_while_predicting_are_those_of_the_file(places, monkeypatch):
    """A test elsewhere compares the file's scores with the record's; here both ways have to have been taken."""
    ways = []
    taken = Measured.covers
    monkeypatch.setattr(Measured, "covers", lambda self, records: ways.append(taken(self, records)) or ways[-1])
    config = small_config("gazelle")
    outcome = bench(config, places)
    people = pd.read_parquet(outcome.folder / "scores.parquet")
    for name in ("record.json", "scores.parquet"):
        (outcome.folder / name).unlink()
    again = bench(config, places)  # from the file alone
    assert ways == [True]
    pd.testing.assert_frame_equal(pd.read_parquet(again.folder / "scores.parquet"), people, rtol=0, atol=1e-12)
    for metric, subsets in outcome.record["metrics"].items():
        for subset, found in subsets.items():
            assert again.record["metrics"][metric][subset] == pytest.approx(found, rel=0, abs=1e-12)


def test_a_thread_that_cannot_write_stops_the_run(places, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("gazebench.engine.predict.PartWriter.write", full)
    with pytest.raises(OSError, match="no space left"):
        bench(small_config("center"), places)


def batch_of(records, images):
    some = records.of_images(np.array(images))
    return Batch(
        images=None, image_index=torch.from_numpy(some.person_image), head=torch.from_numpy(some.head).float(),
        person_ids=some.person_id.tolist(), image_ids=some.images.tolist(), sizes=torch.from_numpy(some.sizes),
    )  # fmt: skip


def test_parts_of_several_processes_become_one_file_in_order(tmp_path):
    dataset = world(40)
    records = dataset.records("test")
    for rank, images in enumerate((range(0, 40, 2), [*range(1, 40, 2), 0], [])):  # the last one saw nobody
        part = PartWriter(tmp_path / "parts" / f"part-{rank}.parquet", dataset.protocol)
        for start in range(0, len(images), 3):
            batch = batch_of(records, images[start : start + 3])
            place = torch.tensor([records.person_id.tolist().index(person) for person in batch.person_ids])
            maps = torch.linspace(0, 1, 12).view(1, 3, 4).repeat(batch.people, 1, 1)
            part.write(batch, Prediction(heatmap=maps, point=torch.stack([place, place], 1) / 1000))
        part.close()
    order = records.person_id.tolist()
    merge_parts(tmp_path / "parts", tmp_path / "whole.parquet", order, {"run": "abc"})
    assert not (tmp_path / "parts").exists()
    file = PredictionFile(tmp_path / "whole.parquet")
    assert (file.frame.index.tolist(), file.provenance) == (order, {"run": "abc"})
    found = file.prediction(records, {})
    np.testing.assert_allclose(found.point[:, 0], np.arange(records.people) / 1000, atol=1e-7)
    assert found.heatmap.shape == (records.people, 3, 4)


@pytest.mark.parametrize("field", ["heatmap", "point", "inout", "text_point"])
def test_an_answer_that_is_not_finite_stops_the_run(tmp_path, field):
    dataset = world()
    batch = batch_of(dataset.records("test"), [0, 1])
    shape = (batch.people, *{"heatmap": (4, 4), "inout": ()}.get(field, (2,)))
    with pytest.raises(UserError, match=field):
        PartWriter(tmp_path / "part.parquet", dataset.protocol).write(
            batch, Prediction(**{field: torch.full(shape, torch.nan)})
        )


def crowd(counts, sizes=(64, 48)):
    """Records with so many people in each image."""
    people, names = sum(counts), np.array([f"{k}.png" for k in range(len(counts))], dtype=str)
    return Records(
        dataset="crowd", split="test", images=names, groups=names,
        person_id=np.array([f"p{k}" for k in range(people)], dtype=str),
        person_image=np.repeat(np.arange(len(counts)), counts), head=np.tile([0.1, 0.1, 0.2, 0.2], (people, 1)),
        points=np.full((people, 2), 0.5), point_start=np.arange(people + 1), inout=np.ones(people, np.int8),
        sizes=np.tile(np.array(sizes), (len(counts), 1)),
    )  # fmt: skip


@pytest.mark.parametrize("counts", [[3, 0, 1], [900, 2], [0, 0, 256, 1], [1] * 600])
def test_chunks_are_whole_images_of_about_so_many_people(counts):
    parts = [part.tolist() for part in chunks(crowd(counts))]
    assert [image for part in parts for image in part] == list(range(len(counts)))
    assert all(sum(counts[k] for k in part) <= 256 or len(part) == 1 for part in parts)
