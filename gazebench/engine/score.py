"""Scores saved predictions through the very code that scores a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gazebench.core.types import DataError
from gazebench.core.weights import file_digest
from gazebench.data import saliency_splits as subsets
from gazebench.data.check import built
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.engine import record as results
from gazebench.engine.predictions import Stored, read_predictions
from gazebench.engine.registry import name_of
from gazebench.engine.run import Places
from gazebench.metrics.scoring import Evaluator
from gazebench.report.board import refresh


def score(path: Path, data: str, options: Sequence[str], places: Places) -> tuple[dict[str, Any], Path]:
    """Scores a predictions file on a dataset and stores the record.

    Args:
        path: see ``predictions.FORMAT``.
        data: name of the dataset.
        options: ``--dataset.root=DIR`` and the like, ``--title=NAME``, ``--split=test``, ``--partial``.
        places: where the record goes.

    Raises:
        DataError: a bad file, or people it leaves out (unless ``--partial``), named.
    """
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ours.add_argument("--title", default=path.stem)
    ours.add_argument("--split", default="test")
    ours.add_argument("--partial", action="store_true")
    known, rest = ours.parse_known_args(list(options))
    dataset = built(data, rest)
    stored = Stored(read_predictions(path), str(path))
    records, left_out = stored.covered(dataset.records(known.split))
    if left_out and not known.partial:
        names = ", ".join(left_out[:3])
        raise DataError(
            f"{path}: {len(left_out):,} of {len(left_out) + records.people:,} people have no prediction "
            f"(first: {names}); add them, or give --partial for a result that is marked incomplete"
        )
    answered = stored.has["answers"]
    if left_out:  # half of a split's questions hang on who else is in it
        stored.has["answers"] = False
    evaluator = Evaluator(dataset.protocol)
    samples = ImageSamples(
        dataset, records, stored.preprocess(), augment=False, sees_images=False, bad_images="error", seed=0
    )
    for start in range(0, len(samples), 64):
        batch = collate([samples[image] for image in range(start, min(start + 64, len(samples)))])
        evaluator.update(stored.predict_batch(batch), batch)
    identity = dataset.identity(known.split)
    reasons = ["scored from a file: what made it is not known to the suite"]
    if left_out:
        reasons.append(f"{len(left_out):,} people have no prediction")
        if answered:
            reasons.append("answers were not scored: the questions are those about everybody of the split")
    if not identity["complete"]:
        reasons.append("the data are not the official set")
    reasons += subsets.defects(identity["subsets"])
    digest = file_digest(path)
    config = {"data": name_of("datasets", data), "split": known.split, "predictions": path.name}
    record = {
        "schema": results.SCHEMA_VERSION,
        "run": f"{digest[:6]}{identity['fingerprint'][:4]}",
        "kind": "score",
        "method": {"name": _slug(known.title), "title": known.title, "family": "file"},
        "dataset": name_of("datasets", data),
        "status": {"class": "smoke", "reasons": reasons},
        "metrics": results.metrics_block(evaluator.compute(intervals=True)),
        "intervals": results.INTERVALS,
        "samples": {
            "people": records.people,
            "images": len(records),
            "skipped_images": [],
            "predictions_sha256": digest,
        },
        "protocol": dataset.protocol.describe(),
        "data": identity | {"train": None},
        "weights": {"grade": "file", "name": ""},
        "config": config,
        "seed": None,
        "selection": "nothing was trained",
        "code": results.code_identity(),
        "parameters": {"total": 0, "trained": 0},
        "wall_seconds": {},
        "peak_memory_bytes": {},
        "hardware": results.hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record = json.loads(json.dumps(record))
    target = results.write_record(record, places.boards)
    refresh(places.boards, record["dataset"], type(dataset))
    return record, target


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in title.lower()) or "predictions"
