"""Qwen3-VL as a backbone: loading, fine-tuning, encoding of images, and hidden states of token rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from gazebench.core.errors import brief, some
from gazebench.core.files import file_digest
from gazebench.core.plugins import embedded
from gazebench.core.weights import WeightsError, load_strictly, local_file, read_weights
from gazebench.nn.backbones import ComputeDtype, weights_grade
from gazebench.vlm.local import PLACEHOLDERS, validate

Tuning = Literal["lora", "language", "full", "none"]
LORA_TARGETS: Final = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
IGNORED: Final = -100
"""The value in ``TokenRows.learnt`` of a token that is not learnt."""


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """R conversations of L tokens, each about one image.

    Attributes:
        input_ids: (R, L) int64.
        attention_mask: (R, L or more) int64, 0 on padding; or (R, 1, L, L) float, added to the scores of attention.
        position_ids: (3, R, L) int64, rotary positions in time, row and column.
        learnt: (R, L) int64, the number of the person or question that a learnt token belongs to, else ``IGNORED``;
            None where nothing is learnt.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    learnt: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        moved = {name: tensor.to(device) for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **moved)


class Qwen3VL(nn.Module):
    """A Qwen3-VL with its processor; frozen until ``tune`` is called.

    Args:
        model: a ``Qwen3VLForConditionalGeneration``.
        processor: its processor.
        identity: name and origin of the weights, for a result's record.

    Attributes:
        dim: width C of the hidden states.
        cell: side of an image token in pixels.
        suppressed: tokens for images, which are never to be written (weak models do).
    """

    model: Any

    def __init__(self, model: nn.Module, processor: Any, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.processor, self.identity = processor, dict(identity)
        config = self.model.config
        self.dim = int(config.text_config.hidden_size)
        self.cell = int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)
        self.suppressed = {int(getattr(config, name)) for name in PLACEHOLDERS}
        self.requires_grad_(False)

    def tune(self, tuning: Tuning, rank: int, alpha: int, dropout: float, checkpointing: bool = False) -> None:
        """Chooses the trainable weights.

        Args:
            tuning: ``lora``, low-rank updates of the language model; ``language``, all of it; ``full``, the image
                encoder too; ``none``.
            rank: rank of the updates.
            alpha: the updates are scaled by alpha / rank.
            dropout: dropout of the updates' input.
            checkpointing: recompute layers in the backward pass.
        """
        self.requires_grad_(tuning == "full")
        if tuning == "language":
            for part in (self.model.model.language_model, self.model.lm_head):
                part.requires_grad_()
        elif tuning == "lora":
            adapter = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS)
            inject_adapter_in_model(adapter, self.model)
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    assert "lora_" in name
                    parameter.data = parameter.data.float()  # half precision loses small steps
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def weights_identity(self, tuning: Tuning) -> dict[str, Any]:
        """This model's part of a method's ``weights_identity``."""
        grade = weights_grade(self.identity["weights"])
        if tuning == "full" and grade == "random":  # all weights are trained in the run
            grade = "none"
        return {"grade": grade, "name": self.identity["name"], "backbone": self.identity}

    def grid(self, side: int) -> tuple[int, int]:
        """Rows and columns of image tokens of a square image with this side in pixels.

        Raises:
            ValueError: the side is not a multiple of an image token's.
        """
        if side < self.cell or side % self.cell:
            raise ValueError(
                f"{self.identity['name']} takes images whose side is a multiple of {self.cell} pixels, got {side}; "
                f"nearest: {max(1, round(side / self.cell)) * self.cell}"
            )
        return side // self.cell, side // self.cell

    def encode(self, images: Tensor) -> Tensor:
        """Encodes images into inputs of the language model, once for all rows about an image.

        Args:
            images: (B, 3, S, S) uint8.

        Returns:
            (1 + D, B, N, C): the N image tokens, and what is added to them after each of D deepstack levels.
        """
        made = self.processor.image_processor(images=list(images), return_tensors="pt", do_resize=False)
        patches, grid = (made[name].to(images.device) for name in ("pixel_values", "image_grid_thw"))
        found = self.model.model.get_image_features(patches, grid, return_dict=True)
        levels = (found.pooler_output, *found.deepstack_features)
        # One tensor an image, or (transformers before 5.23) all images in one.
        whole = [level if isinstance(level, Tensor) else torch.cat(level) for level in levels]
        return torch.stack(whole).unflatten(1, (len(images), -1))

    def states(self, rows: TokenRows, images: Tensor | None = None, cache: Any = None) -> Tensor:
        """The hidden states (R, L, C) of the last layer, after its norm, in the model's own precision.

        Args:
            rows: R of them.
            images: (1 + D, R, N, C), each row's encoded image; None where rows continue from a cache.
            cache: keys and values of earlier tokens, to which those of the rows are added.
        """
        model = self.model.model
        embeddings, visual = model.get_input_embeddings()(rows.input_ids), {}
        if images is not None:
            mask = rows.input_ids == model.config.image_token_id
            first, *levels = images.flatten(1, 2).to(embeddings.dtype)
            embeddings = embeddings.masked_scatter(mask[..., None], first)
            visual = {"visual_pos_masks": mask, "deepstack_visual_embeds": levels}
        # The language model is called directly, because older versions of the whole model silently ignore encoded
        # images.
        return model.language_model(
            inputs_embeds=embeddings,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            **visual,
        ).last_hidden_state

    def image_states(self, rows: TokenRows, states: Tensor) -> Tensor:
        """(R, L, C) states -> (R, N, C), those of the image tokens, row by row of the image."""
        return states[rows.input_ids == self.model.config.image_token_id].unflatten(0, (len(states), -1))

    def logits(self, states: Tensor) -> Tensor:
        """(..., C) states -> (..., V) float32 scores of the next token."""
        return self.model.lm_head(states).float()

    def token_losses(self, rows: TokenRows, states: Tensor) -> Tensor:
        """The cross-entropy (T,) of each learnt token, predicted from the state of the token before it."""
        assert rows.learnt is not None
        learnt = rows.learnt[:, 1:] != IGNORED
        return F.cross_entropy(self.logits(states[:, :-1][learnt]), rows.input_ids[:, 1:][learnt], reduction="none")


def load(name: str, weights: str | Path = "pretrained", dtype: ComputeDtype = "float32") -> Qwen3VL:
    """Loads a frozen Qwen3-VL.

    Args:
        name: a folder as ``save_pretrained`` writes it, a model's id on the hub (``owner/name``), or an embedded model
            such as ``tiny``.
        weights: ``pretrained`` (those of the folder, the hub or the package), ``random``, or a file with a state dict:
            the model's own, or of a fully tuned ``Qwen3VL`` exported by a method.
        dtype: dtype of the frozen weights.

    Raises:
        WeightsError: the model is not found, is no Qwen3-VL, or its weights do not fit; the message names the remedy.
    """
    is_folder, shipped = Path(name).is_dir(), None
    if is_folder or "/" in name:
        model, processor = _from_pretrained(name, weights == "random", dtype)
    else:
        builders = embedded("VLMS")
        if name not in builders:
            raise WeightsError(f"{name!r} is no folder, no hub id ('owner/name') and none of {', '.join(builders)}")
        model, processor, shipped = builders[name]()
        for parameter in model.parameters():  # not the frequencies of rotary positions, which stay float32
            parameter.data = parameter.data.to(getattr(torch, dtype))
    if weights == "random":
        origin = {"weights": "random"}
    elif weights != "pretrained":
        _fill(model, Path(weights))
        origin = {"weights": f"sha256:{file_digest(Path(weights))}"}
    elif shipped is not None:
        _fill(model, shipped)
        origin = {"weights": "embedded", "sha256": file_digest(shipped)}
    elif is_folder:
        shards = sorted(Path(name).glob("*.safetensors"))
        origin = {"weights": "sha256:" + "+".join(file_digest(shard) for shard in shards)}
    else:
        origin = {"weights": "pretrained", "revision": str(getattr(model.config, "_commit_hash", None) or "")}
    return Qwen3VL(model, processor, {"name": Path(name).name if is_folder else name, **origin})


def _from_pretrained(name: str, random: bool, dtype: ComputeDtype) -> tuple[Any, Any]:
    precision = getattr(torch, dtype)
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "qwen3_vl":
            raise WeightsError(f"{name} is a {config.model_type} model, not a qwen3_vl")
        validate(config)
        processor = AutoProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
        if random:
            return AutoModelForImageTextToText.from_config(config, dtype=precision), processor  # type: ignore[no-untyped-call]
        loaded: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=precision, output_loading_info=True)
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{name} cannot be loaded ({brief(error)}): pass a folder as save_pretrained writes it, or the id of a "
            "model on the hub, which without a network must have been downloaded before (hf download)"
        ) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would leave random numbers in their place
        raise WeightsError(f"{name}: no weights for {some(sorted(report['missing_keys']))}; download it again")
    return model, processor


def _fill(model: Any, file: Path) -> None:
    """Loads a state dict from a file, which may be a method's export with other parts too."""
    state = read_weights(local_file(file))
    prefix = "vlm.model."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    # A tied output layer is stored once, under the name of the embedding.
    tied = ["lm_head.weight"] if model.config.tie_word_embeddings else []
    load_strictly(model, state, what=f"this Qwen3-VL ({file.name})", may_lack=tied)
