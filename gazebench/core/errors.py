"""Errors that the user can correct; the command line prints their message without a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def some(names: Sequence[str]) -> str:
    """The first four names, and the number of the others."""
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def brief(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class UserError(Exception):
    """The message says what is wrong and what to do about it."""


class DataError(UserError, ValueError):
    """Bad input: the message names the file, the row and the remedy."""


class ImageError(DataError):
    """An image file that is missing, or that no decoder can read."""

    @classmethod
    def of(cls, path: Path | str, error: Exception, own: bool = False) -> ImageError:
        """The error of a picture of a data set, or of the user's own."""
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a readable image ({error})"
        remedy = "give another picture" if own else "restore it from the release"
        if type(error).__name__ == "DecompressionBombError":
            reason, remedy = f"too large to be read ({error})", "save a smaller copy and give that"
        return cls(f"{path}: {reason}; {remedy}")
