"""Weights known by their digest: the table of this package, and the one that a user adds to it.

A digest says what a file is wherever it came from. The table of the package, ``known_weights.json``, holds digests that
the publishers state themselves (in an address or a file's name) or that their files have. Where only the first digits
are stated, as in torch.hub's file names, the entry has these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock

from gazebench.core.errors import DataError
from gazebench.core.files import config_folder, file_digest, write_atomically

Standing = Literal["published", "own"]
FEWEST_DIGITS = 8
"""Of a digest of which only the first digits are known."""


@dataclass(frozen=True)
class KnownWeights:
    """A file of weights.

    Attributes:
        name: its name, by convention the publisher's file name.
        sha256: its digest in hex, or at least the first ``FEWEST_DIGITS`` of it.
        standing: ``published``, or ``own``: made by its user.
        source: where it can be had.
        clip: of a CLIP, the names in open_clip of the architectures it belongs to. The same tensors fit an architecture
            with another activation too, which gives other numbers.
    """

    name: str
    sha256: str
    standing: Standing = "published"
    source: str = ""
    clip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        digits = set("0123456789abcdef")
        if not (FEWEST_DIGITS <= len(self.sha256) <= 64 and set(self.sha256) <= digits):
            raise ValueError(f"sha256 {self.sha256!r}: give {FEWEST_DIGITS} to 64 digits 0-9a-f")
        if self.standing not in get_args(Standing):
            raise ValueError(f"standing {self.standing!r}: give one of {', '.join(get_args(Standing))}")

    @property
    def packaged(self) -> bool:
        """Whether it is the package's and not a user's."""
        return self in packaged()


@cache
def packaged() -> tuple[KnownWeights, ...]:
    """The table of the package."""
    return tuple(_read(Path(__file__).with_suffix(".json")))


def user_table() -> Path:
    """The file of the user's own table."""
    return config_folder() / "known_weights.json"


def users() -> tuple[KnownWeights, ...]:
    """The user's own table.

    Raises:
        DataError: the file cannot be read.
    """
    path = user_table()
    return tuple(_read(path)) if path.is_file() else ()


def known(sha256: str) -> KnownWeights | None:
    """What is known of the file with this digest (64 hex digits); the package's table goes first."""
    return next((entry for entry in (*packaged(), *users()) if sha256.startswith(entry.sha256)), None)


def named(name: str) -> KnownWeights | None:
    """The entry of the package's table with this name."""
    return next((entry for entry in packaged() if entry.name == name), None)


def add(entry: KnownWeights) -> None:
    """Adds an entry to the user's table, or replaces the one of the same digest.

    The table is read and written under a lock, so that of two processes that add at once nothing is lost.

    Raises:
        DataError: the package's table says something else of this digest, or the user's cannot be read.
    """
    before = next((one for one in packaged() if entry.sha256.startswith(one.sha256)), None)
    if before is not None:
        if (before.standing, before.clip) != (entry.standing, entry.clip or before.clip):
            told = f" for {', '.join(before.clip)}" if before.clip else ""
            raise DataError(f"sha256 {entry.sha256} is known as {before.name}: {before.standing}{told}")
        return
    path = user_table()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        entries = {one.sha256: one for one in users()} | {entry.sha256: entry}
        text = json.dumps([asdict(one) for one in entries.values()], indent=1) + "\n"
        write_atomically(path, text)


def weight_files(place: Path) -> list[Path]:
    """A file of weights as a list of one, or the ``*.safetensors`` of a folder in the order of their names.

    Raises:
        DataError: there is none.
    """
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        raise DataError(f"{place}: no weights file there, nor a folder with *.safetensors")
    return files


def digests(place: Path) -> str:
    """The sha256 of a file, or those of a folder's ``weight_files`` joined by ``+``."""
    return "+".join(map(file_digest, weight_files(place)))


def _read(path: Path) -> Iterator[KnownWeights]:
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            yield KnownWeights(**{**entry, "clip": tuple(entry.get("clip", ()))})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a table of known weights ({error}); move it away") from error
