"""From annotations to questions: at most one of each type about a person, always the same ones.

Every random choice depends on the seed, the person's id and the question type alone, never on the order of images, so
questions can be made image by image, in any process, and a file of them streams.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Item, Records, stable_key
from gazebench.data.dataset import Description, GazeDataset
from gazebench.data.task import ItemSource
from gazebench.vlm.coordinates import whole
from gazebench.vqa.files import QuestionRecord
from gazebench.vqa.questions.expressions import Expressions
from gazebench.vqa.questions.geometry import DIRECTIONS, sector
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.types import Form, Question, QuestionType, Refusal, Truth

SEED: Final = 0
"""Seed of all random choices: part of the protocol, since another one gives other questions."""
PROBED: Final = 200
"""Images that are looked at to learn whether a data set describes targets."""
TYPES: Final[tuple[QuestionType, ...]] = get_args(QuestionType)
FORMS: Final[tuple[Form, ...]] = ("object", "direction", "point")
REFUSALS: Final[tuple[Refusal, ...]] = tuple(reason for reason in get_args(Refusal) if reason)
NOT_ASKED: Final = "not asked"

Descriptions = Callable[[int], list[Description]]
"""From an image of the records to the descriptions of its people."""


class QuestionBuilder(ItemSource):
    """Builds the questions about the people of some records; the same split always gives the same questions.

    Args:
        dataset: its ``descriptions`` and ``everybody`` say how people can be told apart.
        records: those asked about.
        descriptions: takes the place of the data set's ``descriptions``.
    """

    def __init__(self, dataset: GazeDataset, records: Records, descriptions: Descriptions | None = None) -> None:
        self.records, self.everybody = records, dataset.everybody
        self.descriptions = descriptions or partial(dataset.descriptions, records)
        self.recognition = plan_recognition(records)
        self.start = records.person_start
        self.templates = templates()
        probed = np.linspace(0, len(records) - 1, min(PROBED, len(records))).astype(int)
        self.describes = any(each.target for image in probed for each in self.descriptions(int(image)))

    def items(
        self, image: int, head: FloatArray, points: Sequence[FloatArray], size: tuple[int, int]
    ) -> list[tuple[Item, Truth]]:
        descriptions = self.descriptions(image)
        expressions = Expressions(head, descriptions, self.everybody, self.templates)
        found = []
        for place, person in enumerate(range(self.start[image], self.start[image + 1])):
            truths = {}
            if self.records.inout[person] == IN_FRAME and len(points[place]):
                truths = self._truths(head[place], points[place], descriptions[place], size)
            box: Any = tuple(head[place].tolist())
            for task in TYPES:
                rng = random.Random(f"{SEED} {self.records.person_id[person]} {task}")
                form, refusal = self._asked(person, task, truths, rng)
                chosen = expressions.choose(place, refusal, rng) if form else None
                if form and chosen:
                    observer, words = chosen
                    text = rng.choice(self.templates.questions[form]).format(observer=words)
                    question = Question(f"{self.records.person_id[person]}/{task}", task, form, observer, text)
                    truth = Truth(self.templates.refusals[refusal], refusal) if refusal else truths[form]
                    found.append((Item(question.id, place, question), replace(truth, head=box, size=size)))
        return found

    def everything(self) -> Iterator[QuestionRecord]:
        """All questions about the images as they are in the records, image by image."""
        records = self.records
        for image in range(len(records)):
            people = range(self.start[image], self.start[image + 1])
            points = [records.points_of(person) for person in people]
            width, height = records.sizes[image].tolist()
            head = records.head[people.start : people.stop]
            for item, truth in self.items(image, head, points, (width, height)):
                person = str(records.person_id[people[item.person]])
                yield QuestionRecord(str(records.images[image]), person, str(records.groups[image]), item.input, truth)

    def _asked(
        self, person: int, task: QuestionType, truths: dict[Form, Truth], rng: random.Random
    ) -> tuple[Form | None, Refusal]:
        """The form of a question and the refusal it asks for; no form where there is no such question."""
        if task != "recognition":
            if task == "point" and self.records.inout[person] == OUT_OF_FRAME:
                return task, "outside"
            return (task if task in truths else None), ""
        kind = self.recognition[person]
        refusal: Refusal = next((reason for reason in REFUSALS if reason == kind), "")
        forms = [form for form in FORMS if (form != "object" or self.describes) and (refusal or form in truths)]
        return (rng.choice(forms) if forms and kind != NOT_ASKED else None), refusal

    def _truths(
        self, head: FloatArray, points: FloatArray, description: Description, size: tuple[int, int]
    ) -> dict[Form, Truth]:
        """The answers about somebody who looks at something in the image, by the forms that can be asked."""
        mean = points.mean(axis=0)
        given = tuple((float(x), float(y)) for x, y in points)
        truths: dict[Form, Truth] = {
            "point": Truth(self.templates.point.format(x=whole(mean[0]), y=whole(mean[1])), points=given)
        }
        x0, y0, x1, y1 = head.tolist()
        if x0 <= x1 and not (x0 <= mean[0] <= x1 and y0 <= mean[1] <= y1):  # a target in the own head has no direction
            direction = sector(((x0 + x1) / 2, (y0 + y1) / 2), mean, size)
            truths["direction"] = Truth(DIRECTIONS[direction], points=given, direction=direction)
        target = description.target
        if target and description.labels:
            truths["object"] = Truth(target, points=given, labels=description.labels, references=(target,))
        return truths


def plan_recognition(records: Records) -> npt.NDArray[np.str_]:
    """(P,) each person's recognition question: "" (can be answered), a refusal, or ``NOT_ASKED``.

    Half of them cannot be answered, for the three reasons in equal shares as far as there are people for each: a target
    outside needs one who looks out, ambiguity needs company. People with unknown targets or without a box are not asked
    about. The order in which people are taken comes from a hash of seed and id.
    """
    kinds = np.full(records.people, NOT_ASKED, dtype=f"<U{max(map(len, (NOT_ASKED, *REFUSALS)))}")
    known = np.isin(records.inout, (IN_FRAME, OUT_OF_FRAME)) & np.isfinite(records.head).all(axis=1)
    keys = np.array([stable_key(f"{SEED} {person}") for person in records.person_id], dtype=np.int64)
    order = [int(person) for person in np.argsort(keys, kind="stable") if known[person]]
    company = np.bincount(records.person_image, minlength=len(records))[records.person_image] > 1
    # People who look out can only be asked what cannot be answered: they come first wherever anybody would do.
    outside = [person for person in order if records.inout[person] == OUT_OF_FRAME]
    order = [*outside, *(person for person in order if records.inout[person] == IN_FRAME)]
    wanted = min(len(order) // 2, len(order) - len(outside))
    chosen = outside[: -(-wanted // 3)]
    kinds[chosen] = "outside"
    left = [person for person in order if kinds[person] == NOT_ASKED]
    chosen = [person for person in left if company[person]][: (wanted - len(chosen)) // 2]
    kinds[chosen] = "ambiguous"
    left = [person for person in order if kinds[person] == NOT_ASKED]
    kinds[left[: wanted - int((kinds != NOT_ASKED).sum())]] = "non_exist"
    left = [person for person in order if kinds[person] == NOT_ASKED and records.inout[person] == IN_FRAME]
    kinds[left[: len(order) - wanted]] = ""
    return kinds
