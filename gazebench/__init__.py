"""gazebench: gaze-following methods behind one interface, on the same data, scored by the same protocol."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazebench._version import __version__

if TYPE_CHECKING:
    from gazebench.engine.model import load

# In a checkout the folders methods/, datasets/ and splits/ stand beside this package; an installed wheel has
# them inside it. Extending the search path (never sys.path) serves both without shadowing `datasets`.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "methods").is_dir():
    __path__.append(str(_ROOT))

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """``gazebench.load``; torch and Lightning, which it needs, are imported when it is first asked for."""
    if name == "load":
        from gazebench.engine.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
