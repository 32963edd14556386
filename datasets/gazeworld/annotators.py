"""Annotations of a scene: the points that noisy annotators mark, and who looks at whom."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import numpy.typing as npt

from gazebench.datasets.gazeworld.canvas import Point
from gazebench.datasets.gazeworld.rng import Rng, grid
from gazebench.datasets.gazeworld.scene import Person, Scene

DOUBTFUL = 0.4
"""The share of people whose target is hard to tell."""
ELSEWHERE = {False: 0.1, True: 0.3}
"""The share of annotations on another plausible target near the line of sight, by whether the true one is doubtful."""
SPREAD = {False: 0.014, True: 0.024}
"""The normalised deviation of an annotation, to which the size of the target adds."""


def annotate(scene: Scene, person: Person, count: int = 10) -> npt.NDArray[np.float64]:
    """(count, 2) normalised points that annotators might mark for a person; (0, 2) if the person looks outside.

    Most mark the target, with a spread that grows with its size. Some take another thing or head near the line of
    sight, or the wrong depth on it, and more do so for people whose target is hard to tell. The shares are calibrated
    on the spread of GazeFollow's test annotations. The points depend on scene and person alone.
    """
    if not person.inout:
        return np.zeros((0, 2))
    rng = Rng("annotators", scene.version, scene.seed, scene.split, scene.index, scene.frame, person.id)
    others = _plausible(scene, person)
    # An empty spot has no box: it counts as 0.12 of the image's width and height.
    left, top, right, bottom = scene.boxes().get(person.target_id, (0.0, 0.0, 0.12, 0.12))
    doubtful = rng.chance(DOUBTFUL)
    sigma = [SPREAD[doubtful] + 0.1 * side for side in (right - left, bottom - top)]
    points = []
    for _ in range(count):
        centre = person.gaze
        if rng.chance(ELSEWHERE[doubtful]):
            centre = rng.weighted(others) if others and rng.chance(0.8) else _along(person, rng.uniform(0.45, 1.5))
        point = [value + rng.normal(s) for value, s in zip(centre, sigma, strict=True)]
        points.append([grid(min(1 - 1 / 512, max(0.0, value))) for value in point])
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _along(person: Person, share: float) -> Point:
    """A point on the line of sight, at a ``share`` of the way to the target."""
    (x0, y0), (x1, y1) = person.eye, person.gaze
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def _plausible(scene: Scene, person: Person) -> dict[Point, float]:
    """Other things and heads, weighted by how near to the line of sight they are."""
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


def social(scene: Scene) -> dict[str, npt.NDArray[np.int8]]:
    """Who looks at whom: (N,) 1 or 0 for each pair (i, j) of ``itertools.permutations(scene.people, 2)``.

    Returns:
        ``lah``: j looks at the head of i. ``laeo``: they look at each other. ``sa``: both look at the same thing, or at
        the head of the same third person; empty spots and what is outside the image are never shared.
    """
    pairs = list(permutations(scene.people, 2))
    labels = {
        "lah": [j.target_id == i.id for i, j in pairs],
        "laeo": [j.target_id == i.id and i.target_id == j.id for i, j in pairs],
        "sa": [i.target_id == j.target_id != 0 for i, j in pairs],
    }
    return {name: np.array(values, dtype=np.int8) for name, values in labels.items()}
