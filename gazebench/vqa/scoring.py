"""From answers to a record: every metric of the protocol, by the suite's own scorer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.types import Item, Prediction
from gazebench.data.dataset import GazeDataset
from gazebench.engine import record as results
from gazebench.metrics.intervals import format_value
from gazebench.metrics.scoring import Score, Scorer
from gazebench.vlm.coordinates import Convention, Scale, family_of
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.answerers import Answerer
from gazebench.vqa.asking import Answered
from gazebench.vqa.metrics import NEAR, RIGHT
from gazebench.vqa.protocols import protocol_of
from gazebench.vqa.questions.geometry import DIRECTIONS
from gazebench.vqa.questions.parsing import READER

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
            | {"counts": card["counts"]["task"]}
            | ({"all_pairs": True} if card.get("all_pairs") else {}),
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


def reading(answered: Answered, card: Mapping[str, Any], answerer: Answerer) -> dict[str, Any]:
    """How the answers were read, as JSON values: the card of the answers.

    ``status`` and ``how`` count answers by question type, ``structured`` those that a server held to a
    schema. ``coordinates`` is the convention of points, and ``vqa_point`` the share of right points by every
    convention; ``unread`` says how many points each cannot read.
    """
    protocol, own = protocol_of(card), answerer.convention
    status: dict[str, Counter[str]] = {}
    how: dict[str, Counter[str]] = {}
    for record, answer in zip(answered.records, answered.parsed, strict=True):
        status.setdefault(record.question.task, Counter())[answer.status] += 1
        how.setdefault(record.question.task, Counter())[answer.how or answer.status] += 1
    points = [
        index for index, record in enumerate(answered.records)
        if record.question.task == "point" and not record.truth.refusal
    ]  # fmt: skip
    conventions = {own.name: own} | {
        one.name: one for scale in get_args(Scale) for y_first in (False, True)
        if (one := Convention(scale, y_first)).name != own.name
    }  # fmt: skip
    shares, unread = {}, {}
    for name, convention in conventions.items() if points else ():
        parsed = [answered.parse(index, protocol, convention) for index in points]
        right = [RIGHT["point"](answered.records[index].truth, one) for index, one in zip(points, parsed, strict=True)]
        shares[name], unread[name] = sum(right) / len(points), sum(not one.valid for one in parsed)
    return {
        "reader": READER,
        "coordinates": own.name,
        "family": family_of(str(answerer.identity().get("model", ""))),
        "structured": sum(reply.structured for reply in answered.replies),
        "status": status,
        "how": how,
        "points": len(points),
        "vqa_point": shares,
        "unread": unread,
    }


def other_coordinates(read: Mapping[str, Any]) -> str:
    """A line that says what the share of right points would be by other conventions of coordinates."""
    if not read["vqa_point"]:
        return "no points were asked for"
    own = read["coordinates"]
    others = ", ".join(
        f"{name} {format_value(share)} ({read['unread'][name]:,} unread)"
        for name, share in read["vqa_point"].items() if name != own
    )  # fmt: skip
    origin = f"as {read['family']} writes them" if read["family"] else "as the questions ask for them or as given"
    share = format_value(read["vqa_point"][own])
    return f"points read as {own} ({origin}): {share} within {NEAR}; read otherwise: {others}"


def write_reading(path: Path, answered: Answered, read: Mapping[str, Any]) -> Path:
    """Writes how each answer was read, as CSV, and ``reading`` as JSON beside it."""
    rows = [
        (
            record.question.id, record.question.form, answer.status, answer.how, answer.refusal, answer.verdict,
            answer.p_yes, DIRECTIONS[answer.direction] if answer.direction >= 0 else "", answer.phrase,
            *(answer.point or (None, None)),
        )
        for record, answer in zip(answered.records, answered.parsed, strict=True)
    ]  # fmt: skip
    names = ["question", "form", "status", "how", "refusal", "verdict", "p_yes", "direction", "phrase", "x", "y"]
    write_atomically(path, pd.DataFrame(rows, columns=names).round(6).to_csv(index=False))
    write_atomically(path.with_suffix(".json"), json.dumps(read, indent=1) + "\n")
    return path


def write(folder: Path, record: Mapping[str, Any]) -> Path:
    """Stores a record as ``<dataset>/<name>-<run>.json``; the newest of the same answers stays."""
    path = folder / str(record["dataset"]) / f"{record['method']['name']}-{record['run']}.json"
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def write_pairs(path: Path, answered: Answered, dataset: GazeDataset, card: Mapping[str, Any]) -> int:
    """The answers about all pairs as a predictions file for ``gazebench score``; returns the number of people.

    The score of a pair is the probability of "yes", or 1 or 0 where the backend gives none. Somebody who was not asked
    about, for want of a head box, has the score 0; so has an answer that is neither yes nor no.
    """
    records = dataset.records(str(card["split"]))
    place = {str(person): index for index, person in enumerate(records.person_id)}
    ids, start = [str(person) for person in records.person_id], records.person_start
    cells: list[dict[str, dict[str, float]]] = []
    for image in range(len(records)):
        people = ids[start[image] : start[image + 1]]
        for person in people:
            others = dict.fromkeys((other for other in people if other != person), 0.0)
            cells.append({task: dict(others) for task in records.pairs})
    for record, answer in zip(answered.records, answered.parsed, strict=True):
        looker, task = place[record.person], record.question.task
        other = int(start[records.person_image[looker]]) + record.question.other
        score = float(answer.verdict == "yes") if answer.p_yes is None else answer.p_yes
        cells[looker][task][ids[other]] = score
        if task != "lah":  # asked once about two people
            cells[other][task][ids[looker]] = score
    rows = [json.dumps({"person_id": person, **cell}) for person, cell in zip(ids, cells, strict=True)]
    write_atomically(path, "\n".join(rows) + "\n")
    return len(rows)


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
    frame = pd.DataFrame(found, columns=["person_id", "x", "y", "inout"])
    write_atomically(path, frame.round(6).to_csv(index=False))
    return len(found)
