"""The notebook runs top to bottom as it is committed, and what it says is true."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "first_steps.ipynb"


@pytest.mark.slow
def test_first_steps(capsys):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "committed with outputs"
    names, shown = {}, []
    for cell in cells:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"])
            exec(re.sub(r"^( *)%.*", r"\1pass", lines, flags=re.MULTILINE), names)  # Jupyter's own commands
            shown.append(capsys.readouterr().out)
    assert shown[1] == f"20 pictures with {names['records'].people} people\n"
    assert shown[2].count("person 1 ") == 3
    table = names["table"]
    assert table["all"]["gazelle_gazeworld"] < table["all"]["center"]
    assert table["consistent"]["gazelle_gazeworld"] < 0.15 < table["inconsistent"]["gazelle_gazeworld"]
