"""Cost of one more person in a head-conditioned backbone: ``python benchmarks/adaptation.py``.

Random weights of the official size at 448 x 448, one image. Every row is a process of its own, so that its peak memory
is its own too. *naive* runs the whole backbone once a person, as the equations read; *ours* shares the blocks before
the first adapted one. Times are in passes of the bare backbone over one image, measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import timeit

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tabulate import tabulate

from gazebench.methods.hclora.adaptation import LocalAdaptation
from gazebench.nn.backbones import build_backbone

SIDE = 448


def fastest(call, repeats: int) -> float:
    """The fastest of some calls after a first one, in seconds."""
    return min(timeit.repeat(call, number=1, repeat=repeats + 1)[1:])


def peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(given: argparse.Namespace, kind: str, adapted: int, people: int, train: bool) -> dict[str, float]:
    """Passes of the bare backbone that a call takes, GiB beyond the model itself, and the backbone's depth."""
    torch.manual_seed(0)
    backbone = build_backbone(given.backbone, "random", compute_dtype=given.dtype)
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    low = torch.rand(people, 2) * 0.8
    head, image_index = torch.cat([low, low + 0.15], 1), torch.zeros(people, dtype=torch.long)
    depth = len(backbone.blocks)
    local = LocalAdaptation(backbone, blocks=adapted or depth).train(train)
    with torch.no_grad():
        bare = fastest(lambda: backbone(images[:1]), given.repeats)
    if kind == "naive":  # an image for every person
        images, image_index = images.expand(people, -1, -1, -1), torch.arange(people)

    def call() -> None:
        with torch.set_grad_enabled(train):
            features = local(backbone, images, head, image_index).features
            if train:
                features.square().mean().backward()

    before = peak()
    return {"passes": fastest(call, given.repeats) / bare, "gib": peak() - before, "depth": depth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_vitb14")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen weights")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer people and rows")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "ADAPTED", "PEOPLE", "TRAIN"), help="one row, as JSON")
    given = parser.parse_args()
    if given.one:
        kind, adapted, people, train = given.one
        print(json.dumps(measure(given, kind, int(adapted), int(people), train == "1")))
        return

    def apart(kind: str, adapted: int, people: int, train: bool) -> dict[str, float]:
        row = [kind, str(adapted), str(people), str(int(train))]
        command = [sys.executable, __file__, *sys.argv[1:], "--one", *row]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    depth = int(apart("ours", 1, 1, False)["depth"])
    for train in (False, True):
        counts = [1, 5] if given.quick or train else [1, 5, 20]
        rows = []
        for adapted in [depth // 3] if given.quick else [depth // 3, depth // 2, depth]:
            for kind in ("naive", "ours"):
                found = [apart(kind, adapted, count, train) for count in counts]
                cells = [f"{each['passes']:.2f} ({each['gib']:.2f} GiB)" for each in found]
                more = (found[-1]["passes"] - found[0]["passes"]) / (counts[-1] - counts[0])
                rows.append([kind, f"{adapted}/{depth}", *cells, f"{more:.2f}"])
        print(f"\n{given.backbone} at {SIDE}, {'training step' if train else 'inference'}, in backbone passes\n")
        headers = ["version", "adapted", *(f"{count} people" for count in counts), "one more"]
        print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True), flush=True)


if __name__ == "__main__":
    main()
