"""What a user can mend: the command line prints the message, without a traceback. Imports nothing that takes long."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """The message says what is wrong and what to do about it."""


class DataError(UserError, ValueError):
    """Bad input: the message names the file, the row and the remedy."""


class PictureError(DataError):
    """A picture that is missing, or that no decoder can read."""

    @classmethod
    def of(cls, path: Path | str, error: Exception) -> PictureError:
        """What is wrong with a file, by what reading it raised."""
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a readable picture ({error})"
        return cls(f"{path}: {reason}; restore it from the release")
