"""Runs what a study has not recorded yet, each run in a process of its own, so that a failure stops no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from gazebench.engine.config import Config
from gazebench.engine.run import Places
from gazebench.study.measured import seconds_by_row
from gazebench.study.plan import Plan, Run
from gazebench.study.store import Store

GRACE_SECONDS = 15.0
"""What an interrupted run has to end by itself; it loses no more than its current epoch either way."""

Say = Callable[[str], None]
SAY: Say = partial(print, flush=True)
"""Hours may pass between two lines, so none waits in a buffer."""


@dataclass(frozen=True)
class State:
    """Where a run stands: ``why`` it must run, empty when a recorded result stands for it."""

    run: Run
    why: str
    commit: str = ""


class Fingerprints:
    """What data a configuration reads, looked at only once for all runs of a study."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str | None]] = {}

    def match(self, config: Config, stored: Mapping[str, str | None]) -> bool:
        """Whether a stored run was measured, and trained if at all, on the data that lie there now."""
        settings = config.values["dataset"]
        known = self._known.setdefault(json.dumps([config.dataset_name, settings], sort_keys=True), {})
        dataset = config.dataset(**settings)
        if "test" not in known:
            identity = dataset.identity("test")
            known |= {"test": identity["fingerprint"], "subsets": identity["subsets"]}
        if stored["train"] is not None and "train" not in known:
            known["train"] = dataset.identity("trainval")["fingerprint"]
        return all(known[name] == value for name, value in stored.items() if value is not None or name == "subsets")


def states(plan: Plan, store: Store, *, again: bool = False) -> list[State]:
    """Resolves every run of the plan and says which of them must still run.

    A recorded result stands for a run of the same settings on the same data, whatever code made it.

    Raises:
        DataError: a mistake in the plan; the data cannot be read.
    """
    configs = {run: plan.config(run) for run in plan.runs}  # every mistake before anything else
    stored, fingerprints, found = store.results(), Fingerprints(), []
    for run, config in configs.items():
        entry = stored.get((run.row, run.seed))
        commit = (entry or {}).get("commit") or ""
        if entry is None:
            why = "not recorded"
        elif again:
            why = "recorded, to be trained anew"
        elif entry["digest"] != config.digest():
            why = "recorded with other settings"
        elif not fingerprints.match(config, entry["data"]):
            why = "recorded on other data"
        else:
            why = ""
            store.readdress(run)
        found.append(State(run, why, commit))
    return found


def remaining_seconds(
    todo: Sequence[Run], store: Store, jobs: int, board: Mapping[str, float] | None = None
) -> float | None:
    """How long these runs will take, judged by the recorded ones; None when there are none.

    Args:
        todo: what is to be run.
        store: of the study.
        jobs: at a time.
        board: by row, what runs like it took elsewhere.
    """
    by_row = {**(board or {}), **seconds_by_row(store.results())}
    if not by_row:
        return None
    usual = sum(by_row.values()) / len(by_row)
    return sum(by_row.get(run.row, usual) for run in todo) / max(1, min(jobs, len(todo)))


def devices() -> list[str]:
    """The GPUs that runs are dealt out to, by what ``CUDA_VISIBLE_DEVICES`` calls them; none on a processor."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index in range(torch.cuda.device_count())]


@dataclass
class Failure:
    """A run that ended without a result."""

    run: Run
    code: int
    log: Path


@dataclass
class _Process:
    run: Run
    process: subprocess.Popen[bytes]
    answer: Path
    log: Path
    file: TextIO
    device: str = ""
    begun: float = field(default_factory=time.monotonic)


def command(plan: Plan, run: Run, places: Places, answer: Path) -> list[str]:
    """The process of a run; tests put another one here."""
    arguments = [*run.arguments, *plan.extra, f"--seed={run.seed}"]
    return [
        sys.executable,
        "-m",
        "gazebench.study.child",
        str(answer),
        str(places.runs),
        str(places.boards),
        *arguments,
    ]


def execute(
    plan: Plan,
    todo: Sequence[Run],
    store: Store,
    places: Places,
    *,
    jobs: int = 1,
    say: Say = SAY,
    finished: Callable[[], None] = lambda: None,
) -> list[Failure]:
    """Runs all of ``todo``, ``jobs`` at a time, and stores each result at once; returns what failed.

    Where there are several GPUs, each run gets the one that the fewest others use.

    Raises:
        KeyboardInterrupt: after the processes of all runs were stopped; what is stored stays.
    """
    queue, active, failures, done = deque(todo), list[_Process](), list[Failure](), 0
    environment, gpus = _environment(jobs), devices()
    logs = places.runs / "study-logs" / store.folder.name
    logs.mkdir(parents=True, exist_ok=True)
    with _terminated_is_interrupted():
        try:
            while queue or active:
                while queue and len(active) < jobs:
                    run = queue.popleft()
                    device = _least_used(gpus, active) if _one_device(plan, run) else ""
                    active.append(_start(plan, run, places, logs, environment, device))
                    say(f"  {active[-1].run} runs ({active[-1].log})")
                time.sleep(0.05)
                for child in [child for child in active if child.process.poll() is not None]:
                    active.remove(child)
                    child.file.close()
                    done += 1
                    where = f"[{done}/{len(todo)}] {child.run}"
                    record = _record(child)
                    if record is None:
                        failures.append(Failure(child.run, child.process.returncode, child.log))
                        say(f"{where} FAILED with exit code {child.process.returncode}:\n{tail(child.log)}")
                        continue
                    seconds = _keep(plan, child, record, store)
                    say(f"{where} done, {duration(seconds)}; {_headline(plan, record)}")
                    finished()
        except BaseException:
            say("stopping ...")
            _stop(active)
            raise
    return failures


def duration(seconds: float) -> str:
    """For people: ``48 s``, ``12 min``, ``2 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented; of a progress bar only its last state."""
    text = log.read_text(encoding="utf-8", errors="replace")
    shown = [line.rsplit("\r", 1)[-1].rstrip() for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    return "\n".join(f"    {line}" for line in shown[-lines:])


def _environment(jobs: int) -> dict[str, str]:
    """The processor's cores shared out evenly; a number that the caller has set stays."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    shared = {"OMP_NUM_THREADS": str(max(1, cores // jobs)), "OMP_WAIT_POLICY": "passive"}
    return shared | os.environ | {"PYTHONSAFEPATH": "1"}


def _one_device(plan: Plan, run: Run) -> bool:
    """Whether a run keeps to one device; others take theirs by themselves."""
    return str(plan.config(run).values["trainer"]["devices"]) in ("auto", "1")


def _least_used(gpus: Sequence[str], active: Sequence[_Process]) -> str:
    used = [child.device for child in active]
    return min(gpus, key=used.count) if len(gpus) > 1 else ""


def _start(
    plan: Plan, run: Run, places: Places, logs: Path, environment: Mapping[str, str], device: str = ""
) -> _Process:
    answer, log = logs / f"{run.row}-{run.seed}.json", logs / f"{run.row}-{run.seed}.log"
    answer.unlink(missing_ok=True)
    file = log.open("w", encoding="utf-8")
    pinned = {"CUDA_VISIBLE_DEVICES": device} if device else {}
    # A session of its own: Ctrl-C reaches this process alone, which then stops the whole group in order.
    process = subprocess.Popen(
        command(plan, run, places, answer), env={**environment, **pinned}, stdin=subprocess.DEVNULL, stdout=file,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    return _Process(run, process, answer, log, file, device)


def _record(child: _Process) -> dict[str, Any] | None:
    """The record of a run that went well; the answer comes last, so what is said after it cannot undo the run."""
    if not child.answer.is_file():
        return None
    folder = Path(json.loads(child.answer.read_text(encoding="utf-8"))["folder"])
    record: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return record | {"folder": folder}


def _keep(plan: Plan, child: _Process, record: dict[str, Any], store: Store) -> float:
    """Stores a result; returns the seconds the run took, those before an interruption included."""
    folder = record.pop("folder")
    seconds = max(time.monotonic() - child.begun, sum(record["wall_seconds"].values()))
    store.add(
        child.run, record, digest=plan.config(child.run).digest(), seconds=seconds,
        predictions=folder / "predictions.parquet",
    )  # fmt: skip
    child.answer.unlink()
    return seconds


def _headline(plan: Plan, record: Mapping[str, Any]) -> str:
    use = plan.protocol.use(plan.protocol.headline)
    scores = record["metrics"].get(use.name, {})
    return f"{use.name} " + ", ".join(f"{subset} {score['value']:.{use.digits}f}" for subset, score in scores.items())


def _stop(active: Sequence[_Process]) -> None:
    """Asks all processes to end, and ends those that do not."""
    for number, wait in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        for child in active:
            if child.process.poll() is None:
                os.killpg(child.process.pid, number)
        deadline = time.monotonic() + wait
        for child in active:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    for child in active:
        child.file.close()


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM to the study must stop its runs too, as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
