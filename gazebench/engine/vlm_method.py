"""Base of the methods that tune a Qwen3-VL: its settings, its optimizer, and the identity of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from gazebench.engine.method import Method, Origin, Recipe, chosen, our_choice
from gazebench.nn.backbones import ComputeDtype
from gazebench.nn.optimizers import adamw_or_muon, trainable, warm_cosine
from gazebench.nn.qwen3vl import Tuning, load

UNSAID = "no text we have says; "
"""Of OmniGF the paper is at hand, of VL4Gaze the abstract alone."""


class VLMMethod(Method):
    """A method on a Qwen3-VL.

    Args:
        backbone: ``tiny``, a folder with a Qwen3-VL as ``save_pretrained`` writes it, or a model's id on the hub.
        backbone_weights: ``pretrained``, ``random`` or a file.
        compute_dtype: precision of the frozen weights; trained weights are float32.
        tuning: ``lora`` of the language model; ``language``, all of it; ``full``, the image encoder too; ``none``, a
            zero-shot row.
        rank: r of LoRA.
        alpha: LoRA's updates are scaled by alpha / r.
        dropout: dropout of the updates' input.
        image_size: side of the square input in pixels.
        augment: crop, flip and jitter head boxes in training.
        optimizer: ``adamw``, or ``muon`` for the Qwen3-VL's matrices beside it.
        lr: learning rate of the Qwen3-VL.
        lr_muon: learning rate of the matrices with ``muon``.
        weight_decay: weight decay of all trained weights.
        checkpointing: recompute layers in the backward pass: less memory, more time.

    Attributes:
        tiny: settings that go with the embedded backbone ``tiny``, whatever the data set.
    """

    tiny: ClassVar[Recipe] = our_choice(
        "fits the embedded backbone and two CPU cores",
        model__backbone_weights="pretrained",
        model__compute_dtype="float32",
        model__image_size=160,
        model__tuning="language",
        model__optimizer="muon",
        model__lr=1.2e-3,
        model__lr_muon=0.012,
        loader__batch_size=20,
    )
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
    sources: ClassVar[Mapping[str, tuple[Origin, str]]] = {
        "compute_dtype": ("ours", UNSAID + "the precision the weights are published in"),
        "rank": ("ours", UNSAID + "customary"),
        "alpha": ("ours", UNSAID + "twice the rank is customary"),
        "dropout": ("ours", UNSAID + "customary"),
        "augment": ("ours", UNSAID + "customary in gaze following"),
        "lr": ("ours", UNSAID + "customary for LoRA"),
        "lr_muon": ("ours", "only for models trained from scratch, on which it was tried"),
        "weight_decay": ("ours", UNSAID + "with few weights that learn it matters little"),
        "checkpointing": ("ours", "no effect on results"),
    }

    def __init__(
        self,
        backbone: str = "Qwen/Qwen3-VL-4B-Instruct",
        backbone_weights: str = "pretrained",
        compute_dtype: ComputeDtype = "bfloat16",
        tuning: Tuning = "lora",
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.05,
        image_size: int = 448,
        augment: bool = True,
        optimizer: Literal["adamw", "muon"] = "adamw",
        lr: float = 1e-4,
        lr_muon: float = 0.02,
        weight_decay: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.vlm = load(backbone, backbone_weights, compute_dtype)
        self.vlm.tune(tuning, rank, alpha, dropout, checkpointing)
        self.tuning, self.image_size, self.augment = tuning, image_size, augment
        self.optimizer_name, self.lr, self.lr_muon, self.weight_decay = optimizer, lr, lr_muon, weight_decay

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The recipe of the data set, with what the tiny backbone needs."""
        recipe = super().recipe(dataset, model)
        return {**recipe, **cls.tiny} if chosen(recipe, model, "backbone") == "tiny" else recipe

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The trained parameters with their learning rates."""
        return [{"params": trainable(self.vlm), "lr": self.lr}]

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, or Muon beside it, under a warm-up and a cosine."""
        optimizer = adamw_or_muon(
            self.optimizer_name, self.parameter_groups(), self.vlm, self.lr_muon, self.weight_decay
        )
        return optimizer, warm_cosine(optimizer, int(self.trainer.estimated_stepping_batches))

    def weights_identity(self) -> dict[str, Any]:
        """Name and initial weights of the Qwen3-VL."""
        return self.vlm.weights_identity(self.tuning)
