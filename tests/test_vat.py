"""The VideoAttentionTarget parser on hand-written tracks in the official layout."""

from pathlib import Path

import numpy as np
import pytest

from gazebench.core.errors import DataError
from gazebench.datasets.vat import VAL_SHOWS, VAT

REAL = Path(__file__).parents[2] / "shared" / "real" / "videoattentiontarget"


def row(frame=1, box=(10, 20, 30, 40), gaze=(50, 60)):
    return ",".join(map(str, [f"{frame:08d}.jpg", *box, *gaze]))


def dataset(root, tracks, spell=str, **options):
    """Writes tracks {part/show/clip/track: rows} and an empty file for every frame; ``spell`` names image folders."""
    (root / "annotations" / "train").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "test").mkdir(exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    for name, rows in tracks.items():
        part, show, clip, track = name.split("/")
        labels = root / "annotations" / part / show / clip
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{track}.txt").write_text("\n".join([*rows, ""]), encoding="utf-8")
        images = root / "images" / spell(show) / clip
        images.mkdir(parents=True, exist_ok=True)
        for line in rows:
            if line.split(",")[0].strip().endswith(".jpg"):
                (images / line.split(",")[0].strip()).touch()
    return VAT(root, **options)


def test_people_of_a_frame_stand_together_and_frames_in_order(tmp_path):
    tracks = {
        "test/Titanic/200_300/s01": [row(201), row(200)],
        "test/Titanic/200_300/s00": [row(201), row(99)],
        "test/Cheers/5_9/s00": [row(7)],
    }
    records = dataset(tmp_path, tracks).parse("test")
    assert records.groups.tolist() == ["Cheers/5_9", *["Titanic/200_300"] * 3]
    assert records.images.tolist() == [
        "images/Cheers/5_9/00000007.jpg",
        *(f"images/Titanic/200_300/{frame:08d}.jpg" for frame in (99, 200, 201)),
    ]
    assert records.person_id.tolist() == [
        "Cheers/5_9/00000007#s00",
        "Titanic/200_300/00000099#s00",
        "Titanic/200_300/00000200#s01",
        "Titanic/200_300/00000201#s00",
        "Titanic/200_300/00000201#s01",
    ]
    assert records.person_image.tolist() == [0, 1, 2, 3, 3]
    assert (records.head_unit, records.point_unit) == ("pixel", "pixel")


def test_frames_are_ordered_by_number_not_by_letter(tmp_path):
    rows = [row().replace("00000001", str(number)) for number in (10, 9, 100)]
    records = dataset(tmp_path, {"test/A/1_9/s00": rows}).records("test")
    assert [Path(image).stem for image in records.images] == ["9", "10", "100"]


def test_gaze(tmp_path):
    gazes = [(50, 60), (-1, -1), (-7, 60), (50, -1), (0, 0)]
    records = dataset(tmp_path, {"test/A/1_9/s00": [row(n, gaze=g) for n, g in enumerate(gazes)]}).parse("test")
    assert records.inout.tolist() == [1, 0, 1, 1, 1]
    assert records.points.tolist() == [[50, 60], [0, 60], [50, 0], [0, 0]]
    assert records.point_start.tolist() == [0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("length", [1, 2, 6, 11, 40])
def test_boxes_are_smoothed_within_their_track(tmp_path, length):
    rng = np.random.default_rng(length)
    tracks, expected = {}, {}
    for track in range(3):
        boxes = rng.integers(0, 500, (length, 4))
        boxes[:, 2:] += boxes[:, :2] + 1
        tracks[f"test/A/1_99/s{track:02d}"] = [row(n, box) for n, box in enumerate(boxes)]
        padded = np.pad(boxes.astype(float), ((5, 5), (0, 0)), mode="edge")
        for column in range(4):
            means = np.convolve(padded[:, column], np.ones(11) / 11, mode="valid")
            for frame in range(length):
                expected[f"A/1_99/{frame:08d}#s{track:02d}", column] = means[frame]
    records = dataset(tmp_path, tracks).parse("test")
    assert len(expected) == 4 * records.people
    for name, head in zip(records.person_id, records.head, strict=True):
        np.testing.assert_allclose(head, [expected[str(name), column] for column in range(4)])


def test_reversed_corners_are_put_in_order_before_smoothing(tmp_path):
    data = dataset(tmp_path, {"test/A/1_9/s00": [row(1, (10, 20, 30, 40)), row(2, (30, 40, 10, 20))]})
    np.testing.assert_allclose(data.parse("test").head, [[10, 20, 30, 40]] * 2)


@pytest.mark.parametrize("labels", ["Before Sunrise", "Before_Sunrise"])
@pytest.mark.parametrize(
    "spell", [lambda s: s.replace("_", " "), lambda s: s.replace(" ", "_")], ids=["space", "under"]
)
def test_spaces_or_underscores_on_disk_give_the_same_ids(tmp_path, labels, spell):
    data = dataset(tmp_path, {f"train/{labels}/1_9/s00": [row(1)]}, spell)
    records = data.records("val")
    assert records.person_id.tolist() == ["Before_Sunrise/1_9/00000001#s00"]
    assert records.images.tolist() == ["images/Before_Sunrise/1_9/00000001.jpg"]
    assert data.path(records, 0).is_file()


def test_a_show_spelt_both_ways_is_refused(tmp_path):
    data = dataset(tmp_path, {"test/A B/1_9/s00": [row(1)], "test/A_B/1_9/s00": [row(1)]})
    with pytest.raises(DataError, match="same track"):
        data.records("test")


def test_validation_is_by_show(tmp_path):
    shows = ["Orange is the New Black", "Before Sunrise", "Project Runway", "Before Sunset", "Sherlock"]
    data = dataset(tmp_path, {f"train/{show}/1_9/s00": [row(n) for n in range(2)] for show in shows})
    assert set(data.records("val").groups) == {f"{show}/1_9" for show in VAL_SHOWS}
    assert set(data.records("train").groups) == {"Before_Sunset/1_9", "Sherlock/1_9"}
    assert data.records("trainval").people == 10


def test_a_root_without_tracks_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no annotations/test, images"):
        VAT(tmp_path).records("test")
    with pytest.raises(DataError, match="holds no track files"):
        dataset(tmp_path, {}).records("test")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mini-set is not beside the checkout")
def test_the_real_mini_set():
    data = VAT(REAL)
    tracks = list(REAL.glob("annotations/*/*/*/*.txt"))
    lines = sum(len(track.read_text().split()) for track in tracks)
    records = [data.records(split) for split in ("trainval", "test")]
    assert len(tracks) == 171
    assert sum(r.people for r in records) == lines
    assert not any(r.issues for r in records)
    assert data.records("train").people + data.records("val").people == records[0].people
    assert {group.split("/")[0] for group in data.records("val").groups} <= set(VAL_SHOWS)
    for record in records:
        assert (record.sizes > 0).all()
        assert ((record.head[:, 2:] > record.head[:, :2]) & (record.head >= 0).all() & (record.head <= 1).all()).all()
