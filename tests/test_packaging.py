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
} | {"tasks": ["vqa"]}


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
def test_wheel(tmp_path, bare, wheel):
    """The wheel, unpacked into an environment that borrows this one's packages, serves everything from inside it."""
    python, packages = bare(tmp_path / "env")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
        names = set(archive.namelist())
    found = probe(python, tmp_path)
    assert str(packages) in found["where"]
    check(found)
    assert {top for name in names if not (top := name.split("/")[0]).endswith(".dist-info")} == {"gazebench"}
    source = wheel.parent / "source"  # what the wheel was built from: all files that git knows
    wanted = {path for path in (source / "gazebench").rglob("*") if path.is_file()}
    for folder in ("methods", "datasets", "splits", "leaderboards/published"):
        wanted |= {path for path in (source / folder).rglob("*") if path.is_file()}
    inside = {str(path.relative_to(source)).removeprefix("gazebench/") for path in wanted}
    assert {"datasets/gazeworld/weights/tiny.pt", "methods/omnigf/weights/small_head.pt", "py.typed"} <= inside
    assert not {name for name in inside if f"gazebench/{name}" not in names}, "files that the wheel lacks"
