"""Asking about images: each is encoded once for all the requests about it that follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gazebench.core.errors import ImageError
from gazebench.vlm.messages import Backend, EncodedImage, Failure, Reply, Request, Unreadable

Job = tuple[int, str, Callable[[EncodedImage], Request]]
"""An image, the key of a request about it, and what makes the request from the encoded image."""


def ask_about_images(
    backend: Backend, jobs: Iterable[Job], encode: Callable[[int], EncodedImage]
) -> Iterator[Reply | Failure]:
    """Answers as they arrive, and an ``Unreadable`` for every job whose image raises ``ImageError``.

    ``jobs`` is drawn from lazily.
    """
    unreadable: list[Unreadable] = []

    def requests() -> Iterator[Request]:
        last: int | None = None
        encoded: EncodedImage | None = None
        reason = ""
        for image, key, request in jobs:
            if image != last:
                last = image
                try:
                    encoded = encode(image)
                except ImageError as error:
                    encoded, reason = None, str(error)
            if encoded is None:
                unreadable.append(Unreadable(key, reason))
            else:
                yield request(encoded)

    yield from backend.ask(requests())
    yield from unreadable
