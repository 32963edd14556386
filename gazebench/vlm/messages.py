"""Requests to vision-language models, their replies, and the interface of backends."""

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
    """A model cannot be asked at all, e.g. for want of a server, a model or a key; the message names the remedy."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An encoded image, shared by all requests about it.

    Attributes:
        data: the file's bytes, JPEG or PNG.
        mime: ``image/jpeg`` or ``image/png``.
        size: (width, height) in pixels.
    """

    data: bytes
    mime: str
    size: tuple[int, int]

    @cached_property
    def url(self) -> str:
        """The image as a data URL, computed once."""
        return f"data:{self.mime};base64,{b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: texts and images in their order."""

    role: Role
    parts: tuple[str | EncodedImage, ...]


@dataclass(frozen=True)
class Decoding:
    """How an answer is sampled; part of the identity of the answers.

    Attributes:
        max_tokens: largest length of the answer.
        temperature: 0 takes the likeliest token each time.
        top_p: share of the probability mass to sample from.
        seed: seed of the sampling, where the backend takes one.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        key: e.g. a person's id; it is in the reply.
        messages: the conversation.
        decoding: how the answer is sampled.
        schema: JSON schema of the answer, for backends that can hold a model to it; others ignore it.
        p_yes: whether the probability of "yes" is wanted, from backends that know it.
    """

    key: str
    messages: tuple[Message, ...]
    decoding: Decoding = Decoding()
    schema: Mapping[str, Any] | None = None
    p_yes: bool = False


@dataclass(frozen=True)
class Reply:
    """One answer, word for word.

    Attributes:
        key: key of the request.
        text: what the model wrote, which may be empty, cut or nonsense.
        finish_reason: ``stop``, ``length`` (cut at max_tokens), ``content_filter``, ``refusal`` ... or "" if unknown.
        seconds: time from the request to the end of the answer.
        tokens: numbers of tokens of prompt and answer, if known.
        structured: whether the model was held to the request's schema.
        p_yes: probability of "yes" against "no", where it was asked for and the answer has one of them.
    """

    key: str
    text: str
    finish_reason: str = ""
    seconds: float = 0.0
    tokens: tuple[int, int] | None = None
    structured: bool = False
    p_yes: float | None = None


@dataclass(frozen=True)
class Failure:
    """No answer arrived, after all retries; the question stays open."""

    key: str
    reason: str


class Unreadable(Failure):
    """Nothing was asked, because the image cannot be read."""


class Backend(ABC):
    """A model that answers requests."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """JSON values of what answers depend on besides the request; no addresses, keys or paths of this machine."""

    def weights(self) -> str:
        """Where its weights are from, in the words of ``ViTBackbone.weights``.

        ``pretrained`` is fetched by name from the publisher, ``sha256:`` has the digests of the files joined by ``+``,
        and ``unknown`` is what is behind a server.
        """
        return "unknown"

    @abstractmethod
    def ask(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Yields one answer per request as they arrive, in any order.

        ``requests`` is consumed lazily, a bounded number ahead of the answers. Asking stops when the iterator is
        closed, or when its consumer raises an exception.

        Raises:
            VLMError: the model cannot be asked; earlier answers stay valid.
        """
