"""What the folders of data sets offer to the rest of the suite."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def embedded(kind: str) -> dict[str, Callable[[], Any]]:
    """The builders of embedded models by name, from the dict ``kind`` of every ``models.py`` in a data set's folder."""
    datasets = importlib.import_module("gazebench.datasets")
    found: dict[str, Callable[[], Any]] = {}
    for file in sorted(file for folder in datasets.__path__ for file in Path(folder).glob("*/models.py")):
        found |= getattr(importlib.import_module(f"gazebench.datasets.{file.parent.name}.models"), kind, {})
    return found
