"""Every command answers ``--help`` and does nothing else; options in both forms; typing errors get the nearest name."""

import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer

from gazebench.cli.main import app, main
from gazebench.cli.options import given_settings


def walk(command, *words):
    """Every command and group below one, as the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, *words, name)


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_explains_every_option_and_does_nothing(words, asked, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    texts = set()
    for option in ("--help", "-h"):
        assert main([*words, option]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        texts.add(printed.out)
    (text,) = texts
    assert text.startswith(f"Usage: {' '.join(['gazebench', *words])} ")
    assert "Options:" in text
    assert "Example: gazebench " in text
    for parameter in COMMANDS[words].params:
        assert parameter.name == "help" or parameter.help, f"{parameter.name} is not explained"
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in text
    assert not asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [words for words in COMMANDS if words], ids=" ".join)
def test_its_example_is_a_call_of_it(words, asked):
    example = COMMANDS[words].epilog.removeprefix("Example: gazebench ").partition(" > ")[0]
    arguments = shlex.split(example)
    assert tuple(arguments[: len(words)]) == words
    assert main(arguments) == 0
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["score", "a.csv", "vat", "--title", "two words"], "title", "two words"),
        (["score", "a.csv", "vat", "--title=two words"], "title", "two words"),
        (["predict", "a.jpg", "--box", "-10,40,180,110", "--box=0.1,0.2,0.3,0.4"], "box",
         ["-10,40,180,110", "0.1,0.2,0.3,0.4"]),
        (["bench", "--seed", "3", "gazelle"], "seed", 3),
        (["bench", "--model.lr", "1e-3", "gazelle", "--dataset.subsets=a b", "--model.bias", "-1"], "settings",
         ["--model.lr=1e-3", "--dataset.subsets=a b", "--model.bias=-1"]),
    ],
)  # fmt: skip
def test_options_take_their_values_in_both_forms(asked, arguments, name, value):
    assert main(arguments) == 0
    (context,) = asked
    assert (given_settings(context) if name == "settings" else context.params[name]) == value


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        ("benc", "bench"), ("data chek vat", "check"), ("new metod mine", "method"), ("bench --sed=1", "--seed"),
        ("bench gazele", "gazelle"), ("bench gazelle vatt", "vat"), ("data check vatt", "vat"),
        ("check gazele", "gazelle"), ("bench gazelle gazeworld --model.lrr 1", "--model.lr"),
        ("bench --dataset.rot=x", "--dataset.root"), ("leaderboard gazewrld", "gazeworld"),
        ("settings hclor", "hclora"), ("score a.csv gazefolow", "gazefollow"),
    ],
)  # fmt: skip
def test_a_typing_error_gets_the_nearest_name(arguments, near, capsys):
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert near in printed.err.lower().partition("mean")[2] + printed.err.partition("ossible options")[2]


@pytest.mark.parametrize("setting", ["--loader.batch_size=0", "--trainer.devices=0", "--model.lr=x", "--model.dim=7"])
def test_a_setting_that_does_not_fit_is_an_error_without_a_traceback(setting, capsys, places):
    few = [f"--dataset.{split}=3" for split in ("train", "val", "test")]
    folders = [f"--runs={places.runs}", f"--boards={places.boards}"]
    assert main(["bench", "gazelle", "gazeworld", *folders, *few, "--trainer.accelerator=cpu", setting]) == 2
    assert "\nerror: " in f"\n{capsys.readouterr().err}"


LIGHT = """
import sys
from types import SimpleNamespace
import gazebench.vlm.messages  # the interface of backends
from gazebench.cli.main import main

for words in {commands}:
    assert main([*words, "--help"]) == 0
print("loaded", *sorted({heavy} & sys.modules.keys()), file=sys.stderr)
"""


def test_help_imports_nothing_heavy():
    heavy = {"torch", "torchvision", "lightning", "transformers", "numpy", "pandas", "matplotlib", "scipy", "sklearn"}
    code = LIGHT.format(commands=list(COMMANDS), heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.split()) == (0, ["loaded"])


def test_the_shell_completes_commands():
    words = {"_GAZEBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "gazebench be", "COMP_CWORD": "1"}
    command = [sys.executable, "-P", "-m", "gazebench.cli.main"]
    told = subprocess.run(command, env=words, capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == ["bench"]


@pytest.mark.parametrize(("speedup", "precision"), [(2.0, "bf16-mixed"), (1.0, None)])
def test_without_a_method_a_frozen_and_an_adapted_backbone_are_compared(monkeypatch, tmp_path, speedup, precision):
    configs, pairs = [], []

    def run(config, places, again):
        configs.append(config)
        return SimpleNamespace(folder=tmp_path / config.method.name)

    monkeypatch.setattr("gazebench.engine.run.bench", run)
    monkeypatch.setattr("gazebench.report.run.show", lambda *given: None)
    monkeypatch.setattr("gazebench.cli.bench.compare_pair", lambda a, b, places: pairs.append((a.name, b.name)))
    monkeypatch.setattr("gazebench.engine.precision.bfloat16_speedup", lambda: speedup)
    assert main(["bench", "--seed=3"]) == 0
    assert pairs == [("gazelle", "hclora")]
    for config in configs:
        values = config.values
        assert (values["seed"], values["dataset"]["train"], values["trainer"]["max_epochs"]) == (3, 1800, 1)
        assert (values["trainer"].get("precision") == "bf16-mixed") == (precision is not None)
        assert values["model"]["compute_dtype"] == ("bfloat16" if precision else "float32")
    assert main(["bench", "center"]) == 0
    assert (configs[-1].method.name, configs[-1].dataset.name, len(pairs)) == ("center", "gazeworld", 1)
