"""The page of a record: all that a record says of its run, and more where the folder of the run is at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from gazebench.engine import standing
from gazebench.metrics.protocol import SUBSETS, Protocol
from gazebench.report.board_rows import BADGES, COSTS, costs, origins, score_of, timing
from gazebench.report.page import render
from gazebench.report.run_data import Record, metric_uses
from gazebench.report.table import Cell, Column, Table, text

ORIGINS = ("paper", "official code", "ours", "user")
"""Of settings, in the order they are counted."""


def record_page(
    record: Record,
    protocol: Protocol | None,
    title: str,
    *,
    index: str,
    assets: str = "",
    siblings: Mapping[str, Record] | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The page.

    Args:
        record: of the run.
        protocol: of its data set.
        title: of its data set.
        index: address of the board.
        assets: address of the style sheet's folder; the style is written into the page when it is empty.
        siblings: the other seeds of the same configuration, by address.
        more: what only the run's folder has: ``figures``, ``tables``, ``gallery``, ``left_out``.
    """
    values = dict(record["config"])
    sheet = values.pop("provenance", {})
    counts = Counter(setting["origin"] for setting in sheet.values())
    return render(
        "run.html.j2", record=record, title=title, index=index, assets=assets, badges=BADGES,
        scores=scores_table(record, protocol).html(counts=True), sheet=sheet, others=other_settings(values, sheet),
        origins=sorted(counts.items(), key=lambda one: (*ORIGINS, one[0]).index(one[0])),
        costs=[(cost.about, text(costs(record)[cost.key], cost.digits)) for cost in COSTS], facts=facts(record),
        terms=origins(record, look_up=True), siblings=siblings or {}, repeat=repeat(record),
        config=yaml.safe_dump(values, sort_keys=False),
        more=more,
    )  # fmt: skip


def scores_table(record: Record, protocol: Protocol | None) -> Table:
    """A row a metric, a column a subset that the record has."""
    uses = [use for name, use in metric_uses(protocol).items() if name in record["metrics"]]
    subsets = [subset for subset in SUBSETS if any(subset in by for by in record["metrics"].values())]
    columns = [Column("metric"), *(Column("everybody" if subset == "all" else subset, digits=4) for subset in subsets)]
    rows: list[list[Cell]] = []
    for use in uses:
        heading = Column(use.name, higher=use.higher_is_better).heading
        rows.append([heading, *(score_of(record, use.name, subset) for subset in subsets)])
    return Table(columns, rows, digits=[use.digits for use in uses])


def other_settings(values: Record, named: Record) -> list[tuple[str, str]]:
    """All settings the recipe leaves at their defaults: dotted name, value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return [(name, repr(value)) for name, value in found.items() if name not in named]


def repeat(record: Record) -> str:
    """The command that repeats a run."""
    if record.get("kind") == "score":
        file, data = record["config"].get("predictions", "FILE"), record["dataset"]
        return f'gazebench score {file} {data} --title="{record["method"]["title"]}"'
    root = "" if record["data"].get("synthetic") else " --dataset.root=DIR"
    return f"gazebench {'eval WEIGHTS' if record.get('kind') == 'eval' else 'bench'} --config=config.yaml{root}"


def facts(record: Record) -> list[tuple[str, str]]:
    """What was measured on what: names and texts."""
    data, code, hardware = record["data"], record["code"], record["hardware"]
    weights, samples, method = record["weights"], record["samples"], record["method"]
    trained, initial, how = weights.get("trained"), weights.get("initial"), record.get("intervals")
    found = {
        "data": f"{data['name']}, {data['split']}; {_counts(data)}; labels {data['label_version']}",
        "fingerprint of the annotations": data["fingerprint"],
        "head boxes": data["head_boxes"],
        "subsets": _subsets(data.get("subsets")),
        "trained on": _training(data.get("train")),
        "selection": record["selection"],
        "backbone": weights.get("name") or "none",
        "weights": "; ".join(map(_weights, standing.parts(weights, record.get("kind", "bench")))),
        "started from": f"{initial['file']}, sha256 {initial['sha256']}" if initial else "",
        "weights of this run": f"{trained['file']}, sha256 {trained['sha256']}" if trained else "",
        "images left out": ", ".join(samples["skipped_images"][:5]),
        "predictions": f"sha256 {samples['predictions_sha256']}" if samples.get("predictions_sha256") else "",
        "versions": f"method {method.get('version', 1)}, data set {data.get('version', 1)}, {record['protocol']['id']}",
        "code": f"gazebench {code['version']}, commit {code['commit'] or 'unknown'}"
        f"{', with changes' if code['dirty'] else ''}, digest {code['digest']}",
        "intervals": f"{how['level']:.0%}, {how['method']}, {how['draws']:,} draws" if how else "",
        "machine": ", ".join(
            filter(
                None,
                [
                    hardware.get("processor"),
                    hardware.get("cores") and f"{hardware['cores']} cores",
                    *hardware.get("accelerators", ()),
                    f"Python {hardware['python']}" if "python" in hardware else "",
                ],
            )
        ),
        "inference": timing(record),
        "packages": ", ".join(f"{name} {version}" for name, version in hardware.get("packages", {}).items()),
        "time": ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in record["wall_seconds"].items()),
        "finished": record["finished"],
    }
    return [(name, shown) for name, shown in found.items() if shown]


def _counts(data: Record) -> str:
    official = data.get("official") or {}
    counts = [
        f"{n:,} {what}" + (f" of {official[what]:,}" if official.get(what, n) != n else "")
        for what, n in (data.get("found") or {}).items()
    ]
    found = standing.completeness(data)
    whole = {"complete": f"complete by {found['by']}", "own list": "complete by the release's own file list"}
    return ", ".join([*counts, whole.get(found["state"], "not the official set")])


def _weights(part: standing.Part) -> str:
    how = {"record": f"record of run {part.run}", "": ""}.get(part.by, part.by)
    return f"{part}: {part.standing}{f' by {how}' if how else ''}"


def _training(train: Record | None) -> str:
    if not train:
        return ""
    used = f"{train['used_people']:,} people of {train['used_images']:,} images" if "used_people" in train else ""
    return f"{train['split']}, {used or _counts(train)}; fingerprint {train['fingerprint'][:16]}"


def _subsets(split: Record | None) -> str:
    if split is None:
        return "the data's own, if any"
    parts = [f"by {split['name']}, file {split['sha256'][:12]}"]
    for key, what in (
        ("unnamed", "people in frame are not in it"),
        ("unknown", "of its people are not in the data"),
        ("undecided", "people in frame are in it without a verdict"),
    ):
        if key in split:
            examples = ", ".join(split.get(f"{key}_examples", ()))
            parts.append(f"{split[key]:,} {what}" + (f" ({examples} ...)" if examples else ""))
    return "; ".join(parts)
