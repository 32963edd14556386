"""AUC: ours against the straightforward scikit-learn version, side by side in one process.

python benchmarks/auc.py
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import statistics
import time
import tracemalloc

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from tabulate import tabulate

from gazebench.metrics.spatial import auc_points, auc_rectangle


def median_ms(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def peak_bytes(work):
    """NumPy's allocations at their highest; torch's output, the resized map itself, is added by the caller."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def straightforward(heatmap, points, width, height):
    truth = np.zeros((height, width))
    for x, y in points:
        truth[min(int(y * height), height - 1), min(int(x * width), width - 1)] = 1
    resized = F.interpolate(heatmap[None, None], (height, width), mode="bilinear", align_corners=False)
    return roc_auc_score(truth.ravel(), resized.numpy().ravel())


def main():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    bell = torch.tensor(np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 50), dtype=torch.float32)
    rows = []
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        for width, height in ((640, 480), (1280, 720)):
            for name, heatmap in (("noise", torch.rand(64, 64)), ("Gaussian", bell)):
                points = rng.random((10, 2))
                difference = abs(
                    auc_points(heatmap, points, width, height) - straightforward(heatmap, points, width, height)
                )
                ours = median_ms(lambda h=heatmap, p=points, w=width, v=height: auc_points(h, p, w, v), 50)
                theirs = median_ms(lambda h=heatmap, p=points, w=width, v=height: straightforward(h, p, w, v), 7)
                memory = 1 + peak_bytes(lambda h=heatmap, p=points, w=width, v=height: auc_points(h, p, w, v)) / (
                    4 * width * height
                )
                rows.append([f"GazeFollow {width}x{height}, {name}", threads, theirs, ours, theirs / ours, difference,
                             f"{memory:.2f} maps"])  # fmt: skip
    heatmaps, points = torch.rand(256, 64, 64), torch.rand(256, 2, dtype=torch.float64)
    truth = np.zeros((256, 64, 64))
    for one, (px, py) in zip(truth, points.tolist(), strict=True):
        one[
            max(0, int(py * 64 - 9)) : min(int(py * 64 + 10), 63), max(0, int(px * 64 - 9)) : min(int(px * 64 + 10), 63)
        ] = 1
    ours = median_ms(lambda: auc_rectangle(heatmaps, points), 20)

    def loop():
        return [roc_auc_score(t.ravel(), h.ravel()) for t, h in zip(truth, heatmaps.numpy(), strict=True)]

    theirs = median_ms(loop, 3)
    difference = np.abs(auc_rectangle(heatmaps, points)[0].numpy() - loop()).max()
    rows.append(["VAT, 256 people", torch.get_num_threads(), theirs, ours, theirs / ours, difference, ""])
    headers = ["AUC", "threads", "scikit-learn ms", "ours ms", "ratio", "difference", "peak memory"]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=("", "", ".1f", ".2f", ".0f", ".0e", "")))


if __name__ == "__main__":
    main()
