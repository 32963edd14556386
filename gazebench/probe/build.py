"""Builds a split and its card from stored answers; the same answers give the same split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.types import IN_FRAME
from gazebench.data.saliency_splits import COLUMNS, CONSISTENT, INCONSISTENT, RULE, inside, verdict
from gazebench.engine.record import code_identity
from gazebench.probe.asking import Probe

ANSWER, UNPARSED, UNANSWERED, NO_BOX, OUT = "answer", "unparsed", "unanswered", "no_head_box", "out_of_frame"
WITHOUT_VERDICT = UNPARSED, UNANSWERED, NO_BOX, OUT
FROM = "from "
"""Beginning of the origin of a verdict from the regions of another frame; the person's id there follows."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on one person of a split.

    Attributes:
        person_id: id in the data set.
        subset: ``consistent``, ``inconsistent`` or "" for no verdict.
        inside: number of annotated points inside the regions.
        points: number of annotated points.
        origin: ``answer``, ``from OTHER`` (propagated), or the reason for no verdict: ``unparsed``, ``unanswered``,
            ``no_head_box``, ``out_of_frame``.
        regions: (K, 4) normalised xyxy.
    """

    person_id: str
    subset: str
    inside: int
    points: int
    origin: str
    regions: FloatArray


def verdicts(probe: Probe, threshold: float = 0.5) -> list[Verdict]:
    """The verdict on everybody of a split, in the records' order; ``unanswered`` for unreadable images."""
    records, stored = probe.records, probe.store.answers(probe.records.split)
    readable = (records.sizes == 0).sum(axis=1)[records.person_image] == 0
    nothing = np.zeros((0, 4))
    results: dict[int, tuple[str, FloatArray]] = {-1: (NO_BOX, nothing)}
    for person in probe.asked.tolist():
        results[person] = UNANSWERED, nothing
        answers = stored.get(str(records.person_id[person]))
        if answers and readable[person]:
            answer = probe.final(person, answers)
            results[person] = (ANSWER if answer.usable else UNPARSED), answer.regions
    found = []
    for person, source in enumerate(probe.source.tolist()):
        origin, regions = results[source]
        points, hit, subset = records.points_of(person), 0, ""
        if source >= 0 and not np.isfinite(points).all():  # the release has them in pixels of an unreadable image
            origin, regions = UNANSWERED, nothing
        if origin != UNANSWERED and (records.inout[person] != IN_FRAME or not len(points)):
            origin = OUT
        elif origin == ANSWER:
            hit = int(inside(points, regions).sum())
            subset = verdict(hit, len(points), threshold)
            if source != person:
                origin = f"{FROM}{records.person_id[source]}"
        found.append(Verdict(str(records.person_id[person]), subset, hit, len(points), origin, regions))
    return found


def write(folder: Path, probe: Probe, *, partial: bool = False) -> tuple[Path, dict[str, Any]]:
    """Writes ``<split>.tsv`` and its card into a folder; returns the path and the card.

    Raises:
        DataError: somebody has no answer yet, and ``partial`` is not set.
    """
    records, store, found = probe.records, probe.store, verdicts(probe)
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
    card = describe(probe, found) | {
        "sha256": {
            "split": hashlib.sha256(text.encode()).hexdigest(),
            "answers": store.digest(records.split),
            "annotations": records.fingerprint(),
        }
    }
    # The card last: a split without a card is accepted, a card without its split is an error.
    path.with_suffix(".json").unlink(missing_ok=True)
    write_atomically(path, text)
    write_atomically(path.with_suffix(".json"), json.dumps(card, indent=1, sort_keys=True) + "\n")
    return path, card


def describe(probe: Probe, found: Sequence[Verdict]) -> dict[str, Any]:
    """The card of a split without its checksums."""
    subsets = Counter(one.subset for one in found)
    origins = Counter("propagated" if one.origin.startswith(FROM) else one.origin for one in found)
    decided = subsets[CONSISTENT] + subsets[INCONSISTENT]
    code = code_identity()
    return {
        "name": probe.prober.name,
        "dataset": probe.records.dataset,
        "split": probe.records.split,
        "rule": dict(RULE),
        "prober": probe.prober.identity(),
        "coordinates": probe.prober.convention.name,
        "prober_digest": probe.store.digest_of_identity,
        "stride": probe.stride,
        "counts": {
            "people": len(found),
            "asked": len(probe.asked),
            CONSISTENT: subsets[CONSISTENT],
            INCONSISTENT: subsets[INCONSISTENT],
            **{origin: origins[origin] for origin in (ANSWER, "propagated", *WITHOUT_VERDICT)},
        },
        "share_consistent": round(subsets[CONSISTENT] / decided, 4) if decided else None,
        "complete": not origins[UNANSWERED],
        "data_complete": probe.dataset.completeness(probe.records.split).state != "partial",
        "date": datetime.now(UTC).date().isoformat(),
        "code": {"version": code["version"], "commit": code["commit"], "dirty": code["dirty"]},
    }
