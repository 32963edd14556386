"""Atomic writing of files, their digests, and the folders of cache and configuration."""

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

FORMAT = 3
"""Part of every cache key; raised when fields of ``Annotations`` or columns of a data set are added."""


def write_atomically(path: Path, content: str | bytes | Callable[[Path], None]) -> None:
    """Writes a file through a temporary one, so that it is never left incomplete.

    Args:
        path: its folder is made where it is missing.
        content: text, bytes, or a function that writes the file at the temporary path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another ending than the file's: who lists the folder at this moment must not take it for a finished one.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
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
    """The folder for whatever can be computed again: ``GAZEBENCH_CACHE``, else the platform's cache folder."""
    return _user_folder("GAZEBENCH_CACHE", "LOCALAPPDATA", "~/Library/Caches", "XDG_CACHE_HOME", "~/.cache")


def config_folder() -> Path:
    """The folder for what a user told the suite: ``GAZEBENCH_CONFIG``, else the platform's configuration folder."""
    home = "~/Library/Application Support"
    return _user_folder("GAZEBENCH_CONFIG", "APPDATA", home, "XDG_CONFIG_HOME", "~/.config")


def _user_folder(own: str, windows: str, mac: str, xdg: str, default: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen)
    if sys.platform == "darwin":
        base: str | None = mac
    else:
        base = os.environ.get(windows if sys.platform == "win32" else xdg)
    return Path(base or default).expanduser() / "gazebench"


def cached(key: Any, build: Callable[[], T]) -> T:
    """The result of ``build()``, or the stored result of an earlier call with the same key.

    A damaged cache file is built again. Where the cache folder cannot be written, nothing is stored.

    Args:
        key: JSON values of everything the result depends on.
        build: returns something that can be pickled; where it raises, nothing is stored.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, key]).encode()).hexdigest()
    try:
        # Compressed files carry a checksum, so that a damaged one is noticed.
        memory = joblib.Memory(cache_folder(), verbose=0, compress=True)
        result: T = memory.cache(_build, ignore=["build"])(digest, build)
    except OSError as error:
        logging.getLogger(__name__).warning("the cache cannot be written: %s (GAZEBENCH_CACHE=...)", error)
        return build()
    return result


def _build(digest: str, build: Callable[[], Any]) -> Any:
    return build()
