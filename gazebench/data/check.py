"""What is wrong with a data set on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from tabulate import tabulate

from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME
from gazebench.data.dataset import COMPLETE, GazeDataset


def findings(dataset: GazeDataset, split: str, images: int) -> list[str]:
    """What is wrong with a split: skipped rows, unreadable pictures, empty boxes, points outside the picture."""
    records = dataset.records(split)
    found = [str(issue) for issue in records.issues]
    count = len(records)
    chosen = range(count) if not images else np.unique(np.linspace(0, count - 1, min(count, images)).astype(int))
    start = records.person_start
    owner = np.repeat(np.arange(records.people), np.diff(records.point_start))
    outside = ((records.points < 0) | (records.points > 1)).any(axis=1) & (records.inout[owner] == IN_FRAME)
    defects: dict[str, Any] = {
        "has a head box without area": (records.head[:, 2:] <= records.head[:, :2]).any(axis=1),
        "is in frame with a target outside it": np.bincount(owner[outside], minlength=records.people) > 0,
    }
    for image in chosen:
        try:
            dataset.image(records, int(image))
        except DataError as error:
            found.append(str(error))
            continue
        for person in range(start[image], start[image + 1]):
            told = f"{records.images[image]}: person {records.person_id[person]}"
            found += [f"{told} {defect}" for defect, people in defects.items() if people[person]]
    return found


def parts_table(dataset: GazeDataset, split: str, rows: int) -> list[str]:
    """The lines of a table of a split's parts (``GazeDataset.inventory``), under one that says how many are complete.

    Args:
        dataset: the data set.
        split: of it.
        rows: the most incomplete parts to list; 0 lists all parts.
    """
    parts = dataset.inventory(split)
    if not parts:
        return []
    amiss = [part for part in parts if part["verdict"] != COMPLETE]
    shown = amiss[:rows] if rows else parts
    left = len(amiss) - rows if rows else 0
    lines = [f"{split}: {len(parts) - len(amiss):,} of {len(parts):,} {next(iter(parts[0]))}s are complete"]
    lines += tabulate(shown, headers="keys").splitlines() if shown else []
    return [*lines, *([f"... and {left:,} more; --rows 0 lists all"] if left > 0 else [])]
