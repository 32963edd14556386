"""Train, predict, score: one run from nothing to its record; killed, repeated, run again, evaluated, scored again."""

import json
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.loops.fit_loop import _FitLoop
from PIL import Image

from gazebench.cli.main import main
from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine.callbacks import StepSeed
from gazebench.engine.config import resolve
from gazebench.engine.contract import small_config
from gazebench.engine.record import write_record
from gazebench.engine.run import Places, RunningError, bench, initial_weights, prepare
from gazebench.engine.score import score
from gazebench.engine.train import train
from gazebench.metrics.intervals import bootstrap, mean_of, owners
from gazebench.report.board import refresh

WORLD = ["--dataset.train=6", "--dataset.val=3", "--dataset.test=4"]
TINY = ["--loader.workers=0", "--model.backbone=tiny", "--model.backbone_weights=random"]
LITTLE = ["--model.image_size=112", "--model.dim=32", "--model.layers=1", "--model.heads=2"]


def small(name, *options):
    return small_config(name, "gazeworld", *(LITTLE if name in ("gazelle", "hclora") else ()), *options)


def places_in(folder):
    return Places(folder / "runs", folder / "boards")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of Gaze-LLE on a few scenes, one epoch."""
    return bench(small("gazelle"), places_in(tmp_path_factory.mktemp("done")))


def folders(places):
    return [f"--runs={places.runs}", f"--boards={places.boards}"]


def stored(places):
    return [json.loads(path.read_text()) for path in places.boards.rglob("*.json")]


def test_a_run_leaves_everything_behind(done):
    record, folder = done.record, done.folder
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "weights.pt", "predictions.parquet", "scores.parquet", "record.json", "checkpoints", "log"
    }  # fmt: skip
    assert stored(places_in(folder.parents[3])) == [record] == [json.loads((folder / "record.json").read_text())]
    assert str(folder.parents[3]) not in json.dumps(record), "no folder of this machine belongs into a record"
    values = yaml.safe_load((folder / "config.yaml").read_text())
    assert {"method", "data", "seed", "init", "model", "dataset", "loader", "trainer"} <= values.keys()
    assert record["status"]["class"] == "smoke"
    reasons = " ".join(record["status"]["reasons"])
    assert "4 of 500 images" in reasons
    assert "random weights" in reasons


def test_the_record_is_the_mean_of_what_is_stored_of_each_person(done):
    record, people = done.record, pd.read_parquet(done.folder / "scores.parquet")
    assert len(people) == record["samples"]["people"] == people["person_id"].nunique()
    for metric in ("avg_l2", "auc", "min_l2"):
        for subset, found in record["metrics"][metric].items():
            column = people[f"metric_{metric}"][(people["subset"] == subset) | (subset == "all")].dropna()
            assert (found["value"], found["count"]) == (pytest.approx(column.mean(), abs=1e-12), len(column))
    scored = people.dropna(subset="metric_avg_l2")
    owner, sources = owners(scored["group"])
    low, high = bootstrap(mean_of(scored["metric_avg_l2"].to_numpy(), owner, sources), sources)
    interval = record["metrics"]["avg_l2"]["all"]
    assert (interval["low"], interval["high"], interval["sources"]) == pytest.approx((float(low), float(high), sources))


@pytest.mark.parametrize("more", [[], ["--loader.workers=2"], ["--seed=1"]], ids=["alike", "helped", "other seed"])
def test_the_same_settings_give_the_same_digits(done, places, more):
    again = bench(small("gazelle", *more), places).record
    for part in ("run", "metrics"):
        assert (again[part] == done.record[part]) == ("--seed=1" not in more)


def test_a_finished_run_is_found_again_forgets_it_and_its_config_runs_it_elsewhere(places, tmp_path):
    first = bench(small("random"), places)
    assert (bench(small("random"), places).repeated, first.repeated) == (True, False)
    (first.folder / "leftover").write_text("of an earlier run")
    again = bench(small("random"), places, again=True)
    assert (again.repeated, (first.folder / "leftover").exists()) == (False, False)
    assert len(stored(places)) == 1
    elsewhere = bench(resolve([f"--config={first.folder / 'config.yaml'}"]), places_in(tmp_path / "again"))
    for record in (again.record, elsewhere.record):
        assert (record["run"], record["metrics"]) == (first.record["run"], first.record["metrics"])


def test_another_decoder_is_another_protocol(done, places, tmp_path):
    """Sharingan's: a cell further right and down."""
    people, results = pd.read_parquet(done.folder / "predictions.parquet"), {}
    moved = people.assign(x=people["x"] + 1 / 64, y=people["y"] + 1 / 64)
    maps = people.drop(columns=["x", "y"])
    for name, rows, decoder in (
        ("moved", moved, None), ("plain", maps, "argmax"), ("other", maps, "argmax_plus_one"),
    ):  # fmt: skip
        rows.to_parquet(tmp_path / f"{name}.parquet")
        world = GazeWorld(train=6, val=3, test=4, decoder=decoder)
        results[name] = score(tmp_path / f"{name}.parquet", world)
        write_record(results[name], places.boards)
    assert results["other"]["metrics"] == results["moved"]["metrics"]
    assert results["plain"]["metrics"] == done.record["metrics"] != results["other"]["metrics"]
    assert results["plain"]["protocol"] == done.record["protocol"]
    assert results["other"]["protocol"]["id"] == done.record["protocol"]["id"] + "+argmax_plus_one"
    assert results["other"]["protocol"]["decoder"] == "argmax_plus_one"
    refresh(places.boards, "gazeworld", GazeWorld)
    board = (places.boards / "gazeworld" / "README.md").read_text()
    assert [results[name]["run"] in board for name in results] == [True, True, False]


def test_the_same_run_twice_at_once_is_refused(places):
    outcome = bench(small("center"), places)
    (outcome.folder / "record.json").unlink()
    with FileLock(outcome.folder / ".lock"), pytest.raises(RunningError, match="another process"):
        bench(small("center"), places)


@pytest.mark.parametrize("arguments", [["gazelle"], ["hclora", "--loader.workers=1", "--loader.selection=val"]])
def test_resuming_gives_the_uninterrupted_result(places, tmp_path, monkeypatch, arguments):
    config = small(*arguments, "--trainer.max_epochs=3")
    whole = bench(config, places_in(tmp_path / "whole")).record

    def crash(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(StepSeed, "on_train_epoch_start", crash, raising=False)
        with pytest.raises(RuntimeError, match="power"):
            bench(config, places)
    assert not stored(places)
    resumed = bench(config, places).record
    assert (resumed["run"], resumed["metrics"]) == (whole["run"], whole["metrics"])


def seen_in_training(config, places, fails_at=()):
    """The pictures and heads of every training batch by (epoch, step); with ``fails_at`` training stops there."""
    seen = {}

    def step(self, trainer, pl_module, batch, index):
        if (trainer.current_epoch, index) == fails_at:
            raise RuntimeError("the power is gone")
        seen[trainer.current_epoch, index] = (batch.image_ids, batch.head.tolist())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StepSeed, "on_train_batch_start", step)
        run = prepare(config, places)
        if fails_at:
            with pytest.raises(RuntimeError, match="power"):
                train(run)
        else:
            train(run)
    return seen


@pytest.fixture(scope="module")
def not_killed(tmp_path_factory):
    """The batches of three epochs; their order depends on no worker."""
    return seen_in_training(small("gazelle", "--trainer.max_epochs=3"), places_in(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("early", [False, True], ids=["this Lightning", "one that sets the epoch of samplers early"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_the_batches_of_one_that_was_not_killed(places, monkeypatch, not_killed, early, workers):
    """Ours: Lightning makes the iterator of a resumed epoch, whose workers draw at once, before it says which it is.

    A Lightning that said so when it makes the iterator must change nothing, even where it does not yet know.
    """
    said = []

    def set_early(loop):
        for loader in loop._combined_loader.flattened:
            said.append(loop.epoch_progress.current.processed)
            _set_sampler_epoch(loader, said[-1])

    if early:
        monkeypatch.setattr(_FitLoop, "_load_combined_loader_states", set_early)
    config = small("gazelle", "--trainer.max_epochs=3", f"--loader.workers={workers}")
    killed = seen_in_training(config, places, fails_at=(1, 1))
    resumed = seen_in_training(config, places)
    assert said == [0, 0] * early, "one_cycle asks for the number of steps before the checkpoint is read"
    assert {epoch for epoch, _ in resumed} == {1, 2}
    assert len({str(not_killed[epoch, 0]) for epoch in range(3)}) == 3
    assert killed.items() <= not_killed.items()
    assert killed | resumed == not_killed


def test_an_unreadable_checkpoint_starts_again(places):
    config = small("gazelle")
    outcome = bench(config, places)
    for name in ("record.json", "predictions.parquet"):
        (outcome.folder / name).unlink()
    (outcome.folder / "checkpoints" / "last.ckpt").write_bytes(b"half a file")
    assert bench(config, places).record["metrics"] == outcome.record["metrics"]
    assert (outcome.folder / "checkpoints" / "last.unreadable").is_file()


@pytest.mark.slow
def test_killed_at_any_moment(places, forked, tmp_path):
    """SIGKILL before and in training and while predicting; no half record appears, and the digits stay the same."""
    config = small("gazelle", "--dataset.test=60", "--trainer.max_epochs=3")
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(config.values))
    code = (
        "from pathlib import Path\nfrom gazebench.engine.config import resolve\nfrom gazebench.engine.run import *\n"
        f"bench(resolve(['--config={config_file}']), Places(Path({str(places.runs)!r}), Path({str(places.boards)!r})))"
    )
    for moment in ("config.yaml", "checkpoints/last.ckpt", "parts/*.parquet"):
        process = forked(code)
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline and not list(places.runs.rglob(moment)):
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not list(places.runs.rglob("predictions.parquet"))
        assert not stored(places)
    resumed, whole = (bench(config, where).record for where in (places, places_in(tmp_path / "whole")))
    assert (resumed["run"], resumed["metrics"]) == (whole["run"], whole["metrics"])


def test_selecting_an_epoch_uses_val_and_says_so(done, places):
    record = bench(small("gazelle", "--loader.selection=val", "--trainer.max_epochs=2"), places).record
    assert record["selection"] == "best epoch on the held-out val sources"
    assert done.record["selection"] == "last epoch of trainval"
    assert done.record["data"]["train"]["used_people"] > record["data"]["train"]["used_people"]


def test_eval_of_the_weights_gives_the_run_again(done, places, capsys):
    assert main(["eval", str(done.folder / "weights.pt"), *folders(places)]) == 0
    (evaluated,) = stored(places)
    assert (evaluated["kind"], evaluated["metrics"]) == ("eval", done.record["metrics"])
    assert evaluated["weights"]["initial"]["sha256"] == done.record["weights"]["trained"]["sha256"]
    assert "avg_l2" in capsys.readouterr().out


def test_scoring_its_predictions_gives_the_run_again(done, places):
    """The very digits; test_predictions.py has more files."""
    file = done.folder / "predictions.parquet"
    assert main(["score", str(file), "gazeworld", "--title", "two words", *WORLD, f"--boards={places.boards}"]) == 0
    (scored,) = stored(places)
    assert (scored["kind"], scored["metrics"]) == ("score", done.record["metrics"])
    assert scored["method"]["title"] == "two words"


def test_initial_weights(places):
    config = resolve(["gazelle", "vat"])
    with pytest.raises(DataError, match=r"METHOD=gazelle DATASET=gazefollow(.|\n)*INIT=none"):
        initial_weights(config, places)
    made = {"config": resolve(["gazelle", "gazefollow"]).values}
    for name, status in (("x", "official"), ("y", "smoke")):
        folder = places.runs / "gazefollow" / "gazelle" / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(made | {"status": {"class": status}}))
        torch.save({}, folder / "weights.pt")
    official = places.runs / "gazefollow" / "gazelle" / "x" / "weights.pt"
    assert initial_weights(config, places) == official, "an official run goes before a newer smoke run"
    assert initial_weights(resolve(["gazelle", "vat", "--init=none"]), places) is None
    assert initial_weights(resolve(["gazelle", "vat", "--model.backbone=tiny"]), places) is None


def test_stages_start_from_weights_without_inout(done, places):
    first = bench(small("gazelle", "--model.inout=false"), places)
    second = bench(small("gazelle", f"--init={first.folder / 'weights.pt'}"), places).record
    assert second["weights"]["initial"]["file"] == "weights.pt"
    (initial,) = (part for part in second["weights"]["parts"] if part["part"] == "initial")
    assert (initial["standing"], initial["by"], initial["run"]) == ("own", "record", first.record["run"])
    assert "initial weights.pt: the weights of a smoke run" in second["status"]["reasons"]
    assert second["run"] != done.record["run"]


def test_weights_that_do_not_fit_are_named(places, tmp_path, capsys):
    torch.save({"linear.weight": torch.zeros(1)}, tmp_path / "w.pt")
    (tmp_path / "rubbish.pt").write_bytes(b"no weights")
    for name, message in (("w.pt", "missing"), ("rubbish.pt", "not a file of weights")):
        assert main(["eval", str(tmp_path / name), "gazelle", "gazeworld", *TINY, *WORLD, *folders(places)]) == 2
        assert message in capsys.readouterr().err


def test_predict(done, tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(image)
    predict = ["predict", str(image), "--weights", str(done.folder), "--out", "-", "--overlays", str(tmp_path / "out")]
    assert main([*predict, "--box", "10,10,40,50", "--box=0.5,0.1,0.7,0.4", "--box", "-10,40,80,70"]) == 0
    result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[person[side] for side in BOX] for person in result] == [
        pytest.approx([10 / 120, 10 / 90, 40 / 120, 50 / 90], abs=1e-6), pytest.approx([0.5, 0.1, 0.7, 0.4], abs=1e-6),
        pytest.approx([0, 40 / 90, 80 / 120, 70 / 90], abs=1e-6),
    ]  # fmt: skip
    assert all(0 <= person[axis] < 1 for person in result for axis in "xy")
    assert Image.open(next((tmp_path / "out").rglob("*.png"))).size[0] > 200
    for box in ("5,5,5,9", "5000,10,5100,60", "0.2,0.2,1.1,0.5", "-0.1,0.2,0.5,0.5"):
        assert main([*predict, f"--box={box}"]) == 2
        assert box in (said := capsys.readouterr().err)
        assert "120 x 90" in said
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image) as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    assert main(["predict", str(tmp_path / "phone.png"), *predict[2:], "--box", "10,10,40,50"]) == 0
    turned = json.loads(capsys.readouterr().out)
    same = turned.keys() - {"person_id", "image_id"}
    assert {name: turned[name] for name in same} == {name: result[0][name] for name in same}
    (tmp_path / "mine.jpg").write_bytes(b"text")
    assert main(["predict", str(tmp_path / "mine.jpg"), *predict[2:], "--box", "1,1,9,9"]) == 2
    assert "mine.jpg" in (said := capsys.readouterr().err)
    assert "release" not in said
