"""Released data sets: annotation files read with every bad row named, the people they describe, and a cache."""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import BOX, FloatArray, IntArray, holds_boxes
from gazebench.core.errors import DataError
from gazebench.core.files import cached
from gazebench.core.types import IN_FRAME, Annotations, Issue, Policy, Records, ragged_starts
from gazebench.data.dataset import GazeDataset
from gazebench.metrics.vocabulary import Vocabulary

T = TypeVar("T")

PARTS_OF_SPLIT: Mapping[str, tuple[str, ...]] = {
    "train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",),
}  # fmt: skip
"""The parts that make up a split, in releases that come as train, val and test."""

VOCABULARY = "vocab2id.json"
POINT = ["gaze_x", "gaze_y"]

MARGIN = 0.1
"""How far beyond the picture the target of somebody in frame may lie, in widths or heights of the picture: annotators
click a little outside, other units and mistakes are farther off. No test person of GazeFollow and no row of
VideoAttentionTarget lies outside at all."""


@dataclass(eq=False)
class Rows:
    """R rows of annotation files: the sound ones as a table, the others as issues.

    Attributes:
        files: the files, relative to the data set's root.
        table: R rows; column ``file`` is an index into ``files``, ``line`` is that of the file, from 1 and with its
            header; the others are those that were asked for: text as str, numbers as finite float64.
        issues: the rows that make no sense, each with the reason.
    """

    files: Sequence[str]
    table: pd.DataFrame
    issues: list[Issue] = field(default_factory=list)

    def reject(self, bad: npt.ArrayLike, reason: str) -> None:
        """Moves rows from the table to the issues.

        Args:
            bad: (R,) bool, the rows to move.
            reason: what is wrong with them; may name columns, e.g. ``"the class is {gaze_class!r}"``.
        """
        marked = np.asarray(bad, dtype=bool)
        for cells in self.table[marked].to_dict("records"):
            named = {str(name): cell for name, cell in cells.items()}
            self.issues.append(Issue(self.files[named["file"]], named["line"], reason.format(**named)))
        self.keep(~marked)

    def keep(self, wanted: npt.ArrayLike) -> None:
        """Drops all other rows from the table; nothing is wrong with them."""
        wanted = np.asarray(wanted, dtype=bool)
        if not wanted.all():
            self.table = self.table[wanted].reset_index(drop=True)


def read_rows(
    root: Path,
    files: Sequence[str],
    *,
    text: Sequence[str],
    numbers: Sequence[str] = (),
    paths: Sequence[str] = (),
    layouts: Sequence[Sequence[str]] = (),
) -> Rows:
    """The rows of comma-separated files in UTF-8, plain or compressed (``.gz``).

    A byte-order mark, blank lines, blanks around cells and capital letters in the header make no difference. A row is
    bad when its number of columns is wrong, when a number is missing or not finite, when a quotation mark is not
    closed, and when it holds a NUL character. A file without any row is an issue, too.

    Args:
        root: the data set's folder.
        files: relative to it.
        text: the columns to keep as text; None in rows of a layout without that column.
        numbers: the columns to keep as numbers.
        paths: the columns to keep as text with slashes for backslashes.
        layouts: for files without a header, the names of a row's columns; a row follows the layout of its length.
            Without layouts the first line of each file names the columns.

    Raises:
        DataError: a file cannot be read, is UTF-16, or its header lacks a column or has one twice.
    """
    text = (*paths, *text)
    names = ["file", "line", *text, *numbers]
    found: list[list[Any]] = []
    issues: list[Issue] = []
    for file, name in enumerate(files):
        lines = _lines(root / name)
        start = 0 if layouts else 1
        try:
            header = [] if layouts else [cell.strip().lower() for cell in next(csv.reader(lines[:1]), [])]
        except csv.Error as error:
            raise DataError(f"{root / name}:1: no header ({error}); take the file of the release") from error
        for fault, columns in (
            ("lacks", [] if layouts else [column for column in names[2:] if column not in header]),
            ("repeats", [column for column in names[2:] if header.count(column) > 1]),
        ):
            if columns:
                hint = SEMICOLONS if ";" in lines[0] else ""
                raise DataError(
                    f"{root / name}:1: the header {fault} {', '.join(columns)}{hint}; take the file of the release"
                )
        if not any(line.strip() for line in lines[start:]):
            issues.append(Issue(name, 0, "the file has no rows"))
        places = {len(layout): {column: layout.index(column) for column in layout} for layout in layouts or [header]}
        for line, content in enumerate(lines[start:], start=start + 1):
            if content.strip():
                try:
                    found.append([file, line, *_cells(content, places, text, numbers)])
                except (csv.Error, ValueError) as error:
                    issues.append(Issue(name, line, str(error)))
    table = pd.DataFrame(found, columns=names, dtype=object)
    for name in paths:
        table[name] = table[name].str.replace("\\", "/", regex=False)
    return Rows(files, table.astype({"file": np.int64, "line": np.int64} | dict.fromkeys(numbers, np.float64)), issues)


SEMICOLONS = " (it has semicolons, expected commas)"


def _content(path: Path) -> bytes:
    """An annotation file, decompressed where its name ends in .gz."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}; take the file of the release") from error


def _lines(path: Path) -> list[str]:
    """The lines of an annotation file; what is not UTF-8 becomes U+FFFD."""
    text = _content(path).decode("utf-8-sig", errors="replace")
    if text.count("\0") > len(text) / 3:  # every other byte of English
        raise DataError(f"{path}: is UTF-16, expected UTF-8; take the file of the release, or convert it")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _cells(
    content: str, places: Mapping[int, Mapping[str, int]], text: Sequence[str], numbers: Sequence[str]
) -> list[str | float | None]:
    """The wanted cells of one line; ValueError or csv.Error where it is bad."""
    if "\0" in content:
        raise ValueError("a NUL character, expected text")
    # Each line is parsed by itself, so that an unclosed quotation mark spoils no other line.
    cells = [cell.strip() for cell in next(csv.reader([content], strict=True, skipinitialspace=True))]
    if len(cells) not in places:
        hint = SEMICOLONS if ";" in content else ""
        raise ValueError(f"{len(cells)} columns, expected {' or '.join(map(str, sorted(places)))}{hint}")
    place = places[len(cells)]
    values: list[str | float | None] = [cells[place[name]] if name in place else None for name in text]
    for name in numbers:
        value = number(cells[place[name]])
        if not math.isfinite(value):
            raise ValueError(f"column {place[name] + 1} ({name}) is {cells[place[name]]!r}, expected a number")
        values.append(value)
    return values


def label_lines(path: Path) -> bytes:
    """The content of an annotation file without what copies may change: line ends, blank lines, blanks around cells."""
    lines = (line.split(b",") for line in _content(path).removeprefix(b"\xef\xbb\xbf").splitlines())
    kept = (b",".join(cell.strip() for cell in cells) for cells in lines)
    return b"".join(line + b"\n" for line in kept if line)


def number(text: str) -> float:
    """A number from text; NaN where it is none."""
    try:
        return math.nan if "_" in text else float(text)  # 1_000 is a number in Python alone
    except ValueError:
        return math.nan


def label_file(folder: Path, name: str) -> str:
    """The name of an annotation file in a folder, or of its compressed copy where that alone is there."""
    return f"{name}.gz" if not (folder / name).exists() and (folder / f"{name}.gz").is_file() else name


def annotation_files(folder: Path, pattern: str) -> list[Path]:
    """The annotation files of a folder, and the compressed ones."""
    return [*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]


def ordered(boxes: npt.ArrayLike) -> FloatArray:
    """(N, 4) boxes xyxy with reversed corners swapped."""
    return np.sort(np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 2), axis=1).reshape(-1, 4)


def without_area(boxes: npt.ArrayLike, limit: npt.ArrayLike = math.inf) -> npt.NDArray[np.bool_]:
    """(N,) whether no area is left of boxes (N, 4) xyxy once their corners are ordered and clipped to [0, limit].

    Args:
        boxes: NaN is no box, and no fault.
        limit: one for all, or (N, 2) width and height.
    """
    limit = np.asarray(limit)
    clipped = np.clip(ordered(boxes).reshape(-1, 2, 2), 0, limit[:, None] if limit.ndim else limit)
    return np.any(clipped[:, 1] <= clipped[:, 0], axis=1)


def far_outside(points: npt.ArrayLike, limit: npt.ArrayLike = 1.0) -> npt.NDArray[np.bool_]:
    """(N,) whether points (N, 2) lie outside of [0, limit] by more than ``MARGIN`` of it.

    Args:
        points: x, y.
        limit: one for all, or (N, 2) width and height; inf where it is not known.
    """
    points, limit = np.asarray(points, dtype=np.float64), np.asarray(limit, dtype=np.float64)
    return np.any((points < -MARGIN * limit) | (points > (1 + MARGIN) * limit), axis=1)


def outside(annotations: Annotations, sizes: IntArray) -> dict[int, str]:
    """The people of whom a box, or the target in frame, does not lie in their picture, each with the first reason.

    Of several boxes a person (columns (P, K, 4)) those outside become NaN, no box: they need not be the person's own.

    Args:
        annotations: in the release's units.
        sizes: (I, 2) of the images; nothing is outside where one is 0.
    """
    size = np.where(sizes > 0, sizes, np.inf)[annotations.person_image]
    whole = np.ones_like(size)
    limit = size if annotations.head_unit == "pixel" else whole
    found: dict[int, str] = {}

    def add(people: IntArray, what: str, values: FloatArray) -> None:
        for person, value in zip(people.tolist(), values, strict=True):
            numbers, place = ",".join(f"{number:g}" for number in value), "{:g} x {:g} pixels".format(*size[person])
            found.setdefault(person, f"{what} {numbers}, outside the picture of {place}")

    for name, column in {"head box": annotations.head, **annotations.columns}.items():
        if holds_boxes(column):
            bad = without_area(column, np.repeat(limit, math.prod(column.shape[1:-1]), axis=0)).reshape(
                column.shape[:-1]
            )
            if column.ndim == 2:
                add(np.flatnonzero(bad), name, column[bad])
            else:
                column[bad] = np.nan
    owner = np.repeat(np.arange(annotations.people), np.diff(annotations.point_start))
    limit = size if annotations.point_unit == "pixel" else whole
    points = np.flatnonzero(far_outside(annotations.points, limit[owner]))
    add(owner[points], "gaze", annotations.points[points])
    return dict(sorted(found.items()))


def texts(values: Iterable[Any]) -> npt.NDArray[Any]:
    """(N,) the values as an array of str."""
    return np.array([*values], dtype=str)


def people_of(
    rows: Rows, dataset: str, split: str, columns: Mapping[str, npt.ArrayLike] | None = None, **fields: Any
) -> Annotations:
    """The people that rows describe.

    Each row is one annotation of one person. Its columns are ``image``, ``group``, ``person_id``, ``inout``, ``BOX``
    and ``POINT`` (ignored where the person is not in frame). Images, and the people of an image, stand in the order of
    their first rows. Rows with the same ``person_id`` are one person, with the box of the first row and all points.

    Args:
        rows: the sound rows; their issues are handed on.
        dataset: name of the data set.
        split: name of the split.
        columns: further columns over people, each as R values; the person's first row counts.
        fields: further fields of ``Annotations``, such as ``point_unit``.
    """
    table = rows.table
    image, images = pd.factorize(table["image"])
    person, _ = pd.factorize(table["person_id"])
    order = np.lexsort((person, image))
    table, image, person = table.iloc[order], image[order], person[order]
    # The first row of each person and of each image.
    start, image_start = (np.flatnonzero(np.diff(place, prepend=-1)) for place in (person, image))
    start = np.union1d(start, image_start)
    visible = table["inout"].to_numpy() == IN_FRAME
    counts = np.add.reduceat(visible, start, dtype=np.int64) if len(start) else np.zeros(0, np.int64)

    def of_people(values: npt.ArrayLike) -> npt.NDArray[Any]:
        column = np.asarray(values)[order][start]
        return texts(column) if column.dtype == object else column

    return Annotations(
        dataset=dataset,
        split=split,
        images=texts(images),
        groups=texts(table["group"].to_numpy()[image_start]),
        person_id=texts(table["person_id"].to_numpy()[start]),
        person_image=image[start].astype(np.int64),
        head=table[BOX].to_numpy(np.float64)[start],
        points=table[POINT].to_numpy(np.float64)[visible],
        point_start=ragged_starts(counts),
        inout=np.maximum.reduceat(table["inout"].to_numpy(np.int8), start) if len(start) else np.zeros(0, np.int8),
        columns={name: of_people(values) for name, values in (columns or {}).items()},
        issues=tuple(rows.issues),
        files=tuple(rows.files),
        lines=table[["file", "line"]].to_numpy(np.int64)[start] if rows.files else None,
        **fields,
    )


def train_or_val(annotations: Annotations, split: str, val: npt.NDArray[np.bool_]) -> Annotations:
    """The part of an official training set that is ``train`` or ``val``; all of it for another split.

    Args:
        annotations: of the whole training set.
        split: the part.
        val: (I,) the images held out for validation.
    """
    if split not in ("train", "val"):
        return annotations
    return annotations.select((val if split == "val" else ~val)[annotations.person_image], split)


@dataclass(eq=False)
class ReleasedDataset(GazeDataset):
    """Base of data sets that are annotation files and images below ``root``.

    Args:
        missing_images: ``error`` stops at annotated images without a file, ``skip`` leaves them out and counts them.
    """

    missing_images: Policy = "error"
    _on_disk: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False)

    def cached(self, files: Iterable[str], read: Callable[[], T], *options: str) -> T:
        """``read()``, or what it gave last time from unchanged files (name, size, modification time).

        Args:
            files: everything that ``read`` reads, relative to the root.
            read: its errors are passed on and nothing is kept.
            options: what its result depends on besides the files.
        """
        return cached([self.card.name, self.version, options, *self._state(files)], read)

    def _state(self, files: Iterable[str]) -> list[Any]:
        """What changes with the files: their root, names, sizes and modification times."""
        root = self.existing_root()
        return [str(root.resolve()), [(file, (s := (root / file).stat()).st_size, s.st_mtime_ns) for file in files]]

    def label_files(self, split: str) -> Mapping[str, str]:
        """The annotation files of a split, relative to the root, by a name that no copy spells otherwise.

        Only needed where the digest of the official files is known.
        """
        return {}

    def label_digest(self, split: str) -> str | None:
        """The sha256 of the names and contents of ``label_files``, sorted by name; see ``label_lines``."""
        paths = dict(sorted(self.label_files(split).items()))
        if not paths:
            return None

        def read() -> str:
            digest, root = hashlib.sha256(), self.existing_root()
            for name, path in paths.items():
                digest.update(f"{name}\n".encode())
                digest.update(label_lines(root / path))
            return digest.hexdigest()

        return cached(["label digest", *self._state(paths.values())], read)

    def checked(self, annotations: Annotations) -> Annotations:
        """The annotations that make sense, of images that are there; what is left out is an error unless skipped.

        A row is bad as well where a box lies outside of its picture (``outside``).

        Raises:
            DataError: names the first five, their number and the remedy.
        """
        self._refuse("bad_rows", annotations.issues)
        present = self._present(annotations)
        missing = [Issue(str(name), 0, "annotated, but there is no such file") for name in annotations.images[~present]]
        self._refuse("missing_images", missing)
        if annotations.sizes is None:
            annotations = replace(annotations, sizes=self._image_sizes(annotations))
        assert annotations.sizes is not None
        strange = outside(annotations, annotations.sizes)
        issues = [Issue(*annotations.place(person), what) for person, what in strange.items()]
        self._refuse("bad_rows", issues)
        annotations = replace(annotations, issues=(*annotations.issues, *issues, *missing))
        if strange:
            kept = np.ones(annotations.people, dtype=bool)
            kept[[*strange]] = False
            annotations, present = annotations.select(kept), present[np.unique(annotations.person_image[kept])]
        annotations = self.settled(annotations)
        return annotations if present.all() else annotations.select(present[annotations.person_image])

    def settled(self, annotations: Annotations) -> Annotations:
        """What is made of all sound rows together, those of missing images included; by default nothing."""
        return annotations

    def _refuse(self, option: Literal["bad_rows", "missing_images"], issues: Sequence[Issue]) -> None:
        if issues and getattr(self, option) == "error":
            first = sorted(issues, key=lambda issue: (issue.file, issue.row))[:5]
            more = [f"... and {len(issues) - 5:,} more"] if len(issues) > 5 else []
            what = option.replace("_", " ")
            raise DataError(
                "\n  ".join([f"{self.card.name} has {len(issues):,} {what}:", *map(str, first), *more])
                + f"\nRestore them from the release, or leave them out and count them: --dataset.{option} skip"
            )

    def _present(self, annotations: Annotations) -> npt.NDArray[np.bool_]:
        listed = cache(self.listed)  # a folder is listed once, however many of its files are asked for
        files = (self.image_file(image).rpartition("/") for image in annotations.images.tolist())
        return np.array([name in listed(folder) for folder, _, name in files], dtype=bool)

    def listed(self, folder: str) -> frozenset[str]:
        """The names of what a folder below the root holds; nothing where there is no such folder."""
        try:
            return frozenset(entry.name for entry in os.scandir(self.existing_root() / folder))
        except OSError:
            return frozenset()

    def path(self, records: Records, image: int) -> Path:
        return self.existing_root() / self.image_file(str(records.images[image]))

    def image_file(self, image: str) -> str:
        """The file of an image relative to the root; by default the image's name in the records."""
        return image

    def on_disk(self, parent: str, name: str) -> str:
        """The name on disk of a folder below ``parent`` that the records call ``name`` (see ``canonical``)."""
        if parent not in self._on_disk:
            folders = (self.existing_root(parent) / parent).iterdir()
            self._on_disk[parent] = {self.canonical(folder.name): folder.name for folder in folders}
        return self._on_disk[parent].get(name, name)

    @staticmethod
    def canonical(name: str) -> str:
        """How the records spell the name of a folder, which copies of a release have with spaces or underscores."""
        return name.replace(" ", "_")


@dataclass(eq=False)
class CategoryDataset(ReleasedDataset):
    """Base of data sets whose people look at things of a category, all of which the file ``VOCABULARY`` lists.

    Args:
        clip_weights: brings free text to the nearest category; without them it has to be the category's own name.
        clip_model: the architecture of those weights, by its name in open_clip.
    """

    clip_weights: Path | None = None
    clip_model: str = "ViT-B-32-quickgelu"

    def __post_init__(self) -> None:
        if self.clip_weights is not None:
            words = Vocabulary(self.label_folder / VOCABULARY, self.clip_model, Path(self.clip_weights))
            self.__dict__["protocol"] = replace(self.protocol, vocabulary=words)

    @property
    def label_folder(self) -> Path:
        """The folder of the vocabulary."""
        return Path(self.root or ".")
