"""Annotation text files: read with every bad row named, and kept parsed between runs."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import Annotations, Issue, Policy, Records

FORMAT = 1
"""Of the cache files; a change of what ``_pack`` writes is a new number."""


@dataclass(frozen=True, eq=False)
class Rows:
    """R well-formed rows of several text files.

    Attributes:
        names: the files, as messages name them.
        file: (R,) int64 ascending index into ``names``.
        row: (R,) int64, 1-based line.
        cells: R rows of stripped text.
        numbers: (R, K) float64, the numeric columns, finite.
        issues: the other rows.
    """

    names: Sequence[str]
    file: IntArray
    row: IntArray
    cells: list[list[str]]
    numbers: FloatArray
    issues: tuple[Issue, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def without(self, bad: npt.NDArray[np.bool_], what: str | Callable[[int], str]) -> Rows:
        """The rows not marked (bool of length R); the marked ones become issues."""
        if not bad.any():
            return self
        found = [
            Issue(self.names[self.file[r]], int(self.row[r]), what if isinstance(what, str) else what(int(r)))
            for r in np.flatnonzero(bad)
        ]
        return Rows(self.names, *self._kept(~bad), (*self.issues, *found))

    def only(self, wanted: npt.NDArray[np.bool_]) -> Rows:
        """The rows marked; there is nothing wrong with the others."""
        return Rows(self.names, *self._kept(wanted), self.issues)

    def _kept(self, keep: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray, list[list[str]], FloatArray]:
        cells = [cells for cells, kept in zip(self.cells, keep, strict=True) if kept]
        return self.file[keep], self.row[keep], cells, self.numbers[keep]


def read_rows(root: Path, names: Sequence[str], widths: Collection[int], numeric: slice) -> Rows:
    """The comma-separated rows of the files ``names`` below ``root``; a byte-order mark and blank lines are ignored.

    Args:
        root: the dataset's folder.
        names: files relative to it.
        widths: the numbers of columns a row may have.
        numeric: the columns that must hold finite numbers.
    """
    places, cells, issues = [], [], []
    expected = " or ".join(map(str, sorted(widths)))
    for file, name in enumerate(names):
        text = (root / name).read_text(encoding="utf-8-sig", errors="replace")
        for row, line in enumerate(text.split("\n"), start=1):
            values = [value.strip() for value in line.split(",")]
            if "\0" in line:
                issues.append(Issue(name, row, "a NUL character, expected text"))
            elif len(values) in widths:
                places.append((file, row))
                cells.append(values)
            elif values != [""]:
                issues.append(Issue(name, row, f"{len(values)} columns, expected {expected}"))
    place = np.array(places, dtype=np.int64).reshape(-1, 2)
    texts = [values[numeric] for values in cells]
    try:
        numbers = np.array(texts, dtype=np.float64)
    except ValueError:
        numbers = np.array([[_number(text) for text in row] for row in texts], dtype=np.float64)
    numbers = numbers.reshape(len(cells), len(range(min(widths))[numeric]))
    rows = Rows(names, place[:, 0], place[:, 1], cells, numbers, tuple(issues))
    bad = ~np.isfinite(numbers)

    def first_bad(row: int) -> str:
        column = range(len(cells[row]))[numeric][int(bad[row].argmax())]
        return f"column {column + 1} is {cells[row][column]!r}, expected a number"

    return rows.without(np.any(bad, axis=1), first_bad)


def read_table(root: Path, names: Sequence[str], text: Sequence[str], numeric: Sequence[str]) -> Rows:
    """The rows of CSV files with a header; lists and commas stand in quotation marks.

    Args:
        root: the dataset's folder.
        names: files relative to it.
        text: the columns that become ``cells``, in this order wherever they stand in a file.
        numeric: those that become ``numbers`` and must be finite.

    Raises:
        DataError: a file has no such columns.
    """
    places, cells, numbers, issues = [], [], [], []
    for file, name in enumerate(names):
        lines = (root / name).read_text(encoding="utf-8-sig", errors="replace").split("\n")
        header = [column.strip() for column in next(csv.reader(lines[:1]), [])]
        missing = [column for column in (*text, *numeric) if column not in header]
        if missing:
            raise DataError(f"{root / name}:1: the header lacks {', '.join(missing)}; take the file of the release")
        texts, figures = [header.index(column) for column in text], [header.index(column) for column in numeric]
        for row, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            try:
                # Line by line: an odd quotation mark spoils its own row only.
                values = [value.strip() for value in next(csv.reader([line], strict=True))]
                if len(values) != len(header):
                    raise ValueError(f"{len(values)} columns, expected {len(header)}")
                found = [_number(values[column]) for column in figures]
                wrong = [place for place, number in enumerate(found) if not np.isfinite(number)]
                if wrong:
                    raise ValueError(f"{numeric[wrong[0]]} is {values[figures[wrong[0]]]!r}, expected a number")
            except (csv.Error, ValueError) as error:
                issues.append(Issue(name, row, str(error)))
                continue
            places.append((file, row))
            cells.append([values[column] for column in texts])
            numbers.append(found)
    place = np.array(places, dtype=np.int64).reshape(-1, 2)
    table = np.array(numbers, dtype=np.float64).reshape(len(cells), len(numeric))
    return Rows(names, place[:, 0], place[:, 1], cells, table, tuple(issues))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def without_area(boxes: FloatArray) -> npt.NDArray[np.bool_]:
    """(N,) whether nothing is left of a pixel box xyxy once its corners are in order and clipped at zero."""
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    return np.any(high <= np.maximum(low, 0), axis=1)


def settle(records: Annotations, found: npt.NDArray[np.bool_], bad_rows: Policy, missing_images: Policy) -> Annotations:
    """The records a dataset hands out, once bad rows and images without a file (``found``, (I,)) are dealt with.

    Raises:
        DataError: there are some and the policy is ``error``; names the first five, their number and the remedy.
    """
    missing = [Issue(str(image), 0, "annotated, but there is no such file") for image in records.images[~found]]
    for policy, issues, what, option in (
        (bad_rows, records.issues, "bad rows", "bad_rows"),
        (missing_images, missing, "missing images", "missing_images"),
    ):
        if issues and policy == "error":
            first = sorted(issues, key=lambda issue: (issue.file, issue.row))[:5]
            more = [f"... and {len(issues) - 5:,} more"] if len(issues) > 5 else []
            raise DataError(
                "\n  ".join([f"{records.dataset} has {len(issues):,} {what}:", *map(str, first), *more])
                + f"\nRestore them from the release, or leave them out and count them: --dataset.{option} skip"
            )
    if not missing:
        return records
    return replace(records.select(found[records.person_image]), issues=(*records.issues, *missing))


def on_disk(root: Path, names: Iterable[str]) -> npt.NDArray[np.bool_]:
    """(N,) whether each file is there; a folder is listed once, however many of its files are asked for."""

    @cache
    def listed(folder: str) -> frozenset[str]:
        try:
            return frozenset(entry.name for entry in os.scandir(root / folder))
        except OSError:
            return frozenset()

    split = (name.rpartition("/") for name in names)
    return np.array([file in listed(folder) for folder, _, file in split], dtype=bool)


def cache_folder() -> Path:
    """Where parsed annotations are kept: ``GAZEBENCH_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("GAZEBENCH_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or "~/.cache").expanduser() / "gazebench"


def cached(key: Sequence[Any], files: Iterable[Path], build: Callable[[], Annotations]) -> Annotations:
    """``build()``, or what it gave last time for the same key and unchanged files (name, size, modification time).

    A damaged, foreign or outdated cache file is built again; a cache folder that cannot be written costs time only.

    Args:
        key: JSON values: parser, its version, root, options. There is one cache file for each key.
        files: everything that ``build`` reads.
        build: its errors are passed on and nothing is kept.
    """
    slot = hashlib.sha256(json.dumps([FORMAT, *key]).encode()).hexdigest()[:32]
    state = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    content = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    path = cache_folder() / f"annotations-{slot}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["content"]) == content:
                return _unpack({name: archive[name] for name in archive.files if name != "content"})
    except Exception as error:
        # Whatever a damaged file raises means the same: build it again.
        if not isinstance(error, FileNotFoundError):
            logging.getLogger(__name__).warning("%s: parsed again (%s)", path, error)
    records = build()
    write_arrays(path, {"content": np.array(content), **_pack(records)})
    return records


def write_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Keeps arrays in the cache folder; atomically, so that a reader of another process never sees half a file."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            partial = Path(file.name)
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    except OSError as error:
        logging.getLogger(__name__).warning("%s is not kept: %s (GAZEBENCH_CACHE=...)", path.name, error)
        if partial is not None:
            partial.unlink(missing_ok=True)


def _pack(records: Records) -> dict[str, npt.NDArray[Any]]:
    """Arrays as they are, texts as one UTF-8 blob (numpy would spend four bytes on each letter of the longest)."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    mappings = {"columns": records.columns, "pairs": records.pairs}
    named = {f"{mapping}.{name}": column for mapping, of in mappings.items() for name, column in of.items()}
    plain = {}
    for name, value in {**vars(records), **named}.items():
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "U":
                blob = "".join(f"{text}\0" for text in value.tolist())
                arrays[f"text.{name}"] = np.frombuffer(blob.encode(), dtype=np.uint8)
            else:
                arrays[name] = value
        elif name == "issues":
            plain[name] = [list(vars(issue).values()) for issue in value]
        elif name not in mappings:
            plain[name] = value
    return {**arrays, "plain": np.array(json.dumps(plain))}


def _unpack(arrays: dict[str, npt.NDArray[Any]]) -> Annotations:
    fields: dict[str, Any] = json.loads(str(arrays.pop("plain")))
    fields["issues"] = tuple(Issue(*issue) for issue in fields["issues"])
    fields |= {"columns": {}, "pairs": {}}
    for name, value in arrays.items():
        if name.startswith("text."):
            name, value = name.removeprefix("text."), np.array(value.tobytes().decode().split("\0")[:-1], dtype=str)
        mapping, dot, inner = name.partition(".")
        if dot:
            fields[mapping][inner] = value
        else:
            fields[name] = value
    return Annotations(**fields)
