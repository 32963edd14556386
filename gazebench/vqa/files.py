"""Files of questions: JSON lines, written and read as a stream, and a card that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest, write_atomically
from gazebench.data.dataset import GazeDataset
from gazebench.vqa.types import Question, Truth

CARD = ".json"
_BUILD = "gazebench vqa build DATASET"


@dataclass(frozen=True)
class QuestionRecord:
    """A question with its truth, and the person and image it is about.

    Attributes:
        image: key of the image in the data set's records.
        person: id of the person it was made for.
        group: the source the image comes from; intervals are over sources.
    """

    image: str
    person: str
    group: str
    question: Question
    truth: Truth

    def to_json(self) -> str:
        """One line."""
        question, truth = self.question, self.truth
        head = None if truth.head[0] != truth.head[0] else [round(side, 6) for side in truth.head]
        return json.dumps(
            {
                "id": question.id, "image": self.image, "person": self.person, "group": self.group,
                "task": question.task, "form": question.form, "observer": question.observer,
                "question": question.text, "answer": truth.answer, "refusal": truth.refusal,
                "points": [[round(x, 6), round(y, 6)] for x, y in truth.points], "direction": truth.direction,
                "labels": list(truth.labels), "references": list(truth.references), "head": head,
                "size": list(truth.size), **({"other": question.other} if question.other >= 0 else {}),
            },
            ensure_ascii=False,
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> QuestionRecord:
        """The inverse; ValueError, KeyError, IndexError or TypeError where it is no question."""
        read = json.loads(text)
        question = Question(
            read["id"], read["task"], read["form"], read["observer"], read["question"], int(read.get("other", -1))
        )
        truth = Truth(
            answer=read["answer"],
            refusal=read["refusal"],
            points=tuple((float(x), float(y)) for x, y in read["points"]),
            head=tuple(map(float, read["head"])) if read["head"] else Truth("").head,  # type: ignore[arg-type]
            size=(int(read["size"][0]), int(read["size"][1])),
            direction=int(read["direction"]),
            labels=tuple(read["labels"]),
            references=tuple(read["references"]),
        )
        return cls(read["image"], read["person"], read["group"], question, truth)


def _kinds(record: QuestionRecord) -> dict[str, str]:
    """What a card counts a question by."""
    question, truth = record.question, record.truth
    kinds: dict[str, str] = {"task": question.task, "form": question.form, "observer": question.observer}
    given = (truth.answer or "no label") if question.form == "yes_no" else "given"
    kinds[f"{question.task}: answer"] = truth.refusal or given
    if truth.direction >= 0 and question.task == "direction":
        kinds["direction"] = truth.answer
    if truth.labels and question.task == "object":
        kinds["label"] = truth.labels[0]
    return kinds


def write(path: Path, records: Iterable[QuestionRecord], card: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``path`` (JSON lines) and its card, whole or not at all; returns the card with counts and checksum."""
    digest, total, kinds = hashlib.sha256(), Counter(questions=0, images=0, people=0), Counter[tuple[str, str]]()

    def lines(temporary: Path) -> None:
        image = person = ""
        with temporary.open("wb") as file:
            for record in records:
                line = f"{record.to_json()}\n".encode()
                file.write(line)
                digest.update(line)
                # Images and people come one after another, so only the last one need be remembered.
                total.update(questions=1, images=record.image != image, people=record.person != person)
                image, person = record.image, record.person
                kinds.update(_kinds(record).items())
        path.with_suffix(CARD).unlink(missing_ok=True)  # better no card for a moment than that of the old questions

    write_atomically(path, lines)
    counts: dict[str, Any] = dict(total)
    for (kind, value), count in sorted(kinds.items()):
        counts.setdefault(kind, {})[value] = count
    full = {**card, "counts": counts, "sha256": digest.hexdigest()}
    write_atomically(path.with_suffix(CARD), json.dumps(full, indent=1, ensure_ascii=False) + "\n")
    return full


def read(path: Path) -> Iterator[QuestionRecord]:
    """The questions of a file, one by one.

    Raises:
        DataError: a line is no question; names the line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield QuestionRecord.from_json(line)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise DataError(
                    f"{path}:{number}: not a question ({type(error).__name__}: {error}); build it anew: {_BUILD}"
                ) from error


def read_card(path: Path) -> dict[str, Any]:
    """The card of a file of questions, after checking that it is this very file's.

    Raises:
        DataError: file or card is missing, or the file has changed since.
    """
    try:
        digest = file_digest(path)
        card: dict[str, Any] = json.loads(path.with_suffix(CARD).read_text(encoding="utf-8"))
        if card["sha256"] != digest:
            raise ValueError("not the file its card describes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no questions with their card {path.stem}{CARD} ({error}); make both by {_BUILD}"
        ) from error
    return card


def check_annotations(path: Path, card: Mapping[str, Any], dataset: GazeDataset) -> None:
    """Raises DataError where the questions of ``path`` were built from other annotations than the data set's."""
    if dataset.records(str(card["split"])).fingerprint() != card["fingerprint"]:
        raise DataError(
            f"{path}: built from other annotations of {card['dataset']}/{card['split']} than these; build the "
            "questions anew, or give the same --dataset options"
        )
