"""Questions about the places of things and people in a scene, and answers, to train a vision-language model on.

None is about gaze. Answers are in the grounding format of Qwen3-VL: JSON with whole coordinates from 0 to 999. The
words are frozen, because the tokenizer of the embedded model is made for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from gazebench.datasets.gazeworld.canvas import Box, Point
from gazebench.datasets.gazeworld.catalogue import CATEGORIES
from gazebench.datasets.gazeworld.scene import Person, Scene, Thing

DIRECTIONS: Final = ("right", "top-right", "above", "top-left", "left", "bottom-left", "below", "bottom-right")
"""Sectors of 45 degrees, counter-clockwise, each centred on the direction of its name."""
POINT: Final = "Point at the {name}."


class Grounding(NamedTuple):
    """A question about a scene and its answer.

    Attributes:
        question: the text.
        answer: the text.
        given: the normalised point, or the middle of the box, whose coordinates the question contains; else None.
        place: the middle of what one must look at for the answer; None where that is several things or none.
        thing: the thing at ``place`` if the question does not name it; else None.
    """

    question: str
    answer: str
    given: Point | None = None
    place: Point | None = None
    thing: Thing | None = None


def ask(scene: Scene, rng: np.random.Generator, count: int, mirrored: bool = False) -> list[Grounding]:
    """Draws ``count`` questions about a scene; ``mirrored`` if its image is shown mirrored left to right."""
    questions = _Questions(scene, rng, mirrored)
    # How often each is asked: names are learnt slowest.
    shares: dict[Callable[[], Grounding], int] = {questions.place: 1}
    if scene.things:
        shares[questions.point] = shares[questions.locate] = 2
        shares |= {questions.name: 4, questions.presence: 1}
    if scene.things and scene.people:
        shares[questions.head] = shares[questions.all_heads] = shares[questions.clothes] = 1
        shares |= {questions.direction: 2, questions.nearest: 3}
    drawn = [question for question, share in shares.items() for _ in range(share)]
    return [drawn[rng.integers(len(drawn))]() for _ in range(count)]


def name_of(thing: Thing) -> str:
    """Colour and category: ``red ball``."""
    return f"{thing.colour} {thing.category}"


class _Questions:
    """The kinds of questions; each method draws one."""

    def __init__(self, scene: Scene, rng: np.random.Generator, mirrored: bool) -> None:
        self.scene, self.rng, self.mirrored = scene, rng, mirrored

    def shown(self, at: Point) -> Point:
        return (1 - at[0] if self.mirrored else at[0]), at[1]

    def middle(self, box: Box) -> Point:
        return self.shown(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))

    def point_json(self, at: Point) -> str:
        return json.dumps({"point_2d": [round(999 * value) for value in self.shown(at)]})

    def whole(self, box: Box) -> list[int]:
        left, top, right, bottom = box
        return [round(999 * side) for side in ((1 - right, top, 1 - left, bottom) if self.mirrored else box)]

    def box_json(self, box: Box) -> str:
        return json.dumps({"bbox_2d": self.whole(box)})

    def any_thing(self) -> Thing:
        return self.scene.things[self.rng.integers(len(self.scene.things))]

    def any_person(self) -> Person:
        return self.scene.people[self.rng.integers(len(self.scene.people))]

    def place(self) -> Grounding:
        return Grounding("What place is it?", self.scene.backdrop.kind)

    def point(self) -> Grounding:
        thing = self.any_thing()
        return Grounding(
            POINT.format(name=name_of(thing)), self.point_json(thing.centre), place=self.shown(thing.centre)
        )

    def locate(self) -> Grounding:
        thing = self.any_thing()
        return Grounding(f"Locate the {thing.category}.", self.box_json(thing.box), place=self.shown(thing.centre))

    def name(self) -> Grounding:
        thing = self.any_thing()
        at = self.shown(thing.centre)
        return Grounding(f"What is at {[round(999 * value) for value in at]}?", name_of(thing), at, at, thing)

    def presence(self) -> Grounding:
        if self.rng.random() < 0.5:
            thing = self.any_thing()
            return Grounding(f"Is there a {thing.category}?", "yes", place=self.shown(thing.centre))
        there = {thing.category for thing in self.scene.things}
        absent = [name for name in CATEGORIES if name not in there]
        return Grounding(f"Is there a {absent[self.rng.integers(len(absent))]}?", "no")

    def head(self) -> Grounding:
        person = self.any_person()
        question = f"Locate the head of the person in {person.clothes}."
        return Grounding(question, self.box_json(person.head), place=self.middle(person.head))

    def all_heads(self) -> Grounding:
        boxes = sorted(self.whole(each.head) for each in self.scene.people)
        return Grounding("Locate all heads.", json.dumps([{"bbox_2d": box} for box in boxes]))

    def clothes(self) -> Grounding:
        person = self.any_person()
        question = f"What does the person with the head {self.box_json(person.head)} wear?"
        return Grounding(question, person.clothes, self.middle(person.head), self.middle(person.body))

    def seen_from(self, observer: Person, thing: Thing) -> tuple[str, float]:
        """The direction from a person's eyes to a thing, and the distance in image heights."""
        start, end, aspect = self.shown(observer.eye), self.shown(thing.centre), self.scene.aspect
        distance = math.hypot((end[0] - start[0]) * aspect, end[1] - start[1])
        across, up = (end[0] - start[0]) * round(1000 * aspect), (start[1] - end[1]) * 1000
        return DIRECTIONS[round(math.degrees(math.atan2(up, across)) / 45) % 8], distance

    def direction(self) -> Grounding:
        thing, observer = self.any_thing(), self.any_person()
        question = f"Where is the {name_of(thing)} as seen from the head {self.box_json(observer.head)}?"
        direction, _ = self.seen_from(observer, thing)
        return Grounding(question, direction, self.middle(observer.head), self.shown(thing.centre))

    def nearest(self) -> Grounding:
        observer = self.any_person()
        direction, _ = self.seen_from(observer, self.any_thing())
        things = {each: self.seen_from(observer, each) for each in self.scene.things}
        thing = min((each for each in things if things[each][0] == direction), key=lambda each: things[each][1])
        where = f"nearest to the head {self.box_json(observer.head)} in the direction {direction}"
        question, answer = f"Point at what is {where}.", self.point_json(thing.centre)
        if self.rng.random() < 0.5:
            question, answer = f"What is {where}?", name_of(thing)
        return Grounding(question, answer, self.middle(observer.head), self.shown(thing.centre), thing)
