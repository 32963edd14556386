"""Names of methods, data sets, tasks and models: modules of this package and entry points of plug-ins.

Listing the names imports none of them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from gazebench._version import __version__
from gazebench.core.errors import UserError


class PluginError(UserError, LookupError):
    """An unknown name, or a plug-in that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """A name and what it stands for.

    Attributes:
        kind: ``methods``, ``datasets``, ``tasks``, ``backbones`` or ``vlms``.
        name: as given on the command line.
        target: the module, or ``module:attribute``.
        origin: ``gazebench`` or the distribution that provides it.
        version: of that distribution.
    """

    kind: str
    name: str
    target: str
    origin: str = "gazebench"
    version: str = __version__

    def __str__(self) -> str:
        return f"{self.name!r} ({self.target} of {self.origin})"

    @property
    def ours(self) -> bool:
        """Whether it is part of this package and not of a plug-in."""
        return self.origin == "gazebench"

    def load(self) -> Any:
        """Imports the module or attribute.

        Raises:
            PluginError: the import failed, by an exception or by ``sys.exit()``.
        """
        try:
            return EntryPoint(self.name, self.target, f"gazebench.{self.kind}").load()
        except (Exception, SystemExit) as error:
            remedy = "" if self.ours else f"; correct the plug-in, or uninstall {self.origin}"
            raise PluginError(
                f"{self.kind[:-1]} {self} cannot be imported: {type(error).__name__}: {error}{remedy}"
            ) from error


@lru_cache(maxsize=16)
def _points(group: str, state: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Entry points, read again (30 ms) only where a folder of ``sys.path`` is another or has changed since.

    Args:
        group: their group.
        state: the folders of ``sys.path``, each with the time of its last change.
    """
    return entry_points(group=group)


def claims(kind: str) -> dict[str, list[Entry]]:
    """All entries of each name: ours first, then plug-ins by the names of their distributions."""
    theirs = set()
    state = tuple((folder, Path(folder).stat().st_mtime_ns if Path(folder).exists() else 0) for folder in sys.path)
    for point in _points(f"gazebench.{kind}", state):
        origin = (point.dist.name, point.dist.version) if point.dist else ("a plug-in", "")
        theirs.add(Entry(kind, point.name, point.value, *origin))
    found: dict[str, list[Entry]] = {}
    for entry in [*_ours(kind), *sorted(theirs, key=lambda entry: (entry.origin, entry.target))]:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


def _ours(kind: str) -> Iterator[Entry]:
    if kind in ("methods", "datasets"):
        package = importlib.import_module(f"gazebench.{kind}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                yield Entry(kind, module.name, f"gazebench.{kind}.{module.name}")
    elif kind == "tasks":
        for file in sorted(Path(__file__).parents[1].glob("*/task*.py")):
            folder = file.parent.name
            if folder != "data":  # the base class
                yield Entry(kind, folder + file.stem.removeprefix("task"), f"gazebench.{folder}.{file.stem}")


def _build(entry: Entry) -> Any:
    return entry.load()()


def embedded(kind: str) -> dict[str, Callable[..., Any]]:
    """Builders of embedded models by name: dictionaries of ``datasets/*/models.py``.

    They are ``BACKBONES``, ``VLMS``, and ``GAZE_MODELS``, whose builders give the folder of a finished run.

    Plug-ins add theirs as entry points ``gazebench.backbones`` and ``gazebench.vlms``. These are imported when they
    are called, so that a broken one does not affect the others.
    """
    found: dict[str, Callable[..., Any]] = {
        name: partial(_build, claimed[0]) for name, claimed in claims(kind.lower()).items()
    }
    package = importlib.import_module("gazebench.datasets")
    for folder in map(Path, package.__path__):
        for file in sorted(folder.glob("*/models.py")):
            module = importlib.import_module(f"gazebench.datasets.{file.parent.name}.models")
            found |= getattr(module, kind.upper(), {})
    return found
