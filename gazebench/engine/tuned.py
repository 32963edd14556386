"""Values of recipes that ``gazebench tune`` has chosen on validation: a table beside the methods.

An entry holds for a method on a data set where the settings in ``when`` have those values; of several that hold, the
one with most of them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gazebench.core.files import write_atomically
from gazebench.engine.method import Method, Recipe, chosen, our_choice

TUNED = Path(__file__).with_name("tuned.json")


@dataclass(frozen=True)
class Tuned:
    """The chosen values of one row.

    Attributes:
        when: constructor arguments of the method and the values that they must have.
        values: settings by dotted name.
        trials: how many the choice is from.
        study: the folder that has them all.
    """

    method: str
    dataset: str
    when: Mapping[str, Any]
    values: Mapping[str, Any]
    trials: int
    study: str

    @staticmethod
    def read(path: Path = TUNED) -> list[Tuned]:
        return [Tuned(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []

    @staticmethod
    def write(path: Path, entries: Sequence[Tuned]) -> None:
        rows = sorted(map(asdict, entries), key=lambda entry: json.dumps(entry, sort_keys=True))
        write_atomically(path, json.dumps(rows, indent=1, sort_keys=True) + "\n")
        _table.cache_clear()


@cache
def _table() -> list[Tuned]:
    return Tuned.read()


def recipe_of(name: str, method: type[Method], dataset: str, model: Mapping[str, Any]) -> Recipe:
    """A method's recipe for a data set with the chosen values in it.

    Args:
        name: of the method.
        method: its class.
        dataset: name of the data set.
        model: constructor arguments that the user gave.
    """
    recipe = method.recipe(dataset, model)
    of_method = [entry for entry in _table() if (entry.method, entry.dataset) == (name, dataset)]
    if not of_method:
        return recipe
    defaults = _defaults(method)

    def holds(entry: Tuned) -> bool:
        return all(_value(recipe, model, defaults, setting) == value for setting, value in entry.when.items())

    fitting = [entry for entry in of_method if holds(entry)]
    if not fitting:
        return recipe
    best = max(fitting, key=lambda entry: len(entry.when))
    why = f"chosen on validation by {best.trials} trials ({best.study})"
    return {**recipe, **our_choice(why, **{name.replace(".", "__"): value for name, value in best.values.items()})}


def _value(recipe: Recipe, model: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> Any:
    found = f"model.{name}" in recipe or name in model
    return chosen(recipe, model, name) if found else defaults.get(name)


def _defaults(method: type[Method]) -> dict[str, Any]:
    """The constructor's defaults, those of base classes that take its further arguments included."""
    found: dict[str, Any] = {}
    for cls in reversed(method.__mro__):
        if "__init__" in vars(cls) and issubclass(cls, Method):
            parameters = inspect.signature(cls.__init__).parameters.values()
            found |= {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return found
