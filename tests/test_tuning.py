"""Settings chosen on validation: equal budgets, no look at the test split, resuming, recipes with the values."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine import tuned
from gazebench.engine.config import provenance, resolve
from gazebench.engine.run import Places
from gazebench.engine.tuned import Tuned
from gazebench.study import processes
from gazebench.study.tuning import Range, Tuning, validated

ROOT = Path(__file__).resolve().parent.parent
PLAN = yaml.safe_load("""
title: A test
dataset: gazeworld
trials: 4
options: [--dataset.train=6, --dataset.val=4, --trainer.enable_progress_bar=false, --loader.workers=0]
rows:
  crop:
    {title: Crop, method: head_crop, settings: {model.lr: {low: 0.001, high: 0.1}, loader.batch_size: [2, 3]}}
  lora:
    title: LoRA
    method: hclora
    options: [--model.adaptation=lora, --model.supervision=none]
    settings: {model.lr: {low: 0.001, high: 0.1}, model.lr_adaptation: {low: 0.001, high: 0.1}}
""")
SCRIPT = """
import json, pathlib, sys
result, log, name, text = sys.argv[1:]
open(log, "a").write(name + "\\n")
if text == "fail":
    sys.exit(3)
pathlib.Path(result).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(result).write_text(text)
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A plan in a folder, with a script in place of each trial's process; a trial's score is in ``scores``."""

    class Desk:
        file, out, log, scores = tmp_path / "plan.yaml", tmp_path / "plan", tmp_path / "log", dict[str, float]()

        def write(self, **changes):
            self.file.write_text(yaml.safe_dump(PLAN | changes, sort_keys=False))
            self.planned = []

        def open(self):
            return Tuning.open(self.file, Places(tmp_path / "runs", tmp_path / "boards"))

        def tune(self, *options):
            self.log.unlink(missing_ok=True)
            return main(["tune", str(self.file), f"--runs={tmp_path / 'runs'}", *options])

        @property
        def launched(self):
            return self.log.read_text().split() if self.log.is_file() else []

        def command(self, task):
            self.planned = self.planned or self.open().trials
            trial = next(trial for trial in self.planned if trial.name == task.name)
            score = self.scores.get(task.name, 0.5)
            entry = {"row": trial.row, "trial": trial.number, "id": trial.id, "values": trial.values, "score": score,
                     "epochs": [score], "commit": "c", "dirty": False}  # fmt: skip
            text = "fail" if score is None else json.dumps(entry)
            return [sys.executable, "-S", "-c", SCRIPT, str(task.result), str(self.log), task.name, text]

    desk = Desk()
    desk.write()
    monkeypatch.setattr(processes, "command", desk.command)
    monkeypatch.setattr("gazebench.study.tuning.devices", list)
    return desk


def test_every_row_gets_the_same_trials_on_the_training_sources(desk):
    trials = desk.open().trials
    of = {row: [trial for trial in trials if trial.row == row] for row in PLAN["rows"]}
    assert {row: len(found) for row, found in of.items()} == {"crop": 4, "lora": 4}
    assert [trial.values["model.lr"] for trial in of["crop"]] == [trial.values["model.lr"] for trial in of["lora"]]
    assert len({trial.values["model.lr"] for trial in of["crop"]}) == 4
    assert all(0.001 <= trial.values["model.lr"] <= 0.1 for trial in trials)
    assert sorted(trial.values["loader.batch_size"] for trial in of["crop"]) == [2, 2, 3, 3]
    for trial in trials:
        assert trial.config.values["loader"]["selection"] == "val"
        assert trial.config.values["model"]["lr"] == trial.values["model.lr"]
    assert len({trial.id for trial in trials}) == 8
    assert [Range(low=0.01, high=1.0).at(share) for share in (0, 0.5, 0.25)] == [0.01, 0.1, 0.032]


def test_a_trial_trains_and_validates_without_the_test_split(tmp_path, monkeypatch):
    """The whole of a real trial, in a world whose test split cannot be read."""
    whole = GazeWorld.parse

    def parse(self, split):
        assert split != "test", "the test split was read"
        return whole(self, split)

    monkeypatch.setattr(GazeWorld, "parse", parse)
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(PLAN))
    found = Tuning.open(file, Places(tmp_path / "runs", tmp_path / "boards"))
    found.try_one("crop/1")
    (trial,) = (trial for trial in found.trials if trial.name == "crop/1")
    result = json.loads((found.folder(trial) / "trial.json").read_text())
    assert len(result["epochs"]) == trial.config.values["trainer"]["max_epochs"] == 2
    assert result["score"] == min(result["epochs"]), "the recipe selects the best epoch"
    assert 0 < result["score"] < 1.5
    assert result["values"] == trial.values
    assert not list(tmp_path.rglob("predictions.parquet"))
    with pytest.raises(AssertionError, match="test split"):
        trial.config.new_dataset().records("test")
    with pytest.raises(DataError, match="crop/9"):
        found.try_one("crop/9")


def test_nothing_validated_is_an_error(tmp_path):
    config = resolve(["mean_target", "gazeworld", *PLAN["options"], "--loader.selection=val"])
    with pytest.raises(DataError, match="mean_target"):
        validated(config, tmp_path, Places(tmp_path / "runs", tmp_path / "boards"), "avg_l2")


def test_a_tuning_runs_once_resumes_and_chooses_the_best(desk, capsys):
    desk.scores |= {"crop/2": 0.3, "lora/0": 0.4, "lora/1": 0.4, "lora/3": None}
    assert desk.tune("--dry-run") == 0
    assert not desk.launched
    assert desk.tune() == 1
    assert len(desk.launched) == 8
    assert desk.open().best().keys() == {"crop"}, "a row without all of its trials has no choice"
    desk.scores["lora/3"] = 0.45
    assert desk.tune() == 0
    assert desk.launched == ["lora/3"]
    best = desk.open().best()
    assert {row: found["trial"] for row, found in best.items()} == {"crop": 2, "lora": 0}
    stored = json.loads((desk.out / "results.json").read_text())["trials"]
    assert len(stored) == 8
    assert all({"values", "score", "epochs", "seconds", "commit"} <= entry.keys() for entry in stored)
    page = (desk.out / "README.md").read_text()
    assert f"`model.lr` {best['crop']['values']['model.lr']}" in page
    assert "0.3000 to 0.5000" in page
    # A changed row is tried anew, alone.
    rows = json.loads(json.dumps(PLAN["rows"]))
    rows["crop"]["settings"]["model.lr"]["high"] = 0.2
    desk.write(rows=rows)
    assert desk.tune("--row=lora") == 0
    assert not desk.launched
    assert desk.tune() == 0
    assert {name.split("/")[0] for name in desk.launched} == {"crop"}
    assert desk.tune("--row=corp") == 2
    assert "corp" in capsys.readouterr().err


def test_recipes_take_the_chosen_values_with_their_origin(desk, tmp_path, monkeypatch):
    table = tmp_path / "tuned.json"
    other = Tuned("gazelle", "gazeworld", {}, {"model.lr": 0.5}, 3, "studies/other")
    Tuned.write(table, [other])
    desk.scores |= {"crop/2": 0.3, "lora/1": 0.2}
    assert desk.tune() == 0
    assert desk.open().set_recipes(table) == 2
    assert desk.open().set_recipes(table) == 2
    entries = Tuned.read(table)
    assert len(entries) == 3
    assert other in entries
    monkeypatch.setattr(tuned, "_table", lambda: entries)
    best = desk.open().best()
    crop = resolve(["head_crop", "gazeworld"])
    assert crop.values["model"]["lr"] == best["crop"]["values"]["model.lr"]
    assert crop.values["loader"]["batch_size"] == best["crop"]["values"]["loader.batch_size"]
    said = provenance(crop)["model.lr"]
    assert said["origin"] == "ours"
    assert said["why"] == "chosen on validation by 4 trials (plan)"
    rate = best["lora"]["values"]["model.lr_adaptation"]
    lora = ["--model.adaptation=lora", "--model.supervision=none"]
    assert resolve(["hclora", "gazeworld", *lora]).values["model"]["lr_adaptation"] == rate
    assert resolve(["hclora", "gazeworld", *lora, "--model.lr_adaptation=7"]).values["model"]["lr_adaptation"] == 7
    for elsewhere in (["hclora", "gazeworld"], ["hclora", "gazeworld", *lora, "--model.dim=64"],
                      ["hclora", "vat", "--dataset.root=x", *lora]):  # fmt: skip
        assert resolve(elsewhere).values["model"]["lr_adaptation"] != rate


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"trials": 1}, "trials"),
        ({"rows": {"a": {**PLAN["rows"]["crop"], "settings": {"trainer.max_epochs": [1, 2]}}}}, "trainer.max_epochs"),
        ({"rows": {"a": {**PLAN["rows"]["crop"], "settings": {"model.lr": {"low": 1, "high": 1}}}}}, "high"),
        ({"rows": {"a": {**PLAN["rows"]["crop"], "settings": {"model.rate": [1, 2]}}}}, "row 'a'.*rate"),
    ],
)
def test_mistakes_in_a_plan_are_named(desk, changes, named):
    desk.write(**changes)
    with pytest.raises(DataError, match=rf"(?s)plan\.yaml.*{named}"):
        desk.open()


def test_the_plan_of_the_studies_covers_their_trained_rows():
    """Every row of the studies that learns is in the tuning plan, with the same options."""
    plan = Tuning.open(ROOT / "studies" / "tuning.yaml", Places(Path("runs"), Path("boards"))).plan
    tuned_rows = {(row.method, row.options) for row in plan.rows.values()}
    for name in ("finding", "omnigf"):
        rows = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())["rows"]
        for key, row in rows.items():
            learns = row["method"] != "mean_target" and "--model.tuning=none" not in row.get("options", [])
            assert ((row["method"], tuple(row.get("options", []))) in tuned_rows) == learns, key
