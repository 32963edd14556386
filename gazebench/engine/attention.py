"""How long people of a clip look at whom, at each other, and at the same thing."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import FloatArray
from gazebench.engine.model import SURE, PictureGaze

NEAR = 0.1
"""Of the picture's diagonal: two points so near to each other are on the same thing."""
SEPARATOR = "; "
"""Between tracks in a cell: people may be called by names with blanks."""
ELSEWHERE, OUTSIDE = "elsewhere in the picture", "out of the picture"


def mutual(gaze: PictureGaze) -> set[tuple[int, int]]:
    """Who look at each other, by their places in ``people``: by the method's own LAEO above .5, else both at the other.

    Without a social output "at the other" is the post-processing of the social protocol: the point lies strictly inside
    the other's head (``model.looked_at``).
    """
    return {
        (i, j)
        for i, j in combinations(range(len(gaze.people)), 2)
        if _own(gaze, "laeo", i, j, gaze.people[i].looks_at == j and gaze.people[j].looks_at == i)
    }


def shared(gaze: PictureGaze) -> set[tuple[int, int]]:
    """Who look at the same thing: by the method's own SA above .5, else as follows, for which no rule is published.

    Both look into the picture, none of them at the other, and both at the same person, or at points that are no farther
    apart than ``NEAR``.
    """
    found, size = set(), np.array(gaze.size)
    for i, j in combinations(range(len(gaze.people)), 2):
        one, other = gaze.people[i], gaze.people[j]
        apart = np.linalg.norm((np.array(one.point) - other.point) * size) / np.linalg.norm(size)
        same = apart <= NEAR or (one.looks_at is not None and one.looks_at == other.looks_at)
        apply = one.inside and other.inside and one.looks_at != j and other.looks_at != i
        if _own(gaze, "sa", i, j, bool(same and apply)):
            found.add((i, j))
    return found


def _own(gaze: PictureGaze, name: str, i: int, j: int, otherwise: bool) -> bool:
    scores = [gaze.people[a].social[name].get(b, 0) for a, b in ((i, j), (j, i)) if name in gaze.people[a].social]
    return max(scores) > SURE if scores else otherwise


def lasting(times: FloatArray, step: float) -> FloatArray:
    """How long each frame lasts, in seconds: until the next one; the last one as long as the median, ``step`` if alone.

    Args:
        times: (F,) seconds, rising.
        step: the duration of a single frame.
    """
    gaps = np.diff(times)
    return np.append(gaps, np.median(gaps) if len(gaps) else step)


def episodes(
    marked: npt.NDArray[np.bool_], times: FloatArray, seconds: FloatArray, shortest: float, bridge: float
) -> list[dict[str, Any]]:
    """Runs of frames in which something holds: interruptions of up to ``bridge`` seconds belong to it.

    Args:
        marked: (F,) whether it holds in a frame.
        times: (F,) seconds at which the frames begin.
        seconds: (F,) how long they last.
        shortest: seconds; shorter runs, measured with their interruptions, are left out.
        bridge: seconds.
    """
    found: list[tuple[float, float]] = []
    for frame in np.flatnonzero(marked):
        begin, end = times[frame], times[frame] + seconds[frame]
        if found and begin - found[-1][1] <= bridge + 1e-9:
            begin = found.pop()[0]
        found.append((begin, end))
    return [
        {"start": float(begin), "end": float(end), "seconds": float(end - begin)}
        for begin, end in found
        if end - begin >= shortest - 1e-9
    ]


def summarise(
    table: pd.DataFrame, times: FloatArray, seconds: FloatArray, shortest: float = 0.5, bridge: float = 0.2
) -> dict[str, Any]:
    """Dwell times, and episodes of mutual gaze and of shared attention.

    Args:
        table: a row for a track in a frame: ``time``, ``seconds``, ``track``, ``target``, and ``mutual`` and
            ``shared``: the tracks that it looks at each other with, or at the same thing, ``SEPARATOR`` between.
        times: (F,) seconds of all frames that were looked at, rising, also of those without people.
        seconds: (F,) how long these last.
        shortest: seconds of the shortest episode (``episodes``).
        bridge: seconds of the longest interruption of one.
    """
    table = table.assign(place=np.searchsorted(times, table["time"].to_numpy(float)))
    tracks = []
    for track, rows in table.groupby("track", sort=False):
        dwell = rows.groupby("target")["seconds"].sum().sort_values(ascending=False, kind="stable")
        first, last = rows["time"].iloc[0], rows["time"].iloc[-1] + rows["seconds"].iloc[-1]
        tracks.append(
            {
                "track": track, "from": float(first), "to": float(last), "frames": len(rows),
                "seconds": float(rows["seconds"].sum()), "dwell": {str(k): float(v) for k, v in dwell.items()},
            }
        )  # fmt: skip
    summary: dict[str, Any] = {"tracks": tracks, "shortest": shortest, "bridge": bridge, "near": NEAR}
    for name in ("mutual", "shared"):
        marked: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        some = table[table[name] != ""]
        for one, others, frame in zip(some["track"], some[name], some["place"], strict=True):
            for other in others.split(SEPARATOR):
                pair = (min(one, other, key=_number), max(one, other, key=_number))
                marked.setdefault(pair, np.zeros(len(times), dtype=bool))[frame] = True
        summary[name] = sorted(
            (
                {"tracks": list(pair), **episode}
                for pair, frames in marked.items()
                for episode in episodes(frames, times, seconds, shortest, bridge)
            ),
            key=lambda episode: episode["start"],
        )
    return summary


def _number(track: str) -> tuple[int, str]:
    return int(track) if track.isdigit() else 0, track
