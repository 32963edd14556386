"""Loads and checks methods, data sets and tasks by name; a broken plug-in stops no other (docs/plugins.md)."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from gazebench.core.plugins import Entry, PluginError, claims

if TYPE_CHECKING:  # they import torch and Lightning, which takes seconds and is not needed to list names
    from gazebench.data.dataset import GazeDataset
    from gazebench.data.task import Task
    from gazebench.engine.method import Method

Kind = Literal["methods", "datasets", "tasks"]
KINDS: tuple[Kind, ...] = ("methods", "datasets")


@dataclass(frozen=True)
class Plugin:
    """A checked method, data set or task.

    Attributes:
        name: its name in results: as registered, or a file's stem.
        cls: the class.
        origin: the distribution with its version, or the file's name, as records have it.
        source: digest of the file that defines the class; "" where there is none.
        from_file: whether it was given as the path of a file.
    """

    name: str
    cls: Any
    origin: str
    source: str
    from_file: bool = False


def entries(kind: Kind) -> dict[str, Entry]:
    """All names of a kind; our own have precedence over a plug-in of the same name."""
    return {name: found[0] for name, found in claims(kind).items()}


def find(kind: Kind, name: str) -> Plugin:
    """The class called ``name``, which may also be the path of a Python file; data sets may be joined by ``+``.

    Raises:
        PluginError: the name is unknown (the message has the nearest ones) or claimed by two plug-ins, the module is
            broken, or it has no class of the right base.
    """
    if kind == "datasets" and "+" in name and not Path(name).is_file():
        return _combined(name.split("+"))
    if is_file(name):
        path = Path(name)
        found = _class_in(kind, _module_of_file(path), name)
        return Plugin(path.stem, found, f"file {path.name}", _source_digest(found), from_file=True)
    known = claims(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise PluginError(f"no {kind[:-1]} is called {name!r}; {hint} (a file also works: path/to/my_{kind[:-1]}.py)")
    entry, *others = known[name]
    if others and not entry.ours:
        raise PluginError(
            f"{len(others) + 1} plug-ins have a {kind[:-1]} called {name!r}: "
            f"{', '.join(f'{claim.target} of {claim.origin}' for claim in (entry, *others))}; "
            "uninstall all but one, or rename an entry point"
        )
    loaded = entry.load()
    if isinstance(loaded, ModuleType):
        loaded = _class_in(kind, loaded, name)
    return Plugin(
        name, _checked(kind, loaded, str(entry)), f"{entry.origin} {entry.version}".strip(), _source_digest(loaded)
    )


def _combined(names: list[str]) -> Plugin:
    from gazebench.data.combined import combine

    parts = {part.name: part for part in (find("datasets", name) for name in names)}
    if len(parts) < len(names):
        raise PluginError(f"{'+'.join(names)!r} names a data set twice")
    origins = " + ".join(dict.fromkeys(part.origin for part in parts.values()))
    source = hashlib.sha256("".join(part.source for part in parts.values()).encode()).hexdigest()[:16]
    from_file = any(part.from_file for part in parts.values())
    return Plugin(
        "+".join(parts), combine({name: part.cls for name, part in parts.items()}), origins, source, from_file
    )


def load_method(name: str) -> type[Method]:
    method: type[Method] = find("methods", name).cls
    return method


def load_dataset(name: str) -> type[GazeDataset]:
    dataset: type[GazeDataset] = find("datasets", name).cls
    return dataset


def tasks() -> dict[str, Task]:
    """All registered tasks by name, without broken plug-ins."""
    found = [cls() for _, cls in usable("tasks") if not isinstance(cls, PluginError)]
    return {task.name: task for task in found}


def usable(kind: Kind) -> Iterator[tuple[Entry, Any]]:
    """Every entry with its class, or with a ``PluginError`` where it is broken or claims a name of ours."""
    for name, (entry, *others) in claims(kind).items():
        try:
            yield entry, find(kind, name).cls
        except PluginError as error:
            yield entry, error
        if entry.ours:
            for other in others:
                yield other, PluginError(f"{kind[:-1]} {other}: gazebench has that name itself; rename the entry point")


def is_file(name_or_path: str) -> bool:
    """Whether it is the path of a file, not a name."""
    return name_or_path.endswith(".py") or "/" in name_or_path or "\\" in name_or_path


def _source_digest(value: type) -> str:
    path = inspect.getsourcefile(value)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"{path}: no such file")
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
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _base(kind: Kind) -> tuple[type, dict[str, type]]:
    """The base class of a kind, and the types of the class attributes that every class of it needs."""
    if kind == "methods":
        from gazebench.engine.method import Method, MethodCard

        return Method, {"card": MethodCard, "capabilities": frozenset, "published": Mapping, "version": int}
    if kind == "tasks":
        from gazebench.data.task import Task

        return Task, {"name": str, "metrics": tuple}
    from gazebench.data.dataset import Card, GazeDataset
    from gazebench.metrics.protocol import Protocol

    return GazeDataset, {"card": Card, "protocol": Protocol, "version": int}


def _class_in(kind: Kind, module: ModuleType, name: str) -> type:
    """The one public class of a module, or of a package's ``__init__``."""
    base, _ = _base(kind)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and not value.__name__.startswith("_")
    ]
    whole = [found for found in own if not inspect.isabstract(found)]
    if len(whole) != 1 and len(own) != 1:
        has = ", ".join(found.__name__ for found in own) or "none"
        raise PluginError(
            f"{kind[:-1]} {name!r}: {module.__file__} must define exactly one public subclass of "
            f"{base.__module__}.{base.__name__}; it has {has} (begin the names of helpers with an underscore)"
        )
    return _checked(kind, (whole or own)[0], f"{name!r} ({module.__file__})")


def _checked(kind: Kind, value: Any, what: str) -> Any:
    base, declared = _base(kind)
    if not (inspect.isclass(value) and issubclass(value, base)):
        raise PluginError(f"{kind[:-1]} {what} is {value!r}, not a subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(value):
        lacks = ", ".join(f"{name}()" for name in sorted(getattr(value, "__abstractmethods__", ())))
        raise PluginError(f"{kind[:-1]} {what}: the class {value.__name__} lacks {lacks}")
    for name, wanted in declared.items():
        if not isinstance(getattr(value, name, None), wanted):
            got = f"it is {getattr(value, name)!r}" if hasattr(value, name) else "there is none"
            raise PluginError(
                f"{kind[:-1]} {what}: the class {value.__name__} needs `{name}`, a {wanted.__name__} "
                f"({wanted.__module__}), as docs/plugins.md shows; {got}"
            )
    if kind == "methods":
        from gazebench.engine.method import Capability

        known = get_args(Capability)
        declares: frozenset[Any] = getattr(value, "capabilities", frozenset())
        unknown = sorted(str(capability) for capability in declares if capability not in known)
        if unknown:
            raise PluginError(
                f"{kind[:-1]} {what} declares the capability {', '.join(unknown)}; there are {', '.join(known)}"
            )
    return value
