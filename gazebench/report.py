"""What a run shows: a table, a report page, and a picture of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tabulate import tabulate

from gazebench.bench import Outcome
from gazebench.config import Config, provenance
from gazebench.dataset import GazeDataset
from gazebench.intervals import format_value
from gazebench.protocol import SUBSETS, Protocol
from gazebench.results import write_atomically
from gazebench.types import IN_FRAME, clean_boxes, normalise

HEAD, TRUTH, ANSWER = "#16a34a", "#facc15", "#e11d48"
"""Colours of the head box, the annotations and the predicted point in every picture."""


def scores_table(record: Mapping[str, Any], protocol: Protocol) -> str:
    """The metrics of a record with their subsets and sample counts, as Markdown."""
    rows = []
    for use in protocol.metrics:
        scores = record["metrics"].get(use.name)
        if scores is None:
            continue
        arrow = "↑" if protocol.higher_is_better(use.name) else "↓"
        cells = [
            f"{format_value(scores[subset]['value'], use.digits)} ({scores[subset]['count']:,})"
            if subset in scores
            else "-"
            for subset in SUBSETS
        ]
        rows.append([f"{use.name} {arrow}", *cells])
    present = [0, 1] + [i for i in range(2, 1 + len(SUBSETS)) if any(row[i] != "-" for row in rows)]
    headers = ["metric", *SUBSETS]
    return tabulate(
        [[row[i] for i in present] for row in rows],
        headers=[headers[i] for i in present],
        tablefmt="github",
        disable_numparse=True,
    )


def print_scores(record: Mapping[str, Any], protocol: Protocol) -> None:
    """The table and what kind of result it is."""
    print(f"\n{record['method']['title']} on {record['dataset']}: {record['protocol']['id']}, value (people)\n")
    print(scores_table(record, protocol))
    if record["data"].get("subsets"):
        print(f"\nSubsets by the prober {record['data']['subsets']['name']}.")
    status = record["status"]
    if status["class"] == "smoke":
        print("\nA smoke run, not a benchmark result:")
        for reason in status["reasons"]:
            print(f"  - {reason}")
    elif status["class"] == "synthetic":
        print("\nSynthetic data: no published benchmark.")


def show(outcome: Outcome, config: Config) -> None:
    """Prints the result of a run and where its report is; writes the report when it is not there yet."""
    record = outcome.record
    if not record:  # a further rank of a distributed run
        return
    if outcome.repeated:
        print("this run was finished before; here is its record (change a setting or the seed for another one)")
    report = write_report(record, config, outcome.folder)
    print_scores(record, config.dataset.protocol)
    seconds = sum(record["wall_seconds"].values())
    print(f"\ntook      {seconds:.0f} s, peak memory {max(record['peak_memory_bytes'].values()) / 2**30:.1f} GiB")
    print(f"board     {_short(outcome.board)}")
    print(f"report    {_short(report)}")
    picture = outcome.folder / "predictions.png"
    if picture.is_file():
        print(f"picture   {_short(picture)}")


def write_report(record: Mapping[str, Any], config: Config, folder: Path) -> Path:
    """``report.md`` and ``predictions.png`` in a run's folder."""
    path, picture = folder / "report.md", folder / "predictions.png"
    if path.is_file() and picture.is_file():
        return path
    predictions = folder / "predictions.parquet"
    if predictions.is_file():
        dataset = config.dataset(**config.values["dataset"])
        gallery(dataset, pd.read_parquet(predictions)).savefig(picture, dpi=110)
    settings = [
        [name, repr(sheet["value"]), sheet["origin"], sheet["why"]] for name, sheet in provenance(config).items()
    ]
    lines = [
        f"# {record['method']['title']} on {record['dataset']}",
        "",
        f"Run `{record['run']}`, protocol `{record['protocol']['id']}`, seed {record['seed']}, "
        f"class **{record['status']['class']}**, finished {record['finished']}.",
        *[f"- {reason}" for reason in record["status"]["reasons"]],
        "",
        scores_table(record, config.dataset.protocol),
        "",
        "Value (people). Green: the head asked about; yellow: the annotations; red: the prediction.",
        "",
        "![predictions](predictions.png)" if picture.is_file() else "",
        "",
        "## Settings",
        "",
        tabulate(settings, headers=["setting", "value", "origin", "why"], tablefmt="github", disable_numparse=True),
        "",
        f"All others are in `config.yaml`; `gazebench bench --config {folder.name}/config.yaml` repeats this run.",
        "",
        "## What was measured on what",
        "",
        *_facts(record),
    ]
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _facts(record: Mapping[str, Any]) -> list[str]:
    method, data, code = record["method"], record["data"], record["code"]
    trained = record["weights"].get("trained")
    return [
        f"- method: {method['name']}{_terms(method)}",
        f"- data: {data['name']} {data['split']}, labels {data['label_version']}, "
        f"{'complete' if data['complete'] else 'not the official set'}, fingerprint `{data['fingerprint'][:16]}`"
        f"{_terms(data)}",
        f"- head boxes: {data['head_boxes']}",
        f"- subsets: {_subsets(data.get('subsets'))}",
        f"- selection: {record['selection']}",
        f"- weights: {record['weights']['name']} {record['weights']['grade']}"
        + (f"; trained here: {trained['file']}, sha256 `{trained['sha256'][:16]}`" if trained else ""),
        f"- parameters: {record['parameters']['trained']:,} trained of {record['parameters']['total']:,}",
        f"- code: {code['version']}, commit {code['commit'] or 'unknown'}{' (changed)' if code['dirty'] else ''}, "
        f"digest `{code['digest']}`",
        f"- time: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in record['wall_seconds'].items())}",
    ]


def _terms(part: Mapping[str, Any]) -> str:
    """Who brings a method or dataset, on what terms, and what to cite; what a record does not say is left out."""
    told = {"brought by": "origin", "licence": "licence", "paper": "paper", "cite": "citation"}
    return "".join(f"; {name} {part[key]}" for name, key in told.items() if part.get(key))


def _subsets(identity: Mapping[str, Any] | None) -> str:
    if identity is None:
        return "the data's own, if any"
    missing = [
        f"{identity[which]:,} {what}{_examples(identity.get(f'{which}_examples', ()))}"
        for which, what in (
            ("unnamed", "people in frame are not in it"),
            ("unknown", "of its people are not in the data"),
            ("undecided", "people in frame are in it without a verdict"),
        )
    ]
    return f"by {identity['name']}, file `{identity['sha256'][:12]}`; {'; '.join(missing)}"


def _examples(names: Sequence[str]) -> str:
    return f" ({', '.join(names)} ...)" if names else ""


def gallery(dataset: GazeDataset, predictions: pd.DataFrame, count: int = 8) -> Figure:
    """People of the test split with their heads, annotations and predictions, spread over subsets and errors."""
    records = dataset.records("test")
    row_of = {str(person): row for row, person in enumerate(records.person_id)}
    columns = 4
    chosen = _spread(predictions, count)
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (_, row) in zip(axes, chosen.iterrows(), strict=False):
        person = row_of[row["person_id"]]
        image = int(records.person_image[person])
        width, height = dataset.size(records, image)
        picture = dataset.picture(records, image)
        head = clean_boxes(normalise(records.head[[person]], records.head_unit, width, height))[0]
        points = normalise(records.points_of(person), records.point_unit, width, height)
        inside = records.inout[person] == IN_FRAME
        heatmap = None
        if row["heatmap"] is not None:
            heatmap = np.frombuffer(row["heatmap"], "<f4").reshape(int(row["heatmap_h"]), int(row["heatmap_w"]))
        draw(axis, picture, head, points if inside else None, (row["x"], row["y"]), heatmap)
        score = "" if pd.isna(row["inout"]) else f", p(in) {row['inout']:.2f}"
        axis.set_title(f"{row['subset'] or ('in frame' if inside else 'out of frame')}{score}", fontsize=9)
    return figure


def draw(
    axis: Axes,
    picture: npt.NDArray[np.uint8],
    head: npt.NDArray[np.float64] | None,
    truth: npt.NDArray[np.float64] | None,
    answer: tuple[float, float] | None,
    heatmap: npt.NDArray[np.float32] | None,
) -> None:
    """One picture with an overlay; boxes (4,) and points normalised."""
    height, width = picture.shape[:2]
    axis.imshow(picture)
    if heatmap is not None and heatmap.max() > 0:
        shade = colormaps["inferno"](heatmap / heatmap.max())
        shade[..., 3] = np.clip(heatmap / heatmap.max(), 0, 1) * 0.6
        axis.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    scale = np.array([width, height])
    start = None
    if head is not None and np.isfinite(head).all():
        low, high = head[:2] * scale, head[2:] * scale
        axis.add_patch(Rectangle(tuple(low), *(high - low), fill=False, edgecolor=HEAD, linewidth=1.8))
        start = (low + high) / 2
    if truth is not None and len(truth):
        axis.scatter(
            (truth * scale)[:, 0],
            (truth * scale)[:, 1],
            s=14,
            color=TRUTH,
            edgecolors="black",
            linewidths=0.4,
            zorder=3,
        )
    if answer is not None and np.isfinite(answer).all():
        x, y = np.asarray(answer) * scale
        if start is not None:
            axis.plot([start[0], x], [start[1], y], color=ANSWER, linewidth=1, alpha=0.8)
        axis.scatter([x], [y], s=50, marker="x", color=ANSWER, linewidths=2, zorder=4)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _spread(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows taken evenly over (subset, in frame) groups, one an image where possible, always the same ones."""
    once = predictions.drop_duplicates("image_id")
    pool = once if len(once) >= count else predictions
    kinds = [group for _, group in pool.groupby([pool["subset"], pool["target_inout"]], sort=True)]
    picked: list[Any] = []
    position = 0
    while len(picked) < min(count, len(pool)):
        for group in kinds:
            if position < len(group) and len(picked) < count:
                picked.append(group.index[_scatter(position, len(group))])
        position += 1
    return pool.loc[list(dict.fromkeys(picked))]


def _scatter(position: int, length: int) -> int:
    """A fixed low-discrepancy walk through 0..length-1 that never repeats while position < length."""
    step = next(s for s in range(max(1, round(length * 0.618)), 2 * length + 2) if np.gcd(s, length) == 1)
    return position * step % length


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def save_overlay(path: Path, picture: npt.NDArray[np.uint8], panels: Sequence[dict[str, Any]]) -> None:
    """One panel a person: keys ``head``, ``truth``, ``answer``, ``heatmap``, ``title``."""
    height, width = picture.shape[:2]
    side = 5.0
    figure = Figure(figsize=(side * len(panels) * max(1, width / height), side + 0.3), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True):
        axis.set_axis_off()
        axis.set_title(panel.get("title", ""), fontsize=10)
        draw(axis, picture, panel.get("head"), panel.get("truth"), panel.get("answer"), panel.get("heatmap"))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
