"""A file of JSON lines about what is done, so that a killed command continues where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from gazebench.core.errors import DataError

_EMPTY: dict[str, Any] = {}


class Journal:
    """Entries by key, each on the disk before the next one begins; used as a context, by one process at a time.

    The first line says what the entries depend on. An incomplete last line, of a killed process, is removed.

    Args:
        path: the file.
        identity: everything that the entries depend on, as JSON values.
        again: begin anew.
        keep: whether ``entries`` has what was stored, or empty ones only, for journals that memory may not hold.

    Raises:
        DataError: the entries of the file depend on something else, a line is none, or another process is writing.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], again: bool = False, keep: bool = True) -> None:
        self.path, self.identity, self.again, self.keep = path, json.loads(json.dumps(identity)), again, keep
        self.entries: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(f"{self.path}: another process is writing this file; wait for it") from None
        try:
            self._read()
            self._file = self.path.open("ab", buffering=0)
            if not self.path.stat().st_size:
                self._write(self.identity)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
        self._lock.release()

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Stores an entry; a later one of the same key replaces it."""
        self.entries[key] = dict(entry) if self.keep else _EMPTY
        self._write({"key": key, **entry})

    def stored(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and entries, one after the other from the disk, in the order in which they were stored."""
        with self.path.open("rb") as file:
            next(file, None)
            for line in file:
                entry = json.loads(line)
                yield entry.pop("key"), entry

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        if self._file.write(line) != len(line):  # one unbuffered write: complete, or cut at the end of the file
            raise OSError(f"{self.path}: a line could not be written as a whole; is the disk full?")

    def _read(self) -> None:
        data = self.path.read_bytes() if self.path.is_file() and not self.again else b""
        whole = data[: data.rfind(b"\n") + 1]
        if self.path.is_file() and len(whole) < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                if number > 1:
                    key = entry.pop("key")
                    self.entries[key] = entry if self.keep else _EMPTY
            except (ValueError, KeyError, AttributeError):
                raise DataError(f"{self.path}:{number}: not an entry; delete the line and repeat") from None
            if number == 1 and entry != self.identity:
                differs = sorted(
                    name for name in {*entry, *self.identity} if entry.get(name) != self.identity.get(name)
                )
                raise DataError(
                    f"{self.path}: was made with other settings ({', '.join(differs)}); give another --out, or --again "
                    "to begin anew"
                )
