"""The tiny Qwen3-VL: which sizes it has and which lines its tokenizer is trained on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from transformers import AutoModelForImageTextToText, AutoProcessor

from gazebench.datasets.gazeworld.grounding import phrases
from gazebench.methods.omnigf.prompts import SYSTEM_PROMPTS, GazeAnswer, answer_pieces, person_line
from gazebench.vlm.coordinates import LARGEST
from gazebench.vlm.tiny import LABELS, TinySize, build

SIZE: Final = TinySize(patch=8, positions=20, vision_width=128, vision_layers=4)
"""Image tokens of 16 pixels, so that an image of 160 has 10 x 10 of them; 2.8 million parameters."""
WEIGHTS: Final = Path(__file__).parent / "weights" / "tiny_vlm.pt"
"""Made by ``scripts/pretrain_vlm.py``."""


def tiny_vlm() -> tuple[Any, Any, Path]:
    """The model with random weights, its processor, and the file of its trained weights."""
    with tempfile.TemporaryDirectory() as folder:
        build(folder, seed=0, corpus=_corpus(), size=SIZE)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        return model, AutoProcessor.from_pretrained(folder), WEIGHTS  # type: ignore[no-untyped-call]


def _corpus() -> Iterator[str]:
    """Prompts and answers, so that those take few tokens."""
    rng, labels = random.Random(0), LABELS.split()
    yield from phrases()
    for index in range(300):
        yield from SYSTEM_PROMPTS.values()
        yield f"{person_line(index % 16, [rng.random() for _ in range(4)], slot=False)}\n"
        point = (rng.randint(0, LARGEST), rng.randint(0, LARGEST))
        for category in ("", rng.choice(labels)):
            for answer in (GazeAnswer("inside", point, category), GazeAnswer("outside"), GazeAnswer("unknown")):
                pieces = answer_pieces(index % 16, answer, semantic=True, last=False)
                yield "".join(text for text, _ in pieces)
