"""What the README shows must work as it stands."""

import re
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from gazebench.cli.main import COMMANDS, main
from gazebench.engine.config import resolve
from gazebench.engine.contract import check
from gazebench.engine.registry import entries

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_method_keeps_the_contract(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "box_below.py"
    path.write_text(code)
    assert check(str(path)) == []


def test_every_name_in_it_exists():
    for command in re.findall(r"^gazebench (\w+)", TEXT, re.MULTILINE):
        assert command in COMMANDS
    for kind, pattern in (("methods", r"METHOD=(\w+)"), ("datasets", r"DATASET=(\w+)")):
        assert {name for name in re.findall(pattern + r"\b(?!/)", TEXT) if name != "path"} <= entries(kind).keys()
    for entry in (*entries("methods").values(), *entries("datasets").values()):
        assert f"`{entry.name}`" in TEXT or not entry.ours, f"the README does not mention {entry.name}"


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def pages():
    return sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_documentation_names_what_exists(page):
    """Commands, methods, datasets and make's targets in code blocks; links between pages."""
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = {"path", *re.findall(r"gazebench new (?:method|dataset) (\w+)", text)}
    known = {kind: made | entries(kind).keys() for kind in ("methods", "datasets")}
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for command, rest in re.findall(r"^(?:\S*/)?gazebench ([a-z]+)(.*)", block, re.MULTILINE):
            assert command in COMMANDS, f"{page.name}: no command {command}"
            if command in ("bench", "probe"):
                words = [word for word in rest.split() if re.fullmatch("[a-z_]+", word)]
                first = words[: 2 if command == "bench" else 1]
                kinds = ("methods", "datasets") if command == "bench" else ("datasets",)
                for kind, word in zip(kinds, first, strict=False):
                    assert word in known[kind], f"{page.name}: no {word} among {kind}"
        for target in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE):
            assert target in targets, f"{page.name}: make has no {target}"
        for kind, pattern in (("methods", r"METHOD=(\w+)"), ("datasets", r"DATASET=(\w+)")):
            for name in re.findall(pattern + r"\b(?!/)", block):
                assert name in known[kind], f"{page.name}: no {name}"
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def examples(text):
    """The commands in a page's code blocks, as words; `...` and comments left out, make's rules as what they run."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = [word for word in shlex.split(line, comments=True) if word != "..."]
            if words[:2] == ["make", "bench"]:
                printed = subprocess.run(
                    ["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
                )
                (line,) = (row for row in printed.stdout.replace("\\\n", " ").splitlines() if "/gazebench bench" in row)
                words = ["gazebench", *shlex.split(line)[1:]]
            if words and words[0].endswith("gazebench"):
                yield words[1:]


@pytest.mark.parametrize("page", [ROOT / "README.md", *pages()], ids=lambda page: page.name)
def test_examples_have_options_that_exist(page, capsys):
    """Every example of a run resolves into a configuration; of other commands every option is in their help."""
    text = page.read_text(encoding="utf-8")
    made = set(re.findall(r"gazebench new (?:method|dataset) (\w+)", text))
    for command, *rest in examples(text):
        if command == "bench":
            if not (made & set(rest)) and not any(word.endswith((".py", "config.yaml")) for word in rest):
                resolve(rest)
            continue
        options = {word.split("=")[0] for word in rest if word.startswith("--")}
        options = {option for option in options if not re.match(r"--(model|dataset|loader|trainer)\.", option)}
        if options:
            with suppress(SystemExit):
                main([command, *rest[: command == "vqa"], "--help"])
            told = "".join(capsys.readouterr())
            assert options <= set(re.findall(r"--[a-z][a-z_-]*", told)), f"{page.name}: {command} {options}"
