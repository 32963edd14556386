"""What README and documentation show works as it stands: commands, options, names, links, the example method."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gazebench.cli.main import main
from gazebench.cli.options import given_settings
from gazebench.engine.config import resolve
from gazebench.engine.contract import check
from gazebench.engine.registry import entries

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_method_keeps_the_contract(tmp_path):
    (code,) = (block for block in blocks(README, "python") if "class " in block)
    path = tmp_path / "box_below.py"
    path.write_text(code)
    assert check(str(path)) == []


def test_the_readme_names_all_methods_and_data_sets():
    for entry in (*entries("methods").values(), *entries("datasets").values()):
        assert f"`{entry.name}`" in README.read_text() or not entry.ours, entry.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_make_has_its_targets(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    made = {"path", *re.findall(r"gazebench new (?:method|dataset) (\w+)", text)}
    calls = "\n".join(blocks(page, "bash"))
    assert set(re.findall(r"^make ([a-z-]+)", calls, re.MULTILINE)) <= targets
    for kind, pattern in (("methods", r"METHOD=(\w+)"), ("datasets", r"DATASET=(\w+)")):
        assert set(re.findall(pattern + r"\b(?!/)", calls)) <= made | entries(kind).keys()


def examples(page):
    """The calls of ``gazebench`` in a page's code blocks, as words; make's targets as what they run."""
    for line in "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
        line = re.sub(r"(--[a-z.-]+ )\.\.\.|\$\(\(.*?\)\)", r"\1VALUE", line.partition(" > ")[0])
        words = [word for word in shlex.split(line, comments=True) if word != "..."]
        if words[:2] == ["make", "bench"]:
            command = ["make", "-n", *words[1:]]
            printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
            (line,) = (row for row in printed.replace("\\\n", " ").splitlines() if "/gazebench bench" in row)
            words = shlex.split(line.lstrip("@"))
        if words and words[0].endswith("gazebench"):
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_calls_that_exist(page, asked):
    """The command line takes every one of them, and every run has the settings it is given."""
    made = set(re.findall(r"gazebench new (?:method|dataset) (\w+)", page.read_text(encoding="utf-8")))
    for words in examples(page):
        asked.clear()
        assert main(words) == 0, words
        own = made & set(words) or any(word.endswith((".py", "config.yaml")) for word in words)
        if words[0] == "bench" and not own:
            names = [asked[0].params[name] for name in ("method", "dataset") if asked[0].params[name]]
            resolve([*(names or ["gazelle"]), *["gazeworld"][len(names) - 1 :], *given_settings(asked[0])])
        for name in ("method", "dataset"):
            kind, given = f"{name}s", (asked[0].params.get(name) or "") if asked else ""
            assert own or not re.fullmatch("[a-z_]+", given) or given in entries(kind), words
