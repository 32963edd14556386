"""Groups of people that results are looked at by: subset, size of the head, distance of the target, company."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import FloatArray
from gazebench.core.types import IN_FRAME, Records
from gazebench.metrics.protocol import SUBSETS

HEADS = ((0.1, "small heads (a tenth of the height)"), (0.2, "medium heads"), (math.inf, "large heads"))
DISTANCES = ((0.2, "near targets (under .2)"), (0.4, "targets at .2 to .4"), (math.inf, "far targets (over .4)"))
CROWDS = ((1, "one person annotated"), (3, "two or three people"), (math.inf, "four people or more"))


def points_in_frame(records: Records, person: int) -> FloatArray:
    """(A, 2) a person's annotated points, normalised; none where the target is out of frame."""
    points = records.points_of(person)
    return points if records.inout[person] == IN_FRAME else points[:0]


def traits(records: Records) -> pd.DataFrame:
    """By person id: height of the head, distance from its centre to the mean annotation, and people in the image."""
    points = [points_in_frame(records, person) for person in range(records.people)]
    mean = np.array([one.mean(0) if len(one) else (math.nan, math.nan) for one in points]).reshape(-1, 2)
    centre = (records.head[:, :2] + records.head[:, 2:]) / 2
    facts = {
        "head": records.head[:, 3] - records.head[:, 1],
        "distance": np.linalg.norm(mean - centre, axis=1),
        "crowd": np.diff(records.person_start)[records.person_image],
    }
    return pd.DataFrame(facts, index=pd.Index(records.person_id.astype(str), name="person_id"))


def groups(people: pd.DataFrame, facts: pd.DataFrame) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Names and masks (N,) of the groups that hold anybody.

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
