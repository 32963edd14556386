"""What one more person costs a head-conditioned backbone: ``python benchmarks/adaptation.py``.

Random weights of the official size at 448 x 448, one picture. Every row is a process of its own, so that its peak
memory is its own too. *naive* runs the whole backbone once a person, as the equations read; *ours* shares the blocks
before the first adapted one. The cost of one more person is compared with a pass of the backbone over one picture in
the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tabulate import tabulate

from gazebench.methods.hclora.adaptation import LocalAdaptation
from gazebench.nn.backbones import ComputeDtype, build_backbone

SIDE = 448


def best(call, repeats: int) -> float:
    """The fastest of some calls, in seconds; the first one warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(
    backbone_name: str, dtype: ComputeDtype, kind: str, adapted: int, people: int, train: bool, repeats: int
) -> dict[str, float]:
    """Seconds of a call, of a bare backbone pass, and GiB beyond the model itself."""
    torch.manual_seed(0)
    backbone = build_backbone(backbone_name, "random", compute_dtype=dtype)
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    low = torch.rand(people, 2) * 0.8
    head, owner = torch.cat([low, low + 0.15], 1), torch.zeros(people, dtype=torch.long)
    depth = len(backbone.blocks)
    local = LocalAdaptation(backbone, blocks=adapted or depth).train(train)
    if kind == "naive":
        # A picture to every person, and every block counts as adapted (those that are not get no update).
        local.blocks = [0, *local.blocks] if local.blocks[0] else local.blocks
        images, owner = images.expand(people, -1, -1, -1), torch.arange(people)

    def call() -> None:
        if kind == "frozen":
            with torch.no_grad():
                backbone(images)
            return
        with torch.set_grad_enabled(train):
            features = local(backbone, images, head, owner).features
        if train:
            features.square().mean().backward()

    with torch.no_grad():
        bare = best(lambda: backbone(images[:1]), repeats)
    before = peak()
    seconds = best(call, repeats)
    return {"seconds": seconds, "bare": bare, "gib": peak() - before, "depth": depth}


def apart(*arguments: str) -> dict[str, float]:
    """``measure`` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_vitb14")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen weights")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer people and rows")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "ADAPTED", "PEOPLE", "TRAIN"), help="one row, as JSON")
    given = parser.parse_args()
    if given.one:
        kind, adapted, people, train = given.one
        print(
            json.dumps(
                measure(given.backbone, given.dtype, kind, int(adapted), int(people), train == "1", given.repeats)
            )
        )
        return
    common = ["--backbone", given.backbone, "--dtype", given.dtype, "--repeats", str(given.repeats)]
    counts = (1, 5) if given.quick else (1, 5, 20)
    depth = int(apart("frozen", "0", "1", "0", *common)["depth"])
    shares = sorted({depth // 3, depth // 2, depth} if not given.quick else {depth // 3})
    for train in ("0", "1"):
        few = [n for n in counts if train == "0" or n <= 5]
        rows = [
            ["frozen", "-", n, *figures(apart("frozen", "0", str(n), "0", *common))]
            for n in (few if train == "0" else [])
        ]
        for adapted in shares:
            for kind in ("naive", "ours"):
                found = {n: apart(kind, str(adapted), str(n), train, *common) for n in few}
                rows += [[kind, f"{adapted}/{depth}", n, *figures(found[n])] for n in few]
                first, last = found[few[0]], found[few[-1]]
                more = (last["seconds"] - first["seconds"]) / (few[-1] - few[0])
                bound = f"{adapted / depth + 0.1:.2f}" if kind == "ours" and train == "0" else "-"
                rows.append([kind, f"{adapted}/{depth}", "one more", "-", f"{more / last['bare']:.2f}", bound])
        print(
            f"\n{given.backbone} at {SIDE}, {'training step (forward and backward)' if train == '1' else 'inference'}\n"
        )
        headers = ["version", "adapted", "people", "GiB", "backbone passes", "at most"]
        print(tabulate(rows, headers=headers, tablefmt="github"), flush=True)


def figures(found: dict[str, float]) -> list[str]:
    """Peak memory beyond the model, and the time in passes of the bare backbone over one picture."""
    return [f"{found['gib']:.2f}", f"{found['seconds'] / found['bare']:.2f}", ""]


if __name__ == "__main__":
    main()
