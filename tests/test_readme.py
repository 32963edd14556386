"""What the README shows must work as it stands."""

import re
from pathlib import Path

from gazebench.cli import COMMANDS
from gazebench.contract import check
from gazebench.registry import entries

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
    for listed in (*entries("methods"), *entries("datasets")):
        assert f"`{listed}`" in TEXT, f"the README does not mention {listed}"


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
