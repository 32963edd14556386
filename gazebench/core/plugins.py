"""What can be named: modules of the checkout's folders and entry points of plug-ins. Nothing is imported to list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import gazebench
from gazebench.core.errors import UserError


class PluginError(UserError, LookupError):
    """A name that is not there, or a plug-in that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be named.

    Attributes:
        kind: ``methods``, ``datasets``, ``tasks``, ``backbones`` or ``vlms``.
        name: as given on the command line.
        target: the module, or ``module:attribute``.
        origin: ``gazebench`` or the distribution that brings it.
        version: of that distribution.
    """

    kind: str
    name: str
    target: str
    origin: str = "gazebench"
    version: str = gazebench.__version__

    def __str__(self) -> str:
        return f"{self.name!r} ({self.target} of {self.origin})"

    @property
    def ours(self) -> bool:
        """Whether it is part of this package rather than a plug-in's."""
        return self.origin == "gazebench"

    def load(self) -> Any:
        """The module or attribute.

        Raises:
            PluginError: the import failed; a plug-in may raise anything, ``sys.exit()`` too.
        """
        try:
            return EntryPoint(self.name, self.target, f"gazebench.{self.kind}").load()
        except (Exception, SystemExit) as error:
            remedy = "" if self.ours else f"; mend the plug-in, or uninstall {self.origin}"
            raise PluginError(
                f"{self.kind[:-1]} {self} cannot be imported: {type(error).__name__}: {error}{remedy}"
            ) from error


def claims(kind: str) -> dict[str, list[Entry]]:
    """All who claim a name, by name: ours first, then plug-ins in the order of their names."""
    ours = [Entry(kind, name, target) for name, target in _ours(kind)]
    theirs = {
        Entry(kind, point.name, point.value, *_distribution(point)) for point in entry_points(group=f"gazebench.{kind}")
    }
    found: dict[str, list[Entry]] = {}
    for entry in [*ours, *sorted(theirs, key=lambda entry: (entry.origin, entry.target))]:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("a plug-in", "")


def _ours(kind: str) -> Iterator[tuple[str, str]]:
    """Name and target of what this package brings of a kind, by where the files lie."""
    if kind in ("methods", "datasets"):
        package = importlib.import_module(f"gazebench.{kind}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                yield module.name, f"gazebench.{kind}.{module.name}"
    elif kind == "tasks":
        for file in sorted(Path(gazebench.__file__).parent.glob("*/task.py")):
            if file.parent.name != "data":  # the base class
                yield file.parent.name, f"gazebench.{file.parent.name}.task"


@dataclass(frozen=True)
class _Builder:
    """The builder of a plug-in's model."""

    entry: Entry

    def __call__(self) -> Any:
        return self.entry.load()()


def embedded(kind: str) -> dict[str, Callable[..., Any]]:
    """Builders of embedded models by name: the dictionaries ``BACKBONES`` or ``VLMS`` of ``datasets/*/models.py``.

    Plug-ins add theirs as entry points ``gazebench.backbones`` and ``gazebench.vlms``; they are imported when they are
    called, so that a broken one stops nobody else.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name, claimed in claims(kind.lower()).items():
        found[name] = _Builder(claimed[0])
    package = importlib.import_module("gazebench.datasets")
    for folder in map(Path, package.__path__):
        for file in sorted(folder.glob("*/models.py")):
            module = importlib.import_module(f"gazebench.datasets.{file.parent.name}.models")
            found |= getattr(module, kind.upper(), {})
    return found
