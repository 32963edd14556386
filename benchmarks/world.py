"""How fast GazeWorld makes a scene, and what it makes: python benchmarks/world.py [scenes]."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gazebench.datasets.gazeworld.annotators import annotate, statistics
from gazebench.datasets.gazeworld.clip import clip
from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.draw import draw


def milliseconds(call: Callable[[Any], Any], items: list[Any]) -> float:
    times = []
    for item in items:
        start = time.perf_counter()
        call(item)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main(count: int) -> None:
    scenes = [compose(0, index, "train") for index in range(count)]
    rows = {"compose": milliseconds(lambda index: compose(0, index, "train"), list(range(count)))}
    for height in (224, 448):
        for mask in (False, True):
            name = f"draw {height} px" + (" with ids" if mask else "")
            rows[name] = milliseconds(lambda s: draw(s, round(height * s.aspect), height, mask), scenes)  # noqa: B023
    rows["annotate x10, per scene"] = milliseconds(lambda s: [annotate(s, p, 10) for p in s.people], scenes)
    rows["clip, per frame"] = milliseconds(lambda index: clip(0, index, "train", 16), list(range(8))) / 16
    print(f"{'median of ' + str(count) + ' scenes':28} {'ms':>8} {'/ compose':>10}")
    for name, value in rows.items():
        print(f"{name:28} {value:8.2f} {value / rows['compose']:10.2f}")
    print("scene 0:", hashlib.sha256(scenes[0].to_json().encode()).hexdigest()[:16])
    print("picture 0:", hashlib.sha256(draw(scenes[0], 300, 224).tobytes()).hexdigest()[:16])
    print(json.dumps(statistics(scenes), indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
