"""The ChildPlay parser and protocol on hand-written clips in the official layout."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.childplay import COLUMNS, ChildPlay
from gazebench.engine.contract import small_config
from gazebench.engine.run import Places, bench
from gazebench.metrics.scoring import Scorer

HEADER = ",".join(COLUMNS)
CLIP = "ab-C_d_120-129"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))


def row(frame=1, person=1, box=(10, 20, 30, 40), label="inside_visible", gaze=(50, 60), child=1, clip=CLIP):
    return ",".join(map(str, [clip, frame, person, *box, label, *gaze, child]))


def dataset(root, clips, header=HEADER, folder=str, frames=12, **options):
    """Writes clips {part/clip: rows} and an empty file for every frame; ``folder`` names image folders."""
    for part in ("train", "val", "test"):
        (root / "annotations" / part).mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    for name, rows in clips.items():
        part, clip = name.split("/")
        text = "\n".join([header, *rows, ""])
        (root / "annotations" / part / f"{clip}.csv").write_text(text, encoding="utf-8")
        images = root / "images" / folder(clip)
        images.mkdir(parents=True, exist_ok=True)
        video, span = clip.removesuffix("-downsampled").rsplit("_", 1)
        for frame in range(frames + 1):
            (images / f"{video}_{int(span.split('-')[0]) + frame - 1}.jpg").touch()
    return ChildPlay(root, **options)


def test_people_of_a_frame_stand_together_and_frames_in_order(tmp_path):
    rows = [row(10, 2), row(9, 2), row(10, 1), row(9, 10), row(9, 3, label="outside_frame", gaze=(-1, -1), child=0)]
    other = "0-9_7-9"
    records = dataset(tmp_path, {f"test/{CLIP}": rows, f"test/{other}": [row(3, clip=other)]}).records("test")
    assert records.groups.tolist() == [other, CLIP, CLIP]
    assert records.images.tolist() == [
        f"images/{other}/0-9_9.jpg",
        f"images/{CLIP}/ab-C_d_128.jpg",
        f"images/{CLIP}/ab-C_d_129.jpg",
    ]
    names = [f"{other}/3#1", *(f"{CLIP}/{place}" for place in ("9#2", "9#3", "9#10", "10#1", "10#2"))]
    assert records.person_id.tolist() == names
    assert records.person_image.tolist() == [0, 1, 1, 1, 2, 2]
    assert records.columns["track"].tolist() == [f"{other}#1", *(f"{CLIP}#{person}" for person in (2, 3, 10, 1, 2))]
    assert records.columns["is_child"].tolist() == [1, 1, 0, 1, 1, 1]
    assert records.inout.tolist() == [1, 1, 0, 1, 1, 1]
    assert records.point_start.tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert (records.head_unit, records.point_unit) == ("pixel", "pixel")


def test_boxes_are_corner_and_size(tmp_path):
    records = dataset(tmp_path, {f"test/{CLIP}": [row(box=(10.5, 20, 30, 40.25), gaze=(1.5, 2))]}).records("test")
    assert records.head.tolist() == [[10.5, 20, 40.5, 60.25]]
    assert records.points.tolist() == [[1.5, 2]]


def test_what_the_protocol_leaves_out_is_counted_and_is_no_error(tmp_path):
    rows = [
        row(1, 1),
        row(1, 2, gaze=(-1, -1)),
        row(2, 1, gaze=(7, -1)),
        row(2, 2, label="gaze_shift", gaze=(-1, -1)),
        row(3, 1, label="eyes_closed", gaze=("", "")),
        row(3, 2, label="inside_occluded", gaze=(3, 4)),
        row(4, 1, label="inside_uncertain"),
        row(4, 2, label="outside_frame", gaze=("", "")),
    ]
    data = dataset(tmp_path, {f"test/{CLIP}": rows})
    records = data.records("test")
    assert records.person_id.tolist() == [f"{CLIP}/1#1", f"{CLIP}/4#2"]
    assert records.inout.tolist() == [1, 0]
    assert not records.issues
    found = data.completeness("test").found
    assert found["left_out_without_point"] == 2
    assert found["left_out_other_class"] == 4
    assert "2 left_out_without_point" in str(data.completeness("test"))
    assert data.identity("test")["found"] == found


def test_heads_are_all_annotated_heads_of_the_frame(tmp_path):
    rows = [
        row(1, 1, (0, 0, 10, 10)),
        row(1, 2, (20, 0, 10, 10), "gaze_shift"),
        row(1, 3, (40, 0, 10, 10), gaze=(-1, -1)),
        row(2, 1, (60, 0, 10, 10)),
        row(3, 1, (80, 0, 10, 10), "eyes_closed"),
    ]
    heads = dataset(tmp_path, {f"test/{CLIP}": rows}).records("test").columns["heads"]
    assert heads.shape == (2, 3, 4)
    assert heads[0, :, 0].tolist() == [0, 20, 40]
    assert heads[1, 0].tolist() == [60, 0, 70, 10]
    assert np.isnan(heads[1, 1:]).all()


def test_splits_are_the_official_folders(tmp_path):
    clips = {f"{part}/v{part}_1-9": [row(n + 1, clip=f"v{part}_1-9") for n in range(count)]
             for part, count in (("train", 1), ("val", 2), ("test", 4))}  # fmt: skip
    data = dataset(tmp_path, clips)
    people = {split: data.records(split).people for split in ("train", "val", "trainval", "test")}
    assert people == {"train": 1, "val": 2, "trainval": 3, "test": 4}
    assert set(data.records("trainval").groups) == {"vtrain_1-9", "vval_1-9"}


@pytest.mark.parametrize("inside", [CLIP, f"{CLIP}-downsample", f"{CLIP}-downsampled"])
@pytest.mark.parametrize("folder", [CLIP, f"{CLIP}-downsampled"])
def test_a_downsampled_clip_has_the_ids_of_any_other(tmp_path, inside, folder):
    rows = {f"test/{CLIP}-downsampled": [row(2, clip=inside)]}
    data = dataset(tmp_path, rows, folder=lambda clip: folder)
    records = data.records("test")
    assert records.person_id.tolist() == [f"{CLIP}/2#1"]
    assert records.images.tolist() == [f"images/{CLIP}/ab-C_d_121.jpg"]
    assert data.path(records, 0).is_file()


def test_a_clip_annotated_twice_is_refused(tmp_path):
    data = dataset(tmp_path, {f"train/{CLIP}": [row()], f"val/{CLIP}-downsampled": [row()]})
    assert data.records("val").people == 1
    with pytest.raises(DataError, match="same clip"):
        data.records("trainval")


def test_the_row_past_its_clips_end_is_left_out(tmp_path):
    clip = "4yWavYq9_Ks_405-451"
    data = dataset(tmp_path, {f"train/{clip}": [row(2, clip=clip), row(48, clip=clip)]})
    assert data.records("train").person_id.tolist() == [f"{clip}/2#1"]
    assert data.completeness("train").found["left_out_without_picture"] == 1


BAD = {
    "10 columns, expected 11": row(2).rsplit(",", 1)[0],
    "12 columns": row(2) + ",9",
    "column 2 is 'two'": row("two"),
    "column 4 is ''": row(2, box=("", 2, 3, 4)),
    "column 7 is 'nan'": row(2, box=(1, 2, 3, "nan")),
    "clip is 'elsewhere'": row(2, clip="elsewhere"),
    "frame must be a whole": row(2.5),
    "whole number from 1": row(0),
    "person_id one from 0": row(2, 1.25),
    "gaze_class is 'inside'": row(2, label="inside"),
    "gaze is 'left, 3'": row(2, gaze=("left", 3)),
    "gaze is ', '": row(2, gaze=("", "")),
    "gaze is 'inf, 3'": row(2, gaze=("inf", 3)),
    "no area": row(2, box=(5, 5, 9, 0)),
    "head box of no area": row(2, box=(5, 5, -3, 7)),
    "head box": row(2, box=(-9, 5, 7, 15)),
    "is_child is 'yes'": row(2, child="yes"),
    "person 1 is in frame 1 twice": row(1, 1.0),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, what):
    data = dataset(tmp_path, {f"test/{CLIP}": [row(1), BAD[what], row(3)]})
    with pytest.raises(DataError) as error:
        data.records("test")
    assert f"annotations/test/{CLIP}.csv:3: " in str(error.value)
    assert what in str(error.value)
    assert "bad_rows skip" in str(error.value)
    records = ChildPlay(tmp_path, bad_rows="skip").records("test")
    assert records.person_id.tolist() == [f"{CLIP}/1#1", f"{CLIP}/3#1"]
    assert [issue.row for issue in records.issues] == [3]


def test_rubbish_never_passes_unnamed(tmp_path):
    rng = np.random.default_rng(2)
    letters = list("0123456789.,-e naxjpg\x00é'\"")
    lines, untouched = [], 0
    for frame in range(1, 301):
        line = list(row(frame))
        for _ in range(int(rng.integers(0, 3))):
            line[int(rng.integers(len(line)))] = letters[int(rng.integers(len(letters)))]
        lines.append("".join(line))
        untouched += lines[-1] == row(frame)
    dataset(tmp_path, {f"test/{CLIP}": lines}, frames=300)
    file = tmp_path / "annotations" / "test" / f"{CLIP}.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(DataError, match=rf"annotations/test/{CLIP}\.csv:\d+: "):
        ChildPlay(tmp_path).records("test")
    records = ChildPlay(tmp_path, bad_rows="skip", missing_images="skip").records("test")
    bad = [issue.row for issue in records.issues if issue.file.endswith(".csv")]
    missing = len(records.issues) - len(bad)
    left_out = sum(number for name, number in records.counts.items() if name != "clips")
    assert len(lines) + 2 in bad
    assert len(set(bad)) == len(bad) > 50
    assert records.people + len(bad) + left_out + missing == len(lines) + 1
    assert records.people >= untouched > 50


def test_missing_frames_are_named_or_skipped(tmp_path):
    dataset(tmp_path, {f"test/{CLIP}": [*(row(n) for n in range(1, 9)), row(3, 2)]})
    for number in (122, 123):
        (tmp_path / "images" / CLIP / f"ab-C_d_{number}.jpg").unlink()
    with pytest.raises(DataError, match=rf"2 missing images:\s+images/{CLIP}/ab-C_d_122\.jpg"):
        ChildPlay(tmp_path).records("test")
    data = ChildPlay(tmp_path, missing_images="skip")
    assert data.records("test").people == 6
    assert len(data.records("test").issues) == 2


@pytest.mark.parametrize(
    ("clips", "header", "message"),
    [
        ({}, HEADER, "holds no annotation files"),
        ({f"test/{CLIP}": [row()]}, HEADER.replace("gaze_class,", ""), r"csv:1: the header is 'clip,frame"),
        ({f"test/{CLIP}": [row()]}, row(), "the header is"),
    ],
)
def test_files_that_are_none_of_the_release_are_refused(tmp_path, clips, header, message):
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, clips, header).records("test")


def test_a_root_without_a_folder_says_which(tmp_path):
    data = dataset(tmp_path, {f"train/{CLIP}": [row()]})
    (tmp_path / "annotations" / "val").rmdir()
    with pytest.raises(DataError, match="holds no annotations/val"):
        data.records("trainval")


def test_a_file_that_is_no_clip_is_refused(tmp_path):
    data = dataset(tmp_path, {f"test/{CLIP}": [row()]})
    (tmp_path / "annotations" / "test" / "notes.csv").write_text("")
    with pytest.raises(DataError, match=r"notes\.csv: not the name of a clip"):
        data.records("test")


def test_all_clips_are_the_complete_set(tmp_path):
    clips = [f"v{n}_1-9" for n in range(45)]
    data = dataset(tmp_path, {f"test/{clip}": [row(clip=clip)] for clip in clips})
    assert data.completeness("test").complete
    (tmp_path / "annotations" / "test" / "v0_1-9.csv").unlink()
    assert not ChildPlay(tmp_path).completeness("test").complete


def test_the_fingerprint_covers_the_heads(tmp_path):
    rows = [row(1, 1), row(1, 2, (100, 0, 9, 9), "gaze_shift")]
    one = dataset(tmp_path / "one", {f"test/{CLIP}": rows}).records("test")
    rows[1] = row(1, 2, (100, 0, 9, 8), "gaze_shift")
    other = dataset(tmp_path / "other", {f"test/{CLIP}": rows}).records("test")
    assert one.person_id.tolist() == other.person_id.tolist()
    assert one.fingerprint() != other.fingerprint()
    again = ChildPlay(tmp_path / "one").records("test")  # from the cache of parsed annotations
    assert again.fingerprint() == one.fingerprint()
    assert again.counts == one.counts


def test_fake_is_read_by_the_true_parser(tmp_path):
    data = ChildPlay.fake(tmp_path, people=8, seed=1)
    for split in ("train", "val", "trainval", "test"):
        records = data.records(split)
        assert records.people >= 8
        assert (records.inout == 1).any()
        assert records.counts["left_out_other_class"] > 0
        width, height = data.size(records, 0)
        assert data.picture(records, 0).shape == (height, width, 3)
    workers = pickle.loads(pickle.dumps(data))
    assert workers.path(records, 0) == data.path(records, 0)


def loaded(data, split, augment=False):
    return ImageSamples(
        data, data.records(split), Preprocess(size=(28, 28), crop=1.0, flip=0.5, box_jitter=1.0, jitter=0.3),
        augment=augment, sees_images=False, bad_images="error", seed=3,
    )  # fmt: skip


def test_heads_reach_the_evaluation_normalised(tmp_path):
    data = ChildPlay.fake(tmp_path, people=8)
    samples = loaded(data, "test")
    batch = collate([samples[image] for image in range(len(samples))])
    heads = batch.targets.extra["heads"]
    assert heads.shape == (batch.people, data.records("test").columns["heads"].shape[1], 4)
    assert torch.isclose(heads.float(), batch.head[:, None]).all(2).any(1).all(), "one's own head is among them"
    assert (heads[~heads.isnan()] <= 1).all()
    assert (batch.targets.extra["is_child"] >= 0).all()


def test_heads_follow_the_training_view_without_jitter(tmp_path):
    """A point keeps its place in a box, whatever the crop and the flip."""
    data = ChildPlay.fake(tmp_path, people=30)
    plain, moved = loaded(data, "train"), loaded(data, "train", augment=True)
    compared = 0
    for image in range(len(plain)):
        before, after = plain[(0, image)], moved[(0, image)]
        owner = np.repeat(np.arange(len(before.head)), before.counts)
        for person, old, new in zip(owner, before.points, after.points, strict=True):
            for box, view in zip(before.extra["heads"][person], after.extra["heads"][person], strict=True):
                if np.isnan(box).any() or (view <= 0).any() or (view >= 1).any():
                    continue  # none, or cut by the crop
                inside = (old >= box[:2]) & (old <= box[2:])
                assert (((new >= view[:2]) & (new <= view[2:])) == inside).all()
                assert np.allclose(np.abs((old - box[:2]) / (box[2:] - box[:2]) - 0.5),
                                   np.abs((new - view[:2]) / (view[2:] - view[:2]) - 0.5))  # fmt: skip
                compared += 1
    assert compared > 20


def test_p_head_of_a_split_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        row(frame, person, (30 * person, 20, 25, 30), label, gaze)
        for frame in range(1, 11)
        for person in range(3)
        for label in [rng.choice(["inside_visible", "outside_frame", "gaze_shift"], p=[0.7, 0.2, 0.1])]
        for gaze in [(-1, -1) if label != "inside_visible" else rng.integers(0, 100, 2).tolist()]
    ]
    data = dataset(tmp_path, {f"test/{CLIP}": rows})
    for picture in (tmp_path / "images" / CLIP).iterdir():
        Image.new("RGB", (120, 100)).save(picture)
    records, samples, size = data.records("test"), loaded(data, "test"), np.array([120, 100])
    batch = collate([samples[image] for image in range(len(samples))])
    heads = records.columns["heads"]
    point = rng.integers(0, 100, (records.people, 2)) / size
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(point=torch.from_numpy(point)), batch)
    hits, right = 0, 0
    for person in range(records.people):
        if records.inout[person] == 1:
            x, y = point[person] * size
            gx, gy = records.points_of(person)[0]
            boxes = [box for box in heads[person].tolist() if not np.isnan(box[0])]
            if any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes):
                hits += 1
                right += any(x0 <= gx <= x1 and y0 <= gy <= y1 for x0, y0, x1, y1 in boxes)
    score = evaluator.compute()["p_head"]["all"]
    assert 0 < right < hits
    assert (score.value, score.count) == (right / hits, hits)


@pytest.mark.parametrize("method", ["center", "gazelle"])
def test_a_whole_run_and_its_stored_predictions_agree(tmp_path, method):
    root = tmp_path / "data"
    ChildPlay.fake(root, people=24)
    places = Places(tmp_path / "runs", tmp_path / "boards")
    outcome = bench(small_config(method, "childplay", f"--dataset.root={root}"), places)
    assert {"auc", "l2", "angle"} <= outcome.record["metrics"].keys()
    assert ("ap" in outcome.record["metrics"]) == (method == "gazelle")
    stored = outcome.folder / "predictions.parquet"
    table = pd.read_parquet(stored)
    heads = outcome.record["metrics"].get("p_head", {"all": {"count": 0}})["all"]
    assert table["metric_p_head"].notna().sum() == heads["count"]
    assert table["label"].isna().all()
    where = [f"--runs={places.runs}", f"--boards={places.boards}"]
    assert main(["score", str(stored), "childplay", "--title=again", f"--dataset.root={root}", *where]) == 0
    scored = places.boards / "childplay"
    again = pd.read_json(next(scored.glob("again-*.json")), typ="series")["metrics"]
    assert again.keys() == outcome.record["metrics"].keys()
    for name, subsets in outcome.record["metrics"].items():
        assert again[name]["all"] == pytest.approx(subsets["all"], abs=1e-9)
