"""Clips: a scene in motion, with the truth of every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gazebench.datasets.gazeworld.canvas import Box, Point
from gazebench.datasets.gazeworld.compose import Target, aimed, choose, compose, with_box, with_boxes
from gazebench.datasets.gazeworld.rng import Rng, grid
from gazebench.datasets.gazeworld.scene import EMPTY, WORLD_VERSION, Person, Scene, Thing, World

HEAD_SPEED = 0.55
"""The share of the way to its goal that a head turns per frame; eyes are there at once."""
FRAMES_PER_GAZE = (6, 16)


@dataclass
class _Motion:
    """The motion of one person.

    ``sway`` swings sideways and up with a ``period`` in frames, ``turn`` is that of ``aimed``. ``hold``
    counts the frames that the gaze stays on its target, at ``offset`` from the middle of the target's box.
    """

    sway: Point
    period: float
    turn: float
    hold: int
    target: Target
    offset: Point


def clip(seed: int, index: int, split: str, frames: int, version: World = WORLD_VERSION) -> list[Scene]:
    """A number of frames with the same people and things (same ids); the first is ``compose`` of the same key.

    People sway, keep looking at a target for ``FRAMES_PER_GAZE`` frames, then choose another as ``compose`` does; the
    head follows the eyes. ``gaze``, ``subset`` and ``inout`` are those of the frame.
    """
    first = compose(seed, index, split, version)
    aspect = first.aspect
    rng = Rng("gazeworld clip", version, seed, split, index)
    motions = [_motion(rng, first, person) for person in first.people]
    scenes = [first]
    for frame in range(1, frames):
        last = zip(scenes[-1].people, first.people, motions, strict=True)
        people = [with_boxes(_swayed(*each, frame), aspect) for each in last]
        moves = {now.id: (now.x - start.x, now.y - start.y) for now, start in zip(people, first.people, strict=True)}
        things = tuple(_carried(thing, moves, aspect) for thing in first.things)
        scene = replace(first, frame=frame, people=tuple(people), things=things)
        boxes, looking = scene.boxes(), []
        for person, motion in zip(people, motions, strict=True):
            motion.hold -= 1
            if motion.hold <= 0:
                motion.target = choose(rng, person, people, things, aspect, version)
                motion.offset = _offset(motion.target, boxes)
                motion.hold = rng.integer(*FRAMES_PER_GAZE)
            looking.append(_turned(person, _followed(motion, boxes), scene.salient_box, aspect, motion.turn))
        scenes.append(replace(scene, people=tuple(looking)))
    return scenes


def _motion(rng: Rng, scene: Scene, person: Person) -> _Motion:
    target = Target(person.target_kind, person.target_id, person.target_category, person.gaze, person.target_depth)
    return _Motion(
        sway=(rng.uniform(-0.025, 0.025), rng.uniform(-0.008, 0.008)),
        period=rng.uniform(24, 60),
        turn=rng.uniform(0.6, 0.9),
        hold=rng.integer(*FRAMES_PER_GAZE),
        target=target,
        offset=_offset(target, scene.boxes()),
    )


def _swayed(before: Person, start: Person, motion: _Motion, frame: int) -> Person:
    """The person of the frame before, moved about the place where they started."""
    swing = math.sin(2 * math.pi * frame / motion.period)
    x, y = start.x + motion.sway[0] * swing, start.y + motion.sway[1] * swing
    return replace(before, x=grid(max(0.06, min(0.94, x))), y=grid(y))


def _carried(thing: Thing, moves: dict[int, Point], aspect: float) -> Thing:
    """The thing, moved along with the person who holds it."""
    if not thing.holder:
        return thing
    dx, dy = moves[thing.holder]
    return with_box(replace(thing, x=grid(thing.x + dx), y=grid(thing.y + dy)), aspect)


def _offset(target: Target, boxes: dict[int, Box]) -> Point:
    left, top, right, bottom = boxes.get(target.id, EMPTY)
    return target.point[0] - (left + right) / 2, target.point[1] - (top + bottom) / 2


def _followed(motion: _Motion, boxes: dict[int, Box]) -> Target:
    """The target at its present place."""
    left, top, right, bottom = boxes.get(motion.target.id, EMPTY)
    point = ((left + right) / 2 + motion.offset[0], (top + bottom) / 2 + motion.offset[1])
    return replace(motion.target, point=point)


def _turned(person: Person, target: Target, salient: Box, aspect: float, turn: float) -> Person:
    """The person with the eyes on the target and the head on its way there."""
    goal = aimed(person, target, salient, aspect, turn)
    # Bodies face the viewer, so heads turn by way of the front: yaws are mixed as they are, not the shorter way round.
    yaw = person.head_yaw + HEAD_SPEED * (goal.head_yaw - person.head_yaw)
    pitch = person.head_pitch + HEAD_SPEED * (goal.head_pitch - person.head_pitch)
    return with_boxes(aimed(person, target, salient, aspect, turn, (yaw, pitch)), aspect)
