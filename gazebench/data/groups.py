"""Groups of people that results are looked at by: subset, size of the head, distance of the target, company."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import FloatArray, clean_boxes, normalise
from gazebench.core.types import IN_FRAME, Records
from gazebench.data.dataset import GazeDataset
from gazebench.metrics.protocol import SUBSETS

HEADS = ((0.1, "small heads (a tenth of the height)"), (0.2, "medium heads"), (math.inf, "large heads"))
DISTANCES = ((0.2, "near targets (under .2)"), (0.4, "targets at .2 to .4"), (math.inf, "far targets (over .4)"))
CROWDS = ((1, "one person annotated"), (3, "two or three people"), (math.inf, "four people or more"))


def head_and_points(dataset: GazeDataset, records: Records, person: int) -> tuple[FloatArray, FloatArray]:
    """A person's head box (4,) and annotated points (G, 2), normalised; no points where the target is out of frame."""
    size = dataset.size(records, int(records.person_image[person]))
    head = clean_boxes(normalise(records.head[[person]], records.head_unit, *size))[0]
    points = normalise(records.points_of(person), records.point_unit, *size)
    return head, points if records.inout[person] == IN_FRAME else points[:0]


def traits(dataset: GazeDataset, records: Records) -> pd.DataFrame:
    """By person id: height of the head, distance from its centre to the mean annotation, and people in the image."""
    rows = []
    company = np.diff(records.person_start)
    for person in range(records.people):
        head, points = head_and_points(dataset, records, person)
        centre = (head[:2] + head[2:]) / 2
        distance = float(np.linalg.norm(points.mean(0) - centre)) if len(points) else math.nan
        crowd = int(company[records.person_image[person]])
        rows.append((str(records.person_id[person]), head[3] - head[1], distance, crowd))
    return pd.DataFrame(rows, columns=["person_id", "head", "distance", "crowd"]).set_index("person_id")


def groups(people: pd.DataFrame, facts: pd.DataFrame) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Names and masks (N,) of the groups that somebody is in.

    Args:
        people: by person id, with the column ``subset``.
        facts: of ``traits``, of these and maybe other people.
    """
    facts = facts.reindex(people.index)
    found: list[tuple[str, Any]] = [("everybody", np.ones(len(people), dtype=bool))]
    found += [(name, (people["subset"] == name).to_numpy()) for name in SUBSETS[1:]]
    for column, bounds in (("head", HEADS), ("distance", DISTANCES), ("crowd", CROWDS)):
        values, low = facts[column].to_numpy(dtype=float), -math.inf
        for bound, name in bounds:
            found.append((name, (values > low) & (values <= bound)))
            low = bound
    return [(name, mask) for name, mask in found if mask.any()]
