"""Packages that only some commands need."""

from __future__ import annotations

import importlib
from typing import Any

from gazebench.core.errors import UserError


def needs(module: str, extra: str) -> Any:
    """Imports a module of an optional dependency.

    Raises:
        UserError: it is not installed; says in one line what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"this needs the package {module}: pip install 'gazebench[{extra}]'") from error
