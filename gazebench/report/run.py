"""What a run shows: a table, a report page, and a picture of predictions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from gazebench.core.files import write_atomically
from gazebench.engine.config import Config, provenance
from gazebench.engine.run import Outcome
from gazebench.metrics.intervals import format_value
from gazebench.metrics.protocol import Protocol, SUBSETS
from gazebench.report.board import local
from gazebench.report.page import write_page
from gazebench.report.pictures import gallery


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
    print_scores(record, config.dataset.protocol)
    seconds = sum(record["wall_seconds"].values())
    print(f"\ntook      {seconds:.0f} s, peak memory {max(record['peak_memory_bytes'].values()) / 2**30:.1f} GiB")
    print(f"board     {_short(outcome.board)}")
    for what, path in _reports(outcome, config).items():
        print(f"{what:<9} {_short(path)}")


def _reports(outcome: Outcome, config: Config) -> dict[str, Path]:
    """Writes what is not there yet; a report that cannot be written costs no result, and is said to be missing."""
    folder, found = outcome.folder, {}
    try:
        found["report"] = write_report(outcome.record, config, folder)
        page = folder / "report.html"
        found["page"] = page if outcome.repeated and page.is_file() else write_page(outcome.record, folder)
        board = local(outcome.board.parents[1], folder.parents[2])
        found |= {"all runs": board} if board else {}
    except Exception as error:
        print(f"no full report ({type(error).__name__}: {error})", file=sys.stderr)
        print(f"`gazebench report {folder}` tries again", file=sys.stderr)
    picture = folder / "predictions.png"
    return found | ({"picture": picture} if picture.is_file() else {})


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


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
