"""From words to the categories of a benchmark: a named thing becomes the class whose CLIP text embedding is nearest.

OmniGF, section 4.6: prediction and classes are embedded under "a photo of [label]" and the closest class by cosine
similarity is taken. Which CLIP the paper used is not said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from gazebench.core.errors import DataError
from gazebench.core.files import cached, file_digest
from gazebench.core.known_weights import known

TEMPLATE = "a photo of {}"
CHUNK = 256
"""Texts embedded at once."""


def read_classes(path: Path) -> dict[str, int]:
    """Categories and their numbers, from a JSON object such as ``vocab2id.json``.

    Raises:
        DataError: the file is no such object.
    """
    try:
        classes = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); take the file of the release") from error
    if not classes or not isinstance(classes, dict) or not all(isinstance(one, int) for one in classes.values()):
        raise DataError(f"{path}: expected an object of categories and their numbers; take the file of the release")
    return classes


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a benchmark, and a CLIP that brings other words to them; both are read when first needed.

    Attributes:
        path: JSON object of the classes and their numbers; None where only texts are compared with each other.
        model: name of the architecture in open_clip, as ``open_clip.list_models()`` has it.
        weights: its weights, a state dict or safetensors. OpenAI's belong to the ``-quickgelu`` architectures.
    """

    path: Path | None
    model: str
    weights: Path

    def __getstate__(self) -> dict[str, Any]:
        """The three fields: a process that gets a copy reads model and embeddings itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def nearest(self, texts: Iterable[str]) -> list[str]:
        """The class of each text: itself where it is one, letter by letter, else the nearest; "" stays "" (no answer).

        Raises:
            DataError: classes or weights cannot be read.
        """
        wanted = [str(text).strip() for text in texts]
        fresh = [text for text in dict.fromkeys(wanted) if text not in self._known]
        if fresh:
            similarity = self.texts(fresh) @ self.embeddings.T
            best = similarity.argmax(dim=1).tolist()
            self._known.update((text, self.classes[place]) for text, place in zip(fresh, best, strict=True))
        return [self._known[text] for text in wanted]

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """The cosine of each text with the one at its place among the others, under the template."""
        if not texts:
            return []
        fresh = list(dict.fromkeys((*texts, *others)))
        rows = dict(zip(fresh, self.texts(fresh), strict=True))
        return [float(rows[one] @ rows[other]) for one, other in zip(texts, others, strict=True)]

    def describe(self) -> dict[str, Any]:
        """What a record says of it."""
        classes = {} if self.path is None else {"classes": len(self.classes)}
        return {"clip": self.model, "weights_sha256": self._digest, "template": TEMPLATE, **classes}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes by number; DataError where the file is not one of classes."""
        assert self.path is not None, "only texts can be compared with each other"
        numbers = read_classes(self.path)
        return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))

    @cached_property
    def embeddings(self) -> Tensor:
        """(C, D) float32 of length 1, one row a class; kept in the cache folder, by weights, template and classes."""
        key = ["class embeddings", self.model, self._digest, TEMPLATE, self.classes]
        return torch.from_numpy(cached(key, lambda: self.texts(self.classes).numpy()))

    @cached_property
    def _known(self) -> dict[str, str]:
        return {"": "", **{name: name for name in self.classes}}

    @cached_property
    def _digest(self) -> str:
        try:
            digest = file_digest(self.weights)
        except OSError as error:
            raise DataError(f"{self.weights}: no CLIP weights there ({error.strerror}); give a file") from error
        entry = known(digest)
        if entry is not None and entry.clip and self.model not in entry.clip:
            # The tensors may fit all the same: QuickGELU and GELU have none.
            raise DataError(
                f"{self.weights} is {entry.name}, the weights of {' or '.join(entry.clip)} and not of {self.model}; "
                "name that model"
            )
        return digest

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 of length 1: the embeddings of texts under the template."""
        import open_clip  # slow to import, and most runs need no CLIP

        tokenize = open_clip.get_tokenizer(self.model)
        parts = [
            self._clip.encode_text(tokenize([TEMPLATE.format(text) for text in texts[start : start + CHUNK]]))  # type: ignore[operator]
            for start in range(0, len(texts), CHUNK)
        ]
        return nn.functional.normalize(torch.cat(parts).float(), dim=1)

    @torch.no_grad()
    def pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(N, D) float32 of length 1: the embeddings of pictures (H, W, 3) uint8 RGB."""
        import open_clip

        configured = open_clip.transform.PreprocessCfg(**self._clip.visual.preprocess_cfg)  # type: ignore[union-attr,arg-type]
        prepare = open_clip.transform.image_transform_v2(configured, is_train=False)
        images = torch.stack([prepare(Image.fromarray(one)) for one in pictures])
        return nn.functional.normalize(self._clip.encode_image(images).float(), dim=1)  # type: ignore[operator]

    @property
    def scale(self) -> float:
        """What CLIP multiplies cosines with before its softmax."""
        return float(self._clip.logit_scale.detach().exp())  # type: ignore[operator]

    @cached_property
    def _clip(self) -> nn.Module:
        import open_clip

        assert self._digest  # a missing file is named as such
        try:
            model: nn.Module = open_clip.create_model(self.model, pretrained=str(self.weights))
        except Exception as error:
            told = str(error).partition("\n")[0][:200]
            raise DataError(
                f"{self.weights}: not the weights of {self.model} ({type(error).__name__}: {told}); give a state dict "
                "or safetensors, and the model by its name in open_clip.list_models()"
            ) from error
        return model.eval()
