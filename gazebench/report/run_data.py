"""What reports read of runs, records and data sets; the only place that knows where it lies."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from gazebench.core.errors import DataError
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import Config
from gazebench.engine.run import Places
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import Protocol, ProtocolMetric, QUESTIONS

Heatmap = npt.NDArray[np.float32]


def find_run(name: str, places: Places) -> Path:
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


def read_record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return found


def people(folder: Path) -> pd.DataFrame | None:
    """The scored people of a run by ``person_id``; None where the run kept none.

    Columns: ``image_id, group, subset, target_inout, x, y, inout, label`` and a ``metric_<name>`` each.
    """
    path = folder / "predictions.parquet"
    if not path.is_file():
        return None
    return pd.read_parquet(path).set_index("person_id").drop(columns=["heatmap"], errors="ignore")


def heatmaps(folder: Path, person_ids: Collection[str]) -> dict[str, Heatmap]:
    """The raw heatmaps (h, w) of some people of a run; those that the run did not keep are absent."""
    path = folder / "predictions.parquet"
    if not path.is_file() or not person_ids:
        return {}
    columns = ["person_id", "heatmap", "heatmap_h", "heatmap_w"]
    found = pd.read_parquet(path, columns=columns, filters=[("person_id", "in", list(person_ids))])
    return {
        str(name): np.frombuffer(stored, "<f4").reshape(int(height), int(width))
        for name, stored, height, width in found.itertuples(index=False)
        if isinstance(stored, bytes)
    }


def read_config(folder: Path) -> Config:
    """The settings of a run; they name a method or data set of a file by its path, which records leave out."""
    path = folder / "config.yaml"
    if not path.is_file():
        return Config({"data": read_record(folder)["dataset"], "dataset": {}})
    return Config(yaml.safe_load(path.read_text(encoding="utf-8")))


def dataset_of(folder: Path, root: str | None = None) -> GazeDataset:
    """The data set of a run with the run's settings; ``root``: where its pictures are now."""
    config = read_config(folder)
    return config.dataset(**(config.values["dataset"] | ({"root": root} if root else {})))


# Metrics ---------------------------------------------------------------------------------------------------------


def task_metrics() -> tuple[ProtocolMetric, ...]:
    """The metrics of all registered tasks."""
    return QUESTIONS


def metric_uses(protocol: Protocol | None) -> dict[str, ProtocolMetric]:
    """The metrics that a record may have, by name: the protocol's in its order, then those of tasks."""
    return {use.name: use for use in (*(protocol.metrics if protocol else ()), *task_metrics())}


def higher_is_better(use: ProtocolMetric) -> bool:
    return bool(use.metric().higher_is_better)


def is_mean_over_people(use: ProtocolMetric) -> bool:
    metric = use.metric()
    return type(metric).reduce is GazeMetric.reduce and metric.unit == "person"


def rows_of(records: Records) -> Mapping[str, int]:
    """Where a person is in the records, by id."""
    return {str(person): row for row, person in enumerate(records.person_id)}
