"""Asks about the images of a data set; each image is encoded once for successive requests about it."""

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
"""An image's position, the key of a request about it, and a function from the encoded image to the request."""


class ImageSource(Protocol):
    """The part of ``data.dataset.GazeDataset`` that is needed here."""

    root: Path | None

    def path(self, records: Records, image: int, /) -> Path:
        """The file of an image."""

    def image(self, records: Records, image: int, /) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""


def encoded(dataset: ImageSource, records: Records, encoding: Encoding, image: int) -> EncodedImage:
    """Encodes an image of a data set.

    Raises:
        ImageError: it cannot be read.
    """
    drawn = dataset.root is None  # there are no files
    return encoding.encode(dataset.image(records, image) if drawn else dataset.path(records, image))


def ask_about_images(
    backend: Backend, jobs: Iterable[Job], dataset: ImageSource, records: Records, encoding: Encoding
) -> Iterator[Reply | Failure]:
    """Yields answers as they arrive, and an ``Unreadable`` for every job whose image cannot be read.

    ``jobs`` is consumed lazily.
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
