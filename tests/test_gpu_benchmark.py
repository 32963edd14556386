"""benchmarks/gpu.py at toy size: every part gives its rows, what fails is a row, and the exit code says so."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="not in an installed package")


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    torch.compiler.set_stance("default")


def stored(folder: Path) -> tuple[dict, str]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_every_part_runs_at_toy_size(gpu, tmp_path):
    assert gpu.main([str(tmp_path), "--tiny", "--seconds=3000"]) == 0  # of which it needs few, on a machine of its own
    result, text = stored(tmp_path)
    rows = {row["what"]: row for row in result["rows"]}
    assert {row["part"] for row in result["rows"]} == set(gpu.PARTS)
    assert not [row for row in result["rows"] if "error" in row]
    for method in ("Gaze-LLE", "HCLoRA"):
        for what in ("train step", "prediction"):
            for precision in ("fp32", "bf16", "compiled"):
                assert rows[f"{method} ViT-L, {what}, {precision}"]["tflops"] > 0
        assert rows[f"{method} ViT-L, CPU against cpu"]["difference"] < 1e-5
    train, predict = (rows[f"Gaze-LLE ViT-L, {what}, fp32"] for what in ("train step", "prediction"))
    assert train["tflops"] * train["ms"] > predict["tflops"] * predict["ms"], "a train step does more"
    five, one = (rows[f"OmniGF 4B, generate, {people} people, bf16"] for people in (5, 1))
    assert five["flops"] > one["flops"]
    loaded = rows["Gaze-LLE ViT-B, training on 640 x 480 JPEG files"]
    assert 0 <= loaded["idle"] < 1
    assert loaded["value"] == loaded["idle"]
    cached = rows["Gaze-LLE ViT-L, predict and score, features cached"]
    assert cached["seconds"] == pytest.approx(cached["value"])
    assert all(row["share"] is None for row in result["rows"] if "share" in row), "no peak of a CPU is known"
    assert all(what in text for what in rows)


def test_what_fails_or_comes_too_late_is_a_row(gpu, tmp_path, monkeypatch):
    def too_much():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    def broken(setup):
        yield "a step", lambda: {"rate": 1.0, "unit": "pictures/s"}
        yield "a larger step", too_much
        yield "a small step", lambda: {"rate": 2.0, "unit": "pictures/s"}

    monkeypatch.setitem(gpu.PARTS, "gazelle", broken)
    assert gpu.main([str(tmp_path), "--tiny", "--only", "gazelle"]) == 1
    rows = stored(tmp_path)[0]["rows"]
    assert [row["what"] for row in rows] == ["a step", "a larger step", "a small step"]
    assert ["OutOfMemoryError" in row.get("error", "") for row in rows] == [False, True, False]
    late = gpu.Setup(torch.device("cpu"), True, time.monotonic() - 1)
    assert ["time was up" in row["error"] for row in gpu.rows_of("gazelle", late)] == [True] * 3


@pytest.mark.parametrize(
    ("ends", "why"), [("time.sleep(60)", "time was up"), ("raise SystemExit(3)", "exit code 3"), ("", None)]
)
def test_a_part_in_its_own_process_is_ended_in_time(gpu, tmp_path, monkeypatch, ends, why):
    script = tmp_path / "part.py"
    rows = 'print(\'{"begun": "a"}\', flush=True); print(\'{"what": "a", "rate": 1}\', flush=True)'
    script.write_text(f"import time\n{rows}\nprint('noise')\nprint('{{\"begun\": \"b\"}}', flush=True)\n{ends}\n")
    monkeypatch.setattr(gpu, "__file__", str(script))
    begun = time.monotonic()
    found = list(gpu.in_process("gazelle", 5.0))
    assert time.monotonic() - begun < 20
    assert found[0] == {"what": "a", "rate": 1}
    assert [(row["what"], why in row["error"]) for row in found[1:]] == ([("b", True)] if why else [])


@pytest.mark.parametrize(
    ("row", "card", "said"),
    [
        ({"goal": "peak", "value": 0.51}, "NVIDIA H100 80GB HBM3", ": met"),
        ({"goal": "peak", "value": 0.49}, "NVIDIA H200", "not met"),
        ({"goal": "idle", "value": 0.04}, "NVIDIA H100 80GB HBM3", ": met"),
        ({"goal": "evaluation", "value": 61.0}, "NVIDIA H200", "not met"),
        ({"goal": "evaluation", "value": 61.0}, "NVIDIA L4", "only"),
    ],
)
def test_goals(gpu, row, card, said):
    assert said in gpu.verdict(row, card)


def test_peaks_of_cards(gpu):
    def peak(card):
        return next((each for part, each, _ in gpu.PEAKS if part in card), None)

    assert peak("NVIDIA H100 80GB HBM3") == peak("NVIDIA H200") == 989.4
    assert peak("NVIDIA H100 PCIe") == 756.0
    assert peak("Some other card") is None
    row = {"what": "a", "rate": 2.0, "unit": "pictures/s", "tflops": 1.0, "share": None, "gib": 1.0}
    result = {"card": "Some other card", "peak_tflops": None, "peak_source": None, "cores": 1, "torch": "",
              "transformers": "", "tiny": False, "rows": [row]}  # fmt: skip
    assert "not known" in gpu.table(result)
    assert "| 1.0       | -" in gpu.table(result)
