"""Every command that the suite prints, in tables, pages and messages, is one that its own command line takes."""

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from gazebench.cli.main import main
from gazebench.cli.options import given_settings
from gazebench.core.errors import DataError
from gazebench.engine.config import misfit, resolve
from gazebench.engine.registry import load_dataset, load_method
from gazebench.engine.run import BOARDS
from gazebench.report import paper_tables, published
from gazebench.report.record_page import repeat

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted({*BOARDS.glob("**/README.md"), *(ROOT / "studies").glob("**/README.md")})
SOURCES = sorted(path for path in (ROOT / "gazebench").rglob("*") if path.suffix in (".py", ".j2", ".json", ".yaml"))
WORDS = published.vocabulary()
TABLES = published.load()


@cache
def words_of(command):
    """The arguments of ``gazebench`` in a command; of one of make, those in what it runs."""
    if command.startswith("make "):
        line = ["make", "-n", *shlex.split(command)[1:]]
        printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        (command,) = (row for row in printed.replace("\\\n", " ").splitlines() if "/gazebench " in row)
    return shlex.split(command.lstrip("@"))[1:]


def runs(words, asked):
    """Whether the command line takes the arguments; those of a run also as a configuration."""
    asked.clear()
    assert main(words) == 0, words
    (context,) = asked
    if words[0] == "bench" and context.params["method"] and not context.params["method"].isupper():
        names = [context.params["method"], context.params["dataset"] or "gazeworld"]
        resolve([*names, *given_settings(context)])


def commands(text):
    """Calls of make and of the program in code spans, as the reader gets them."""
    for found in re.findall(r"(?:(?<!`)`|<code>)((?:make|gazebench) [^`<>]+?)(?:`(?!`)|</code>)", text):
        yield re.sub(r"\{\{.*?\}\}|\{[^{}]*\}", "x", " ".join(found.replace("COMMAND", "list").split()))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_what_a_table_lacks_can_be_run(table, tmp_path, asked):
    stand_ins = [name for name, ids in WORDS.stand_ins.items() if table.id in ids]
    for dataset in ("", *stand_ins):
        for command in paper_tables.fill(table, WORDS, tmp_path, dataset).missing:
            runs(words_of(command), asked)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_committed_pages_show_commands_that_exist(page, asked):
    for command in dict.fromkeys(commands(page.read_text(encoding="utf-8"))):
        runs(words_of(command), asked)


def test_messages_of_the_program_show_commands_that_exist(asked):
    """The commands and their options exist; what they need may be left out in a message."""
    found = {command: path for path in SOURCES for command in commands(path.read_text(encoding="utf-8"))}
    assert len(found) > 20
    for command, path in found.items():
        if command.startswith("gazebench"):
            assert main([*shlex.split(command)[1:], "--help"]) == 0, f"{path}: {command}"
        else:
            words_of(command)


def test_a_record_page_says_how_to_repeat_the_run(asked):
    for path in sorted((BOARDS / "gazeworld").glob("*.json"))[::9]:
        runs(words_of(repeat(json.loads(path.read_text(encoding="utf-8")))), asked)


def test_no_command_is_printed_where_there_is_no_result(tmp_path):
    human, video = load_method("one_annotator"), load_dataset("vat")
    assert not misfit(human, load_dataset("gazefollow"))
    assert not misfit(load_method("center"), video)
    with pytest.raises(DataError, match="VideoAttentionTarget") as said:
        resolve(["one_annotator", "vat"])
    assert str(said.value) == misfit(human, video)
    assert "gazefollow" in str(said.value), "what to take"
    table = published.table_of(TABLES, "field-main")
    missing = paper_tables.fill(table, WORDS, tmp_path).missing
    assert [command for command in missing if "one_annotator" in command] == [
        "make bench METHOD=one_annotator DATASET=gazefollow DATA_ROOT=..."
    ]
    filled = paper_tables.fill(table, WORDS, tmp_path, "vat")
    assert "one_annotator" not in {
        row["method"] for row in paper_tables.plan(filled, WORDS, "vat", [0])["rows"].values()
    }


def test_a_column_by_class_needs_clip_weights(tmp_path):
    missing = [command for table in TABLES for command in paper_tables.fill(table, WORDS, tmp_path).missing]
    by_class = [command for command in missing if re.search("DATASET=(gazefollow_semantic|gazehoi) ", command)]
    assert by_class == [command for command in missing if "--dataset.clip_weights=..." in command] != []
