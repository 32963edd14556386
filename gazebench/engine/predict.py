"""Prediction: from a prepared run to ``predictions.parquet`` in its folder."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Callback

from gazebench.core import distributed
from gazebench.core.files import file_digest
from gazebench.core.types import Batch, Prediction
from gazebench.engine import record
from gazebench.engine.config import provenance
from gazebench.engine.predictions import PartWriter, merge_parts
from gazebench.engine.timing import inference
from gazebench.engine.train import interruptible, new_trainer
from gazebench.metrics.protocol import Protocol

if TYPE_CHECKING:
    from gazebench.engine.run import Run


def predict(run: Run) -> None:
    """Predicts for everybody of the test split; the file's metadata hold the ``provenance``."""
    parts = run.folder / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    store = _Store(parts, run.dataset.protocol)
    trainer = new_trainer(run, [store])
    with interruptible():
        trainer.predict(run.method, run.module, return_predictions=False)
    run.wall_seconds["test"] = store.seconds
    trainer.strategy.barrier()
    skipped = sorted(distributed.union(run.module.skipped))
    if not distributed.rank():
        records = run.module.eval_records("test")
        made = run.folder / "predictions.parquet"
        origin = _provenance(run, skipped) | {"inference": store.inference}
        merge_parts(parts, made, [str(person) for person in records.person_id], origin)


class _Store(Callback):
    """Writes the predictions of this process to a file, batch by batch; the first process then times the method.

    Attributes:
        seconds: taken by the predictions, with loading and writing.
        inference: what ``timing.inference`` found, in as long again at most.
    """

    seconds = 0.0
    inference: dict[str, Any] | None = None

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self.folder, self.protocol = folder, protocol

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self.begun = time.monotonic()
        self.writer = PartWriter(self.folder / f"part-{trainer.global_rank}.parquet", self.protocol)

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Prediction | None, batch: Batch, *_: Any
    ) -> None:
        if outputs is not None:
            self.writer.write(batch, outputs)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self.writer.close()
        trainer.strategy.barrier()  # until the others have predicted too, they share its processor
        self.seconds = time.monotonic() - self.begun
        if trainer.is_global_zero:
            self.inference = inference(trainer, pl_module, trainer.datamodule, self.seconds)


def _provenance(run: Run, skipped: list[str]) -> dict[str, Any]:
    """What made the predictions, in the form of the record."""
    method, config, made = run.method, run.config, run.folder / "weights.pt"
    card = method.card
    trained = {"file": made.name, "sha256": file_digest(made)} if run.trains and made.is_file() else None
    selection = "nothing was trained"
    if trained is not None:
        last = run.module.selection == "last"
        selection = "last epoch of trainval" if last else "best epoch on the held-out val sources"
    return {
        "run": run.id,
        "method": {
            "name": config.method.name,
            "version": method.version,
            "title": method.title or card.title,
            "family": card.family,
            "source": config.method.source,
            "origin": config.method.origin,
            "paper": card.paper,
            "citation": card.citation,
            "licence": card.licence,
            **({} if card.sees is None else {"sees": sorted(card.sees)}),
        },
        "data": {
            "fingerprint": run.data["test"]["fingerprint"],
            "full_fingerprint": run.data["test"]["full_fingerprint"],
            "train": run.data.get("train"),
            "origin": config.dataset.origin,
            "limited": bool(run.module.limit_test or run.module.limit_train),
        },
        "weights": method.weights_identity() | {"initial": run.initial, "trained": trained},
        "config": config.public() | {"provenance": provenance(config)},
        "seed": config.values["seed"],
        "selection": selection,
        "training": run.training,
        "skipped_images": skipped,
        "parameters": {
            "total": sum(p.numel() for p in method.parameters()),
            "trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
        },
        "wall_seconds": {name: round(seconds, 3) for name, seconds in run.wall_seconds.items()},
        "peak_memory_bytes": record.peak_memory(),
        "code": record.code_identity(),
        "hardware": record.hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
