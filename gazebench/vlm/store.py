"""A store of raw answers, from which all results are computed.

A folder holds the answers of one identity (model, prompt, decoding, encoding ...), whose digest is in its name: a
changed prompt gets a new folder. It has a file of JSON lines for every split, or for every shard of a split.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from gazebench.core.boxes import IntArray
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.vlm.messages import Reply

Shard = tuple[int, int]
"""The number of a part, from 1, and the number of parts."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")
_FILE = re.compile(r"(?P<split>[A-Za-z0-9_-]+)(?:\.shard-(?P<index>\d+)-of-(?P<count>\d+))?\.jsonl")


@dataclass(frozen=True)
class StoredAnswer:
    """An answer, and its attempt at the item, from 0."""

    attempt: int
    reply: Reply


@dataclass(frozen=True)
class Sibling:
    """A store with the same name but another identity: its folder, the number of answers, and what differs."""

    folder: Path
    answers: int
    differs: str


class AnswerStore:
    """The answers of one identity, in ``<root>/<name>-<digest of the identity>/``.

    Args:
        root: folder of all stores.
        name: name of the prober, for readers.
        identity: everything that the answers depend on, as JSON values.

    Raises:
        DataError: the folder exists and holds the answers of another identity.
    """

    def __init__(self, root: Path | str, name: str, identity: Mapping[str, Any]) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: the name of a store is made of letters, digits, '.', '_' and '-'")
        text = _canonical(identity)
        self.name = name
        self.identity: dict[str, Any] = json.loads(text)
        self.digest_of_identity = hashlib.sha256(text.encode()).hexdigest()
        self.folder = Path(root) / f"{name}-{self.digest_of_identity[:12]}"
        self._check()

    @contextmanager
    def writer(self, split: str, shard: Shard | None = None) -> Iterator[AnswerWriter]:
        """Opens a split, or a shard of it, for more answers; an incomplete last line is removed first.

        Raises:
            DataError: another process is writing this file.
        """
        path = self.folder / _file_name(split, shard)
        self._check()
        if not (identity := self.folder / "identity.json").is_file():
            write_atomically(identity, json.dumps(self.identity, indent=1, sort_keys=True) + "\n")
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"{path}: another process is writing this file; wait for it, or give each process its own shard"
            ) from None
        try:
            _repair(path)
            with path.open("ab", buffering=0) as file:
                yield AnswerWriter(path, file)
        finally:
            lock.release()

    def answers(self, split: str) -> dict[str, list[StoredAnswer]]:
        """All answers of a split, with its shards, by key; keys and attempts in ascending order.

        Of two answers to the same attempt the first counts. An incomplete last line is ignored.

        Raises:
            DataError: a line is no answer; the message names file and line.
        """
        self._check()
        merged: dict[tuple[str, int], Reply] = {}
        for path in self._files(split):
            for attempt, reply in _read(path):
                merged.setdefault((reply.key, attempt), reply)
        answers: dict[str, list[StoredAnswer]] = {}
        for key, attempt in sorted(merged):
            answers.setdefault(key, []).append(StoredAnswer(attempt, merged[key, attempt]))
        return answers

    def digest(self, split: str) -> str:
        """The sha256 of the answers of a split; independent of their order, their files and the time they took."""
        digest = hashlib.sha256()
        for key, answers in self.answers(split).items():
            for answer in answers:
                probability = [] if answer.reply.p_yes is None else [answer.reply.p_yes]
                line = _canonical([key, answer.attempt, answer.reply.text, answer.reply.finish_reason, *probability])
                digest.update(f"{line}\n".encode())
        return digest.hexdigest()

    def other_identities(self) -> list[Sibling]:
        """The stores in the same root with the same name."""
        pattern = re.compile(re.escape(self.name) + "-[0-9a-f]{12}")
        found = sorted(self.folder.parent.glob(f"{self.name}-*"))
        others = [path for path in found if pattern.fullmatch(path.name) and path != self.folder and path.is_dir()]
        return [Sibling(path, _lines(path), self._difference(path)) for path in others]

    def _check(self) -> None:
        path = self.folder / "identity.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            stored = None
        if stored != self.identity:
            raise DataError(
                f"{path}: the identity does not fit the digest in the folder's name; restore the file, or move the"
                " folder away to ask again"
            )

    def _files(self, split: str) -> list[Path]:
        _file_name(split, None)  # raises if it is no name
        found = []
        for path in self.folder.glob(f"{split}.*"):
            match = _FILE.fullmatch(path.name)
            if match and match["split"] == split:
                found.append((int(match["count"] or 0), int(match["index"] or 0), path))
        return [path for _, _, path in sorted(found)]

    def _difference(self, folder: Path) -> str:
        try:
            theirs = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "its identity.json cannot be read"
        mine, theirs = _flat(self.identity), _flat(theirs)
        names = [name for name in sorted(mine | theirs) if mine.get(name) != theirs.get(name)]
        return ", ".join(f"{name} {_short(theirs.get(name))} (here {_short(mine.get(name))})" for name in names)


@dataclass(frozen=True)
class AnswerWriter:
    """An open file of answers, from ``AnswerStore.writer``."""

    path: Path
    file: FileIO

    def append(self, reply: Reply, attempt: int = 0) -> None:
        """Stores an answer, which is then safe even if the process is killed.

        Raises:
            OSError: the disk is full.
        """
        fields = {**vars(reply), "seconds": round(reply.seconds, 3)}
        for name in ("structured", "p_yes"):
            if fields[name] in (False, None):
                del fields[name]
        line = json.dumps({"key": fields.pop("key"), "attempt": attempt, **fields}).encode() + b"\n"
        # One unbuffered write: the line is complete, or cut at the end of the file, where it is removed later.
        if self.file.write(line) != len(line):
            raise OSError(f"{self.path}: an answer could not be written as a whole; is the disk full?")


def shard_of(groups: Sequence[str], index: int, count: int) -> IntArray:
    """Positions of the people of shard ``index`` (1 to ``count``), ascending.

    All people of a group, e.g. an image, are in the same shard. A shard is a run of groups in order of appearance; its
    size differs from an equal share by less than the largest group.

    Raises:
        ValueError: there is no such shard.
    """
    _check_shard(index, count)
    if not len(groups):
        return np.zeros(0, np.int64)
    _, first, group, sizes = np.unique(
        np.asarray(groups, dtype=str), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    ends = np.cumsum(sizes[order])
    shard = np.empty(len(sizes), np.int64)
    shard[order] = (2 * ends - sizes[order]) * count // (2 * len(groups))  # where the middle of a group falls
    return np.flatnonzero(shard[group] == index - 1).astype(np.int64)


def _check_shard(index: int, count: int) -> None:
    if not 1 <= index <= count:
        raise ValueError(f"shard {index}/{count}: the first number runs from 1 to the second")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _file_name(split: str, shard: Shard | None) -> str:
    if not _SPLIT.fullmatch(split):
        raise ValueError(f"{split!r}: the name of a split is made of letters, digits, '_' and '-'")
    if shard is None:
        return f"{split}.jsonl"
    _check_shard(*shard)
    return f"{split}.shard-{shard[0]}-of-{shard[1]}.jsonl"


def _repair(path: Path) -> None:
    """Adds the missing newline to the last line, or removes the line if it is incomplete."""
    data = path.read_bytes() if path.is_file() else b""
    if data and not data.endswith(b"\n"):
        start = data.rfind(b"\n") + 1
        with path.open("r+b") as file:
            if _parsed(data[start:]) is None:
                file.truncate(start)
            else:
                file.seek(0, os.SEEK_END)
                file.write(b"\n")


def _read(path: Path) -> Iterator[tuple[int, Reply]]:
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        answer = _parsed(line)
        if answer is None:
            raise DataError(f"{path}:{number}: not an answer; delete this line, and its question will be asked again")
        yield answer
    answer = _parsed(last)
    if answer is not None:
        yield answer


def _parsed(line: bytes) -> tuple[int, Reply] | None:
    try:
        entry = json.loads(line)
        key, attempt, text, reason = entry["key"], entry["attempt"], entry["text"], entry["finish_reason"]
        tokens, p_yes = entry["tokens"], entry.get("p_yes")
        right = isinstance(key, str) and type(attempt) is int and isinstance(text, str) and isinstance(reason, str)
        counts = None if tokens is None else (int(tokens[0]), int(tokens[1]))
        further = bool(entry.get("structured")), None if p_yes is None else float(p_yes)
        return (attempt, Reply(key, text, reason, float(entry["seconds"]), counts, *further)) if right else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _lines(folder: Path) -> int:
    files = (path for path in folder.glob("*.jsonl") if _FILE.fullmatch(path.name))
    return sum(path.read_bytes().count(b"\n") for path in files)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """The leaves of nested objects by dotted name, as JSON."""
    if not isinstance(value, dict):
        return {prefix: _canonical(value)}
    flat: dict[str, str] = {}
    for name, part in value.items():
        flat |= _flat(part, f"{prefix}.{name}" if prefix else name)
    return flat


def _short(value: str | None) -> str:
    if value is None or len(value) <= 60:
        return value or "absent"
    # The digest shows that long texts differ, which their beginnings may not.
    return f"{value[:40]}... (sha256 {hashlib.sha256(value.encode()).hexdigest()[:8]})"
