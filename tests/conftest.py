"""For all tests: one thread a process, and parsed annotations kept apart from the user's; fresh environments."""

import os

# Before torch is imported. One thread: sums then have the same digits in every process, and workers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["OMP_NUM_THREADS"] = "1"

import asyncio
import contextlib
import json
import multiprocessing
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.core import TyperCommand

# `make test ARGS=...` would hand its own variables on to every `make -n` of a test.
for name in ("MAKEFLAGS", "MFLAGS", "ARGS"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = {
    "gazebench", "methods", "datasets", "splits", "leaderboards", "pyproject.toml", "setup.py", "README.md", "LICENSE",
}  # fmt: skip


def shared_folder(tmp_path_factory) -> Path:
    """The same for all workers of pytest-xdist."""
    folder: Path = tmp_path_factory.getbasetemp()
    return folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GAZEBENCH_CACHE", str(shared_folder(tmp_path_factory) / "cache"))
        patched.setenv("GAZEBENCH_CONFIG", str(shared_folder(tmp_path_factory) / "config"))
        yield


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


class FaultyServer:
    """A server of the model ``tiny`` that acts by a script.

    The script gets the key (the last text of a request) and how often it was asked, from 1. It gives the ``body`` of
    the response, and where they are others its ``status``, ``mime`` and ``headers``, the seconds of ``delay`` before
    it, and how many bytes of it are ``sent`` before the connection is lost.
    """

    def __init__(self, script: Callable[[str, int], dict[str, Any]]) -> None:
        self.script = script
        self.models = {"body": b'{"object": "list", "data": [{"id": "tiny", "object": "model"}]}'}
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.busy = self.most = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._talk, "127.0.0.1", 0), self._loop
        ).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                act, key = self._act(head, await reader.readexactly(length))
                self.busy += 1
                self.most = max(self.most, self.busy)
                try:
                    await asyncio.sleep(act.get("delay", 0))
                finally:
                    self.busy -= 1
                self.answered.append(key)
                writer.write(self._response(**act))
                await writer.drain()
                if act.get("sent") is not None:
                    break
        self._tasks.discard(asyncio.current_task())
        writer.close()

    def _act(self, head: str, body: bytes) -> tuple[dict[str, Any], str]:
        self.heads.append(head)
        if head.startswith("get"):
            return self.models, ""
        request = json.loads(body)
        content = request["messages"][-1]["content"]
        key = content if isinstance(content, str) else content[-1]["text"]
        self.asked.append(key)
        self.bodies.append(request)
        return self.script(key, self.asked.count(key)), key

    @staticmethod
    def _response(
        body: bytes, status: int = 200, mime: str = "application/json", headers: dict[str, str] | None = None,
        sent: int | None = None, delay: float = 0.0,
    ) -> bytes:  # fmt: skip
        lines = [f"HTTP/1.1 {status} X", f"content-type: {mime}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return ("\r\n".join([*lines, "", ""]).encode() + body)[:sent]

    def stop(self) -> None:
        """Dies: no connection is left, and none is taken any more."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def chat_servers() -> Iterator[Callable[..., FaultyServer]]:
    """Starts servers that act by a script."""
    servers = []
    yield lambda script: servers.append(FaultyServer(script)) or servers[-1]
    for server in servers:
        server.stop()


@pytest.fixture
def chat_server(chat_servers) -> Callable[..., tuple[str, list[str]]]:
    """Starts a server of the model ``tiny``; gives its address, and the last text of each request as it arrives.

    It is given a function from that text to an answer, or to a status and a message where it refuses.
    """

    def start(say: Callable[[str], str | tuple[int, str]]) -> tuple[str, list[str]]:
        def act(text: str, _: int) -> dict[str, Any]:
            said = say(text)
            if isinstance(said, tuple):
                return {"status": said[0], "body": json.dumps({"error": {"message": said[1]}}).encode()}
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            return {"body": json.dumps({"choices": [choice]}).encode()}

        server = chat_servers(act)
        return server.url, server.asked

    return start


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
        process = context.Process(target=exec, args=(code, {}))
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
    folder = shared_folder(tmp_path_factory) / "wheel"
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
