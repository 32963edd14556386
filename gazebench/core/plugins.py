"""What folders offer (the merge takes the full version)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def embedded(kind: str) -> dict[str, Callable[..., Any]]:
    """Builders of embedded models by name: the dictionaries ``BACKBONES`` or ``VLMS`` of ``datasets/*/models.py``."""
    found: dict[str, Callable[..., Any]] = {}
    for folder in importlib.import_module("gazebench.datasets").__path__:
        for file in sorted(Path(folder).glob("*/models.py")):
            found |= getattr(importlib.import_module(f"gazebench.datasets.{file.parent.name}.models"), kind, {})
    return found
