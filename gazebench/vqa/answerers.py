"""Who can be asked: vision-language models, without or with examples, and four that only know the truth or a prior."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Records, stable_key
from gazebench.data.dataset import GazeDataset
from gazebench.vlm.messages import Backend, Decoding, Failure, Message, Picture, Reply, Request, Unreadable
from gazebench.vlm.pictures import Encoding
from gazebench.vqa.describe import shown
from gazebench.vqa.files import Row, read, read_card
from gazebench.vqa.protocols import OURS, Rules
from gazebench.vqa.questions.geometry import DIRECTIONS, LARGEST, whole
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.questions.writing import FORMS
from gazebench.vqa.types import Form, QuestionType

FLOORS = ("oracle", "shuffled", "random", "majority")


class Answerer(ABC):
    """Answers questions.

    Attributes:
        name: of its store and its results; letters, digits and ``._-``.
        title: what tables call it.
        mode: how it was brought to it, e.g. ``zero-shot``; tables group by it.
    """

    name: str
    title: str
    mode: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that its answers depend on besides the questions, as JSON values."""

    @abstractmethod
    def ask(self, rows: Iterable[Row]) -> Iterator[Reply | Failure]:
        """Answers as they arrive, in any order; rows are drawn from lazily."""

    def size(self, row: Row) -> tuple[int, int] | None:
        """(width, height) in pixels of the picture as it is shown; None where nothing is shown."""
        return None


# Models ----------------------------------------------------------------------------------------------------------


class ModelAnswerer(Answerer):
    """A vision-language model.

    Args:
        backend: where it runs.
        dataset: the pictures.
        records: of the split asked about.
        examples: shown first, the same before every question of a form, each with its picture; none is zero-shot.
        encoding: how pictures are shown.
        decoding: how answers are drawn.
        title: by default the model's name.
        rules: of the protocol, whose instructions come first.
    """

    def __init__(
        self,
        backend: Backend,
        dataset: GazeDataset,
        records: Records,
        examples: Examples | None = None,
        encoding: Encoding | None = None,
        decoding: Decoding | None = None,
        title: str = "",
        rules: Rules = OURS,
    ) -> None:
        self.backend, self.dataset, self.records, self.examples = backend, dataset, records, examples
        self.instructions = rules.instructions
        self.encoding, self.decoding = encoding or Encoding(), decoding or Decoding(max_tokens=128)
        model = str(backend.identity()["model"]).rstrip("/").rsplit("/", 1)[-1]
        self.title = title or model
        shots = examples.shots if examples else 0
        self.mode = f"in context, {shots} example{'s' if shots > 1 else ''}" if shots else "zero-shot"
        slug = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in self.title.lower())
        self.name = f"{slug}-{shots}-shot"
        self.place = {str(image): index for index, image in enumerate(records.images)}

    def identity(self) -> dict[str, Any]:
        """Model, words, pictures, decoding, examples."""
        return {
            "kind": "vision-language model",
            **self.backend.identity(),
            "instructions": self.instructions,
            "pictures": self.encoding.identity(),
            "decoding": vars(self.decoding),
            "examples": self.examples.identity() if self.examples else None,
        }

    def size(self, row: Row) -> tuple[int, int]:
        """After reduction to ``max_side``."""
        width, height = row.truth.size
        scale = min(1.0, self.encoding.max_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def ask(self, rows: Iterable[Row]) -> Iterator[Reply | Failure]:
        """Asks the backend; a picture is encoded once for all questions about it, and left out if it cannot be read."""
        left_out: list[Unreadable] = []
        yield from self.backend.ask(self._requests(rows, left_out))
        yield from left_out

    def _requests(self, rows: Iterable[Row], left_out: list[Unreadable]) -> Iterator[Request]:
        system = Message("system", (self.instructions,))
        before = self.examples.turns(self.encoding) if self.examples else {}
        last, picture, reason = "", None, ""
        for row in rows:
            if row.image != last:
                last = row.image
                try:
                    picture = shown(self.dataset, self.records, self._image(row), self.encoding)
                except ImageError as error:
                    picture, reason = None, str(error)
            if picture is None:
                left_out.append(Unreadable(row.question.id, reason))
                continue
            asked = Message("user", (picture, row.question.text))
            yield Request(row.question.id, (system, *before.get(row.question.form, ()), asked), self.decoding)

    def _image(self, row: Row) -> int:
        try:
            return self.place[row.image]
        except KeyError:
            raise DataError(
                f"{row.image}: the questions are about this picture, which {self.records.dataset} does not have; "
                "build them from the same data"
            ) from None


class Examples:
    """Questions with their answers, out of a file of training questions: of each form the same few.

    Of several examples of a form one cannot be answered.

    Args:
        path: of the training questions.
        dataset: their pictures.
        shots: examples of each form.
        seed: of the draw.

    Raises:
        DataError: there are not so many, or the questions are of the test split or of other annotations.
    """

    def __init__(self, path: Path, dataset: GazeDataset, shots: int, seed: int = 0) -> None:
        self.card, self.dataset, self.shots, self.seed = read_card(path), dataset, shots, seed
        if self.card["split"] == "test":
            raise DataError(f"{path}: examples of the test split would give its answers away; take those of train")
        if dataset.records(str(self.card["split"])).fingerprint() != self.card["fingerprint"]:
            raise DataError(f"{path}: built from other annotations than these; give the same --dataset options")
        kept: dict[tuple[Form, bool], list[tuple[int, Row]]] = {}
        for row in read(path):
            pool = kept.setdefault((row.question.form, bool(row.truth.refusal)), [])
            pool.append((stable_key(f"{seed} {row.question.id}"), row))
            if len(pool) > 32 * shots + 64:  # the smallest keys win, and memory stays small
                pool[:] = sorted(pool, key=lambda item: item[0])[: 16 * shots]
        self.chosen: dict[Form, list[Row]] = {}
        for form in FORMS:
            refusals = 1 if shots > 1 else 0
            found = self._first(kept, form, False, shots - refusals) + self._first(kept, form, True, refusals)
            if kept.get((form, False)) and len(found) < shots:
                raise DataError(f"{path}: has {len(found)} examples of the form {form}, {shots} are wanted")
            order = random.Random(f"{seed} {form}")
            order.shuffle(found)
            self.chosen[form] = found

    @staticmethod
    def _first(
        kept: Mapping[tuple[Form, bool], list[tuple[int, Row]]], form: Form, refused: bool, count: int
    ) -> list[Row]:
        pool = sorted(kept.get((form, refused), []), key=lambda item: item[0])
        chosen: dict[str, Row] = {}
        for _, row in pool:  # no picture twice
            if len(chosen) < count:
                chosen.setdefault(row.image, row)
        return list(chosen.values())

    def identity(self) -> dict[str, Any]:
        """Which they are."""
        ids = {form: [row.question.id for row in rows] for form, rows in self.chosen.items()}
        return {"shots": self.shots, "seed": self.seed, "questions": self.card["sha256"], "chosen": ids}

    def turns(self, encoding: Encoding) -> dict[Form, tuple[Message, ...]]:
        """The turns before a question, by its form."""
        records = self.dataset.records(str(self.card["split"]))
        place = {str(image): index for index, image in enumerate(records.images)}
        pictures: dict[str, Picture] = {}
        found: dict[Form, tuple[Message, ...]] = {}
        for form, rows in self.chosen.items():
            turns: list[Message] = []
            for row in rows:
                if row.image not in pictures:
                    pictures[row.image] = shown(self.dataset, records, place[row.image], encoding)
                turns += [
                    Message("user", (pictures[row.image], row.question.text)),
                    Message("assistant", (row.truth.answer,)),
                ]
            found[form] = tuple(turns)
        return found


# Floors and ceiling ----------------------------------------------------------------------------------------------


class _Known(Answerer):
    """Answers without looking."""

    mode = "floor"

    def ask(self, rows: Iterable[Row]) -> Iterator[Reply | Failure]:
        """One after another."""
        for row in rows:
            yield Reply(row.question.id, self.answer(row), "stop")

    def identity(self) -> dict[str, Any]:
        """Its name is all there is."""
        return {"kind": "no model", "model": self.name, "version": 1}

    @abstractmethod
    def answer(self, row: Row) -> str:
        """The answer to a question."""


class Oracle(_Known):
    """The truth: what generator and scorer agree on scores everything there is."""

    name, title, mode = "oracle", "Truth", "ceiling"

    def answer(self, row: Row) -> str:
        """As it should be written."""
        return row.truth.answer


class Shuffled(_Known):
    """The right answers to other questions of the same task and form: what knowing the distribution alone is worth."""

    name, title = "shuffled", "Shuffled truth"

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.seed = seed
        kept: dict[tuple[QuestionType, Form], tuple[list[str], list[str]]] = {}
        for row in read(path):
            ids, answers = kept.setdefault((row.question.task, row.question.form), ([], []))
            ids.append(row.question.id)
            answers.append(row.truth.answer)
        self.answers: dict[str, str] = {}
        for kind, (ids, answers) in sorted(kept.items()):
            random.Random(f"{seed} {kind}").shuffle(answers)
            self.answers |= dict(zip(ids, answers, strict=True))

    def identity(self) -> dict[str, Any]:
        """With its seed."""
        return super().identity() | {"seed": self.seed}

    def answer(self, row: Row) -> str:
        """Somebody else's."""
        return self.answers[row.question.id]


class _Prior(_Known):
    """Knows what training questions are answered by."""

    def __init__(self, path: Path) -> None:
        self.card = read_card(path)
        self.labels: Counter[str] = Counter()
        self.directions: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.recognised: Counter[bool] = Counter()
        points, total = 0, [0.0, 0.0]
        for row in read(path):
            question, truth = row.question, row.truth
            if question.task == "object":
                self.labels[truth.labels[0]] += 1
            elif question.task == "direction":
                self.directions[truth.answer] += 1
            elif question.task == "point" and truth.points:
                points += 1
                total = [sum_ + value for sum_, value in zip(total, truth.points[0], strict=True)]
            elif question.task == "recognition":
                self.recognised[bool(truth.refusal)] += 1
                if truth.refusal:
                    self.refusals[truth.answer] += 1
        self.mean = tuple(value / max(1, points) for value in total)

    def identity(self) -> dict[str, Any]:
        """With the questions it learnt from."""
        return super().identity() | {"questions": self.card["sha256"]}


class Random(_Prior):
    """Any answer of the right form: a category, direction or point at random; what may be refused, half of the time."""

    name, title = "random", "Random"
    seed: ClassVar[int] = 0

    def answer(self, row: Row) -> str:
        """By the seed and the question's id."""
        dice = random.Random(f"{self.seed} {row.question.id}")
        if row.question.task == "recognition" and self.refusals and dice.random() < 0.5:
            return dice.choice(sorted(self.refusals))
        if row.question.form == "direction":
            return dice.choice(DIRECTIONS)
        if row.question.form == "point":
            return templates().point.format(x=dice.randint(0, LARGEST), y=dice.randint(0, LARGEST))
        return dice.choice(sorted(self.labels) or [""])


class Majority(_Prior):
    """The most frequent answer of the training questions: of points their mean; of what may be refused, by task."""

    name, title = "majority", "Majority"

    def answer(self, row: Row) -> str:
        """The same for all of a task and form; a tie between answering and refusing is refused."""
        if row.question.task == "recognition" and self.recognised[True] >= self.recognised[False] > 0:
            return _first(self.refusals)
        if row.question.form == "direction":
            return _first(self.directions)
        if row.question.form == "point":
            return templates().point.format(x=whole(self.mean[0]), y=whole(self.mean[1]))
        return _first(self.labels)


def _first(counts: Counter[str]) -> str:
    """The most frequent, of equally frequent ones the first by name; "" of none."""
    return min(counts, key=lambda name: (-counts[name], name), default="")


def floor(kind: str, path: Path, train: Path) -> Answerer:
    """One of ``FLOORS``, for the questions of ``path``; ``train`` are those that priors learn from."""
    made: Mapping[str, Any] = {
        "oracle": Oracle,
        "shuffled": lambda: Shuffled(path),
        "random": lambda: Random(train),
        "majority": lambda: Majority(train),
    }
    return made[kind]()
