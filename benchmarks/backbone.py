"""Encoding cost and the price of bfloat16: ``python benchmarks/backbone.py [--rounds N]``.

Random weights stand in for trained ones: they cost the same, and their layer scale of 1 lets rounding errors grow
more than DINOv2's own would. The heatmap is that of a freshly initialised Gaze-LLE decoder.
"""

import argparse
import statistics
import tempfile
import timeit
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gazebench.methods.gazelle import Encoded, GazeDecoder
from gazebench.nn.backbones import ViTBackbone, build_backbone
from gazebench.nn.feature_cache import CachedEncoder


def seconds(run: Callable[[], Tensor], rounds: int) -> float:
    """The median of some calls after a first one."""

    def finished() -> None:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return statistics.median(timeit.repeat(finished, number=1, repeat=rounds + 1)[1:])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"{arguments.device}, {threads} threads, torch {torch.__version__}; median milliseconds an image")
    print(
        f"{'backbone':14} {'batch':>5} {'fp32':>8} {'bf16':>8} {'ratio':>6} {'hit':>7} {'ratio':>7}  bf16 against fp32"
    )
    for name, batch in (("tiny", 1), ("tiny", 8), ("dinov2_vitb14", 1), ("dinov2_vitb14", 2)):
        torch.manual_seed(0)
        exact = build_backbone(name, weights="random").to(arguments.device)
        rough = ViTBackbone(exact.model, name, compute_dtype="bfloat16").to(arguments.device)
        size = exact.input_size
        images = torch.randint(0, 256, (batch, 3, size // 14, size // 14), dtype=torch.uint8)
        images = images.repeat_interleave(14, 2).repeat_interleave(14, 3).to(arguments.device)
        decoder = GazeDecoder(exact.embed_dim, exact.grid(size)).eval().to(arguments.device)
        head = torch.tensor([[0.3, 0.3, 0.5, 0.5]], device=arguments.device).expand(batch, 4)

        full = seconds(partial(exact, images), arguments.rounds)
        half = seconds(partial(rough, images), arguments.rounds)
        with tempfile.TemporaryDirectory() as folder:
            encoder = CachedEncoder(exact, folder)
            hit = seconds(partial(encoder, images), arguments.rounds)
        a, b = exact(images), rough(images)
        heat_a, heat_b = decoder(Encoded(a, None), head)[0], decoder(Encoded(b, None), head)[0]
        cosine = torch.cosine_similarity(a, b).min()
        moved = (heat_a.flatten(1).argmax(1) != heat_b.flatten(1).argmax(1)).float().mean()
        unit = 1000 / batch
        print(
            f"{name:14} {batch:5} {full * unit:8.1f} {half * unit:8.1f} {full / half:6.2f} {hit * unit:7.2f} "
            f"{full / hit:7.1f}  feature max {(a - b).abs().max():.1e} (std {a.std():.2f}, cosine >= {cosine:.5f}), "
            f"heatmap max {(heat_a - heat_b).abs().max():.1e} (std {heat_a.std():.1e}), argmax moved {moved:.2f}"
        )


if __name__ == "__main__":
    main()
