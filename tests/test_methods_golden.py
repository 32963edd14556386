"""Golden outputs: with weights filled by a rule, every method predicts and loses what ``data/methods.json`` says.

They were computed by the code before it was rebuilt. A method that computes something else on purpose raises its
``version``, with a line in the changelog; this module, run as a script with names of cases, makes their entries anew.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gazebench.core.types import SOCIAL, Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.engine.contract import small_config
from gazebench.engine.registry import entries, load_method
from gazebench.engine.run import data_module
from gazebench.methods.center import Center

FILE = Path(__file__).parent / "data" / "methods.json"
GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
COMPUTED = re.compile(r"frequencies|inv_freq|positions|running_")
"""Buffers that follow from the architecture or, as variances, must be positive; so do mean and deviation of pixels."""


def fill(method):
    """Sets every weight from its name, so that no order of initialisation matters."""
    with torch.no_grad():
        for name, value in method.state_dict().items():
            of_pixels = name.endswith((".mean", ".std")) and value.numel() == 3
            if not value.dtype.is_floating_point or COMPUTED.search(name) or of_pixels:
                continue
            seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
            drawn = torch.from_numpy(np.random.default_rng(seed).normal(size=tuple(value.shape)))
            scale = 1.0 if value.dim() == 1 and name.endswith("weight") else 0.0
            value.copy_((0.05 * drawn + scale).to(value.dtype))


def summary(value):
    """Of a tensor: shape, mean, deviation and a sample; of texts: themselves."""
    if not isinstance(value, torch.Tensor):
        return list(value)
    value = value.detach().double()
    sample = value.flatten()[:: max(1, value.numel() // 24)][:24]
    numbers = {"mean": value.mean(), "std": value.std()} if value.numel() > 1 else {}
    return {"shape": list(value.shape), **{k: float(v) for k, v in numbers.items()}, "first": sample.tolist()}


def computed(name, options, *, filled):
    """What a method makes of four scenes."""
    config = small_config(name, "gazeworld", *options)
    torch.manual_seed(0)
    method = config.new_method()
    if filled:
        fill(method)
    dataset = config.new_dataset()
    module = data_module(config, dataset, method)
    samples = ImageSamples(
        dataset, dataset.records("test"), method.preprocess(), sees_images=method.sees_images, tasks=module.tasks
    )
    batch = collate([samples[image] for image in range(4)])
    method.observe(module.annotations())
    prediction = method.eval().predict_batch(batch)
    fields = ("heatmap", "point", "inout", "text_point", *SOCIAL, "label", "text")
    answers = {key: getattr(prediction, key) for key in fields} | prediction.outputs
    losses = {}
    if method.trains and any(parameter.requires_grad for parameter in method.parameters()):
        torch.manual_seed(0)
        losses = {key: value.item() for key, value in method.train().loss(batch).items()}
    return {
        "version": method.version,
        "outputs": {key: summary(value) for key, value in answers.items() if value is not None},
        "losses": losses,
        "parameters": [
            sum(p.numel() for p in method.parameters() if p.requires_grad >= least) for least in (False, True)
        ],
        "export": {key: list(value.shape) for key, value in method.export().items()},
    }


def close(value):
    """Tolerant of what another processor's arithmetic does; texts and shapes must be equal."""
    if isinstance(value, dict):
        return {key: close(each) for key, each in value.items()}
    numbers = isinstance(value, float) or (isinstance(value, list) and all(isinstance(each, float) for each in value))
    return pytest.approx(value, abs=1e-5, rel=1e-5) if numbers else value


@pytest.mark.parametrize("case", GOLDEN)
def test_outputs_are_the_golden_ones(case):
    compare(case)


def compare(case):
    """Says what to do where a method computes something else."""
    golden = GOLDEN[case]
    found = computed(golden["method"], golden["options"], filled=golden["filled"])
    remedy = (
        f"{golden['method']} computes something else (case {case}) under version {found['version']}: raise `version`, "
        f"name it in the changelog, make the case anew in {FILE.name}"
    )
    assert found["version"] == golden["version"], f"the case {case} is of version {golden['version']}: make it anew"
    for part in ("parameters", "export"):
        assert found[part] == golden[part], f"{part}: {remedy}"
    for part in ("outputs", "losses"):
        assert found[part].keys() == golden[part].keys(), f"{part}: {remedy}"
        for key, value in golden[part].items():
            assert found[part][key] == close(value), f"{key}: {remedy}"


def test_a_method_cannot_change_under_its_version(monkeypatch):
    whole = Center.forward
    monkeypatch.setattr(Center, "forward", lambda self, batch: Prediction(point=whole(self, batch).point + 1e-3))
    with pytest.raises(AssertionError, match="raise `version`"):
        compare("center")
    monkeypatch.setattr(Center, "version", Center.version + 1)
    with pytest.raises(AssertionError, match="make it anew"):
        compare("center")


def test_every_method_of_ours_has_a_golden_output_of_its_version():
    ours = {name for name, entry in entries("methods").items() if entry.ours}
    assert ours == {golden["method"] for golden in GOLDEN.values()}
    for golden in GOLDEN.values():
        assert load_method(golden["method"]).version == golden["version"], f"{golden['method']}: make its cases anew"


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        settings = {key: GOLDEN[wanted][key] for key in ("method", "options", "filled")}
        GOLDEN[wanted] = settings | computed(settings["method"], settings["options"], filled=settings["filled"])
    text = json.dumps(GOLDEN, indent=1, sort_keys=True)
    text = re.sub(r"\[[-+.e\d,\s]*\]", lambda values: " ".join(values[0].split()), text)  # numbers in a line
    FILE.write_text(text + "\n", encoding="utf-8")
