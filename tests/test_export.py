"""An exported file gives what the method gives, for any number of people, and the example without torch reads it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gazebench
from gazebench.cli.main import main
from gazebench.engine.config import resolve

ROOT = Path(__file__).resolve().parent.parent
HEADS = [[10, 10, 40, 50], [60, 20, 90, 70], [5, 40, 30, 80]]


def test_onnx(tmp_path, capsys):
    """Of HCLoRA, whose decoder and frozen blocks are Gaze-LLE's."""
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module, reason="needs the extra onnx")
    config = resolve(["hclora", "gazeworld", "--model.backbone=tiny", "--model.backbone_weights=random"])
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
