"""Clips: the scene of a key in motion, with the truth of every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Unpack

from gazebench.datasets.gazeworld.world.compose import (
    DEFAULTS,
    Options,
    Target,
    aimed,
    choose,
    compose,
    measured,
    sized,
)
from gazebench.datasets.gazeworld.world.dice import Dice, grid, seeded
from gazebench.datasets.gazeworld.world.pen import Box, Point
from gazebench.datasets.gazeworld.world.scene import WORLD_VERSION, Person, Scene, Thing

PACE = 0.55
"""Share of the way to its goal that a head turns per frame; eyes are there at once."""
KEEP = (6, 16)
"""Frames a gaze stays on its target."""


@dataclass
class _Habit:
    """How one person moves: a slow sway, and a gaze that stays a while."""

    sway: Point
    period: float
    turn: float
    hold: int
    target: Target
    offset: Point


def clip(seed: int, index: int, split: str, frames: int, **options: Unpack[Options]) -> list[Scene]:
    """``frames`` scenes of the same people and things (same ids); the first is ``compose`` of the same key.

    People sway, hold their gaze for ``KEEP`` frames and then choose anew as ``compose`` does; a head comes after its
    eyes. ``gaze``, ``subset`` and ``inout`` of every frame belong to that frame alone.
    """
    first = compose(seed, index, split, **options)
    dice = Dice(seeded("gazeworld clip", WORLD_VERSION, seed, split, index))
    habits = [_habit(dice, first, person) for person in first.people]
    scenes = [first]
    for frame in range(1, frames):
        last = scenes[-1]
        people = [
            sized(_swayed(before, start, habit, frame), first.aspect)
            for before, start, habit in zip(last.people, first.people, habits, strict=True)
        ]
        moves = {
            after.id: (after.x - start.x, after.y - start.y) for after, start in zip(people, first.people, strict=True)
        }
        things = tuple(_carried(thing, moves, first.aspect) for thing in first.things)
        salient = next(thing.box for thing in things if thing.id == first.salient)
        boxes = {thing.id: thing.box for thing in things} | {person.id: person.head for person in people}
        seen = list(people)
        for k, (person, habit) in enumerate(zip(people, habits, strict=True)):
            habit.hold -= 1
            if habit.hold <= 0:
                habit.target = choose(dice, person, people, things, first.aspect, {**DEFAULTS, **options})
                habit.offset = _offset(habit.target, boxes)
                habit.hold = dice.integer(*KEEP)
            seen[k] = _turned(person, _followed(habit, boxes), salient, first.aspect, habit.turn)
        scenes.append(replace(first, frame=frame, people=tuple(seen), things=things))
    return scenes


def _habit(dice: Dice, scene: Scene, person: Person) -> _Habit:
    target = Target(person.target_kind, person.target_id, person.target_category, person.gaze, person.target_depth)
    boxes = {thing.id: thing.box for thing in scene.things} | {other.id: other.head for other in scene.people}
    return _Habit(
        sway=(dice.uniform(-0.025, 0.025), dice.uniform(-0.008, 0.008)),
        period=dice.uniform(24, 60),
        turn=dice.uniform(0.6, 0.9),
        hold=dice.integer(*KEEP),
        target=target,
        offset=_offset(target, boxes),
    )


def _swayed(before: Person, start: Person, habit: _Habit, frame: int) -> Person:
    """The person of the frame before, moved on about where they started."""
    swing = math.sin(2 * math.pi * frame / habit.period)
    x, y = start.x + habit.sway[0] * swing, start.y + habit.sway[1] * swing
    return replace(before, x=grid(max(0.06, min(0.94, x))), y=grid(y))


def _carried(thing: Thing, moves: dict[int, Point], aspect: float) -> Thing:
    if not thing.holder:
        return thing
    dx, dy = moves[thing.holder]
    return measured(replace(thing, x=grid(thing.x + dx), y=grid(thing.y + dy)), aspect)


def _offset(target: Target, boxes: dict[int, Box]) -> Point:
    """Where on its target a gaze rests, from the middle of the target's box."""
    left, top, right, bottom = boxes.get(target.id, (0.0, 0.0, 0.0, 0.0))
    return target.point[0] - (left + right) / 2, target.point[1] - (top + bottom) / 2


def _followed(habit: _Habit, boxes: dict[int, Box]) -> Target:
    """The target where it is now."""
    left, top, right, bottom = boxes.get(habit.target.id, (0.0, 0.0, 0.0, 0.0))
    return replace(habit.target, point=((left + right) / 2 + habit.offset[0], (top + bottom) / 2 + habit.offset[1]))


def _turned(person: Person, target: Target, salient: Box, aspect: float, turn: float) -> Person:
    """The person with the eyes on the target and the head on its way there."""
    goal = aimed(person, target, salient, aspect, turn)
    # Bodies face the viewer, so heads turn past the front: yaws are mixed as they are, not the short way round.
    lead = (
        person.head_yaw + PACE * (goal.head_yaw - person.head_yaw),
        person.head_pitch + PACE * (goal.head_pitch - person.head_pitch),
    )
    return sized(aimed(person, target, salient, aspect, turn, lead), aspect)
