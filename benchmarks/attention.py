"""A training step in float32 and bfloat16, fused attention or plain product: ``python benchmarks/attention.py``.

The recipe of the embedded backbone: 8 people in 3 images of 224 x 224, random weights. Whether bfloat16 is fast
depends on the processor: it wants AMX or AVX512-BF16.
"""

import time

import torch

from gazebench.core.types import Batch, Targets
from gazebench.methods.hclora import HCLoRA


def batch(people: int = 8, images: int = 3) -> Batch:
    """Noise, with everybody in frame."""
    generator = torch.Generator().manual_seed(0)
    low, point = torch.rand(people, 2, generator=generator) * 0.8, torch.rand(people, 2, generator=generator)
    targets = Targets(point, torch.ones(people, dtype=torch.long), point.double(), torch.arange(people))
    return Batch(
        torch.randint(0, 256, (images, 3, 224, 224), dtype=torch.uint8, generator=generator),
        (torch.arange(people) * images) // people, torch.cat([low, low + 0.15], 1), [f"{i}" for i in range(people)],
        [f"{i}" for i in range(images)], torch.full((images, 2), 224), targets,
    )  # fmt: skip


def row(adaptation: str, dtype: str, fused: bool) -> HCLoRA:
    torch.manual_seed(0)
    return HCLoRA(
        backbone="tiny", backbone_weights="random", adaptation=adaptation, dim=128, layers=2, heads=4, rank=16,
        supervision="ooc" if adaptation == "hclora" else "none", compute_dtype=dtype,
        adapted_blocks=2 if adaptation == "hclora" else 0, fused_attention=fused,
    ).train()  # fmt: skip


def step(method: HCLoRA, some: Batch, dtype: str) -> float:
    """Seconds of forward and backward."""
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        losses = method.loss(some)
    torch.stack(list(losses.values())).sum().backward()
    return time.perf_counter() - begun


def main() -> None:
    """Prints a line a row: the median of 7 rounds in which all take turns."""
    some, variants = batch(), [(dtype, fused) for dtype in ("float32", "bfloat16") for fused in (True, False)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds a step")
    print(f"{'row':8} " + " ".join(f"{dtype} {'fused' if fused else 'plain'}".rjust(14) for dtype, fused in variants))
    for adaptation in ("frozen", "lora", "full", "hclora"):
        methods = [row(adaptation, *variant) for variant in variants]
        rounds = [
            [step(method, some, dtype) for method, (dtype, _) in zip(methods, variants, strict=True)] for _ in range(7)
        ]
        medians = [sorted(times)[3] for times in zip(*rounds, strict=True)]
        print(f"{adaptation:8} " + " ".join(f"{1000 * median:14.0f}" for median in medians), flush=True)


if __name__ == "__main__":
    main()
