"""The page of a run: its record's page with curves, errors by group, large angles and images."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gazebench.core.files import write_atomically
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.groups import groups, traits
from gazebench.engine.run import Places
from gazebench.metrics.intervals import bootstrap, mean_of, owners
from gazebench.metrics.protocol import SUBSETS, Protocol, ProtocolMetric
from gazebench.metrics.scoring import Score
from gazebench.report.figures import curves, distribution
from gazebench.report.page import link
from gazebench.report.pictures import ANSWER, HEAD, TRUTH, draw, scene
from gazebench.report.record_page import record_page
from gazebench.report.run_data import dataset_of, heatmaps, is_mean_over_people, people, read_record
from gazebench.report.site import of_runs
from gazebench.report.table import Cell, Column, Table

ANGLES = (10, 30, 60, 90, 120)
"""Degrees beyond which people are counted."""
BANDS = ("largest tenth", "in between", "smallest tenth")
EACH = 5
"""Images of every subset and band."""
SIDE = 3.2
"""Of an image, in inches at 100 dots."""


def write(folder: Path, places: Places, root: str | None = None) -> Path:
    """Writes ``report.html`` into the folder of a finished run.

    A part that cannot be made is left out; the page and stderr say why.

    Args:
        folder: of the run.
        places: the page has a link to the board of these runs.
        root: where the images are now; where they were when it is None.
    """
    record, dataset = read_record(folder), dataset_of(folder, root)
    protocol = dataset.protocol
    more: dict[str, Any] = {"figures": [], "tables": [], "gallery": [], "bands": BANDS, "left_out": [], "chosen": ""}
    more["colours"] = {"head": HEAD, "truth": TRUTH, "answer": ANSWER}

    @contextmanager
    def part(what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a report must never cost a result
            print(f"report: {what} left out ({type(error).__name__}: {error})", file=sys.stderr)
            more["left_out"].append(f"{what}: {error}")

    with part("curves"):
        more["figures"] += curves(folder / "log" / "metrics.csv", protocol.headline)
    with part("errors of single people"):
        scored = people(folder)
        uses = [] if scored is None else _means(protocol, scored)
        angles = [use for use in uses if "angle" in use.name]
        if scored is not None and uses:
            shown = dict.fromkeys([uses[0].name, *(use.name for use in angles[:1])])
            more["figures"] += filter(None, [distribution(scored, name) for name in shown])
            with part("errors by group"):
                more["tables"].append(by_group(scored, dataset.records("test"), uses[0], angles))
            if angles:
                more["tables"].append(large_angles(scored, angles))
            with part("images"):
                more["gallery"] = _gallery(folder, scored, dataset, uses[0], angles)
                more["chosen"] = (
                    f"Up to {EACH} images of every subset in the largest tenth of errors ({uses[0].name}), in the "
                    "smallest, and in between, always the same ones."
                )
    index = f"{link(of_runs(places) / 'index.html', folder)}#{record['dataset']}"
    page = folder / "report.html"
    write_atomically(page, record_page(record, protocol, dataset.card.title, index=index, more=more))
    return page


def _means(protocol: Protocol, scored: pd.DataFrame) -> list[ProtocolMetric]:
    """The metrics that are means over people and somebody has a value of, the headline first."""
    found = [
        use
        for use in protocol.metrics
        if f"metric_{use.name}" in scored and scored[f"metric_{use.name}"].notna().any() and is_mean_over_people(use)
    ]
    return sorted(found, key=lambda use: use.name != protocol.headline)


def by_group(
    scored: pd.DataFrame, records: Records, use: ProtocolMetric, angles: Sequence[ProtocolMetric]
) -> dict[str, Any]:
    """A row a group of people: how many, the mean with its interval, median, 90th percentile, large angles."""
    values = scored[f"metric_{use.name}"].dropna()
    scored, quantiles = scored.loc[values.index], values.nunique() > 2
    columns = [Column("people"), Column("n", digits=0), Column(use.name, digits=use.digits)]
    columns += [Column(name, digits=use.digits) for name in ("median", "90%")] if quantiles else []
    if angles:
        columns.append(Column(angles[0].name, digits=angles[0].digits))
        columns += [Column(name, digits=1) for name in (f"{angles[0].name} > 30°", "> 90°")]
    rows: list[list[Cell]] = []
    for name, mask in groups(scored, traits(records)):
        mine = values[mask].to_numpy(np.float64)
        owner, sources = owners(scored["group"][mask])
        low, high = (float(end) for end in bootstrap(mean_of(mine, owner, sources), sources))
        known = not np.isnan(low)
        mean = Score(float(mine.mean()), len(mine), low if known else None, high if known else None, sources)
        row: list[Cell] = [name, len(mine), mean]
        row += [float(np.quantile(mine, share)) for share in (0.5, 0.9)] if quantiles else []
        if angles:
            degrees = scored[f"metric_{angles[0].name}"][mask].dropna()
            row += [float(degrees.mean()), *(_share(degrees, limit) for limit in (30, 90))]
        rows.append(row)
    hint = "Intervals by bootstrap over whole clips or images. Sizes and distances as shares of the image."
    return {"title": "Who it errs on", "table": Table(columns, rows), "hint": hint}


def large_angles(scored: pd.DataFrame, angles: Sequence[ProtocolMetric]) -> dict[str, Any]:
    """How many people's angle is larger than each threshold, by metric and subset."""
    rows: list[list[Cell]] = []
    for use, subset in product(angles, SUBSETS):
        chosen = scored if subset == "all" else scored[scored["subset"] == subset]
        degrees = chosen[f"metric_{use.name}"].dropna()
        if len(degrees):
            counts = [f"{(degrees > limit).sum():,} ({_share(degrees, limit)})" for limit in ANGLES]
            rows.append([f"{use.name}, {'everybody' if subset == 'all' else subset}", len(degrees), *counts])
    columns = [Column("angle"), Column("n", digits=0), *(Column(f"> {limit}°", digits=1) for limit in ANGLES)]
    return {
        "title": "Large angles",
        "table": Table(columns, rows),
        "hint": "People beyond each angle, and their share.",
    }


def _share(degrees: pd.Series[float], limit: float) -> str:
    return f"{100 * (degrees > limit).mean():.1f}%" if len(degrees) else "-"


def _gallery(
    folder: Path, scored: pd.DataFrame, dataset: GazeDataset, use: ProtocolMetric, angles: Sequence[ProtocolMetric]
) -> list[dict[str, Any]]:
    """Draws the chosen people into ``report/``; what the page says of each."""
    records = dataset.records("test")
    rows = {str(person): row for row, person in enumerate(records.person_id)}
    fresh, place = folder / ".report", folder / "report"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    chosen = choose(scored, use, higher=use.higher_is_better)
    maps, cards = heatmaps(folder, list(map(str, chosen.index))), []
    for rank, (key, row) in enumerate(chosen.iterrows()):
        shown = scene(dataset, records, rows[str(key)])
        height, width = shown.image.shape[:2]
        size = (SIDE, SIDE * height / width) if width >= height else (SIDE * width / height, SIDE)
        figure = Figure(figsize=size)
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set_axis_off()
        draw(axis, shown.image, shown.head, shown.points, (row["x"], row["y"]), maps.get(str(key)))
        figure.savefig(fresh / f"{rank:02d}.jpg", dpi=100, pil_kwargs={"quality": 82})
        score = "" if np.isnan(row["error"]) else f"{use.name} {row['error']:.{use.digits}f}"
        degrees = row[f"metric_{angles[0].name}"] if angles else np.nan
        inside = "" if pd.isna(row["inout"]) else f"p(in) {row['inout']:.2f}"
        caption = [row["shown"], score, "" if pd.isna(degrees) else f"{degrees:.0f}°", inside]
        cards.append({
            "subset": row["shown"], "band": row["band"], "rank": rank, "scored": bool(score),
            "file": f"report/{rank:02d}.jpg", "alt": f"{key}, {row['shown']}",
            "caption": ", ".join(filter(None, caption)),
            "width": round(100 * size[0]), "height": round(100 * size[1]),
        })  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)
    fresh.replace(place)
    return cards


def choose(scored: pd.DataFrame, use: ProtocolMetric, *, higher: bool) -> pd.DataFrame:
    """The people of the gallery, worst first, with the columns ``error``, ``shown`` (subset) and ``band``."""
    frame = scored.assign(error=scored[f"metric_{use.name}"].astype(float))
    frame["badness"] = badness = -frame["error"] if higher else frame["error"]
    low, high = badness.quantile(0.1), badness.quantile(0.9)
    frame["band"] = np.select([badness >= high, badness <= low], [BANDS[0], BANDS[2]], BANDS[1])
    subsets = frame["subset"].where(frame["subset"] != "", "in frame")
    frame["shown"] = subsets.where(frame["error"].notna(), "out of frame")
    frame.loc[frame["error"].isna(), "band"] = BANDS[1]
    picked = []
    for (_, band), group in frame.groupby(["shown", "band"], sort=True):
        ordered = group.sort_values("badness", ascending=band == BANDS[2], kind="stable", na_position="last")
        once = ordered.drop_duplicates("image_id")
        count = min(EACH, len(once))
        last = len(once) - 1 if band == BANDS[1] else count - 1  # in between: evenly spread over all
        picked.append(once.iloc[np.linspace(0, last, count).round().astype(int)])
    return pd.concat(picked).sort_values("badness", ascending=False, kind="stable", na_position="last")
