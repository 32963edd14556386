"""Loop 2, *score*: a predictions file in, metrics and a record out; the same for everybody's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest, write_atomically
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.task import Task
from gazebench.engine import record as results
from gazebench.engine.predictions import PredictionFile, chunks
from gazebench.engine.registry import tasks as registered_tasks
from gazebench.metrics.scoring import Score, Scorer


def score(
    path: Path,
    dataset: GazeDataset,
    *,
    split: str = "test",
    records: Records | None = None,
    partial: bool = False,
    title: str = "",
    kind: str = "score",
) -> dict[str, Any]:
    """Scores a predictions file; returns the record.

    A file of a run of ours (``kind`` ``bench`` or ``eval``) gets ``record.json`` and ``scores.parquet``, a row a person
    with every metric's value, beside it.

    Args:
        path: see ``predictions.FORMAT``.
        dataset: what the predictions are about.
        split: of the data set.
        records: who is to be predicted; everybody of the split where not given.
        partial: accept a file that leaves people out; the record says so.
        title: what tables call it; the file's name where not given.
        kind: ``score``, or the kind of the run that made the file.

    Raises:
        DataError: a bad file, or people it leaves out (unless ``partial``), named.
    """
    file = PredictionFile(path)
    made = file.provenance if kind != "score" else None
    records = dataset.records(split) if records is None else records
    records, left_out = _covered(file, records, partial, skipped=(made or {}).get("skipped_images", ()))
    tasks = [task for name, task in registered_tasks().items() if name in file.frame and not left_out]
    scores, people = measure(file, dataset, records, tasks)
    if not scores:
        raise DataError(f"{path}: not one person could be scored, so there is no result to record")
    identity = dataset.identity(split)
    reasons = []
    if left_out:
        reasons.append(f"{left_out:,} people have no prediction")
        reasons += [
            f"{name} were not scored: the items are those about everybody of the split"
            for name in registered_tasks()
            if name in file.frame
        ]
    record = results.make(
        dataset, identity, scores, made or _unknown(file, title, identity), kind, reasons,
        tasks={task.name: task.describe() for task in tasks},
        samples={"people": records.people, "images": len(records), "predictions_sha256": file_digest(path)},
    )  # fmt: skip
    if kind != "score":
        write_atomically(path.parent / "scores.parquet", people.to_parquet)
        text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(path.parent / "record.json", text)
    return record


def measure(
    file: PredictionFile, dataset: GazeDataset, records: Records, tasks: list[Task]
) -> tuple[dict[str, dict[str, Score]], pd.DataFrame]:
    """Every metric with its subsets and intervals, and a row a person with the values of those that count people."""
    sources = {task.name: task.source(dataset, records) for task in tasks}
    scorer = Scorer(dataset.protocol, records, tasks)
    parts = []
    for images in chunks(records):
        some = records.of_images(images)
        items = {name: source.of_images(records, images) for name, source in sources.items()}
        prediction = file.prediction(some, {name: found for name, (found, _) in items.items()})
        values = scorer.update(images, prediction, items)
        parts.append(_person_rows(some, file, values))
    return scorer.compute(intervals=True), pd.concat(parts, ignore_index=True)


def _person_rows(records: Records, file: PredictionFile, values: Mapping[str, Any]) -> pd.DataFrame:
    ids = records.person_id.astype(str)
    rows = pd.DataFrame({
        "person_id": ids,
        "image_id": records.images[records.person_image].astype(str),
        "group": records.groups[records.person_image].astype(str),
        "subset": records.columns.get("subset", np.full(records.people, "")).astype(str),
        "target_inout": records.inout,
    })  # fmt: skip
    for name in ("x", "y", "inout", "label"):
        if name in file.frame:
            rows[name] = file.frame.loc[ids, name].to_numpy()
    for name, (value, sample) in values.items():
        if value.ndim == 1 and len(sample) <= len(rows):
            column = np.full(len(rows), np.nan)
            column[sample.numpy()] = value.numpy()
            rows[f"metric_{name}"] = column
    return rows


def _covered(file: PredictionFile, records: Records, partial: bool, skipped: Any) -> tuple[Records, int]:
    """The records the file speaks of, and how many people it leaves out besides those of unreadable images."""
    known = file.covers(records)
    unreadable = {reason.partition(":")[0] for reason in skipped}
    excused = np.array([any(path.endswith(str(image)) for path in unreadable) for image in records.images], dtype=bool)
    missing = ~known & ~excused[records.person_image]
    if missing.any() and not partial:
        names = ", ".join(records.person_id[missing][:3])
        raise DataError(
            f"{file.path}: {missing.sum():,} of {records.people:,} people have no prediction (first: {names}); add "
            "them, or give --partial for a result that is marked incomplete"
        )
    return records.select(known) if not known.all() else records, int(missing.sum())


def _unknown(file: PredictionFile, title: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of a file that somebody brings: the file itself."""
    title = title or file.path.stem
    slug = "".join(c if c.isalnum() or c in "._-" else "_" for c in title.lower()) or "predictions"
    digest = file_digest(file.path)
    return {
        "run": f"{digest[:6]}{identity['fingerprint'][:4]}",
        "method": {"name": slug, "title": title, "family": "file"},
        "data": {"train": None},
        "weights": {"grade": "file", "name": ""},
        "config": {"data": identity["name"], "split": identity["split"], "predictions": file.path.name},
        "seed": None,
        "selection": "nothing was trained",
        "training": None,
        "skipped_images": [],
        "parameters": {"total": 0, "trained": 0},
        "wall_seconds": {},
        "peak_memory_bytes": {},
        "code": results.code_identity(),
        "hardware": results.hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
