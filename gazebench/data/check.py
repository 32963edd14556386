"""What is wrong with a data set on disk."""

from __future__ import annotations

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
    for image in chosen:
        name = records.images[image]
        try:
            dataset.image(records, int(image))
        except DataError as error:
            found.append(str(error))
            continue
        for person in range(start[image], start[image + 1]):
            box, points = records.head[person], records.points_of(person)
            if np.isfinite(box).all() and (box[2:] <= box[:2]).any():
                found.append(f"{name}: person {records.person_id[person]} has a head box without area")
            if records.inout[person] == IN_FRAME and len(points) and not ((points >= 0) & (points <= 1)).all():
                found.append(f"{name}: person {records.person_id[person]} is in frame with a target outside it")
    return found
