"""``report.html`` in a run's folder: its record's page with curves, errors by group, large angles and pictures."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.data.dataset import GazeDataset
from gazebench.data.groups import groups, traits
from gazebench.engine.config import Config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.intervals import bootstrap, format_value, mean_of, owners
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.spatial import AngleToMean, MeanAngle, MinAngle
from gazebench.report.board import local
from gazebench.report.board.run import report
from gazebench.report.figures import curves, distribution
from gazebench.report.pictures import ANSWER, HEAD, TRUTH, draw, heatmap_of, scene, spread

USAGE = "gazebench report RUN [--dataset.root DIR] [--runs DIR] [--boards DIR]   (RUN: a run's folder or id)"
ANGLES = (10, 30, 60, 90, 120)
"""Degrees beyond which people are counted."""
BANDS = ("largest tenth", "in between", "smallest tenth")
EACH = 5
"""Pictures of every subset and band."""
SIDE = 3.2
"""Of a picture, in inches at 100 dots."""


def find(name: str, places: Places) -> Path:
    """The folder of a finished run by its path, or by its id below ``runs``.

    Raises:
        DataError: there is none, or several.
    """
    folders = [Path(name)] if Path(name).is_dir() else sorted(places.runs.glob(f"*/*/{name}*"))
    folders = [folder for folder in folders if (folder / "record.json").is_file()]
    if len(folders) != 1:
        known = ", ".join(sorted(str(path.parent) for path in places.runs.glob("*/*/*/record.json"))[:8]) or "none"
        raise DataError(f"{name}: {len(folders)} finished runs are called so; give a folder or an id ({known})")
    return folders[0]


def main(arguments: Sequence[str], places: Places) -> int:
    """Writes a run's page anew.

    Raises:
        DataError: there is no such run.
    """
    parser = argparse.ArgumentParser(prog="gazebench report", usage=USAGE, allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("--dataset.root", dest="root", help="where the pictures are now")
    given = parser.parse_args(list(arguments))
    folder = find(given.run, places)
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    print(f"page      {write_page(record, folder, given.root)}")
    board = local(places.boards, folder.parents[2])
    if board is not None:
        print(f"board     {board}")
    return 0


def write_page(record: dict[str, Any], folder: Path, root: str | None = None) -> Path:
    """The page; a part that cannot be made is left out, on the page and on stderr with the reason."""
    kind = load_dataset(_method_and_data(record, folder)["data"])
    protocol = kind.protocol
    made: dict[str, Any] = {"figures": [], "tables": [], "gallery": [], "bands": BANDS, "left_out": []}
    made |= {"colours": {"head": HEAD, "truth": TRUTH, "answer": ANSWER}, "chosen": ""}

    def part(what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except Exception as error:  # a report must never cost a result
            print(f"report: {what} left out ({type(error).__name__}: {error})", file=sys.stderr)
            made["left_out"].append(f"{what}: {error}")

    part("curves", lambda: made["figures"].extend(curves(folder / "log" / "metrics.csv", protocol.headline)))
    stored = folder / "predictions.parquet"
    if stored.is_file():
        part("errors of single people", lambda: _people(made, record, folder, stored, protocol, root, part))
    page = folder / "report.html"
    text = report(
        record, protocol, kind.card.title, index=f"../../../index.html#{record['dataset']}", more=made,
        made="gazebench report",
    )  # fmt: skip
    write_atomically(page, text)
    return page


def _people(
    made: dict[str, Any],
    record: dict[str, Any],
    folder: Path,
    stored: Path,
    protocol: Protocol,
    root: str | None,
    part: Callable[[str, Callable[[], None]], None],
) -> None:
    people = pd.read_parquet(stored).set_index("person_id")
    means, angles = _means(protocol, people), _angles(protocol, people)
    if means:
        shown = [means[0], *[use for use in angles[:1] if use is not means[0]]]
        found = [distribution(people, use.name) for use in shown]
        made["figures"] += [figure for figure in found if figure]
    if angles:
        made["tables"].append(large_angles(people, angles))
    if not means:
        return
    dataset = _dataset(record, folder, root)
    part("errors by group", lambda: made["tables"].insert(0, by_group(people, dataset, means[0], angles)))
    part("pictures", lambda: _gallery(made, folder, people, dataset, means[0], angles, protocol))


def _method_and_data(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As given: a method or dataset of a file is found by its path, which records leave out."""
    path = folder / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {"data": record["dataset"]}


def _dataset(record: dict[str, Any], folder: Path, root: str | None) -> GazeDataset:
    config = Config(_method_and_data(record, folder))
    settings = dict(config.values.get("dataset", {}))
    return config.dataset(**(settings | ({"root": root} if root else {})))


def _means(protocol: Protocol, people: pd.DataFrame) -> list[ProtocolMetric]:
    """The metrics that are means over people and somebody has a value of, the headline first."""
    found = [
        use
        for use in protocol.metrics
        if type(use.metric()).reduce is GazeMetric.reduce
        and f"metric_{use.name}" in people
        and people[f"metric_{use.name}"].notna().any()
    ]
    return sorted(found, key=lambda use: use.name != protocol.headline)


def _angles(protocol: Protocol, people: pd.DataFrame) -> list[ProtocolMetric]:
    kinds = (AngleToMean, MeanAngle, MinAngle)
    return [use for use in _means(protocol, people) if isinstance(use.metric(), kinds)]


# Tables --------------------------------------------------------------------------------------------------------


def by_group(
    people: pd.DataFrame, dataset: GazeDataset, use: ProtocolMetric, angles: Sequence[ProtocolMetric]
) -> dict[str, Any]:
    """A row a group of people: how many, the mean with its interval, median, 90th percentile, large angles."""
    records = dataset.records("test")
    records = records.select(np.isin(records.person_id.astype(str), people.index.to_numpy(str)))
    scored = people[people[f"metric_{use.name}"].notna()]
    spread_out = scored[f"metric_{use.name}"].nunique() > 2
    angle = angles[0] if angles else None
    rows = []
    for name, mask in groups(scored, traits(dataset, records)):
        chosen = scored[mask]
        values = chosen[f"metric_{use.name}"].to_numpy(np.float64)
        owner, sources = owners(chosen["group"])
        low, high = (float(end) for end in bootstrap(mean_of(values, owner, sources), sources))
        span = "-" if np.isnan(low) else f"{low:.{use.digits}f} to {high:.{use.digits}f}"
        cells = [name, f"{len(chosen):,}", format_value(values.mean(), use.digits), span]
        if spread_out:
            cells += [format_value(np.quantile(values, q), use.digits) for q in (0.5, 0.9)]
        if angle:
            degrees = chosen[f"metric_{angle.name}"].dropna()
            cells += [format_value(degrees.mean(), angle.digits), *(_share(degrees, limit) for limit in (30, 90))]
        rows.append(cells)
    heads = ["people", "n", use.name, "95% interval", *(["median", "90%"] if spread_out else [])]
    heads += [angle.name, f"{angle.name} > 30°", "> 90°"] if angle else []
    hint = "Intervals by bootstrap over whole clips or pictures. Sizes and distances as shares of the picture."
    return {"title": "Who it errs on", "heads": heads, "rows": rows, "hint": hint}


def large_angles(people: pd.DataFrame, angles: Sequence[ProtocolMetric]) -> dict[str, Any]:
    """How many people's angle is larger than each threshold, by metric and subset."""
    rows = []
    for use in angles:
        for subset in ("", "consistent", "inconsistent"):
            chosen = people if not subset else people[people["subset"] == subset]
            degrees = chosen[f"metric_{use.name}"].dropna()
            if len(degrees):
                counts = [f"{(degrees > limit).sum():,} ({_share(degrees, limit)})" for limit in ANGLES]
                rows.append([f"{use.name}, {subset or 'everybody'}", f"{len(degrees):,}", *counts])
    heads = ["angle", "n", *(f"> {limit}°" for limit in ANGLES)]
    return {"title": "Large angles", "heads": heads, "rows": rows, "hint": "People beyond each angle, and their share."}


def _share(degrees: pd.Series[float], limit: float) -> str:
    return f"{100 * (degrees > limit).mean():.1f}%" if len(degrees) else "-"


# Pictures ------------------------------------------------------------------------------------------------------


def _gallery(
    made: dict[str, Any],
    folder: Path,
    people: pd.DataFrame,
    dataset: GazeDataset,
    use: ProtocolMetric,
    angles: Sequence[ProtocolMetric],
    protocol: Protocol,
) -> None:
    chosen = choose(people, use, higher=protocol.higher_is_better(use.name))
    records = dataset.records("test")
    row_of = {str(person): row for row, person in enumerate(records.person_id)}
    fresh, place = folder / ".report", folder / "report"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    cards = []
    for rank, (key, row) in enumerate(chosen.iterrows()):
        shown = scene(dataset, records, row_of[str(key)])
        height, width = shown.picture.shape[:2]
        size = (SIDE, SIDE * height / width) if width >= height else (SIDE * width / height, SIDE)
        figure = Figure(figsize=size)
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set_axis_off()
        draw(axis, shown.picture, shown.head, shown.points, (row["x"], row["y"]), heatmap_of(row))
        figure.savefig(fresh / f"{rank:02d}.jpg", dpi=100, pil_kwargs={"quality": 82})
        score = f"{use.name} {row['error']:.{use.digits}f}" if not np.isnan(row["error"]) else ""
        degrees = row[f"metric_{angles[0].name}"] if angles else np.nan
        said = "" if pd.isna(row["inout"]) else f"p(in) {row['inout']:.2f}"
        facts = [score, "" if pd.isna(degrees) else f"{degrees:.0f}°", said]
        cards.append({
            "subset": row["shown"], "band": row["band"], "rank": rank, "scored": bool(score),
            "file": f"report/{rank:02d}.jpg", "alt": f"{key}, {row['shown']}",
            "caption": ", ".join(filter(None, [row["shown"], *facts])),
            "width": round(100 * size[0]), "height": round(100 * size[1]),
        })  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)
    fresh.replace(place)
    made["gallery"] = cards
    made["chosen"] = (
        f"Up to {EACH} pictures of every subset in the largest tenth of errors ({use.name}), in the smallest, and in "
        "between, always the same ones."
    )


def choose(people: pd.DataFrame, use: ProtocolMetric, *, higher: bool) -> pd.DataFrame:
    """Whom the gallery shows, worst first, with the columns ``error``, ``shown`` (subset) and ``band``."""
    frame = people.assign(error=people[f"metric_{use.name}"].astype(float))
    badness = -frame["error"] if higher else frame["error"]
    low, high = badness.quantile(0.1), badness.quantile(0.9)
    frame["band"] = np.select([badness >= high, badness <= low], [BANDS[0], BANDS[2]], BANDS[1])
    unseen = frame["error"].isna()
    frame["shown"] = np.where(unseen, "out of frame", frame["subset"].where(frame["subset"] != "", "in frame"))
    frame.loc[unseen, "band"] = BANDS[1]
    frame["badness"] = badness
    picked = []
    for (_, band), group in frame.groupby(["shown", "band"], sort=True):
        ordered = group.sort_values("badness", ascending=band == BANDS[2], kind="stable", na_position="last")
        once = ordered.drop_duplicates("image_id")
        places = spread(len(once), EACH) if band == BANDS[1] else range(min(EACH, len(once)))
        picked.append(once.iloc[list(places)])
    return pd.concat(picked).sort_values("badness", ascending=False, kind="stable", na_position="last")
