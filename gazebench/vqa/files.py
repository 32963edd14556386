"""Files of questions: a line of JSON each, written and read as a stream, and a card that says what they are."""

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
from gazebench.vqa.types import Question, Truth

CARD = ".json"


@dataclass(frozen=True)
class Row:
    """A question with its truth, and whom and what it is about.

    Attributes:
        image: key of the picture in the dataset's records.
        person: id of the person it was made for.
        group: the source the picture comes from: what intervals cluster by.
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
                "size": list(truth.size),
            },
            ensure_ascii=False,
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> Row:
        """The inverse; ValueError, KeyError or TypeError where it is no question."""
        read = json.loads(text)
        question = Question(read["id"], -1, read["task"], read["form"], read["observer"], read["question"])
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


class Tally:
    """Counts rows as they pass."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.total = self.images = self.people = 0
        self.last = "", ""

    def add(self, row: Row) -> None:
        """One more."""
        question, truth = row.question, row.truth
        self.total += 1
        # Pictures and people come one after another, so nothing need be remembered of those that passed.
        self.images += row.image != self.last[0]
        self.people += row.person != self.last[1]
        self.last = row.image, row.person
        pairs: list[tuple[str, str]] = [
            ("task", question.task),
            ("form", question.form),
            ("observer", question.observer),
            (f"{question.task}: answer", truth.refusal or "given"),
        ]
        if truth.direction >= 0 and question.task == "direction":
            pairs.append(("direction", truth.answer))
        if truth.labels and question.task == "object":
            pairs.append(("label", truth.labels[0]))
        self.counts.update(pairs)

    def summary(self) -> dict[str, Any]:
        """Numbers of questions, pictures and people, and of questions by kind."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, value), count in sorted(self.counts.items()):
            kinds.setdefault(kind, {})[value] = count
        return {"questions": self.total, "images": self.images, "people": self.people, **kinds}


def write(path: Path, rows: Iterable[Row], card: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``path`` (JSON lines) and its card, whole or not at all; returns the card with counts and checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, digest, tally = path.with_name(f".{path.name}.tmp"), hashlib.sha256(), Tally()
    try:
        with temporary.open("wb") as file:
            for row in rows:
                line = f"{row.to_json()}\n".encode()
                file.write(line)
                digest.update(line)
                tally.add(row)
        # In this order: a card beside another file's questions would be an error, none is a missing card.
        path.with_suffix(CARD).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    full = {**card, "counts": tally.summary(), "sha256": digest.hexdigest()}
    write_atomically(path.with_suffix(CARD), json.dumps(full, indent=1, ensure_ascii=False) + "\n")
    return full


def read(path: Path) -> Iterator[Row]:
    """The questions of a file, one by one.

    Raises:
        DataError: it is missing, or a line is no question; names the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Row.from_json(line)
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    raise DataError(
                        f"{path}:{number}: not a question ({type(error).__name__}: {error}); build the file anew: "
                        "gazebench vqa build"
                    ) from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make it with gazebench vqa build DATASET") from None


def read_card(path: Path) -> dict[str, Any]:
    """The card of a file of questions, after checking that it is this very file's.

    Raises:
        DataError: there is none, or the file has changed since.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with gazebench vqa build DATASET")
    try:
        card: dict[str, Any] = json.loads(path.with_suffix(CARD).read_text(encoding="utf-8"))
        expected = card["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.with_suffix(CARD)}: no card of these questions ({type(error).__name__}); build them anew"
        ) from error
    if file_digest(path) != expected:
        raise DataError(f"{path}: not the file its card vouches for; build the questions anew, or restore it")
    return card
