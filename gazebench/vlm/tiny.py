"""A tiny Qwen3-VL made here, without a model hub: the real classes and file layout, a real tokenizer, random weights.

It reads pictures and writes text like its big siblings, so whatever is built around those runs and trains on a laptop
and in tests. Untrained, it writes rubbish.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
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
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE: Final = """\
{%- macro shown(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {%- if part.type == 'image' -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- elif part.type == 'video' -%}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
            {%- else -%}
                {{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}
            {{- shown(message.content) + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- shown(message.content) + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
LABELS: Final = (
    "ball mug book lamp phone laptop plant cat dog apple banana guitar vase cake kite balloon bird plane car hat "
    "person face head hand cup bottle table chair screen television window door camera food toy bag"
)


@dataclass(frozen=True)
class TinySize:
    """How large a tiny model is; as it stands, about 1.4 million parameters.

    Attributes:
        text_width: of the language model, which has ``text_layers``.
        text_heads: of ``head_dim`` each; ``text_kv_heads`` of them for keys and values.
        vision_width: of the image encoder, which has ``vision_layers`` with ``vision_heads`` each.
        deepstack: layers of the image encoder whose features go into the first layers of the language model.
        patch: side of a patch in pixels; 2 x 2 patches become one image token.
        positions: side of the learned position grid, in patches.
        min_pixels: that a picture is enlarged to; ``max_pixels`` that it is reduced to.
        vocabulary: tokens at most, beside the special ones.
        tied: whether input and output share their embedding, as in the 2B and 4B models.
    """

    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 4
    text_kv_heads: int = 2
    head_dim: int = 32
    vision_width: int = 64
    vision_layers: int = 3
    vision_heads: int = 4
    deepstack: tuple[int, ...] = (0, 1)
    patch: int = 16
    positions: int = 16
    min_pixels: int = 64 * 64
    max_pixels: int = 256 * 256
    vocabulary: int = 1024
    tied: bool = True


def build(
    folder: str | Path, *, seed: int = 0, corpus: Iterable[str] | None = None, size: TinySize = TinySize()
) -> Path:
    """Writes a tiny Qwen3-VL to ``folder``, for AutoProcessor and AutoModelForImageTextToText to load.

    The same arguments give the same files, byte for byte. The embedding has a few more rows than there are tokens,
    as in the real ones: a method's own special token fits in without resizing.

    Args:
        folder: made where it is missing; a model in it is overwritten.
        seed: of the weights.
        corpus: lines that the tokenizer is trained on; by default answers of the kinds this suite asks for.
        size: of the model.

    Raises:
        ValueError: a size that makes no sound model.
    """
    folder = Path(folder)
    tokenizer = _tokenizer(_answers() if corpus is None else corpus, size.vocabulary)
    config = _config(size, tokenizer)
    validate(config)
    model = _model(config, seed)
    end, padding = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[end, padding], pad_token_id=padding
    )
    pixels: dict[str, Any] = {
        "size": {"shortest_edge": size.min_pixels, "longest_edge": size.max_pixels},
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
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def validate(config: Any) -> None:
    """Checks a Qwen3-VL configuration, of any size, for mistakes that transformers accepts without a word.

    Raises:
        ValueError: a part of the model would silently be left out or be another one than written; names them all.
    """
    text, vision = config.text_config, config.vision_config
    problems = []
    indexes = list(vision.deepstack_visual_indexes)
    if len(set(indexes)) < len(indexes) or not all(0 <= index < vision.depth for index in indexes):
        problems.append(
            f"deepstack_visual_indexes {indexes} of a vision encoder of depth {vision.depth}: "
            f"features are taken only at distinct layers from 0 to {vision.depth - 1}"
        )
    if len(indexes) > text.num_hidden_layers:
        problems.append(
            f"{len(indexes)} deepstack levels for {text.num_hidden_layers} language layers: "
            "each level needs a layer of its own"
        )
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    # What the model takes where nothing is written; meant for heads of 128.
    section = list((text.rope_parameters or {}).get("mrope_section", [24, 20, 20]))
    if len(section) != 3 or sum(section) != half:
        problems.append(f"mrope_section {section}: three numbers whose sum is half of head_dim, {half}")
    elif max(3 * section[1] - 2, 3 * section[2] - 1) >= half:
        # Height and width have every third frequency each, counted from 1 and from 2; what lies past the end is lost.
        problems.append(f"mrope_section {section}: more than a third of {half} frequencies for height or width")
    positions = vision.num_position_embeddings
    if math.isqrt(positions) ** 2 != positions:
        problems.append(f"num_position_embeddings {positions}: the square of the position grid's side")
    if problems:
        raise ValueError("not a sound Qwen3-VL configuration: " + "; ".join(problems))


def _answers() -> Iterator[str]:
    """Lines in the forms the models are asked to answer in, and a little of how they are asked."""
    dice, labels = random.Random(0), LABELS.split()

    def numbers(count: int) -> list[int]:
        return [dice.randint(0, 999) for _ in range(count)]

    for i in range(1200):
        label = dice.choice(labels)
        person = f"P{dice.randint(0, 15)}"
        inside = {"status": "inside", "point_2d": numbers(2)}
        yield json.dumps([{"bbox_2d": numbers(4), "label": label} for _ in range(dice.randint(1, 3))])
        yield json.dumps({"regions": [{"bbox_2d": numbers(4), "label": label}]})
        yield f"{person}: {json.dumps(inside)}"
        yield f"{person}: {json.dumps(inside | {'category': label})}"
        yield f"{person}: {json.dumps({'status': ('outside', 'unknown')[i % 2]})}"
        yield f"Person {person} with the head box {json.dumps({'bbox_2d': numbers(4)})} in the image."
        yield f"Where does {person} look: inside or outside of the image, and at what? Answer as one JSON object."


def _tokenizer(corpus: Iterable[str], vocabulary: int) -> Any:
    # An empty one first: splitting and normalising are then Qwen's own in training too.
    empty = Qwen2Tokenizer(vocab={}, merges=[])
    learner = Tokenizer(models.BPE())
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    learnt = json.loads(learner.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],  # type: ignore[misc]  # what the library itself takes
        unk_token=None,  # type: ignore[arg-type]
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS),
    )


def _config(size: TinySize, tokenizer: Any) -> Qwen3VLConfig:
    # Height and width get as much as fits, time the rest: 24, 20, 20 for heads of 128.
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
    dice = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.Embedding):
            # By fan-in: at these widths the customary std of 0.02 leaves the layers next to silent, and nothing is
            # learnt. The position table, which is no product's factor, gets the size of what it is added to.
            std = 0.5 if name.endswith("pos_embed") else module.weight[0].numel() ** -0.5
            nn.init.normal_(module.weight, std=std, generator=dice)
    return model
