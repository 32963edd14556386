"""The id of a run covers everything that decides its numbers and nothing else; committed records stay readable."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gazebench.core.types import Records
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.datasets.gazeworld import GazeWorld, models
from gazebench.engine import record
from gazebench.engine.contract import small_config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, prepare
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.vl4gaze import VL4Gaze
from gazebench.report.board import texts

ROOT = Path(__file__).resolve().parent.parent
BOARDS = sorted({path.parent.name for path in (ROOT / "leaderboards").rglob("*.json")})
OPTIONS = ["--model.backbone=tiny", "--model.backbone_weights=pretrained"]


def run_of(name="gazelle", data="gazeworld", *options, weights=None):
    config = small_config(name, data, *options)
    return prepare(config, Places(Path("runs"), Path("boards")), weights)


def id_of(*arguments, **given):
    return run_of(*arguments, **given).id


@pytest.fixture(scope="module")
def plain():
    return id_of("gazelle", "gazeworld", *OPTIONS)


@pytest.mark.parametrize(
    "options",
    [["--model.lr=0.5"], ["--loader.batch_size=7"], ["--trainer.max_epochs=2"], ["--seed=1"], ["--dataset.test=5"]],
    ids=" ".join,
)
def test_settings_and_seed_change_the_id(plain, options):
    assert id_of("gazelle", "gazeworld", *OPTIONS, *options) != plain


@pytest.mark.parametrize(
    "options",
    [["--loader.workers=3"], ["--trainer.enable_progress_bar=true"], ["--model.feature_cache=off"]],
    ids=" ".join,
)
def test_settings_without_effect_on_numbers_do_not(plain, options):
    assert id_of("gazelle", "gazeworld", *OPTIONS, *options) == plain


@pytest.mark.parametrize("owner", [GazeLLE, GazeWorld])
def test_versions_of_method_and_data_set_change_the_id(plain, monkeypatch, owner):
    monkeypatch.setattr(owner, "version", owner.version + 1)
    assert id_of("gazelle", "gazeworld", *OPTIONS) != plain


def test_the_protocol_s_version_changes_the_id(plain, monkeypatch):
    monkeypatch.setattr(GazeWorld, "protocol", replace(GazeWorld.protocol, version=GazeWorld.protocol.version + 1))
    assert id_of("gazelle", "gazeworld", *OPTIONS) != plain


def test_versions_of_the_tasks_of_a_method_change_the_id(plain, monkeypatch):
    (task,) = VL4Gaze.tasks
    before = id_of("vl4gaze")
    monkeypatch.setattr(task, "describe", lambda self: {"id": "questions-v99"})
    assert id_of("vl4gaze") != before
    assert id_of("gazelle", "gazeworld", *OPTIONS) == plain, "which has none"


def test_other_weights_behind_a_name_change_the_id(plain, monkeypatch, tmp_path):
    weights = torch.load(models.TINY_VIT_WEIGHTS)
    weights["norm.bias"][0] += 1
    torch.save(weights, tmp_path / "tiny.pt")
    monkeypatch.setattr(models, "TINY_VIT_WEIGHTS", tmp_path / "tiny.pt")
    assert id_of("gazelle", "gazeworld", *OPTIONS) != plain


def test_other_weights_to_start_from_change_the_id(plain, tmp_path):
    method, ids = run_of("gazelle", "gazeworld", *OPTIONS).method, []
    for _ in range(2):
        torch.save(method.export(), tmp_path / "weights.pt")
        ids.append(id_of("gazelle", "gazeworld", *OPTIONS, f"--init={tmp_path / 'weights.pt'}"))
        ids.append(id_of("gazelle", "gazeworld", *OPTIONS, weights=tmp_path / "weights.pt"))
        with torch.no_grad():
            method.decoder.linear.bias += 1
    assert len({plain, *ids}) == 5


def test_other_annotations_change_the_id_and_another_folder_does_not(tmp_path):
    GazeFollow.fake(tmp_path / "one", people=6)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    one, other = (["center", "gazefollow", f"--dataset.root={tmp_path / name}"] for name in ("one", "other"))
    assert id_of(*one) == id_of(*other)
    (file,) = (tmp_path / "other").glob("test*.txt")
    lines = file.read_text().splitlines(keepends=True)
    cells = lines[0].split(",")
    gaze_x = 8  # of test_annotations_release.txt: path, id, body box (4), eye (2), gaze (2), head box (4), ...
    cells[gaze_x] = str(0.5 if float(cells[gaze_x]) > 0.6 else 0.7)
    file.write_text(",".join(cells) + "".join(["\n" if "\n" not in cells[-1] else "", *lines[1:]]))
    assert id_of(*one) != id_of(*other)


@pytest.mark.parametrize(
    "change",
    [
        {"groups": np.array(["one clip"] * 2)},
        {"sizes": np.array([[640, 480], [640, 481]])},
        {"columns": {"eye": np.array([[0.1, 0.2], [0.3, 0.5]])}},
        {"pairs": {"lah": np.array([1, 0], dtype=np.int8)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_full_fingerprint_covers_what_records_are_not_grouped_by(change):
    names = np.array(["a.png", "b.png"])
    records = Records(
        dataset="two", split="test", images=names, groups=names, person_id=np.array(["1", "2"]),
        person_image=np.array([0, 0]), head=np.tile([0.1, 0.1, 0.2, 0.2], (2, 1)), points=np.zeros((2, 2)),
        point_start=np.arange(3), inout=np.ones(2, dtype=np.int8), sizes=np.full((2, 2), 640),
        columns={"eye": np.array([[0.1, 0.2], [0.3, 0.4]])}, pairs={"lah": np.array([0, 0], dtype=np.int8)},
    )  # fmt: skip
    changed = replace(records, **change)
    assert changed.fingerprint() == records.fingerprint()
    read = {"eye", "lah", "heatmap"}
    assert changed.full_fingerprint(read) != records.full_fingerprint(read)
    assert replace(records).full_fingerprint(read) == records.full_fingerprint(read)
    assert (changed.full_fingerprint() == records.full_fingerprint()) is bool({"columns", "pairs"} & change.keys())


def test_the_full_fingerprint_changes_the_id(plain, monkeypatch):
    monkeypatch.setattr(Records, "full_fingerprint", lambda self, read: "another")
    assert id_of("gazelle", "gazeworld", *OPTIONS) != plain


def test_edited_code_does_not_change_the_id(plain, monkeypatch):
    """Its digest stands in the record: after an edit of a renderer every run is still found."""
    code, read = record.code_identity(), Path.read_bytes

    def edited(path):
        return read(path) + (b"# edited" if path.suffix == ".py" and ROOT in path.parents else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    record.code_identity.cache_clear()
    try:
        assert record.code_identity()["digest"] != code["digest"]
        assert id_of("gazelle", "gazeworld", *OPTIONS) == plain
    finally:
        record.code_identity.cache_clear()


def test_the_text_of_a_method_given_as_a_file_changes_the_id(tmp_path):
    """It has no version that could be raised; the folder of the file has no effect."""
    ids, text = {}, (ROOT / "methods" / "center.py").read_text()
    for folder, more in (("one", ""), ("other", ""), ("one", "\nFURTHER = 1\n")):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + more)
        for name in [name for name in sys.modules if name.startswith("gazebench_plugin_mine")]:
            del sys.modules[name]  # as in another process
        ids[folder, more] = id_of(str(path))
    first, moved, changed = ids.values()
    assert first == moved != changed


@pytest.mark.parametrize("name", BOARDS)
def test_committed_records_stay_readable(name):
    """Through the reader of the product, and every one of them is on its board."""
    found = record.read_files(ROOT / "leaderboards", name)
    assert found.keys() == {path.stem for path in (ROOT / "leaderboards" / name).rglob("*.json")}
    pages = texts(ROOT / "leaderboards", name, load_dataset(name))
    (table,) = (text for path, text in pages.items() if path.suffix == ".csv")
    assert all(one["run"] in table for one in found.values())
