"""For all tests: waiting threads sleep, and parsed annotations are kept apart from the user's; fresh environments."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import json
import multiprocessing
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.core import TyperCommand

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
def save_vlm() -> Callable[..., Path]:
    """Writes a small Qwen3-VL with random weights to a folder; the settings are those of ``random_vlm``."""

    def save(folder: Path, **settings: Any) -> Path:
        from gazebench.datasets.gazeworld.models import random_vlm

        for part in random_vlm(**settings):
            part.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def chat_server() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Starts a server of the model ``tiny``; gives its address, and the last text of each request as it arrives.

    It is given a function from that text to an answer, or to a status and a message where it refuses.
    """
    servers = []

    def start(say: Callable[[str], str | tuple[int, str]]) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                content = body["messages"][-1]["content"]
                asked.append(content if isinstance(content, str) else content[-1]["text"])
                said = say(asked[-1])
                if isinstance(said, tuple):
                    self.reply(said[0], {"error": {"message": said[1]}})
                else:
                    message = {"role": "assistant", "content": said}
                    self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

            def reply(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def places(tmp_path) -> Any:
    """Folders of runs and of boards."""
    from gazebench.engine.run import Places

    return Places(tmp_path / "runs", tmp_path / "boards")


@pytest.fixture
def asked(monkeypatch) -> list[Any]:
    """The contexts of commands that would have run after their command line was read; none does."""
    seen: list[Any] = []
    monkeypatch.setattr(TyperCommand, "invoke", lambda self, context: seen.append(context))
    return seen


@pytest.fixture(scope="session")
def forked() -> Callable[[str], BaseProcess]:
    """Runs code in a process, forked from one that has imported everything: that takes longest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gazebench.engine.run", "gazebench.report.run", "gazebench.nn.qwen3vl", "timm"])

    def start(code: str) -> BaseProcess:
        process = context.Process(target=exec, args=(f"import torch\ntorch.set_num_threads(1)\n{code}", {}))
        process.start()
        return process

    return start


STARTED = """
import os, sys
os.environ.update({environment!r})
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)
from gazebench.cli import main
sys.argv = [main.__file__, *{arguments!r}]  # which Lightning starts further processes by
sys.exit(main.main({arguments!r}))
"""


@pytest.fixture(scope="session")
def started(forked) -> Callable[..., BaseProcess]:
    """Starts ``gazebench ARGUMENTS`` as a process of its own."""

    def start(log: Path, *arguments: str, **environment: str) -> BaseProcess:
        return forked(STARTED.format(environment=environment, log=str(log), arguments=list(arguments)))

    return start


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts a distribution on the path as an installer would: its modules and its metadata."""
    site = tmp_path / "site"
    site.mkdir()
    before = set(sys.modules)

    def add(name: str, points: dict[str, dict[str, str]], modules: dict[str, str], version: str = "0.1.0") -> None:
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text, encoding="utf-8")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))  # importlib forgets what it knew of the folder

    yield add
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(site)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package as a wheel, built once for all workers."""
    shared = os.environ.get("PYTEST_XDIST_WORKER") is not None
    folder = (tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.getbasetemp()) / "wheel"
    with FileLock(f"{folder}.lock"):
        return next(folder.glob("*.whl"), None) or built(folder)


def built(folder: Path) -> Path:
    """A wheel, offline, of a copy of the files that git knows or may come to know."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if name.split("/")[0] in PACKAGED and (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder]
    done = subprocess.run([*command, folder / "source"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))
