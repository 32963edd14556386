"""Jinja2 and the few things every page needs: numbers as text, and where the assets are."""

from __future__ import annotations

import filecmp
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gazebench.engine.record import CHECKOUT
from gazebench.metrics.intervals import format_value
from gazebench.report.board.rows import CLASSES

HERE = Path(__file__).resolve().parent
ASSETS = HERE / "assets"
BADGES = {
    "official": "official",
    "synthetic": "synthetic",
    "smoke": "smoke run",
    "published": "published",
}
"""What a row is called in one or two words."""


@cache
def environment() -> Environment:
    """Escapes everything; an unknown name is an error."""
    made = Environment(
        loader=FileSystemLoader([HERE / "templates", ASSETS]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"number": format_value, "count": count}
    made.globals |= {"BADGES": BADGES, "CLASSES": CLASSES}
    return made


def render(template: str, **values: Any) -> str:
    """A page."""
    return environment().get_template(template).render(**values)


def count(value: float | None, digits: int = 0) -> str:
    """With separators; an absent one is a dash."""
    return format_value(None) if value is None else f"{value:,.{digits}f}"


def link(target: Path, folder: Path) -> str:
    """A file's address as a page in ``folder`` writes it."""
    return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def assets(folder: Path) -> str:
    """The address of the assets for pages in ``folder``.

    Pages of this checkout use the package's own; elsewhere they are copied beside the pages, which then can be moved.
    """
    if CHECKOUT is not None and folder.resolve().is_relative_to(CHECKOUT):
        return link(ASSETS, folder)
    return "assets"


def provide_assets(folder: Path) -> None:
    """Copies what ``assets`` promised, where it is not there yet."""
    if assets(folder) != "assets":
        return
    for source in (path for path in ASSETS.rglob("*") if path.is_file()):
        target = folder / "assets" / source.relative_to(ASSETS)
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
