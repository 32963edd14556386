"""Cost of more people in an image, method by method: ``python benchmarks/people.py``.

One image with 1, 5, 10 and 15 people through each method at evaluation, and a training step, with random weights of the
embedded backbones, all taking turns in one process. OmniGF writes every person's answer, or (``anchors``) none. With
``--operations``, multiplications and additions of one pass of the systems of ``docs/peers.md``, as published.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from gazebench.core.types import Batch, Targets
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method
from gazebench.methods.chong import Chong
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.omnigf import OmniGF
from gazebench.methods.pdp import PDP
from gazebench.methods.sharingan import Sharingan

COUNTS = (1, 5, 10, 15)
TRUNKS = {"width": 16, "blocks": (1, 1, 1, 1, 1)}
OMNIGF = {"backbone": "tiny", "compute_dtype": "float32", "image_size": 160, "picture_size": 224, "head_net": "small",
          "head_size": 64, "decoder_width": 64}  # fmt: skip
METHODS: dict[str, Callable[[], Method]] = {
    "Gaze-LLE": lambda: GazeLLE(backbone="tiny", backbone_weights="random", dim=128, layers=2, heads=4),
    "HCLoRA": lambda: HCLoRA(backbone="tiny", backbone_weights="random", dim=128, layers=2, heads=4, rank=16,
                             adapted_blocks=2),
    "OmniGF": lambda: OmniGF(backbone_weights="random", **OMNIGF),
    "OmniGF, anchors": lambda: OmniGF(backbone_weights="random", decode="anchors", **OMNIGF),
    "Chong et al.": lambda: Chong(**TRUNKS),
    "PDP, without depth": lambda: PDP(depth=False, **TRUNKS),
    "Sharingan": lambda: Sharingan(width=96, depth=4, heads=4, decoder_width=32, channels=16),
}  # fmt: skip

PUBLISHED: dict[str, Callable[[], Method]] = {
    "Chong et al.": Chong, "Chong et al., clips": lambda: Chong(temporal=True), "PDP": PDP,
    "PDP, clips": lambda: PDP(temporal=True), "Sharingan": Sharingan,
}  # fmt: skip


def noise(people: int, seen: Preprocess) -> Batch:
    """An image of noise with everybody in frame."""
    generator = torch.Generator().manual_seed(0)
    low, point = torch.rand(people, 2, generator=generator) * 0.8, torch.rand(people, 2, generator=generator)
    targets = Targets(point, torch.ones(people, dtype=torch.long), point.double(), torch.arange(people))
    crops = None if seen.heads is None else torch.zeros(people, 3, seen.heads.side, seen.heads.side, dtype=torch.uint8)
    return Batch(
        torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=generator),
        torch.zeros(people, dtype=torch.long), torch.cat([low, low + 0.15], 1), [f"{i}" for i in range(people)],
        ["0"], torch.full((1, 2), 224), targets, heads=crops, depth=torch.zeros(1, 224, 224) if seen.depth else None,
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


def operations() -> None:
    """Prints parameters and billions of multiplications and additions of one pass with one and with ten people."""
    rows = []
    for name, build in PUBLISHED.items():
        method, counted = build().eval(), []
        for people in (1, 10):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                method(noise(people, method.preprocess()))
            counted.append(counter.get_total_flops() / 1e9)
        size = sum(parameter.numel() for parameter in method.parameters()) / 1e6
        rows.append([name, f"{size:.1f}", *(f"{each:.0f}" for each in counted), f"{counted[1] / counted[0]:.1f}"])
    headers = ["method", "parameters, millions", "1 person, GFLOP", "10 people, GFLOP", "ratio"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def main() -> None:
    """Prints medians, in milliseconds and against the same method's with one person."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", action="store_true")
    parser.add_argument("--only", default="", help="methods whose names hold this")
    given = parser.parse_args()
    if given.operations:
        operations()
        return
    rounds = given.rounds
    torch.manual_seed(0)
    methods = {name: build() for name, build in METHODS.items() if given.only in name}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for train in (False, True):
        timed = {name: method for name, method in methods.items() if not (train and "anchors" in name)}
        taken: dict[tuple[str, int], list[float]] = {}
        for turn in range(rounds + 1):
            for name, method in timed.items():
                for count in COUNTS:
                    spent = seconds(method, noise(count, method.preprocess()), train)
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
