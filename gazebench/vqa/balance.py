"""Which questions are asked whose answer must not follow from their wording: recognition and yes / no questions.

Both are planned in the same way. Wordings that might give something away are kept apart as *strata*: what the question
asks for, and the expression in it, of a box its place and size and of two boxes how they lie to each other. The answers
have equal shares, and the stratum of each question is drawn by the same weights whatever its answer is, so no word and
no number of a question tells the answer. (Equal numbers within each stratum would: what is held out of them is always
the opposite of what is left.) What there is too much of is not asked.

Plans are made for ``CHUNK`` images at a time and kept as a few bytes a person, so memory does not grow with questions.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME
from gazebench.vqa.questions.expressions import Trait, has_box, holds_nobody
from gazebench.vqa.questions.templates import ANYONE
from gazebench.vqa.types import Form, Refusal

CHUNK: Final = 2048
"""Images planned together: a test set of the usual size at once."""
BOX: Final = "box"
REASONS: Final[dict[str, tuple[Refusal, ...]]] = {BOX: ("non_exist",), ANYONE: ("ambiguous",)}
"""Why a question cannot be answered, by the kind of its expression, besides ``outside``; of all others both.

A box that holds a head means one person, and "the person" is somebody in every picture with people.
"""
LEAST_OUTSIDE: Final = 0.1
"""Share of people who look out of the image from which on that is a reason, in as many questions as each other one."""
PER_COLUMN: Final = 100
"""The least number of heads in each of the columns that boxes are told apart by."""
TRIES: Final = 40
"""Images tried for a box that must hold nobody."""


@dataclass(frozen=True)
class Asked:
    """A recognition question of a person.

    Attributes:
        form: what it asks for.
        refusal: why it cannot be answered, "" where it can.
        expression: name and value; ``("box", "")`` is a head box.
        donor: the person whose head box is where nobody is in this person's image; -1 where none is needed.
    """

    form: Form
    refusal: Refusal
    expression: Trait
    donor: int = -1


def kind_of(expression: Trait) -> str:
    """``box``, ``anyone``, ``place`` or ``trait``."""
    return expression[0] if expression[0] in (BOX, ANYONE) else "place" if expression[0] == "half" else "trait"


@dataclass
class RecognitionPlan:
    """Plans the recognition questions about the P people of some images, at most one each.

    Args:
        head: (P, 4) normalised xyxy, NaN where there is none.
        image: (P,) ascending index of each person's image.
        inout: (P,) 1 in frame, 0 out of frame, -1 unknown.
        forms: of each person the forms whose answer is known.
        fitting: of each image the people its expressions fit, counted from its first (``Expressions.fitting``).
        outside: whether a target outside the image is a reason.
        rng: decides.
    """

    head: FloatArray
    image: IntArray
    inout: npt.NDArray[np.int8]
    forms: Sequence[AbstractSet[Form]]
    fitting: Sequence[dict[Trait, tuple[int, ...]]]
    outside: bool
    rng: random.Random
    asked: dict[int, Asked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = np.searchsorted(self.image, np.arange(len(self.fitting) + 1))
        self.boxed = has_box(self.head)
        self.given: set[int] = set()  # whose box is in a question already
        # Who stands in for several people or for nobody: first those of whom nothing else can be asked; those who look
        # out are the fewest, and have a question of their own.
        rank = {IN_FRAME: 1, OUT_OF_FRAME: 2}
        people = sorted(self._shuffled(range(len(self.head))), key=lambda person: rank.get(int(self.inout[person]), 0))
        self.stand_ins = deque(people)
        self.of_image: dict[int, list[int]] = {}
        for person in people:
            self.of_image.setdefault(int(self.image[person]), []).append(person)
        self.one: dict[tuple[Trait, Form | Refusal], list[int]] = {}  # people an expression fits, by form or "outside"
        self.images: dict[tuple[Trait, Refusal], deque[int]] = {}
        self.donors: dict[Trait, list[int]] = {}
        for image in self._shuffled(range(len(self.fitting))):
            for expression, fitting in self.fitting[image].items():
                if len(fitting) == 1:
                    self._offer(expression, int(self.start[image]) + fitting[0])
                elif self.start[image] < self.start[image + 1]:
                    reason: Refusal = "ambiguous" if fitting else "non_exist"
                    self.images.setdefault((expression, reason), deque()).append(image)
        for person, cell in zip(np.flatnonzero(self.boxed).tolist(), _cells(self.head[self.boxed]), strict=True):
            self._offer((BOX, cell), person)
            self.donors.setdefault((BOX, cell), []).append(person)
        for pool in (*self.one.values(), *self.donors.values()):
            self.rng.shuffle(pool)

    def made(self) -> dict[int, Asked]:
        """The questions by person: blocks of one question for each reason and as many that can be answered.

        A block has one kind of expression; the kinds take turns.
        """
        kinds: dict[str, dict[tuple[Trait, Form], int]] = {}
        for expression, form in sorted(key for key in self.one if key[1] != "outside"):
            reasons = self._reasons(expression)
            supply = [self._supply(expression, form, refusal) for refusal in reasons]  # type: ignore[arg-type]
            least = min([len(self.one[expression, form]) // len(reasons), *supply])
            if least:
                kinds.setdefault(kind_of(expression), {})[expression, form] = least  # type: ignore[index]
        while kinds:
            for kind in sorted(kinds):
                if not self._block(kinds[kind]):
                    del kinds[kind]
        return self.asked

    def _reasons(self, expression: Trait) -> tuple[Refusal, ...]:
        return REASONS.get(expression[0], ("ambiguous", "non_exist")) + (("outside",) if self.outside else ())

    def _supply(self, expression: Trait, form: Form, refusal: Refusal) -> int:
        """How many such questions there may be."""
        if refusal == "outside":
            return len(self.one.get((expression, refusal), ()))
        if expression[0] == BOX:
            return len(self.donors[expression])
        return len(self.images.get((expression, refusal), ()))

    def _shuffled(self, values: Iterable[int] | Iterable[tuple[Trait, Form]]) -> list:  # type: ignore[type-arg]
        found = list(values)
        self.rng.shuffle(found)
        return found

    def _offer(self, expression: Trait, person: int) -> None:
        if self.inout[person] == OUT_OF_FRAME:
            self.one.setdefault((expression, "outside"), []).append(person)
        for form in sorted(self.forms[person]):
            self.one.setdefault((expression, form), []).append(person)

    def _block(self, strata: dict[tuple[Trait, Form], int]) -> bool:
        """Asks a block of questions, of strata drawn by their weights; where somebody is missing none of them."""
        taken: list[int] = []
        reasons = self._reasons(next(iter(strata))[0]) if strata else ()
        for refusal in (*("",) * len(reasons), *reasons):
            found = None
            while strata and found is None:
                (stratum,) = self.rng.choices([*strata], [*strata.values()])
                found = self._find(*stratum, refusal)  # type: ignore[arg-type]
                if found is None:  # what one answer lacks is asked with no answer any more
                    del strata[stratum]
            if found is None:
                for person in taken:
                    self.given -= {person, self.asked.pop(person).donor}
                return False
            (expression, form), (person, donor) = stratum, found
            plain = (BOX, "") if expression[0] == BOX else expression
            self.asked[person] = Asked(form, refusal, plain, donor)  # type: ignore[arg-type]
            taken.append(person)
            if expression[0] == BOX:
                self.given.add(person if donor < 0 else donor)
        return bool(taken)

    def _find(self, expression: Trait, form: Form, refusal: Refusal) -> tuple[int, int] | None:
        """A person who can be asked such a question, and the donor of a box; None where there is nobody left."""
        if refusal in ("", "outside"):
            pool = self.one.get((expression, refusal or form), [])
            while pool:
                person = pool.pop()
                if person not in self.asked and not (expression[0] == BOX and person in self.given):
                    return person, -1
            return None
        if expression[0] == BOX:
            return self._nobody(self.donors[expression])
        images = self.images.get((expression, refusal), deque())
        while images:
            image = images.popleft()
            for person in self.of_image[image]:
                if person not in self.asked:
                    images.append(image)
                    return person, -1
        return None

    def _nobody(self, donors: list[int]) -> tuple[int, int] | None:
        """Somebody in whose image nobody is where a donor's head is, which no other question has."""
        while donors:
            donor, tried = donors.pop(), 0
            while donor not in self.given and self.stand_ins and tried < TRIES:
                person, tried = self.stand_ins.popleft(), tried + 1
                if person in self.asked:
                    continue
                self.stand_ins.append(person)
                image = self.image[person]
                heads = self.head[self.start[image] : self.start[image + 1]]
                if image != self.image[donor] and holds_nobody(self.head[donor], heads):
                    return person, donor
        return None


def _cells(head: FloatArray) -> list[str]:
    """A name for about where each head box (P, 4) lies and how large it is."""
    x, y, height = (head[:, 0] + head[:, 2]) / 2, (head[:, 1] + head[:, 3]) / 2, head[:, 3] - head[:, 1]
    columns = min(10, max(3, len(head) // PER_COLUMN))  # who looks out stands at the edges more often
    parts = [_quantile(x, x, columns), _quantile(y, y, 3), _quantile(height, height, 3)]
    return ["-".join(map(str, cell)) for cell in np.stack(parts, axis=1).tolist()]


def _quantile(values: FloatArray, among: FloatArray, parts: int) -> IntArray:
    """The number of the quantile of ``among`` that each value lies in."""
    inner = np.arange(1, parts) / parts
    return np.searchsorted(np.quantile(among, inner), values) if len(among) else np.zeros(len(values), np.int64)


def plan_pairs(
    pairs: IntArray, label: npt.NDArray[np.int8], head: FloatArray, in_words: npt.NDArray[np.bool_], rng: random.Random
) -> IntArray:
    """The rows of pairs (N, 2) to ask a yes / no question about, ascending: as many with yes as with no.

    Args:
        pairs: rows of ``head``.
        label: (N,) 1, 0 or -1; pairs of -1 are not asked about.
        head: (P, 4) normalised xyxy.
        in_words: (N,) whether the two are told by words; the others are told by boxes.
        rng: decides.
    """
    (first, second), yes = head[pairs].transpose(1, 0, 2), label == 1
    offset = (second[:, :2] + second[:, 2:] - first[:, :2] - first[:, 2:]) / 2
    height = first[:, 3] - first[:, 1] + second[:, 3] - second[:, 1]
    grow = (second[:, 3] - second[:, 1]) / np.maximum(height, 1e-9)
    measures = ((np.hypot(*offset.T), 5), (offset[:, 0], 4), (offset[:, 1], 3), (height, 3), (grow, 2))
    boxes = yes & ~in_words
    cells = np.stack([_quantile(values, values[boxes], parts) for values, parts in measures], axis=1)
    cells[in_words] = -1
    _, stratum = np.unique(cells, axis=0, return_inverse=True)
    pools = [[[], []] for _ in range(stratum.max() + 1 if len(stratum) else 0)]  # type: ignore[var-annotated]
    for row in rng.sample(range(len(label)), len(label)):
        if label[row] >= 0:
            pools[stratum[row]][label[row]].append(row)
    weight = {each: min(map(len, answers)) for each, answers in enumerate(pools) if all(answers)}
    chosen: list[int] = []
    while weight:
        both: list[int] = []
        for answer in (0, 1):
            while weight and len(both) == answer:
                (each,) = rng.choices([*weight], [*weight.values()])
                if pools[each][answer]:
                    both.append(pools[each][answer].pop())
                else:
                    del weight[each]
        chosen += both if len(both) == 2 else []
    return np.sort(np.array(chosen, dtype=np.int64))
