"""Questions about what stands where in a scene, with their answers: what any vision-language model can tell.

None is about gaze. Answers are in the grounding format of Qwen3-VL: JSON with whole coordinates from 0 to 999.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from gazebench.questions.geometry import DIRECTIONS, sector, whole
from gazebench.world import CATEGORIES, COLOURS, Person, Scene, Thing
from gazebench.world.patches import PLACES

Box = tuple[float, float, float, float]

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


def ask(scene: Scene, rng: np.random.Generator, count: int, mirrored: bool = False) -> list[tuple[str, str]]:
    """Some questions about a scene and their answers.

    Args:
        scene: with things and people.
        rng: chooses.
        count: of questions.
        mirrored: whether the picture is shown turned left to right.
    """

    def box(sides: Box) -> str:
        left, top, right, bottom = sides
        turned = (1 - right, top, 1 - left, bottom) if mirrored else sides
        return json.dumps({"bbox_2d": [whole(side) for side in turned]})

    def point(at: tuple[float, float]) -> list[int]:
        return [whole(1 - at[0] if mirrored else at[0]), whole(at[1])]

    def thing() -> Thing:
        return scene.things[rng.integers(len(scene.things))]

    def person() -> Person:
        return scene.people[rng.integers(len(scene.people))]

    def pointed() -> tuple[str, str]:
        chosen = thing()
        return POINT.format(name=named(chosen)), json.dumps({"point_2d": point(chosen.centre)})

    def located() -> tuple[str, str]:
        chosen = thing()
        return BOX.format(name=chosen.category), box(chosen.box)

    def recognised() -> tuple[str, str]:
        chosen = thing()
        return AT.format(point=json.dumps(point(chosen.centre))), named(chosen)

    def present() -> tuple[str, str]:
        there = {each.category for each in scene.things}
        if rng.random() < 0.5:
            return THERE.format(name=thing().category), "yes"
        absent = [name for name in CATEGORIES if name not in there]
        return THERE.format(name=absent[rng.integers(len(absent))]), "no"

    def standing_out() -> tuple[str, str]:
        chosen = scene.find(scene.salient)
        return (SALIENT, named(chosen)) if rng.random() < 0.5 else (SALIENT_BOX, box(chosen.box))

    def headed() -> tuple[str, str]:
        chosen = person()
        return HEAD.format(name=chosen.clothes), box(chosen.head)

    def all_heads() -> tuple[str, str]:
        order = sorted((box(each.head) for each in scene.people), key=lambda text: json.loads(text)["bbox_2d"])
        return HEADS, f"[{', '.join(order)}]"

    def dressed() -> tuple[str, str]:
        chosen = person()
        return WEARS.format(box=box(chosen.head)), chosen.clothes

    def seen_from(observer: Person, other: Thing) -> tuple[int, float]:
        """The sector another thing is in, and how far off it is."""
        start, end = [(1 - x if mirrored else x, y) for x, y in (observer.eye, other.centre)]
        away = math.hypot((end[0] - start[0]) * scene.aspect, end[1] - start[1])
        return sector(start, end, (round(1000 * scene.aspect), 1000)), away

    def directed() -> tuple[str, str]:
        chosen, observer = thing(), person()
        way, _ = seen_from(observer, chosen)
        return DIRECTION.format(name=named(chosen), box=box(observer.head)), DIRECTIONS[way]

    def nearest() -> tuple[str, str]:
        observer = person()
        way, _ = seen_from(observer, thing())
        there = [other for other in scene.things if seen_from(observer, other)[0] == way]
        chosen = min(there, key=lambda other: seen_from(observer, other)[1])
        blanks = {"direction": DIRECTIONS[way], "box": box(observer.head)}
        if rng.random() < 0.5:
            return NEAREST.format(**blanks), named(chosen)
        return NEAREST_POINT.format(**blanks), json.dumps({"point_2d": point(chosen.centre)})

    about_things: list[Callable[[], tuple[str, str]]] = [pointed, located, recognised, present]
    about_people: list[Callable[[], tuple[str, str]]] = [headed, all_heads, dressed, directed, nearest]
    kinds = [lambda: (PLACE, scene.backdrop.kind), *about_things * 2 * bool(scene.things)]
    kinds += [standing_out] * bool(scene.things) + about_people * bool(scene.people and scene.things)
    return [kinds[rng.integers(len(kinds))]() for _ in range(count)]


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
