"""The GazeFollow parser on hand-written files in the official layout, and the cache of parsed annotations."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image

from gazebench.core.errors import DataError
from gazebench.data.datamodule import ImageSamples
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazefollow import GazeFollow, held_out

REAL = Path(__file__).parents[2] / "shared" / "real" / "gazefollow"
TRAIN, TEST = "train_annotations_release.txt", "test_annotations_release.txt"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def row(path="train/00000000/00000001.jpg", eye=(0.5, 0.3), gaze=(0.7, 0.6), head=(10, 20, 30, 40), inout: object = 1):
    """A row of 17 columns, or of 16 where ``inout`` is None."""
    label = [] if inout is None else [inout]
    return ",".join(map(str, [path, 1, 0.1, 0.2, 0.3, 0.4, *eye, *gaze, *head, *label, "gazefollow", "original"]))


def dataset(root, train=(), test=(), **options):
    """Writes both files, and an empty file for every image they name."""
    root.mkdir(exist_ok=True)
    for name, lines in ((TRAIN, train), (TEST, test)):
        (root / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
        for line in lines:
            image = root / line.split(",")[0].strip()
            if image.suffix == ".jpg":
                image.parent.mkdir(parents=True, exist_ok=True)
                image.touch()
    return GazeFollow(root, **options)


def test_a_training_row_becomes_a_person(tmp_path):
    records = dataset(tmp_path / "gf", train=[row()]).parse("trainval")
    assert records.images.tolist() == ["train/00000000/00000001.jpg"]
    assert records.person_id.tolist() == ["train/00000000/00000001.jpg#0.5"]
    assert records.head.tolist() == [[10, 20, 30, 40]]
    assert records.points.tolist() == [[0.7, 0.6]]
    assert (records.head_unit, records.point_unit) == ("pixel", "normalised")
    assert records.inout.tolist() == [1]


def test_annotators_are_grouped_by_image_and_eye_x(tmp_path):
    a, b = "test2/00000000/00000001.jpg", "test2/00000000/00000002.jpg"
    lines = [
        row(b, (0.5, 0.3), (0.1, 0.1), inout=None),
        row(a, (0.50, 0.3), (0.2, 0.1), inout=None),
        row(b, (0.25, 0.3), (0.3, 0.1), (1, 2, 3, 4), inout=None),
        row(b, ("0.500", 0.9), (0.4, 0.1), (7, 7, 9, 9), inout=None),
        row(b, (0.25, 0.3), (0.5, 0.1), inout=None),
    ]
    records = dataset(tmp_path / "gf", test=lines).parse("test")
    assert records.images.tolist() == [b, a]
    assert records.person_id.tolist() == [f"{b}#0.5", f"{b}#0.25", f"{a}#0.5"]
    assert [records.points_of(person)[:, 0].tolist() for person in range(3)] == [[0.1, 0.4], [0.3, 0.5], [0.2]]
    assert records.head[:2].tolist() == [[10, 20, 30, 40], [1, 2, 3, 4]]
    assert records.inout.tolist() == [1, 1, 1]


def test_in_out_labels(tmp_path):
    lines = [
        row(eye=(0.1, 0.3), inout=1),
        row(eye=(0.2, 0.3), gaze=(-1, -1), inout=0),
        row(eye=(0.3, 0.3), inout=-1),
        row(eye=(0.4, 0.3), inout=None),
        row("train/00000000/00000009.jpg", inout=-1),
    ]
    records = dataset(tmp_path / "gf", train=lines).records("trainval")
    assert [name.rsplit("#")[1] for name in records.person_id] == ["0.1", "0.2", "0.4"]
    assert records.inout.tolist() == [1, 0, 1]
    assert np.diff(records.point_start).tolist() == [1, 0, 1]
    assert len(records) == 1


def test_reversed_and_outlying_boxes_are_kept_and_cleaned_by_the_shared_rule(tmp_path):
    data = dataset(tmp_path / "gf", train=[row(head=(50, 40, -10, 20))])
    Image.new("RGB", (40, 80)).save(tmp_path / "gf" / "train/00000000/00000001.jpg")
    assert data.records("trainval").head.tolist() == [[0, 0.25, 1, 0.5]]


def test_a_missing_root_or_file_says_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"csail\.mit\.edu"):
        GazeFollow(tmp_path / "nowhere").records("test")
    with pytest.raises(DataError, match=f"holds no {TEST}"):
        GazeFollow(tmp_path).records("test")


@pytest.mark.parametrize(("name", "split"), [(TRAIN, "trainval"), (TEST, "test")])
def test_the_release_of_2015_is_told_from_the_edition_with_head_boxes(tmp_path, name, split):
    whole = row().split(",")
    line = ",".join([*whole[:10], *whole[-2:]])
    assert line.count(",") == 11
    data = dataset(tmp_path / "gf", train=[line] * 3, test=[line] * 3)
    with pytest.raises(DataError, match=f"{name}.*2015.*gazefollow_extended"):
        data.records(split)


def test_validation_is_a_rule_over_images(tmp_path):
    images = np.array([f"train/{n // 1000:08d}/{n:08d}.jpg" for n in range(20000)])
    val = held_out(images)
    assert 0.035 < val.mean() < 0.045
    for image, held in zip(images[:200], val, strict=False):
        digest = hashlib.sha256(b"gazebench-gazefollow-val-1:" + image.encode()).digest()
        assert held == (int.from_bytes(digest[:4], "big") < 0.04 * 2**32)
    np.testing.assert_array_equal(held_out(images[::-1])[::-1], val)

    chosen = [*images[val][:3], *images[~val][:7]]
    data = dataset(tmp_path / "gf", train=[row(image, (x, 0.3)) for image in chosen for x in (0.1, 0.2)])
    people = {split: set(data.records(split).person_id) for split in ("train", "val", "trainval")}
    assert [len(people[split]) for split in ("train", "val", "trainval")] == [14, 6, 20]
    assert people["train"] | people["val"] == people["trainval"]
    assert data.records("val").split == "val"
    assert set(data.records("val").images) == set(images[val][:3])


def test_the_eye_stands_where_the_picture_puts_it(tmp_path):
    """The head's centre is the eye here, so in every view they fall together (boxes are not jittered)."""
    file = tmp_path / "gf" / "train" / "00000000" / "00000001.jpg"
    data = dataset(tmp_path / "gf", train=[row(eye=(0.25, 0.5), head=(15, 40, 35, 60), gaze=(0.5, 0.6))])
    Image.new("RGB", (100, 100)).save(file)
    records = data.records("trainval")
    assert records.columns["eye"].tolist() == [[0.25, 0.5]]
    preprocess = Preprocess(size=(16, 16), crop=1, flip=0.5, box_jitter=0)
    samples, views = ImageSamples(data, records, preprocess, augment=True, sees_images=False), set()
    for epoch in range(20):
        seen = samples[epoch, 0].records
        centre = (seen.head[0, :2] + seen.head[0, 2:]) / 2
        if (seen.head > 0).all() and (seen.head < 1).all():
            np.testing.assert_allclose(seen.columns["eye"][0], centre, atol=1e-12)
            views.add(tuple(centre))
    assert len(views) > 5


def test_points_in_pixels_of_a_column_are_normalised_as_the_others(tmp_path):
    annotations = dataset(tmp_path / "gf", train=[row(eye=(20, 30))]).parse("trainval")
    records = replace(annotations, point_unit="pixel").normalised(np.array([[200, 100]]))
    np.testing.assert_allclose(records.columns["eye"], [[0.1, 0.3]])


def test_the_cache_gives_the_same_annotations_without_parsing(tmp_path, monkeypatch):
    lines = [row(), row("train/00000000/é 日本.jpg", (0.1, 0.2), inout=0), "bad"]
    first = dataset(tmp_path / "gf", train=lines, bad_rows="skip").parse("trainval")
    monkeypatch.setattr("gazebench.datasets.gazefollow._people", lambda *_: pytest.fail("parsed again"))
    again = GazeFollow(tmp_path / "gf", bad_rows="skip").parse("trainval")
    assert len(again.issues) == 1
    for name, value in vars(first).items():
        np.testing.assert_equal(getattr(again, name), value)
        assert getattr(getattr(again, name), "dtype", None) == getattr(value, "dtype", None)
    with pytest.raises(DataError, match=f"{TRAIN}:3: "):
        GazeFollow(tmp_path / "gf").parse("trainval")


def test_an_edited_file_is_parsed_again(tmp_path):
    assert dataset(tmp_path / "gf", train=[row()]).parse("trainval").people == 1
    assert dataset(tmp_path / "gf", train=[row(), row(eye=(0.1, 0.1))]).parse("trainval").people == 2
    file = tmp_path / "gf" / TRAIN
    stat = file.stat()
    file.write_text(file.read_text().replace("0.1,0.1", "0.9,0.1"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert GazeFollow(tmp_path / "gf").parse("trainval").person_id[1].endswith("#0.9")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_cache_file_is_built_again(tmp_path, cache, damage):
    first = dataset(tmp_path / "gf", train=[row()]).annotations("trainval")
    (file,) = cache.rglob("output.pkl*")
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes({
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "empty": b"",
        "text": b"not an archive",
    }[damage])  # fmt: skip
    assert GazeFollow(tmp_path / "gf").annotations("trainval").fingerprint() == first.fingerprint()
    assert joblib.load(file).fingerprint() == first.fingerprint()


def test_without_a_writable_cache_everything_still_loads(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert dataset(tmp_path / "gf", train=[row()]).records("trainval").people == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mini-set is not beside the checkout")
def test_the_real_mini_set():
    data = GazeFollow(REAL)
    trainval, test = data.records("trainval"), data.records("test")
    assert (trainval.people, len(trainval.points)) == (184, 184)
    assert (test.people, len(test), len(test.points)) == (33, 33, 308)
    assert not trainval.issues
    assert data.records("train").people + data.records("val").people == 184
    counts = np.diff(test.point_start)
    assert counts.min() >= 6
    assert counts.max() <= 10
    for image in range(len(test)):
        assert data.image(test, image, (32, 32)).shape == (32, 32, 3)
    assert (test.sizes > 0).all()
    assert ((test.head[:, :2] >= 0) & (test.head[:, :2] < 1)).all()
