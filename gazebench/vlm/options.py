"""What commands that ask models share: which model, where it runs, and which part is asked."""

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
    """A model as the command line describes it; ``gazebench.cli.model_options`` makes an option of each field.

    The texts are the help of the options.
    """

    model: Annotated[str, "A model's id on the hub, or a folder."]
    revision: Annotated[str, "Branch, tag or commit of the model."] = ""
    max_side: Annotated[int, "Images are shown at most this large, in pixels."] = 1280
    max_tokens: Annotated[int, "Tokens of an answer at most."] = 512
    temperature: Annotated[float, "0 takes the likeliest token each time."] = 0.0
    url: Annotated[str, "openai: address of the server."] = "http://localhost:8000/v1"
    in_flight: Annotated[int, "openai: requests that wait for an answer at a time."] = 64
    timeout: Annotated[float, "openai: seconds a request may take."] = 120.0
    device: Annotated[str, "transformers: e.g. cuda:1; `auto` takes CUDA where there is one."] = "auto"
    dtype: Annotated[Dtype, "transformers: type of the weights."] = "auto"
    batch_size: Annotated[int, "transformers: requests at a time."] = 8

    def backend(self, name: str) -> Backend:
        """The model behind the backend ``name``, one of ``BackendName``."""
        if name == "openai":
            from gazebench.vlm.openai_server import OpenAIServer

            return OpenAIServer(
                self.url, self.model, revision=self.revision, in_flight=self.in_flight, timeout=self.timeout
            )
        from gazebench.vlm.local import LocalModel

        return LocalModel(
            self.model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            batch_size=self.batch_size,
        )

    def encoding(self) -> Encoding:
        """How images are shown."""
        from gazebench.vlm.encoding import Encoding

        return Encoding(max_side=self.max_side)

    def decoding(self) -> Decoding:
        """How answers are drawn."""
        return Decoding(max_tokens=self.max_tokens, temperature=self.temperature)


def check_server(backend: Any) -> None:
    """Stops where a server says that it does not serve the model; other backends pass.

    Raises:
        DataError: it names what is served. VLMError: nothing answers, or the key is refused.
    """
    if not hasattr(backend, "check"):
        return
    served = backend.check()
    if served and backend.model not in served:
        raise DataError(f"{backend.base_url} serves {', '.join(served)}, not {backend.model}; give one with --model")


def shard(text: str) -> tuple[int, int] | None:
    """``I/N`` as numbers; None of nothing.

    Raises:
        DataError: it is no part of N.
    """
    if not text:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise DataError(f"--shard {text}: give it as I/N, from 1/N to N/N")
    return int(index), int(count)
