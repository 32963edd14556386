"""Who can be asked: vision-language models, zero-shot or with examples, and baselines without a model."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from gazebench.core.errors import DataError
from gazebench.core.types import Records, stable_key
from gazebench.data.dataset import GazeDataset
from gazebench.vlm.coordinates import LARGEST, Convention, convention_of, whole
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.images import ask_about_images, encoded
from gazebench.vlm.messages import Backend, Decoding, EncodedImage, Failure, Message, Reply, Request
from gazebench.vqa.files import QuestionRecord, check_annotations, read, read_card
from gazebench.vqa.questions.geometry import DIRECTIONS
from gazebench.vqa.questions.parsing import as_json, ask_for_json, schema
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.task import Questions
from gazebench.vqa.types import Form


class Answerer(ABC):
    """Answers questions.

    Attributes:
        name: of its store and its results; letters, digits and ``._-``.
        title: its name in tables.
        mode: how it answers, e.g. ``zero-shot``; tables group by it.
        convention: how it writes coordinates.
    """

    name: str
    title: str
    mode: str
    convention: Convention = Convention()

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that its answers depend on besides the questions, as JSON values."""

    @abstractmethod
    def ask(self, records: Iterable[QuestionRecord]) -> Iterator[Reply | Failure]:
        """Answers as they arrive, in any order; records are drawn from lazily."""

    def weights(self) -> str:
        """Where its weights are from (``Backend.weights``); empty where it has none."""
        return ""

    def size(self, record: QuestionRecord) -> tuple[int, int] | None:
        """(width, height) in pixels of the image as it is shown; None where nothing is shown."""
        return None


class ModelAnswerer(Answerer):
    """A vision-language model.

    Args:
        backend: where it runs.
        dataset: has the images.
        records: of the split asked about.
        examples: shown first, the same before every question of a form, each with its image; None is zero-shot.
        encoding: how images are shown.
        decoding: how answers are drawn.
        title: by default the model's name.
        instructions: the system prompt.
        coordinates: how the model writes them (``vlm.coordinates.named``); by default as its family does.
        structured: whether answers are asked for as JSON by a schema, which servers can hold a model to.
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
        instructions: str = Questions.instructions,
        coordinates: str = "",
        structured: bool = False,
    ) -> None:
        self.backend, self.dataset, self.records, self.examples = backend, dataset, records, examples
        self.instructions, self.structured = instructions, structured
        self.convention = convention_of(str(backend.identity()["model"]), coordinates)
        self.encoding, self.decoding = encoding or Encoding(), decoding or Decoding(max_tokens=128)
        self.title = title or str(backend.identity()["model"]).rstrip("/").rsplit("/", 1)[-1]
        shots = examples.shots if examples else 0
        self.mode = f"in context, {shots} example{'s' if shots > 1 else ''}" if shots else "zero-shot"
        slug = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in self.title.lower())
        self.name = f"{slug}-{shots}-shot"
        self.place = {str(image): index for index, image in enumerate(records.images)}

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "vision-language model",
            **self.backend.identity(),
            "instructions": self.instructions,
            "pictures": self.encoding.identity(),
            "decoding": vars(self.decoding),
            "examples": self.examples.identity() if self.examples else None,
            **({"structured": {form: ask_for_json(form) for form in get_args(Form)}} if self.structured else {}),
        }

    def weights(self) -> str:
        return self.backend.weights()

    def size(self, record: QuestionRecord) -> tuple[int, int]:
        return self.encoding.shown_size(record.truth.size)

    def ask(self, records: Iterable[QuestionRecord]) -> Iterator[Reply | Failure]:
        """Asks the backend; an image that cannot be read leaves its questions open."""
        system = Message("system", (self.instructions,))
        before = self.examples.turns(self.encoding, self.structured) if self.examples else {}

        def request(record: QuestionRecord, image: EncodedImage) -> Request:
            form = record.question.form
            turns = (system, *before.get(form, ()), Message("user", (image, _asked(record, self.structured))))
            held = schema(form) if self.structured else None
            return Request(record.question.id, turns, self.decoding, held, p_yes=form == "yes_no")

        jobs = ((self._image(record), record.question.id, partial(request, record)) for record in records)
        return ask_about_images(self.backend, jobs, self.dataset, self.records, self.encoding)

    def _image(self, record: QuestionRecord) -> int:
        try:
            return self.place[record.image]
        except KeyError:
            raise DataError(
                f"{record.image}: {self.records.dataset} has no such image; build the questions from the same data"
            ) from None


class Examples:
    """Training questions with their answers, for each form the same few.

    Of several examples of a form one cannot be answered.

    Args:
        path: of the training questions.
        dataset: has their images.
        shots: examples of each form.
        seed: of the choice.

    Raises:
        DataError: there are not so many, or the questions are of the test split or of other annotations.
    """

    def __init__(self, path: Path, dataset: GazeDataset, shots: int, seed: int = 0) -> None:
        self.card, self.dataset, self.shots, self.seed = read_card(path), dataset, shots, seed
        if self.card["split"] == "test":
            raise DataError(f"{path}: examples of the test split would give its answers away; take those of train")
        check_annotations(path, self.card, dataset)
        pools: dict[tuple[Form, bool], dict[str, QuestionRecord]] = {}
        for record in sorted(read(path), key=lambda record: stable_key(f"{seed} {record.question.id}")):
            pool = pools.setdefault((record.question.form, bool(record.truth.refusal)), {})
            pool.setdefault(record.image, record)  # no image twice

        self.chosen: dict[Form, list[QuestionRecord]] = {}
        refusals = 1 if shots > 1 else 0
        for form in get_args(Form):
            answered, refused = (list(pools.get((form, refused), {}).values()) for refused in (False, True))
            found = answered[: shots - refusals if refused else shots] + refused[:refusals]
            if answered and len(found) < shots:
                raise DataError(f"{path}: has {len(found)} examples of the form {form}, {shots} are wanted")
            random.Random(f"{seed} {form}").shuffle(found)
            self.chosen[form] = found

    def identity(self) -> dict[str, Any]:
        """All that the choice depends on, and the questions chosen."""
        ids = {form: [record.question.id for record in records] for form, records in self.chosen.items()}
        return {"shots": self.shots, "seed": self.seed, "questions": self.card["sha256"], "chosen": ids}

    def turns(self, encoding: Encoding, structured: bool = False) -> dict[Form, tuple[Message, ...]]:
        """The turns before a question, by its form; ``structured`` with answers in JSON."""
        records = self.dataset.records(str(self.card["split"]))
        place = {str(image): index for index, image in enumerate(records.images)}
        names = {record.image for chosen in self.chosen.values() for record in chosen}
        images = {name: encoded(self.dataset, records, encoding, place[name]) for name in sorted(names)}
        turns: dict[Form, tuple[Message, ...]] = {}
        for form, chosen in self.chosen.items():
            for record in chosen:
                asked = Message("user", (images[record.image], _asked(record, structured)))
                answer = as_json(form, record.truth.answer, record.truth.refusal) if structured else record.truth.answer
                turns[form] = (*turns.get(form, ()), asked, Message("assistant", (answer,)))
        return turns


def _asked(record: QuestionRecord, structured: bool) -> str:
    """The text of a question."""
    text = record.question.text
    return f"{text}\n{ask_for_json(record.question.form)}" if structured else text


# Baselines -------------------------------------------------------------------------------------------------------

SEED = 0
"""Of the choices of baselines."""


class Baseline(Answerer):
    """Answers without an image."""

    mode = "floor"

    def ask(self, records: Iterable[QuestionRecord]) -> Iterator[Reply | Failure]:
        for record in records:
            yield Reply(record.question.id, self.answer(record), "stop")

    def identity(self) -> dict[str, Any]:
        return {"kind": "no model", "model": self.name, "version": 1}

    @abstractmethod
    def answer(self, record: QuestionRecord) -> str:
        """The answer to a question."""


class Oracle(Baseline):
    """The truth, through parser and scorer."""

    name, title, mode = "oracle", "Truth", "ceiling"

    def answer(self, record: QuestionRecord) -> str:
        return record.truth.answer


class Shuffled(Baseline):
    """The right answers to other questions of the same type and form: what knowing the distribution alone is worth."""

    name, title = "shuffled", "Shuffled truth"

    def __init__(self, path: Path) -> None:
        pools: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
        for record in read(path):
            ids, answers = pools.setdefault((record.question.task, record.question.form), ([], []))
            ids.append(record.question.id)
            answers.append(record.truth.answer)
        self.answers: dict[str, str] = {}
        for kind, (ids, answers) in sorted(pools.items()):
            random.Random(f"{SEED} {kind}").shuffle(answers)
            self.answers |= dict(zip(ids, answers, strict=True))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"seed": SEED}

    def answer(self, record: QuestionRecord) -> str:
        return self.answers[record.question.id]


class _Prior(Baseline):
    """Knows how often training questions have which answer."""

    def __init__(self, path: Path) -> None:
        self.card = read_card(path)
        self.labels: Counter[str] = Counter()
        self.directions: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.refused: Counter[bool] = Counter()
        self.verdicts: dict[str, Counter[str]] = {}
        points, x, y = 0, 0.0, 0.0
        for record in read(path):
            task, truth = record.question.task, record.truth
            if task == "object":
                self.labels[truth.labels[0]] += 1
            elif task == "direction":
                self.directions[truth.answer] += 1
            elif task == "point" and truth.points:
                points, x, y = points + 1, x + truth.points[0][0], y + truth.points[0][1]
            elif record.question.form == "yes_no" and truth.answer:
                self.verdicts.setdefault(task, Counter())[truth.answer] += 1
            elif task == "recognition":
                self.refused[bool(truth.refusal)] += 1
                if truth.refusal:
                    self.refusals[truth.answer] += 1
        self.mean = x / max(1, points), y / max(1, points)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"questions": self.card["sha256"]}


class Random(_Prior):
    """A random answer of the right form: category, direction, point; half of the recognition questions are refused."""

    name, title = "random", "Random"

    def answer(self, record: QuestionRecord) -> str:
        rng = random.Random(f"{SEED} {record.question.id}")
        if record.question.task == "recognition" and self.refusals and rng.random() < 0.5:
            return rng.choice(sorted(self.refusals))
        if record.question.form == "yes_no":
            return rng.choice(("yes", "no"))
        if record.question.form == "direction":
            return rng.choice(DIRECTIONS)
        if record.question.form == "point":
            return templates().point.format(x=rng.randint(0, LARGEST), y=rng.randint(0, LARGEST))
        return rng.choice(sorted(self.labels) or [""])


class Majority(_Prior):
    """The most frequent answer of the training questions by type and form, for points their mean.

    A tie between answering and refusing is refused.
    """

    name, title = "majority", "Majority"

    def answer(self, record: QuestionRecord) -> str:
        if record.question.task == "recognition" and self.refused[True] >= self.refused[False] > 0:
            return most_frequent(self.refusals)
        if record.question.form == "yes_no":
            return most_frequent(self.verdicts.get(record.question.task, Counter(["no"])))
        if record.question.form == "direction":
            return most_frequent(self.directions)
        if record.question.form == "point":
            return templates().point.format(x=whole(self.mean[0]), y=whole(self.mean[1]))
        return most_frequent(self.labels)


def most_frequent(counts: Counter[str]) -> str:
    """The most frequent text, of equally frequent ones the first by name; "" of none."""
    return min(counts, key=lambda name: (-counts[name], name), default="")
