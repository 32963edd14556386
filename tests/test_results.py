"""Records: checked, immutable, whole or not at all; tables made from them."""

import copy
import json
import multiprocessing
from pathlib import Path

import pandas as pd
import pytest

from gazebench.engine import record as results
from gazebench.engine.record import RecordError, read_records, validate, write_record
from gazebench.engine.registry import load_dataset
from gazebench.metrics.protocol import Protocol
from gazebench.report.board import refresh
from gazebench.report.board.markdown import render, table
from gazebench.report.board.rows import board

WORLD = load_dataset("gazeworld")


def record(run="a1", method="gazelle", value=0.1, klass="synthetic", seed=0, protocol: Protocol = WORLD.protocol):
    return {
        "schema": 1,
        "run": run,
        "kind": "bench",
        "method": {"name": method, "title": method.title(), "family": "test"},
        "dataset": "gazeworld",
        "status": {"class": klass, "reasons": ["because"] if klass == "smoke" else []},
        "metrics": {
            protocol.headline: {"all": {"value": value, "count": 5}, "consistent": {"value": value, "count": 3}}
        },
        "samples": {"people": 5, "images": 3, "skipped_images": [], "predictions_sha256": None},
        "protocol": protocol.describe(),
        "data": {"name": "gazeworld", "split": "test", "fingerprint": "f", "complete": True, "label_version": "1",
                 "head_boxes": "exact"},
        "weights": {"grade": "embedded", "name": "tiny"},
        "config": {},
        "seed": seed,
        "selection": "last",
        "code": {"version": "0", "commit": None, "dirty": None, "digest": "d"},
        "parameters": {"total": 10, "trained": 5},
        "wall_seconds": {"fit": 1.0},
        "peak_memory_bytes": {"process": 1},
        "hardware": {},
        "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("seed"), "'seed' is a required property"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["metrics"].clear(), "metrics"),
        (lambda r: r["metrics"][WORLD.protocol.headline]["all"].update(count=0), "count"),
        (lambda r: r["status"].update({"class": "great"}), "status/class"),
        (lambda r: r.update(run="../x"), "run"),
    ],
)
def test_schema_names_the_place(change, message):
    broken = record()
    change(broken)
    with pytest.raises(RecordError, match=message):
        validate(broken, "file.json")


def test_nan_is_no_value(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(record(value=float("nan")), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_records_are_immutable(tmp_path):
    path = write_record(record(), tmp_path)
    before = path.read_bytes()
    assert write_record(record(), tmp_path) == path
    elsewhere = write_record(record(value=0.2), tmp_path)  # the same run on another processor
    assert elsewhere != path
    assert write_record(record(value=0.2), tmp_path) == elsewhere
    assert path.read_bytes() == before
    assert len(read_records(tmp_path, "gazeworld")) == 2


def test_a_broken_record_is_named(tmp_path):
    path = write_record(record(), tmp_path)
    path.write_text("{")
    with pytest.raises(RecordError, match=path.name):
        read_records(tmp_path, "gazeworld")


def _finish(folder: Path, index: int) -> None:
    write_record(record(run=f"r{index}", value=0.1 + index / 100), folder)
    refresh(folder, "gazeworld", WORLD)


def test_two_runs_finishing_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_finish, args=(tmp_path, index)) for index in range(6)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 6
    rows = pd.read_csv(tmp_path / "gazeworld" / "leaderboard.csv")
    assert sorted(rows["run"]) == [f"r{index}" for index in range(6)]
    names = {path.name for path in (tmp_path / "gazeworld").iterdir() if path.suffix not in (".json", ".html")}
    assert names == {"README.md", "leaderboard.csv", ".lock"}


def test_table_is_sorted_and_keeps_smoke_runs_apart():
    better, worse = record("b", value=0.1), record("w", value=0.3)
    smoke = record("s", value=0.01, klass="smoke")
    other = copy.deepcopy(record("o", value=0.001))
    other["protocol"]["id"] = "gazeworld-v999"
    shown = board("gazeworld", WORLD, {one["run"]: one for one in (worse, smoke, better, other)})
    frame = table(shown)
    assert list(frame["run"]) == ["b", "w", "s"]
    text = render(shown)
    smoke_part = text.split("## Smoke runs")[1]
    assert "| s " in smoke_part
    assert "| b " not in smoke_part
    assert "no published benchmark" in text
    assert "o" not in list(frame["run"])
    assert "Where they come from" not in text, "records of before it was written down"


def test_code_identity_has_no_paths():
    identity = results.code_identity()
    assert identity["digest"]
    assert "/" not in json.dumps(identity)
