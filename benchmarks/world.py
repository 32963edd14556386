"""Time to make a scene of GazeWorld, and statistics of its scenes: ``python benchmarks/world.py [scenes] [sheet.png]``.

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
from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import Scene


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
    }


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


def main(count: int = 200, sheet: Path | None = None) -> None:
    scenes = [compose(0, index, "train") for index in range(count)]
    rows = {"compose": milliseconds(lambda index: compose(0, index, "train"), range(count))}
    for height in (224, 448):
        for mask in (False, True):
            name = f"draw {height} px" + (" with ids" if mask else "")
            rows[name] = milliseconds(lambda s: draw(s, round(height * s.aspect), height, mask), scenes)  # noqa: B023
    rows["annotate x10, per scene"] = milliseconds(lambda s: [annotate(s, p, 10) for p in s.people], scenes)
    rows["clip, per frame"] = milliseconds(lambda index: clip(0, index, "train", 16), range(8)) / 16
    print(f"{'median of ' + str(count) + ' scenes':28} {'ms':>8} {'/ compose':>10}")
    for name, value in rows.items():
        print(f"{name:28} {value:8.2f} {value / rows['compose']:10.2f}")
    print("scene 0:", hashlib.sha256(scenes[0].to_json().encode()).hexdigest()[:16])
    print("image 0:", hashlib.sha256(draw(scenes[0], 300, 224).tobytes()).hexdigest()[:16])
    print(json.dumps(statistics(scenes), indent=1))
    if sheet:
        contact_sheet(scenes[:24]).save(sheet)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(Path, sys.argv[2:3]))
