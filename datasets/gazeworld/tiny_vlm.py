"""A tiny Qwen3-VL made without a model hub: the real classes and file layout, a real tokenizer, random weights.

It reads pictures and writes text like the large ones, so what is built around them runs and trains on a laptop and in
tests. Untrained, it writes nonsense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TURN: Final = "<|im_end|>"
SPECIAL_TOKENS: Final = (
    END_OF_TEXT, "<|im_start|>", END_OF_TURN, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_FILES: Final = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class TinySize:
    """The size of a model; by default that of the embedded one.

    Attributes:
        text_width: of the language model, which has ``text_layers``.
        text_heads: of ``head_dim`` each; ``text_kv_heads`` of them for keys and values.
        vision_width: of the image encoder, which has ``vision_layers`` with ``vision_heads`` each.
        deepstack: layers of the image encoder whose features go into the first layers of the language model.
        patch: side of a patch in pixels; 2 x 2 patches become one image token.
        positions: side of the learned position grid, in patches.
        tied: whether input and output share their embedding, as in the 2B and 4B models.
    """

    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 4
    text_kv_heads: int = 2
    head_dim: int = 32
    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    deepstack: tuple[int, ...] = (0, 1)
    patch: int = 8
    positions: int = 20
    tied: bool = True


def build(folder: str | Path, *, seed: int = 0, size: TinySize = TinySize()) -> Path:
    """Writes a model to ``folder`` for ``AutoProcessor`` and ``AutoModelForImageTextToText`` to load.

    The same arguments give the same files, byte for byte. The embedding has a few more rows than there are tokens,
    as in the real models: a special token of a method fits in without resizing.

    Args:
        folder: created if missing; a model in it is overwritten.
        seed: of the weights.
        size: of the model.
    """
    folder = Path(folder)
    tokenizer = _tokenizer()
    model = _model(_config(size, tokenizer), seed)
    end, padding = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[end, padding], pad_token_id=padding
    )
    pixels: dict[str, Any] = {
        "size": {"shortest_edge": 64 * 64, "longest_edge": 256 * 256},
        "patch_size": size.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    processor = Qwen3VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=(_FILES / "tiny_vlm_chat_template.jinja").read_text("utf-8"),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """Qwen's tokenizer with few tokens: byte pairs learnt from prompts and answers of the suite, now frozen.

    The embedded weights depend on the number of every token.
    """
    lines = (_FILES / "tiny_vlm_merges.txt").read_text("utf-8").splitlines()
    merges = [(left, right) for left, right in map(str.split, lines)]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,  # type: ignore[arg-type]  # what the library itself takes
        unk_token=None,  # type: ignore[arg-type]
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS),
    )


def _config(size: TinySize, tokenizer: Any) -> Qwen3VLConfig:
    # Height and width get as many frequencies as fit, time the rest: 24, 20, 20 for heads of 128.
    share = size.head_dim // 2 * 5 // 16
    return Qwen3VLConfig(
        text_config={
            "vocab_size": math.ceil((len(tokenizer) + 1) / 64) * 64,
            "hidden_size": size.text_width,
            "intermediate_size": 3 * size.text_width,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text_heads,
            "num_key_value_heads": size.text_kv_heads,
            "head_dim": size.head_dim,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [size.head_dim // 2 - 2 * share, share, share],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_width,
            "intermediate_size": 4 * size.vision_width,
            "num_heads": size.vision_heads,
            "patch_size": size.patch,
            "out_hidden_size": size.text_width,
            "num_position_embeddings": size.positions**2,
            "deepstack_visual_indexes": list(size.deepstack),
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=size.tied,
    )


def _model(config: Qwen3VLConfig, seed: int) -> Qwen3VLForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):  # what the constructor draws is overwritten below
        model = Qwen3VLForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.Embedding):
            # By fan-in: at these widths the customary std of 0.02 leaves the layers nearly silent, and nothing is
            # learnt. The position table, which is added and not multiplied, gets the size of what it is added to.
            std = 0.5 if name.endswith("pos_embed") else module.weight[0].numel() ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
    return model
