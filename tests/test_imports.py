"""Who may import whom: the architecture, enforced by reading the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"_version", "errors"},
    {"types", "processes"},
    {"decode", "intervals", "transforms", "images", "annotation_cache", "weights", "world", "vlm"},
    {"questions", "vocabulary"},
    {"metrics"},
    {"nn", "protocol", "subsets"},
    {"evaluation", "dataset", "published_schema"},
    {"method", "results", "published", "interview"},
    {"registry", "datamodule"},
    {"config", "predictions", "settings", "traits"},
    {"board"},
    {"bench", "dataset_tools"},
    {"report", "score"},
    {"predict", "contract", "study", "probe", "scaffold", "compare", "vqa"},
    {"paper_figures"},
    {"tables"},
    {"cli"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
HARNESS = sorted((ROOT / "gazebench").rglob("*.py"))
PLUGGED = {kind: sorted((ROOT / kind).rglob("*.py")) for kind in ("methods", "datasets")}


def imported(path: Path) -> set[str]:
    """First names below ``gazebench`` a file imports, at any depth of the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                f"{node.module}.{alias.name}" if node.module == "gazebench" else node.module for alias in node.names
            }
    return {name.split(".")[1] for name in names if name.startswith("gazebench.")}


def unit(path: Path) -> str:
    """The part of the harness a file belongs to."""
    return path.relative_to(ROOT / "gazebench").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: str(path.relative_to(ROOT)))
def test_harness_imports_only_lower_layers(path):
    mine = unit(path)
    if mine == "__init__":
        return
    assert mine in RANK, f"{mine} has no place in LAYERS"
    wrong = {name for name in imported(path) if name != mine and RANK.get(name, -1) >= RANK[mine]}
    assert not wrong - {"__version__"}, f"{path.name} (layer {RANK[mine]}) imports {wrong}"
    assert not {"methods", "datasets"} & imported(path), "only the registry reaches methods and datasets, by importlib"


@pytest.mark.parametrize("kind", ["methods", "datasets"])
def test_plugged_parts_know_nobody(kind):
    allowed = {
        # A method may extend another one; what two methods share besides goes to nn.
        "methods": {"method", "methods", "types", "transforms", "nn", "weights", "decode", "questions"},
        # A dataset may extend another one, too.
        "datasets": {
            "dataset",
            "datasets",
            "types",
            "protocol",
            "metrics",
            "images",
            "annotation_cache",
            "vocabulary",
            "world",
        },
    }[kind]
    assert PLUGGED[kind]
    for path in PLUGGED[kind]:
        wrong = imported(path) - allowed
        assert not wrong, f"{path.name} imports {wrong}"


def test_no_init_where_hugging_face_would_be_shadowed():
    for folder in ("methods", "datasets", "splits"):
        assert not (ROOT / folder / "__init__.py").exists()


def strings(path: Path) -> set[str]:
    """String constants of a file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def test_harness_knows_no_method_or_dataset_by_name():
    names = {path.stem for paths in PLUGGED.values() for path in paths} - {"random"}
    known = {}
    for path in HARNESS:
        found = {name for name in names if name in strings(path)}
        if found:
            known[path.name] = found
    # The command line's defaults, and the world the contract test runs methods on.
    assert known.pop("compose.py") == {"gazeworld"}  # the key its seeds are drawn from
    assert known == {"cli.py": {"gazelle", "gazeworld"}, "contract.py": {"gazeworld"}, "predict.py": {"gazeworld"}}
