"""The ChildPlay parser and protocol on hand-written clips in the official layout."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.dataset import COMPLETE
from gazebench.data.transforms import Preprocess
from gazebench.datasets.childplay import COLUMNS, ChildPlay, released
from gazebench.metrics.scoring import Scorer

HEADER = ",".join(COLUMNS)
CLIP = "ab-C_d_120-129"


def row(frame=1, person=1, box=(10, 20, 30, 40), label="inside_visible", gaze=(50, 60), child=1, clip=CLIP):
    return ",".join(map(str, [clip, frame, person, *box, label, *gaze, child]))


def dataset(root, clips, folder=str):
    """Writes clips {part/clip: rows} and an empty file for every frame; ``folder`` names image folders."""
    for part in ("train", "val", "test"):
        (root / "annotations" / part).mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    for name, rows in clips.items():
        part, clip = name.split("/")
        text = "\n".join([HEADER, *rows, ""])
        (root / "annotations" / part / f"{clip}.csv").write_text(text, encoding="utf-8")
        images = root / "images" / folder(clip)
        images.mkdir(parents=True, exist_ok=True)
        video, span = clip.removesuffix("-downsampled").rsplit("_", 1)
        for frame in range(13):
            (images / f"{video}_{int(span.split('-')[0]) + frame - 1}.jpg").touch()
    return ChildPlay(root)


def test_people_of_a_frame_stand_together_and_frames_in_order(tmp_path):
    rows = [row(10, 2), row(9, 2), row(10, 1), row(9, 10), row(9, 3, label="outside_frame", gaze=(-1, -1), child=0)]
    other = "0-9_7-9"
    records = dataset(tmp_path, {f"test/{CLIP}": rows, f"test/{other}": [row(3, clip=other)]}).parse("test")
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
    records = dataset(tmp_path, {f"test/{CLIP}": [row(box=(10.5, 20, 30, 40.25), gaze=(1.5, 2))]}).parse("test")
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
    assert data.identity("test")["found"] == found


def test_heads_are_all_annotated_heads_of_the_frame(tmp_path):
    rows = [
        row(1, 1, (0, 0, 10, 10)),
        row(1, 2, (20, 0, 10, 10), "gaze_shift"),
        row(1, 3, (40, 0, 10, 10), gaze=(-1, -1)),
        row(2, 1, (60, 0, 10, 10)),
        row(3, 1, (80, 0, 10, 10), "eyes_closed"),
    ]
    heads = dataset(tmp_path, {f"test/{CLIP}": rows}).parse("test").columns["heads"]
    assert heads.shape == (2, 3, 4)
    assert heads[0, :, 0].tolist() == [0, 20, 40]
    assert heads[1, 0].tolist() == [60, 0, 70, 10]
    assert np.isnan(heads[1, 1:]).all()


@pytest.mark.parametrize("inside", [CLIP, f"{CLIP}-downsample", f"{CLIP}-downsampled"])
@pytest.mark.parametrize("folder", [CLIP, f"{CLIP}-downsampled"])
def test_a_downsampled_clip_has_the_ids_of_any_other(tmp_path, inside, folder):
    rows = {f"test/{CLIP}-downsampled": [row(2, clip=inside)]}
    data = dataset(tmp_path, rows, folder=lambda clip: folder)
    records = data.records("test")
    assert records.person_id.tolist() == [f"{CLIP}/2#1"]
    assert records.images.tolist() == [f"images/{CLIP}/ab-C_d_121.jpg"]
    assert data.path(records, 0).is_file()


def test_files_that_are_not_one_a_clip_are_refused(tmp_path):
    data = dataset(tmp_path, {f"train/{CLIP}": [row()], f"val/{CLIP}-downsampled": [row()]})
    assert data.records("val").people == 1
    with pytest.raises(DataError, match=rf"{CLIP}.*{CLIP}"):
        data.records("trainval")
    (tmp_path / "annotations" / "val" / "notes.csv").touch()
    with pytest.raises(DataError, match=r"notes\.csv"):
        data.parse("val")
    shutil.rmtree(tmp_path / "annotations" / "val")
    with pytest.raises(DataError, match="annotations/val"):
        data.parse("trainval")


def test_the_row_past_its_clips_end_is_left_out(tmp_path):
    clip = "4yWavYq9_Ks_405-451"
    data = dataset(tmp_path, {f"train/{clip}": [row(2, clip=clip), row(48, clip=clip)]})
    assert data.records("train").person_id.tolist() == [f"{clip}/2#1"]
    assert data.completeness("train").found["left_out_without_picture"] == 1


LENGTHS = {
    "whHPATlDw8M_5014-5313": 150,
    "smwfiZd8HLc_897-1557": 330,
    "4yWavYq9_Ks_405-451": 47,
    "DGls-Z4e6OI_8031-8107": 77,
}
"""Two downsampled clips of the release, of which one has half the frames of its name rounded down, and two others."""


@pytest.mark.parametrize("clip", [*LENGTHS, CLIP, f"{CLIP}-downsampled"])
def test_a_frame_past_the_end_of_its_clip_is_a_bad_row(tmp_path, clip):
    """Clips of the release end where its list says, others where their name says."""
    last = LENGTHS.get(clip, 5 if clip.endswith("ed") else 10)
    past = last + (2 if clip == "4yWavYq9_Ks_405-451" else 1)  # of which one row is in the release
    data = dataset(tmp_path, {f"test/{clip}": [row(last, clip=clip), row(past, clip=clip)]})
    with pytest.raises(DataError, match=rf"{clip}\.csv:3: frame {past} of a clip of {last} frames"):
        data.parse("test")
    skipping = ChildPlay(tmp_path, bad_rows="skip", missing_images="skip")
    assert [issue.row for issue in skipping.parse("test").issues if issue.row] == [3]


def test_the_list_is_that_of_the_release():
    clips = released()
    sizes = {split: [n for part, n in clips.values() if part == split] for split in ("train", "val", "test")}
    assert {split: (len(n), sum(n)) for split, n in sizes.items()} == {
        "train": (330, 100_280), "val": (26, 10_283), "test": (45, 9_986),
    }  # fmt: skip
    spans = {clip: int(clip.rsplit("-", 1)[1]) - int(clip.rsplit("_", 1)[1].split("-")[0]) + 1 for clip in clips}
    halved = {clip for clip, (_, frames) in clips.items() if frames != spans[clip]}
    assert len(halved) == 9
    assert all(abs(clips[clip][1] - spans[clip] / 2) <= 0.5 for clip in halved)
    facts = Path("../shared/facts/childplay_clips.csv")
    if facts.is_file():
        given = pd.read_csv(facts)
        listed = zip(given["clip"].map(ChildPlay.canonical), given["split"], given["frame_count"], strict=True)
        assert clips == {clip: (split, frames) for clip, split, frames in listed}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The test split as released: every clip with all its pictures, the first two frames annotated."""
    root = tmp_path_factory.mktemp("complete")
    dataset(root, {})
    for clip, (split, count) in released().items():
        if split == "test":
            rows = [HEADER, *(row(frame, clip=clip) for frame in (1, 2)), ""]
            (root / "annotations" / split / f"{clip}.csv").write_text("\n".join(rows), encoding="utf-8")
            (root / "images" / clip).mkdir()
            for picture in pictures(root, clip, count):
                picture.touch()
    return root


def pictures(root, clip, count):
    video, span = clip.rsplit("_", 1)
    first = int(span.split("-")[0])
    return [root / "images" / clip / f"{video}_{number}.jpg" for number in range(first, first + count)]


def test_every_clip_of_the_list_is_there(complete):
    data = ChildPlay(complete)
    table = pd.DataFrame(data.inventory("test"))
    assert (len(table), table["frames"].sum(), table["pictures"].sum(), table["annotated"].sum()) == (
        45,
        9986,
        9986,
        90,
    )
    assert set(table["verdict"]) == {COMPLETE}
    assert data.lacking("test") == []
    assert data.completeness("test").complete


HALF = "whHPATlDw8M_5014-5313"
"""A downsampled clip."""


def test_every_clip_is_checked_against_the_list(complete, tmp_path, capsys):
    shutil.copytree(complete, tmp_path, dirs_exist_ok=True)
    annotations = tmp_path / "annotations" / "test"
    plain = [clip for clip, (split, _) in released().items() if split == "test" and clip != HALF]
    val = next(clip for clip, (split, _) in released().items() if split == "val")
    frames = {clip: released()[clip][1] for clip in (*plain, HALF, val)}
    (annotations / f"{plain[0]}.csv").unlink()
    shutil.rmtree(tmp_path / "images" / plain[1])
    pictures(tmp_path, plain[2], 2)[1].unlink()  # an annotated one
    pictures(tmp_path, plain[3], 5)[4].unlink()  # another: nobody is scored in it
    for picture in pictures(tmp_path, HALF, 2 * frames[HALF]):  # every frame, where the release has every other one
        picture.touch()
    with (annotations / f"{plain[4]}.csv").open("a") as file:
        file.write(row(frames[plain[4]] + 1, clip=plain[4]))
    dataset(tmp_path, {f"test/{CLIP}": [row()], f"test/{val}": [row(clip=val)]})
    data = ChildPlay(tmp_path)
    found = {tuple(each.values()) for each in data.inventory("test") if each["verdict"] != COMPLETE}
    assert found == {
        (plain[0], frames[plain[0]], frames[plain[0]], 0, 0, "without an annotation file"),
        (plain[1], frames[plain[1]], 0, 2, 2, "without pictures"),
        (plain[2], frames[plain[2]], frames[plain[2]] - 1, 2, 1, "with annotated frames without a picture"),
        (HALF, 150, 300, 2, 0, "with more pictures than frames"),
        (plain[4], frames[plain[4]], frames[plain[4]], 3, 0, "annotated beyond its end"),
        (CLIP, 10, 13, 1, 0, "not in the release's list"),
        (val, frames[val], 13, 1, 0, "of another split"),
    }
    skipping = ChildPlay(tmp_path, bad_rows="skip", missing_images="skip")
    assert not skipping.completeness("test").complete
    assert all(any(clip in line for line in skipping.lacking("test")) for clip in (plain[0], HALF, CLIP, val))
    options = ["data", "check", "childplay", f"--dataset.root={tmp_path}"]
    assert main([*options, "--rows=6"]) == 2, "the annotations of train are missing"
    short = capsys.readouterr().out
    assert main([*options, "--rows=0"]) == 2
    long = capsys.readouterr().out
    assert "test: 40 of 47 clips are complete" in short
    assert "... and 1 more" in short
    assert f"{HALF} 150 300 2 0 with more pictures than frames" in " ".join(long.split())
    assert f"{plain[3]} {frames[plain[3]]} {frames[plain[3]] - 1} 2 0 complete" in " ".join(long.split())
    assert plain[3] not in short


def test_the_fingerprint_covers_the_heads(tmp_path):
    rows = [row(1, 1), row(1, 2, (100, 0, 9, 9), "gaze_shift")]
    one = dataset(tmp_path / "one", {f"test/{CLIP}": rows}).parse("test")
    rows[1] = row(1, 2, (100, 0, 9, 8), "gaze_shift")
    other = dataset(tmp_path / "other", {f"test/{CLIP}": rows}).parse("test")
    assert one.person_id.tolist() == other.person_id.tolist()
    assert one.fingerprint() != other.fingerprint()
    again = ChildPlay(tmp_path / "one").parse("test")  # from the cache of parsed annotations
    assert again.fingerprint() == one.fingerprint()
    assert again.counts == one.counts


def loaded(data, split, augment=False):
    preprocess = Preprocess(size=(28, 28), crop=1.0, flip=0.5, box_jitter=1.0, jitter=0.3)
    return ImageSamples(data, data.records(split), preprocess, augment=augment, sees_images=False, seed=3)


def test_heads_reach_a_batch_normalised(tmp_path):
    samples = loaded(ChildPlay.fake(tmp_path, people=8), "test")
    batch = collate([samples[image] for image in range(len(samples))])
    heads = batch.targets.columns["heads"]
    assert heads.shape == samples.records.columns["heads"].shape
    assert torch.isclose(heads.float(), batch.head[:, None]).all(2).any(1).all(), "one's own head is among them"
    assert (heads[~heads.isnan()] <= 1).all()


def test_heads_follow_the_training_view_without_jitter(tmp_path):
    """A point keeps its place in a box, whatever the crop and the flip."""
    data = ChildPlay.fake(tmp_path, people=30)
    plain, moved = loaded(data, "train"), loaded(data, "train", augment=True)
    compared = 0
    for image in range(len(plain)):
        before, after = plain[(0, image)].records, moved[(0, image)].records
        for person in range(before.people):
            for old, new in zip(before.points_of(person), after.points_of(person), strict=True):
                for box, view in zip(before.columns["heads"][person], after.columns["heads"][person], strict=True):
                    if np.isnan(box).any() or (view <= 0).any() or (view >= 1).any():
                        continue  # none, or cut by the crop
                    place, placed = (old - box[:2]) / (box[2:] - box[:2]), (new - view[:2]) / (view[2:] - view[:2])
                    np.testing.assert_allclose(np.abs(placed - 0.5), np.abs(place - 0.5))
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
    for file in (tmp_path / "images" / CLIP).iterdir():
        Image.new("RGB", (120, 100)).save(file)
    annotations, size = data.parse("test"), np.array([120, 100])
    point = rng.integers(0, 100, (annotations.people, 2)) / size
    scorer = Scorer(data.protocol, data.records("test"))
    scorer.update(np.arange(len(annotations)), Prediction(point=torch.from_numpy(point)))
    hits, right = 0, 0
    for person in np.flatnonzero(annotations.inout == 1):
        x, y = point[person] * size
        gx, gy = annotations.points_of(person)[0]
        boxes = [box for box in annotations.columns["heads"][person].tolist() if not np.isnan(box[0])]
        if any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes):
            hits += 1
            right += any(x0 <= gx <= x1 and y0 <= gy <= y1 for x0, y0, x1, y1 in boxes)
    score = scorer.compute()["p_head"]["all"]
    assert 0 < right < hits
    assert (score.value, score.count) == (right / hits, hits)
