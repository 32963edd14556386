"""Files: whole or not at all, their digests, and the cache folder."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


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


def cached_arrays(
    name: str, state: str, build: Callable[[], Mapping[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[Any]]:
    """``build()``, or what it gave last time for the same state.

    A damaged, foreign or outdated cache file is built again; a cache folder that cannot be written costs time only.

    Args:
        name: of the cache file, without ending.
        state: digest of everything the arrays depend on; another state replaces the file.
        build: its errors are passed on and nothing is kept.
    """
    path = cache_folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["state"]) == state:
                return {key: archive[key] for key in archive.files if key != "state"}
    except Exception as error:
        # Whatever a damaged file raises means the same: build it again.
        if not isinstance(error, FileNotFoundError):
            logging.getLogger(__name__).warning("%s: computed again (%s)", path, error)
    arrays = dict(build())

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, state=np.array(state), **arrays)

    try:
        write_atomically(path, save)
    except OSError as error:
        logging.getLogger(__name__).warning("%s is not kept: %s (GAZEBENCH_CACHE=...)", path.name, error)
    return arrays
