"""What is wrong with a data set on disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME
from gazebench.data.dataset import GazeDataset


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
