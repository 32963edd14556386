"""Questions about what stands where in a scene, with their answers: what any vision-language model can tell.

None is about gaze. Answers are in the grounding format of Qwen3-VL: JSON with whole coordinates from 0 to 999.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from gazebench.datasets.gazeworld.world import CATEGORIES, COLOURS, Person, Scene, Thing
from gazebench.datasets.gazeworld.world.patches import PLACES
from gazebench.vqa.questions.geometry import DIRECTIONS, sector, whole

Box = tuple[float, float, float, float]
Spot = tuple[float, float]

POINT: Final = "Point at the {name}."
BOX: Final = "Locate the {name}."
AT: Final = "What is at {point}?"
THERE: Final = "Is there a {name}?"
SALIENT: Final = "What stands out?"
SALIENT_BOX: Final = "Locate what stands out."
PLACE: Final = "What place is it?"
HEADS: Final = "Locate all heads."
HEAD: Final = "Locate the head of the person in {name}."
WEARS: Final = "What does the person with the head {box} wear?"
DIRECTION: Final = "Where is the {name} as seen from the head {box}?"
NEAREST: Final = "What is nearest to the head {box} in the direction {direction}?"
NEAREST_POINT: Final = "Point at what is nearest to the head {box} in the direction {direction}."


class Asked(NamedTuple):
    """A question about a scene.

    Attributes:
        question: the text.
        answer: the text.
        given: the normalised point that the question tells in numbers, or its box's middle; None where there is none.
        place: the middle of what is to be looked at for the answer; None where that is several things or none.
        thing: that thing, where only the picture tells what it is; None where the question names it.
    """

    question: str
    answer: str
    given: Spot | None = None
    place: Spot | None = None
    thing: Thing | None = None


def ask(scene: Scene, rng: np.random.Generator, count: int, mirrored: bool = False) -> list[Asked]:
    """Some questions about a scene and their answers.

    Args:
        scene: with things and people.
        rng: chooses.
        count: of questions.
        mirrored: whether the picture is shown turned left to right.
    """

    def shown(at: Spot) -> Spot:
        return (1 - at[0] if mirrored else at[0]), at[1]

    def box(sides: Box) -> str:
        left, top, right, bottom = sides
        turned = (1 - right, top, 1 - left, bottom) if mirrored else sides
        return json.dumps({"bbox_2d": [whole(side) for side in turned]})

    def middle(sides: Box) -> Spot:
        return shown(((sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2))

    def point(at: Spot) -> list[int]:
        return [whole(side) for side in shown(at)]

    def thing() -> Thing:
        return scene.things[rng.integers(len(scene.things))]

    def person() -> Person:
        return scene.people[rng.integers(len(scene.people))]

    def pointed() -> Asked:
        chosen = thing()
        answer = json.dumps({"point_2d": point(chosen.centre)})
        return Asked(POINT.format(name=named(chosen)), answer, place=shown(chosen.centre))

    def located() -> Asked:
        chosen = thing()
        return Asked(BOX.format(name=chosen.category), box(chosen.box), place=shown(chosen.centre))

    def recognised() -> Asked:
        chosen = thing()
        at = shown(chosen.centre)
        return Asked(AT.format(point=json.dumps(point(chosen.centre))), named(chosen), at, at, chosen)

    def present() -> Asked:
        there = {each.category for each in scene.things}
        if rng.random() < 0.5:
            chosen = thing()
            return Asked(THERE.format(name=chosen.category), "yes", place=shown(chosen.centre))
        absent = [name for name in CATEGORIES if name not in there]
        return Asked(THERE.format(name=absent[rng.integers(len(absent))]), "no")

    def standing_out() -> Asked:
        chosen = scene.find(scene.salient)
        question, answer = (SALIENT, named(chosen)) if rng.random() < 0.5 else (SALIENT_BOX, box(chosen.box))
        return Asked(question, answer, place=shown(chosen.centre), thing=chosen)

    def headed() -> Asked:
        chosen = person()
        return Asked(HEAD.format(name=chosen.clothes), box(chosen.head), place=middle(chosen.head))

    def all_heads() -> Asked:
        order = sorted((box(each.head) for each in scene.people), key=lambda text: json.loads(text)["bbox_2d"])
        return Asked(HEADS, f"[{', '.join(order)}]")

    def dressed() -> Asked:
        chosen = person()
        question = WEARS.format(box=box(chosen.head))
        return Asked(question, chosen.clothes, middle(chosen.head), middle(chosen.body))

    def seen_from(observer: Person, other: Thing) -> tuple[int, float]:
        """The sector another thing is in, and how far off it is."""
        start, end = shown(observer.eye), shown(other.centre)
        away = math.hypot((end[0] - start[0]) * scene.aspect, end[1] - start[1])
        return sector(start, end, (round(1000 * scene.aspect), 1000)), away

    def directed() -> Asked:
        chosen, observer = thing(), person()
        way, _ = seen_from(observer, chosen)
        question = DIRECTION.format(name=named(chosen), box=box(observer.head))
        return Asked(question, DIRECTIONS[way], middle(observer.head), shown(chosen.centre))

    def nearest() -> Asked:
        observer = person()
        way, _ = seen_from(observer, thing())
        there = [other for other in scene.things if seen_from(observer, other)[0] == way]
        chosen = min(there, key=lambda other: seen_from(observer, other)[1])
        blanks = {"direction": DIRECTIONS[way], "box": box(observer.head)}
        question, answer = NEAREST_POINT, json.dumps({"point_2d": point(chosen.centre)})
        if rng.random() < 0.5:
            question, answer = NEAREST, named(chosen)
        return Asked(question.format(**blanks), answer, middle(observer.head), shown(chosen.centre), chosen)

    # How often each is asked: names are learnt slowest.
    kinds: dict[Callable[[], Asked], int] = {lambda: Asked(PLACE, scene.backdrop.kind): 1}
    if scene.things:
        kinds |= {pointed: 2, located: 2, recognised: 4, present: 1, standing_out: 3}
    if scene.things and scene.people:
        kinds |= {headed: 1, all_heads: 1, dressed: 1, directed: 2, nearest: 3}
    drawn = [kind for kind, share in kinds.items() for _ in range(share)]
    return [drawn[rng.integers(len(drawn))]() for _ in range(count)]


def named(thing: Thing) -> str:
    """Colour and category: ``red ball``."""
    return f"{thing.colour} {thing.category}"


def phrases() -> Iterator[str]:
    """Every word of the questions and answers in its surroundings, for a tokenizer to learn."""
    box = json.dumps({"bbox_2d": [0, 1, 2, 3]})
    for template in (POINT, BOX, THERE):
        yield from (template.format(name=name) for name in CATEGORIES)
    for colour in COLOURS:
        yield from (template.format(name=f"{colour} {name}") for template in (POINT,) for name in CATEGORIES)
        yield from (HEAD.format(name=colour), colour)
    yield from (AT.format(point=[0, 1]), SALIENT, SALIENT_BOX, PLACE, HEADS, WEARS.format(box=box), f"[{box}, {box}]")
    yield from (DIRECTION.format(name=name, box=box) for name in CATEGORIES)
    yield from (
        template.format(direction=each, box=box) for template in (NEAREST, NEAREST_POINT) for each in DIRECTIONS
    )
    yield from (*DIRECTIONS, *PLACES, "yes", "no", json.dumps({"point_2d": [0, 1]}))
