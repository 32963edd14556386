"""The small models embedded in the package: they stand in for foundation models where none can be had.

``gazebench.core.plugins.embedded`` finds the builders in ``BACKBONES``, ``VLMS`` and ``GAZE_MODELS``. timm and
transformers are imported when a builder is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = Path(__file__).parent / "weights"
TINY_VIT_WEIGHTS = _WEIGHTS / "tiny.pt"
"""Made by version 2 of ``scripts/pretrain_tiny.py``, which also taught what is salient: float16, names as in timm."""
TINY2_VIT_WEIGHTS = _WEIGHTS / "tiny2.pt"
"""Made by ``scripts/pretrain_tiny.py``, which teaches neither salience nor gaze."""
TINY_VLM_WEIGHTS = _WEIGHTS / "tiny_vlm.pt"
"""Made by ``scripts/pretrain_vlm.py``: float16, names as in transformers, without the tied output layer."""
TINY_VLM_FILES = _WEIGHTS / "tiny_vlm"
"""Configuration and tokenizer, as transformers writes them. The tokenizer was trained on prompts and answers of this
suite, and is frozen: the weights depend on the number of every token."""


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
    return *random_vlm(), TINY_VLM_WEIGHTS


def random_vlm(
    seed: int = 0, text: Mapping[str, Any] | None = None, vision: Mapping[str, Any] | None = None, **config: Any
) -> tuple[Any, Any]:
    """A Qwen3-VL of any size with random weights, and its processor: real classes and a real tokenizer, without a hub.

    It reads images and writes text (nonsense, while untrained). The embedding has a few more rows than there are
    tokens, as in the real models: a special token of a method fits in without resizing.

    Args:
        seed: seed of the weights.
        text: fields of the language model's configuration that differ from the embedded model's.
        vision: fields of the image encoder's configuration that differ.
        config: other fields of the configuration that differ.
    """
    import torch
    from torch import nn
    from transformers import AutoProcessor, GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    stored = json.loads((TINY_VLM_FILES / "config.json").read_text("utf-8")) | config
    stored["text_config"] |= text or {}
    stored["vision_config"] |= {**(vision or {}), "out_hidden_size": stored["text_config"]["hidden_size"]}
    with torch.random.fork_rng(devices=[]):  # what the constructor draws is overwritten below
        model: Any = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**stored))
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.Embedding):
            # By fan-in: at these widths the customary std of 0.02 leaves the layers nearly silent, and nothing is
            # learnt. The position table, which is added and not multiplied, gets the size of what it is added to.
            std = 0.5 if name.endswith("pos_embed") else module.weight[0].numel() ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
    model.generation_config = GenerationConfig.from_pretrained(TINY_VLM_FILES)
    processor = AutoProcessor.from_pretrained(TINY_VLM_FILES)  # type: ignore[no-untyped-call]
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size = stored["vision_config"]["patch_size"]
    return model.eval(), processor


def tiny2_vit() -> tuple[nn.Module, Path, int]:
    """The same model as ``tiny_vit``, with weights that were taught neither salience nor gaze."""
    model, _, size = tiny_vit()
    return model, TINY2_VIT_WEIGHTS, size


BACKBONES: dict[str, Callable[[], tuple[nn.Module, Path, int]]] = {"tiny": tiny_vit, "tiny2": tiny2_vit}
VLMS: dict[str, Callable[[], tuple[Any, Any, Path]]] = {"tiny": tiny_vlm}
GAZE_MODELS: dict[str, Callable[[], Path]] = {"gazelle_gazeworld": lambda: _WEIGHTS / "gazelle"}
"""Folders of finished runs: ``config.yaml``, and ``weights.pt`` in float16. This one: ``make bench METHOD=gazelle``."""
