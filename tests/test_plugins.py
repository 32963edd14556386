"""Plug-ins: what `gazebench new` writes runs as it stands, the tutorial too; a broken one harms nobody else."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.plugins import PluginError
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine.config import resolve
from gazebench.engine.contract import check, small_config
from gazebench.engine.registry import KINDS, entries, find, load_method, usable
from gazebench.engine.run import bench, prepare
from gazebench.engine.score import score
from gazebench.scaffold.package import write

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL))
QUIET = ["--loader.workers=0", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
CENTER = (ROOT / "methods" / "center.py").read_text(encoding="utf-8")
FEW = [*QUIET, "--dataset.train=6", "--dataset.val=3", "--dataset.test=4"]


@pytest.fixture
def installed(install, tmp_path):
    """What `gazebench new` writes, installed; returns the path of its module's source."""

    def make(kind: str, name: str, text: str = "") -> Path:
        folder = tmp_path / "source" / name
        write(kind, name, folder)
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        (module,) = project["tool"]["setuptools"]["py-modules"]
        path = folder / f"{module}.py"
        install(project["project"]["name"], project["project"]["entry-points"], {module: text or path.read_text()})
        return path

    return make


def record_of(places, *arguments, **options):
    return bench(resolve(list(arguments)), places, **options).record


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_a_clean_package(tmp_path, kind, capsys):
    folder = tmp_path / "deep" / "package"
    assert main(["new", kind[:-1], "my_own_2", str(folder)]) == 0
    names = {"pyproject.toml", "README.md", "gazebench_my_own_2.py", "test_gazebench_my_own_2.py"}
    assert {path.name for path in folder.iterdir()} == names
    printed = capsys.readouterr().out
    assert all(text in printed for text in (*(str(folder / name) for name in names), "gazebench check my_own_2"))
    assert not [path for path in folder.iterdir() if "$" in path.read_text()], "an unfilled place"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "gazebench-my-own-2"
    assert "license" not in project, "that is the author's to choose"
    (target,) = project["entry-points"][f"gazebench.{kind}"].values()
    assert f"class {target.partition(':')[2]}(" in (folder / "gazebench_my_own_2.py").read_text()
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", folder],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "better"),
    [("2fast", "my_2fast"), ("MyNet", "my_net"), ("my-net", "my_net"), ("my__net", "my_net"), ("lambda", "my_lambda"),
     ("名", "my_own"), ("../away", "away"), ("HTTPNet v2!", "httpnet_v2"), ("gazelle", "gazelle"), ("vat", "vat")],
)  # fmt: skip
def test_a_name_that_cannot_be_one(tmp_path, name, better):
    with pytest.raises(DataError, match=better) as error:
        write("methods", name, tmp_path / "package")
    assert not list(tmp_path.iterdir())
    if name not in ("gazelle", "vat"):
        assert write("methods", re.search(r"(\w+) would do", str(error.value))[1], tmp_path / "package")


def test_new_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["new", "dataset", "mine", str(tmp_path / "mine")]) == 2
    assert str(tmp_path / "mine") in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())
    for words in (["model", "mine"], ["method"], ["method", "mine", "a", "b"], ["method", "mine", "--force"]):
        assert main(["new", *words]) == 2


@pytest.mark.parametrize("kind", [*KINDS, "tasks"])
def test_every_name_of_ours_loads_its_own_class(kind):
    found = [value for entry, value in usable(kind) if entry.ours]
    assert found
    assert not [value for value in found if isinstance(value, PluginError)]
    assert len(set(found)) == len(found)
    with pytest.raises(PluginError, match=f"zzz.*{next(iter(entries(kind)))}"):
        find(kind, "zzz")


def test_names_are_those_of_what_is_installed_now(install, tmp_path):
    install("come-and-gone", {"gazebench.methods": {"come": "come:Come"}}, {})
    assert "come" in entries("methods")
    shutil.rmtree(tmp_path / "site" / "come_and_gone-0.1.0.dist-info")
    assert "come" not in entries("methods")


def test_a_method_is_one_file_or_folder_beside_ours_and_no_other_edit(monkeypatch, tmp_path, places):
    import gazebench.methods

    monkeypatch.setattr(gazebench.methods, "__path__", [*gazebench.methods.__path__, str(tmp_path)])
    (tmp_path / "middle.py").write_text(CENTER)
    (tmp_path / "centre_folder").mkdir()
    (tmp_path / "centre_folder" / "net.py").write_text(CENTER)
    (tmp_path / "centre_folder" / "__init__.py").write_text("from .net import Center\n\n__all__ = ['Center']\n")
    assert {"middle", "centre_folder"} <= entries("methods").keys()
    wanted = record_of(places, "center", "gazeworld", *FEW)["metrics"]
    for name in ("middle", "centre_folder", str(tmp_path / "middle.py")):
        record = record_of(places, name, "gazeworld", *FEW)
        assert (record["method"]["name"], record["metrics"]) == (Path(name).stem, wanted)
    found = find("methods", str(tmp_path / "middle.py"))
    assert (found.name, found.origin, found.from_file) == ("middle", "file middle.py", True)
    assert not find("methods", "middle").from_file


AGES = """
from dataclasses import replace
import numpy as np
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.spatial import L2ToMean


class OfChildren(L2ToMean):
    fields = (*L2ToMean.fields, "age")

    def values(self, age, **fields):
        values, people = super().values(**fields)
        return values[age[people] < 18], people[age[people] < 18]


class Ages(GazeWorld):
    card = replace(GazeWorld.card, name="ages", title="Ages")
    columns = (ProtocolMetric("l2", L2ToMean), ProtocolMetric("young", OfChildren))
    protocol = Protocol("ages", 1, "person", columns, headline="l2")

    def parse(self, split):
        made = super().parse(split)
        return replace(made, columns={**made.columns, "age": 9.0 * np.arange(made.people)})
"""


def test_a_metric_reads_any_column_of_its_data_set(tmp_path, places):
    path = tmp_path / "ages.py"
    path.write_text(AGES)
    outcome = bench(resolve(["center", str(path), *FEW]), places)
    l2 = pd.read_parquet(outcome.folder / "scores.parquet")["metric_l2"][:2].dropna()  # aged 0 and 9
    young = outcome.record["metrics"]["young"]["all"]
    assert (young["value"], young["count"]) == (pytest.approx(l2.mean(), abs=1e-12), len(l2))
    assert outcome.record["protocol"]["metrics"]["young"] == "OfChildren"


SIDES = """
import torch
from gazebench.core.types import Item, Prediction
from gazebench.data.task import ItemSource, Task
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import ProtocolMetric


class SideAccuracy(GazeMetric):
    fields = ("right_side",)
    unit = "side"
    higher_is_better = True

    def values(self, right_side):
        return right_side.double(), torch.arange(len(right_side))


class Sources(ItemSource):
    def __init__(self, records):
        self.records = records

    def items(self, image, head, points, size):
        name = self.records.images[image]
        return [
            (Item(f"{name}?{person}", person, "left or right?"), "left" if seen[:, 0].mean() < 0.5 else "right")
            for person, seen in enumerate(points) if len(seen)
        ]


class Side(Task):
    name = "side"
    metrics = (ProtocolMetric("side_accuracy", SideAccuracy, subsets=False),)

    def source(self, dataset, records):
        return Sources(records)

    def fields(self, items, truths, outputs):
        return {"right_side": torch.tensor([truth == output for truth, output in zip(truths, outputs, strict=True)])}


class Sided(Method):
    card = MethodCard(title="Sided", family="test")
    tasks = (Side,)
    trains = sees_images = False

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        assert {item.input for item in batch.items["side"]} <= {"left or right?"}
        outputs = {"side": ["left"] * len(batch.items["side"])}
        return Prediction(point=torch.full((batch.people, 2), 0.5), outputs=outputs)
"""


def test_a_task_adds_items_to_samples_and_metrics_to_a_protocol(install, places):
    """Also to a file that somebody else made, as soon as the task is registered."""
    points = {
        "gazebench.methods": {"sided": "gazebench_sided:Sided"},
        "gazebench.tasks": {"side": "gazebench_sided:Side"},
    }
    install("gazebench-sided", points, {"gazebench_sided": SIDES})
    outcome = bench(resolve(["sided", "gazeworld", *FEW]), places)
    seen = GazeWorld(train=6, val=3, test=4).records("test")
    left = [seen.points_of(person)[:, 0].mean() < 0.5 for person in range(seen.people) if len(seen.points_of(person))]
    accuracy = outcome.record["metrics"]["side_accuracy"]["all"]
    assert (accuracy["value"], accuracy["count"]) == (pytest.approx(sum(left) / len(left)), len(left))
    assert outcome.record["protocol"]["tasks"] == {"side": {"id": "side-v1"}}
    assert "side_accuracy" not in record_of(places, "center", "gazeworld", *FEW)["metrics"]
    again = score(outcome.folder / "predictions.parquet", GazeWorld(train=6, val=3, test=4))
    assert again["metrics"] == outcome.record["metrics"]


MODELS = """
from gazebench.datasets.gazeworld.models import tiny_vit, tiny_vlm


def small_vit():
    model, _, side = tiny_vit()
    return model, None, side


def small_vlm():
    return *tiny_vlm()[:2], None
"""


def test_models_of_a_plugin_are_used_by_name(install, places):
    points = {
        "gazebench.backbones": {"small": "gazebench_models:small_vit", "gone": "gazebench_none:vit"},
        "gazebench.vlms": {"small": "gazebench_models:small_vlm", "gone": "gazebench_none:vlm"},
    }
    install("gazebench-models", points, {"gazebench_models": MODELS})
    for name in ("gazelle", "vl4gaze"):
        options = ["--model.backbone=small", "--model.backbone_weights=random"]
        record = prepare(small_config(name, "gazeworld", *options), places).method.weights_identity()
        assert (record["name"], record["grade"]) == ("small", "random")
        with pytest.raises(PluginError, match=r"gazebench_none.*gazebench-models"):
            prepare(small_config(name, "gazeworld", "--model.backbone=gone"), places)


def test_the_method_passes_and_its_record_says_whose_it_is(installed, places):
    path = installed("methods", "fresh_look")
    assert check("fresh_look") == []
    record = record_of(places, "fresh_look", "gazeworld", *FEW)
    run = places.runs / "gazeworld" / "fresh_look" / record["run"]
    assert record["method"] == {
        "name": "fresh_look", "version": 1, "title": "Fresh Look", "family": "own", "paper": "", "citation": "",
        "origin": "gazebench-fresh-look 0.1.0", "licence": "not chosen yet", "source": file_digest(path)[:16],
        "sees": ["head box", "head crop"],
    }  # fmt: skip
    trained = record["weights"]["trained"]
    assert trained == {"file": "weights.pt", "sha256": file_digest(run / "weights.pt")}
    assert {setting["origin"] for setting in record["config"]["provenance"].values()} == {"ours"}
    assert record["data"]["origin"].startswith("gazebench 0.")
    evaluated = record_of(places, "fresh_look", "gazeworld", *FEW, weights=run / "weights.pt")
    assert evaluated["weights"]["trained"] is None, "they were given, not trained here"
    assert evaluated["weights"]["initial"]["sha256"] == trained["sha256"]
    assert evaluated["metrics"] == record["metrics"]


def test_the_dataset_passes_and_is_benched_on_its_fake_data(installed, places, tmp_path, capsys):
    path = installed("datasets", "street_scenes")
    assert check("street_scenes") == []
    tiny = tmp_path / "tiny"
    assert main(["data", "fake", "street_scenes", str(tiny), "--people=8"]) == 0
    for name, origin in (("street_scenes", "gazebench-street-scenes 0.1.0"), (str(path), f"file {path.name}")):
        record = record_of(places, "center", name, f"--dataset.root={tiny}", *QUIET)
        assert record["protocol"]["id"] == "street_scenes-v1"
        assert {"auc", "l2", "angle"} == record["metrics"].keys(), "the centre has no in/out score"
        assert (record["data"]["origin"], record["data"]["licence"]) == (origin, "not chosen yet")
        assert record["data"]["completeness"]["state"] == "own list"
    with (tiny / "test.csv").open("a") as rows:
        rows.write("images/x.png,1,2,3\n")
    count = len((tiny / "test.csv").read_text().splitlines())
    capsys.readouterr()
    assert main(["data", "check", "street_scenes", f"--dataset.root={tiny}"]) == 2
    assert f"test.csv:{count}: 4 columns" in capsys.readouterr().err


DATASET_BREAKAGES = {
    "person ids repeat": {'table["image"] + "#" + table["line"].astype(str)': '(table["line"] % 2).astype(str)'},
    "train and test share the source 'all'": {'table["group"] = table["image"]': 'table["group"] = "all"'},
    "outside the picture": {"    table = rows.table\n": '    table = rows.table\n    table["xmax"] = table["xmin"]\n'},
    "without an annotated point": {
        "import dataclass\n": "import dataclass, replace\n",
        "return people_of(": "found = people_of(",
        'point_unit="pixel")\n': 'point_unit="pixel")\n'
        "    return replace(found, points=found.points[:0], point_start=0 * found.point_start)\n",
    },
    "a target outside it": {"    table = rows.table\n": "    table = rows.table\n    table['gaze_x'] = -3\n"},
    "must give both together": {"PARTS_OF_SPLIT[split]]": "PARTS_OF_SPLIT[split][:1]]"},
    "complete official test set": {
        "official={},": 'official={"test": {"people": ANY}},',
        "import numpy as np": "from unittest.mock import ANY\n\nimport numpy as np",
    },
    "writes nobody into train": {
        "    table = rows.table\n": "    rows.keep(rows.table['line'] * (split != 'train'))\n    table = rows.table\n"
    },
    "fake() returns NoneType": {"        return cls(root)\n": ""},
    "headline 'label' has a value for nobody": {
        'ProtocolMetric("ap", InOutAP, subsets=False)': 'ProtocolMetric("label", LabelAccuracy)',
        "from gazebench.metrics.spatial": "from gazebench.metrics.semantic import LabelAccuracy\n"
        "from gazebench.metrics.spatial",
        'headline="l2"': 'headline="label"',
    },
    "other annotations the second time": {
        "    def parse(": "    def checked(self, annotations):\n        annotations.head[:] += np.random.rand()\n"
        "        return annotations\n\n    def parse("
    },
    "not uint8 (28, 42, 3)": {
        "    def parse(": "    def image(self, records, image, size=None, crop=None, flip=False):\n"
        "        return super().image(records, image, None, crop, flip)\n\n    def parse("
    },
    "KeyError: 'nobody' (gazebench_broken.py:": {"    rows = read_rows(": "    {}['nobody']\n    rows = read_rows("},
}


@pytest.mark.parametrize("finding", DATASET_BREAKAGES)
def test_a_broken_dataset_gets_a_finding_to_act_on(tmp_path, finding):
    write("datasets", "broken", tmp_path / "package")
    path = tmp_path / "package" / "gazebench_broken.py"
    text = path.read_text()
    for before, after in DATASET_BREAKAGES[finding].items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)
    findings = check(str(path))
    assert any(finding in found for found in findings), findings


def test_a_card_with_another_name_is_told(install, tmp_path):
    write("datasets", "one_name", tmp_path / "package")
    module = "gazebench_one_name"
    points = {"gazebench.datasets": {"another_name": f"{module}:OneNameData"}}
    install("gazebench-one-name", points, {module: (tmp_path / "package" / f"{module}.py").read_text()})
    (finding,) = check("another_name")
    assert "'one_name'" in finding


HEAD = "from gazebench.engine.method import Method, MethodCard\n\n\nclass Broken(Method):\n"
WITH_CARD = f"{HEAD}    card = MethodCard(title='Broken', family='test')\n"
BROKEN = {
    "ModuleNotFoundError: No module named 'nothing_of_that_name'": "import nothing_of_that_name",
    "SyntaxError": "class Broken(:",
    "SystemExit: 3": "import sys\nsys.exit(3)",
    "AttributeError: module 'gazebench_broken' has no attribute 'Broken'": "x = 1",
    "not a subclass of gazebench.engine.method.Method": "class Broken: pass",
    "`card`, a MethodCard": HEAD + "    trains = False\n",
    "it is 'a card'": HEAD + "    card = 'a card'\n",
    "`capabilities`, a frozenset": WITH_CARD + "    capabilities = 'point'\n",
    "`version`, a int": WITH_CARD + "    version = 'two'\n",
    "telepathy": WITH_CARD + "    capabilities = frozenset({'telepathy'})\n",
}


def broken_lines(capsys):
    """What `gazebench list` says of broken plug-ins, by their names."""
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines() if "BROKEN:" in line]
    return {name: problem for name, _, problem in lines}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_plugin_is_named_and_passed_over(install, capsys, problem):
    points = {"gazebench.methods": {"broken": "gazebench_broken:Broken"}}
    install("gazebench-broken", points, {"gazebench_broken": BROKEN[problem]})
    assert main(["list"]) == 1
    (told,) = broken_lines(capsys).values()
    assert problem in told
    assert "gazebench-broken" in told, "it must say what to mend or to uninstall"
    assert main(["check", "broken", "center"]) == 1
    checked = capsys.readouterr().out
    assert problem in checked
    assert "center: passes" in checked
    assert main(["check", "broken"]) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("x = 1", "none"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        (CENTER + "\n\nclass Right(Center):\n    pass\n", "Center, Right"),
        (None, "no such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, problem):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PluginError, match=rf"bad\.py.*{problem}"):
        load_method(str(path))


def test_broken_data_sets_and_tasks_are_named_and_passed_over(install, capsys):
    texts = {
        "gazebench_module": "from gazebench.data.dataset import GazeDataset\n"
        "class Half(GazeDataset):\n    card = None\n",
        "gazebench_empty": "",
    }
    points = {"half": "gazebench_module:Half", "whole_module": "gazebench_module", "empty": "gazebench_empty"}
    install("gazebench-bad", {"gazebench.datasets": points, "gazebench.tasks": {"chat": "gazebench_none"}}, texts)
    assert main(["list"]) == 1
    told = broken_lines(capsys)
    assert list(told) == ["empty", "half", "whole_module", "chat"]
    assert "gazebench.data.dataset.GazeDataset" in told["empty"]
    assert "fake(), parse()" in told["half"]
    assert "fake(), parse()" in told["whole_module"]


def test_a_name_belongs_to_us_or_to_one_plugin(install, capsys):
    install("gazebench-thief", {"gazebench.methods": {"center": "gazebench_thief"}}, {"gazebench_thief": "1 / 0"})
    for name in ("gazebench-first", "gazebench-other"):
        module = name.replace("-", "_")
        install(name, {"gazebench.methods": {"twice": f"{module}:X"}}, {module: "raise RuntimeError('imported')"})
    assert main(["list"]) == 1
    told = broken_lines(capsys)
    assert "gazebench_thief of gazebench-thief" in told["center"]
    assert "gazebench_first:X of gazebench-first, gazebench_other:X of gazebench-other" in told["twice"]
    assert load_method("center").card.title == "Centre"
    assert find("methods", "center").origin.startswith("gazebench ")
    with pytest.raises(PluginError, match="uninstall"):
        load_method("twice")


def test_everything_else_goes_on_beside_broken_ones(install, places, capsys):
    points = {f"broken_{i}": f"gazebench_broken_{i}:Broken" for i in range(len(BROKEN))} | {"absent": "gazebench_no:X"}
    texts = {f"gazebench_broken_{i}": text for i, text in enumerate(BROKEN.values())}
    install("gazebench-many", {f"gazebench.{kind}": points for kind in (*KINDS, "tasks")}, texts)
    assert record_of(places, "center", "gazeworld", *FEW)["metrics"]
    gone = places.boards / "broken_0"
    gone.mkdir(parents=True)
    (gone / "method-1.json").write_text("{}")
    boards = [f"--runs={places.runs}", f"--boards={places.boards}"]
    assert main(["leaderboard", *boards]) == 1
    assert "broken_0" in capsys.readouterr().err
    assert main(["leaderboard", "gazeworld", "--check", *boards]) == 0


@pytest.mark.slow
def test_the_tutorial_builds_a_method_that_beats_the_centre(installed, places):
    """Long before it has seen all of the world: the margin is wide, whatever the processor."""
    assert 40 < sum(bool(line.strip()) for line in CODE.splitlines()) < 60, "as short as it says"
    assert max(map(len, CODE.splitlines())) <= 120
    installed("methods", "glance", CODE)
    assert check("glance") == []
    world = ["gazeworld", *QUIET, "--dataset.train=40", "--dataset.val=3", "--dataset.test=20"]
    record = record_of(places, "glance", *world, "--trainer.max_epochs=3", "--loader.batch_size=6")
    assert (record["weights"]["grade"], record["weights"]["backbone"]["name"]) == ("embedded", "tiny")
    assert record["method"]["citation"] == "gazebench, docs/plugins.md"
    assert record["parameters"]["total"] - record["parameters"]["trained"] > 2_000_000, "the backbone stays frozen"
    error, centre = (one["metrics"]["avg_l2"]["all"]["value"] for one in (record, record_of(places, "center", *world)))
    assert error < 0.9 * centre
