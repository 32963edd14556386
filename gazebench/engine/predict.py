"""Prediction: from a prepared run to ``predictions.parquet`` in its folder."""

from __future__ import annotations

import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning import Callback

from gazebench.core import distributed
from gazebench.core.files import file_digest
from gazebench.core.types import Batch, Prediction
from gazebench.data.combined import CombinedDataset
from gazebench.engine import record
from gazebench.engine.config import provenance
from gazebench.engine.predictions import PartWriter, merge_parts
from gazebench.engine.score import Measured
from gazebench.engine.timing import inference
from gazebench.engine.train import interruptible, new_trainer
from gazebench.metrics.protocol import Protocol

if TYPE_CHECKING:
    from gazebench.engine.run import Run

WAITING = 4
"""Batches that may wait for the thread that writes and scores them."""


def predict(run: Run) -> Measured | None:
    """Predicts for everybody of the test split; the file's metadata hold the ``provenance``.

    Returns:
        The predictions, scored while they were made; None where several processes made them.
    """
    parts = run.folder / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    records = run.module.eval_records("test")
    store = _Store(parts, run.dataset.protocol, Measured(run.dataset, records))
    trainer = new_trainer(run, [store])
    with interruptible():
        trainer.predict(run.method, run.module, return_predictions=False)
    run.wall_seconds["test"] = store.seconds
    trainer.strategy.barrier()
    skipped = sorted(distributed.union(run.module.skipped))
    if not distributed.rank():
        made = run.folder / "predictions.parquet"
        origin = _provenance(run, skipped) | {"inference": store.inference}
        merge_parts(parts, made, [str(person) for person in records.person_id], origin)
    return store.measured if trainer.world_size == 1 else None


class _Store(Callback):
    """Writes the predictions of this process to a file, batch by batch; the first process then times the method.

    A thread writes, and scores where there is one process, while the next pictures are decoded and predicted: reading
    from a GPU, compression, interpolation and sorting all leave the interpreter to others.

    Attributes:
        seconds: taken by the predictions, with loading, writing and scoring.
        inference: what ``timing.inference`` found, in as long again at most.
    """

    seconds = 0.0
    inference: dict[str, Any] | None = None

    def __init__(self, folder: Path, protocol: Protocol, measured: Measured) -> None:
        self.folder, self.protocol, self.measured = folder, protocol, measured
        self.place = {str(image): place for place, image in enumerate(measured.records.images)}
        self.thread = ThreadPoolExecutor(1)
        self.pending: deque[Future[None]] = deque()

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self.begun = time.monotonic()
        self.writer = PartWriter(self.folder / f"part-{trainer.global_rank}.parquet", self.protocol)
        self.scores = trainer.world_size == 1 and not trainer.datamodule.tasks

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Prediction | None, batch: Batch, *_: Any
    ) -> None:
        if outputs is not None:
            self.pending.append(self.thread.submit(self._take, batch, outputs))
        while len(self.pending) > WAITING or (self.pending and self.pending[0].done()):
            self.pending.popleft().result()  # raises what the thread has raised

    def _take(self, batch: Batch, prediction: Prediction) -> None:
        self.writer.write(batch, prediction)
        if self.scores:
            self.measured.add(np.array([self.place[image] for image in batch.image_ids]), prediction)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.thread.shutdown(cancel_futures=True)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        for future in self.pending:
            future.result()
        self.thread.shutdown()
        self.writer.close()
        trainer.strategy.barrier()  # until the others have predicted too, they share its processor
        self.seconds = time.monotonic() - self.begun
        if trainer.is_global_zero:
            self.inference = inference(trainer, pl_module, trainer.datamodule, self.seconds)


def _provenance(run: Run, skipped: list[str]) -> dict[str, Any]:
    """What made the predictions, in the form of the record."""
    method, config, made = run.method, run.config, run.folder / "weights.pt"
    card, by = method.card, run.source or run
    trained = {"file": made.name, "sha256": file_digest(made)} if run.trains and made.is_file() else None
    selection = "nothing was trained"
    if trained is not None or run.source is not None:
        last = run.module.selection == "last"
        selection = "last epoch of trainval" if last else "best epoch on the held-out val sources"
        if isinstance(by.dataset, CombinedDataset):
            first, metric = next(iter(by.dataset.parts)), by.dataset.protocol.headline
            selection += " of all data sets" if last else f" of {first}, by its {metric}"
    return {
        "run": run.id,
        "method": {
            "name": config.method.name,
            "version": method.version,
            "title": (method.title or card.title) + (f", trained on {by.dataset.card.title}" if run.source else ""),
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
            "limited": bool(run.module.limit_test or by.module.limit_train),
        },
        "weights": method.weights_identity() | {"initial": run.initial, "trained": trained},
        "config": config.public() | {"provenance": provenance(config)},
        "seed": config.values["seed"],
        "selection": selection,
        "training": by.training,
        "skipped_images": skipped,
        "parameters": {
            "total": sum(p.numel() for p in method.parameters()),
            "trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
        },
        "wall_seconds": {name: round(seconds, 3) for name, seconds in (by.wall_seconds | run.wall_seconds).items()},
        "peak_memory_bytes": record.peak_memory(),
        "code": record.code_identity(),
        "hardware": record.hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
