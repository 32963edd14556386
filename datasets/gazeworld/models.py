"""The small models embedded in the package: they stand in for foundation models where none can be had.

``gazebench.core.plugins.embedded`` finds the builders in ``BACKBONES`` and ``VLMS``. timm and transformers are imported
when a builder is called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = Path(__file__).parent / "weights"
TINY_VIT_WEIGHTS = _WEIGHTS / "tiny.pt"
"""Made by ``scripts/pretrain_tiny.py``; float16, names as in timm."""
TINY_VLM_WEIGHTS = _WEIGHTS / "tiny_vlm.pt"
"""Made by ``scripts/pretrain_vlm.py``; float16, names as in transformers, without the tied output layer."""


def tiny_vit() -> tuple[nn.Module, Path, int]:
    """A ViT of 2.8 M parameters (width 192, 6 blocks, 3 heads, patches of 14), with random weights.

    Returns:
        The model, with the module names of timm; the file of its embedded weights; the side of its input in pixels.
    """
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    size = 224
    model = VisionTransformer(
        img_size=size, patch_size=14, embed_dim=192, depth=6, num_heads=3, num_classes=0, global_pool=""
    )
    # At this width the customary std of 0.02 leaves the blocks nearly silent, and training starts slowly.
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    return model, TINY_VIT_WEIGHTS, size


def tiny_vlm() -> tuple[Any, Any, Path]:
    """A Qwen3-VL of 2.8 M parameters, to which an image of 160 x 160 pixels is 10 x 10 tokens, with random weights.

    Returns:
        The model and its processor, as transformers loads them; the file of its embedded weights.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from gazebench.datasets.gazeworld.tiny_vlm import build

    with tempfile.TemporaryDirectory() as folder:
        build(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        return model, AutoProcessor.from_pretrained(folder), TINY_VLM_WEIGHTS  # type: ignore[no-untyped-call]


BACKBONES: dict[str, Callable[[], tuple[nn.Module, Path, int]]] = {"tiny": tiny_vit}
VLMS: dict[str, Callable[[], tuple[Any, Any, Path]]] = {"tiny": tiny_vlm}
