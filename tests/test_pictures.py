"""Pictures of one's own: in any form, many at once, resumed; who looks where in words; the model as an object."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import gazebench
from gazebench.cli.main import main
from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Prediction
from gazebench.data.transforms import Preprocess
from gazebench.engine.bulk import BoxFile, find_pictures
from gazebench.engine.config import resolve
from gazebench.engine.method import Method, MethodCard
from gazebench.engine.model import Gaze, GazeModel, PictureGaze, as_array
from gazebench.engine.predictions import PredictionFile, check_ending, save_rows


class Brightest(Method):
    """The point is the head's lower right corner, in/out the mean of the picture, and the state is its own."""

    card = MethodCard(title="Brightest", family="test")
    trains = False

    def preprocess(self):
        return Preprocess((8, 8))

    def forward(self, batch):
        self.state = batch.head[:, 2:].nan_to_num(0.5)
        time.sleep(0.002)  # another thread, if it may, changes the state now
        bright = batch.images.float().mean((1, 2, 3)) / 255
        return Prediction(point=self.state, inout=bright[batch.image_index])


@pytest.fixture
def model():
    return GazeModel(Brightest(), lambda: lambda picture: (np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([0.7])), "cpu")


def picture(seed, size=(60, 50)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def saved(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


@pytest.fixture
def album(tmp_path):
    """Nine pictures, one of them in a folder of its own, and one that is none."""
    folder = tmp_path / "album"
    for seed in range(9):
        saved(folder / ("more/8.png" if seed == 8 else f"{seed}.png"), seed)
    (folder / "4.png").write_bytes(saved(folder / "4.png", 4).read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_picture_in_any_form_is_the_same(tmp_path):
    array = picture(0)
    upright = Image.fromarray(array)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    with Image.open(tmp_path / "phone.png") as phone:
        given = [array, upright, phone, str(tmp_path / "phone.png"), tmp_path / "phone.png", tensor, tensor / 255]
        for one in [*given, array / 255, np.dstack([array, array[:, :, :1]])]:
            np.testing.assert_array_equal(as_array(one), array)
    np.testing.assert_array_equal(as_array(array[:, :, 0]), np.repeat(array[:, :, :1], 3, axis=2))
    for wrong in (np.zeros((3, 4, 5)), np.zeros((4, 4, 3)) - 1, np.zeros((4, 4, 3), np.int64), torch.zeros(1, 3, 4, 4)):
        with pytest.raises(DataError):
            as_array(wrong)


def test_one_picture_or_many(model, tmp_path):
    one = model.predict(picture(0), [[5, 10, 30, 50], [0.5, 0.5, 1, 1], [np.nan] * 4])
    assert one.size == (50, 60)
    boxes = [person.box for person in one.people[:2]]
    np.testing.assert_allclose(boxes, [[0.1, 1 / 6, 0.6, 5 / 6], [0.5, 0.5, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(one.people[0].point, [0.6, 5 / 6], atol=1e-6)
    found, none, path = model.predict([picture(1), picture(2), saved(tmp_path / "a.png", 3)], [None, [], None])
    assert [len(each.people) for each in (found, none, path)] == [1, 0, 1]
    assert found.people[0].score == 0.7
    assert path.name == "a.png"
    alone = model.predict(picture(1))
    assert alone.people[0].inout == pytest.approx(found.people[0].inout)
    with pytest.raises(DataError, match="50 x 60"):
        model.predict(picture(0), [[500, 50, 600, 60]])
    with pytest.raises(ImageError):
        model.predict(tmp_path / "missing.png")


def test_threads_share_a_model(model):
    """A method that keeps state in its forward, called by eight threads with different boxes."""
    boxes = [[[0, 0, (i + 4) / 50, 1]] for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda box: model.predict(picture(0), box).people[0].point[0], boxes))
    np.testing.assert_allclose(found, [box[0][2] for box in boxes], atol=1e-6)


def test_load_a_run(tmp_path):
    config = resolve(["gazelle", "gazeworld", "--model.backbone=tiny", "--model.backbone_weights=random"])
    torch.manual_seed(config.values["seed"])
    method = config.new_method()
    torch.save(method.export(), tmp_path / "weights.pt")
    (tmp_path / "config.yaml").write_text(config.yaml())
    for place in (tmp_path, tmp_path / "weights.pt"):
        gaze = gazebench.load(place, device="cpu").predict(picture(0), [[0.1, 0.1, 0.5, 0.5]])
        assert gaze.people[0].heatmap.shape == (64, 64)
        assert 0 <= gaze.people[0].inout <= 1
    with pytest.raises(DataError, match="learns"):
        gazebench.load("gazelle")
    with pytest.raises(DataError, match="device"):
        gazebench.load("center", device="cuda:99")
    with pytest.raises(AttributeError):
        _ = gazebench.nothing


def people(*places, **settings):
    """People with heads of a tenth of the picture around the first point of each, looking at the second."""
    made = [
        Gaze(f"p{i}", np.array([x - 0.05, y - 0.05, x + 0.05, y + 0.05]), point, looks_at=looks, **settings)
        for i, ((x, y), point, looks) in enumerate(places)
    ]
    return PictureGaze("a.jpg", (100, 100), made)


def test_sentences():
    gaze = people(((0.2, 0.2), (0.8, 0.2), 1), ((0.8, 0.2), (0.2, 0.2), 0), ((0.5, 0.8), (0.31, 0.42), None))
    assert gaze.sentences() == [
        "person 1 looks at person 2, who looks back",
        "person 2 looks at person 1, who looks back",
        "person 3 looks at x 0.31, y 0.42",
    ]
    (out,) = people(((0.2, 0.2), (0.8, 0.2), None), inout=0.1).sentences()
    (named,) = people(((0.2, 0.2), (0.8, 0.2), None), inout=0.9, label="cup").sentences()
    assert out == "person 1 looks out of the picture (probability 0.90)"
    assert named == "person 1 looks at the cup, x 0.80, y 0.20 (in the picture, probability 0.90)"


class Social(Brightest):
    """The first two look at each other by its own probabilities, whatever the points say."""

    def forward(self, batch):
        lah = torch.tensor([0.9 if {*pair} == {0, 1} else 0.2 for pair in batch.pairs.tolist()])
        return Prediction(point=torch.full((batch.people, 2), 0.95), lah=lah)


def test_who_looks_at_whom():
    heads = [[0.1, 0.1, 0.2, 0.2], [0.5, 0.1, 0.6, 0.2], [0.9, 0.9, 1, 1]]
    own = GazeModel(Social(), device="cpu").predict(picture(0), heads)
    assert [person.looks_at for person in own.people] == [1, 0, None]
    assert own.people[0].social["lah"] == pytest.approx({1: 0.9, 2: 0.2})
    row = own.rows()[0]
    assert json.loads(row["lah"]) == pytest.approx({own.people[1].id: 0.9, own.people[2].id: 0.2})

    class Points(Brightest):
        def forward(self, batch):
            return Prediction(point=torch.tensor([[0.55, 0.15], [0.55, 0.15], [0.15, 0.15]]))

    by_point = GazeModel(Points(), device="cpu").predict(picture(0), heads)
    assert [person.looks_at for person in by_point.people] == [1, None, 0]  # nobody looks at their own head


def test_pictures_are_found(album, monkeypatch):
    names = {f"{i}.png" for i in range(8)} | {"more/8.png"}
    assert set(find_pictures([str(album)], bytes)) == names
    assert set(find_pictures([str(album / "[12].png")], bytes)) == {(album / f"{i}.png").as_posix() for i in (1, 2)}
    assert len(find_pictures([str(album / "1.png"), str(album / "*.png")], bytes)) == 8
    assert list(find_pictures(["-"], lambda: f"{album / '1.png'}\n{album / 'more'}\n".encode())) == [
        (album / "1.png").as_posix(), "8.png"
    ]  # fmt: skip
    (piped,) = find_pictures(["-"], (album / "1.png").read_bytes).values()
    np.testing.assert_array_equal(as_array(piped), picture(1))
    for nothing in ("none.png", "none*.png"):
        with pytest.raises(DataError, match="none"):
            find_pictures([str(album / nothing)], bytes)


def test_many_pictures_stopped_twice(album, tmp_path, monkeypatch, capsys):
    """Each stop leaves half a line; nothing is lost or done twice, and the bad picture is listed and tried again."""
    out = tmp_path / "gaze.jsonl"
    boxes = tmp_path / "boxes.csv"
    rows = [f"{name},{0.1 * n},0.1,{0.1 * n + 0.2},0.3" for name in [*map(str, range(8)), "more/8"] for n in (1, 5)]
    boxes.write_text("\n".join(["image,xmin,ymin,xmax,ymax", *(row.replace(",", ".png,", 1) for row in rows)]))
    command = ["predict", str(album), "--weights", "center", "--boxes", str(boxes), "--out", str(out), "--batch", "2"]
    seen, predict = [], GazeModel.predict_prepared

    def stops(self, pictures):
        if len(seen) in (2, 5):
            seen.append("stop")
            raise KeyboardInterrupt
        seen.extend(one.name for one in pictures)
        return predict(self, pictures)

    monkeypatch.setattr(GazeModel, "predict_prepared", stops)
    journal = out.with_suffix(".pictures.jsonl")
    for _ in range(2):
        assert main(command) == 130
        with journal.open("ab") as file:
            file.write(b'{"key": "torn')
    assert not out.exists()
    assert main(command) == 0
    assert main([*command, "--strict"]) == 1
    assert "4.png" in capsys.readouterr().err
    names = [name for name in seen if name != "stop"]
    assert sorted(names) == sorted({*names}) == sorted(f"{name}.png" for name in [0, 1, 2, 3, 5, 6, 7, "more/8"])
    table = PredictionFile(out).frame
    assert len(table) == 16
    assert table.loc["more/8.png#2", BOX].tolist() == pytest.approx([0.5, 0.1, 0.7, 0.3])
    assert table.loc["0.png#1", "answer"] == "person 1 looks at x 0.50, y 0.50"
    saved(album / "4.png", 4)
    assert main([*command, "--strict"]) == 0
    assert len(PredictionFile(out).frame) == 18
    assert main([*command, "--faces"]) == 2
    assert "faces" in capsys.readouterr().err


def test_a_file_of_any_form_says_the_same(model, tmp_path):
    gaze = model.predict([picture(0), picture(1)], [[[0.1, 0.1, 0.5, 0.5], [np.nan] * 4], [[0.3, 0.1, 0.5, 0.5]]])
    heatmap = np.random.default_rng(0).random((2, 3), np.float32)
    rows = [row for one in gaze for row in one.rows()]
    maps = {"heatmap": heatmap.ravel().tolist(), "heatmap_h": 2, "heatmap_w": 3}
    for ending in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"a.{ending}"
        save_rows(path, [row | maps for row in rows] if ending != "csv" else rows)
        file = PredictionFile(path)
        assert file.frame.index.tolist() == [row["person_id"] for row in rows]
        np.testing.assert_allclose(
            file.frame[["x", "y", "inout"]], [[row[c] for c in ("x", "y", "inout")] for row in rows]
        )
        assert pd.isna(file.frame["xmin"].iloc[1])
        if ending != "csv":
            np.testing.assert_array_equal(file._heatmap(2), heatmap)
    path = tmp_path / "a.fiftyone.json"
    save_rows(path, rows)
    again, other = PredictionFile(path).frame, PredictionFile(tmp_path / "a.csv").frame
    assert set(again) == set(other)
    assert again.index.tolist() == other.index.tolist()
    assert again["answer"].tolist() == other["answer"].tolist()
    numeric = [*BOX, "x", "y", "inout"]
    np.testing.assert_allclose(again[numeric].astype(float), other[numeric].astype(float), atol=1e-12)
    labels = json.loads(path.read_text())["labels"]
    assert list(labels) == ["picture 1", "picture 2"]
    np.testing.assert_allclose(labels["picture 2"][0]["bounding_box"], [0.3, 0.1, 0.2, 0.4], atol=1e-6)
    assert labels["picture 1"][0]["attributes"]["x"] == rows[0]["x"]
    assert (labels["picture 1"][1]["label"], labels["picture 1"][1]["bounding_box"]) == ("picture", [0, 0, 1, 1])
    save_rows(tmp_path / "none.parquet", [])
    for name in ("a.txt", "a.csv", "a.json", "a.fiftyone.json"):
        with pytest.raises(DataError, match=name):
            check_ending(tmp_path / name, heatmaps=True)


def test_answers_on_the_screen(album, capsys, monkeypatch):
    """Sentences, or JSON lines; without a head; stdin; nothing readable is an error."""
    predict = ["predict", "--weights", "center", "--detector", "none"]
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": BytesIO((album / "1.png").read_bytes())}))
    assert main([*predict, "-"]) == 0
    assert capsys.readouterr().out == "stdin: person 1 looks at x 0.50, y 0.50\n"
    assert main([*predict, str(album / "1.png"), "--out", "-"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["image_id"], row["x"], row["xmin"]) == ((album / "1.png").as_posix(), 0.5, None)
    assert main([*predict, str(album / "4.png")]) == 2
    assert "4.png" in capsys.readouterr().err
    assert main([*predict, str(album), "--box", "0,0,1,1"]) == 2
    assert main([*predict, str(album), "--out", "a.csv", "--heatmaps"]) == 2


def test_boxes_of_a_file_are_those_of_the_picture(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "image,person_id,xmin,ymin,xmax,ymax\na/1.jpg,p,0,0,.5,.5\nb/1.jpg,q,0,0,.1,.1\nc/2.jpg,r,.4,.4,.6,.6\n"
    )
    boxes = BoxFile(path)
    assert boxes("a/1.jpg", 9, 9)[1] == ["p"]
    assert boxes("elsewhere/2.jpg", 9, 9)[1] == ["r"]  # the only picture of that name
    assert len(boxes("elsewhere/1.jpg", 9, 9)[0]) == 0
    grown, _ = BoxFile(path, faces=True)("c/2.jpg", 200, 100)
    np.testing.assert_allclose(grown, [[(100 - 13) / 200, 0.3, (100 + 13) / 200, 0.62]], atol=1e-9)
