"""Memory and operations of OmniGF on a real Qwen3-VL, computed: ``python benchmarks/qwen_cost.py``.

Builds the model without memory (torch's meta device) from the published sizes of Qwen3-VL, counts its parameters and
derives memory and floating point operations. Nothing here is measured; where a GPU is at hand, measure. Answers and
prompts are counted with the embedded tokenizer, which splits words more finely than the real one: an upper bound.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from functools import cache

import torch
from peft import LoraConfig, inject_adapter_in_model
from tabulate import tabulate
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from gazebench.methods.omnigf.head_encoder import HeadSlots
from gazebench.methods.omnigf.prompts import GazeAnswer, PeoplePrompts
from gazebench.nn.qwen3vl import LORA_TARGETS, load

GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class Size:
    """A published model: language width, layers, heads of 128, key-value heads, feed-forward; deepstack levels."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vision: tuple[int, int, int]  # width, depth, feed-forward
    deepstack: tuple[int, int, int]
    tied: bool = True


SIZES = {
    "Qwen3-VL-2B": Size(2048, 28, 16, 8, 6144, (1024, 24, 4096), (5, 11, 17)),
    "Qwen3-VL-4B": Size(2560, 36, 32, 8, 9728, (1024, 24, 4096), (5, 11, 17)),
    "Qwen3-VL-8B": Size(4096, 36, 32, 8, 12288, (1152, 27, 4304), (8, 16, 24), tied=False),
}


def empty(size: Size) -> Qwen3VLForConditionalGeneration:
    """The model on the meta device."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 151936, "hidden_size": size.width, "intermediate_size": size.inner,
            "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads, "head_dim": 128, "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        },
        vision_config={
            "depth": size.vision[1], "hidden_size": size.vision[0], "intermediate_size": size.vision[2],
            "num_heads": 16, "patch_size": 16, "out_hidden_size": size.width, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": list(size.deepstack),
        },
        tie_word_embeddings=size.tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model.tie_weights()
    return model


@cache
def prompt_builder(grid: int) -> PeoplePrompts:
    vlm = load("tiny", "random")
    HeadSlots(vlm)
    return PeoplePrompts(vlm, (grid, grid), slots=True, semantic=False)


def tokens(people: int, grid: int) -> tuple[int, int]:
    """Numbers of tokens of a prompt about some people, and of its answer."""
    rng = random.Random(0)
    boxes = [[rng.random() for _ in range(4)] for _ in range(people)]
    answers = [GazeAnswer("inside", (rng.randint(100, 999), rng.randint(100, 999))) for _ in range(people)]
    prompt, whole = (prompt_builder(grid).rows([boxes], given).input_ids.shape[1] for given in (None, [answers]))
    return prompt, whole - prompt


def row(name: str, size: Size, side: int, batch: int, rank: int) -> tuple[list[str], list[list[str]]]:
    """One line about the model, and one line for each number of people."""
    model = empty(size)
    count = sum(parameter.numel() for parameter in model.parameters())
    vision = sum(parameter.numel() for parameter in model.model.visual.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    through = count - vision - embedding * (1 if size.tied else 2)  # parameters every text token meets
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, target_modules=LORA_TARGETS), model)
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    states = learnt * 4 * 4 / GIB  # float32: the weights, their gradients, Adam's two moments
    cache = 2 * size.layers * size.kv_heads * 128 * 2  # bytes a token
    grid, patches = side // 32, (side // 16) ** 2
    lines = []
    for people in (1, 5, 15):
        prompt, answer = tokens(people, grid)
        encode = 2 * vision * patches + 4 * size.vision[1] * size.vision[0] * patches**2
        length = prompt + answer
        read = 2 * through * length + 2 * size.layers * size.heads * 128 * length**2  # causal: half of 4 n^2 d
        # The backward pass through frozen weights makes gradients of activations but none of weights.
        step = batch * (encode + 2 * read + 2 * answer * embedding * 2)
        # A checkpointed layer keeps its input; one layer at a time is recomputed whole.
        kept = batch * length * size.width * 2 * size.layers
        inside = batch * length * (10 * size.width + 4 * size.inner) * 2
        lines.append(
            [name, str(people), str(prompt), str(answer), f"{(encode + read) / TERA:.1f}", f"{step / TERA:.0f}",
             f"{cache * length / 2**20:.0f} MiB", f"{count * 2 / GIB + states + (kept + inside) / GIB:.1f} GiB"]
        )  # fmt: skip
    return [name, f"{count / 1e9:.2f} G", f"{count * 2 / GIB:.1f} GiB", f"{learnt / 1e6:.0f} M", f"{states:.2f} GiB",
            f"{cache / 1024:.0f} KiB"], lines  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    found = [row(name, size, given.side, given.batch, given.rank) for name, size in SIZES.items()]
    models = ["model", "parameters", "in bfloat16", "LoRA learns", "with its optimizer", "cache a token"]
    print(tabulate([each for each, _ in found], models, tablefmt="github", disable_numparse=True))
    people = ["model", "people", "prompt", "answer", "TFLOP an image", f"TFLOP a step of {given.batch}", "cache",
              "memory of the step, checkpointed"]  # fmt: skip
    lines = [line for _, each in found for line in each]
    print("\n" + tabulate(lines, people, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
