"""Methods learn: within seconds three of them know more of the gaze than the floors do."""

import pytest
import torch
from lightning import Trainer

from gazebench.data.datamodule import ImageSamples, collate
from gazebench.engine import contract
from gazebench.engine.config import resolve
from gazebench.engine.run import data_module
from gazebench.methods import two_branch
from gazebench.methods.two_branch import TwoBranch
from gazebench.metrics.scoring import Scorer

SCENES, TESTED, BATCH = 96, 40, 8
METHODS = {
    "head_crop": (12, ["--model.lr=2e-3"]),
    "two_branch": (4, []),
    "scene_only": (2, ["--model.dim=32", "--model.layers=1", "--model.heads=2", "--model.lr=3e-3"]),
}
"""Epochs and settings."""
MARGIN = 0.95
WORLD = [f"--dataset.train={SCENES}", "--dataset.val=2", f"--dataset.test={TESTED}", "--loader.workers=0"]


@pytest.fixture(scope="module")
def world():
    """Batches of training scenes and one of test scenes with its records, drawn once for all methods."""
    config = resolve(["head_crop", "gazeworld", *WORLD])
    dataset, preprocess = config.new_dataset(), config.new_method().preprocess()
    splits = {}
    for split in ("train", "test"):
        samples = ImageSamples(dataset, dataset.records(split), preprocess)
        splits[split] = [samples[image] for image in range(len(dataset.records(split)))]
    train = [collate(splits["train"][start : start + BATCH]) for start in range(0, SCENES, BATCH)]
    return dataset, train, collate(splits["test"])


def distance(method, world):
    """Avg. L2 on the test scenes."""
    dataset, _, batch = world
    scorer = Scorer(dataset.protocol, dataset.records("test"))
    scorer.update(range(TESTED), method.eval().predict_batch(batch))
    return scorer.compute()["avg_l2"]["all"].value


@pytest.fixture(scope="module")
def floors(world):
    found = {}
    for name in ("center", "mean_target"):
        config = resolve([name, "gazeworld", *WORLD])
        method = config.new_method()
        method.observe(data_module(config, config.new_dataset(), method).annotations())
        found[name] = distance(method, world)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_to_beat_the_floors_by_a_margin(name, world, floors):
    epochs, settings = METHODS[name]
    torch.manual_seed(0)
    method = resolve([name, "gazeworld", *WORLD, *settings]).new_method()
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, torch.utils.data.DataLoader(world[1], batch_size=None, shuffle=True))
    assert distance(method, world) < MARGIN * min(floors.values())


def test_a_branch_that_is_cut_off_is_found_by_the_contract(world, monkeypatch):
    """Not by missing gradients: they are there and 0, as a factor 0 or a straight-through trick leaves them."""
    torch.manual_seed(0)
    method, batch = TwoBranch("tiny", "random"), world[1][0]
    assert list(contract._training_findings(method, batch)) == []
    read = two_branch.read_heads
    monkeypatch.setattr(
        two_branch, "read_heads", lambda *given: (read(*given)[0].detach() + 0 * read(*given)[0], read(*given)[1])
    )
    (finding,) = contract._training_findings(method, batch)
    assert "face.0.weight" in finding
    assert "stays 0" in finding
