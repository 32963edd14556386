"""Qwen3-VL as a backbone for gaze: loading, tuning, head embeddings in the prompt, and its hidden states.

Head embeddings get in by a forward hook on the embedding layer, while ``input_ids`` are passed as ever: image tokens,
rotary positions and deepstack stay the model's own business (OmniGF, section 3.2).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.utils import logging as transformers_logging

from gazebench.core.files import file_digest
from gazebench.core.weights import misfits, read_weights
from gazebench.datasets.gazeworld.grounding import phrases
from gazebench.nn.backbones import ComputeDtype, WeightsError
from gazebench.nn.gaze_language import GAZE_PAD, PROMPTS, Answer, answer_pieces, person_line
from gazebench.nn.rows import Rows
from gazebench.vlm.tiny import LABELS, TinySize, build, validate
from gazebench.vqa.questions.geometry import LARGEST

Tuning = Literal["lora", "language", "full", "none"]
LORA_TARGETS: Final = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
TINY_SIZE: Final = TinySize(patch=8, positions=20, vision_width=128, vision_layers=4)
"""Image tokens of 16 pixels, so that a picture of 160 has 10 x 10 of them; 2.8 million parameters."""
TINY_SEED: Final = 0
TINY_WEIGHTS: Final = Path(__file__).parents[2] / "datasets" / "gazeworld" / "weights" / "tiny_vlm.pt"
"""Of ``tiny``, made by ``scripts/pretrain_vlm.py``."""


@dataclass(frozen=True)
class Looked:
    """Pictures behind the image encoder, each read once however many rows are about it.

    Attributes:
        features: of each picture, (N, C).
        levels: of each deepstack level the same.
    """

    features: Sequence[Tensor]
    levels: Sequence[Sequence[Tensor]]

    def of(self, images: Sequence[int]) -> Looked:
        """The pictures of these places, one for each row."""
        return Looked(
            [self.features[image] for image in images], [[level[image] for image in images] for level in self.levels]
        )


class GazeVLM(nn.Module):
    """A Qwen3-VL whose prompt has slots for head embeddings.

    Frozen when made; ``tune`` says what learns.

    Args:
        model: a ``Qwen3VLForConditionalGeneration``.
        processor: its processor; the slot token is added to its tokenizer.
        identity: what a result has to say of the weights.
    """

    model: Any

    def __init__(self, model: nn.Module, processor: Any, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.processor, self.identity = processor, dict(identity)
        config = self.model.config
        self.dim = int(config.text_config.hidden_size)
        self.cell = int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)
        # Never with additional_special_tokens=..., which would replace the list of the model's own.
        slot = AddedToken(GAZE_PAD, special=True, normalized=False)
        processor.tokenizer.add_tokens([slot], special_tokens=True)
        self.slot_id = int(processor.tokenizer.convert_tokens_to_ids(GAZE_PAD))
        if self.slot_id >= self.model.get_input_embeddings().num_embeddings:
            # Real checkpoints have rows to spare. The new row's value is never read: heads take its place.
            self.model.resize_token_embeddings(self.slot_id + 1, pad_to_multiple_of=64, mean_resizing=False)
        # Weak models write them; they are no text and would break the pass over an answer.
        self.mute = sorted(
            {config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id}
            | {self.slot_id}
        )
        self._heads: Tensor | None = None
        self.model.get_input_embeddings().register_forward_hook(self._fill)
        self.requires_grad_(False)

    def tune(self, tuning: Tuning, rank: int, alpha: int, dropout: float) -> None:
        """Chooses what learns: low-rank updates of the language model, all of it, everything, or nothing."""
        if tuning == "full":
            self.requires_grad_()
        elif tuning == "language":  # all but the image encoder
            for part in (self.model.model.language_model, self.model.lm_head):
                part.requires_grad_()
        elif tuning == "lora":
            adapter = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS)
            inject_adapter_in_model(adapter, self.model)
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    assert "lora_" in name
                    parameter.data = parameter.data.float()  # half precision loses small steps

    def grade(self, tuning: Tuning) -> str:
        """Of the weights that a run starts from, as ``Method.weights_identity`` has it."""
        origin = self.identity["weights"]
        grade = {"pretrained": "published", "embedded": "embedded", "random": "random"}.get(origin, "file")
        # Of what was random and learns whole nothing was there before the run, and nothing stays as it was.
        return "none" if tuning == "full" and grade == "random" else grade

    def grid(self, side: int) -> tuple[int, int]:
        """Rows and columns of image tokens of a square picture.

        Raises:
            ValueError: the side is no multiple of a token's.
        """
        if side < self.cell or side % self.cell:
            raise ValueError(
                f"{self.identity['name']} takes pictures whose side is a multiple of {self.cell} pixels, got {side}; "
                f"nearest: {max(1, round(side / self.cell)) * self.cell}"
            )
        return side // self.cell, side // self.cell

    def embedding_scale(self) -> float:
        """The root mean square of the token embeddings' entries."""
        weight = self.model.get_input_embeddings().weight.detach()
        return float(torch.linalg.vector_norm(weight, dtype=torch.float32)) / weight.numel() ** 0.5

    def pixels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) uint8 -> patches (B, N, D) and their grid (B, 3), both as the processor makes them."""
        made = self.processor.image_processor(images=list(images), return_tensors="pt", do_resize=False)
        patches, grid = made["pixel_values"], made["image_grid_thw"]
        return patches.unflatten(0, (len(images), -1)).to(images.device), grid.to(images.device)

    def look(self, patches: Tensor, patch_grid: Tensor) -> Looked:
        """Reads pictures, (B, N, D) and (B, 3), for later."""
        seen = self.model.model.get_image_features(patches.flatten(0, 1), patch_grid, return_dict=True)
        return Looked(seen.pooler_output, seen.deepstack_features)

    def states(
        self,
        rows: Rows,
        patches: Tensor | Looked,
        patch_grid: Tensor | None,
        heads: Tensor | None,
        cache: Any = None,
    ) -> Tensor:
        """The states of the last layer, after its norm.

        Args:
            rows: R of them.
            patches: (R, N, D), of each row's picture; or the pictures, already read.
            patch_grid: (R, 3); None for pictures already read.
            heads: (P, C) embeddings of the rows' people, in the order of their slots; None where there are none.
            cache: filled with keys and values if given.

        Returns:
            (R, L, C), in the model's own precision.
        """
        pictures: dict[str, Any]
        if isinstance(patches, Looked):
            # Tuples of pictures, as the library's own encoder gives them, whatever its annotations say.
            of_pictures: Any = tuple(patches.features), [tuple(level) for level in patches.levels]
            seen = BaseModelOutputWithDeepstackFeatures(pooler_output=of_pictures[0], deepstack_features=of_pictures[1])
            pictures = {"mm_encoder_outputs": {"image": seen}}
        else:
            pictures = {"pixel_values": patches.flatten(0, 1), "image_grid_thw": patch_grid}
        return self._run(
            heads,
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            **pictures,
            past_key_values=cache,
            use_cache=cache is not None,
        )

    def further(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """The states of n more tokens of every row: ids (R, n), mask of all columns so far, positions (3, R, n)."""
        return self._run(
            None, input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )

    def logits(self, states: Tensor) -> Tensor:
        """(..., C) states -> (..., V) float32 scores of the next token."""
        return self.model.lm_head(states).float()

    def _run(self, heads: Tensor | None, **inputs: Any) -> Tensor:
        self._heads = heads
        try:
            return self.model.model(**inputs).last_hidden_state
        finally:
            self._heads = None

    def _fill(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self._heads is None:
            return output
        slots = inputs[0] == self.slot_id
        count = int(slots.sum())
        if count != len(self._heads):
            raise ValueError(f"{count} slots in the prompts for {len(self._heads)} head embeddings")
        return output.masked_scatter(slots[..., None], self._heads.to(output.dtype))


def load_vlm(name: str, weights: str | Path = "pretrained", dtype: ComputeDtype = "float32") -> GazeVLM:
    """Loads a frozen Qwen3-VL.

    Args:
        name: ``tiny``, a folder as ``save_pretrained`` writes it, or a model's id on the hub.
        weights: ``pretrained`` (those of the folder or the hub; for ``tiny`` those shipped with the package),
            ``random``, or a file with a state dict: the model's own, or of a fully tuned ``GazeVLM`` exported by a
            method.
        dtype: of the frozen weights.

    Raises:
        WeightsError: no such model, no Qwen3-VL, or weights that do not fit; the message names the remedy.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        place = str(_built_tiny(Path(folder))) if name == "tiny" else name
        embedded = name == "tiny" and weights == "pretrained"
        if embedded and not TINY_WEIGHTS.is_file():
            raise WeightsError(
                f"no weights at {TINY_WEIGHTS} for tiny: make them with scripts/pretrain_vlm.py, or pass "
                "--model.backbone_weights random"
            )
        model, processor, origin = _loaded(place, name, TINY_WEIGHTS if embedded else weights, dtype)
        if embedded:
            origin = {"weights": "embedded", "sha256": origin["weights"].removeprefix("sha256:")}
    identity = {"name": name if "/" not in name or not Path(name).exists() else Path(name).name, **origin}
    return GazeVLM(model, processor, identity)


def _loaded(place: str, name: str, weights: str | Path, dtype: ComputeDtype) -> tuple[Any, Any, dict[str, str]]:
    file = None if weights in ("pretrained", "random") else Path(weights)
    precision = getattr(torch, dtype)
    try:
        config = AutoConfig.from_pretrained(place)
        if config.model_type != "qwen3_vl":
            raise WeightsError(f"{name} is a {config.model_type} model; the head slots are made for qwen3_vl")
        validate(config)
        processor = AutoProcessor.from_pretrained(place)  # type: ignore[no-untyped-call]
        if weights == "random" and name != "tiny":
            model: Any = AutoModelForImageTextToText.from_config(config, dtype=precision)  # type: ignore[no-untyped-call]
        else:  # the tiny one is built with random weights of its own, which suit its size
            loaded: Any = AutoModelForImageTextToText.from_pretrained(place, dtype=precision, output_loading_info=True)
            model, report = loaded
            if report["missing_keys"]:  # transformers would go on with random numbers in their place
                raise WeightsError(f"{name}: no weights for {sorted(report['missing_keys'])[:4]}; fetch it anew")
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{name} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0]}): pass 'tiny', a "
            "folder as save_pretrained writes it, or the id of a model on the hub; without a network it must have been "
            "fetched before (hf download)"
        ) from error
    if file is not None:
        _fill_from(model, file)
        return model, processor, {"weights": f"sha256:{file_digest(file)}"}
    if weights == "random":
        return model, processor, {"weights": "random"}
    if Path(place).is_dir():
        shards = sorted(Path(place).glob("*.safetensors"))
        return model, processor, {"weights": "sha256:" + "+".join(file_digest(shard) for shard in shards)}
    return model, processor, {"weights": "pretrained", "revision": str(getattr(config, "_commit_hash", None) or "")}


def _fill_from(model: nn.Module, file: Path) -> None:
    if not file.is_file():
        raise WeightsError(f"no weights at {file}; --model.backbone_weights takes pretrained, random or a file's path")
    state = load_file(file) if file.suffix == ".safetensors" else read_weights(file)
    prefix = "vlm.model."  # of a method's export, which has other parts besides
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    own = model.state_dict()
    # A tied output layer is stored once, under the name of the embedding.
    tied = ["lm_head.weight"] if model.config.tie_word_embeddings else []  # type: ignore[union-attr]
    found = misfits(own, state, may_lack=tied)
    if found:
        raise WeightsError(f"the weights of {file.name} do not fit this Qwen3-VL: {found}")
    model.load_state_dict(state, strict=False)


def _built_tiny(folder: Path) -> Path:
    return build(folder, seed=TINY_SEED, corpus=_corpus(), size=TINY_SIZE)


def _corpus() -> Iterator[str]:
    """Lines for the tiny tokenizer: prompts and answers, so that those take few tokens."""
    dice, labels = random.Random(0), LABELS.split()
    yield from phrases()
    for index in range(300):
        yield from PROMPTS.values()
        yield f"{person_line(index % 16, [dice.random() for _ in range(4)], slot=False)}\n"
        point = (dice.randint(0, LARGEST), dice.randint(0, LARGEST))
        for category in ("", dice.choice(labels)):
            for answer in (Answer("inside", point, category), Answer("outside"), Answer("unknown")):
                pieces = answer_pieces(index % 16, answer, semantic=True, last=False)
                yield "".join(piece.text for piece in pieces)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, which a second's work does not need."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
