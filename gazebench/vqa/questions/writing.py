"""From annotations to questions: at most one of each task about a person, always the same ones.

Whatever is drawn by lot hangs on the seed, the person's id and the task alone, never on the order of pictures; so
questions can be made picture by picture, in any process, and a file of them streams.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, Records, stable_key
from gazebench.data.dataset import Description
from gazebench.vqa.questions.geometry import DIRECTIONS, sector, whole
from gazebench.vqa.questions.templates import ANYONE, Templates, templates
from gazebench.vqa.types import Form, Observer, Question, QuestionType, Refusal, Truth

TASKS: Final[tuple[QuestionType, ...]] = get_args(QuestionType)
FORMS: Final[tuple[Form, ...]] = get_args(Form)
REFUSALS: Final[tuple[Refusal, ...]] = tuple(reason for reason in get_args(Refusal) if reason)
NOT_ASKED: Final = "not asked"
BY_BOX: Final = 0.5
"""Share of people who are referred to by their head box where words would do too."""
MARGIN: Final = 0.02
"""The least gap between an empty box and a head, normalised."""
EDGE: Final = 0.08
"""How much farther to the side than everybody else the leftmost and the rightmost person must be, normalised."""

Asked = tuple[Question, Truth]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture with its P people, as it is shown.

    Attributes:
        ids: P person ids.
        head: (P, 4) normalised xyxy, NaN where there is none.
        points: of each person, (A, 2) the annotated targets, normalised.
        inout: (P,) 1 in frame, 0 outside, -1 unknown.
        kinds: of each person, what its recognition question is: "" (can be answered), a refusal, or ``NOT_ASKED``.
        words: what can be said of them.
        size: width, height in pixels.
        everybody: whether nobody else is in the picture.
    """

    ids: Sequence[str]
    head: FloatArray
    points: Sequence[FloatArray]
    inout: npt.NDArray[np.int64]
    kinds: Sequence[str]
    words: Sequence[Description]
    size: tuple[int, int]
    everybody: bool


def plan(records: Records, seed: int = 0) -> npt.NDArray[np.str_]:
    """(P,) the recognition question of every person of a split, as ``Picture.kinds``.

    Half of them cannot be answered, for the three reasons in equal shares as far as there are people for each: a target
    outside needs one who looks out, ambiguity needs company. People with unknown targets or without a box are not asked
    about. Who gets what is drawn by lot from the seed and the ids.
    """
    kinds = np.full(records.people, NOT_ASKED, dtype=f"<U{max(map(len, (NOT_ASKED, *REFUSALS)))}")
    known = np.isin(records.inout, (IN_FRAME, OUT_OF_FRAME)) & np.isfinite(records.head).all(axis=1)
    lot = np.array([stable_key(f"{seed} {person}") for person in records.person_id], dtype=np.int64)
    order = [int(person) for person in np.argsort(lot, kind="stable") if known[person]]
    company = np.bincount(records.person_image, minlength=len(records))[records.person_image] > 1
    # Who looks out can only be asked what cannot be answered: they come first wherever anybody would do.
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


class Questioner:
    """Asks about pictures.

    Args:
        seed: of all that is drawn by lot.
        describes: whether the dataset names what people look at; where it does not, nobody is asked for it.
        words: of the protocol.
    """

    def __init__(self, seed: int = 0, describes: bool = True, words: Templates | None = None) -> None:
        self.seed, self.describes = seed, describes
        self.words = words or templates()

    def ask(self, picture: Picture) -> Iterator[Asked]:
        """The questions about a picture's people, with what is true of them, person by person and task by task."""
        expressions = Expressions(picture, self.words)
        for person in range(len(picture.ids)):
            for task in TASKS:
                asked = self._about(picture, person, task, expressions)
                if asked is not None:
                    yield asked

    def _about(self, picture: Picture, person: int, task: QuestionType, expressions: Expressions) -> Asked | None:
        dice = random.Random(f"{self.seed} {picture.ids[person]} {task}")
        truths = self._truths(picture, person)
        refusal: Refusal = ""
        if task == "recognition":
            kind = picture.kinds[person]
            if kind == NOT_ASKED:
                return None
            refusal = next((reason for reason in REFUSALS if reason == kind), "")
            forms = [form for form in FORMS if (form != "object" or self.describes) and (refusal or form in truths)]
            if not forms:
                return None
            form = dice.choice(forms)
        else:
            form = task
            if form == "point" and picture.inout[person] == OUT_OF_FRAME:
                refusal = "outside"
            elif form not in truths:
                return None
        found = expressions.choose(person, refusal, dice)
        if found is None:
            return None
        observer, words = found
        text = dice.choice(list(self.words.questions[form])).format(observer=words)
        question = Question(f"{picture.ids[person]}/{task}", person, task, form, observer, text)
        head = tuple(float(side) for side in picture.head[person])
        blank = Truth("", head=head, size=picture.size)  # type: ignore[arg-type]
        if refusal:
            return question, replace(blank, answer=self.words.refusals[refusal], refusal=refusal)
        return question, replace(truths[form], head=blank.head, size=blank.size)

    def _truths(self, picture: Picture, person: int) -> dict[Form, Truth]:
        """What can be asked about somebody who looks at something in the picture, and the answers."""
        points = picture.points[person]
        if picture.inout[person] != IN_FRAME or not len(points):
            return {}
        mean = points.mean(axis=0)
        given = tuple((float(x), float(y)) for x, y in points)
        truths: dict[Form, Truth] = {
            "point": Truth(self.words.point.format(x=whole(mean[0]), y=whole(mean[1])), points=given)
        }
        x0, y0, x1, y1 = (float(side) for side in picture.head[person])
        if x0 <= x1 and not (x0 <= mean[0] <= x1 and y0 <= mean[1] <= y1):  # of a target in the own head there is none
            direction = sector(((x0 + x1) / 2, (y0 + y1) / 2), mean, picture.size)
            truths["direction"] = Truth(DIRECTIONS[direction], points=given, direction=direction)
        said = picture.words[person]
        if said.target and said.labels:
            truths["object"] = Truth(said.target, points=given, labels=said.labels, references=(said.target,))
        return truths


class Expressions:
    """The ways to refer to the people of one picture."""

    def __init__(self, picture: Picture, words: Templates) -> None:
        self.picture, self.words = picture, words
        self.traits = [dict(said.traits) for said in picture.words]
        self.seen = [
            {name: value for name, value in said.traits.items() if name not in said.hidden} for said in picture.words
        ]
        if picture.everybody:
            for person, place in self._places():
                self.traits[person]["place"] = self.seen[person]["place"] = place

    def choose(self, person: int, refusal: Refusal, dice: random.Random) -> tuple[Observer, str] | None:
        """How to refer to a person, or, for the sake of a refusal, to several or to nobody; None where there is no way.

        Whether a box or words are tried first is drawn alike in all cases, so that it gives nothing away.
        """
        by_box = dice.random() < BY_BOX
        if refusal == "ambiguous":
            several = self.several()
            return ("ambiguous", self._worded(*dice.choice(several), dice)) if several else None
        if refusal == "non_exist":
            nobody = [] if by_box else self.nobody()
            if nobody:
                return "non_exist", self._worded(*dice.choice(nobody), dice)
            box = self._empty_box(person, dice)
            return None if box is None else ("non_exist", self._boxed(box, dice))
        has_box = bool(np.isfinite(self.picture.head[person]).all())
        unique = self.unique(person)
        if unique and not (by_box and has_box):
            return "unique", self._worded(*dice.choice(unique), dice)
        return ("box", self._boxed(self.picture.head[person], dice)) if has_box else None

    def unique(self, person: int) -> list[tuple[str, str]]:
        """Traits that this person can be seen to have, and nobody else could pass for having."""
        if not self.picture.everybody:
            return []
        others = [traits for index, traits in enumerate(self.traits) if index != person]
        return [
            (name, value)
            for name, value in sorted(self.seen[person].items())
            if not any(other.get(name) in self.words.alike(name, value) for other in others)
        ]

    def several(self) -> list[tuple[str, str]]:
        """Traits that at least two people can be seen to have, and the expression that fits everybody."""
        if len(self.seen) < 2:
            return []
        everything = [item for traits in self.seen for item in traits.items()]
        shared = {item for item in everything if everything.count(item) > 1} if self.picture.everybody else set()
        # As often as all others together: of a crowd something is always shared.
        return [*sorted(shared), *[(ANYONE, "")] * max(1, len(shared))]

    def nobody(self) -> list[tuple[str, str]]:
        """Traits that nobody has or could pass for having."""
        if not self.picture.everybody or not any(self.traits):
            return []
        return [
            (name, value)
            for name, values in self.words.values.items()
            for value in values
            if not any(traits.get(name) in self.words.alike(name, value) for traits in self.traits)
            and (name != "pose" or all("pose" in traits for traits in self.traits))
        ]

    def _places(self) -> list[tuple[int, str]]:
        """Who is farthest to a side of at least two people, clearly."""
        centre = (self.picture.head[:, 0] + self.picture.head[:, 2]) / 2
        if len(centre) < 2 or not np.isfinite(centre).all():
            return []
        order = np.argsort(centre, kind="stable")
        found = []
        if centre[order[1]] - centre[order[0]] >= EDGE:
            found.append((int(order[0]), "leftmost"))
        if centre[order[-1]] - centre[order[-2]] >= EDGE:
            found.append((int(order[-1]), "rightmost"))
        return found

    def _worded(self, trait: str, value: str, dice: random.Random) -> str:
        return dice.choice(list(self.words.observers[trait])).format(value=value)

    def _boxed(self, box: FloatArray, dice: random.Random) -> str:
        numbers = ", ".join(str(whole(float(side))) for side in box)
        return dice.choice(list(self.words.observers["box"])).format(box=numbers)

    def _empty_box(self, person: int, dice: random.Random) -> FloatArray | None:
        """A box of the size of this person's head where no head is, in the upper part, where heads are."""
        own = self.picture.head[person]
        if not np.isfinite(own).all():
            return None
        heads = self.picture.head[np.isfinite(self.picture.head).all(axis=1)]
        wide, high = min(1.0, own[2] - own[0]), min(1.0, own[3] - own[1])
        for _ in range(50):
            left, top = dice.uniform(0, 1 - wide), dice.uniform(0, max(0.0, 0.8 - high))
            box = np.array([left, top, left + wide, top + high])
            apart = (box[:2] > heads[:, 2:] + MARGIN).any(axis=1) | (box[2:] < heads[:, :2] - MARGIN).any(axis=1)
            if apart.all():
                return box
        return None
