"""The time a method takes to predict: its ``forward`` alone, without loading, decoding, scoring or cached features."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from gazebench.data.datamodule import GazeDataModule
from gazebench.engine.method import Method
from gazebench.engine.record import processor
from gazebench.nn.feature_cache import without_cache

IMAGES = 8
"""Images in the timed batch, or fewer where an evaluation batch of the run or its test set has fewer."""
SECONDS, LONGEST, REPEATS = 2.0, 30.0, 50
"""Repeats end after two seconds, or a twentieth of the time the predictions took (thirty seconds at most), or fifty."""


def inference(trainer: Any, method: Method, module: GazeDataModule, predicting: float) -> dict[str, Any] | None:
    """Times a method on images spread evenly over the test set, while a prediction trainer has it on its device.

    One batch is read and moved to the device beforehand; one pass warms up, and the median of the others counts. The
    device is synchronised around each. Random number generators are left as they were.

    Args:
        trainer: Lightning's, in or after its prediction loop.
        method: the method.
        module: its loaders.
        predicting: seconds that the predictions of this run took; repeats take no longer, but there is one at least.

    Returns:
        ``ms_per_person``; the conditions ``batch`` (images), ``people_per_image``, ``precision``, ``accelerator``,
        ``device`` (its name) and ``threads`` of the CPU; ``repeats``, and the shortest and longest as
        ``ms_per_person_range``. None where there is nothing to time: the method neither sees images nor has
        parameters, no image can be read, or the model is split over devices.
    """
    network = method.sees_images or next(method.parameters(), None) is not None
    if not network or not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return None
    batch = module.test_sample(IMAGES)
    if not batch.people:
        return None
    device = method.device
    with isolate_rng(), without_cache(), torch.inference_mode(), trainer.precision_plugin.predict_step_context():
        batch = trainer.precision_plugin.convert_input(batch).to(device)
        taken: list[float] = []
        end = _now(device) + min(predicting, max(SECONDS, min(LONGEST, predicting / 20)))
        method.predict_batch(batch)
        while not taken or (_now(device) < end and len(taken) < REPEATS):
            start = _now(device)
            method.predict_batch(batch)
            taken.append(_now(device) - start)
    each = [round(1000 * one / batch.people, 4) for one in sorted(taken)]
    return {
        "ms_per_person": round(statistics.median(each), 4),
        "ms_per_person_range": [each[0], each[-1]],
        "repeats": len(each),
        "batch": len(batch.image_ids),
        "people_per_image": round(batch.people / len(batch.image_ids), 2),
        "precision": _precision(method),
        "accelerator": device.type,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
    }


def _now(device: torch.device) -> float:
    """Seconds, once the device has finished what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def _precision(method: Method) -> str:
    """The types a method computes in: those of its parameters, and ``compute_dtype`` of its parts."""
    found = {str(parameter.dtype).removeprefix("torch.") for parameter in method.parameters()}
    found |= {str(vars(part)["compute_dtype"]) for part in method.modules() if "compute_dtype" in vars(part)}
    return ", ".join(sorted(found)) or "float32"
