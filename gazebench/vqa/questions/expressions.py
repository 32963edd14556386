"""How a question refers to people: by a head box, or by words that fit exactly one, several or no person."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.data.dataset import Description
from gazebench.vlm.coordinates import whole
from gazebench.vqa.questions.templates import ANYONE, Templates
from gazebench.vqa.types import Observer, Refusal

BY_BOX: Final = 0.5
"""Share of people who are referred to by their head box where words would do too."""
MARGIN: Final = 0.02
"""The least gap between an empty box and a head, normalised."""
EDGE: Final = 0.08
"""How much farther to the side than everybody else the leftmost and the rightmost person must be, normalised."""
HALF: Final = 0.5
"""The middle of the image."""

Trait = tuple[str, str]
"""Name and value, e.g. ``("clothes", "red")``."""


class Expressions:
    """The ways to refer to the people of one image, as it is shown.

    Args:
        head: (P, 4) normalised xyxy, NaN where there is none.
        descriptions: of the P people.
        everybody: whether nobody else is in the image.
        templates: the words to use.
    """

    def __init__(
        self, head: FloatArray, descriptions: Sequence[Description], everybody: bool, templates: Templates
    ) -> None:
        self.head, self.everybody, self.templates = head, everybody, templates
        self.traits = [dict(each.traits) for each in descriptions]
        self.seen = [{k: v for k, v in each.traits.items() if k not in each.hidden} for each in descriptions]
        if everybody:
            for person, place in self._places():
                self.traits[person]["place"] = self.seen[person]["place"] = place

    def choose(self, person: int, refusal: Refusal, rng: random.Random) -> tuple[Observer, str] | None:
        """How to refer to a person or, to ask for a refusal, to several or to nobody; None where there is no way.

        Whether a box or words are tried first is drawn in the same way in all cases, so that it gives nothing away.
        """
        by_box = rng.random() < BY_BOX
        if refusal == "ambiguous":
            several = self.several()
            return ("ambiguous", self.in_words(*rng.choice(several), rng)) if several else None
        if refusal == "non_exist":
            nobody = [] if by_box else self.nobody()
            if nobody:
                return "non_exist", self.in_words(*rng.choice(nobody), rng)
            box = self._empty_box(person, rng)
            return None if box is None else ("non_exist", self.as_box(box, rng))
        has_box = bool(np.isfinite(self.head[person]).all())
        unique = self.unique(person)
        if unique and not (by_box and has_box):
            return "unique", self.in_words(*rng.choice(unique), rng)
        return ("box", self.as_box(self.head[person], rng)) if has_box else None

    def unique(self, person: int) -> list[Trait]:
        """Traits that this person can be seen to have, and nobody else could be thought to have."""
        if not self.everybody:
            return []
        others = [traits for index, traits in enumerate(self.traits) if index != person]
        return [
            (name, value)
            for name, value in sorted(self.seen[person].items())
            if not any(other.get(name) in self.templates.alike(name, value) for other in others)
        ]

    def several(self) -> list[Trait]:
        """Traits that at least two people can be seen to have, and the expression that fits everybody."""
        if len(self.seen) < 2:
            return []
        everything = [trait for traits in self.seen for trait in traits.items()]
        shared = {trait for trait in everything if everything.count(trait) > 1} if self.everybody else set()
        # "The person" as often as all others together: in a crowd something is always shared.
        return [*sorted(shared), *[(ANYONE, "")] * max(1, len(shared))]

    def fitting(self) -> dict[Trait, tuple[int, ...]]:
        """The people that expressions fit, by expression: none, one or several.

        An expression is left out where a viewer may count the people differently: of none and one, nobody else may be
        thought to fit; of several, two are enough. Where people without annotation may be in the image, only the
        expression that fits everybody is there.
        """
        found: dict[Trait, tuple[int, ...]] = {(ANYONE, ""): tuple(range(len(self.traits)))}
        if not self.everybody:
            return found
        for name, values in self.templates.values.items() if any(self.traits) else ():
            for value in values:
                alike = self.templates.alike(name, value)
                sure = tuple(person for person, traits in enumerate(self.seen) if traits.get(name) == value)
                # Of somebody whose legs are outside the image nobody knows whether they sit or stand.
                maybe = tuple(
                    person
                    for person, traits in enumerate(self.traits)
                    if traits.get(name) in alike or (name == "pose" and name not in traits)
                )
                if len(sure) > 1 or sure == maybe:
                    found[name, value] = sure
        if np.isfinite(self.head).all():
            left, right = self.head[:, 0], self.head[:, 2]
            for side, inside, touching in (
                ("left", right <= HALF, left < HALF), ("right", left >= HALF, right > HALF)
            ):  # fmt: skip
                if inside.sum() > 1 or (inside == touching).all():
                    found["half", side] = tuple(np.flatnonzero(inside).tolist())
        return found

    def nobody(self) -> list[Trait]:
        """Traits that nobody has or could be thought to have."""
        if not self.everybody or not any(self.traits):
            return []
        return [
            (name, value)
            for name, values in self.templates.values.items()
            for value in values
            if not any(traits.get(name) in self.templates.alike(name, value) for traits in self.traits)
            and (name != "pose" or all("pose" in traits for traits in self.traits))
        ]

    def _places(self) -> list[tuple[int, str]]:
        """Who is clearly farthest to a side, of at least two people."""
        centre = (self.head[:, 0] + self.head[:, 2]) / 2
        if len(centre) < 2 or not np.isfinite(centre).all():
            return []
        order = np.argsort(centre, kind="stable")
        found = []
        if centre[order[1]] - centre[order[0]] >= EDGE:
            found.append((int(order[0]), "leftmost"))
        if centre[order[-1]] - centre[order[-2]] >= EDGE:
            found.append((int(order[-1]), "rightmost"))
        return found

    def in_words(self, trait: str, value: str, rng: random.Random) -> str:
        """An expression in one of its wordings."""
        return rng.choice(self.templates.observers[trait]).format(value=value)

    def as_box(self, box: FloatArray, rng: random.Random) -> str:
        """A head box (4,) in one of its wordings."""
        numbers = ", ".join(str(whole(float(side))) for side in box)
        return rng.choice(self.templates.observers["box"]).format(box=numbers)

    def _empty_box(self, person: int, rng: random.Random) -> FloatArray | None:
        """A box of the size of this person's head where no head is, in the upper part, where heads usually are."""
        own = self.head[person]
        if not np.isfinite(own).all():
            return None
        width, height = min(1.0, own[2] - own[0]), min(1.0, own[3] - own[1])
        for _ in range(50):
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, max(0.0, 0.8 - height))
            box = np.array([left, top, left + width, top + height])
            if holds_nobody(box, self.head):
                return box
        return None


def has_box(head: FloatArray) -> npt.NDArray[np.bool_]:
    """(P,) whose head box (P, 4) is known."""
    return np.asarray(np.isfinite(head).all(axis=1))


def holds_nobody(box: FloatArray, head: FloatArray) -> bool:
    """Whether no head is in or near a box.

    Args:
        box: (4,) normalised xyxy.
        head: (P, 4) likewise, NaN where there is none.
    """
    known = head[has_box(head)]
    apart = (box[:2] > known[:, 2:] + MARGIN).any(axis=1) | (box[2:] < known[:, :2] - MARGIN).any(axis=1)
    return bool(apart.all())
