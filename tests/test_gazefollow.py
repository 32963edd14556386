"""The GazeFollow parser on hand-written files in the official layout, and the cache and checks both parsers share."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from gazebench.core.boxes import clean_boxes, normalise
from gazebench.core.errors import DataError
from gazebench.data import annotations as annotation_cache
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


def dataset(root, train=(), test=(), encoding="utf-8", end="\n", **options):
    """Writes both files, and an empty file for every image they name."""
    root.mkdir(exist_ok=True)
    for name, lines in ((TRAIN, train), (TEST, test)):
        (root / name).write_text(end.join([*lines, ""]), encoding=encoding, newline="")
        for line in lines:
            image = root / line.split(",")[0].strip()
            if image.suffix == ".jpg":
                image.parent.mkdir(parents=True, exist_ok=True)
                image.touch()
    return GazeFollow(root, **options)


def test_a_training_row_becomes_a_person(tmp_path):
    records = dataset(tmp_path / "gf", train=[row()]).records("trainval")
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
    records = dataset(tmp_path / "gf", test=lines).records("test")
    assert records.images.tolist() == [b, a]
    assert records.person_id.tolist() == [f"{b}#0.5", f"{b}#0.25", f"{a}#0.5"]
    assert [records.points_of(person)[:, 0].tolist() for person in range(3)] == [[0.1, 0.4], [0.3, 0.5], [0.2]]
    assert records.head[:2].tolist() == [[10, 20, 30, 40], [1, 2, 3, 4]]
    assert records.inout.tolist() == [1, 1, 1]


def test_an_empty_file_holds_nobody(tmp_path):
    records = dataset(tmp_path / "gf").records("train")
    assert (len(records), records.people, records.head.shape, records.points.shape) == (0, 0, (0, 4), (0, 2))


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \n"])
def test_byte_order_mark_line_ends_and_spaces_make_no_difference(tmp_path, encoding, end):
    lines = [row(eye=(0.1, 0.3)), row("train/00000001/00001002.jpg")]
    plain = dataset(tmp_path / "a", train=lines).records("trainval")
    spaced = dataset(tmp_path / "b", train=[line.replace(",", " , ") for line in lines], encoding=encoding, end=end)
    assert spaced.records("trainval").fingerprint() == plain.fingerprint()


def test_reversed_and_outlying_boxes_are_kept_and_cleaned_by_the_shared_rule(tmp_path):
    records = dataset(tmp_path / "gf", train=[row(head=(50, 40, -10, 20))]).records("trainval")
    boxes = clean_boxes(normalise(records.head, records.head_unit, 40, 80))
    np.testing.assert_allclose(boxes, [[0, 0.25, 1, 0.5]])


BAD = {
    "16 or 17": row() + ",more",
    "3 columns": "a,b,c",
    "column 9 is 'right'": row(gaze=("right", 0.5)),
    "column 10 is 'nan'": row(gaze=(0.5, "nan")),
    "column 11 is ''": row(head=("", 20, 30, 40)),
    "column 12 is 'inf'": row(head=(10, "inf", 30, 40)),
    "in/out is '2'": row(inout=2),
    "in/out is ''": row(inout=""),
    "no area": row(head=(10, 20, 10, 40)),
    "head box of no area": row(head=(-30, 20, -10, 40)),
    "no image path": row(path=" "),
    "NUL": row(path="train/\0"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, what):
    lines = [row(eye=(0.1, 0.3)), BAD[what], row(eye=(0.2, 0.3))]
    with pytest.raises(DataError) as error:
        dataset(tmp_path / "gf", train=lines).records("trainval")
    assert f"{TRAIN}:2: " in str(error.value)
    assert what in str(error.value)
    assert "bad_rows skip" in str(error.value)
    skipping = GazeFollow(tmp_path / "gf", bad_rows="skip")
    assert skipping.records("trainval").people == 2
    assert [issue.row for issue in skipping.records("trainval").issues] == [2]
    assert not skipping.completeness("trainval").complete


def test_five_bad_rows_are_shown_of_many(tmp_path):
    lines = ["x,y"] * 1234 + [row()]
    with pytest.raises(DataError) as error:
        dataset(tmp_path / "gf", train=lines).records("trainval")
    assert "1,234 bad rows" in str(error.value)
    assert "and 1,229 more" in str(error.value)
    assert str(error.value).count(f"{TRAIN}:") == 5


def test_rubbish_never_passes_unnamed(tmp_path):
    """Every line is either read as it stands or named with its file and row."""
    rng = np.random.default_rng(0)
    letters = list("0123456789.,-e nax#\t\x00é\u2028'\"")
    lines = []
    for _ in range(300):
        line = list(row(eye=(round(float(rng.uniform()), 4), 0.3)))
        for _ in range(int(rng.integers(0, 4))):
            line[int(rng.integers(len(line)))] = letters[int(rng.integers(len(letters)))]
        lines.append("".join(line))
    lines += ["", ",", "," * 16, "\x00" * 17, "nan" * 17, ",".join(["1e999"] * 17)]
    root = tmp_path / "gf"
    root.mkdir()
    (root / TRAIN).write_bytes("\n".join(lines).encode() + b"\n\xff\xfe,1\n")
    records = GazeFollow(root, bad_rows="skip", missing_images="skip").records("trainval")
    named = {issue.row for issue in records.issues if issue.file == TRAIN}
    good = [n for n, line in enumerate(lines, 1) if n not in named and line.strip()]
    assert named
    assert good
    assert len(lines) + 1 in named
    assert all(len(lines[n - 1].split(",")) in (16, 17) for n in good)
    assert np.isfinite(records.head).all()
    assert np.isfinite(records.points).all()
    with pytest.raises(DataError, match=rf"{TRAIN}:\d+: .+"):
        GazeFollow(root).records("trainval")


def test_missing_images_are_named_or_skipped(tmp_path):
    gone = "train/00000000/00000002.jpg"
    dataset(tmp_path / "gf", train=[row(), row(gone), row("train/00000077/00000003.jpg")])
    (tmp_path / "gf" / gone).unlink()
    with pytest.raises(DataError, match=rf"1 missing images:\s+{gone}.*\n.*missing_images skip"):
        GazeFollow(tmp_path / "gf").records("trainval")
    records = GazeFollow(tmp_path / "gf", missing_images="skip").records("trainval")
    assert records.people == 2
    assert [issue.file for issue in records.issues] == [gone]


def test_a_missing_root_or_file_says_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"csail\.mit\.edu"):
        GazeFollow(tmp_path / "nowhere").records("test")
    with pytest.raises(DataError, match=f"holds no {TEST}"):
        GazeFollow(tmp_path).records("test")


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


def test_fake_is_read_by_the_true_parser(tmp_path):
    data = GazeFollow.fake(tmp_path / "fake", people=6, seed=1)
    for split in ("train", "val", "trainval", "test"):
        records = data.records(split)
        assert records.people >= 6
        assert (records.inout == 1).any()
        width, height = data.size(records, 0)
        assert data.picture(records, 0).shape == (height, width, 3)
    assert (np.diff(data.records("test").point_start) == 10).all()
    assert not set(data.records("train").images) & set(data.records("val").images)
    again = GazeFollow.fake(tmp_path / "again", people=6, seed=1)
    assert again.records("test").fingerprint() == data.records("test").fingerprint()


def test_the_cache_gives_the_same_records_without_parsing(tmp_path, cache, monkeypatch):
    lines = [row(), row("train/00000000/é 日本.jpg", (0.1, 0.2), inout=0), "bad"]
    first = dataset(tmp_path / "gf", train=lines, bad_rows="skip").records("trainval")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("gazebench.datasets.gazefollow._read", lambda *_: pytest.fail("parsed again"))
    again = GazeFollow(tmp_path / "gf", bad_rows="skip").records("trainval")
    assert again.issues == first.issues
    assert len(again.issues) == 1
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
            assert getattr(again, name).dtype == value.dtype
    with pytest.raises(DataError, match=f"{TRAIN}:3: 1 columns"):
        GazeFollow(tmp_path / "gf").records("trainval")


def test_columns_and_sizes_survive_the_cache(cache, tmp_path):
    records = GazeFollow.fake(tmp_path / "fake", people=2).records("test")
    columns = {"subset": np.array(["consistent", ""]), "label": np.array([3, 4])}
    records = annotation_cache.replace(records, columns=columns, sizes=np.array([[4, 3], [2, 1]]))
    for _ in range(2):
        kept = annotation_cache.cached(["x"], [], lambda: records)
        assert kept.columns["subset"].tolist() == ["consistent", ""]
        assert kept.columns["label"].tolist() == [3, 4]
        assert kept.sizes is not None
        assert kept.sizes.tolist() == [[4, 3], [2, 1]]


def test_an_edited_file_is_parsed_again_into_the_same_cache_file(tmp_path, cache):
    assert dataset(tmp_path / "gf", train=[row()]).records("trainval").people == 1
    assert dataset(tmp_path / "gf", train=[row(), row(eye=(0.1, 0.1))]).records("trainval").people == 2
    file = tmp_path / "gf" / TRAIN
    stat = file.stat()
    file.write_text(file.read_text().replace("0.1,0.1", "0.9,0.1"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert GazeFollow(tmp_path / "gf").records("trainval").person_id[1].endswith("#0.9")
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "foreign"])
def test_a_damaged_cache_file_is_built_again(tmp_path, cache, damage):
    first = dataset(tmp_path / "gf", train=[row()]).records("trainval")
    (file,) = cache.iterdir()
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "flip":
            middle = content.index(b"train/00000000")
            file.write_bytes(content[:middle] + b"X" + content[middle + 1 :])
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("not an archive")
        case "foreign":
            with np.load(file) as archive:
                arrays = dict(archive)
            del arrays["head"]
            np.savez(file, **arrays)
    assert GazeFollow(tmp_path / "gf").records("trainval").fingerprint() == first.fingerprint()
    with np.load(file) as archive:
        assert "head" in archive.files


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
        width, height = data.size(test, image)
        assert data.picture(test, image, (32, 32)).shape == (32, 32, 3)
        for person in np.flatnonzero(test.person_image == image):
            x, y = normalise(test.head[person], "pixel", width, height)[:2]
            assert 0 <= x < 1
            assert 0 <= y < 1
