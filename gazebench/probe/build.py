"""From raw answers to a split: deterministic, apart from the asking, and described by a card."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gazebench.core.boxes import FloatArray, normalise
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import IN_FRAME, Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.saliency_splits import COLUMNS, CONSISTENT, INCONSISTENT, RULE, inside, verdict
from gazebench.engine import record as results
from gazebench.probe.asking import Plan, final
from gazebench.probe.probers import Prober
from gazebench.vlm.store import AnswerStore

ANSWER, UNPARSED, UNANSWERED, NO_BOX, OUT = "answer", "unparsed", "unanswered", "no_head_box", "out_of_frame"
FROM = "from "
"""Origin of a verdict that rests on the regions of a neighbouring frame: this and the person's id there."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """One person of a split.

    Attributes:
        person_id: of the dataset.
        subset: ``consistent``, ``inconsistent`` or "".
        inside: annotated points inside the regions.
        points: annotated points.
        origin: what it rests on: ``answer``, ``from OTHER`` (propagated), or why there is none: ``unparsed``,
            ``unanswered``, ``no_head_box``, ``out_of_frame``.
        regions: (K, 4) normalised xyxy.
    """

    person_id: str
    subset: str
    inside: int
    points: int
    origin: str
    regions: FloatArray


def verdicts(
    dataset: GazeDataset, records: Records, prober: Prober, store: AnswerStore, who: Plan, threshold: float = 0.5
) -> list[Verdict]:
    """The verdict on everybody of a split, in the records' order; whose picture cannot be read has no answer."""
    stored = store.answers(records.split)
    nothing = np.zeros((0, 4))
    said: dict[int, tuple[str, FloatArray]] = {}
    for person in who.asked:
        answers = stored.get(str(records.person_id[person]))
        if not answers:
            said[person] = UNANSWERED, nothing
            continue
        try:
            answer, _ = final(dataset, records, prober, int(records.person_image[person]), answers)
        except ImageError:
            said[person] = UNANSWERED, nothing
            continue
        said[person] = (ANSWER if answer.usable else UNPARSED), answer.regions
    found = []
    for person in range(records.people):
        source = int(who.source[person])
        origin, regions = said[source] if source >= 0 else (NO_BOX, nothing)
        try:
            points = _points(dataset, records, person)
        except ImageError:
            points, origin, regions = nothing[:, :2], (UNANSWERED if source >= 0 else NO_BOX), nothing
        hit, subset = 0, ""
        if origin != UNANSWERED and (records.inout[person] != IN_FRAME or not len(points)):
            origin = OUT
        elif origin == ANSWER:
            hit = int(inside(points, regions).sum())
            subset = verdict(hit, len(points), threshold)
            if source != person:
                origin = f"{FROM}{records.person_id[source]}"
        found.append(Verdict(str(records.person_id[person]), subset, hit, len(points), origin, regions))
    return found


def _points(dataset: GazeDataset, records: Records, person: int) -> FloatArray:
    size = (1, 1)
    if records.point_unit == "pixel":
        size = dataset.size(records, int(records.person_image[person]))
    return normalise(records.points_of(person), records.point_unit, *size)


def write(
    folder: Path,
    dataset: GazeDataset,
    records: Records,
    prober: Prober,
    store: AnswerStore,
    who: Plan,
    *,
    partial: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Writes ``<split>.tsv`` and its card into a folder; the same answers give the same file.

    Raises:
        DataError: somebody was not asked yet, and ``partial`` is not set.
    """
    found = verdicts(dataset, records, prober, store, who)
    open_ = sum(one.origin == UNANSWERED for one in found)
    if open_ and not partial:
        raise DataError(
            f"{open_:,} of {len(found):,} people of {records.dataset}/{records.split} have no answer yet "
            f"({store.folder}); run the same command without --build to ask about them, or add --partial"
        )
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join((o.person_id, o.subset, str(o.inside), str(o.points), o.origin)) for o in found]
    text = "\n".join(lines) + "\n"
    path = folder / f"{records.split}.tsv"
    card = describe(dataset, records, prober, store, who, found) | {
        "sha256": {
            "split": hashlib.sha256(text.encode()).hexdigest(),
            "answers": store.digest(records.split),
            "annotations": records.fingerprint(),
        }
    }
    # The card last: a split without a card is only unvouched for, a card without its split would be an error.
    path.with_suffix(".json").unlink(missing_ok=True)
    results.write_atomically(path, text)
    results.write_atomically(path.with_suffix(".json"), json.dumps(card, indent=1, sort_keys=True) + "\n")
    return path, card


def describe(
    dataset: GazeDataset, records: Records, prober: Prober, store: AnswerStore, who: Plan, found: list[Verdict]
) -> dict[str, Any]:
    """The card of a split, but for checksums."""
    subsets = Counter(one.subset for one in found)
    origins = Counter("propagated" if one.origin.startswith(FROM) else one.origin for one in found)
    decided = subsets[CONSISTENT] + subsets[INCONSISTENT]
    code = results.code_identity()
    completeness = dataset.completeness(records.split)
    return {
        "name": prober.name,
        "dataset": records.dataset,
        "split": records.split,
        "rule": dict(RULE),
        "prober": prober.identity(),
        "prober_digest": store.digest_of_identity,
        "stride": who.stride,
        "counts": {
            "people": len(found),
            "asked": len(who.asked),
            CONSISTENT: subsets[CONSISTENT],
            INCONSISTENT: subsets[INCONSISTENT],
            **{origin: origins[origin] for origin in (ANSWER, "propagated", UNPARSED, UNANSWERED, NO_BOX, OUT)},
        },
        "share_consistent": round(subsets[CONSISTENT] / decided, 4) if decided else None,
        "complete": not origins[UNANSWERED],
        "data_complete": completeness.complete,
        "date": datetime.now(UTC).date().isoformat(),
        "code": {"version": code["version"], "commit": code["commit"], "dirty": code["dirty"]},
    }
