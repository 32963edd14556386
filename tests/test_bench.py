"""One run from nothing to a leaderboard row; killed, repeated, re-run from its config, scored again from its file."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning import Callback

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.engine.config import resolve
from gazebench.engine.contract import small_config
from gazebench.engine.run import Places, RunningError, bench, initial_weights
from gazebench.metrics.intervals import bootstrap, mean_of, owners

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "runs", tmp_path / "leaderboards")


def options(places: Places) -> list[str]:
    return [f"--runs={places.runs}", f"--boards={places.boards}"]


def small(name="gazelle", *more):
    return small_config(name, "gazeworld", *more)


def test_a_run_leaves_everything_behind(places):
    outcome = bench(small(), places)
    record = outcome.record
    assert record["status"]["class"] == "smoke"
    assert record["metrics"]["avg_l2"]["all"]["count"] <= record["samples"]["people"]
    assert {path.name for path in outcome.folder.iterdir()} >= {
        "config.yaml", "weights.pt", "predictions.parquet", "record.json", "checkpoints", "log"
    }  # fmt: skip
    stored = json.loads((places.boards / "gazeworld" / f"gazelle-{record['run']}.json").read_text())
    assert stored == json.loads(json.dumps(record))
    assert record["run"] in (places.boards / "gazeworld" / "README.md").read_text()
    assert str(places.runs) not in json.dumps(record), "no folder of this machine belongs into a record"
    per_person = pd.read_parquet(outcome.folder / "predictions.parquet")
    assert len(per_person) == record["samples"]["people"] == per_person["person_id"].nunique()
    for metric in ("avg_l2", "auc", "min_l2"):
        column = per_person[f"metric_{metric}"].dropna()
        assert record["metrics"][metric]["all"]["value"] == pytest.approx(column.mean(), abs=1e-12)
        part = column[per_person["subset"] == "consistent"]
        if len(part):
            stored = record["metrics"][metric]["consistent"]
            assert (stored["value"], stored["count"]) == pytest.approx((part.mean(), len(part)))
    scored = per_person.dropna(subset="metric_avg_l2")
    owner, sources = owners(scored["group"])
    low, high = bootstrap(mean_of(scored["metric_avg_l2"].to_numpy(), owner, sources), sources)
    stored = record["metrics"]["avg_l2"]["all"]
    assert (stored["low"], stored["high"], stored["sources"]) == pytest.approx((float(low), float(high), sources))


def test_same_seed_same_result_other_seed_another(places, tmp_path):
    first = bench(small(), places)
    again = bench(small(), Places(tmp_path / "other", tmp_path / "others"))
    other = bench(small("gazelle", "--seed=1"), places)
    assert first.record["metrics"] == again.record["metrics"]
    assert first.record["run"] == again.record["run"]
    assert other.record["run"] != first.record["run"]
    assert other.record["metrics"] != first.record["metrics"]


def test_workers_do_not_change_a_result(places, tmp_path):
    alone = bench(small(), places).record
    helped = bench(small("gazelle", "--loader.workers=2"), Places(tmp_path / "w", tmp_path / "wb")).record
    assert alone["metrics"] == helped["metrics"]
    assert alone["run"] == helped["run"]


def test_repeating_returns_the_record(places):
    first = bench(small("center"), places)
    again = bench(small("center"), places)
    assert again.repeated
    assert again.record == json.loads(json.dumps(first.record))


def test_a_changed_plugin_is_another_run(places, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text((ROOT / "methods" / "center.py").read_text())
    first = bench(small(str(path)), places).record
    path.write_text(path.read_text().replace("(batch.people, 2), 0.5", "(batch.people, 2), 0.25"))
    for name in [name for name in sys.modules if name.startswith("gazebench_plugin_mine")]:
        del sys.modules[name]  # as in another process
    second = bench(small(str(path)), places).record
    assert first["method"]["name"] == second["method"]["name"] == "mine"
    assert first["run"] != second["run"]
    assert first["metrics"] != second["metrics"]


def test_config_re_runs(places, tmp_path):
    outcome = bench(small("random"), places)
    config = resolve([f"--config={outcome.folder / 'config.yaml'}"])
    again = bench(config, Places(tmp_path / "o", tmp_path / "b"))
    assert again.record["metrics"] == outcome.record["metrics"]
    assert again.record["run"] == outcome.record["run"]


class Stop(Callback):
    """Ends a training after some epochs as an exception, like a crash."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("the power is gone")


@pytest.mark.parametrize(
    "arguments",
    [["gazelle"], ["gazelle", "--loader.workers=1"], ["hclora", "--loader.workers=1", "--loader.selection=val"]],
    ids=" ".join,
)
def test_resuming_gives_the_uninterrupted_result(places, tmp_path, monkeypatch, arguments):
    config = small(*arguments, "--trainer.max_epochs=3")
    whole = bench(config, Places(tmp_path / "w", tmp_path / "wb")).record
    import gazebench.engine.run as module

    built = module._trainer
    monkeypatch.setattr(
        module, "_trainer", lambda c, f, callbacks, logger=False: built(c, f, [*callbacks, Stop(2)], logger)
    )
    with pytest.raises(RuntimeError, match="power"):
        bench(config, places)
    assert not list(places.boards.rglob("*.json"))
    monkeypatch.setattr(module, "_trainer", built)
    resumed = bench(config, places).record
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["run"] == whole["run"]


def test_an_unreadable_checkpoint_starts_again(places):
    config = small("gazelle", "--trainer.max_epochs=2")
    outcome = bench(config, places)
    (outcome.folder / "record.json").unlink()
    (outcome.folder / "checkpoints" / "last.ckpt").write_bytes(b"half a file")
    again = bench(config, places)
    assert again.record["metrics"] == outcome.record["metrics"]


@pytest.mark.slow
def test_killed_at_any_moment(places, started, tmp_path):
    """SIGKILL at several moments of a real process; the last repetition finishes, and no half record ever appears."""
    log = tmp_path / "log"
    command = [log, "bench", "gazelle", "gazeworld", *options(places), *CONTRACT_OPTIONS, "--trainer.max_epochs=4"]
    for wait in ("config.yaml", "checkpoints/last.ckpt"):
        process = started(*command)
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if list(places.runs.rglob(wait)):
                break
            time.sleep(0.02)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        assert not list(places.boards.rglob("*.json"))
    process = started(*command)
    process.join(300)
    assert process.exitcode == 0, log.read_text()
    assert len(list(places.boards.rglob("*.json"))) == 1


CONTRACT_OPTIONS = [
    "--loader.workers=0", "--dataset.train=6", "--dataset.val=3", "--dataset.test=4", "--loader.batch_size=6",
    "--model.backbone=tiny", "--model.backbone_weights=random", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def test_two_processes_never_share_a_run(places):
    from filelock import FileLock

    outcome = bench(small("center"), places)
    (outcome.folder / "record.json").unlink()
    with FileLock(outcome.folder / ".lock"), pytest.raises(RunningError, match="another process"):
        bench(small("center"), places)


def test_selecting_an_epoch_uses_val_and_says_so(places):
    record = bench(small("gazelle", "--loader.selection=val", "--trainer.max_epochs=2"), places).record
    assert record["selection"] == "best epoch on the held-out val sources"
    last = bench(small("gazelle", "--trainer.max_epochs=2"), places).record
    assert last["selection"] == "last epoch of trainval"
    assert last["data"]["train"]["used_people"] > record["data"]["train"]["used_people"]


def test_eval_of_the_weights_gives_the_run_again(places, capsys):
    outcome = bench(small(), places)
    assert main(["eval", str(outcome.folder / "weights.pt"), *options(places)]) == 0
    records = [json.loads(path.read_text()) for path in (places.boards / "gazeworld").glob("*.json")]
    evaluated = next(record for record in records if record["kind"] == "eval")
    assert evaluated["metrics"] == outcome.record["metrics"]
    assert evaluated["weights"]["initial"]["sha256"]
    assert "value (people)" in capsys.readouterr().out


def test_scoring_the_stored_predictions_gives_the_run_again(places):
    for name in ("gazelle", "one_annotator", "center"):
        outcome = bench(small(name), places)
        file = outcome.folder / "predictions.parquet"
        world = [f"--dataset.{split}={n}" for split, n in (("train", 6), ("val", 3), ("test", 4))]
        assert main(["score", str(file), "gazeworld", f"--title=again {name}", *world, *options(places)]) == 0
        scored = json.loads(next((places.boards / "gazeworld").glob(f"again_{name}-*.json")).read_text())
        assert scored["metrics"].keys() == outcome.record["metrics"].keys()
        for metric, subsets in outcome.record["metrics"].items():
            for subset, score in subsets.items():
                assert scored["metrics"][metric][subset] == pytest.approx(score, abs=1e-9)


def test_anyones_csv_is_scored_and_bad_ones_are_explained(places, tmp_path, capsys):
    outcome = bench(small("center"), places)
    ours = pd.read_parquet(outcome.folder / "predictions.parquet")
    world = ["--dataset.train=6", "--dataset.val=3", "--dataset.test=4", *options(places)]
    file = tmp_path / "theirs.csv"
    theirs = pd.DataFrame({"person_id": ours["person_id"], "x": 0.5, "y": 0.5})
    theirs.to_csv(file, index=False)
    assert main(["score", str(file), "gazeworld", *world]) == 0
    scored = json.loads(next((places.boards / "gazeworld").glob("theirs-*.json")).read_text())
    assert scored["metrics"]["avg_l2"]["all"] == outcome.record["metrics"]["avg_l2"]["all"]
    assert "auc" not in scored["metrics"]
    assert scored["status"]["class"] == "smoke"
    cases = [
        (theirs.iloc[1:], "1 of"),
        (pd.concat([theirs, theirs.iloc[:1]]), "twice"),
        (theirs.assign(x=[*["0.5"] * (len(theirs) - 1), "left"]), f"theirs.csv:{len(theirs)}"),
        (theirs.rename(columns={"person_id": "who"}), "columns are"),
        (theirs.assign(person_id=[f"nobody{i}" for i in range(len(theirs))]), "nobody"),
    ]
    for frame, message in cases:
        frame.to_csv(file, index=False)
        capsys.readouterr()
        assert main(["score", str(file), "gazeworld", *world]) == 2
        assert message in capsys.readouterr().err


def test_initial_weights(places, tmp_path):
    config = resolve(["gazelle", "vat"])
    with pytest.raises(DataError, match=r"make bench METHOD=gazelle DATASET=gazefollow(.|\n)*INIT=none"):
        initial_weights(config, places)
    folder = places.runs / "gazefollow" / "gazelle" / "x"
    folder.mkdir(parents=True)
    made = {"config": resolve(["gazelle", "gazefollow"]).values, "status": {"class": "official"}}
    (folder / "record.json").write_text(json.dumps(made))
    torch.save({}, folder / "weights.pt")
    newer = folder.with_name("y")
    newer.mkdir()
    (newer / "record.json").write_text(json.dumps(made | {"status": {"class": "smoke"}}))
    torch.save({}, newer / "weights.pt")
    assert initial_weights(config, places) == folder / "weights.pt", "an official run goes before a newer smoke run"
    assert initial_weights(resolve(["gazelle", "vat", "--init=none"]), places) is None
    assert initial_weights(resolve(["gazelle", "vat", "--model.backbone=tiny"]), places) is None


def test_stages_start_from_weights_without_inout(places):
    first = bench(small("gazelle", "--model.inout=false"), places)
    weights = first.folder / "weights.pt"
    second = bench(small("gazelle", f"--init={weights}"), places).record
    assert second["weights"]["initial"]["file"] == "weights.pt"
    assert "it starts from the weights of a smoke run" in second["status"]["reasons"]
    assert second["run"] != bench(small(), places).record["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "gazele", "gazeworld"], "did you mean gazelle"),
        (["bench", "gazelle", "vat"], "no folder was given for VideoAttentionTarget"),
        (["bench", "gazelle", "vat", "--dataset.root=/nowhere"], "/nowhere is not a folder"),
        (["bench", "center", "gazeworld", "--model.colour=red"], "colour"),
        (["bench", "gazelle", "gazeworld", "--model.lr=fast"], "lr"),
        (["bench", "center", "gazeworld", "extra"], "extra"),
        (["bench", "--config=/nowhere.yaml"], "/nowhere.yaml"),
        (["benhc"], "did you mean bench"),
        (["eval", "/nowhere.pt", "gazelle", "gazeworld"], "/nowhere.pt"),
        (["score", "/nowhere.csv", "gazeworld"], "/nowhere.csv"),
        (["data", "check", "gazefollow"], "is released at http"),
        (["check", "nothing"], "nothing"),
        (["predict", "/nowhere.jpg", "--weights=x.pt"], "/nowhere.jpg"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message, capsys, places):
    assert main([*arguments, *(options(places) if arguments[0] in ("bench", "eval", "score") else [])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_weights_that_do_not_fit_are_named(places, tmp_path, capsys):
    torch.save({"linear.weight": torch.zeros(1)}, tmp_path / "w.pt")
    (tmp_path / "rubbish.pt").write_bytes(b"no weights")
    for name, message in (("w.pt", "missing"), ("rubbish.pt", "not a file of weights")):
        arguments = ["eval", str(tmp_path / name), "gazelle", "gazeworld", *CONTRACT_OPTIONS, *options(places)]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_predict(places, tmp_path, capsys):
    from PIL import Image

    outcome = bench(small(), places)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(picture)
    capsys.readouterr()
    weights = str(outcome.folder / "weights.pt")
    assert main(["predict", str(picture), "--box=10,10,40,50", "--box=0.5,0.1,0.7,0.4", f"--weights={weights}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [person["box"] for person in result["people"]] == [
        pytest.approx([10 / 120, 10 / 90, 40 / 120, 50 / 90], abs=1e-6), [0.5, 0.1, 0.7, 0.4]
    ]  # fmt: skip
    assert all(0 <= value < 1 for person in result["people"] for value in person["point"])
    assert Image.open(tmp_path / "picture_gaze.png").size[0] > 200
    assert main(["predict", str(picture), "--box=5,5,5,9", f"--weights={weights}"]) == 2
    assert "no area" in capsys.readouterr().err


def test_list_and_leaderboard(places, capsys):
    bench(small("center"), places)
    assert main(["list"]) == 0
    assert "gazelle" in capsys.readouterr().out
    assert main(["leaderboard", "--check", *options(places)]) == 0
    (places.boards / "gazeworld" / "README.md").write_text("old")
    assert main(["leaderboard", "--check", *options(places)]) == 1
    assert main(["leaderboard", *options(places)]) == 0
    assert main(["leaderboard", "--check", *options(places)]) == 0


def test_every_run_config_is_complete(places):
    outcome = bench(small("center"), places)
    values = yaml.safe_load((outcome.folder / "config.yaml").read_text())
    assert {"method", "data", "seed", "init", "model", "dataset", "loader", "trainer"} <= values.keys()
