"""Fills in the templates; the resulting package works without changes."""

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
"""Ending of a template, so that linters and type checkers do not take it for a Python file."""

CLASS = {"methods": "Method", "datasets": "Data"}
"""Ending of the class's name, so that it differs from all names that the module imports."""


def write(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Writes the package into a new folder; returns its files.

    Raises:
        DataError: the name is invalid or taken, or the folder exists.
    """
    _check_name(name)
    if folder.exists():
        raise DataError(f"{folder}: the folder exists already; give another one, or move it away")
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
        raise DataError(f"{folder}: the folder cannot be written ({error.strerror}); give another one") from error
    return list(texts)


def distribution(name: str) -> str:
    """The name of the distribution; the module's name is the same with underscores."""
    return f"gazebench-{name.replace('_', '-')}"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
        better = better if better[:1].isalpha() and not keyword.iskeyword(better) else f"my_{better or 'own'}"
        raise DataError(
            f"{name!r} is no valid name: use lower-case letters, digits and single underscores, a letter first, and no "
            f"keyword of Python; {better} would do"
        )
    for kind in KINDS:  # both, since `gazebench check NAME` must know which one is meant
        if name in entries(kind):
            raise DataError(f"{name!r} is a {kind[:-1]} of {entries(kind)[name].origin} already: give another name")
