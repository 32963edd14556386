"""Lightning callbacks: seeds, progress bar, checkpoints, validation scores."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from gazebench.core.types import stable_key
from gazebench.data.datamodule import GazeDataModule
from gazebench.metrics.scoring import Scorer


class StepSeed(Callback):
    """Seeds torch before every step, so that a resumed training equals an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        text = f"{self.seed} {trainer.current_epoch} {batch_idx} {trainer.global_rank}"
        torch.manual_seed(stable_key(text) % 2**63)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar without the logger's version number."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 25)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class TimedCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` after every epoch, and ``best.ckpt`` where one is selected; both hold the time spent."""

    def __init__(self, folder: Path, monitor: str | None, mode: str) -> None:
        super().__init__(
            dirpath=folder, filename="best" if monitor else "last", monitor=monitor, mode=mode, save_top_k=1,
            save_last=bool(monitor), enable_version_counter=False, save_on_train_epoch_end=monitor is None,
        )  # fmt: skip
        self.earlier, self.begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent on training, including that before interruptions."""
        return self.earlier + time.monotonic() - self.begun

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.earlier, self.begun = float(state_dict.pop("seconds", 0.0)), time.monotonic()
        super().load_state_dict(state_dict)


class Validation(Callback):
    """Scores the validation split by the data set's protocol after every epoch and logs ``val/<metric>``."""

    def __init__(self, module: GazeDataModule) -> None:
        self.module = module

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        records = self.module.eval_records("val")
        self.place = {str(image): place for place, image in enumerate(records.images)}
        self.scorer = Scorer(self.module.dataset.protocol, records, self.module.tasks).to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if outputs:
            items = {task: (found, batch.targets.truths[task]) for task, found in batch.items.items()}
            self.scorer.update(np.array([self.place[image] for image in batch.image_ids]), outputs["prediction"], items)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        headline = self.module.dataset.protocol.headline
        for name, subsets in self.scorer.compute().items():
            pl_module.log(f"val/{name}", subsets["all"].value, prog_bar=name == headline, sync_dist=False)
