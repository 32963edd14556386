"""Who may import whom: the contract of pyproject.toml, and what import-linter cannot see of methods/ and datasets/."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gazebench.engine.registry import KINDS

ROOT = Path(__file__).resolve().parent.parent
HARNESS = sorted((ROOT / "gazebench").rglob("*.py"))
PLUGGED = {kind: sorted((ROOT / kind).rglob("*.py")) for kind in KINDS}
NAMES = {path.name.removesuffix(".py") for kind in KINDS for path in (ROOT / kind).iterdir()} - {"random", "center"}
ALLOWED = {
    # A method may extend another one.
    "methods": ("core", "data", "metrics", "nn", "vlm", "engine.method", "engine.vlm_method", "methods"),
    "datasets": ("core", "data", "metrics", "datasets"),
}
EXCEPTIONS = {  # file -> what it may import besides
    "methods/vl4gaze/method.py": ("vqa",),  # the task it solves
}
KNOWN = {  # names that the harness may say: defaults of the command line, and the world that contracts are checked on
    "gazebench/cli/bench.py": {"gazelle", "gazeworld", "hclora"},
    "gazebench/cli/settings.py": {"gazeworld"},
    "gazebench/engine/contract.py": {"gazeworld"},
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """What a piece of a file imports of gazebench, without that first name: ``core.types``."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom) and part.module:
            names = [part.module] if part.module != "gazebench" else [f"gazebench.{alias.name}" for alias in part.names]
        else:
            continue
        yield from (name.removeprefix("gazebench.") for name in names if name.startswith("gazebench."))


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_packages_import_only_what_lies_below_them():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_harness_reaches_methods_and_datasets_only_by_name():
    wrong = {}
    for path in HARNESS:
        allowed = EXCEPTIONS.get(place(path), ())
        reached = [name for name in imported(tree(path)) if within(name, KINDS) and not within(name, allowed)]
        said = {
            node.value
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES
        } - KNOWN.get(place(path), set())
        if reached or said:
            wrong[place(path)] = [*reached, *said]
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_methods_and_datasets_import_what_is_made_for_them(kind):
    allowed = ALLOWED[kind]
    wrong = {
        place(path): reached
        for path in PLUGGED[kind]
        if (reached := [n for n in imported(tree(path)) if not within(n, (*allowed, *EXCEPTIONS.get(place(path), ())))])
    }
    assert PLUGGED[kind]
    assert not wrong


def test_parsers_import_nothing_of_the_drawn_world_but_its_fakes():
    """And those inside of ``fake()``, or as types: reading real data imports no drawing."""
    world = ("datasets.gazeworld",)
    for path in PLUGGED["datasets"]:
        if "gazeworld" in path.parts:
            continue
        nodes = list(ast.walk(tree(path)))
        allowed = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "fake"]
        allowed += [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        reached = [name for name in imported(tree(path)) if within(name, world)]
        assert set(reached) <= {"datasets.gazeworld.fakes"}, place(path)
        assert len(reached) == sum(within(name, world) for node in allowed for name in imported(node)), place(path)


def test_no_init_where_hugging_face_would_be_shadowed():
    for folder in ("methods", "datasets", "splits"):
        assert not (ROOT / folder / "__init__.py").exists()
