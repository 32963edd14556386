"""gazebench: gaze-following methods behind one interface, on the same data, scored by the same protocol."""

from pathlib import Path

from gazebench._version import __version__

# In a checkout the folders methods/, datasets/ and splits/ stand beside this package; an installed wheel has
# them inside it. Extending the search path (never sys.path) serves both without shadowing `datasets`.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "methods").is_dir():
    __path__.append(str(_ROOT))

__all__ = ["__version__"]
