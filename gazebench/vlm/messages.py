"""What is asked of a vision-language model, and what comes back; backends turn the one into the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from gazebench.core.errors import UserError

Role = Literal["system", "user", "assistant"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


class VLMError(UserError):
    """A model cannot be asked at all: no such server, no such model, no key; the message names the remedy."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An encoded image, shared by all requests about it.

    Attributes:
        data: the file's bytes, JPEG or PNG.
        mime: ``image/jpeg`` or ``image/png``.
        size: (width, height) in pixels, of what the model is shown.
    """

    data: bytes
    mime: str
    size: tuple[int, int]

    @cached_property
    def url(self) -> str:
        """The image as a data URL; made once however many people of it are asked about."""
        return f"data:{self.mime};base64,{b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Message:
    """One turn: text and images in the order they are shown."""

    role: Role
    parts: tuple[str | EncodedImage, ...]


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn; part of the identity of whatever is made of it.

    Attributes:
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token each time.
        top_p: share of the probability mass that is drawn from.
        seed: of the draw, where the backend takes one.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One question; ``key`` (a person's id, say) comes back with the answer."""

    key: str
    messages: tuple[Message, ...]
    decoding: Decoding = Decoding()


@dataclass(frozen=True)
class Reply:
    """One answer, word for word.

    Attributes:
        key: of the request.
        text: what the model wrote; may be empty, cut or nonsense.
        finish_reason: ``stop``, ``length`` (cut at max_tokens), ``content_filter`` ... or "" where it is not told.
        seconds: from sending to the last byte.
        tokens: (prompt, answer) where they are told.
    """

    key: str
    text: str
    finish_reason: str = ""
    seconds: float = 0.0
    tokens: tuple[int, int] | None = None


@dataclass(frozen=True)
class Failure:
    """No answer came, after all retries: the server's fault, not the model's; the question stays open."""

    key: str
    reason: str


class Unreadable(Failure):
    """Nothing was asked, for the image cannot be read: not the server's fault either."""


class Backend(ABC):
    """A model that can be asked."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on beside the request: JSON values; no addresses, keys or paths of this machine."""

    @abstractmethod
    def ask(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Answers as they arrive, in any order, one per request.

        ``requests`` is drawn from lazily, a bounded number ahead of the answers. Closing the iterator early (or an
        exception in its consumer) stops asking.

        Raises:
            VLMError: nothing can be asked; what was yielded before stays valid.
        """
