"""What was found in a video, to look at: the video with heads and gaze, a timeline, and a page of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from tabulate import tabulate

from gazebench.core.boxes import BOX
from gazebench.core.files import write_atomically
from gazebench.data.video import VideoWriter
from gazebench.engine.attention import ELSEWHERE, OUTSIDE
from gazebench.engine.video import VideoResult

LONG_SIDE = 1280
"""Pixels of the longer side of an overlay, at most."""
MOST_TRACKS, MOST_PAIRS = 24, 16
"""Of a timeline: the tracks that are seen longest, and the pairs with the longest episodes in all."""
GREY = {ELSEWHERE: (0.72, 0.72, 0.72), OUTSIDE: (0.9, 0.9, 0.9)}


def save_overlay(result: VideoResult, path: Path) -> None:
    """Writes all frames of the video, with the heads, points and tracks of the last frame that was looked at.

    A person who looks out of the picture has no point.
    """

    def write(target: Path) -> None:
        frames = iter(result.video)
        first = next(frames)
        scale = min(1.0, LONG_SIDE / max(first.width, first.height))
        width, height = (max(2, round(side * scale) // 2 * 2) for side in (first.width, first.height))
        font = ImageFont.load_default(max(12, height // 36))
        table = result.table
        rows = table.groupby("frame").indices
        stride = result.summary["stride"]
        people: list[Any] = []
        with VideoWriter(target, width, height) as video:
            for frame in chain([first], frames):
                if frame.number % stride == 0:
                    people = list(table.iloc[rows.get(frame.number, [])].itertuples())
                picture = Image.fromarray(frame.rgb(scale)).resize((width, height))
                _draw(picture, people, font)
                video.write(np.asarray(picture), frame.time)

    write_atomically(path, write)


def _draw(picture: Image.Image, people: list[Any], font: Any) -> None:
    pen, width = ImageDraw.Draw(picture), max(2, picture.height // 240)
    size = np.tile(picture.size, 2)
    for one in people:
        colour = tuple(round(255 * part) for part in colour_of(one.track))
        box = np.array([getattr(one, name) for name in BOX]) * size
        pen.rectangle(tuple(box), outline=colour, width=width)
        text = f"{one.track}"
        if one.target == OUTSIDE:
            text += ": out"
        else:
            point, middle = np.array([one.x, one.y]) * picture.size, (box[:2] + box[2:]) / 2
            pen.line([*middle, *point], fill=colour, width=width)
            pen.circle(tuple(point), 2.5 * width, fill=colour, outline="white", width=max(1, width // 2))
            text += "" if one.target == ELSEWHERE else f": {one.target}"
        place = (box[0], max(box[1], 1.3 * font.size))
        pen.rectangle(pen.textbbox(place, text, font, anchor="lb"), fill=colour)
        pen.text(place, text, fill="white" if sum(colour) < 480 else "black", anchor="lb", font=font)


def colour_of(track: str) -> tuple[float, float, float]:
    """The colour of a track, in [0, 1]."""
    number = int(track) - 1 if track.isdigit() else sum(track.encode())
    red, green, blue, _ = colormaps["tab20"](number * 2 % 20 + number // 10 % 2)
    return red, green, blue


@dataclass(frozen=True)
class _Bar:
    begin: float
    seconds: float
    target: str


def _bars(rows: pd.DataFrame) -> Iterator[_Bar]:
    """The stretches of one track that look at the same target in frames that follow each other."""
    begins, ends, target = rows["time"], rows["time"] + rows["seconds"], rows["target"]
    fresh = (target != target.shift()) | ((begins - ends.shift()).abs() > 1e-6)
    for _, part in rows.groupby(fresh.cumsum()):
        begin = part["time"].iloc[0]
        yield _Bar(begin, ends[part.index[-1]] - begin, part["target"].iloc[0])


def save_timeline(result: VideoResult, path: Path) -> None:
    """Draws what each track looks at over time, and episodes of mutual gaze and shared attention below."""
    table, summary = result.table, result.summary
    longest = sorted(summary["tracks"], key=lambda one: -one["seconds"])[:MOST_TRACKS]
    tracks = sorted(longest, key=lambda one: one["from"])
    lasted: dict[tuple[str, tuple[str, ...]], float] = {}
    for name in ("mutual", "shared"):
        for one in summary[name]:
            key = name, tuple(one["tracks"])
            lasted[key] = lasted.get(key, 0) + one["seconds"]
    longest_pairs = sorted(lasted, key=lambda pair: -lasted[pair])[:MOST_PAIRS]
    pairs = [pair for pair in lasted if pair in longest_pairs]
    labels = [f"person {one['track']}" for one in tracks]
    labels += [f"{'at each other' if name == 'mutual' else 'same thing'}: {' + '.join(pair)}" for name, pair in pairs]
    figure = Figure(figsize=(10, 1.4 + 0.34 * max(1, len(labels))), layout="constrained")
    axis = figure.subplots()
    things = [name for name in table["target"].unique() if name not in GREY and not name.startswith("person ")]
    colours: dict[str, Any] = {**GREY, **{name: colormaps["Dark2"](i % 8) for i, name in enumerate(things)}}
    used: dict[str, Any] = {}
    for line, one in enumerate(tracks):
        for bar in _bars(table[table["track"] == one["track"]]):
            other = bar.target.removeprefix("person ")
            colour = colours.get(bar.target) or colour_of(other)
            used.setdefault(bar.target, axis.broken_barh([(bar.begin, bar.seconds)], (line - 0.35, 0.7), color=colour))
    for line, (name, pair) in enumerate(pairs, start=len(tracks)):
        bars = [(one["start"], one["seconds"]) for one in summary[name] if tuple(one["tracks"]) == pair]
        axis.broken_barh(bars, (line - 0.25, 0.5), color="#7c3aed" if name == "mutual" else "#0d9488")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlim=(0, max(summary["seconds"], 1e-3)), ylim=(max(1, len(labels)) - 0.5, -0.5), xlabel="seconds")
    axis.spines[["top", "right"]].set_visible(False)
    if used:
        figure.legend(
            used.values(), [f"looks {name if name in GREY else f'at {name}'}" for name in used],
            loc="outside lower center", ncols=4, fontsize=8, frameon=False,
        )  # fmt: skip
    write_atomically(path, lambda target: figure.savefig(target, dpi=130, format="png"))


def tables(result: VideoResult) -> str:
    """Dwell times and episodes as Markdown."""
    summary = result.summary
    dwell = [
        (
            one["track"],
            f"{one['from']:.2f} - {one['to']:.2f}",
            target,
            f"{seconds:.2f}",
            f"{seconds / one['seconds']:.0%}",
        )
        for one in summary["tracks"]
        for target, seconds in one["dwell"].items()
    ]
    text = "## Dwell times\n\n" + _table(["person", "from - to, s", "looks at", "s", "of the time seen"], dwell)
    for name, title in (("mutual", "Looking at each other"), ("shared", "Looking at the same thing")):
        found = [
            (" + ".join(one["tracks"]), f"{one['start']:.2f}", f"{one['end']:.2f}", f"{one['seconds']:.2f}")
            for one in summary[name]
        ]
        text += f"\n## {title}\n\n" + _table(["people", "from, s", "to, s", "s"], found)
    return text


def _table(headers: list[str], rows: Sequence[tuple[str, ...]]) -> str:
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True) + "\n" if rows else "none\n"
