"""Errors that a user can mend: the command line prints their message without a traceback."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """The message says what is wrong and what to do about it."""


class DataError(UserError, ValueError):
    """Bad input: the message names the file, the row and the remedy."""


class ImageError(DataError):
    """An image file that is missing, or that no decoder can read."""

    @classmethod
    def of(cls, path: Path | str, error: Exception) -> ImageError:
        """The error for a file whose reading raised ``error``."""
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a readable picture ({error})"
        return cls(f"{path}: {reason}; restore it from the release, or give another picture")
