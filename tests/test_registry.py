"""Names and paths of methods, data sets and tasks; and what a user is told when something is wrong."""

import pytest

from gazebench.core.plugins import PluginError
from gazebench.engine.method import Method
from gazebench.engine.registry import find, load_dataset, load_method, tasks, usable

LEFT = """
import torch
from gazebench.core.types import Prediction
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard


class Left(Method):
    card = MethodCard(title="Left", family="test")
    trains = sees_images = False

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        return Prediction(point=torch.tensor([[0.25, 0.5]]).repeat(batch.people, 1))
"""


@pytest.mark.parametrize("kind", ["methods", "datasets", "tasks"])
def test_every_name_loads_its_own_class(kind):
    found = {entry.name: value for entry, value in usable(kind) if entry.ours}
    assert found
    assert not [value for value in found.values() if isinstance(value, PluginError)]
    assert len(set(found.values())) == len(found)
    assert "questions" in tasks()


@pytest.mark.parametrize(("load", "name", "near"), [(load_method, "gazele", "gazelle"), (load_dataset, "zzz", "vat")])
def test_an_unknown_name_is_answered_by_those_there_are(load, name, near):
    with pytest.raises(PluginError, match=rf"{name}.*{near}"):
        load(name)


def test_a_file_is_a_method_whose_text_is_its_version(tmp_path):
    path = tmp_path / "left.py"
    path.write_text(LEFT)
    found = find("methods", str(path))
    assert issubclass(found.cls, Method)
    assert load_method(str(path)) is found.cls
    assert (found.name, found.origin, found.from_file) == ("left", "file left.py", True)
    assert not find("methods", "center").from_file


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("x = 1", "none"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        (LEFT + "\n\nclass Right(Left):\n    pass\n", "Left, Right"),
        (None, "no such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, problem):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PluginError, match=rf"bad\.py.*{problem}"):
        load_method(str(path))
