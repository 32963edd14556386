"""Consistent and inconsistent people: the rule that tells them apart, and the split files that keep its verdicts.

PROTOCOLS, consistent / inconsistent; Wang et al., section 3.2.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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
        rows: ``COLUMNS`` by person id; ``inside`` and ``points`` are -1 in a file without them.
        card: what ``gazebench probe`` wrote beside it; empty for a file of somebody's own.
    """

    path: Path
    sha256: str
    rows: pd.DataFrame
    card: Mapping[str, Any]


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
    header, *rows = [line.split("\t") for line in data.decode("utf-8-sig", errors="replace").splitlines()] or [[]]
    if tuple(header) not in (COLUMNS, COLUMNS[:2]):
        raise DataError(f"{path}:1: the first line must be 'person_id<TAB>subset' or {'<TAB>'.join(COLUMNS)!r}")
    seen: set[str] = set()
    for number, cells in enumerate(rows, start=2):
        fits = len(cells) == len(header) and cells[1] in (CONSISTENT, INCONSISTENT, "")
        if not fits or not all(re.fullmatch(r"-?\d+", count) for count in cells[2:4]):
            raise DataError(
                f"{path}:{number}: {cells} is no row of {', '.join(header)}; subset is {CONSISTENT!r}, "
                f"{INCONSISTENT!r} or empty, inside and points are whole numbers"
            )
        if cells[0] in seen:
            raise DataError(f"{path}:{number}: {cells[0]} is there twice; remove one of the two lines")
        seen.add(cells[0])
    table = pd.DataFrame(rows, columns=header)
    if len(header) == 2:
        table = table.assign(inside=-1, points=-1, origin="")
    return Split(path, sha256, table.astype({"inside": np.int64, "points": np.int64}).set_index("person_id"), card)


def _card(path: Path, sha256: str) -> dict[str, Any]:
    place = path.with_suffix(".json")
    if not place.is_file():
        return {}
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


def attach(records: Records, split: Split) -> tuple[Records, dict[str, Any]]:
    """The records with the column ``subset``, "" for whom the file does not name; what a result records of the split.

    Of the people who are missing in one of the two, ``unnamed`` counts those of the data, in frame, whom the file does
    not name, ``unknown`` those of the file who are not in the data; ``undecided`` are in frame, and in the file without
    a verdict (unparsed answers, no head box).

    Raises:
        DataError: the file names nobody of the records, or was made for other annotations of them.
    """
    people = pd.Index(records.person_id.astype(str))
    unknown = split.rows.index[~split.rows.index.isin(people)]
    if len(unknown) == len(split.rows):
        raise DataError(
            f"{split.path}: none of its {len(split.rows):,} people is in {records.dataset}/{records.split} "
            f"(the file says e.g. {[*unknown[:1]]}, the data {[*people[:1]]})"
        )
    rows, counts = split.rows.reindex(people), np.diff(records.point_start)
    for person in np.flatnonzero(~rows["points"].isin([-1, np.nan]) & (rows["points"] != counts))[:1]:
        raise DataError(
            f"{split.path}: {people[person]} has {rows['points'].iloc[person]:.0f} annotated points there and "
            f"{counts[person]} in the data: the split was made for other annotations; make it anew with "
            "`gazebench probe`"
        )
    subset = rows["subset"].fillna("").to_numpy().astype("U12")
    named, without = people.isin(split.rows.index), (records.inout == IN_FRAME) & (subset == "")
    unnamed = people[without & ~named]
    identity = {
        "name": split.card.get("name", split.path.name),
        "sha256": split.sha256,
        "prober": split.card.get("prober"),
        "rule": split.card.get("rule"),
        "verified": bool(split.card),
        "complete": bool(split.card.get("complete", True)),
        "unnamed": len(unnamed),
        "unnamed_examples": unnamed[:3].tolist(),
        "unknown": len(unknown),
        "unknown_examples": unknown[:3].tolist(),
        "undecided": int((without & named).sum()),
    }
    return replace(records, columns={**records.columns, "subset": subset}), identity


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
