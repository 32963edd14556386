"""Which of some named things a person looks at: by CLIP, from the method's own word or from what the point lies on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gazebench.core.errors import DataError, brief, some
from gazebench.engine.model import Gaze, PictureGaze
from gazebench.metrics.vocabulary import Vocabulary

CLIP_MODEL, CLIP_WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"
CROP = 1.5
"""Side of the square around a point, in longer sides of the looker's head: things are measured by people."""
LEAST_CROP = 0.15
"""Its least side, in shorter sides of the picture."""


@dataclass(frozen=True)
class Things:
    """Names what people look at, out of some classes.

    A method that names things (``Gaze.label``) is asked for its word, and the word's CLIP embedding is compared with
    those of the classes. For all others, and where it has no word, the picture is cut out around the point, in a square
    of ``CROP`` heads, and CLIP compares it with the classes. The second way is this suite's own, and no score of it has
    been measured.

    Attributes:
        classes: two or more names.
        clip: the CLIP.

    Raises:
        DataError: there are fewer than two classes, or one is named twice.
    """

    classes: tuple[str, ...]
    clip: Vocabulary

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise DataError(
                f"--classes {','.join(self.classes)}: give two or more different names, with commas between"
            )

    def __call__(self, picture: npt.NDArray[np.uint8], gaze: PictureGaze) -> PictureGaze:
        """The same people with ``label`` and ``label_probability``; "" and 0 for those who look out of the picture.

        Args:
            picture: (H, W, 3) uint8 RGB.
            gaze: who looks where in it.
        """
        sees = [one.inside and min(one.point) >= 0 and max(one.point) <= 1 for one in gaze.people]
        seen = [one for one, yes in zip(gaze.people, sees, strict=True) if yes]
        words = [one.label for one in seen if one.label]
        crops = [_crop(picture, one) for one in seen if not one.label]
        of_words = iter(self._probabilities(self.clip.texts(words)) if words else ())
        of_crops = iter(self._probabilities(self.clip.pictures(crops)) if crops else ())
        people = []
        for one, yes in zip(gaze.people, sees, strict=True):
            label, probability = "", 0.0
            if yes:
                values = next(of_words if one.label else of_crops)
                label, probability = self.classes[int(values.argmax())], float(values.max())
            people.append(replace(one, label=label, label_probability=probability))
        return replace(gaze, people=people)

    def identity(self) -> dict[str, Any]:
        """Everything that its answers depend on."""
        return {"classes": list(self.classes), "crop": [CROP, LEAST_CROP], **self.clip.describe()}

    def _probabilities(self, embeddings: Tensor) -> Tensor:
        return (self.clip.scale * embeddings @ self._embedded.T).softmax(dim=1)

    @cached_property
    def _embedded(self) -> Tensor:
        return self.clip.texts(self.classes)


def things_of(classes: str, weights: str = CLIP_WEIGHTS, model: str = CLIP_MODEL) -> Things:
    """The things of a text ``cup,ball,laptop``.

    Args:
        classes: names, with commas between.
        weights: a file, or a name of weights that open_clip downloads for the model.
        model: the architecture, a name of ``open_clip.list_models()``.

    Raises:
        DataError: there is no such file, and open_clip does not know the name or cannot download it.
    """
    path = Path(weights)
    if not path.is_file():
        import open_clip  # slow to import

        known = open_clip.list_pretrained_tags_by_model(model)
        if weights not in known:
            names = some(known) or f"none for {model}"
            raise DataError(f"--clip {weights}: neither a file nor a name of weights of {model} ({names})")
        try:
            path = Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, weights)))
        except Exception as error:  # what the hub's client raises differs
            raise DataError(
                f"--clip {weights}: cannot be downloaded ({brief(error)}); without a network give --clip FILE, the "
                f"weights of {model}, or of another --clip-model"
            ) from error
    return Things(tuple(name.strip() for name in classes.split(",")), Vocabulary(None, model, path))


def _crop(picture: npt.NDArray[np.uint8], one: Gaze) -> npt.NDArray[np.uint8]:
    """The square around a person's point, moved into the picture where it would reach beyond it."""
    size = np.array(picture.shape[1::-1])
    head = ((one.box[2:] - one.box[:2]) * size).max() if np.isfinite(one.box).all() else 0
    side = int(np.clip(round(CROP * head), max(1, LEAST_CROP * size.min()), size.min()))
    x, y = np.clip(np.round(np.array(one.point) * size - side / 2).astype(int), 0, size - side)
    return picture[y : y + side, x : x + side]
