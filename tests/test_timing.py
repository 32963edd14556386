"""Inference time: of ``forward`` alone, on the stated batch, without a cache and without a trace in later numbers."""

import time

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import nn

from gazebench.core.types import Prediction
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine import timing
from gazebench.engine.contract import small_config
from gazebench.engine.method import Method
from gazebench.engine.run import bench
from gazebench.nn.feature_cache import CachedEncoder


class Sleeper(Method):
    """Takes 10 ms a picture, and draws from every generator while it does."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.batches = []

    def preprocess(self):
        return Preprocess(size=(28, 28))

    def forward(self, batch):
        assert batch.targets is None
        self.batches.append(len(batch.image_ids))
        time.sleep(0.01 * len(batch.image_ids))
        torch.rand(1), np.random.rand()  # noqa: NPY002
        return Prediction(point=torch.full((batch.people, 2), 0.5))


def timed(method, predicting=60.0, **loader):
    module = GazeDataModule(GazeWorld(train=6, val=3, test=20), method.preprocess(), workers=0, **loader)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    return timing.inference(trainer, method.eval(), module, predicting), module.eval_records("test")


@pytest.mark.parametrize(("people", "images"), [(60, 8), (1, 1)])
def test_what_is_said_is_what_was_timed(monkeypatch, people, images):
    monkeypatch.setattr(timing, "REPEATS", 3)
    method = Sleeper()
    found, records = timed(method, eval_batch_size=people)
    chosen = np.linspace(0, len(records) - 1, images).round().astype(int)
    heads = int(np.diff(records.person_start)[chosen].sum())
    assert method.batches == [images] * 4, "one pass to warm up and three that count"
    assert (found["repeats"], found["batch"]) == (3, images)
    assert found["people_per_image"] == round(heads / images, 2)
    shortest, longest = found["ms_per_person_range"]
    assert 10 * images / heads <= shortest <= found["ms_per_person"] <= longest < 100 * images / heads
    assert (found["precision"], found["accelerator"], bool(found["device"])) == ("float32", "cpu", True)


@pytest.mark.parametrize(("predicting", "limit"), [(0.0, 0.0), (1.0, 1.0), (10.0, 2.0), (100.0, 5.0), (6000.0, 30.0)])
def test_the_time_spent_is_bounded(monkeypatch, predicting, limit):
    """By a clock on which a forward takes .08 s."""
    clock = [0.0]
    monkeypatch.setattr(timing, "_now", lambda device: clock[0])
    monkeypatch.setattr(timing, "REPEATS", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    method = Sleeper(torch.bfloat16)
    found, _ = timed(method, predicting)
    assert found["repeats"] == len(method.batches) - 1 == pytest.approx(max(1, limit / 0.08 - 1), abs=1)
    assert found["ms_per_person"] == pytest.approx(1000 * 0.08 / found["people_per_image"] / 8, rel=0.01)
    assert found["precision"] == "bfloat16"


def test_generators_are_left_as_they_were(monkeypatch):
    monkeypatch.setattr(timing, "REPEATS", 1)
    torch.manual_seed(0), np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    timed(Sleeper())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_a_run_records_it_and_encodes_every_image_for_it(places, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(CachedEncoder, "_write", lambda self, file, features: seen.extend([self.used] * len(features)))
    record = bench(
        small_config("gazelle", "gazeworld", f"--model.feature_cache={tmp_path / 'features'}"), places
    ).record
    assert record["inference"]["batch"] == record["samples"]["images"] == 4
    assert len(seen) == 4 + record["data"]["train"]["used_images"], "training fills the cache, too"
    assert all(seen), "the cache was written while it was switched off"
    assert 0 < record["inference"]["ms_per_person"] < 1000 * record["wall_seconds"]["test"]
    assert record["inference"]["precision"] == "float32"


def test_what_computes_nothing_from_a_picture_has_none(places):
    assert "inference" not in bench(small_config("center"), places).record
