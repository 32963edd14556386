"""What commands that ask models share: which model, where it runs, which part is asked, and how far they are."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from gazebench.core.errors import DataError
from gazebench.vlm.messages import Backend

BACKENDS = ("openai", "transformers")


def add_model(
    parser: argparse.ArgumentParser, model: str, why: str = "", max_tokens: int = 512
) -> argparse._ArgumentGroup:
    """Adds the options of a model behind a server or in this process; more may be added to the group returned."""
    group = parser.add_argument_group("model (openai, transformers)")
    group.add_argument("--model", default=model, help=f"default: %(default)s{why}")
    group.add_argument("--revision", default="")
    group.add_argument("--max-side", type=int, default=1280, help="pictures are shown at most this large")
    group.add_argument("--max-tokens", type=int, default=max_tokens)
    group.add_argument("--temperature", type=float, default=0.0)
    server = parser.add_argument_group("server (openai)")
    server.add_argument("--url", default="http://localhost:8000/v1", help="default: %(default)s")
    server.add_argument("--in-flight", type=int, default=64)
    server.add_argument("--timeout", type=float, default=120.0, help="seconds a request may take")
    local = parser.add_argument_group("in this process (transformers)")
    local.add_argument("--device", default="auto")
    local.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float16", "float32"))
    local.add_argument("--batch-size", type=int, default=8)
    return group


def backend(kind: str, given: argparse.Namespace) -> Backend:
    """The backend that options of ``add_model`` describe; ``kind`` is one of ``BACKENDS``."""
    if kind == "openai":
        from gazebench.vlm.openai_server import OpenAIServer

        return OpenAIServer(
            given.url, given.model, revision=given.revision, in_flight=given.in_flight, timeout=given.timeout
        )
    from gazebench.vlm.local import LocalModel

    return LocalModel(
        given.model, revision=given.revision, dtype=given.dtype, device=given.device, batch_size=given.batch_size
    )


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


class Meter:
    """A line on the terminal, or one now and then in a log.

    Args:
        what: is counted, in the plural.
    """

    def __init__(self, what: str = "people") -> None:
        self.what = what
        self.begun = self.last = time.monotonic()
        self.first: int | None = None
        self.every = 0.5 if sys.stderr.isatty() else 30.0

    def __call__(self, done: int, total: int, useless: int) -> None:
        """Says how many are answered, of how many, and how many have nothing usable."""
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1
        if now - self.last < self.every and done < total:
            return
        self.last = now
        rate = (done - self.first) / max(1e-9, now - self.begun)
        left = (total - done) / rate if rate else float("inf")
        end = "\r" if sys.stderr.isatty() else "\n"
        text = f"{done:,} of {total:,} {self.what}, {useless:,} without use, {rate:.1f}/s, {left / 60:.0f} min left"
        print(text.ljust(78), end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self.first is not None and sys.stderr.isatty():
            print(file=sys.stderr)
