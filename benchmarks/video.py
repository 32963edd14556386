"""Speed and memory of ``gazebench video`` on this machine: `python benchmarks/video.py RUN [FRAMES] [--detect]`.

Draws a clip of three people of 1280 x 720 and looks at it twice as long the second time: what stays in memory per frame
is the difference of the peaks. Heads are given, found by CenterFace with --detect.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, PEOPLE = 1280, 720, 3


def heads(frame: int) -> np.ndarray:
    left = 0.1 + 0.3 * np.arange(PEOPLE) + 0.05 * np.sin(frame / 20 + np.arange(PEOPLE))
    return np.stack([left, np.full(PEOPLE, 0.2), left + 0.1, np.full(PEOPLE, 0.4)], axis=1)


def draw(path: Path, frames: int) -> None:
    from gazebench.data.video import VideoWriter

    scene = np.random.default_rng(0).integers(0, 255, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8)
    scene = scene.repeat(40, axis=0).repeat(40, axis=1)
    with VideoWriter(path, WIDTH, HEIGHT) as video:
        for number in range(frames):
            picture = scene.copy()
            for x0, y0, x1, y1 in (heads(number) * np.tile((WIDTH, HEIGHT), 2)).astype(int):
                picture[y0:y1, x0:x1] = (225, 180, 150)
            video.write(picture, number / 25)


def measure(path: Path, weights: str, detect: bool, out: Path) -> None:
    import gazebench
    from gazebench.engine.video import analyse_video
    from gazebench.report.video import save_overlay

    model = gazebench.load(weights)
    boxes = None if detect else lambda name, width, height: (heads(int(name)), None)
    start = time.perf_counter()
    result = analyse_video(path, model, out, boxes=boxes)
    predicted = time.perf_counter()
    save_overlay(result, out / "overlay.mp4")
    frames, cpu = result.summary["processed"], sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{frames:,} frames, {len(result.summary['tracks'])} tracks: {frames / (predicted - start):.1f} frames/s, "
        f"overlay {frames / (time.perf_counter() - predicted):.1f} frames/s, "
        f"{1000 * cpu / frames:.0f} ms of processor time a frame in all, peak {peak:,.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="of gazebench.load")
    parser.add_argument("frames", type=int, nargs="?", default=2000)
    parser.add_argument("--detect", action="store_true")
    parser.add_argument("--one", type=Path, help="measure this clip (for the script's own use)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.one:
            measure(options.one, options.weights, options.detect, Path(folder))
            return
        for frames in (options.frames // 2, options.frames):
            path = Path(folder) / f"{frames}.mp4"
            draw(path, frames)
            command = [sys.executable, __file__, options.weights, "--one", str(path)]
            subprocess.run([*command, *(["--detect"] if options.detect else [])], check=True)


if __name__ == "__main__":
    main()
