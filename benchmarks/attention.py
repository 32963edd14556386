"""A training step with torch's fused attention and with the plain product: ``python benchmarks/attention.py``.

The recipe of the embedded backbone: 32 people in 12 pictures of 224 x 224, bfloat16, random weights.
"""

import time

import torch

from gazebench.methods.hclora import HCLoRA
from gazebench.types import Batch, Targets


def batch(people: int = 32, images: int = 12) -> Batch:
    """Noise, with everybody in frame."""
    generator = torch.Generator().manual_seed(0)
    low, point = torch.rand(people, 2, generator=generator) * 0.8, torch.rand(people, 2, generator=generator)
    ids = [f"{i}" for i in range(images)]
    targets = Targets(
        point, torch.ones(people, dtype=torch.long), point.double(), torch.arange(people), [""] * people
    )  # fmt: skip
    return Batch(
        torch.randint(0, 256, (images, 3, 224, 224), dtype=torch.uint8, generator=generator),
        (torch.arange(people) * images) // people, torch.cat([low, low + 0.15], 1), [f"{i}" for i in range(people)],
        ids, ids, torch.full((images, 2), 224), targets,
    )  # fmt: skip


def step(method: HCLoRA, some: Batch) -> float:
    """Seconds of forward and backward, the best of four."""
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            losses = method.loss(method(some), some)
        torch.stack(list(losses.values())).sum().backward()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> None:
    """Prints a line a row."""
    some = batch()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; seconds a step")
    print(f"{'row':10} {'fused':>7} {'plain':>7} {'ratio':>6}")
    for adaptation in ("frozen", "lora", "full", "hclora"):
        found = []
        for fused in (True, False):
            torch.manual_seed(0)
            method = HCLoRA(
                backbone="tiny", backbone_weights="random", adaptation=adaptation, dim=128, layers=2, heads=4, rank=16,
                supervision="ooc" if adaptation == "hclora" else "none", compute_dtype="bfloat16",
                adapted_blocks=2 if adaptation == "hclora" else 0, fused_attention=fused,
            )  # fmt: skip
            found.append(step(method.train(), some))
        print(f"{adaptation:10} {found[0]:7.3f} {found[1]:7.3f} {found[0] / found[1]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
