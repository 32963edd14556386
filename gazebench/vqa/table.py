"""Models by question types: a table a data set, of the results of answerers and the records of trained methods."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.engine.record import read_records
from gazebench.metrics.intervals import Interval
from gazebench.report.table import Cell, Column, Table, csv
from gazebench.vqa.metrics import QUESTION_METRICS
from gazebench.vqa.metrics_v2 import QUESTION_METRICS_V2
from gazebench.vqa.scoring import other_coordinates

_VERSION_1: dict[str, dict[str, str]] = {
    "object": {
        "vqa_object": "acc", "vqa_object_clip": "CLIP", "vqa_object_bleu": "BLEU-4", "vqa_object_rouge": "ROUGE-L",
        "vqa_object_judge": "judge", "vqa_object_judge_open": "no verdict",
    },
    "direction": {"vqa_direction": "acc", "vqa_direction_steps": "steps"},
    "point": {"vqa_point": "within .1", "vqa_point_l2": "L2", "vqa_point_angle": "angle"},
    "recognition": {
        "vqa_refusal": "acc", "vqa_refusal_precision": "P", "vqa_refusal_recall": "R", "vqa_refusal_f1": "F1",
        "vqa_false_refusal": "false refusals",
    },
    "": {
        "vqa_overall": "overall", "vqa_parsed": "parsed", "vqa_refused": "refused", "vqa_cut": "cut",
        "vqa_unread": "unread",
    },
}  # fmt: skip
_SOCIAL = {"lah": "looks at head", "laeo": "at each other", "sa": "at the same"}


def _version_2(headings: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("vqa_", "vqa2_"): heading for name, heading in headings.items()}


GROUPS: tuple[tuple[str, Mapping[str, str]], ...] = (
    *_VERSION_1.items(),
    *((group, _version_2(headings)) for group, headings in _VERSION_1.items() if group),
    *((group, {f"vqa2_{task}": "acc", f"vqa2_{task}_f1": "F1", f"vqa2_{task}_ap": "AP"})
      for task, group in _SOCIAL.items()),
    ("", _version_2(_VERSION_1[""]) | {"vqa2_overall": "first four", "vqa2_social": "last three"}),
)  # fmt: skip
"""Metrics with their headings, by question type; no model has metrics of two versions in one row."""
USES = {use.name: use for use in (*QUESTION_METRICS, *QUESTION_METRICS_V2)}
"""The metrics themselves: from the registry of tasks they would be missing where a plug-in is broken."""
MEANS = ("vqa2_overall", "vqa_overall", "vqa2_social", "vqa2_refusal")
"""The first of them that a row has is what rows are sorted by."""
ORDER = ("ceiling", "floor", "zero-shot", "in context", "trained")
STATUS = {
    "smoke": "incomplete data, open questions, or changed code: no results",
    "synthetic": "complete (synthetic data: no published benchmark)",
    "listed": "complete by the release's own file list",
    "unverified": "complete, weights not verified",
}


@dataclass(frozen=True)
class ModelRow:
    """What one model scored.

    Attributes:
        status: ``complete``, or a key of ``STATUS``.
        protocol: what it was asked by.
        mode: how it answers, e.g. ``zero-shot``.
        metrics: by name ``value`` and maybe ``low`` and ``high``.
        questions: how many it was asked.
        coordinates: what its points would score by other conventions; "" where that is not known.
    """

    split: str
    status: str
    protocol: str
    mode: str
    model: str
    metrics: Mapping[str, Mapping[str, Any]]
    questions: int
    coordinates: str = ""

    @property
    def place(self) -> tuple[Any, ...]:
        """What rows are sorted by."""
        rank = [self.mode.startswith(name) for name in (*ORDER, "")].index(True)
        mean = next((self.metrics[name]["value"] for name in MEANS if name in self.metrics), 0.0)
        version = -int(self.protocol.partition(",")[0].rpartition("-v")[2])  # the newest first
        return self.split, version, self.protocol, self.status, rank, self.mode, -mean, self.model

    def interval(self, metric: str) -> Interval | None:
        """The value with half the width of its interval; None where it has none."""
        found = self.metrics.get(metric)
        if found is None:
            return None
        half = (found["high"] - found["low"]) / 2 if found.get("low") != found.get("high") else None
        return Interval(found["value"], half, found["count"])


def refresh(folder: Path, boards: Path, dataset: str, title: str) -> tuple[Path, str]:
    """Writes ``<folder>/<dataset>/README.md`` and ``table.csv`` anew; returns the page's place and text.

    Args:
        folder: of the results of answerers.
        boards: of the records of methods.
        dataset: its name.
        title: how it is called in print.

    Raises:
        DataError: a file that is no result.
    """
    rows = sorted([*_results(folder / dataset), *_records(boards, dataset)], key=lambda row: row.place)
    lines = [
        f"# Questions about {title}",
        "",
        f"<!-- generated by `gazebench vqa table {dataset}`; do not edit -->",
        "",
        "The protocols are ours ([docs/vqa.md](../../../docs/vqa.md)): these are not numbers of VL4Gaze. The wording "
        "of version 1 gives answers away; its rows stay for the record.",
        "± half the width of the 95% interval, over images or clips.",
    ]
    for kind in dict.fromkeys((row.split, row.protocol, row.status) for row in rows):
        chosen = [row for row in rows if (row.split, row.protocol, row.status) == kind]
        split, protocol, status = kind
        lines += ["", f"## {split}, {protocol}: {STATUS.get(status, 'complete')}", "", table(chosen).markdown()]
        told = [f"- {row.model} ({row.mode}): {row.coordinates}" for row in chosen if row.coordinates]
        lines += ["", "Coordinates:", "", *told] if told else []
    place, text = folder / dataset / "README.md", "\n".join(lines) + "\n"
    write_atomically(place, text)
    first = ("split", "protocol", "status", "mode", "model", "questions")
    values = [
        {name: getattr(row, name) for name in first} | {name: one["value"] for name, one in row.metrics.items()}
        for row in rows
    ]
    frame = pd.DataFrame(values, columns=[*first, *(name for _, headings in GROUPS for name in headings)])
    write_atomically(folder / dataset / "table.csv", csv(frame.dropna(axis="columns", how="all")))
    return place, text


def table(rows: Sequence[ModelRow]) -> Table:
    """A column for every metric that somebody has."""
    used = {name for row in rows for name in row.metrics}
    columns = {
        name: Column(heading, group, min(USES[name].digits, 3), USES[name].higher_is_better, name)
        for group, headings in GROUPS
        for name, heading in headings.items()
        if name in used
    }
    cells: list[list[Cell]] = [
        [row.mode, row.model, *(row.interval(name) for name in columns), row.questions] for row in rows
    ]
    return Table([Column("mode"), Column("model"), *columns.values(), Column("questions", digits=0)], cells)


def _results(folder: Path) -> Iterator[ModelRow]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            # Until version 2 of the records of runs, those of answers had a schema of their own.
            config, status = record.get("config", record), record["status"]["class"]
            protocol = record["protocol"]
            if not isinstance(protocol, str):
                protocol = next(iter(protocol["tasks"].values()))["id"]
            protocol += ", all pairs" if config["questions"].get("all_pairs") else ""
            answerer, read = record.get("method", record.get("answerer")), config.get("reading")
            metrics = {name: score.get("all", score) for name, score in record["metrics"].items()}
            row = ModelRow(
                config["split"], "complete" if status == "official" else status, protocol, answerer["mode"],
                answerer["title"], metrics, sum(config["questions"]["counts"].values()),
                other_coordinates(read) if read and answerer["mode"] not in ORDER[:2] else "",
            )  # fmt: skip
            assert row.place
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a result ({type(error).__name__}: {error}); score the answers anew"
            ) from error
        yield row


def _records(boards: Path, dataset: str) -> Iterator[ModelRow]:
    """The methods that answered questions in a run of their own."""
    names = {name for _, headings in GROUPS for name in headings}
    for record in read_records(boards, dataset):
        metrics = {name: scores["all"] for name, scores in record["metrics"].items() if name in names}
        counted = next((metrics[name]["count"] for name in ("vqa2_parsed", "vqa_parsed") if name in metrics), 0)
        if counted:
            status = record["status"]["class"]
            # Weights that a run began with or made by learning; a run that learns nothing stores some, too.
            trained = record["parameters"]["trained"] > 0 or record["weights"]["initial"] is not None
            yield ModelRow(
                record["data"]["split"],
                "complete" if status == "official" else status,
                "gazebench-vqa-v2" if "vqa2_parsed" in metrics else "gazebench-vqa-v1",
                "trained" if trained else "zero-shot",
                f"{record['method']['title']}, seed {record['seed']}",
                metrics,
                counted,
            )
