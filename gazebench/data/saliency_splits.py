"""Consistent and inconsistent people: the rule that tells them apart, and the split files that keep its verdicts.

PROTOCOLS, consistent / inconsistent; Wang et al., section 3.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, Records

CONSISTENT, INCONSISTENT = "consistent", "inconsistent"
RULE: Mapping[str, Any] = {
    "name": "more-than-half",
    "version": 1,
    "text": "consistent when more than half of the annotated points lie in the union of the regions, edges included",
}
COLUMNS = ("person_id", "subset", "inside", "points", "origin")
"""Of a split file: verdict, annotated points inside the regions, of how many, and what the verdict rests on."""


def inside(points: FloatArray, regions: FloatArray) -> npt.NDArray[np.bool_]:
    """Which of the points (A, 2) lie in at least one of the regions (K, 4) xyxy; edges belong to a region."""
    points, regions = points.reshape(-1, 1, 2), regions.reshape(1, -1, 4)
    in_each = (points >= regions[..., :2]) & (points <= regions[..., 2:])
    return np.asarray(in_each.all(-1).any(-1), dtype=np.bool_)


def verdict(inside: int, points: int, threshold: float = 0.5) -> str:
    """The rule: consistent when more than ``threshold`` of the points are inside; "" without a point."""
    if not points:
        return ""
    return CONSISTENT if inside > threshold * points else INCONSISTENT


@dataclass(frozen=True, eq=False)
class Split:
    """A split file with its card.

    Attributes:
        path: of the file.
        sha256: of the file.
        rows: person id to the other columns; ``inside`` and ``points`` are -1 in a file without them.
        card: what ``gazebench probe`` wrote beside it; None for a file of somebody's own.
    """

    path: Path
    sha256: str
    rows: Mapping[str, tuple[str, int, int, str]]
    card: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The prober's, or the file's."""
        return str(self.card["name"]) if self.card else self.path.name


def locate(given: Path, dataset: str, split: str) -> Path | None:
    """The split file that ``--dataset.subsets`` means: a file (for ``test``), a folder of them, or a prober's name.

    None when a folder or name has nothing for this split.

    Raises:
        DataError: there is no such file, folder or name; the message lists the names there are.
    """
    if given.is_file():
        return given if split == "test" else None
    shipped = Path(import_module("gazebench.splits").__path__[0]) / dataset  # a namespace: it has no file of its own
    for folder in (given, shipped / given.name):
        if folder.is_dir() and any(folder.glob("*.tsv")):
            path = folder / f"{split}.tsv"
            return path if path.is_file() else None
    names = ", ".join(sorted({path.parent.name for path in shipped.glob("*/*.tsv")})) or "none"
    raise DataError(
        f"{given}: no such split file or folder, and no such prober among those whose split of {dataset} is shipped "
        f"({names}); make one with `gazebench probe {dataset}`, or leave --dataset.subsets out"
    )


def read(path: Path) -> Split:
    """Reads a split file: tab-separated ``COLUMNS``, or ``person_id`` and ``subset`` alone.

    Raises:
        DataError: another header, a row that makes no sense, a person twice, or a file its card does not vouch for.
    """
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    card = _card(path, sha256)
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    header = tuple(lines[0].split("\t")) if lines else ()
    if header not in (COLUMNS, COLUMNS[:2]):
        raise DataError(f"{path}:1: the first line must be 'person_id<TAB>subset' or {'<TAB>'.join(COLUMNS)!r}")
    rows: dict[str, tuple[str, int, int, str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise DataError(f"{path}:{number}: {len(cells)} columns, expected {len(header)}")
        if cells[1] not in (CONSISTENT, INCONSISTENT, ""):
            raise DataError(
                f"{path}:{number}: subset is {cells[1]!r}; it must be 'consistent', 'inconsistent' or empty"
            )
        if cells[0] in rows:
            raise DataError(f"{path}:{number}: {cells[0]} is there twice; remove one of the two lines")
        try:
            rows[cells[0]] = (cells[1], int(cells[2]), int(cells[3]), cells[4]) if cells[2:] else (cells[1], -1, -1, "")
        except ValueError:
            raise DataError(f"{path}:{number}: inside and points must be whole numbers, not {cells[2:4]}") from None
    return Split(path, sha256, rows, card)


def _card(path: Path, sha256: str) -> dict[str, Any] | None:
    place = path.with_suffix(".json")
    if not place.is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        expected = card["sha256"]["split"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: not the card of a split ({error!r}); restore it or delete it") from error
    if expected != sha256:
        raise DataError(
            f"{path}: changed since its card {place.name} was written (sha256 {sha256[:12]}, the card says "
            f"{expected[:12]}); restore it, make it anew with `gazebench probe --build`, or, if it is your own, delete "
            "the card"
        )
    return card


@dataclass(frozen=True)
class Coverage:
    """How a split file and the records it is used on fit together.

    Attributes:
        unnamed: people of the data, in frame, whom the file does not name.
        unknown: people the file names who are not in the data.
        undecided: people in frame the file names without a verdict (unparsed answers, no head box).
    """

    unnamed: tuple[str, ...]
    unknown: tuple[str, ...]
    undecided: int


def attach(records: Records, split: Split) -> tuple[Records, Coverage]:
    """The records with the column ``subset``, "" for whom the file does not name; and who is missing where.

    Raises:
        DataError: the file names nobody of the records, or was made for other annotations of them.
    """
    people = [str(person) for person in records.person_id]
    known = set(people)
    unknown = tuple(person for person in split.rows if person not in known)
    if len(unknown) == len(split.rows):
        raise DataError(
            f"{split.path}: none of its {len(split.rows):,} people is in {records.dataset}/{records.split} "
            f"(the file says e.g. {next(iter(split.rows), '')!r}, the data {next(iter(people), '')!r})"
        )
    rows = [split.rows.get(person, ("", -1, -1, "")) for person in people]
    for person, (_, _, points, _), count in zip(people, rows, np.diff(records.point_start).tolist(), strict=True):
        if points not in (-1, count):
            raise DataError(
                f"{split.path}: {person} has {points} annotated points there and {count} in the data: the "
                "split was made for other annotations; make it anew with `gazebench probe`"
            )
    column = np.array([subset for subset, *_ in rows], dtype="U12")
    without = [people[index] for index in np.flatnonzero((records.inout == IN_FRAME) & (column == ""))]
    unnamed = tuple(person for person in without if person not in split.rows)
    coverage = Coverage(unnamed, unknown, len(without) - len(unnamed))
    return replace(records, columns={**records.columns, "subset": column}), coverage


def identity(split: Split, coverage: Coverage) -> dict[str, Any]:
    """What a result records of the subsets it is reported by."""
    card = split.card or {}
    return {
        "name": split.name,
        "sha256": split.sha256,
        "prober": card.get("prober"),
        "rule": card.get("rule"),
        "verified": split.card is not None,
        "complete": bool(card.get("complete", True)),
        "unnamed": len(coverage.unnamed),
        "unnamed_examples": list(coverage.unnamed[:3]),
        "unknown": len(coverage.unknown),
        "unknown_examples": list(coverage.unknown[:3]),
        "undecided": coverage.undecided,
    }


def defects(subsets: Mapping[str, Any] | None) -> list[str]:
    """Why numbers by subset must not look like official ones, from what a result records of its subsets."""
    if subsets is None:
        return []
    found = []
    if not subsets["verified"]:
        found.append(f"subsets of {subsets['name']}, a file without a card")
    if not subsets["complete"]:
        found.append(f"subsets of {subsets['name']}: not everybody was probed")
    if subsets["unnamed"]:
        examples = ", ".join(subsets["unnamed_examples"])
        found.append(f"subsets of {subsets['name']}: {subsets['unnamed']:,} people are not in the split ({examples})")
    return found
