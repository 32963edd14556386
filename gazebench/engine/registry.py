"""Finds methods and datasets by name: files of the two folders, entry points of plug-ins, or a path.

Nothing is imported to list; one name imports one module. A broken plug-in is named and passed over (docs/plugins.md).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

import gazebench
from gazebench.core.errors import UserError

if TYPE_CHECKING:  # they import torch and Lightning: seconds that listing names need not take
    from gazebench.data.dataset import GazeDataset
    from gazebench.engine.method import Method

Kind = Literal["methods", "datasets"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RegistryError(UserError, LookupError):
    """A name that is not there, or a plug-in that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be named.

    Attributes:
        name: as given on the command line.
        target: the module (or ``module:Class`` of an entry point, or a file).
        origin: ``gazebench`` or the distribution that brings it.
        version: of that distribution.
    """

    name: str
    target: str
    origin: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.target} of {self.origin})"

    @property
    def ours(self) -> bool:
        """Whether it is part of this package rather than a plug-in's."""
        return self.origin == "gazebench"


def entries(kind: Kind) -> dict[str, Entry]:
    """All names of a kind; ours win over a plug-in of the same name."""
    return {name: claims[0] for name, claims in _claims(kind).items()}


def _claims(kind: Kind) -> dict[str, list[Entry]]:
    """Who says to bring which name, by name: ours first, then plug-ins in the order of their names."""
    package = importlib.import_module(f"gazebench.{kind}")
    ours = [
        Entry(module.name, f"gazebench.{kind}.{module.name}", "gazebench", gazebench.__version__)
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    ]
    theirs = {
        Entry(point.name, point.value, *((point.dist.name, point.dist.version) if point.dist else ("a plug-in", "")))
        for point in entry_points(group=f"gazebench.{kind}")
    }
    found: dict[str, list[Entry]] = {}
    for entry in [*ours, *sorted(theirs, key=lambda entry: (entry.origin, entry.target))]:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


def load(kind: Kind, name: str) -> type:
    """The class of that name; ``name`` may also be the path of a Python file.

    Raises:
        RegistryError: unknown name (with the nearest ones), one that two plug-ins claim, broken module, or no class of
            the right base in it.
    """
    if is_file(name):
        return _from_module(kind, _module_of_file(Path(name)), name)
    found = _claims(kind)
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(found)}"
        raise RegistryError(f"no {kind[:-1]} is called {name!r}; {hint} (a file also works: path/to/my_{kind[:-1]}.py)")
    entry, *others = found[name]
    if entry.ours:
        return _from_module(kind, _imported(kind, entry), name)
    if others:
        raise RegistryError(
            f"{len(others) + 1} plug-ins bring a {kind[:-1]} called {name!r}: "
            f"{', '.join(f'{claim.target} of {claim.origin}' for claim in (entry, *others))}; "
            "uninstall all but one, or rename an entry point"
        )
    loaded = _imported(kind, entry)
    if isinstance(loaded, ModuleType):
        return _from_module(kind, loaded, name)
    return _checked(kind, loaded, str(entry))


def _imported(kind: Kind, entry: Entry) -> Any:
    """What an entry's target is.

    Raises:
        RegistryError: whatever the import raised: of a plug-in anything may come, ``sys.exit()`` too.
    """
    try:
        return EntryPoint(entry.name, entry.target, f"gazebench.{kind}").load()
    except (Exception, SystemExit) as error:
        remedy = "" if entry.ours else f"; mend the plug-in, or uninstall {entry.origin}"
        raise RegistryError(f"{kind[:-1]} {entry} cannot be imported: {_told(error)}{remedy}") from error


def load_method(name: str) -> type[Method]:
    """The method class of that name or path."""
    return load("methods", name)


def load_dataset(name: str) -> type[GazeDataset]:
    """The dataset class of that name or path."""
    return load("datasets", name)


def usable(kind: Kind) -> Iterator[tuple[Entry, type | RegistryError]]:
    """Every entry with its class, or with what is wrong with it; a plug-in behind a name of ours is among them."""
    for name, (entry, *others) in _claims(kind).items():
        try:
            yield entry, load(kind, name)
        except RegistryError as error:
            yield entry, error
        if entry.ours:
            for other in others:
                yield other, RegistryError(f"{kind[:-1]} {other}: gazebench has one itself; rename the entry point")


def name_of(kind: Kind, name_or_path: str) -> str:
    """The name results are filed under: a path's stem, otherwise the name itself."""
    return Path(name_or_path).stem if name_or_path.endswith(".py") else name_or_path


def is_file(name_or_path: str) -> bool:
    """Whether it is the path of a file rather than a name."""
    return name_or_path.endswith(".py") or "/" in name_or_path


def origin_of(kind: Kind, name_or_path: str) -> str:
    """Who brings it, as records say it: a distribution with its version, or a file's name."""
    if is_file(name_or_path):
        return f"file {Path(name_or_path).name}"
    entry = entries(kind)[name_or_path]
    return f"{entry.origin} {entry.version}".strip()


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
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RegistryError(f"{path} cannot be imported: {_told(error)}") from error
    return module


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _base(kind: Kind) -> tuple[type, dict[str, type]]:
    """What every class of a kind extends, and what everybody who lists or names one relies on."""
    if kind == "methods":
        from gazebench.engine.method import Method, MethodCard

        return Method, {"card": MethodCard, "capabilities": frozenset, "published": Mapping}
    from gazebench.data.dataset import Card, GazeDataset
    from gazebench.metrics.protocol import Protocol

    return GazeDataset, {"card": Card, "protocol": Protocol}


def _from_module(kind: Kind, module: ModuleType, name: str) -> type:
    base, _ = _base(kind)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and (value.__module__ == module.__name__ or value.__module__.startswith(f"{module.__name__}."))
        and not value.__name__.startswith("_")
    ]
    whole = [found for found in own if not inspect.isabstract(found)]
    if len(whole) != 1 and len(own) != 1:
        has = ", ".join(found.__name__ for found in own) or "none"
        raise RegistryError(
            f"{kind[:-1]} {name!r}: {module.__file__} must define exactly one public subclass of "
            f"{base.__module__}.{base.__name__}; it has {has} (helpers: begin their names with an underscore)"
        )
    return _checked(kind, (whole or own)[0], f"{name!r} ({module.__file__})")


def _checked(kind: Kind, value: Any, what: str) -> type:
    from gazebench.engine.method import Capability

    base, declared = _base(kind)
    if not (inspect.isclass(value) and issubclass(value, base)):
        raise RegistryError(f"{kind[:-1]} {what} is {value!r}, not a subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(value):
        lacks = ", ".join(f"{name}()" for name in sorted(getattr(value, "__abstractmethods__", ())))
        raise RegistryError(f"{kind[:-1]} {what}: the class {value.__name__} lacks {lacks}")
    for name, wanted in declared.items():
        if not isinstance(getattr(value, name, None), wanted):
            got = f"it is {getattr(value, name)!r}" if hasattr(value, name) else "there is none"
            raise RegistryError(
                f"{kind[:-1]} {what}: the class {value.__name__} needs `{name}`, a {wanted.__name__} "
                f"({wanted.__module__}), as docs/plugins.md shows; {got}"
            )
    known = get_args(Capability)
    unknown = sorted(str(capability) for capability in getattr(value, "capabilities", ()) if capability not in known)
    if unknown:
        raise RegistryError(
            f"{kind[:-1]} {what} declares the capability {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return value
