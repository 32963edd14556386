"""Time to load the full VideoAttentionTarget label set, the first time and from the cache.

A synthetic set of the official size (1,331 track files, 164,541 rows, 71,634 frames as empty files) is written to a
temporary folder first. Run: python benchmarks/annotations.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from gazebench.datasets.vat import VAT

OFFICIAL = {"train": (1033, 132563, 58507, 40), "test": (298, 31978, 13127, 10)}
"""Tracks, rows, frames and shows of each part."""


def write(root: Path) -> None:
    rng = np.random.default_rng(0)
    for part, (tracks, rows, frames, shows) in OFFICIAL.items():
        clips = tracks // 3 + (tracks % 3 > 0)
        lengths = [len(chunk) for chunk in np.array_split(np.arange(frames), clips)]
        share = [len(chunk) for chunk in np.array_split(np.arange(rows), tracks)]
        for clip, length in enumerate(lengths):
            show = f"{part.title()} Show {clip % shows}"
            start = 1000 * clip
            images = root / "images" / show / f"{start}_{start + length}"
            images.mkdir(parents=True)
            for frame in range(length):
                (images / f"{start + frame:08d}.jpg").touch()
            labels = root / "annotations" / part / show / images.name
            labels.mkdir(parents=True)
            for track, count in enumerate(share[3 * clip : 3 * clip + 3]):
                boxes = rng.integers(0, 1000, (min(count, length), 6))
                boxes[:, 2:4] += boxes[:, :2] + 1
                boxes[rng.random(len(boxes)) < 1 / 3, 4:] = -1
                lines = [f"{start + f:08d}.jpg,{','.join(map(str, box))}" for f, box in enumerate(boxes.tolist())]
                (labels / f"s{track:02d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(root: Path) -> tuple[float, int]:
    start = time.perf_counter()
    dataset = VAT(root)
    people = sum(dataset.records(split).people for split in ("trainval", "test"))
    return time.perf_counter() - start, people


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GAZEBENCH_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "vat"
        write(root)
        first, people = load(root)
        again = statistics.median(load(root)[0] for _ in range(5))
        size = sum(file.stat().st_size for file in (Path(folder) / "cache").iterdir()) / 2**20
    print("| VideoAttentionTarget, both parts | seconds | ratio |\n| --- | --- | --- |")
    print(f"| first time ({people:,} people) | {first:.2f} | 1 |")
    print(f"| from the cache ({size:.0f} MiB) | {again:.2f} | {again / first:.2f} |")


if __name__ == "__main__":
    main()
