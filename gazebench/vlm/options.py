"""Options of commands that ask models: which model, where it runs, and which part of the items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from gazebench.core.errors import DataError
from gazebench.vlm.messages import Backend, Decoding, Dtype

if TYPE_CHECKING:
    from gazebench.vlm.encoding import Encoding


BackendName = Literal["openai", "transformers"]
"""Where a model runs: behind a server, or in this process."""


@dataclass(frozen=True)
class ModelOptions:
    """The options of a model; ``gazebench.cli.model_options`` reads their types, defaults and help texts here."""

    model: Annotated[str, "A model's id on the hub, or a folder."]
    revision: Annotated[str, "Branch, tag or commit of the model."] = ""
    max_side: Annotated[int, "Longer side of the images shown, at most, in pixels."] = 1280
    max_tokens: Annotated[int, "Longest answer, in tokens."] = 512
    temperature: Annotated[float, "0 takes the likeliest token each time."] = 0.0
    coordinates: Annotated[
        str, "How it writes them: thousand, pixels, unit, percent, with -yx where y is first; by its family if empty."
    ] = ""
    structured: Annotated[bool, "openai: hold the model to a JSON schema, where the server can."] = True
    url: Annotated[str, "openai: address of the server."] = "http://localhost:8000/v1"
    in_flight: Annotated[int, "openai: requests at a time."] = 64
    timeout: Annotated[float, "openai: seconds a request may take."] = 120.0
    device: Annotated[str, "transformers: e.g. cuda:1; `auto` takes CUDA where there is one."] = "auto"
    dtype: Annotated[Dtype, "transformers: type of the weights."] = "auto"
    batch_size: Annotated[int, "transformers: requests at a time."] = 8

    def backend(self, name: str) -> Backend:
        """The model behind a backend, one of ``BackendName``."""
        if name == "openai":
            from gazebench.vlm.openai_server import OpenAIServer

            return OpenAIServer(
                self.url, self.model, revision=self.revision, in_flight=self.in_flight, timeout=self.timeout
            )
        from gazebench.vlm.local import LocalModel

        return LocalModel(self.model, self.revision, self.dtype, self.device, self.batch_size)

    def encoding(self) -> Encoding:
        from gazebench.vlm.encoding import Encoding

        return Encoding(max_side=self.max_side)

    def decoding(self) -> Decoding:
        return Decoding(max_tokens=self.max_tokens, temperature=self.temperature)


def check_server(backend: Any) -> None:
    """Checks that a server is there and serves the model; does nothing for other backends.

    Raises:
        DataError: the server has other models; the message names them. VLMError: no server answers, or it refuses the
            key.
    """
    if not hasattr(backend, "check"):
        return
    served = backend.check()
    if served and backend.model not in served:
        raise DataError(f"{backend.base_url} serves {', '.join(served)}, not {backend.model}; give one with --model")


def shard(text: str) -> tuple[int, int] | None:
    """The numbers of ``I/N``; None for an empty text.

    Raises:
        DataError: the text is not of this form, or I is not between 1 and N.
    """
    if not text:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise DataError(f"--shard {text}: give it as I/N, from 1/N to N/N")
    return int(index), int(count)
