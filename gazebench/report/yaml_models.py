"""YAML files with a schema; errors name the file, the place in it and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from gazebench.core.errors import DataError

Text = Annotated[str, StringConstraints(min_length=1)]


class Model(BaseModel):
    """Immutable, and takes no field it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=Model)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times as fast in C
    """Takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(problem=f"key {twice[0]!r} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


class _TextLoader(_Loader):
    """Leaves numbers as they are written, so that 0.1040 keeps its zero."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read(path: Path | Traversable, model: type[M], context: Any = None, *, numbers: bool = True) -> M:
    """Reads a file.

    Args:
        path: the file.
        model: its schema.
        context: what the validators of the schema need.
        numbers: whether unquoted numbers are numbers; otherwise they are texts, to the digit.

    Raises:
        DataError: names the file and the place in it.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Loader if numbers else _TextLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    try:
        return model.model_validate(given, context=context)
    except ValidationError as error:
        # A misspelt key is unknown, and the right one missing: the former says more.
        found = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            message = "unknown field"
        raise DataError(f"{path}: {_place(given, found['loc'])}: {message}") from error


def _place(given: Any, steps: Iterable[int | str]) -> str:
    """The way to an entry in words; members of lists by their id or title, or counted from 1."""
    words = []
    for step in steps:
        inside = (isinstance(given, list) and isinstance(step, int)) or (isinstance(given, dict) and step in given)
        given = given[step] if inside else None
        named = given if isinstance(given, dict) and isinstance(step, int) else {}
        name = named.get("id") or named.get("title") or named.get("text")
        words.append(repr(name) if name else str(step + 1) if isinstance(step, int) else step)
    return " ".join(words) or "top level"


def known(what: str, name: str, among: Iterable[str]) -> str:
    """The name, if it is one of those.

    Raises:
        ValueError: names what there is.
    """
    names = list(among)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no {what} {name!r}; {hint}there are {', '.join(names)}")
    return name
