"""From raw answers to a result: every metric of the protocol, with an interval over the pictures' sources."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gazebench.core.errors import DataError
from gazebench.core.types import stable_key
from gazebench.engine import record as results
from gazebench.metrics.intervals import DRAWS, METHOD
from gazebench.metrics.protocol import ALL, ProtocolMetric
from gazebench.metrics.scoring import Score, intervals_of
from gazebench.vlm.messages import Reply
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.answerers import Answerer
from gazebench.vqa.files import Row, read
from gazebench.vqa.metrics import QuestionMetric, Similarity
from gazebench.vqa.protocols import OURS, Rules, rules
from gazebench.vqa.questions.reading import Said
from gazebench.vqa.types import Question, Truth

CENTRE = (0.5, 0.5)
SCHEMA = 1


@dataclass
class Answered:
    """The questions of a file with what was said to them.

    Attributes:
        rows: the questions.
        said: what each answer says; nothing for one that is missing.
        texts: the answers themselves.
        open: how many have no answer.
    """

    rows: list[Row] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: int = 0


def collect(path: Path, card: Mapping[str, Any], answerer: Answerer, store: AnswerStore) -> Answered:
    """Joins questions and stored answers."""
    stored, understood = store.answers(str(card["split"])), rules(card).read
    found = Answered()
    for row in read(path):
        answers = stored.get(row.question.id)
        reply = answers[0].reply if answers else Reply(row.question.id, "")
        found.open += not answers
        found.rows.append(row)
        found.texts.append(reply.text)
        found.said.append(understood(row.question.form, reply.text, reply.finish_reason, answerer.size(row)))
    return found


class Judged(QuestionMetric):
    """Share of descriptions that a judge model takes for right."""

    fields = ("questions", "truths", "said", "judged")
    task = "object"
    higher_is_better = True

    def measured(self, counted: Sequence[tuple[Question, Truth, Said]], **fields: Any) -> list[Any]:
        """1 or 0; without a verdict 0."""
        return [float(fields["judged"].get(question.id, False)) for question, _, _ in counted]

    def value(self, truth: Truth, said: Said) -> float:
        """Not without its question."""
        raise NotImplementedError


def measure(
    answered: Answered,
    similarity: Similarity | None = None,
    judged: Mapping[str, bool] | None = None,
    by: Rules = OURS,
) -> dict[str, Score]:
    """Every metric that has a question to be measured on, with its interval over sources (pictures, clips).

    Args:
        answered: questions and answers.
        similarity: CLIP's, for the metric that needs it.
        judged: by question id, whether a judge model took the description for right; adds ``vqa_object_judge``.
        by: the protocol's rules.
    """
    rows = answered.rows
    fields: dict[str, Any] = {
        "questions": [row.question for row in rows],
        "truths": [row.truth for row in rows],
        "said": answered.said,
        "similarity": similarity,
        "judged": judged,
    }
    keys, sources = (
        torch.tensor([stable_key(name) for name in names], dtype=torch.int64)
        for names in ([row.question.id for row in rows], [row.group for row in rows])
    )
    found: dict[tuple[str, str], Any] = {}
    scores = {}
    for use in (*by.metrics, ProtocolMetric("vqa_object_judge", Judged, subsets=False)):
        metric: Any = use.metric()
        if any(fields[name] is None for name in metric.fields):
            continue
        values, chosen = metric.values(**fields)
        metric.add(keys[chosen], values, sources[chosen])
        value = metric.compute()
        if value.numel():
            scores[use.name] = Score(float(value), int(metric.count))
            found[use.name, ALL] = metric
    for (name, _), (low, high, count) in intervals_of(found).items():
        scores[name] = replace(scores[name], low=low, high=high, sources=count)
    return scores


def result(
    card: Mapping[str, Any],
    answerer: Answerer,
    store: AnswerStore,
    answered: Answered,
    values: Mapping[str, Score],
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """The result as it is stored."""
    code = results.code_identity()
    reasons = []
    if not card["complete"]:
        reasons.append("the data are not the complete set")
    if answered.open:
        reasons.append(f"{answered.open:,} of {len(answered.rows):,} questions have no answer, which count as wrong")
    if code["dirty"] or card["code"]["dirty"]:
        reasons.append("the code had uncommitted changes")
    full = "synthetic" if card["synthetic"] else "complete"
    blocks = {name: {ALL: value} for name, value in values.items()}
    return {
        "schema": SCHEMA,
        "protocol": card["protocol"],
        "origin": card["origin"],
        "templates": card["templates"],
        "dataset": card["dataset"],
        "split": card["split"],
        "questions": {"sha256": card["sha256"], "counts": card["counts"]["task"]},
        "answerer": {
            "name": answerer.name, "title": answerer.title, "mode": answerer.mode, **store.identity,
        },
        "answers_sha256": store.digest(str(card["split"])),
        "status": {"class": "smoke" if reasons else full, "reasons": reasons},
        "metrics": {name: metric[ALL] for name, metric in results.metrics_block(blocks).items()},
        "intervals": {"method": METHOD, "draws": DRAWS, "level": 0.95},
        **further,
        "code": {name: code[name] for name in ("version", "commit", "dirty", "digest")},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def write(folder: Path, record: Mapping[str, Any], store: AnswerStore) -> Path:
    """Stores a result as ``<dataset>/<name>-<digest>-<split>.json``; the newest of the same answers stays."""
    name = f"{record['answerer']['name']}-{store.digest_of_identity[:10]}-{record['split']}.json"
    path = folder / str(record["dataset"]) / name
    results.write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def points(answered: Answered) -> Iterator[tuple[str, float, float, float]]:
    """Of every person asked for a point: id, x, y and how surely in frame, for the ordinary leaderboards.

    A refusal is "out of frame" with the point that is least far off, the middle of the picture; so is an answer that
    cannot be read, but for its score of one half.
    """
    for row, said in zip(answered.rows, answered.said, strict=True):
        if row.question.task == "point":
            x, y = said.point or CENTRE
            yield row.person, x, y, 1.0 if said.point else (0.0 if said.refusal else 0.5)


def write_points(path: Path, answered: Answered) -> int:
    """A predictions file for ``gazebench score``; the number of people.

    Raises:
        DataError: nobody was asked for a point.
    """
    found: Sequence[tuple[str, float, float, float]] = list(points(answered))
    if not found:
        raise DataError("no question asks for a point, so there is nothing to put on a leaderboard")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["person_id", "x", "y", "inout"])
        writer.writerows((person, f"{x:.6f}", f"{y:.6f}", inout) for person, x, y, inout in found)
    return len(found)
