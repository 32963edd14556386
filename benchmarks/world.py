"""Statistics of GazeWorld's scenes, and the time to make one.

    python benchmarks/world.py [version [scenes [sheet.png]]]

How much head and scene tell is measured by three guesses that need no training. ``salient`` is the middle of the
salient thing. The others know the true direction of the gaze in the image up to a normal error of ``DIRECTION_ERROR``
degrees: ``head`` goes the share of the way to the edge of the image that is best on these people; ``both`` weighs
things and heads by their direction and by how often their kind is looked at, and takes the one with the least expected
error.

The sheet shows up to 24 scenes with their truth: heads, gazes and annotations (green: consistent, red: inconsistent,
blue: outside) and the salient box (yellow).
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.annotators import annotate
from gazebench.datasets.gazeworld.clip import clip
from gazebench.datasets.gazeworld.compose import compose, covered, torso
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import WORLD_VERSION, Scene, World


def milliseconds(call: Callable[[Any], Any], items: Sequence[Any]) -> float:
    times = []
    for item in items:
        start = time.perf_counter()
        call(item)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def statistics(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Statistics of scenes, and errors of predictions that ignore the eyes; lengths and errors are normalised."""
    people = [(scene, person) for scene in scenes for person in scene.people]
    seen = [(scene, person) for scene, person in people if person.inout]
    gaze, eye = (np.array([getattr(person, name) for _, person in seen]) for name in ("gaze", "eye"))
    miss = np.linalg.norm(gaze - np.array([scene.find(scene.salient).centre for scene, _ in seen]), axis=1)
    subset = np.array([person.subset for _, person in seen])
    heads = [person.head[3] - person.head[1] for _, person in people]
    yaw = np.array([abs(person.head_yaw) for _, person in people])
    kinds = Counter(person.target_kind for _, person in people)
    quantiles = (0.05, 0.5, 0.95)
    return {
        "people_per_scene": len(people) / len(scenes),
        "things_per_scene": float(np.mean([len(scene.things) for scene in scenes])),
        "in_frame": len(seen) / len(people),
        "consistent": float((subset == "consistent").mean()),
        "head_height": np.quantile(heads, quantiles).tolist(),
        "target_distance": np.quantile(np.linalg.norm(gaze - eye, axis=1), quantiles).tolist(),
        "averted": float((yaw > 100).mean()),
        "frontal": float((yaw < 35).mean()),
        "centre_l2": float(np.linalg.norm(gaze - 0.5, axis=1).mean()),
        "salient_l2": {name: float(miss[subset == name].mean()) for name in np.unique(subset).tolist()},
        "targets": {kind: count / len(people) for kind, count in kinds.items()},
        "hidden": hidden(scenes),
        "guesses_l2": guesses(scenes),
    }


DIRECTION_ERROR = 8.0
"""The shipped head encoder (``scripts/pretrain_head.py``) has a median error of 4.3 degrees, a sigma of 6.4."""


def guesses(scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """The mean normalised distance of the guesses to the gaze, of everybody who looks into the image, and by subset."""
    rng = np.random.default_rng(0)
    seen = [(scene, person) for scene in scenes for person in scene.people if person.inout]
    gaze, eye = (np.array([getattr(person, name) for _, person in seen]) for name in ("gaze", "eye"))
    wide = np.array([[scene.aspect, 1.0] for scene, _ in seen])
    ray = (gaze - eye) * wide
    angle = np.arctan2(ray[:, 1], ray[:, 0]) + np.radians(rng.normal(0, DIRECTION_ERROR, len(seen)))
    step = np.stack([np.cos(angle), np.sin(angle)], 1) / wide
    with np.errstate(divide="ignore"):
        edge = np.where(step > 0, (1 - eye) / step, -eye / step).min(1, keepdims=True).clip(0)
    found = {
        "salient": np.array([scene.find(scene.salient).centre for scene, _ in seen]),
        "head": min(
            (eye + share * edge * step for share in np.linspace(0.3, 1, 29)),
            key=lambda points: float(np.linalg.norm(points - gaze, axis=1).mean()),
        ),
    }
    kinds = Counter("salient" if p.target_id == s.salient else p.target_kind for s, p in seen)
    offered = Counter[str]()
    for scene, _ in seen:
        offered.update({"salient": 1, "thing": len(scene.things) - 1, "person": len(scene.people) - 1})
    both = []
    for (scene, person), at in zip(seen, angle, strict=True):
        places = [("salient" if t.id == scene.salient else "thing", t.centre) for t in scene.things]
        places += [("person", (other.x, other.y)) for other in scene.people if other is not person]
        points = np.array([place for _, place in places])
        off = np.arctan2(points[:, 1] - person.eye[1], (points[:, 0] - person.eye[0]) * scene.aspect) - at
        off = np.degrees((off + np.pi) % (2 * np.pi) - np.pi)
        usual = np.array([kinds[kind] / offered[kind] for kind, _ in places])
        weight = usual * np.exp(-((off / DIRECTION_ERROR) ** 2) / 2)
        expected = np.linalg.norm(points[:, None] - points, axis=2) @ weight
        both.append(points[expected.argmin()])
    found["both"] = np.array(both)
    subset = np.array([person.subset for _, person in seen])
    groups = {"everybody": subset != "", **{name: subset == name for name in np.unique(subset).tolist()}}
    missed = {name: np.linalg.norm(points - gaze, axis=1) for name, points in found.items()}
    return {name: {group: float(miss[mask].mean()) for group, mask in groups.items()} for name, miss in missed.items()}


def hidden(scenes: Sequence[Scene]) -> float:
    """The share of people a tenth of whose head is hidden, or whose eyes are behind dark glasses."""
    count = 0
    for scene in scenes:
        for person in scene.people:
            nearer = [thing.box for thing in scene.things if thing.depth < person.depth and thing.holder != person.id]
            nearer += [other.head for other in scene.people if other.depth < person.depth]
            nearer += [torso(other) for other in scene.people if other.depth < person.depth]
            count += covered(person.head, *nearer) > 0.1 or person.look.glasses == "dark"
    return count / sum(len(scene.people) for scene in scenes)


def contact_sheet(scenes: Sequence[Scene], columns: int = 4, height: int = 224) -> Image.Image:
    width, gap = round(height * max(scene.aspect for scene in scenes)), 6
    sheet = Image.new("RGB", (columns * (width + gap), -(-len(scenes) // columns) * (height + gap)), "white")
    for k, scene in enumerate(scenes):
        size = (round(height * scene.aspect), height)
        image = Image.fromarray(draw(scene, *size))
        brush = ImageDraw.Draw(image)
        brush.rectangle((np.array(scene.salient_box) * (size * 2)).tolist(), outline=(250, 190, 40), width=2)
        for person in scene.people:
            colour = {"consistent": (24, 140, 92), "inconsistent": (214, 52, 66), "": (74, 92, 190)}[person.subset]
            brush.rectangle((np.array(person.head) * (size * 2)).tolist(), outline=colour, width=2)
            brush.line((np.array([person.eye, person.gaze]) * size).ravel().tolist(), fill=colour, width=2)
            for point in annotate(scene, person):
                brush.circle((point * size).tolist(), 2, fill=colour, outline="white")
        sheet.paste(image, (k % columns * (width + gap), k // columns * (height + gap)))
    return sheet


def main(version: World = WORLD_VERSION, count: int = 200, sheet: Path | None = None) -> None:
    scenes = [compose(0, index, "train", version) for index in range(count)]
    rows = {"compose": milliseconds(lambda index: compose(0, index, "train", version), range(count))}
    for height in (224, 448):
        for mask in (False, True):
            name = f"draw {height} px" + (" with ids" if mask else "")
            rows[name] = milliseconds(lambda s: draw(s, round(height * s.aspect), height, mask), scenes)  # noqa: B023
    rows["annotate x10, per scene"] = milliseconds(lambda s: [annotate(s, p, 10) for p in s.people], scenes)
    rows["clip, per frame"] = milliseconds(lambda index: clip(0, index, "train", 16, version), range(8)) / 16
    print(f"{'median of ' + str(count) + ' scenes':28} {'ms':>8} {'/ compose':>10}")
    for name, value in rows.items():
        print(f"{name:28} {value:8.2f} {value / rows['compose']:10.2f}")
    print("scene 0:", hashlib.sha256(scenes[0].to_json().encode()).hexdigest()[:16])
    print("image 0:", hashlib.sha256(draw(scenes[0], 300, 224).tobytes()).hexdigest()[:16])
    print(json.dumps(statistics(scenes), indent=1))
    if sheet:
        contact_sheet(scenes[:24]).save(sheet)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(Path, sys.argv[3:4]))  # type: ignore[arg-type]
