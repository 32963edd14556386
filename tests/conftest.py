"""For all tests: waiting threads sleep, and parsed annotations are kept apart from the user's; fresh environments."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = {
    "gazebench", "methods", "datasets", "splits", "leaderboards", "pyproject.toml", "setup.py", "README.md", "LICENSE",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    before = os.environ.get("GAZEBENCH_CACHE")
    os.environ["GAZEBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GAZEBENCH_CACHE"]
    else:
        os.environ["GAZEBENCH_CACHE"] = before


@pytest.fixture(scope="session")
def bare() -> Callable[[Path], tuple[Path, Path]]:
    """Makes an environment that borrows this one's packages, but not its editable install; python, site-packages."""

    def make(folder: Path) -> tuple[Path, Path]:
        venv.create(folder, with_pip=False)
        packages = next(folder.glob("lib/python*/site-packages"))
        borrowed = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")  # its own .pth files do not run
        return folder / "bin" / "python", packages

    return make


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package as a wheel, built offline from a copy of the files that git knows or may come to know."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if name.split("/")[0] in PACKAGED and (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder]
    built = subprocess.run([*command, folder / "source"], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))
