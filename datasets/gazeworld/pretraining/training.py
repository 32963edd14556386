"""Shared by the pre-training scripts: predictions of patch labels, and a training that can be interrupted."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from gazebench.core.files import file_digest, write_atomically
from gazebench.datasets.gazeworld.pretraining.patches import CLASSES, COLOUR_WORDS, Patches
from gazebench.datasets.gazeworld.pretraining.views import FACE
from gazebench.datasets.gazeworld.scene import WORLD_VERSION


def tensors(patches: Patches) -> dict[str, Tensor]:
    """The arrays of ``Patches`` by name; ``colour`` as int64."""
    made = {each.name: torch.from_numpy(getattr(patches, each.name)) for each in fields(Patches)}
    return made | {"colour": made["colour"].long()}


class PatchHeads(nn.Module):
    """Predicts the labels of patches from their features; used in pre-training only."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seen = nn.Linear(dim, len(CLASSES))
        # The share of patches that show a class is small: start from there, not from one half.
        nn.init.constant_(self.seen.bias, -4.0)
        self.place = nn.Linear(dim, 5)
        self.colour = nn.Linear(dim, len(COLOUR_WORDS))
        self.face = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * len(FACE)))

    def forward(self, features: Tensor, face_features: Tensor) -> dict[str, Tensor]:
        """(B, N, C) twice -> by the name of the label, (B, N, ...) float32."""
        made = {name: getattr(self, name)(features).float() for name in ("seen", "place", "colour")}
        face = self.face(face_features).float().unflatten(2, (len(FACE), 3))
        return {**made, "face": face}


def patch_losses(made: Mapping[str, Tensor], truth: Mapping[str, Tensor], face_weight: float) -> dict[str, Tensor]:
    """The mean loss of every label over the patches that it applies to."""
    place, colour, face = truth["place"].float(), truth["colour"], truth["face"].float()
    head, shown, coloured = ~face[..., 0, 0].isnan(), ~place[..., 0].isnan(), colour >= 0
    points, near = made["face"][head].split((2, 1), -1)
    return {
        "seen": 8 * F.binary_cross_entropy_with_logits(made["seen"], truth["seen"].float()),
        "place": 3 * F.smooth_l1_loss(made["place"][shown], place[shown], beta=0.05),
        "colour": 0.2 * F.cross_entropy(made["colour"][coloured], colour[coloured]),
        "face": face_weight * F.smooth_l1_loss(points, face[head][..., :2], beta=0.1)
        + 0.5 * F.binary_cross_entropy_with_logits(near, face[head][..., 2:]),
    }


def mean_ap(truth: Tensor, logits: Tensor) -> float:
    """The mean average precision of the columns of (N, K), over those that are true anywhere."""
    columns = [column for column in range(truth.shape[1]) if truth[:, column].any()]
    return float(np.mean([average_precision_score(truth[:, column], logits[:, column]) for column in columns]))


def parser(description: str | None, *, steps: int, scenes: int, batch: int, out: Path) -> argparse.ArgumentParser:
    """The options of every script, with their defaults."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--steps", type=int, default=steps, help="of training")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--scenes", type=int, default=scenes)
    made.add_argument("--held-out", type=int, default=256, help="scenes to score")
    made.add_argument("--batch", type=int, default=batch)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    made.add_argument("--out", type=Path, default=out, help="the file of the weights")
    return made


class Training:
    """Trains a model for ``options.steps`` steps; after an interruption the same command goes on from the last hundred.

    Args:
        options: the options that ``parser`` parsed.
        model: everything that is trained.
        optimizers: their learning rates rise over 50 steps and fall to 2% along a cosine.
        clipped: parameters whose gradients are clipped to a norm of 1.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        clipped: Sequence[nn.Parameter] = (),
    ) -> None:
        self.options, self.optimizers, self.clipped = options, optimizers, clipped
        self.step, self.seconds = 0, 0.0
        self.running: dict[str, float] = {}
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self.parts: tuple[Any, ...] = (model, *optimizers)
        self.partial = options.out.with_suffix(".partial")
        if self.partial.is_file():
            stored = torch.load(self.partial)
            self.step, self.seconds = stored["step"], stored["seconds"]
            for part, state in zip(self.parts, stored["parts"], strict=True):
                part.load_state_dict(state)
            print(f"goes on after step {self.step}", flush=True)

    def steps(self) -> Iterator[int]:
        """Yields the number of every step that is left before it is taken."""
        while self.step < self.options.steps:
            began = time.monotonic()
            yield self.step
            self.step += 1
            self.seconds += time.monotonic() - began
            if self.step % 50 == 0:
                losses = "  ".join(f"{name} {value:.3f}" for name, value in self.running.items())
                print(f"{self.seconds:6.0f} s step {self.step:5}  {losses}", flush=True)
            if self.step % 100 == 0:
                state = {
                    "step": self.step, "seconds": self.seconds, "parts": [part.state_dict() for part in self.parts]
                }  # fmt: skip
                write_atomically(self.partial, partial(torch.save, state))

    def update(self, losses: Mapping[str, Tensor]) -> None:
        """Takes one optimizer step on the sum of the losses."""
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.clipped, 1.0)
        share = self.step / self.options.steps
        rate = min(1.0, (self.step + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, value in losses.items():
            self.running[name] = 0.95 * self.running.get(name, value.item()) + 0.05 * value.item()

    def export(self, weights: Mapping[str, Tensor], figures: Mapping[str, float], **facts: Any) -> None:
        """Writes float16 weights and, beside them, a card that tells how they were made."""
        out = self.options.out
        write_atomically(out, partial(torch.save, {name: tensor.half() for name, tensor in weights.items()}))
        card = {
            "world": WORLD_VERSION,
            "seed": self.options.seed,
            "batch": self.options.batch,
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            **facts,
            "val": {name: round(float(value), 4) for name, value in figures.items()},
            "sha256": file_digest(out),
        }
        write_atomically(out.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
        self.partial.unlink(missing_ok=True)
        print(json.dumps(card, indent=2))
