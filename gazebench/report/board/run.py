"""The report page of a run: all of it that its record says, and more where the folder of the run is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from gazebench.metrics.intervals import format_value
from gazebench.metrics.protocol import SUBSETS, Protocol
from gazebench.report.board.rows import COSTS, Entry, Record, terms
from gazebench.report.board.templating import BADGES, render

ORIGINS = ("paper", "official code", "ours", "user")
"""Of settings, in the order they are counted."""


def report(
    record: Record,
    protocol: Protocol,
    title: str,
    *,
    index: str,
    assets: str = "",
    siblings: Mapping[str, Record] | None = None,
    more: Mapping[str, Any] | None = None,
    made: str = "",
) -> str:
    """The page.

    Args:
        record: of the run.
        protocol: of its dataset.
        title: of its dataset.
        index: address of the board.
        assets: address of the style sheet's folder; the style is written into the page when it is empty.
        siblings: the other seeds of the same configuration, by address.
        more: what only the run's folder has: ``figures``, ``groups``, ``counts``, ``gallery``.
        made: the command that writes the page; of the board when it is empty.
    """
    return render(
        "run.html.j2", record=record, title=title, protocol=protocol, index=index, assets=assets, badges=BADGES,
        scores=scores(record, protocol), subsets=_present(record), settings=settings(record), others=others(record),
        origins=_origins(record), costs=_costs(record), facts=facts(record), terms=terms(record),
        siblings=siblings or {}, config=_config(record), repeat=repeat(record), more=more, made=made,
    )  # fmt: skip


def siblings(entries: Iterable[Entry], stem: str, ending: str = ".html") -> dict[str, Record]:
    """The other seeds of a run's configuration by the address of their pages in the same folder."""
    mine = next((entry for entry in entries if stem in entry.records), None)
    return {f"{other}{ending}": one for other, one in mine.records.items() if other != stem} if mine else {}


def scores(record: Record, protocol: Protocol) -> list[dict[str, Any]]:
    """A row a metric: name, arrow, digits, and the scores by subset as the record has them."""
    found = []
    for use in protocol.metrics:
        if use.name in record["metrics"]:
            arrow = "↑" if protocol.higher_is_better(use.name) else "↓"
            by = record["metrics"][use.name]
            found.append({"name": use.name, "arrow": arrow, "digits": use.digits, "scores": by})
    return found


def _present(record: Record) -> list[str]:
    return [subset for subset in SUBSETS if any(subset in by for by in record["metrics"].values())]


def settings(record: Record) -> list[dict[str, str]]:
    """The recipe's settings: name, value, origin, place or reason."""
    sheet = record["config"].get("provenance", {})
    return [
        {"name": name, "value": repr(one["value"]), "origin": one["origin"], "why": one["why"]}
        for name, one in sheet.items()
    ]


def others(record: Record) -> list[tuple[str, str]]:
    """All settings the recipe leaves at their defaults: dotted name, value."""
    sheet = record["config"].get("provenance", {})
    found = []
    for name, value in record["config"].items():
        if name == "provenance":
            continue
        parts = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
        found += [(key, repr(one)) for key, one in parts.items() if key not in sheet]
    return found


def _origins(record: Record) -> list[tuple[str, int]]:
    found = [one["origin"] for one in record["config"].get("provenance", {}).values()]
    known = [*ORIGINS, *sorted(set(found) - set(ORIGINS))]
    return [(origin, found.count(origin)) for origin in known if origin in found]


def _costs(record: Record) -> list[tuple[str, str]]:
    return [
        (cost.title, format_value(None) if (value := cost.of(record)) is None else f"{value:,.{cost.digits}f}")
        for cost in COSTS
    ]


def _config(record: Record) -> str:
    values = {name: value for name, value in record["config"].items() if name != "provenance"}
    return str(yaml.safe_dump(values, sort_keys=False))


def repeat(record: Record) -> str:
    """The command that repeats a run."""
    if record.get("kind") == "score":
        file, data = record["config"].get("predictions", "FILE"), record["dataset"]
        return f'gazebench score {file} {data} --title="{record["method"]["title"]}"'
    root = "" if record["status"]["class"] == "synthetic" else " --dataset.root=DIR"
    if record.get("kind") == "eval":
        return f"gazebench eval WEIGHTS --config=config.yaml{root}"
    return f"gazebench bench --config=config.yaml{root}"


def facts(record: Record) -> list[tuple[str, str]]:
    """What was measured on what: names and texts."""
    data, code, hardware = record["data"], record["code"], record["hardware"]
    weights, samples = record["weights"], record["samples"]
    trained, initial = weights.get("trained"), weights.get("initial")
    found = {
        "data": f"{data['name']}, {data['split']}; {_counts(data)}; labels {data['label_version']}",
        "fingerprint of the annotations": data["fingerprint"],
        "head boxes": data["head_boxes"],
        "subsets": _subsets(data.get("subsets")),
        "trained on": _training(data.get("train")),
        "selection": record["selection"],
        "backbone": f"{weights.get('name') or 'none'}, weights: {weights['grade']}",
        "started from": f"{initial['file']}, sha256 {initial['sha256']}" if initial else "",
        "weights of this run": f"{trained['file']}, sha256 {trained['sha256']}" if trained else "",
        "pictures left out": ", ".join(samples["skipped_images"][:5]) if samples["skipped_images"] else "",
        "predictions": f"sha256 {samples['predictions_sha256']}" if samples.get("predictions_sha256") else "",
        "code": f"gazebench {code['version']}, commit {code['commit'] or 'unknown'}"
        f"{', with changes' if code['dirty'] else ''}, digest {code['digest']}",
        "method's file": f"digest {record['method']['source']}" if record["method"].get("source") else "",
        "intervals": _intervals(record.get("intervals")),
        "machine": _machine(hardware),
        "packages": ", ".join(f"{name} {version}" for name, version in hardware.get("packages", {}).items()),
        "time": ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in record["wall_seconds"].items()),
        "finished": record["finished"],
    }
    return [(name, text) for name, text in found.items() if text]


def _counts(data: Record) -> str:
    official = data.get("official") or {}
    counts = [
        f"{n:,} {what}" + (f" of {official[what]:,}" if official.get(what, n) != n else "")
        for what, n in (data.get("found") or {}).items()
    ]
    return ", ".join([*counts, "complete" if data["complete"] else "not the official set"])


def _training(train: Record | None) -> str:
    if not train:
        return ""
    used = f"{train['used_people']:,} people of {train['used_images']:,} pictures" if "used_people" in train else ""
    return f"{train['split']}, {used or _counts(train)}; fingerprint {train['fingerprint'][:16]}"


def _subsets(subsets: Record | None) -> str:
    if subsets is None:
        return "the data's own, if any"
    return f"by {subsets['name']}, file {subsets['sha256'][:12]}"


def _intervals(how: Record | None) -> str:
    return f"{how['level']:.0%}, {how['method']}, {how['draws']:,} draws" if how else ""


def _machine(hardware: Record) -> str:
    cores = f"{hardware['cores']} cores" if hardware.get("cores") else ""
    parts = [hardware.get("processor", ""), cores, *hardware.get("accelerators", [])]
    return ", ".join(part for part in [*parts, f"Python {hardware['python']}" if "python" in hardware else ""] if part)
