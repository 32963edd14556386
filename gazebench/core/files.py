"""Files: whole or not at all, their digests, and the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import joblib

T = TypeVar("T")

FORMAT = 1
"""Part of every cache key; raised when the fields of ``Annotations`` change."""


def write_atomically(path: Path, content: str | bytes | Callable[[Path], None]) -> None:
    """Writes a whole file or nothing, whatever happens in between.

    Args:
        path: its folder is made where it is missing.
        content: text, bytes, or a function that writes the file at the temporary path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    temporary = Path(name)
    os.close(handle)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where everything is kept that can be computed again: ``GAZEBENCH_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("GAZEBENCH_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or "~/.cache").expanduser() / "gazebench"


def cached(key: Any, build: Callable[[], T]) -> T:
    """``build()``, or what it gave last time for the same key.

    A damaged cache file is made again; a cache folder that cannot be written costs time only.

    Args:
        key: JSON values that tell everything the result depends on.
        build: its errors are passed on and nothing is kept; its result can be pickled.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, key]).encode()).hexdigest()
    try:
        # Compressed files carry a checksum, so that a damaged one is noticed.
        memory = joblib.Memory(cache_folder(), verbose=0, compress=True)
        result: T = memory.cache(_build, ignore=["build"])(digest, build)
    except OSError as error:
        logging.getLogger(__name__).warning("nothing is kept in the cache: %s (GAZEBENCH_CACHE=...)", error)
        return build()
    return result


def _build(digest: str, build: Callable[[], Any]) -> Any:
    return build()
