"""Fills the templates in; what it writes runs as it stands."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

import gazebench
from gazebench.core.errors import DataError
from gazebench.engine.registry import KINDS, Kind, entries

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".tmpl"
"""A template is no Python file: no linter, type checker or importer takes it for one."""

CLASS = {"methods": "Method", "datasets": "Data"}
"""What the name of the class ends with, so that it never is that of something the module imports."""


def write(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Writes the package into a new folder; returns its files.

    Raises:
        DataError: the name cannot be one or is taken, or the folder is there.
    """
    _check_name(name)
    if folder.exists():
        raise DataError(f"{folder} is there already: give another folder, or move it away")
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
        raise DataError(f"{folder} cannot be written ({error.strerror}): give another folder") from error
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
