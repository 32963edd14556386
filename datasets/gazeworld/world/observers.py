"""What people say of a scene: noisy annotators, and the figures of an observer who never looks at eyes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gazebench.datasets.gazeworld.world.dice import Dice, grid, seeded
from gazebench.datasets.gazeworld.world.pen import Point
from gazebench.datasets.gazeworld.world.scene import Person, Scene

DOUBTFUL = 0.4
"""Share of people whose target is hard to tell."""
ELSEWHERE = {False: 0.1, True: 0.3}
"""Share of annotations on another plausible target near the ray, by whether the target is hard to tell."""
SPREAD = {False: 0.014, True: 0.024}
"""Deviation of an annotation, normalised, besides what the size of the target adds."""


def annotate(
    scene: Scene, person: Person, count: int = 10, rng: np.random.Generator | None = None
) -> npt.NDArray[np.float64]:
    """(count, 2) normalised points that many annotators might mark for a person, all within the picture.

    Most mark the target with a spread that grows with its size; a share takes another thing or head that lies near
    the line of sight, or the wrong depth on it, and does so more often for the people whose target is hard to tell.
    Calibrated on the spread of GazeFollow's test annotations.

    Without ``rng`` the points are a function of scene and person alone. (0, 2) for who looks outside.
    """
    if not person.inout:
        return np.zeros((0, 2))
    dice = Dice(
        rng or seeded("annotators", scene.version, scene.seed, scene.split, scene.index, scene.frame, person.id)
    )
    others = _plausible(scene, person)
    wide, tall = _extent(scene, person)
    doubtful = dice.chance(DOUBTFUL)
    spread = SPREAD[doubtful]
    points = []
    for _ in range(count):
        x, y = person.gaze
        if dice.chance(ELSEWHERE[doubtful]):
            x, y = dice.weigh(others) if others and dice.chance(0.8) else _along(person, dice.uniform(0.45, 1.5))
        point = (x + dice.bell(spread + 0.1 * wide), y + dice.bell(spread + 0.1 * tall))
        points.append([grid(min(1 - 1 / 512, max(0.0, value))) for value in point])
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _along(person: Person, share: float) -> Point:
    """A point on the line of sight, ``share`` of the way to the target."""
    return (
        person.eye[0] + share * (person.gaze[0] - person.eye[0]),
        person.eye[1] + share * (person.gaze[1] - person.eye[1]),
    )


def _plausible(scene: Scene, person: Person) -> dict[Point, float]:
    """Other things and heads, weighed by how near to the line of sight they are."""
    places = {thing.id: thing.centre for thing in scene.things}
    places |= {other.id: (other.x, other.y) for other in scene.people if other.id != person.id}
    places.pop(person.target_id, None)
    right = _bearing(scene, person, person.gaze)
    weights = {}
    for point in places.values():
        off = abs((_bearing(scene, person, point) - right + 180) % 360 - 180)
        if off < 40:
            weights[point] = grid(math.exp(-((off / 16) ** 2)))
    return weights if sum(weights.values()) > 0 else {}


def _bearing(scene: Scene, person: Person, point: Point) -> float:
    return math.degrees(math.atan2(point[1] - person.eye[1], (point[0] - person.eye[0]) * scene.aspect))


def _extent(scene: Scene, person: Person) -> tuple[float, float]:
    """Width and height of what a person looks at; of nothing, what an empty spot is thought to be."""
    boxes = {thing.id: thing.box for thing in scene.things} | {other.id: other.head for other in scene.people}
    left, top, right, bottom = boxes.get(person.target_id, (0.0, 0.0, 0.12, 0.12))
    return right - left, bottom - top


def statistics(scenes: Iterable[Scene]) -> dict[str, Any]:
    """What a world is like, and how far an observer gets who never looks at eyes.

    Returns:
        Shares of people in frame and, of those, consistent; means per scene; quantiles (.05, .5, .95) of head height
        and of the distance from eye to target; mean L2 to the gaze of betting on the centre of the picture and, by
        subset, on the centre of the salient box; shares of target kinds. All normalised.
    """
    scenes = list(scenes)
    people = [(scene, person) for scene in scenes for person in scene.people]
    seen = [(scene, person) for scene, person in people if person.inout]
    gaze = np.array([person.gaze for _, person in seen])
    eye = np.array([person.eye for _, person in seen])
    bet = np.array([scene.find(scene.salient).centre for scene, _ in seen])
    subset = np.array([person.subset for _, person in seen])
    heads = np.array([person.head[3] - person.head[1] for _, person in people])
    miss = np.linalg.norm(gaze - bet, axis=1)
    kinds = [person.target_kind for _, person in people]
    averted = np.array([abs(person.head_yaw) for _, person in people])
    quantiles = (0.05, 0.5, 0.95)
    return {
        "scenes": len(scenes),
        "people": len(people),
        "people_per_scene": len(people) / len(scenes),
        "things_per_scene": sum(len(scene.things) for scene in scenes) / len(scenes),
        "in_frame": len(seen) / len(people),
        "consistent": float((subset == "consistent").mean()),
        "head_height": np.quantile(heads, quantiles).tolist(),
        "target_distance": np.quantile(np.linalg.norm(gaze - eye, axis=1), quantiles).tolist(),
        "averted": float((averted > 100).mean()),
        "frontal": float((averted < 35).mean()),
        "centre_l2": float(np.linalg.norm(gaze - 0.5, axis=1).mean()),
        "salient_l2": {name: float(miss[subset == name].mean()) for name in np.unique(subset).tolist()},
        "targets": {kind: kinds.count(kind) / len(people) for kind in ("thing", "person", "void", "outside")},
    }
