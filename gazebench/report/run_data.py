"""What reports read of runs and records; the only place that knows where a run keeps what."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import read_config
from gazebench.engine.method import Method
from gazebench.engine.registry import load_dataset, load_method, tasks
from gazebench.engine.run import Places
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import Protocol, ProtocolMetric

Record = Mapping[str, Any]
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

    Columns: ``image_id, group, subset, target_inout, x, y, inout`` and a ``metric_<name>`` each; NaN where the method
    gave no point or no in/out score.
    """
    path = folder / "scores.parquet"
    if not path.is_file():
        return None
    frame = pd.read_parquet(path).set_index("person_id")
    return frame.assign(**{name: np.nan for name in ("x", "y", "inout") if name not in frame})


def heatmaps(folder: Path, person_ids: Collection[str]) -> dict[str, Heatmap]:
    """The raw heatmaps (h, w) of some people of a run; those that the run did not keep are absent."""
    path = folder / "predictions.parquet"
    if not path.is_file() or not person_ids:
        return {}
    found = pd.read_parquet(path, filters=[("person_id", "in", list(person_ids))])
    if "heatmap" not in found:
        return {}
    columns = found[["person_id", "heatmap", "heatmap_h", "heatmap_w"]]
    return {
        str(name): np.frombuffer(stored, "<f4").reshape(int(height), int(width))
        for name, stored, height, width in columns.itertuples(index=False)
        if isinstance(stored, bytes)
    }


def dataset_of(folder: Path, root: str | None = None) -> GazeDataset:
    """The data set of a run with the run's settings; ``root``: where its images are now."""
    path = folder / "config.yaml"
    # A configuration names a data set of a file by its path, which a record leaves out.
    config = read_config(path) if path.is_file() else {"data": read_record(folder)["dataset"]}
    settings = config.get("dataset", {}) | ({"root": root} if root else {})
    return load_dataset(config["data"])(**settings)


@cache  # pages ask for the same few thousands of times
def known_dataset(name: str) -> type[GazeDataset] | None:
    """None where the suite has no such data set."""
    try:
        return load_dataset(name)
    except PluginError:
        return None


@cache
def known_method(name: str) -> type[Method] | None:
    """None where the suite has no such method."""
    try:
        return load_method(name)
    except PluginError:
        return None


@cache
def task_metrics() -> tuple[ProtocolMetric, ...]:
    """The metrics of all registered tasks."""
    return tuple(use for task in tasks().values() for use in task.metrics)


def metric_uses(protocol: Protocol | None) -> dict[str, ProtocolMetric]:
    """The metrics that a record may have, by name: the protocol's in its order, then those of tasks."""
    return {use.name: use for use in (*(protocol.metrics if protocol else ()), *task_metrics())}


def is_mean_over_people(use: ProtocolMetric) -> bool:
    metric = use.metric()
    return type(metric).reduce is GazeMetric.reduce and metric.unit == "person"
