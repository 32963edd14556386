"""What differs on macOS and Windows, as far as Linux can tell: units, folders, paths, processes."""

import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from gazebench.core import files
from gazebench.engine import record
from gazebench.engine.config import resolve
from gazebench.engine.contract import small_config
from gazebench.engine.registry import entries, is_file, load_dataset
from gazebench.engine.run import data_module
from gazebench.study import processes

LINUX, MAC, WINDOWS = "linux", "darwin", "win32"


@pytest.mark.parametrize(("platform", "found"), [(LINUX, 5000 * 1024), (MAC, 5000), (WINDOWS, 7000)])
def test_peak_memory_is_in_bytes(monkeypatch, platform, found):
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7000))
    missing = None if platform == WINDOWS else resource  # None: an import fails
    monkeypatch.setattr(record, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setitem(sys.modules, "resource", missing)
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=lambda: process))
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5000))
    assert record.peak_memory()["process"] == found


def test_peak_memory_of_this_machine_is_plausible():
    now = psutil.Process().memory_info()
    assert 0.9 * now.rss <= record.peak_memory()["process"] <= now.vms


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [(LINUX, "XDG_CACHE_HOME", ""), (MAC, "HOME", "Library/Caches"), (WINDOWS, "LOCALAPPDATA", "")],
)
def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch, tmp_path, platform, variable, below):
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform=platform))
    monkeypatch.delenv("GAZEBENCH_CACHE")
    monkeypatch.setenv(variable, str(tmp_path))
    assert files.cache_folder() == tmp_path / below / "gazebench"


@pytest.mark.parametrize("folder", ["/data/sets", "C:\\data\\sets", "D:/data/sets"])
def test_no_folder_of_this_machine_gets_into_a_record(folder):
    split = "\\" if "\\" in folder else "/"
    values = resolve(["center", "gazefollow", f"--dataset.root={folder}{split}gazefollow_extended"]).public()
    assert values["dataset"]["root"] == "gazefollow_extended"
    assert is_file(f"{folder}{split}mine")


def test_a_study_ends_its_runs_without_groups_of_processes(monkeypatch):
    monkeypatch.setattr(processes, "sys", SimpleNamespace(platform=WINDOWS))
    monkeypatch.delattr(os, "killpg")
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    processes._stop([SimpleNamespace(process=child)])
    assert child.returncode not in (None, 0)


@pytest.mark.parametrize("name", [name for name, entry in entries("datasets").items() if entry.ours])
def test_a_worker_that_is_no_fork_reads_the_same(name, tmp_path):
    """macOS and Windows start workers afresh and send them the samples."""
    options = []
    if name != "gazeworld":
        load_dataset(name).fake(tmp_path, people=6)
        options = [f"--dataset.root={tmp_path}"]
    config = small_config("omnigf", name, *options)
    samples = data_module(config, config.new_dataset(), config.new_method()).train_dataloader().dataset
    sent = pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(samples))
    here, there = samples[(1, 0)], sent[(1, 0)]
    assert torch.equal(here.image, there.image)
    assert (here.records.fingerprint(), here.items) == (there.records.fingerprint(), there.items)
