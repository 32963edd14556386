"""A study: its plan's mistakes, resuming, its arithmetic, and pages made of stored results alone.

All but one test put a script in the place of a run's process: it takes a moment, and leaves what a run leaves.
"""

import json
import math
import os
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.engine.config import resolve
from gazebench.engine.run import Places, bench, run_id
from gazebench.metrics.intervals import interval
from gazebench.report.page import stale
from gazebench.report.table import Column, Table, ranks
from gazebench.study import page, processes
from gazebench.study import run as study_run
from gazebench.study.plan import Claim, read_plan
from gazebench.study.processes import devices
from gazebench.study.run import decides
from gazebench.study.store import Store
from gazebench.study.summary import Summary

ROOT = Path(__file__).resolve().parent.parent
PLAN = yaml.safe_load("""
title: A test
dataset: gazeworld
seeds: [0, 1, 2]
options: [--dataset.train=4, --dataset.val=2, --dataset.test=6, --trainer.enable_progress_bar=false]
quick: {seeds: [0], rows: [one, two], options: [--dataset.test=5], note: five scenes}
rows:
  one: {title: First, method: mean_target}
  two: {title: Second, method: mean_target, options: [--loader.batch_size=3]}
  three: {title: Third, method: mean_target, options: [--loader.batch_size=2]}
tables:
  - title: Parts
    labels: [A, B]
    rows: {one: [×, ×], two: [✓, ×], three: [✓, ✓]}
    columns: {auc: AUC, avg_l2: A-L2}
  - {title: All, rows: [one, two, three], columns: [avg_l2], subsets: [all]}
claims:
  - {text: two is better, metric: avg_l2, row: two, against: one, at_least: 0.1}
  - {text: three is better, metric: avg_l2, row: three, against: one, at_least: 0.9}
""")
FIGURES = yaml.safe_load("""
- {kind: subsets, file: a.png, title: Bars, metric: avg_l2, rows: [one, two, three]}
- {kind: exceeding, file: b.png, title: Large, metric: min_angle, rows: [one, two], thresholds: [15, 60]}
- {kind: overlays, file: c.png, title: Images, metric: avg_l2, rows: [one, two], count: 2,
   cone: {angle: 60, sharpness: 50}}
- {kind: scatter, file: d.png, title: Points, metric: avg_l2, second: min_angle, rows: [one, two]}
- {kind: overlays, file: e.png, title: Failures, metric: avg_l2, rows: [one], pick: worst, count: 3, seed: 1}
""")
"""Apart, for drawing them takes longest."""
FACTORS = {"one": 1.0, "two": 0.8, "three": 0.4}
"""By which the script multiplies every metric of a row."""

SCRIPT = """
import json, os, pathlib, shutil, sys, time
template, result, log, row, seed, factor, mode = sys.argv[1:]
with open(log, "a") as file:
    file.write(f"{row} {seed} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}".strip() + "\\n")
if mode == "fail":
    print("halfway there"); print("the disk is full"); sys.exit(3)
if mode == "hang":
    time.sleep(60)
record = json.loads((pathlib.Path(template) / "record.json").read_text())
record["seed"] = int(seed)
for subsets in record["metrics"].values():
    for score in subsets.values():
        score["value"] *= float(factor) * (1 + int(seed) / 100)
folder = pathlib.Path(result).parent
record["run"] = folder.name
folder.mkdir(parents=True, exist_ok=True)
for name in ("predictions.parquet", "scores.parquet"):
    shutil.copy(pathlib.Path(template) / name, folder)
(folder / "record.json").write_text(json.dumps(record))
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    config = resolve(["mean_target", "gazeworld", *PLAN["options"]])
    return bench(config, Places(folder / "runs", folder / "boards")).folder


class Desk:
    """A plan's file, its folders, and the processes that were started."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.file, self.out, self.runs = folder / "plan.yaml", folder / "out", folder / "runs"
        self.started, self.template, self.modes, self.factors = folder / "started", template, {}, {}
        self.write(PLAN)

    def write(self, plan) -> None:
        self.file.write_text(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))

    def command(self, task):
        row, seed = task.name.split(" seed ")
        mode = self.modes.get((row, int(seed)), "work")
        factor = self.factors.get((row, int(seed)), FACTORS[row])
        arguments = [self.template, task.result, self.started, row, seed, factor, mode]
        return [sys.executable, "-S", "-c", SCRIPT, *map(str, arguments)]

    def study(self, *options: str) -> int:
        self.started.unlink(missing_ok=True)
        places = [f"--runs={self.runs}", f"--boards={self.runs}/boards", f"--out={self.out}"]
        return main(["study", str(self.file), *places, *options])

    @property
    def launched(self) -> list[str]:
        return self.started.read_text().splitlines() if self.started.is_file() else []

    @property
    def text(self) -> str:
        return (self.out / "README.md").read_text()


@pytest.fixture
def desk(tmp_path, template, monkeypatch):
    desk, save = Desk(tmp_path, template), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: save(self, file, **options | {"dpi": 30}))
    monkeypatch.setattr(processes, "command", desk.command)
    monkeypatch.setattr(processes, "devices", list)
    monkeypatch.setattr("gazebench.study.run.devices", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return desk


# Arithmetic ----------------------------------------------------------------------------------------------------


def test_marks_are_of_what_is_printed():
    def of(values, higher):
        return ranks(
            [interval([value]) if value else interval([]) for value in values], Column("", digits=2, higher=higher)
        )

    assert of([0.5, 0.3, 0.4], False) == [None, 0, 1]
    assert of([0.5, 0.3, 0.4], True) == [0, None, 1]
    assert of([0.301, 0.299, 0.4, 0.9], False) == [0, 0, 1, None]
    assert of([0.5, 0.3, None], False) == [None, 0, None]
    assert of([0.5, None], False) == [None, None]


def test_a_table_as_text():
    columns = [Column("who"), Column("AUC", "Consistent", 2, True, "auc"), Column("L2", "Inconsistent", 2, False, "l2")]
    table = Table(columns, [
        ["one", interval([0.5, 0.6, 0.7]), interval([0.2])],
        ["two", interval([0.9]), interval([])],
        ["three", interval([0.8]), interval([0.1])],
    ], marks=True)  # fmt: skip
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.markdown().splitlines()]
    assert rows[0] == ["who", "Consistent<br>AUC ↑", "Inconsistent<br>L2 ↓"]
    assert rows[2:] == [
        ["one", "0.60 ± 0.25", "0.20"],
        ["two", "**0.90**", "-"],
        ["three", "<ins>0.80</ins>", "**0.10**"],
    ]
    frame = pd.read_csv(StringIO(table.csv()))
    assert list(frame["auc"]) == [0.6, 0.9, 0.8]
    assert list(frame["l2 seeds"]) == [1, 0, 1]


# The plan ------------------------------------------------------------------------------------------------------


CENTER = {"title": "T", "method": "center"}
BARE = {"tables": [], "claims": [], "quick": None}


def changed(**values):
    return {**json.loads(json.dumps(PLAN)), **values}


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"title": "x"}, "dataset"),
        (changed(colour="red"), "colour"),
        (changed(seeds=[]), "seeds"),
        (changed(seeds=[0, 0]), "seeds"),
        (changed(more_seeds=[3]), "more_seeds"),
        (changed(more_seeds=[6, 5]), "more_seeds"),
        (changed(dataset="gazewrld"), "gazeworld"),
        (changed(options=["--dataset.train", "4"]), "--group.name=value"),
        (changed(options=["--seed=4"]), "'--seed=4'"),
        (changed(tables=[{"title": "T", "rows": ["one", "four"], "columns": ["auc"]}]), "no row 'four'"),
        (changed(tables=[{"title": "T", "rows": ["one"], "columns": ["l3"]}]), "no metric 'l3'"),
        (changed(tables=[{"title": "T", "rows": {"one": ["a", "b"]}, "columns": ["auc"]}]), "row 'one' has 2 cell"),
        (changed(figures=[{"kind": "pie"}]), "'pie'"),
        (changed(figures=[{"kind": "subsets", "file": "a.png", "title": "T"}]), "figures 'T' subsets metric"),
        (changed(figures=[{**FIGURES[2], "rows": ["one", "four"]}]), "no row 'four'"),
        (changed(figures=[FIGURES[0]] * 2), "figures"),
        (changed(figures=[{**FIGURES[3], "second": "speed"}]), "no metric 'speed'"),
        (changed(figures=[{**FIGURES[4], "pick": "largest"}]), "`rows`"),
        (changed(claims=[{"text": "c", "metric": "auc", "row": "one", "at_least": 0}]), "`against`"),
        (changed(claims=[{**PLAN["claims"][0], "row": "x"}]), "no row 'x'"),
        (changed(quick={"rows": ["four"]}), "no row 'four'"),
        (changed(rows={"one": {"title": "T", "method": "mean_targt"}}, **BARE), "row 'one'.*mean_target"),
        (changed(rows={"one": {**CENTER, "options": ["--model.colour=red"]}}, **BARE), "row 'one'.*colour"),
        (changed(rows={"one": {**CENTER, "options": ["--loader.batch_size=many"]}}, **BARE), "row 'one'.*batch_size"),
    ],
)
def test_mistakes_in_a_plan_are_named_before_any_runs(plan, named, desk, capsys):
    desk.write(plan)
    assert desk.study() == 2
    error = capsys.readouterr().err
    assert re.search(f"plan.yaml.*{named}", error, re.DOTALL), error
    assert not desk.launched


def test_mistakes_on_the_command_line(desk):
    for wrong in ("--colour=red", "word", "--jobs=0", "--jobs=many"):
        assert desk.study(wrong) == 2
    assert main(["study", "/nowhere.yaml"]) == 2


# Running -------------------------------------------------------------------------------------------------------


def test_a_study_runs_once_and_seed_by_seed(desk, capsys):
    assert desk.study("--dry-run") == 0
    told = capsys.readouterr().out
    assert "9 runs, 0 recorded, 9 to do" in told
    assert "gazebench bench mean_target gazeworld --loader.batch_size=3 --dataset.train=4" in told
    assert not desk.launched
    assert desk.study() == 0
    assert desk.launched == [f"{row} {seed}" for seed in range(3) for row in ("one", "two", "three")]
    capsys.readouterr()
    assert desk.study() == 0
    assert not desk.launched
    assert "9 recorded, 0 to do" in capsys.readouterr().out
    assert desk.study("--again", "--dry-run", "--jobs=3") == 0
    assert re.search(r"needed: about \d+ s, 3 at a time", capsys.readouterr().out)
    people = Store(desk.out).people()
    assert people.groupby(["row", "seed"]).size().nunique() == 1
    assert "heatmap" not in people
    assert people["x"].dtype == people["metric_avg_l2"].dtype == np.float32


def test_changed_code_is_no_reason_to_train_again(desk, capsys):
    assert desk.study() == 0
    path = desk.out / "results.json"
    stored = json.loads(path.read_text())
    for entry in stored["runs"]:
        entry["commit"] = "0123456789abcdef"
    for entry, other in zip(stored["runs"], ({"data": {"test": "other"}}, {"method": ["m", 0]}), strict=False):
        entry["id"] = "before"
        entry["identity"] |= other
    path.write_text(json.dumps(stored))
    capsys.readouterr()
    assert desk.study("--dry-run") == 0
    told = capsys.readouterr().out
    counts = {"recorded with commit 0123456789\n": 7, "recorded with other data\n": 1, "recorded with other method": 1}
    assert {text: told.count(text) for text in counts} == counts
    shutil.rmtree(desk.runs)
    assert desk.study() == 0
    assert len(desk.launched) == 2
    assert desk.study("--again") == 0
    assert len(desk.launched) == 9


def test_changed_settings_are(desk, capsys):
    assert desk.study() == 0
    rows = {**PLAN["rows"], "two": {**PLAN["rows"]["two"], "options": ["--loader.batch_size=4"]}}
    desk.write(changed(rows=rows))
    assert desk.study("--render-only") == 0
    assert "what is recorded of 0, 1, 2 has other options than the plan" in desk.text
    assert desk.study() == 0
    assert desk.launched == ["two 0", "two 1", "two 2"]
    # Options that mean the same, written otherwise, are another matter.
    rows["two"]["options"] = ["--loader.batch_size=9", "--loader.batch_size=4"]
    desk.write(changed(rows=rows))
    assert desk.study() == 0
    assert not desk.launched
    assert "Partial" not in desk.text
    assert desk.study("--loader.eval_batch_size=7", "--dry-run") == 0
    assert "9 to do" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_stops_no_other(desk, capsys, jobs):
    desk.modes["two", 0] = "fail"
    assert desk.study(f"--jobs={jobs}") == 1
    told = capsys.readouterr()
    assert len(desk.launched) == 9
    assert re.search(r"two seed 0 .* 3:\n +halfway there\n +the disk is full", told.out)
    assert "two seed 0" in told.err
    assert "`two` (seed 0)" in desk.text
    desk.modes.clear()
    assert desk.study() == 0
    assert desk.launched == ["two 0"]
    assert "Partial" not in desk.text


def test_an_interrupted_study_stops_its_processes_and_continues(desk, monkeypatch, capsys):
    desk.modes["two", 0] = "hang"
    children = []
    start = processes._start
    monkeypatch.setattr(processes, "_start", lambda *given: children.append(start(*given)) or children[-1])
    written = study_run.write

    def interrupted(texts):
        written(texts)
        raise KeyboardInterrupt

    monkeypatch.setattr(study_run, "write", interrupted)
    assert desk.study("--jobs=2") == 130
    assert children[1].process.returncode not in (None, 0)
    assert list(Store(desk.out).results()) == [("one", 0)]
    assert "1 of 9 runs are in" in desk.text
    monkeypatch.setattr(study_run, "write", written)
    desk.modes.clear()
    assert desk.study() == 0
    assert "one 0" not in desk.launched
    assert len(desk.launched) == 8


def test_the_cores_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert processes.shared_environment(1)["OMP_NUM_THREADS"] == str(cores)
    assert processes.shared_environment(cores * 3)["OMP_NUM_THREADS"] == "1"
    assert processes.shared_environment(1)["PYTHONSAFEPATH"] == "1"


def test_every_run_has_a_gpu_of_its_own(desk, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    assert devices() == ["3", "GPU-5"]
    monkeypatch.setattr(processes, "devices", devices)
    assert desk.study("--jobs=2") == 0
    assert sorted(line.split()[2] for line in desk.launched[:2]) == ["3", "GPU-5"]
    assert {line.split()[2] for line in desk.launched} == {"3", "GPU-5"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices() == ["0", "1", "2"]
    desk.write(changed(options=[*PLAN["options"], "--trainer.devices=2"]))
    assert desk.study("--jobs=2", "--again") == 0
    assert {len(line.split()) for line in desk.launched} == {2}, "a run on several devices takes them by itself"


@pytest.mark.parametrize("old", [False, True], ids=["", "from before the full fingerprint"])
def test_finished_runs_of_the_board_are_taken_over(desk, capsys, old):
    record = json.loads((desk.template / "record.json").read_text())
    if old:
        for identity in (record["data"], record["data"]["train"]):
            del identity["full_fingerprint"]
        record["run"] = run_id(record["config"], decides(record))
    board = desk.runs / "boards" / "gazeworld"
    board.mkdir(parents=True)
    (board / "smoke.json").write_text(json.dumps(record))
    assert desk.study("--adopt", "--dry-run") == 0
    assert "9 runs, 0 recorded" in capsys.readouterr().out, "a smoke run stands for nothing"
    (board / "smoke.json").unlink()
    (board / "whole.json").write_text(json.dumps({**record, "status": {"class": "synthetic", "reasons": []}}))
    assert desk.study("--dry-run") == 0
    assert "9 runs, 0 recorded" in capsys.readouterr().out, "only --adopt takes them"
    assert desk.study("--adopt") == 0
    assert "one 0" not in desk.launched
    assert len(desk.launched) == 8
    assert Store(desk.out).results()["one", 0]["metrics"] == record["metrics"]
    text = (desk.out / "results.json").read_text()
    run = Store(desk.out).results()["one", 0]["id"]
    assert (run == record["run"]) is not old
    (desk.out / "results.json").write_text(text.replace(run, record["run"]))  # as it was stored before
    assert desk.study() == 0
    assert not desk.launched


@pytest.mark.slow
def test_a_real_run(desk, monkeypatch):
    """One run through the real process: what it stores is the record of the run."""
    monkeypatch.undo()
    desk.write(changed(rows={"one": PLAN["rows"]["one"]}, seeds=[0], tables=[], figures=[], claims=[], quick={}))
    assert desk.study() == 0
    (entry,) = Store(desk.out).results().values()
    record = json.loads((desk.runs / entry["folder"] / "record.json").read_text())
    expected = json.loads((desk.template / "record.json").read_text())
    assert entry["metrics"] == record["metrics"] == expected["metrics"]
    assert (desk.runs / "boards" / "gazeworld" / f"mean_target-{entry['run']}.json").is_file()
    assert (desk.runs / entry["folder"] / "report.html").is_file()


# Rendering -----------------------------------------------------------------------------------------------------


def test_pages_come_from_stored_results_alone(desk, capsys):
    desk.write(changed(figures=FIGURES))
    assert desk.study() == 0
    assert {*"abcde"} <= {path.stem for path in desk.out.glob("*.png")}
    assert "3 people, seed 1" in desk.text.partition("*Failures.*")[2]
    before = {path.name: path.read_bytes() for path in desk.out.glob("*.*") if path.name != ".lock"}
    shutil.rmtree(desk.runs)
    for name in before:
        if name.endswith((".md", ".csv", ".png")):
            (desk.out / name).unlink()
    assert desk.study("--check") == 1
    assert "--render-only" in capsys.readouterr().err
    assert desk.study("--render-only") == 0
    assert not desk.launched
    assert {path.name: path.read_bytes() for path in desk.out.glob("*.*") if path.name != ".lock"} == before
    assert desk.study("--check") == 0
    (desk.out / "README.md").write_text(desk.text.replace("holds", "HOLDS"))
    assert desk.study("--check") == 1
    assert "HOLDS" in desk.text


def test_partial_results_are_named(desk):
    assert desk.study() == 0
    path = desk.out / "results.json"
    stored = json.loads(path.read_text())
    stored["runs"] = [e for e in stored["runs"] if e["row"] == "one" or (e["row"], e["seed"]) == ("two", 1)]
    path.write_text(json.dumps(stored))
    assert desk.study("--render-only") == 0
    for shown in (
        "4 of 9 runs",
        "`two` (seeds 0, 2), `three` (seeds 0, 1, 2)",
        "(1 of 3 seeds)",
        "1 cannot tell, 1 missing",
    ):
        assert shown in desk.text
    path.unlink()
    assert desk.study("--render-only") == 0
    assert "0 of 9 runs" in desk.text


def test_a_quick_study_keeps_to_itself(desk):
    assert desk.study("--quick") == 0
    assert desk.launched == ["one 0", "two 0"]
    assert not desk.out.exists()
    text = (desk.out.with_name("out-quick") / "README.md").read_text()
    assert all(shown in text for shown in ("(quick study)", "five scenes", "leaves out Third", "One seed"))
    assert "±" not in text


def summary_of(desk, values):
    """A store with a metric's values by row and seed, on both subsets."""
    plan, record = read_plan(desk.file), json.loads((desk.template / "record.json").read_text())
    store = Store(desk.out)
    for run in plan.runs_of(plan.rows, plan.looks[-1]):
        if run.seed < len(values.get(run.row, [])):
            one, other = values[run.row][run.seed]
            scores = {"all": one, "consistent": one, "inconsistent": other}
            metrics = {"avg_l2": {name: {"value": value, "count": 5} for name, value in scores.items()}}
            metrics["auc"] = metrics["avg_l2"]
            store.add(run, record | {"metrics": metrics}, id="i", identity={}, seconds=60, scores=None)
    return Summary(plan, store)


def test_claims_by_hand(desk):
    found = summary_of(desk, {
        "one": [(0.10, 0.50), (0.10, 0.40), (0.10, 0.50)],
        "two": [(0.11, 0.40), (0.11, 0.34), (0.11, 0.38)],
        "three": [(0.10, 0.45)],
    })  # fmt: skip

    def verdict(**given):
        return found.verdict(Claim(**{"text": "t", "metric": "avg_l2", "row": "two", "against": "one", **given}))

    hard = {"subset": "inconsistent", "against_subset": "inconsistent"}
    gains = [0.2, 0.15, 0.24]
    tenth = verdict(at_least=0.1, **hard)
    assert tenth.gain.mean == pytest.approx(np.mean(gains))
    half = 4.302653 * np.std(gains, ddof=1) / math.sqrt(3)  # Student's factor of three runs
    assert tenth.gain.half == pytest.approx(half, rel=1e-5)
    assert (tenth.before.mean, tenth.after.mean) == pytest.approx((1.4 / 3, 1.12 / 3))
    low, high = tenth.gain.low, tenth.gain.high
    for asked, says in ((low - 1e-9, "holds"), (low + 1e-9, "cannot tell"), (high - 1e-9, "cannot tell"),
                        (high + 1e-9, "does not hold")):  # fmt: skip
        assert verdict(at_least=asked, **hard).says == says
    worse = verdict(at_least=0.0, subset="consistent", against_subset="consistent")
    assert worse.gain.mean == pytest.approx(-0.1)
    assert (worse.says, worse.open) == ("cannot tell", False), "three equal seeds give no interval, nor would more"
    assert verdict(metric="auc", at_least=0.1, **hard).says == "does not hold", "higher is better"
    easier = verdict(row="one", subset="consistent", against_subset="inconsistent", at_least=0.7)
    assert easier.gain.mean == pytest.approx((0.8 + 0.75 + 0.8) / 3)
    single = verdict(row="three", at_least=0.05, **hard)
    assert (single.gain.count, single.gain.half, single.says, single.open) == (1, None, "cannot tell", True)
    missing = verdict(metric="min_angle", at_least=0.0)
    assert (missing.says, missing.gain.count) == ("missing", 0)


LOOKS = {"more_seeds": [5, 8]}


def gains(*of_two):
    """Values of two rows whose gains are these, seed by seed."""
    return {"one": [(0.5, 0.5)] * len(of_two), "two": [(0.5 * (1 - gain),) * 2 for gain in of_two]}


@pytest.mark.parametrize(
    ("values", "says", "look", "asks_for"),
    [
        ((0.2, 0.21, 0.22), "holds", 0, []),
        ((0.0, -0.01, 0.01), "does not hold", 0, []),
        # Decided at 95%, but not at the 98.3% that three looks leave for each.
        ((0.15, 0.2, 0.25), "cannot tell", 0, [3, 4]),
        ((0.1, 0.2), "cannot tell", 0, [3, 4]),
        ((0.1, 0.2, 0.3, 0.2), "cannot tell", 0, [3, 4]),
        ((0.1, 0.2, 0.3, 0.2, 0.2), "holds", 1, []),
        ((0.1, 0.2, 0.3, 0.2, 0.2, -1.0, -1.0, -1.0), "holds", 1, []),
        ((0.1, 0.2, 0.3, -0.2, 0.0), "cannot tell", 1, [3, 4, 5, 6, 7]),
        ((0.1, 0.2, 0.3, -0.2, 0.0, 0.0, 0.0, 0.1), "cannot tell", 2, []),
        ((0.1, 0.1, 0.1), "cannot tell", 0, []),
    ],
)
def test_a_verdict_is_that_of_the_first_look_that_decides(desk, values, says, look, asks_for):
    """A twentieth is asked for; looks at 3, 5 and 8 seeds, each with an interval of 1 - .05 / 3."""
    claim = {"text": "c", "metric": "avg_l2", "row": "two", "against": "one", "at_least": 0.05}
    desk.write(changed(**LOOKS, claims=[claim]))
    found = summary_of(desk, gains(*values))
    assert found.plan.level == pytest.approx(0.983333, abs=1e-6)
    verdict = found.verdict(found.plan.claims[0])
    assert (verdict.says, verdict.look) == (says, look)
    if verdict.gain.half is not None:  # Student's factors at 98.33% for 2, 4 and 7 degrees of freedom
        factor = {3: 7.6488, 5: 3.9608, 8: 3.1276}[verdict.gain.count]
        used = values[: verdict.gain.count]
        assert verdict.gain.half == pytest.approx(factor * np.std(used, ddof=1) / math.sqrt(len(used)), rel=1e-3)
    wanted = found.wanted()
    assert {run.row for run in wanted} == ({"one", "two"} if asks_for else set())
    assert sorted({run.seed for run in wanted}) == asks_for
    assert found.interval("two", "avg_l2", "all").count == min(3, len(set(values))), "tables have the first seeds only"


def test_looking_three_times_errs_at_most_as_often_as_one_look_at_95_percent(desk):
    """Of studies without any effect, at most 1 in 20 decides wrongly; looking on at 95% would exceed that."""
    wrong, draws = {"corrected": 0, "at 95%": 0}, np.random.default_rng(0).normal(size=(2000, 8))
    level = read_plan(desk.file).model_copy(update=LOOKS).level
    for values in draws:
        for name, at in (("corrected", level), ("at 95%", 0.95)):
            looks = [interval(list(values[:count]), at) for count in (3, 5, 8)]
            wrong[name] += any(abs(look.mean) > look.half for look in looks)
    assert wrong["corrected"] <= 0.05 * len(draws) < 0.08 * len(draws) < wrong["at 95%"]


def test_open_claims_get_seeds_until_they_are_decided(desk, capsys):
    desk.write(changed(**LOOKS))
    desk.factors = {("two", seed): 1 - gain for seed, gain in enumerate((0.0, 0.4, 0.8, 0.4, 0.4, 0.4, 0.4, 0.4))}
    desk.factors |= {("three", seed): 0.03 + seed / 1000 for seed in range(8)}
    assert desk.study() == 0
    assert len(desk.launched) == 9
    assert "cannot tell (3 seeds)" in desk.text
    assert "98.3% interval" in desk.text
    desk.modes["two", 4] = "fail"
    assert desk.study("--until-decided") == 1
    assert desk.launched == ["one 3", "two 3", "one 4", "two 4"]
    desk.modes.clear()
    assert desk.study("--until-decided") == 0
    assert desk.launched == ["two 4", "one 5", "two 5", "one 6", "two 6", "one 7", "two 7"]
    assert "holds (8 seeds)" in desk.text
    assert "holds (3 seeds)" in desk.text
    assert desk.study("--until-decided") == 0
    assert not desk.launched
    assert desk.study("--check") == 0
    for wrong in (["--until-decided", "--again"], ["--until-decided", "--quick"]):
        assert desk.study(*wrong) == 2
        assert "more_seeds" in capsys.readouterr().err


def test_people_beyond_a_threshold_are_counted(desk):
    assert desk.study() == 0
    found = Summary(read_plan(desk.file), Store(desk.out))
    angles = pd.read_parquet(desk.template / "scores.parquet")["metric_min_angle"]
    assert found.values("one", "min_angle", "all", over=15) == {seed: (angles > 15).sum() for seed in range(3)}
    verdict = found.verdict(Claim(text="t", metric="min_angle", row="two", against="one", at_least=0.0, over=15))
    assert verdict.gain.mean == 0
    assert verdict.says == "cannot tell"


def test_overlays_show_the_largest_improvements(desk):
    desk.write(changed(figures=FIGURES[2:]))
    assert desk.study() == 0
    store = Store(desk.out)
    people = store.people()
    chosen = people[people["row"] == "one"].dropna(subset="metric_avg_l2").drop_duplicates("image_id").iloc[[1, 3]]
    better = (people["row"] == "two") & people["person_id"].isin(chosen["person_id"])
    people.loc[better, "metric_avg_l2"] = np.float32(0)
    store._write("people.parquet", people)
    found = Summary(read_plan(desk.file), store)
    assert stale(page.texts(found.plan, store)), "the page names other people now"
    picks = found.picks(found.plan.figures[0])
    assert {pick.person for pick in picks} <= set(chosen["person_id"])
    assert picks[0].above >= picks[-1].above
    assert picks[0].below == 0
    worst = found.picks(found.plan.figures[2])
    mine = people[(people["row"] == "one") & (people["seed"] == 1)].set_index("person_id")["metric_avg_l2"]
    assert [pick.below for pick in worst] == [None] * 3
    assert worst[0].above == mine.max()
    assert [pick.above for pick in worst] == sorted((mine[pick.person] for pick in worst), reverse=True)
    other = found.picks(found.plan.figures[0].model_copy(update={"pick": "random"}))
    assert len(other) == 2
    assert len({pick.image for pick in other}) == 2


def test_the_finding_can_be_planned():
    plan = read_plan(ROOT / "studies" / "finding.yaml")
    quick = read_plan(ROOT / "studies" / "finding.yaml", quick=True)
    assert len(plan.runs) == 3 * len(plan.rows) == 48
    assert plan.shown == "studies/finding.yaml"
    for chosen in (plan, quick):
        assert all(chosen.config(run).values["seed"] == run.seed for run in chosen.runs)


def test_a_store_that_is_none_is_an_error(desk):
    desk.out.mkdir()
    (desk.out / "results.json").write_text("[]")
    with pytest.raises(DataError, match=r"results\.json"):
        Store(desk.out).results()
