"""Records: checked, immutable, whole or not at all; those that are committed stay readable; tables made from them."""

import json
import multiprocessing
import re
from pathlib import Path

import pandas as pd
import pytest

from gazebench.core.files import write_atomically
from gazebench.engine.record import RecordError, code_identity, read_files, read_records, validate, write_record
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import BOARDS
from gazebench.report.board import refresh

WORLD = load_dataset("gazeworld")
COMMITTED = sorted(path.name for path in BOARDS.glob("*/") if any(path.glob("*.json")))


def record(run="a1", value=0.1, status="synthetic"):
    """A committed record with another id, also as its method's title, one metric, and another status."""
    found = json.loads((BOARDS / "gazeworld" / "gazelle-1b8e9795b7.json").read_text(encoding="utf-8"))
    scores = {"all": {"value": value, "count": 5}, "consistent": {"value": value, "count": 3}}
    reasons = ["because"] if status == "smoke" else []
    found["method"]["title"] = run
    return found | {
        "run": run, "metrics": {WORLD.protocol.headline: scores}, "status": {"class": status, "reasons": reasons}
    }  # fmt: skip


@pytest.mark.parametrize("dataset", COMMITTED)
def test_committed_records_stay_readable(dataset):
    found = read_files(BOARDS, dataset)
    assert len(found) == len(list((BOARDS / dataset).glob("*.json")))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("seed", lambda r: r.pop("seed")),
        ("extra", lambda r: r.update(extra=1)),
        ("schema", lambda r: r.update(schema=4)),
        ("metrics", lambda r: r["metrics"].clear()),
        ("count", lambda r: r["metrics"][WORLD.protocol.headline]["all"].update(count=0)),
        ("low", lambda r: r["metrics"][WORLD.protocol.headline]["all"].update(low=0.1)),
        ("status/class", lambda r: r["status"].update({"class": "great"})),
        ("run", lambda r: r.update(run="../x")),
    ],
)
def test_a_record_that_breaks_the_schema_names_the_place(place, change):
    for schema in (1, 2):
        broken = record() | {"schema": schema}
        validate(broken)
        change(broken)
        with pytest.raises(RecordError, match=rf"file\.json.*{place}"):
            validate(broken, "file.json")


def test_nan_is_no_value(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
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
    path.write_text("{")
    with pytest.raises(RecordError, match=path.name):
        read_records(tmp_path, "gazeworld")


def test_a_file_that_is_being_written_is_not_listed(tmp_path):
    seen = []
    write_atomically(tmp_path / "a.json", lambda path: seen.extend([path.touch(), *tmp_path.glob("*.json")]))
    assert (seen, list(tmp_path.iterdir())) == ([None], [tmp_path / "a.json"])


def _finish(folder: Path, index: int) -> None:
    write_record(record(run=f"r{index}", value=0.1 + index / 100), folder)
    refresh(folder, "gazeworld", WORLD)


def test_runs_finishing_at_once_lose_nothing(tmp_path):
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


def test_the_board_is_sorted_and_keeps_smoke_runs_and_other_protocols_apart(tmp_path):
    other = record("o", value=0.001)
    other["protocol"]["id"] = "gazeworld-v999"
    smoke = record("s", value=0.01, status="smoke")
    for one in (record("w", value=0.3), smoke, record("b", value=0.1), other):
        write_record(one, tmp_path)
    refresh(tmp_path, "gazeworld", WORLD)
    assert pd.read_csv(tmp_path / "gazeworld" / "leaderboard.csv")["run"].tolist() == ["b", "w", "s"]
    text = (tmp_path / "gazeworld" / "README.md").read_text(encoding="utf-8").partition("## Runs")[0]
    ranked, smoked = text.split("### Smoke runs")
    assert re.findall(r"^\| (.*?) \(tiny", ranked, re.MULTILINE) == ["1. b", "2. w"] * 2, "everybody, consistent"
    assert re.findall(r"^\| (.*?) \(tiny", smoked, re.MULTILINE) == ["s"] * 2


def test_code_identity_has_no_paths():
    assert code_identity()["digest"]
    assert "/" not in json.dumps(code_identity())
