"""Which precision this processor is good at, by a measurement of a moment."""

from __future__ import annotations

import time

import torch

WORTHWHILE = 1.25
"""From this speed-up on, bfloat16 is taken; below it, conversions cost what the products save."""


def bfloat16_speedup(rounds: int = 12) -> float:
    """How many times as fast matrix products of a small ViT are in bfloat16 as in float32, on the CPU."""
    best = []
    for dtype in (torch.float32, torch.bfloat16):
        one, other = torch.randn(2048, 192).to(dtype), torch.randn(192, 768).to(dtype)
        times = []
        for _ in range(rounds):  # the least of many: other processes only ever add to a time
            began = time.perf_counter()
            one @ other
            times.append(time.perf_counter() - began)
        best.append(min(times))
    return best[0] / best[1]


def options() -> list[str]:
    """Settings that train a method on a ViT backbone in the faster precision; the record has them as any others."""
    if bfloat16_speedup() < WORTHWHILE:
        return []
    # In bfloat16 the fused attention kernel of the CPU is slower than the plain products.
    return ["--trainer.precision=bf16-mixed", "--model.compute_dtype=bfloat16", "--model.fused_attention=false"]
