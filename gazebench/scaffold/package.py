"""Fills the templates in; what it writes runs as it stands."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import gazebench
from gazebench.core.errors import DataError
from gazebench.engine.registry import KINDS, Kind, entries

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".tmpl"
"""A template is no Python file: no linter, type checker or importer takes it for one."""

USAGE = "gazebench new method|dataset NAME [FOLDER]"
CLASS = {"methods": "Method", "datasets": "Data"}
"""What the name of the class ends with, so that it never is that of something the module imports."""


def main(arguments: Sequence[str]) -> int:
    """``gazebench new method|dataset NAME [FOLDER]``."""
    kinds = {kind[:-1]: kind for kind in KINDS}
    if len(arguments) not in (2, 3) or arguments[0] not in kinds or any(word.startswith("-") for word in arguments):
        raise DataError(f"{USAGE}: give the kind, a name, and where to write it (by default gazebench-NAME)")
    kind, name = kinds[arguments[0]], arguments[1]
    folder = Path(arguments[2] if len(arguments) == 3 else distribution(name))
    for path in write(kind, name, folder):
        print(path)
    print(f"\nnow, in the environment of gazebench:\n  pip install -e {folder}\n  gazebench check {name}")
    if kind == "methods":
        print(f"  gazebench bench {name}")
    else:
        print(f"  gazebench data fake {name} tiny\n  gazebench bench center {name} --dataset.root tiny")
    return 0


def write(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Writes the package into a new folder; returns its files.

    Raises:
        DataError: the name cannot be one or is taken, or the folder is there.
    """
    _check_name(name)
    if folder.exists():
        raise DataError(f"{folder} is there already: give another folder ({USAGE}), or move it away")
    title = " ".join(word.capitalize() for word in name.split("_"))
    values = {
        "name": name,
        "title": title,
        "class_name": title.replace(" ", "") + CLASS[kind],
        "module": f"gazebench_{name}",
        "distribution": distribution(name),
        "kind": kind[:-1],
        "kinds": kind,
        "version": gazebench.__version__,
    }
    texts = {
        folder / template.name.removesuffix(SUFFIX).replace("module", values["module"]): Template(
            template.read_text(encoding="utf-8")
        ).substitute(values)
        for part in ("common", kind[:-1])
        for template in sorted((TEMPLATES / part).iterdir())
    }
    try:
        folder.mkdir(parents=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}): give another folder ({USAGE})") from error
    return list(texts)


def distribution(name: str) -> str:
    """What the package is called where packages are installed; its module is the same with underscores."""
    return f"gazebench-{name.replace('_', '-')}"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
        better = better if better[:1].isalpha() and not keyword.iskeyword(better) else f"my_{better or 'own'}"
        raise DataError(
            f"{name!r} cannot be a name: it takes lower-case letters, digits and single underscores, a letter first, "
            f"and no word of Python's own; {better} would do"
        )
    for kind in KINDS:  # both: `gazebench check NAME` must know which of the two is meant
        if name in entries(kind):
            raise DataError(f"{name!r} is a {kind[:-1]} of {entries(kind)[name].origin} already: give another name")
