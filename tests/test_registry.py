"""Names, paths, entry points; and what a user is told when something is wrong."""

import sys
from importlib.metadata import EntryPoint

import pytest

from gazebench.core.plugins import PluginError
from gazebench.engine import registry
from gazebench.engine.method import Method
from gazebench.engine.registry import entries, load, load_dataset, load_method, name_of, usable

PLUGIN = """
import torch
from gazebench.engine.method import Method, MethodCard
from gazebench.data.transforms import Preprocess
from gazebench.core.types import Prediction


class Left(Method):
    card = MethodCard(title="Left", family="test")
    capabilities = frozenset({"point"})
    trains = False
    sees_images = False

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        return Prediction(point=torch.tensor([[0.25, 0.5]]).repeat(batch.people, 1))
"""


def test_every_name_loads_its_own_class():
    for kind in ("methods", "datasets"):
        found = {entry.name: value for entry, value in usable(kind) if entry.ours}
        assert found
        assert not [value for value in found.values() if isinstance(value, PluginError)]
        assert len(set(found.values())) == len(found)


def test_unknown_name_says_what_is_near():
    with pytest.raises(PluginError, match="did you mean gazelle"):
        load_method("gazele")
    with pytest.raises(PluginError, match=r"there are: .*vat"):
        load_dataset("zzz")


def test_a_file_is_a_method(tmp_path):
    path = tmp_path / "left.py"
    path.write_text(PLUGIN)
    method = load_method(str(path))
    assert issubclass(method, Method)
    assert name_of("methods", str(path)) == "left"
    assert load_method(str(path)) is method


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "exactly one public subclass"),
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        (PLUGIN + "\n\nclass Right(Left):\n    pass\n", "it has Left, Right"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(PluginError, match=message) as error:
        load_method(str(path))
    assert "bad.py" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PluginError, match="no such file"):
        load_method(str(tmp_path / "none.py"))


@pytest.fixture
def entry_point(monkeypatch, tmp_path):
    """Adds an entry point to a module on the path."""

    def add(module: str, content: str, value: str) -> None:
        (tmp_path / f"{module}.py").write_text(content)
        monkeypatch.syspath_prepend(str(tmp_path))
        point = EntryPoint("brought", value, "gazebench.methods")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])

    yield add
    for name in ("good_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("value", ["good_plugin", "good_plugin:Left"])
def test_entry_point(entry_point, value):
    entry_point("good_plugin", PLUGIN, value)
    assert entries("methods")["brought"].origin == "a plug-in"
    assert load_method("brought").card.title == "Left"


def test_a_broken_plugin_is_named_and_passed_over(entry_point):
    entry_point("broken_plugin", "raise RuntimeError('no licence')", "broken_plugin:Left")
    found = {entry.name: value for entry, value in usable("methods")}
    assert isinstance(found["brought"], PluginError)
    assert "no licence" in str(found["brought"])
    assert issubclass(found["center"], Method)


def test_wrong_base_class(entry_point):
    entry_point("good_plugin", "class Left: pass", "good_plugin:Left")
    with pytest.raises(PluginError, match=r"not a subclass of gazebench\.method\.Method"):
        load("methods", "brought")
