"""Finds methods and datasets by name: files of the two folders, entry points of plug-ins, or a path.

Nothing is imported to list; one name imports one module. A broken plug-in is named and passed over.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from gazebench.dataset import GazeDataset
from gazebench.method import Method

Kind = Literal["methods", "datasets"]
BASES: dict[str, type] = {"methods": Method, "datasets": GazeDataset}


class RegistryError(LookupError):
    """A name that is not there, or a plug-in that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be named.

    Attributes:
        name: as given on the command line.
        target: the module (or ``module:Class`` of an entry point, or a file).
        origin: ``gazebench`` or the distribution that brings it.
    """

    name: str
    target: str
    origin: str


def entries(kind: Kind) -> dict[str, Entry]:
    """All names of a kind; ours win over a plug-in of the same name."""
    package = importlib.import_module(f"gazebench.{kind}")
    found = {
        point.name: Entry(point.name, point.value, point.dist.name if point.dist else "a plug-in")
        for point in entry_points(group=f"gazebench.{kind}")
    }
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            found[module.name] = Entry(module.name, f"gazebench.{kind}.{module.name}", "gazebench")
    return dict(sorted(found.items()))


def load(kind: Kind, name: str) -> type:
    """The class of that name; ``name`` may also be the path of a Python file.

    Raises:
        RegistryError: unknown name (with the nearest ones), broken module, or no class of the right base in it.
    """
    if name.endswith(".py") or "/" in name:
        return _from_module(kind, _module_of_file(Path(name)), name)
    found = entries(kind)
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(found)}"
        raise RegistryError(f"no {kind[:-1]} is called {name!r}; {hint} (a file also works: path/to/my_{kind[:-1]}.py)")
    entry = found[name]
    try:
        if entry.origin == "gazebench":
            return _from_module(kind, importlib.import_module(entry.target), name)
        loaded = EntryPoint(name, entry.target, f"gazebench.{kind}").load()
    except RegistryError:
        raise
    except Exception as error:
        raise RegistryError(
            f"{kind[:-1]} {name!r} (from {entry.origin}, {entry.target}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, ModuleType):
        return _from_module(kind, loaded, name)
    return _checked(kind, loaded, f"{name!r} ({entry.target} of {entry.origin})")


def load_method(name: str) -> type[Method]:
    """The method class of that name or path."""
    return load("methods", name)


def load_dataset(name: str) -> type[GazeDataset]:
    """The dataset class of that name or path."""
    return load("datasets", name)


def usable(kind: Kind) -> Iterator[tuple[Entry, type | RegistryError]]:
    """Every entry with its class, or with what is wrong with it."""
    for name, entry in entries(kind).items():
        try:
            yield entry, load(kind, name)
        except RegistryError as error:
            yield entry, error


def name_of(kind: Kind, name_or_path: str) -> str:
    """The name results are filed under: a path's stem, otherwise the name itself."""
    return Path(name_or_path).stem if name_or_path.endswith(".py") else name_or_path


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RegistryError(f"{path}: no such file")
    path = path.resolve()
    name = f"gazebench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # worker processes unpickle by module name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RegistryError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _from_module(kind: Kind, module: ModuleType, name: str) -> type:
    base = BASES[kind]
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
        and not value.__name__.startswith("_")
    ]
    if len(classes) != 1:
        has = ", ".join(found.__name__ for found in classes) or "none"
        raise RegistryError(
            f"{kind[:-1]} {name!r}: {module.__file__} must define exactly one public subclass of "
            f"{base.__module__}.{base.__name__}; it has {has}"
        )
    return _checked(kind, classes[0], name)


def _checked(kind: Kind, value: object, what: str) -> type:
    base = BASES[kind]
    if not (inspect.isclass(value) and issubclass(value, base)):
        raise RegistryError(f"{kind[:-1]} {what} is {value!r}, not a subclass of {base.__module__}.{base.__name__}")
    if not hasattr(value, "card"):
        raise RegistryError(f"{kind[:-1]} {what} has no `card`")
    return value
