"""Cost of more people in an image, method by method: ``python benchmarks/people.py``.

One image with 1, 5 and 15 people through each method at evaluation, and a training step, with random weights of the
embedded backbones, all taking turns in one process. OmniGF writes every person's answer, or (``anchors``) none.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tabulate import tabulate

from gazebench.core.types import Batch, Targets
from gazebench.engine.method import Method
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.omnigf import OmniGF

COUNTS = (1, 5, 15)
OMNIGF = {"backbone": "tiny", "compute_dtype": "float32", "image_size": 160, "picture_size": 224, "head_net": "small",
          "head_size": 64, "decoder_width": 64}  # fmt: skip
METHODS: dict[str, Callable[[], Method]] = {
    "Gaze-LLE": lambda: GazeLLE(backbone="tiny", backbone_weights="random", dim=128, layers=2, heads=4),
    "HCLoRA": lambda: HCLoRA(backbone="tiny", backbone_weights="random", dim=128, layers=2, heads=4, rank=16,
                             adapted_blocks=2),
    "OmniGF": lambda: OmniGF(backbone_weights="random", **OMNIGF),
    "OmniGF, anchors": lambda: OmniGF(backbone_weights="random", decode="anchors", **OMNIGF),
}  # fmt: skip


def noise(people: int) -> Batch:
    """An image of noise with everybody in frame."""
    generator = torch.Generator().manual_seed(0)
    low, point = torch.rand(people, 2, generator=generator) * 0.8, torch.rand(people, 2, generator=generator)
    targets = Targets(point, torch.ones(people, dtype=torch.long), point.double(), torch.arange(people))
    return Batch(
        torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=generator),
        torch.zeros(people, dtype=torch.long), torch.cat([low, low + 0.15], 1), [f"{i}" for i in range(people)],
        ["0"], torch.full((1, 2), 224), targets,
    )  # fmt: skip


def seconds(method: Method, some: Batch, train: bool) -> float:
    """Seconds of one pass, or of one step's forward and backward."""
    method.train(train)
    begun = time.perf_counter()
    if train:
        torch.stack(list(method.loss(some).values())).sum().backward()
    else:
        with torch.no_grad():
            method(some)
    return time.perf_counter() - begun


def main() -> None:
    """Prints medians, in milliseconds and against the same method's with one person."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    methods = {name: build() for name, build in METHODS.items()}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for train in (False, True):
        timed = {name: method for name, method in methods.items() if not (train and "anchors" in name)}
        taken: dict[tuple[str, int], list[float]] = {}
        for turn in range(rounds + 1):
            for name, method in timed.items():
                for count in COUNTS:
                    spent = seconds(method, noise(count), train)
                    if turn:  # the first warms up
                        taken.setdefault((name, count), []).append(spent)
        rows = []
        for name in timed:
            medians = [1000 * sorted(taken[name, count])[rounds // 2] for count in COUNTS]
            more = (medians[-1] - medians[0]) / (COUNTS[-1] - COUNTS[0]) / medians[0]
            rows.append([name, *(f"{each:.0f} ({each / medians[0]:.1f} x)" for each in medians), f"{more:.2f}"])
        headers = ["training step" if train else "inference", *(f"{count} people, ms" for count in COUNTS), "one more"]
        print("\n" + tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True), flush=True)


if __name__ == "__main__":
    main()
