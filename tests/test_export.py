"""Exported files give what the method gives, for any number of people, and the example without torch reads them."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gazebench
from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.engine.config import method_with, resolve
from gazebench.engine.export import OnnxGaze, export_onnx, reduced

for module in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(module, reason="needs the extra onnx")
ROOT = Path(__file__).resolve().parent.parent
HEADS = [[10, 10, 40, 50], [60, 20, 90, 70], [5, 40, 30, 80]]
ADAPTED = ("--model.backbone=tiny", "--model.backbone_weights=random")


def test_onnx(tmp_path, capsys):
    """Of HCLoRA, whose decoder and frozen blocks are Gaze-LLE's."""
    config = resolve(["hclora", "gazeworld", *ADAPTED])
    torch.manual_seed(0)
    method = config.new_method().eval()
    for parameter in method.parameters():  # what an untrained method adds starts at zero, and would not be seen
        if parameter.requires_grad and not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(method.export(), tmp_path / "weights.pt")
    (tmp_path / "config.yaml").write_text(config.yaml())
    file, picture = tmp_path / "gaze.onnx", tmp_path / "a.png"
    assert main(["export", str(tmp_path), "--out", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "passes" in printed
    assert "onnxruntime" in printed
    size = method.preprocess().size
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(picture)
    gaze = gazebench.load(tmp_path, device="cpu").predict(picture, HEADS)
    command = [sys.executable, ROOT / "scripts/onnx_example.py", file, picture]
    done = subprocess.run(
        [*command, *(",".join(map(str, head)) for head in HEADS)], capture_output=True, text=True, check=True
    )
    x, y = gaze.people[2].point
    expected = f"person 3 looks at x {x * size[1]:.0f}, y {y * size[0]:.0f}, in the picture with probability"
    assert done.stdout.splitlines()[2].startswith(expected)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """The embedded Gaze-LLE in two files, and what the command printed of it and of its score."""
    folder = tmp_path_factory.mktemp("apart")
    command = ["export", "gazelle_gazeworld", "--out", str(folder / "gaze.onnx"), "--backbone", "apart"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*command, "--score", "gazeworld", "--images", "4", "--dataset.test=8"]) == 0
    return folder, printed.getvalue()


def outputs(*files):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, 224, 224), dtype=np.uint8))
    return OnnxGaze(*files)(image, torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.7, 0.5]]))


def test_the_backbone_apart(apart):
    folder, printed = apart
    difference = float(re.search(r"largest difference to the method (\S+) \(passes", printed)[1])
    assert 0 < difference < 1e-5
    assert re.findall(r"(\S+\.onnx): fp32", printed) == [str(folder / f"gaze{x}.onnx") for x in (".backbone", "")]
    names = [
        ([entry.name for entry in session.get_inputs()], [entry.name for entry in session.get_outputs()])
        for session in OnnxGaze(folder / "gaze.backbone.onnx", folder / "gaze.onnx").sessions
    ]
    assert names == [(["image"], ["features"]), (["features", "head"], ["point", "heatmap", "inout"])]
    scored = re.findall(r"^avg_l2 all +(\S+) +(\S+) +\S+$", printed, re.MULTILINE)
    assert len(scored) == 1
    own, files = map(float, scored[0])
    assert 0 < own < 0.6
    assert files == pytest.approx(own, abs=2e-4)


@pytest.mark.parametrize(("precision", "size", "near"), [("fp16", 0.55, 0.01), ("int8", 0.5, 0.1)])
def test_smaller_files_are_nearly_the_same(apart, precision, size, near, tmp_path):
    folder, _ = apart
    names = ("gaze.backbone.onnx", "gaze.onnx")
    for name in names:
        shutil.copy(folder / name, tmp_path / name)
        reduced(tmp_path / name, precision)
    before, after = (sum((place / name).stat().st_size for name in names) for place in (folder, tmp_path))
    assert after < size * before
    exact, found = (outputs(*(place / name for name in names)) for place in (folder, tmp_path))
    assert set(exact) == set(found)
    for name in ("heatmap", "inout"):
        assert found[name].dtype == np.float32
        assert 0 < np.abs(found[name] - exact[name]).max() < near


def test_a_method_without_a_frozen_part_is_named(tmp_path):
    with pytest.raises(DataError, match="Centre"):
        export_onnx(method_with("center", [], {}), tmp_path / "a.onnx", apart=True)
    every_block = method_with("hclora", [*ADAPTED, "--model.image_size=224", "--model.adaptation=full"], {})
    with pytest.raises(DataError, match="first block"):
        export_onnx(every_block, tmp_path / "a.onnx", apart=True)
    assert not list(tmp_path.iterdir())
