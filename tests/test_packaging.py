"""Checkout, editable and wheel installs find the same methods, and never shadow Hugging Face's ``datasets``."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROBE = (
    "import importlib.util as u, gazebench, gazebench.core.plugins as p, json, sys;"
    "spec = u.find_spec('datasets');"
    "print(json.dumps({'methods': list(p.claims('methods')), 'datasets': list(p.claims('datasets')),"
    " 'tasks': list(p.claims('tasks')), 'where': gazebench.__file__,"
    " 'shadow': None if spec is None else str(list(spec.submodule_search_locations or []))}))"
)
EXPECTED = {
    kind: sorted(
        path.stem for path in (ROOT / kind).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    )
    for kind in ("methods", "datasets")
} | {"tasks": ["vqa", "vqa_v2"]}


def probe(python: Path | str, cwd: Path, **variables: str) -> dict:
    environment = {**os.environ, "PYTHONSAFEPATH": "1", **variables}
    if "PYTHONPATH" not in variables:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), "-c", PROBE], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict) -> None:
    assert {kind: [n for n in found[kind] if n in EXPECTED[kind]] for kind in EXPECTED} == EXPECTED
    assert str(ROOT / "datasets") not in (found["shadow"] or ""), "our folder answers to `import datasets`"


def test_checkout_without_installing(tmp_path, bare):
    """The root on the path is the worst case: Hugging Face's package, a regular one, must win over our folder."""
    python, packages = bare(tmp_path / "env")
    (packages / "datasets").mkdir()
    (packages / "datasets" / "__init__.py").write_text("Dataset = 1\n")
    found = probe(python, tmp_path, PYTHONPATH=str(ROOT))
    assert found["where"] == str(ROOT / "gazebench" / "__init__.py")
    check(found)
    assert str(packages) in found["shadow"]


@pytest.mark.parametrize("cwd", [ROOT, ROOT.parent], ids=["in the checkout", "elsewhere"])
def test_installed_here(cwd):
    check(probe(sys.executable, cwd))


def test_pytest_does_not_put_the_root_on_the_path():
    assert str(ROOT) not in sys.path
    assert "" not in sys.path


@pytest.mark.slow
def test_a_release_is_complete_and_its_page_can_be_rendered(tmp_path, wheel):
    """The wheel that is built from the source distribution holds the same files, and PyPI would take both."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, wheel.parent / "source"]
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    source, built = next(tmp_path.glob("*.tar.gz")), next(tmp_path.glob("*.whl"))
    names = [
        {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name} for path in (wheel, built)
    ]
    assert names[0] == names[1]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", source, built], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


IN_ONE_GO = """
import sys
import pytest
from gazebench.cli.main import main

for command in (["list"], ["bench", "first_light", "gazeworld", *sys.argv[1:]], ["leaderboard", "--check"]):
    assert main(command) == 0, command
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "gazebench-first-light", "gazebench-first-people"]))
"""
FEW = ["--loader.workers=0", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
FEW += ["--dataset.train=6", "--dataset.val=3", "--dataset.test=4"]


@pytest.mark.slow
def test_the_wheel_and_plugins_in_a_fresh_environment(tmp_path, bare, wheel):
    """Built, installed and used with nothing but what a user has, outside the checkout, offline; so are packages that
    ``gazebench new`` writes.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {top for name in names if not (top := name.split("/")[0]).endswith(".dist-info")} == {"gazebench"}
    source = wheel.parent / "source"  # what the wheel was built from: all files that git knows
    folders = ("gazebench", "methods", "datasets", "splits", "leaderboards/published")
    wanted = {path for folder in folders for path in (source / folder).rglob("*") if path.is_file()}
    inside = {str(path.relative_to(source)).removeprefix("gazebench/") for path in wanted}
    assert {"datasets/gazeworld/weights/tiny.pt", "methods/omnigf/weights/small_head.pt", "py.typed"} <= inside
    assert not {name for name in inside if f"gazebench/{name}" not in names}, "files that the wheel lacks"

    python, packages = bare(tmp_path / "env")
    work = tmp_path / "work"
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONSAFEPATH": "1"}

    def run(*command) -> str:
        command = [str(part) for part in command]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no page" not in done.stderr, "its assets are missing"
        return done.stdout

    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    run(*pip, "--ignore-installed", wheel)  # the borrowed packages hold another gazebench's metadata
    found = probe(python, work)
    assert str(packages) in found["where"]
    check(found)
    run(python.with_name("gazebench"), "new", "method", "first_light")
    run(python.with_name("gazebench"), "new", "dataset", "first_people")
    run(*pip, "--no-build-isolation", "./gazebench-first-light", "./gazebench-first-people")
    printed = run(python, "-c", IN_ONE_GO, *FEW)  # for importing everything takes longest
    assert "[from gazebench-first-light]" in printed
    assert "[from gazebench-first-people]" in printed
    assert "BROKEN" not in printed
    assert "2 passed" in printed, "each package's own test, which is its contract"
    (stored,) = work.glob("leaderboards/gazeworld/first_light-*.json")
    record = json.loads(stored.read_text())
    assert record["method"]["origin"] == "gazebench-first-light 0.1.0"
    assert record["config"]["loader"]["people"] == "in_frame", "the recipe's value"
    assert record["code"]["commit"] is None, "installed, not the checkout"
    assert len(list(work.glob("runs/gazeworld/first_light/*/report.html"))) == 1
