"""What a study keeps beside its tables, small enough to be committed: a fresh clone renders without training.

``results.json`` has the metrics of every run and what they were measured with, ``people.parquet`` every person's
prediction and metrics, ``heatmaps.parquet`` the few heatmaps that are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.study.plan import PlannedRun

SCHEMA_VERSION = 2
"""2 knows a run by its id and by what decides it (``engine.run``)."""
_RUN = ["row", "seed", "run"]
_PERSON = ["person_id", "image_id", "subset", "x", "y", "inout"]
_HEATMAP = [*_RUN, "person_id", "height", "width", "heatmap"]


@dataclass(frozen=True)
class Store:
    """The files of a study in one folder; every change replaces a whole file."""

    folder: Path

    def results(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The stored runs by row and seed.

        Raises:
            DataError: the file is no store of this version.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            return {}
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema {stored['schema']}, expected {SCHEMA_VERSION}")
            return {(entry["row"], entry["seed"]): entry for entry in stored["runs"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not the results of a study ({error}); move it away to begin anew") from error

    def people(self) -> pd.DataFrame:
        """One row a run and person: ``row, seed, run``, point, in/out score and a ``metric_*`` column each."""
        return self._read("people.parquet", [*_RUN, *_PERSON])

    def heatmaps(self) -> pd.DataFrame:
        """The heatmaps that are drawn, float16 bytes."""
        return self._read("heatmaps.parquet", _HEATMAP)

    def add(
        self,
        run: PlannedRun,
        record: Mapping[str, Any],
        *,
        id: str,
        identity: Mapping[str, Any],
        seconds: float,
        scores: Path | None,
    ) -> None:
        """Stores a finished run in place of an earlier one of the same row and seed.

        The people go first: an interruption in between leaves people of a run no result speaks of, and no harm.

        Args:
            run: of the plan.
            record: of the run.
            id: names the run by the present rule; an older record may go by another name.
            identity: what the id was made of.
            seconds: that it took.
            scores: its ``scores.parquet``.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if scores is not None and scores.is_file():
                before = self.people()
                others = before[(before["row"] != run.row) | (before["seed"] != run.seed)]
                mine = _people(pd.read_parquet(scores)).assign(row=run.row, seed=run.seed, run=record["run"])
                frame = pd.concat([others, mine]) if len(others) else mine
                first = [*_RUN, *_PERSON]
                frame = frame[[*first, *sorted(set(frame.columns) - set(first))]]
                self._write("people.parquet", frame.sort_values(["row", "seed"], kind="stable"))
            entries = self.results()
            entries[run.row, run.seed] = _entry(run, record) | {
                "id": id, "identity": dict(identity), "seconds": round(seconds, 1)
            }  # fmt: skip
            self._write_results(entries)

    def readdress(self, run: PlannedRun) -> None:
        """Notes that a stored run belongs to options that are written otherwise but mean the same."""
        with FileLock(self.folder / ".lock"):
            entries = self.results()
            if entries[run.row, run.seed]["arguments"] != list(run.arguments):
                entries[run.row, run.seed]["arguments"] = list(run.arguments)
                self._write_results(entries)

    def set_heatmaps(self, frame: pd.DataFrame) -> None:
        with FileLock(self.folder / ".lock"):
            self._write("heatmaps.parquet", frame[_HEATMAP])

    def _write_results(self, entries: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        stored = {"schema": SCHEMA_VERSION, "runs": [entries[key] for key in sorted(entries)]}
        text = json.dumps(stored, indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(self.folder / "results.json", text)

    def _read(self, name: str, columns: list[str]) -> pd.DataFrame:
        path = self.folder / name
        if not path.is_file():
            return pd.DataFrame({column: [] for column in columns})
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read ({error}); move it away") from error

    def _write(self, name: str, frame: pd.DataFrame) -> None:
        whole = frame.reset_index(drop=True)
        write_atomically(self.folder / name, lambda path: whole.to_parquet(path, compression="zstd"))


def _people(scores: pd.DataFrame) -> pd.DataFrame:
    """The columns that tables and figures need, numbers as float32."""
    metrics = [name for name in scores if str(name).startswith("metric_") and scores[name].notna().any()]
    frame = scores.reindex(columns=[*_PERSON, *metrics])
    return frame.astype(dict.fromkeys(["x", "y", "inout", *metrics], np.float32))


def _entry(run: PlannedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    hardware = record["hardware"]
    return {
        "row": run.row,
        "seed": run.seed,
        "arguments": list(run.arguments),
        "run": record["run"],
        "folder": f"{record['dataset']}/{record['method']['name']}/{record['run']}",
        "status": dict(record["status"]),
        "metrics": record["metrics"],
        "people": record["samples"]["people"],
        "trained": record["parameters"]["trained"],
        "commit": record["code"]["commit"],
        "dirty": bool(record["code"]["dirty"]),
        "version": record["code"]["version"],
        "hardware": {
            "processor": hardware.get("processor", "unknown"),
            "cores": hardware.get("cores"),
            "accelerators": hardware.get("accelerators", []),
            "torch": hardware.get("packages", {}).get("torch", "unknown"),
        },
        "finished": record["finished"],
    }
