"""Where the people of a video look: a row for each person and frame, and a summary; resumed after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from gazebench.core.boxes import BOX
from gazebench.core.files import file_digest, write_atomically
from gazebench.core.journal import Journal
from gazebench.data.head_tracks import HeadTracks
from gazebench.data.video import Frame, Video
from gazebench.engine.attention import ELSEWHERE, OUTSIDE, SEPARATOR, lasting, mutual, shared, summarise
from gazebench.engine.bulk import THREADS, Given, ahead
from gazebench.engine.model import Gaze, GazeModel, PictureGaze, Prepared, batches, looked_at
from gazebench.engine.predictions import check_ending
from gazebench.engine.things import Things

Smooth = Literal["none", "exponential", "one-euro"]
DECAY = 0.2
"""Seconds in which ``exponential`` forgets all but 1 / e."""
CUTOFF, BETA, SPEED_CUTOFF = 1.0, 2.0, 1.0
"""Of ``one-euro`` (Casiez et al. 2012): its least cutoff in Hz, how this rises with the speed in picture widths or
heights a second, and the cutoff of the speed itself."""
LOST = 1.0
"""Seconds after which somebody who was not seen is a new track, and a smoothed point begins anew."""
CHUNK = 4096
"""Rows of the table that are Python objects at a time."""
COLUMNS = [
    "frame",
    "time",
    "track",
    *BOX,
    "head_score",
    "x",
    "y",
    "x_px",
    "y_px",
    "looks_at",
    "target",
    "mutual",
    "shared",
]
"""Of every table; those of what a method does not predict are left out."""
STORED = ("score", "point", "inout", "label", "label_probability", "social")


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What was found in a video.

    Attributes:
        video: the video.
        folder: where the files are: ``gaze`` (the table), ``summary.json``, ``frames.jsonl`` (what a repetition reads).
        table: a row for each person in each frame that was looked at, by frame; columns as in docs/video.md.
        summary: ``attention.summarise``, and what is known of the video.
    """

    video: Video
    folder: Path
    table: pd.DataFrame
    summary: dict[str, Any]


def analyse_video(
    path: str | Path,
    model: GazeModel,
    out: str | Path,
    *,
    boxes: Callable[[str, int, int], Given] | None = None,
    stride: int = 1,
    smooth: Smooth = "none",
    things: Things | None = None,
    batch_size: int = 8,
    table: str = "gaze.parquet",
    shortest: float = 0.5,
    bridge: float = 0.2,
    identity: dict[str, Any] | None = None,
    again: bool = False,
    progress: Callable[[float], None] | None = None,
) -> VideoResult:
    """Finds out where the people of a video look; a repetition continues where the last call was stopped.

    Args:
        path: the video; only a few of its frames are in memory at a time.
        model: ``gazebench.load(...)``; its detector finds the heads.
        out: the folder for the files.
        boxes: the heads of a frame by its number (as text), width and height, instead of the detector's
            (``bulk.BoxFile`` with ``tracks``); where it gives people names too, these are the tracks.
        stride: every how manieth frame is looked at.
        smooth: of the points of a track. A person who looks out of the picture, or is away for ``LOST`` seconds, begins
            anew; in and out is not smoothed.
        things: names what is looked at.
        batch_size: frames at a time.
        table: the name of the table: .parquet, .csv or .jsonl.
        shortest: seconds of the shortest episode (``attention.episodes``).
        bridge: seconds of the longest interruption of one.
        identity: what ``boxes`` depends on, so that a repetition notices other boxes.
        again: begin anew.
        progress: called with the share that is done.

    Raises:
        DataError: the file is no video, the folder is of another one or of other settings, or the video has no frames.
    """
    video, out = Video(Path(path)), Path(out)
    ending = check_ending(out / table)
    depends = {**model.identity, "video": file_digest(video.path), "stride": stride, **(identity or {})}
    if things is not None:
        depends["things"] = things.identity()
    if boxes is None and hasattr(model.detector, "identity"):
        depends["detector"] = model.detector.identity()
    with Journal(out / "frames.jsonl", depends, again, keep=False) as done:
        if _END not in done.entries:
            _predict(video, model, done, boxes, stride, things, batch_size, progress)
        rows, times, facts = _table(done, smooth)
    lasts = lasting(times, video.step * stride)
    rows.insert(2, "seconds", lasts[np.searchsorted(times, rows["time"].to_numpy(float))])
    facts |= {"processed": len(times), "seconds": float(times[-1] + lasts[-1]), "stride": stride, "smooth": smooth}
    summary = {"video": str(path), **facts, **summarise(rows, times, lasts, shortest, bridge)}
    if ending == ".parquet":
        write_atomically(out / table, lambda target: rows.to_parquet(target, index=False))
    elif ending == ".csv":
        write_atomically(out / table, lambda target: rows.to_csv(target, index=False, lineterminator="\n"))
    else:
        lines = rows.to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
        write_atomically(out / table, lines)
    write_atomically(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return VideoResult(video, out, rows, summary)


_END = "end"


def _predict(
    video: Video,
    model: GazeModel,
    done: Journal,
    boxes: Callable[[str, int, int], Given] | None,
    stride: int,
    things: Things | None,
    batch_size: int,
    progress: Callable[[float], None] | None,
) -> None:
    """Stores an entry for each frame that has none: ``time``, ``size`` and ``people``; at the end one of the video."""
    bar = tqdm(total=video.expected or None, unit="frame", disable=None, leave=False)
    waiting: dict[str, tuple[float, bool, npt.NDArray[np.uint8] | None]] = {}
    frames = 0

    def todo() -> Iterator[Frame]:
        nonlocal frames
        for frame in video:
            frames += 1
            bar.update()
            if progress is not None and video.expected:
                progress(min(1.0, frames / video.expected))
            if frame.number % stride == 0 and str(frame.number) not in done.entries:
                yield frame

    def prepare(frame: Frame) -> Prepared:
        array, name = frame.rgb(), str(frame.number)
        given, ids = (None, None) if boxes is None else boxes(name, frame.width, frame.height)
        waiting[name] = frame.time, ids is not None, None if things is None else array
        return model.prepare(array, given, name, ids)

    with bar:
        for batch in batches(ahead(prepare, todo(), THREADS), batch_size):
            for gaze in model.predict_prepared(batch):
                seconds, named, array = waiting.pop(gaze.name)
                if things is not None and array is not None:
                    gaze = things(array, gaze)
                people = [_entry(one, named) for one in gaze.people]
                done.add(gaze.name, {"time": seconds, "size": gaze.size, "people": people})
    done.add(_END, {"frames": frames, "mended_times": video.mended, "damaged_packets": video.damaged})


def _entry(one: Gaze, named: bool) -> dict[str, Any]:
    found = {"box": one.box.tolist(), **{name: getattr(one, name) for name in STORED}}
    found["id"] = one.id if named else None
    return {name: value for name, value in found.items() if value is not None and value != {}}


def _gaze(name: str, entry: dict[str, Any], tracks: HeadTracks) -> PictureGaze:
    """The people of a stored frame, with the ids of their tracks; ``looks_at`` is not known yet."""
    people = [{**one, "box": np.array(one["box"]), "point": tuple(one["point"])} for one in entry["people"]]
    for one in people:
        social = one.get("social", {}).items()
        one["social"] = {kind: {int(other): value for other, value in scores.items()} for kind, scores in social}
    if not all("id" in one for one in people):
        numbers = tracks.update(entry["time"], np.array([one["box"] for one in people]))
        people = [{**one, "id": str(number)} for one, number in zip(people, numbers, strict=True)]
    return PictureGaze(name, tuple(entry["size"]), [Gaze(**one) for one in people])


class Smoother:
    """Smooths the points of tracks, from frame to frame.

    Args:
        kind: ``exponential`` moves a point by 1 - exp(-dt / DECAY) of the way to the new one; ``one-euro`` is the
            filter of Casiez et al. (CHI 2012), on x and y by themselves.
    """

    def __init__(self, kind: Smooth) -> None:
        self.kind = kind
        self._seen: dict[str, tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}

    def __call__(self, seconds: float, gaze: PictureGaze) -> PictureGaze:
        """A picture later than that of the last call, with smoothed points, and who is looked at by them."""
        people = gaze.people
        if self.kind != "none":
            people = [replace(one, point=self._point(seconds, one)) for one in people]
        boxes = np.array([one.box for one in people])
        people = [
            replace(one, looks_at=looked_at(i, boxes, np.array(one.point), one.inout, one.social.get("lah")))
            for i, one in enumerate(people)
        ]
        return replace(gaze, people=people)

    def _point(self, seconds: float, one: Gaze) -> tuple[float, float]:
        if not one.inside:
            self._seen.pop(one.id, None)
            return one.point
        new = np.array(one.point)
        before, old, speed = self._seen.get(one.id, (-math.inf, new, np.zeros(2)))
        passed = seconds - before
        if passed > LOST:
            self._seen[one.id] = seconds, new, np.zeros(2)
            return one.point
        if self.kind == "exponential":
            share: Any = 1 - math.exp(-passed / DECAY)
        else:
            speed = speed + _share(SPEED_CUTOFF, passed) * ((new - old) / passed - speed)
            share = _share(CUTOFF + BETA * np.abs(speed), passed)
        point = old + share * (new - old)
        self._seen[one.id] = seconds, point, speed
        return float(point[0]), float(point[1])


def _share(cutoff: Any, seconds: float) -> Any:
    """What a low-pass filter of a cutoff in Hz takes of a new value that comes so many seconds later."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


def _table(done: Journal, smooth: Smooth) -> tuple[pd.DataFrame, npt.NDArray[np.float64], dict[str, Any]]:
    """The rows of all frames, the frames' times, and what is known of the video."""
    tracks, smoother = HeadTracks(LOST), Smoother(smooth)
    rows: list[dict[str, Any]] = []
    pieces, times = [], []
    facts: dict[str, Any] = {}
    for name, entry in done.stored():
        if name == _END:
            facts |= entry
            continue
        times.append(entry["time"])
        gaze = _gaze(name, entry, tracks)
        smoothed = smoother(entry["time"], gaze)
        rows += _rows(smoothed, entry["time"], gaze if smooth != "none" else None)
        facts["width"], facts["height"] = entry["size"]
        if len(rows) >= CHUNK:
            pieces.append(pd.DataFrame(rows))
            rows = []
    if rows or not pieces:
        pieces.append(pd.DataFrame(rows, columns=None if rows else COLUMNS))
    return (
        pd.concat(pieces, ignore_index=True),
        np.array(times),
        {**facts, "processed": len(times), "seconds": times[-1] if times else 0.0},
    )


def _rows(gaze: PictureGaze, seconds: float, raw: PictureGaze | None) -> Iterator[dict[str, Any]]:
    relations = {"mutual": mutual(gaze), "shared": shared(gaze)}
    for i, one in enumerate(gaze.people):
        other = "" if one.looks_at is None else gaze.people[one.looks_at].id
        row: dict[str, Any] = {"frame": int(gaze.name), "time": seconds, "track": one.id}
        row |= dict(zip(BOX, one.box.tolist(), strict=True)) | {"head_score": one.score}
        row |= {"x": one.point[0], "y": one.point[1]}
        row |= {"x_px": one.point[0] * gaze.size[0], "y_px": one.point[1] * gaze.size[1]}
        if raw is not None:
            row |= dict(zip(("x_raw", "y_raw"), raw.people[i].point, strict=True))
        named = {"inout": one.inout, "label": one.label, "label_probability": one.label_probability}
        row |= {name: value for name, value in named.items() if value is not None}
        inside = f"person {other}" if other else one.label or ELSEWHERE
        row |= {"looks_at": other, "target": inside if one.inside else OUTSIDE}
        for name, pairs in relations.items():
            row[name] = SEPARATOR.join(gaze.people[b if a == i else a].id for a, b in sorted(pairs) if i in (a, b))
        yield row
