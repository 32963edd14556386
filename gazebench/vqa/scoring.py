"""From answers to a record: every metric of the protocol, by the suite's own scorer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.types import Item, Prediction
from gazebench.data.dataset import GazeDataset
from gazebench.engine import record as results
from gazebench.metrics.scoring import Score, Scorer
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.answerers import Answerer
from gazebench.vqa.asking import Answered
from gazebench.vqa.task import protocol_of

CENTRE = (0.5, 0.5)


def measure(
    answered: Answered, card: Mapping[str, Any], dataset: GazeDataset, **further: Any
) -> dict[str, dict[str, Score]]:
    """Every metric that has a question to be measured on, with its interval over sources (images, clips).

    Args:
        answered: questions and answers.
        card: of the questions.
        dataset: what they are about.
        further: ``vocabulary``, with the CLIP that ``vqa_object_clip`` needs; ``judged``, for ``vqa_object_judge``: by
            question id, whether a judge model took the description for right.
    """
    records = dataset.records(str(card["split"]))
    place = {str(person): index for index, person in enumerate(records.person_id)}
    task = type(protocol_of(card))(answered.parsed, **further)
    items = [Item(record.question.id, place[record.person], record.question) for record in answered.records]
    truths = [record.truth for record in answered.records]
    scorer = Scorer(dataset.protocol, records, [task], alone=True)
    prediction = Prediction(outputs={task.name: answered.texts})
    scorer.update(np.arange(len(records)), prediction, {task.name: (items, truths)})
    return scorer.compute(intervals=True)


def make(
    dataset: GazeDataset,
    card: Mapping[str, Any],
    answerer: Answerer,
    store: AnswerStore,
    answered: Answered,
    scores: Mapping[str, Mapping[str, Score]],
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """The record; ``further`` says what judged or compared the descriptions."""
    reasons = []
    if answered.open:
        reasons.append(f"{answered.open:,} of {len(answered.records):,} questions have no answer, which count as wrong")
    if card["code"]["dirty"]:
        reasons.append("the questions were built by code with uncommitted changes")
    split, model, weights = str(card["split"]), str(store.identity["model"]), answerer.weights()
    made = results.untrained(
        run=f"{store.digest_of_identity[:10]}-{split}",
        method={
            "name": answerer.name, "title": answerer.title, "family": "answers to questions", "mode": answerer.mode,
        },
        weights={
            "grade": "none", "name": model, "initial": None,
            **({"vlm": {"name": model, "weights": weights}} if weights else {}),
        },
        config={
            "data": card["dataset"],
            "split": split,
            "questions": {name: card[name] for name in ("sha256", "seed", "templates", "descriptions")}
            | {"counts": card["counts"]["task"]},
            "answerer": store.identity,
            "answers_sha256": store.digest(split),
            **further,
        },
    )  # fmt: skip
    protocol = protocol_of(card)
    return results.make(
        dataset, dataset.identity(split), scores, made, "eval", reasons,
        tasks={protocol.name: protocol.describe() | {"origin": protocol.origin}},
        samples={
            "people": len({record.person for record in answered.records}),
            "images": len({record.image for record in answered.records}),
        },
    )  # fmt: skip


def write(folder: Path, record: Mapping[str, Any]) -> Path:
    """Stores a record as ``<dataset>/<name>-<run>.json``; the newest of the same answers stays."""
    path = folder / str(record["dataset"]) / f"{record['method']['name']}-{record['run']}.json"
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def write_points(path: Path, answered: Answered) -> int:
    """The points as a predictions file for ``gazebench score``; returns the number of people.

    A refusal is "out of frame" at the centre of the image, whose expected distance is least; so is an answer that could
    not be parsed, but with the score one half.

    Raises:
        DataError: nobody was asked for a point.
    """
    found = [
        (record.person, *(answer.point or CENTRE), 1.0 if answer.point else 0.0 if answer.refusal else 0.5)
        for record, answer in zip(answered.records, answered.parsed, strict=True)
        if record.question.task == "point"
    ]
    if not found:
        raise DataError("no question asks for a point, so there is nothing to put on a leaderboard")
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(found, columns=["person_id", "x", "y", "inout"])
    frame.round(6).to_csv(path, index=False)
    return len(found)
