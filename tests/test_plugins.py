"""Plug-ins: what `gazebench new` writes runs as it stands, the tutorial too; a broken one harms nobody else."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gazebench.cli.main import COMMANDS, main
from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.plugins import PluginError
from gazebench.engine.contract import check
from gazebench.engine.registry import KINDS, load_method, origin_of
from gazebench.scaffold import write

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
QUIET = ["--loader.workers=0", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
FEW = [*QUIET, "--dataset.train=6", "--dataset.val=3", "--dataset.test=4"]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts a distribution on the path as an installer would: its modules and its metadata."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = set(sys.modules)

    def add(name: str, points: dict[str, dict[str, str]], modules: dict[str, str], version: str = "0.1.0") -> None:
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text, encoding="utf-8")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))  # once more: importlib forgets what it knew of the folder

    yield add
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(site)):
            del sys.modules[name]


@pytest.fixture
def installed(install, tmp_path):
    """What `gazebench new` writes, installed; returns the path of its module's source."""

    def make(kind: str, name: str) -> Path:
        folder = tmp_path / "source" / name
        write(kind, name, folder)
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        (module,) = project["tool"]["setuptools"]["py-modules"]
        path = folder / f"{module}.py"
        install(project["project"]["name"], project["project"]["entry-points"], {module: path.read_text()})
        return path

    return make


@pytest.fixture
def places(tmp_path):
    return [f"--runs={tmp_path / 'runs'}", f"--boards={tmp_path / 'boards'}"]


# gazebench new -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_a_clean_package(tmp_path, kind, capsys):
    folder = tmp_path / "deep" / "package"
    assert main(["new", kind[:-1], "my_own_2", str(folder)]) == 0
    told = capsys.readouterr().out
    names = {"pyproject.toml", "README.md", "gazebench_my_own_2.py", "test_gazebench_my_own_2.py"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(str(folder / name) in told for name in names)
    assert "gazebench check my_own_2" in told
    for path in folder.iterdir():
        assert "$" not in path.read_text(), f"{path.name} has an unfilled place"
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
    ("name", "message"),
    [
        ("2fast", "my_2fast would do"),
        ("MyNet", "my_net would do"),
        ("my-net", "my_net would do"),
        ("my__net", "my_net would do"),
        ("lambda", "my_lambda would do"),
        ("名", "my_own would do"),
        ("../away", "away would do"),
        ("gazelle", "'gazelle' is a method of gazebench already"),
        ("vat", "'vat' is a dataset of gazebench already"),
    ],
)
def test_a_name_that_cannot_be_one(tmp_path, name, message):
    with pytest.raises(DataError, match=re.escape(message)):
        write("methods", name, tmp_path / "package")
    assert not list(tmp_path.iterdir())


def test_the_name_that_would_do_does(tmp_path):
    with pytest.raises(DataError) as error:
        write("methods", "HTTPNet v2!", tmp_path / "package")
    better = re.search(r"; (\w+) would do", str(error.value)).group(1)
    assert write("methods", better, tmp_path / "package")


def test_new_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["new", "dataset", "mine", str(tmp_path / "mine")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())
    for words in ([], ["model", "mine"], ["method"], ["method", "mine", "a", "b"], ["method", "mine", "--force"]):
        assert main(["new", *words]) == 2
        assert "gazebench new method|dataset NAME [FOLDER]" in capsys.readouterr().err


# What it writes --------------------------------------------------------------------------------------------------


def test_the_method_passes_and_its_record_says_whose_it_is(installed, places, tmp_path, capsys):
    path = installed("methods", "fresh_look")
    assert check("fresh_look") == []
    assert main(["bench", "fresh_look", "gazeworld", *FEW, *places]) == 0
    assert "Fresh Look on gazeworld" in capsys.readouterr().out
    (stored,) = (tmp_path / "boards" / "gazeworld").glob("fresh_look-*.json")
    record = json.loads(stored.read_text())
    run = tmp_path / "runs" / "gazeworld" / "fresh_look" / record["run"]
    assert record["method"] == {
        "name": "fresh_look",
        "title": "Fresh Look",
        "family": "own",
        "origin": "gazebench-fresh-look 0.1.0",
        "paper": "",
        "citation": "",
        "licence": "not chosen yet",
        "source": file_digest(path)[:16],
    }
    assert record["weights"]["trained"] == {"file": "weights.pt", "sha256": file_digest(run / "weights.pt")}
    recipe = record["config"]["provenance"]
    assert {setting["origin"] for setting in recipe.values()} == {"ours"}
    assert record["data"]["origin"].startswith("gazebench 0.")
    board = (tmp_path / "boards" / "gazeworld" / "README.md").read_text().split("## Where they come from")[1]
    sha = record["weights"]["trained"]["sha256"]
    for told in ("gazebench-fresh-look 0.1.0", "not chosen yet", f"{len(recipe)} ours", sha[:12]):
        assert f"| {told} " in board
    report = (run / "report.md").read_text()
    for told in ("brought by gazebench-fresh-look 0.1.0", "licence not chosen yet", f"sha256 `{sha[:16]}`"):
        assert told in report
    assert all(f"| {name} " in report for name in recipe)

    again = [f"--runs={tmp_path / 'again'}", f"--boards={tmp_path / 'again_boards'}"]
    assert main(["eval", str(run / "weights.pt"), *again]) == 0
    (stored,) = (tmp_path / "again").rglob("record.json")
    evaluated = json.loads(stored.read_text())
    assert evaluated["weights"]["trained"] is None, "they were given, not trained here"
    assert evaluated["weights"]["initial"]["sha256"] == sha
    assert evaluated["metrics"] == record["metrics"]


def test_the_dataset_passes_and_is_benched_on_its_fake_data(installed, places, tmp_path, capsys):
    installed("datasets", "street_scenes")
    assert check("street_scenes") == []
    tiny = tmp_path / "tiny"
    assert main(["data", "fake", "street_scenes", str(tiny), "--people=8"]) == 0
    assert main(["bench", "center", "street_scenes", f"--dataset.root={tiny}", *QUIET, *places]) == 0
    (stored,) = (tmp_path / "boards" / "street_scenes").glob("center-*.json")
    record = json.loads(stored.read_text())
    assert record["protocol"]["id"] == "street_scenes-v1"
    assert {"auc", "l2", "angle"} == record["metrics"].keys(), "the centre has no in/out score"
    assert record["data"]["origin"] == "gazebench-street-scenes 0.1.0"
    assert record["data"]["licence"] == "not chosen yet"
    assert record["status"]["class"] == "smoke"
    test = tiny / "test.csv"
    test.write_text(test.read_text() + "images/x.png,1,2,3\n")
    capsys.readouterr()
    assert main(["data", "check", "street_scenes", f"--dataset.root={tiny}"]) == 2
    assert f"test.csv:{len(test.read_text().splitlines())}: 4 columns, expected 7" in capsys.readouterr().err


def test_a_dataset_may_be_a_file_too(tmp_path, places):
    folder = tmp_path / "package"
    write("datasets", "loose", folder)
    file = str(folder / "gazebench_loose.py")
    assert check(file) == []
    assert main(["data", "fake", file, str(tmp_path / "tiny"), "--people=3"]) == 0
    assert main(["bench", "center", file, f"--dataset.root={tmp_path / 'tiny'}", *QUIET, *places]) == 0
    assert origin_of("datasets", file) == "file gazebench_loose.py"


DATASET_BREAKAGES = {
    "test: person ids repeat": {'f"{named[row]}#{rows.row[row]}"': 'f"{rows.row[row] % 2}"'},
    "train and test share the source 'all' and 0 more": {"groups=images,": 'groups=np.full(len(images), "all"),'},
    "a head box has no area": {"head=head,": "head=head[:, [0, 1, 0, 1]],"},
    "are in frame without an annotated point": {"np.where(seen, IN_FRAME, OUT_OF_FRAME)": "np.ones_like(seen)"},
    "is in frame with a target outside it": {"points=gaze[seen],": "points=gaze[seen] + 9999,"},
    "parse('trainval') must give both together": {'("train", "val") if': '("train",) if'},
    "counts as the complete official test set": {
        "official={},": 'official={"test": {"people": ANY}},',
        "import numpy as np": "from unittest.mock import ANY\n\nimport numpy as np",
    },
    "fake() writes nobody into train": {"rows: list[str] = []": 'rows = [""] * people * (split == "train")'},
    "fake() returns NoneType, not BrokenData": {"        return cls(root)\n": ""},
    "its headline 'label' has a value for nobody": {
        'Use("ap", InOutAP, subsets=False)': 'Use("label", LabelAccuracy)',
        "InOutAP, L2ToMean": "LabelAccuracy, L2ToMean",
        'headline="l2"': 'headline="label"',
    },
    "gives other annotations the second time": {
        "return settle(records": "records.head[:] += np.random.rand()\n        return settle(records"
    },
    "not uint8 (28, 42, 3)": {
        "    def parse(": "    def picture(self, records, image, size=None, crop=None, flip=False):\n"
        "        return super().picture(records, image, None, crop, flip)\n\n    def parse("
    },
    "KeyError: 'nobody' (gazebench_broken.py:": {"    rows = read_rows(": "    {}['nobody']\n    rows = read_rows("},
}


@pytest.mark.parametrize("finding", DATASET_BREAKAGES)
def test_a_broken_dataset_gets_a_finding_to_act_on(tmp_path, finding):
    write("datasets", "broken", tmp_path / "package")
    path = tmp_path / "package" / "gazebench_broken.py"
    text = path.read_text()
    for before, after in DATASET_BREAKAGES[finding].items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    findings = check(str(path))
    assert any(finding in found for found in findings), findings


def test_a_card_with_another_name_is_told(install, tmp_path):
    write("datasets", "one_name", tmp_path / "package")
    module = "gazebench_one_name"
    points = {"gazebench.datasets": {"another_name": f"{module}:OneNameData"}}
    install("gazebench-one-name", points, {module: (tmp_path / "package" / f"{module}.py").read_text()})
    assert [finding.split(" (")[0] for finding in check("another_name")] == [
        "card.name is 'one_name', but the command line knows this dataset as 'another_name', the name of its file or "
        "entry point; make the two the same"
    ]


# Broken ones -----------------------------------------------------------------------------------------------------

HEAD = "from gazebench.engine.method import Method, MethodCard\n\n\nclass Broken(Method):\n"
WITH_CARD = f"{HEAD}    card = MethodCard(title='Broken', family='test')\n"
BROKEN = {
    "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_that_name'": "import nothing_of_that_name",
    "cannot be imported: SyntaxError": "class Broken(:",
    "cannot be imported: SystemExit: 3": "import sys\nsys.exit(3)",
    "cannot be imported: AttributeError: module 'gazebench_broken' has no attribute 'Broken'": "x = 1",
    "not a subclass of gazebench.engine.method.Method": "class Broken: pass",
    "the class Broken needs `card`, a MethodCard": HEAD + "    trains = False\n",
    "it is 'a card'": HEAD + "    card = 'a card'\n",
    "needs `capabilities`, a frozenset": WITH_CARD + "    capabilities = 'point'\n",
    "declares the capability telepathy": WITH_CARD + "    capabilities = frozenset({'telepathy'})\n",
}


def broken(install, text: str) -> None:
    points = {"gazebench.methods": {"broken": "gazebench_broken:Broken"}}
    install("gazebench-broken", points, {"gazebench_broken": text})


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_plugin_is_named_and_passed_over(install, capsys, problem):
    broken(install, BROKEN[problem])
    assert main(["list"]) == 1
    listed = capsys.readouterr().out
    (line,) = [line for line in listed.splitlines() if "BROKEN" in line]
    assert line.split()[:2] == ["broken", "BROKEN:"]
    assert problem in line
    assert "gazebench-broken" in line, "it must say what to mend or to uninstall"
    for name in ("gazelle", "center", "gazeworld"):
        assert re.search(rf"^  {name} .*: ", listed, re.MULTILINE)
    assert main(["check", "broken", "center"]) == 1
    told = capsys.readouterr().out
    assert "broken: 1 finding(s)" in told
    assert problem in told
    assert "center: passes" in told
    assert main(["check", "broken"]) == 2
    assert problem in capsys.readouterr().err


def test_a_broken_dataset_is_named_and_passed_over(install, capsys):
    texts = {
        "gazebench_module": "from gazebench.data.dataset import GazeDataset\n"
        "class Half(GazeDataset):\n    card = None\n",
        "gazebench_empty": "",
    }
    points = {"half": "gazebench_module:Half", "whole_module": "gazebench_module", "empty": "gazebench_empty"}
    install("gazebench-bad", {"gazebench.datasets": points}, texts)
    assert main(["list"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    assert [line.split()[0] for line in lines] == ["empty", "half", "whole_module"]
    assert "must define exactly one public subclass of gazebench.data.dataset.GazeDataset; it has none" in lines[0]
    assert all("the class Half lacks fake(), parse()" in line for line in lines[1:])


def test_one_of_our_names_stays_ours(install, capsys):
    install("gazebench-thief", {"gazebench.methods": {"center": "gazebench_thief"}}, {"gazebench_thief": "1 / 0"})
    assert main(["list"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    assert "'center' (gazebench_thief of gazebench-thief): gazebench has one itself; rename the entry point" in line
    assert load_method("center").card.title == "Centre"
    assert origin_of("methods", "center").startswith("gazebench ")


def test_of_two_with_one_name_neither_is_used(install, capsys):
    for name in ("gazebench-first", "gazebench-other"):
        module = name.replace("-", "_")
        install(name, {"gazebench.methods": {"twice": f"{module}:X"}}, {module: "raise RuntimeError('imported')"})
    assert main(["list"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    wanted = "2 plug-ins bring a method called 'twice': gazebench_first:X of gazebench-first, gazebench_other:X of"
    assert wanted in line
    with pytest.raises(PluginError, match="uninstall all but one"):
        load_method("twice")


def test_everything_else_goes_on_beside_broken_ones(install, places, tmp_path, capsys):
    points = {f"broken_{i}": f"gazebench_broken_{i}:Broken" for i in range(len(BROKEN))}
    points["absent"] = "gazebench_absent:X"
    texts = {f"gazebench_broken_{i}": text for i, text in enumerate(BROKEN.values())}
    install("gazebench-many", {f"gazebench.{kind}": points for kind in KINDS}, texts)
    gone = tmp_path / "boards" / "broken_0"
    gone.mkdir(parents=True)
    (gone / "method-1.json").write_text("{}")
    small = ["--model.backbone=tiny", "--model.backbone_weights=random", "--model.feature_cache=off"]
    assert main(["bench", "gazelle", "gazeworld", *FEW, *small, "--trainer.max_epochs=1", *places]) == 0
    capsys.readouterr()
    assert main(["leaderboard", *places]) == 1
    told = capsys.readouterr()
    assert "Gaze-LLE" in told.out
    assert re.search(r"broken_0 is left as it is: dataset 'broken_0'.*ModuleNotFoundError", told.err)
    assert main(["leaderboard", "gazeworld", "--check", *places]) == 0


# The tutorial ----------------------------------------------------------------------------------------------------


CODE = "\n".join(re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL))


@pytest.fixture
def glance(installed, tmp_path):
    """The scaffold with the tutorial's code in it, installed."""
    path = installed("methods", "glance")
    (tmp_path / "site" / path.name).write_text(CODE)


def test_the_tutorial_is_as_short_as_it_says():
    assert 40 < sum(bool(line.strip()) for line in CODE.splitlines()) < 60
    assert max(map(len, CODE.splitlines())) <= 120


def test_the_tutorial_builds_a_method_that_runs(glance, places, tmp_path):
    assert check("glance") == []
    assert main(["bench", "glance", "gazeworld", *FEW, *places]) == 0
    (stored,) = (tmp_path / "boards" / "gazeworld").glob("glance-*.json")
    record = json.loads(stored.read_text())
    assert record["weights"]["grade"] == "embedded"
    assert record["weights"]["backbone"]["name"] == "tiny"
    assert record["method"]["citation"] == "gazebench, docs/plugins.md"
    backbone = record["parameters"]["total"] - record["parameters"]["trained"]
    assert backbone > 2_000_000, "the backbone stays frozen"


@pytest.mark.slow
def test_the_tutorial_s_method_beats_the_centre(glance, places, tmp_path):
    """Long before it has seen all of the world: the margin is wide, whatever the processor."""
    world = ["gazeworld", *QUIET, "--dataset.train=200", "--dataset.val=3", "--dataset.test=60"]
    assert main(["bench", "center", *world, *places]) == 0
    assert main(["bench", "glance", *world, "--trainer.max_epochs=3", "--loader.batch_size=16", *places]) == 0
    error = {}
    for path in (tmp_path / "boards" / "gazeworld").glob("*.json"):
        record = json.loads(path.read_text())
        error[record["method"]["name"]] = record["metrics"]["avg_l2"]["all"]["value"]
    assert error["glance"] < 0.8 * error["center"]


def test_what_the_tutorial_names_exists():
    for command in re.findall(r"^gazebench (\w+)", TUTORIAL, re.MULTILINE):
        assert command in COMMANDS
    for target in re.findall(r"\]\(([^)#]+)\)", TUTORIAL):
        assert (ROOT / "docs" / target).exists(), target


# A fresh environment ---------------------------------------------------------------------------------------------


IN_ONE_GO = """
import json, sys
import pytest
from gazebench.cli.main import main

for command in (["list"], ["check", "first_people"], ["bench", "first_light", "gazeworld", *json.loads(sys.argv[1])]):
    assert main(command) == 0, command
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "gazebench-first-light", "gazebench-first-people"]))
"""


@pytest.mark.slow
def test_packages_in_a_fresh_environment(tmp_path, bare, wheel):
    """Written, built, installed and used with nothing but what a user has; offline."""
    python, packages = bare(tmp_path / "env")
    work = tmp_path / "work"
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command, code: int = 0, cwd: Path = work) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env={**environment, "PYTHONSAFEPATH": "1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *offline]
    run(*pip, "--ignore-installed", wheel)  # the borrowed packages hold another gazebench's metadata
    run(python.with_name("gazebench"), "new", "method", "first_light")
    write("datasets", "first_people", work / "gazebench-first-people")
    run(*pip, "./gazebench-first-light", "./gazebench-first-people")
    assert (packages / "gazebench_first_light.py").is_file()
    told = run(python, "-c", IN_ONE_GO, json.dumps(FEW))  # for importing everything takes longest
    assert "[from gazebench-first-light]" in told
    assert "[from gazebench-first-people]" in told
    assert "BROKEN" not in told
    assert "first_people: passes" in told
    assert "2 passed" in told, "each package's own test, which is its contract"
    (stored,) = work.glob("leaderboards/gazeworld/first_light-*.json")
    record = json.loads(stored.read_text())
    assert record["method"]["origin"] == "gazebench-first-light 0.1.0"
    assert record["config"]["loader"]["people"] == "in_frame", "the recipe's value"
    assert record["code"]["commit"] is None, "installed, not the checkout"
    boards = work / "leaderboards"
    assert "First Light" in (boards / "index.html").read_text(encoding="utf-8")
    assert (boards / "assets" / "vendor" / "plot.umd.min.js").is_file(), "an installed package brings its board's files"
    assert stored.with_suffix(".html").is_file()
    assert list(work.glob("runs/gazeworld/first_light/*/report.html"))
