"""What the board already knows of a study's runs: finished ones to take over, and how long such runs take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gazebench.engine.config import Config
from gazebench.engine.record import RecordError, hardware_identity, read_records
from gazebench.engine.run import Places
from gazebench.study.plan import Plan
from gazebench.study.store import Store

_SAME_MACHINE = ("processor", "accelerators")


def adopt(plan: Plan, store: Store, places: Places) -> int:
    """Stores the board's runs of exactly the plan's settings, as if the study had made them; returns how many.

    Of several records of the same settings the newest counts. Their people come along where the folder of the run is
    still there, and are missing from figures otherwise.
    """
    board: dict[str, Mapping[str, Any]] = {}
    for record in sorted(_finished(plan, places), key=lambda record: str(record["finished"])):
        board[_settings(record["config"])] = record
    known, taken = store.results(), 0
    for run in plan.runs:
        config = plan.config(run)
        found = board.get(_settings(config.public()))
        if found is None or (run.row, run.seed) in known:
            continue
        folder = places.runs / plan.dataset / found["method"]["name"] / found["run"]
        store.add(
            run, found, digest=config.digest(), seconds=sum(found["wall_seconds"].values()),
            predictions=folder / "predictions.parquet",
        )  # fmt: skip
        taken += 1
    return taken


def seconds(plan: Plan, places: Places) -> dict[str, float]:
    """By row, what runs of its method took on this dataset, for as many epochs, on a machine like this one."""
    machine, spent = hardware_identity(), dict[tuple[Any, ...], list[float]]()
    try:
        records = _finished(plan, places)
    except RecordError:  # a guess is not worth stopping for
        records = []
    for record in records:
        if all(record["hardware"].get(name) == machine[name] for name in _SAME_MACHINE):
            spent.setdefault(_kind(record["config"]), []).append(sum(record["wall_seconds"].values()))
    rows = {run.row: _kind(plan.config(run).public()) for run in plan.runs}
    return {row: sum(spent[kind]) / len(spent[kind]) for row, kind in rows.items() if kind in spent}


def _finished(plan: Plan, places: Places) -> list[dict[str, Any]]:
    """Complete runs on the plan's dataset that were trained and tested in one go."""
    records = read_records(places.boards, plan.dataset)
    return [record for record in records if record.get("kind") == "bench" and record["status"]["class"] != "smoke"]


def _settings(values: Mapping[str, Any]) -> str:
    return Config({key: value for key, value in values.items() if key != "provenance"}).digest()


def _kind(values: Mapping[str, Any]) -> tuple[Any, ...]:
    dataset = {key: value for key, value in values["dataset"].items() if key not in ("root", "subsets")}
    return values["method"], values["trainer"]["max_epochs"], repr(sorted(dataset.items()))
