"""Runs each in a process of its own, several at a time, so that a failure stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

GRACE_SECONDS = 15.0
"""What an interrupted run has to end by itself; it loses no more than its current epoch either way."""

announce = partial(print, flush=True)
"""Hours may pass between two lines, so none waits in a buffer."""


@dataclass(frozen=True)
class Task:
    """A run to be made.

    Attributes:
        name: for messages.
        arguments: of ``gazebench``.
        log: takes what the process prints.
        result: a file that is there when the run went well.
        pinned: whether it gets one GPU; others take theirs by themselves.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    result: Path
    pinned: bool = True


@dataclass
class _Process:
    task: Task
    process: subprocess.Popen[bytes]
    device: str = ""
    begun: float = field(default_factory=time.monotonic)


def devices() -> list[str]:
    """The GPUs that runs are dealt out to, by what ``CUDA_VISIBLE_DEVICES`` calls them; none on a processor."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index in range(torch.cuda.device_count())]


def command(task: Task) -> list[str]:
    """The process of a run; tests replace it."""
    return [sys.executable, "-m", "gazebench.cli.main", *task.arguments]


def execute(tasks: Sequence[Task], *, jobs: int, finished: Callable[[Task, float], str]) -> list[Task]:
    """Carries out all tasks, ``jobs`` at a time; returns those that failed.

    Where there are several GPUs, each run gets the one that the fewest others use.

    Args:
        tasks: in the order they begin.
        jobs: how many run at a time.
        finished: called with each task that went well and the seconds it took, at once; says what came out.

    Raises:
        KeyboardInterrupt: after the processes of all runs were stopped.
    """
    queue, active, failed, done = deque(tasks), list[_Process](), list[Task](), 0
    environment, gpus = shared_environment(jobs), devices()
    # SIGTERM to the study must stop its runs too, as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while queue or active:
            while queue and len(active) < jobs:
                used = [child.device for child in active]
                device = min(gpus, key=used.count) if len(gpus) > 1 and queue[0].pinned else ""
                active.append(_start(queue.popleft(), environment, device))
                announce(f"  {active[-1].task.name} runs ({active[-1].task.log})")
            time.sleep(0.05)
            for child in [child for child in active if child.process.poll() is not None]:
                active.remove(child)
                done += 1
                task, code = child.task, child.process.returncode
                where = f"[{done}/{len(tasks)}] {task.name}"
                if code or not task.result.is_file():
                    failed.append(task)
                    announce(f"{where} FAILED with exit code {code}:\n{tail(task.log)}")
                else:
                    announce(f"{where} done, {finished(task, time.monotonic() - child.begun)}")
    except BaseException:
        announce("stopping ...")
        _stop(active)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return failed


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented; of a progress bar only its last state."""
    text = log.read_text(encoding="utf-8", errors="replace")
    shown = [line.rsplit("\r", 1)[-1].rstrip() for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    return "\n".join(f"    {line}" for line in shown[-lines:])


def shared_environment(jobs: int) -> dict[str, str]:
    """The processor's cores shared out evenly; a number that the caller has set stays."""
    # Where there are no affinities (not on Linux), all cores are counted.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"OMP_NUM_THREADS": str(max(1, cores // jobs)), "OMP_WAIT_POLICY": "passive"}
    return shared | os.environ | {"PYTHONSAFEPATH": "1"}


def _start(task: Task, environment: Mapping[str, str], device: str) -> _Process:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    pinned = {"CUDA_VISIBLE_DEVICES": device} if device else {}
    with task.log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the whole group in order.
        process = subprocess.Popen(
            command(task), env={**environment, **pinned}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return _Process(task, process, device)


def _stop(active: Sequence[_Process]) -> None:
    """Asks all processes to end, and ends those that do not."""
    for gently, wait in ((True, GRACE_SECONDS), (False, 5.0)):
        for child in active:
            if child.process.poll() is not None:
                continue
            if sys.platform == "win32":  # it has neither groups of processes nor an interrupt for one of them
                child.process.kill()
            else:
                os.killpg(child.process.pid, signal.SIGINT if gently else signal.SIGKILL)
        deadline = time.monotonic() + wait
        for child in active:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
