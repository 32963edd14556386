"""Asking about the images of a data set: each is encoded once for all the requests about it that follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gazebench.core.errors import ImageError
from gazebench.core.types import Records
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.messages import Backend, EncodedImage, Failure, Reply, Request, Unreadable

Job = tuple[int, str, Callable[[EncodedImage], Request]]
"""An image, the key of a request about it, and what makes the request from the encoded image."""


class ImageSource(Protocol):
    """What is needed of a data set (``data.dataset.GazeDataset``)."""

    root: Path | None

    def path(self, records: Records, image: int, /) -> Path:
        """The file of an image."""

    def image(self, records: Records, image: int, /) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""


def encoded(dataset: ImageSource, records: Records, encoding: Encoding, image: int) -> EncodedImage:
    """An image as models are shown it; a data set without a root draws its images.

    Raises:
        ImageError: it cannot be read.
    """
    drawn = dataset.root is None
    return encoding.encode(dataset.image(records, image) if drawn else dataset.path(records, image))


def ask_about_images(
    backend: Backend, jobs: Iterable[Job], dataset: ImageSource, records: Records, encoding: Encoding
) -> Iterator[Reply | Failure]:
    """Answers as they arrive, and an ``Unreadable`` for every job whose image cannot be read.

    ``jobs`` is drawn from lazily.
    """
    unreadable: list[Unreadable] = []

    def requests() -> Iterator[Request]:
        last, shown, reason = -1, None, ""
        for image, key, request in jobs:
            if image != last:
                last = image
                try:
                    shown = encoded(dataset, records, encoding, image)
                except ImageError as error:
                    shown, reason = None, str(error)
            if shown is None:
                unreadable.append(Unreadable(key, reason))
            else:
                yield request(shown)

    yield from backend.ask(requests())
    yield from unreadable
