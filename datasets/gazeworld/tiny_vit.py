"""The ViT that stands in for a foundation model in GazeWorld; ``scripts/pretrain_tiny.py`` trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from timm.models.vision_transformer import VisionTransformer
from torch import nn

TINY_WEIGHTS: Final = Path(__file__).parent / "weights" / "tiny.pt"


def tiny_vit() -> tuple[nn.Module, Path, int]:
    """A ViT of 2.8 M parameters with random weights, the file of its trained ones, and the side of its input in pixels.

    Width 192, 6 blocks, 3 heads, patches of 14 pixels, made for 224 x 224.
    """
    model = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=192, depth=6, num_heads=3, num_classes=0, global_pool=""
    )
    # At this width the customary std of 0.02 leaves the blocks next to silent and training slow to start.
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    return model, TINY_WEIGHTS, 224
