"""Scoring: from a predictions file, of this suite or of any other program, to metrics and a record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import IntArray
from gazebench.core.errors import DataError
from gazebench.core.files import file_digest, write_atomically
from gazebench.core.types import Prediction, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.task import Task
from gazebench.engine import record as results
from gazebench.engine.predictions import PredictionFile, chunks
from gazebench.engine.registry import tasks as registered_tasks
from gazebench.metrics.base import Values
from gazebench.metrics.scoring import Items, Scorer


def score(
    path: Path,
    dataset: GazeDataset,
    *,
    split: str = "test",
    records: Records | None = None,
    partial: bool = False,
    title: str = "",
    kind: str = "score",
    tasks: Sequence[Task] = (),
    places: Sequence[Path] = (),
    measured: Measured | None = None,
) -> dict[str, Any]:
    """Scores a predictions file and returns the record.

    For a file of a run (``kind`` ``bench`` or ``eval``) it also writes ``record.json`` beside the file, and
    ``scores.parquet`` with a row for each person and a column for each metric.

    Args:
        path: the file, see ``predictions.FORMAT``.
        dataset: the data set that was predicted.
        split: a split of it.
        records: the people to be predicted; by default everybody of the split.
        partial: accept a file that leaves people out; the record says so.
        title: name in tables; by default the file's name.
        kind: ``score``, or the kind of the run that made the file.
        tasks: the method's tasks that are not registered.
        places: folders of records of this suite, which say which weights it wrote.
        measured: the file's predictions, scored while they were made; used where they are of everybody scored here.

    Raises:
        DataError: the file is bad, or leaves people out (without ``partial``); the message names them.
    """
    file = PredictionFile(path)
    made = file.provenance if kind != "score" else None
    records = dataset.records(split) if records is None else records
    known, left_out = _covered(file, records, partial)
    answered = {**registered_tasks(), **{task.name: task for task in tasks}}
    answered = {name: task for name, task in answered.items() if name in file.frame}
    used = {} if left_out else answered
    if measured is None or used or not measured.covers(records.select(known)):
        measured = measure(file, dataset, records, known, list(used.values()))
    scores, people = measured.scorer.compute(intervals=True), measured.people(file)
    if not scores:
        raise DataError(f"{path}: none of its people could be scored, so there is no result to record")
    identity = dataset.identity(split)
    reasons = []
    if left_out:
        reasons.append(f"{left_out:,} people have no prediction")
        reasons += [f"{name} were not scored: the items are those about everybody of the split" for name in answered]
    record = results.make(
        dataset, identity, scores, made or _unknown(file, title, identity, dataset.protocol.variant), kind, reasons,
        tasks={name: task.describe() for name, task in used.items()},
        samples={
            "people": len(people),
            "images": people["image_id"].nunique(),
            "predictions_sha256": file_digest(path),
        },
        places=places,
    )  # fmt: skip
    if kind != "score":
        write_atomically(path.parent / "scores.parquet", people.to_parquet)
        write_atomically(path.parent / "record.json", results.as_json(record))
    return record


class Measured:
    """Predictions scored by a data set's protocol, some images at a time.

    Args:
        dataset: the data set that is predicted.
        records: who is scored.
        tasks: the tasks to score.
    """

    def __init__(self, dataset: GazeDataset, records: Records, tasks: Sequence[Task] = ()) -> None:
        self.records = records
        self.scorer = Scorer(dataset.protocol, records, tasks, alone=True)
        self._of_people = {column.name for column in self.scorer.columns if column.metric().unit == "person"}
        self._parts: list[tuple[IntArray, dict[str, Values]]] = []

    def add(self, images: IntArray, prediction: Prediction, items: Items | None = None) -> None:
        """Scores whole images; arguments of ``Scorer.update``."""
        values = self.scorer.update(images, prediction, items)
        self._parts.append((images, {name: values[name] for name in values.keys() & self._of_people}))

    def covers(self, records: Records) -> bool:
        """Whether the people scored so far are those of the records."""
        images = np.concatenate([np.zeros(0, np.int64), *(images for images, _ in self._parts)])
        return bool(np.array_equal(self.records.of_images(images).person_id, records.person_id))

    def people(self, file: PredictionFile) -> pd.DataFrame:
        """The values of each person beside what the file says of them."""
        rows = [_person_rows(self.records.of_images(images), file, values) for images, values in self._parts]
        return pd.concat(rows, ignore_index=True)


def measure(
    file: PredictionFile, dataset: GazeDataset, records: Records, known: npt.NDArray[np.bool_], tasks: Sequence[Task]
) -> Measured:
    """Scores a file.

    Args:
        file: the predictions.
        dataset: the data set that was predicted.
        records: all P people to be predicted; items of tasks are about these.
        known: (P,) bool, the people who are scored.
        tasks: the tasks to score.
    """
    sources = {task.name: task.source(dataset, records) for task in tasks}
    place, scored = np.unique(records.person_image[known]), records.select(known)
    measured = Measured(dataset, scored, tasks)
    for images in chunks(scored):
        some = scored.of_images(images)
        items = {name: source.of_images(records, place[images]) for name, source in sources.items()}
        prediction = file.prediction(some, {name: found for name, (found, _) in items.items()})
        measured.add(images, prediction, items)
    return measured


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
        if value.ndim == 1:
            column = np.full(len(rows), np.nan)
            column[sample.numpy()] = value.numpy()
            rows[f"metric_{name}"] = column
    return rows


def _covered(file: PredictionFile, records: Records, partial: bool) -> tuple[npt.NDArray[np.bool_], int]:
    """(P,) who is scored, and how many others there are, not counting the people of skipped images."""
    known = file.covers(records)
    skipped = (file.provenance or {}).get("skipped_images", [])
    excused: npt.NDArray[np.bool_] = np.isin(records.images, skipped)[records.person_image]
    sized: npt.NDArray[np.bool_] = (records.sizes.min(axis=1) > 0)[records.person_image]
    for unfit, why in (
        (~known & ~excused, "have no prediction; add them"),
        (known & ~sized, "are in images whose size cannot be read; restore the files"),
    ):
        if unfit.any() and not partial:
            names = ", ".join(records.person_id[unfit][:3])
            raise DataError(
                f"{file.path}: {unfit.sum():,} of {records.people:,} people (first: {names}) {why}, or give --partial "
                "for a result that is marked incomplete"
            )
    known &= sized
    if not known.any():
        raise DataError(f"{file.path}: no image of {records.dataset}/{records.split} can be read")
    return known, int((~known & ~excused).sum())


def _unknown(file: PredictionFile, title: str, identity: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """The provenance of a file that no run of this suite made."""
    title = title or file.path.stem
    slug = "".join(c if c.isalnum() or c in "._-" else "_" for c in title.lower()) or "predictions"
    digest = file_digest(file.path)
    if variant:  # another decoder is another result
        digest = hashlib.sha256(f"{digest} {variant}".encode()).hexdigest()
    return results.untrained(
        run=f"{digest[:6]}{identity['full_fingerprint'][:4]}",
        method={"name": slug, "title": title, "family": "file"},
        weights={"grade": "file", "name": ""},
        config={"data": identity["name"], "split": identity["split"], "predictions": file.path.name},
        skipped_images=(file.provenance or {}).get("skipped_images", []),
    )
