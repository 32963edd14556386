"""From annotations to questions: at most one of each type about a person, always the same ones.

Every random choice depends on the seed, the person's id and the question type alone, never on the order of images, so
questions can be made image by image, in any process, and a file of them streams.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, get_args

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.files import cached
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, SOCIAL, Item, Records, pairs_of, stable_key
from gazebench.data.dataset import Description, GazeDataset
from gazebench.data.task import ItemSource
from gazebench.vlm.coordinates import whole
from gazebench.vqa.balance import BOX, CHUNK, LEAST_OUTSIDE, Asked, RecognitionPlan, plan_pairs
from gazebench.vqa.files import QuestionRecord
from gazebench.vqa.questions.expressions import Expressions, Trait, has_box, holds_nobody
from gazebench.vqa.questions.geometry import DIRECTIONS, sector
from gazebench.vqa.questions.templates import ANYONE, Templates, templates
from gazebench.vqa.types import Form, Observer, Question, QuestionType, Refusal, Truth

SEED: Final = 0
"""Seed of all random choices: part of the protocol, since another one gives other questions."""
PROBED: Final = 200
"""Images that are looked at to learn whether a data set describes targets."""
TYPES: Final[tuple[QuestionType, ...]] = ("object", "direction", "point", "recognition")
FORMS: Final[tuple[Form, ...]] = ("object", "direction", "point")
REFUSALS: Final[tuple[Refusal, ...]] = tuple(reason for reason in get_args(Refusal) if reason)
NOT_ASKED: Final = "not asked"
PLAN: Final = 2
"""Version of the plans; part of the key they are stored by between runs."""
ASKED: Final = np.dtype([("form", "i1"), ("refusal", "i1"), ("expression", "i2"), ("donor", "i4")])
"""A person's recognition question in a plan: places in ``FORMS`` (-1: none), ``Refusal`` and ``_expressions``."""

_Worded = tuple[Form, Refusal, Observer, str]
"""What a question asks for, why it cannot be answered, how its person is referred to, and in which words."""

Descriptions = Callable[[int], list[Description]]
"""From an image of the records to the descriptions of its people."""


class QuestionBuilder(ItemSource):
    """Builds the questions of gazebench-vqa-v1; the same split always gives the same ones.

    Args:
        dataset: its ``descriptions`` and ``everybody`` say how people can be told apart.
        records: those asked about.
        descriptions: takes the place of the data set's ``descriptions``.
    """

    def __init__(self, dataset: GazeDataset, records: Records, descriptions: Descriptions | None = None) -> None:
        self.records, self.everybody = records, dataset.everybody
        self.descriptions = descriptions or partial(dataset.descriptions, records)
        self.start = records.person_start
        self.templates = templates(self.version)
        probed = np.linspace(0, len(records) - 1, min(PROBED, len(records))).astype(int)
        self.describes = any(each.target for image in probed for each in self.descriptions(int(image)))
        self.plan()

    version: ClassVar[int] = 1
    """Of the protocol."""

    def plan(self) -> None:
        """Decides which recognition questions are asked."""
        self.recognition = plan_recognition(self.records)

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


def _expressions(texts: Templates) -> list[Trait]:
    """The expressions of recognition questions."""
    traits = [(name, value) for name, values in texts.values.items() for value in values]
    return [(BOX, ""), (ANYONE, ""), ("half", "left"), ("half", "right"), *traits]


def _tellable(expressions: Expressions, person: int) -> list[Trait]:
    """What somebody looks like that nobody else does; where they stand is left out, it would tell about a gaze."""
    return [trait for trait in expressions.unique(person) if trait[0] != "place"]


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


class BalancedQuestionBuilder(QuestionBuilder):
    """Builds the questions of gazebench-vqa-v2: no wording tells whether a question can be answered, nor yes or no.

    Args:
        dataset: its ``descriptions`` and ``everybody`` say how people can be told apart.
        records: those asked about.
        descriptions: takes the place of the data set's ``descriptions``.
        all_pairs: asks nothing but the yes / no questions, about all pairs of people and by box: what the social
            metrics of a protocol are taken of, so not balanced. Who looks at each other, and who at the same thing, is
            asked once about two people.
    """

    version = 2

    def __init__(
        self, dataset: GazeDataset, records: Records, descriptions: Descriptions | None = None, all_pairs: bool = False
    ) -> None:
        self.all_pairs, self.own = all_pairs, descriptions is None
        self.pair_start = records.pair_start
        self.expressions = _expressions(templates(self.version))
        super().__init__(dataset, records, descriptions)

    def plan(self) -> None:
        """Decides which recognition and yes / no questions are asked; what it takes is kept between runs."""
        records = self.records
        key = ["question plan", PLAN, self.templates.digest, records.dataset, records.split, records.fingerprint()]
        self.asked, self.social = np.zeros(0, ASKED), np.zeros((0, 3), np.int64)
        if not self.all_pairs:
            self.asked, self.social = cached(key, self._planned) if self.own else self._planned()
        self.social_start = np.searchsorted(self.social[:, 0], self.pair_start)

    def items(
        self, image: int, head: FloatArray, points: Sequence[FloatArray], size: tuple[int, int]
    ) -> list[tuple[Item, Truth]]:
        descriptions = self.descriptions(image)
        expressions = Expressions(head, descriptions, self.everybody, self.templates)
        pairs = self._pairs(image)
        found = []
        for place, person in enumerate(range(self.start[image], self.start[image + 1])):
            name, box = str(self.records.person_id[person]), tuple(head[place].tolist())
            asked: list[tuple[Question, Truth]] = []
            if not self.all_pairs:
                truths = {}
                if self.records.inout[person] == IN_FRAME and len(points[place]):
                    truths = self._truths(head[place], points[place], descriptions[place], size)
                for task in TYPES:
                    rng = random.Random(f"{SEED} {name} {task}")
                    words = self._recognition(image, place, expressions, truths, rng) if task == "recognition" else (
                        self._plain(person, place, task, expressions, truths, rng))  # fmt: skip
                    if words:
                        form, refusal, observer, told = words
                        text = rng.choice(self.templates.questions[form]).format(observer=told)
                        truth = Truth(self.templates.refusals[refusal], refusal) if refusal else truths[form]
                        asked.append((Question(f"{name}/{task}", task, form, observer, text), truth))
            asked += [self._social(name, place, *pair, expressions) for pair in pairs.get(place, ())]
            found += [(Item(q.id, place, q), replace(truth, head=box, size=size)) for q, truth in asked]
        return found

    def _plain(
        self, person: int, place: int, task: QuestionType, expressions: Expressions, truths: dict[Form, Truth],
        rng: random.Random,
    ) -> _Worded | None:  # fmt: skip
        form, refusal = self._asked(person, task, truths, rng)
        chosen = expressions.choose(place, refusal, rng) if form else None
        return (form, refusal, *chosen) if form and chosen else None

    def _recognition(
        self, image: int, place: int, expressions: Expressions, truths: dict[Form, Truth], rng: random.Random
    ) -> _Worded | None:
        """The planned question, in the view: what does not hold there is not asked."""
        person = self.start[image] + place
        form_of, refusal_of, expression, donor = self.asked[person].tolist()
        form, refusal = FORMS[form_of], get_args(Refusal)[refusal_of]
        if form_of < 0 or (not refusal and form not in truths):
            return None
        trait, value = self.expressions[expression]
        if trait == BOX:
            box = expressions.head[place] if donor < 0 else self._moved(person, donor, expressions.head[place])
            if not np.isfinite(box).all() or (donor >= 0 and not holds_nobody(box, expressions.head)):
                return None
            return form, refusal, "box" if donor < 0 else "non_exist", expressions.as_box(box, rng)
        fitting = expressions.fitting()
        for option in (value, *(other for name, other in fitting if name == trait == "half" and other != value)):
            people = fitting.get((trait, option))
            if people is None:
                continue
            if refusal in ("", "outside"):
                fits, observer = people == (place,), "unique"
            else:
                fits, observer = len(people) > 1 if refusal == "ambiguous" else not people, refusal
            if fits:  # in a mirror it is the other half
                return form, refusal, observer, expressions.in_words(trait, option, rng)  # type: ignore[return-value]
        return None

    def _moved(self, person: int, donor: int, head: FloatArray) -> FloatArray:
        """The donor's box beside a person in a view: as far from the head, and as large compared to it."""
        own, box = self.records.head[person], self.records.head[donor]
        if np.array_equal(own, head) or not np.isfinite(own).all():
            return box
        scale = (head[2:] - head[:2]) / np.maximum(own[2:] - own[:2], 1e-9)
        moved = (box.reshape(2, 2) - own[:2]) * scale + head[:2]
        return moved.ravel() if ((moved >= 0) & (moved <= 1)).all() else np.full(4, np.nan)

    # Yes and no ----------------------------------------------------------------------------------------------------

    def _pairs(self, image: int) -> dict[int, list[tuple[int, int, int, bool]]]:
        """By the place of the one who looks: the other's place, the place in ``SOCIAL``, the label, and "by words"."""
        first, stop = self.pair_start[image], self.pair_start[image + 1]
        pairs = pairs_of(np.zeros(self.start[image + 1] - self.start[image], np.int64))
        labels = [self.records.pairs.get(name) for name in SOCIAL]
        boxed = has_box(self.records.head[self.start[image] : self.start[image + 1]])
        if self.all_pairs:
            chosen = [
                (row, task, 0)
                for row in range(first, stop)
                for task, label in enumerate(labels)
                if label is not None and (SOCIAL[task] == "lah" or pairs[row - first, 0] < pairs[row - first, 1])
            ]
        else:
            chosen = self.social[self.social_start[image] : self.social_start[image + 1]].tolist()
        found: dict[int, list[tuple[int, int, int, bool]]] = {}
        for row, task, words in chosen:
            other, looker = pairs[row - first].tolist()
            label = labels[task]
            assert label is not None
            if boxed[other] and boxed[looker]:
                found.setdefault(looker, []).append((other, task, int(label[row]), bool(words)))
        return found

    def _social(
        self, name: str, place: int, other: int, task: int, label: int, words: bool, expressions: Expressions
    ) -> tuple[Question, Truth]:
        kind: QuestionType = SOCIAL[task]  # type: ignore[assignment]
        key = f"{name}/{kind}/{other}"
        rng = random.Random(f"{SEED} {key}")
        told = []
        for person in (place, other):
            traits = _tellable(expressions, person) if words else []
            told.append(expressions.in_words(*rng.choice(traits), rng) if traits
                        else expressions.as_box(expressions.head[person], rng))  # fmt: skip
        text = rng.choice(self.templates.questions[kind]).format(observer=told[0], other=told[1])
        question = Question(key, kind, "yes_no", "unique" if words else "box", text, other)
        return question, Truth("" if label < 0 else ("no", "yes")[label])

    # Plans ---------------------------------------------------------------------------------------------------------

    def _planned(self) -> tuple[npt.NDArray[Any], IntArray]:
        """(P,) of ``ASKED``, and (K, 3) rows of pairs, places in ``SOCIAL``, and whether they are told by words."""
        records, looks = self.records, self.records.inout
        known = np.isin(looks, (IN_FRAME, OUT_OF_FRAME)).sum()
        outside = bool((looks == OUT_OF_FRAME).sum() >= LEAST_OUTSIDE * max(1, known))
        asked, social = np.zeros(records.people, ASKED), [np.zeros((0, 3), np.int64)]
        asked["form"] = -1
        for begin in range(0, len(records), CHUNK):
            images = range(begin, min(begin + CHUNK, len(records)))
            rng = random.Random(f"{SEED} {records.images[begin]}")
            first, stop = self.start[images.start], self.start[images.stop]
            forms: list[set[Form]] = []
            fitting, tellable = [], []
            for image in images:
                some, people = self.descriptions(image), range(self.start[image], self.start[image + 1])
                heads, size = records.head[people.start : people.stop], tuple(records.sizes[image].tolist())
                expressions = Expressions(heads, some, self.everybody, self.templates)
                fitting.append(expressions.fitting())
                for place, person in enumerate(people):
                    points = records.points_of(person)
                    seen = looks[person] == IN_FRAME and len(points)
                    own = self._truths(heads[place], points, some[place], size) if seen else {}
                    forms.append({form for form in own if form != "object" or self.describes})
                    tellable.append(bool(_tellable(expressions, place)))
            image_of = records.person_image[first:stop] - begin
            plan = RecognitionPlan(records.head[first:stop], image_of, looks[first:stop], forms, fitting, outside, rng)
            for person, question in plan.made().items():
                asked[first + person] = self._row(question, first)
            social.append(self._chosen_pairs(images, np.array(tellable, dtype=bool), rng))
        return asked, np.concatenate(social)

    def _row(self, asked: Asked, first: int) -> tuple[int, int, int, int]:
        return (
            FORMS.index(asked.form), get_args(Refusal).index(asked.refusal),
            self.expressions.index(asked.expression), asked.donor if asked.donor < 0 else first + asked.donor,
        )  # fmt: skip

    def _chosen_pairs(self, images: range, tellable: npt.NDArray[np.bool_], rng: random.Random) -> IntArray:
        """(K, 3) as ``_planned``, of some images."""
        first, stop = self.start[images.start], self.start[images.stop]
        begin, end = self.pair_start[images.start], self.pair_start[images.stop]
        pairs, head = pairs_of(self.records.person_image[first:stop]), self.records.head[first:stop]
        luck = np.random.default_rng(rng.getrandbits(63))
        found = [np.zeros((0, 3), np.int64)]
        for task, name in enumerate(SOCIAL):
            label = self.records.pairs.get(name)
            if label is None:
                continue
            known = (label[begin:end] >= 0) & has_box(head)[pairs].all(axis=1)
            if name != "lah":  # which is the same in both orders
                known &= pairs[:, 0] < pairs[:, 1]
            words = tellable[pairs].all(axis=1) & (luck.random(len(pairs)) < 0.5)
            rows = np.flatnonzero(known)
            chosen = rows[plan_pairs(pairs[rows], label[begin:end][rows], head, words[rows], rng)]
            found.append(np.stack([chosen + begin, np.full(len(chosen), task), words[chosen]], axis=1))
        joined = np.concatenate(found)
        return joined[np.lexsort((joined[:, 1], joined[:, 0]))]
