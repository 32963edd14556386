"""A study from its plan to its page: what is recorded stands, what is missing runs, and everything is drawn anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from gazebench.core.errors import DataError, UserError
from gazebench.engine.config import Config, settings_digest
from gazebench.engine.record import read_records
from gazebench.engine.run import BOARDS, Places, prepare, run_id
from gazebench.report.page import write
from gazebench.study import page
from gazebench.study.figures import draw_figures, gather_heatmaps
from gazebench.study.plan import Plan, PlannedRun, read_plan
from gazebench.study.processes import Task, devices, execute
from gazebench.study.store import Store
from gazebench.study.summary import Summary


@dataclass(frozen=True)
class RunState:
    """Where a run of the plan stands.

    Attributes:
        config: its settings.
        identity: what decides its numbers: ``engine.run.Run.decides``, and a digest of the settings.
        id: the id that ``gazebench bench`` gives it.
        former: the id it has without ``data_full``, which records of before do not know; they still stand for it.
        entry: what is recorded of this row and seed; empty when nothing is.
        again: whether it is to run although it is recorded.
    """

    run: PlannedRun
    config: Config
    identity: Mapping[str, Any]
    id: str
    former: str
    entry: Mapping[str, Any]
    again: bool = False

    @property
    def why(self) -> str:
        """Why it must run; empty when the recorded result stands for it."""
        if not self.entry:
            return "not recorded"
        if self.entry["id"] not in (self.id, self.former):
            before, now = self.entry["identity"], self.identity
            other = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
            return f"recorded with other {' and '.join(other)}"
        return "recorded, to be trained anew" if self.again else ""

    @property
    def folder(self) -> str:
        """The run's folder below ``Places.runs``."""
        return f"{self.config.dataset.name}/{self.config.method.name}/{self.id}"


@dataclass(frozen=True)
class Study:
    """A plan, what is stored of it, and where its runs go."""

    plan: Plan
    store: Store
    places: Places

    @classmethod
    def open(
        cls, file: Path, places: Places, *, quick: bool = False, extra: Sequence[str] = (), out: Path | None = None
    ) -> Study:
        """Reads a plan.

        Args:
            file: the plan.
            places: where runs and records go.
            quick: the small study of the plan.
            extra: settings of every run, ``--group.name=value``.
            out: folder of results and page; named after the plan where not given.

        Raises:
            DataError: a mistake in the plan.
        """
        plan = read_plan(file, quick=quick, extra=extra)
        out = out or file.with_suffix("")
        if quick:  # what a quick study leaves behind never mixes with the study's own results
            out = out.with_name(f"{out.name}-quick")
            if places.boards == BOARDS:
                places = replace(places, boards=out / "leaderboards")
        return cls(plan, Store(out), places)

    def run(
        self,
        *,
        jobs: int | None = None,
        again: bool = False,
        adopt: bool = False,
        dry_run: bool = False,
        until_decided: bool = False,
    ) -> int:
        """Makes what is missing, stores each result at once, and renders.

        Args:
            jobs: runs at a time; one a GPU where not given.
            again: trains everything anew.
            adopt: stores the board's finished runs of the plan first, as if the study had made them.
            dry_run: only says what would run, with the command that makes each run alone.
            until_decided: rows of claims that nothing can be told of get further seeds, look by look, up to the plan's
                last number of ``more_seeds``.

        Returns:
            1 when a run failed, else 0.

        Raises:
            DataError: a row that cannot run, before anything is run; nothing to decide by further seeds.
        """
        if until_decided and (again or not (self.plan.more_seeds and self.plan.claims)):
            raise DataError(
                f"{self.plan.file}: --until-decided takes a plan with `claims` and `more_seeds`, and no --again"
            )
        jobs = jobs or max(1, len(devices()))
        states = self.states(again, without_data=dry_run)
        if adopt and (taken := self._adopt(states)):
            print(f"{taken} finished runs of these settings are on the board and need not be run again")
            states = self.states(again, without_data=dry_run)
        self._announce(states, jobs, commands=dry_run)
        if dry_run:
            return 0
        tasks, failed = self._carry_out(states, jobs)
        while until_decided and not failed:
            states = self.states(runs=Summary(self.plan, self.store).wanted())
            if not any(state.why for state in states):
                break
            print("further seeds for claims that nothing can be told of yet")
            self._announce(states, jobs, commands=False)
            tasks, failed = self._carry_out(states, jobs)
        self.render()
        if failed:
            print(f"\n{len(failed)} of {len(tasks)} runs failed; the same command tries them again:", file=sys.stderr)
            print("\n".join(f"  {task.name}: {task.log}" for task in failed), file=sys.stderr)
        return 1 if failed else 0

    def _carry_out(self, states: Sequence[RunState], jobs: int) -> tuple[dict[Task, RunState], list[Task]]:
        """Makes the runs that must run: all of them, and those that failed."""
        tasks = {self._task(state): state for state in states if state.why}
        failed = execute(list(tasks), jobs=jobs, finished=lambda task, seconds: self._keep(tasks[task], seconds))
        return tasks, failed

    def render(self) -> None:
        """Writes the page, the tables and the figures from what is stored."""
        summary = Summary(self.plan, self.store)
        gather_heatmaps(summary, self.places)
        problems = draw_figures(summary)
        write(page.texts(self.plan, self.store))
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        for verdict in map(summary.verdict, self.plan.claims):
            print(f"  {verdict.says:<14} {verdict.claim.text}")
        print(f"{len(summary.entries)} of {len(self.plan.runs)} runs are in {self.store.folder / 'README.md'}")

    def states(
        self, again: bool = False, *, without_data: bool = False, runs: Sequence[PlannedRun] | None = None
    ) -> list[RunState]:
        """Where runs of the plan stand; a recorded result stands for a run of the same id.

        Args:
            runs: which; all with the plan's own seeds where not given.
            again: recorded runs are to run, too.
            without_data: where the data cannot be read, no recorded result stands for a run, instead of an error.

        Raises:
            DataError: a mistake in the plan; the data cannot be read.
        """
        stored, decides, found = self.store.results(), dict[str, dict[str, Any]](), []
        configs = {
            run: self.plan.config(run) for run in (self.plan.runs if runs is None else runs)
        }  # every mistake before anything is built
        for run, config in configs.items():
            if run.row not in decides:  # the same for all seeds
                decides[run.row] = {}
                try:
                    decides[run.row] = json.loads(json.dumps(prepare(config, self.places).decides))
                except (UserError, ValueError) as error:
                    if not (without_data and isinstance(error, DataError)):
                        raise DataError(f"{self.plan.file}: row {run.row!r}: {error}") from error
            identity = decides[run.row] | {"settings": settings_digest(config.public())}
            entry = stored.get((run.row, run.seed), {})
            before = {name: value for name, value in decides[run.row].items() if name != "data_full"}
            id, former = (run_id(config.public(), deciding) for deciding in (decides[run.row], before))
            state = RunState(run, config, identity, id, former, entry, again)
            if entry and entry["id"] in (id, former):
                self.store.readdress(run)
            found.append(state)
        return found

    def _task(self, state: RunState) -> Task:
        where = [f"--runs={self.places.runs}", f"--boards={self.places.boards}"]
        return Task(
            name=str(state.run),
            arguments=("bench", *self._arguments(state.run), *where, *(["--again"] if state.again else [])),
            log=self.places.runs / "study-logs" / self.store.folder.name / f"{state.run.row}-{state.run.seed}.log",
            result=self.places.runs / state.folder / "record.json",
            pinned=str(state.config.values["trainer"]["devices"]) in ("auto", "1"),
        )  # fmt: skip

    def _arguments(self, run: PlannedRun) -> list[str]:
        return [*run.arguments, *self.plan.extra, f"--seed={run.seed}"]

    def _keep(self, state: RunState, seconds: float) -> str:
        """Stores the result of a run and renders the page; says what came out."""
        folder = self.places.runs / state.folder
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        seconds = max(seconds, sum(record["wall_seconds"].values()))  # those before an interruption included
        self._add(state, record, seconds)
        write(page.texts(self.plan, self.store))
        headline = self.plan.protocol.metric(self.plan.protocol.headline)
        scores = record["metrics"].get(headline.name, {})
        values = [f"{subset} {score['value']:.{headline.digits}f}" for subset, score in scores.items()]
        return f"{page.duration(seconds)}; {headline.name} {', '.join(values)}"

    def _add(self, state: RunState, record: Mapping[str, Any], seconds: float) -> None:
        folder = self.places.runs / state.config.dataset.name / record["method"]["name"] / record["run"]
        self.store.add(
            state.run, record, id=state.id, identity=state.identity, seconds=seconds, scores=folder / "scores.parquet"
        )

    def _adopt(self, states: Sequence[RunState]) -> int:
        """Stores the board's complete runs of the plan's ids, the newest of several; returns how many.

        Their people come along where the folder of the run is still there, and are missing from figures otherwise.
        """
        board = {}
        records = read_records(self.places.boards, self.plan.dataset)
        for record in sorted(records, key=lambda record: str(record["finished"])):
            if record.get("kind") == "bench" and record["status"]["class"] != "smoke":
                board[run_id(record["config"], decides(record))] = board[record["run"]] = record
        taken = [state for state in states if not state.entry and board.keys() & {state.id, state.former}]
        for state in taken:
            record = board.get(state.id) or board[state.former]
            self._add(state, record, sum(record["wall_seconds"].values()))
        return len(taken)

    def _announce(self, states: Sequence[RunState], jobs: int, *, commands: bool) -> None:
        """Lists all runs, perhaps with the command that makes each alone, and the time the missing ones will take."""
        todo = [state for state in states if state.why]
        print(f"{self.plan.title}: {len(states)} runs, {len(states) - len(todo)} recorded, {len(todo)} to do")
        for state in states:
            commit = str(state.entry.get("commit") or "")[:10]
            print(f"  {state.run!s:<24} {state.why or 'recorded' + (commit and f' with commit {commit}')}")
            if commands and state.why:
                print(f"      gazebench bench {' '.join(self._arguments(state.run))}")
        if todo:
            seconds = self._remaining_seconds(states, jobs)
            time = "unknown, nothing is recorded" if seconds is None else f"about {page.duration(seconds)}"
            print(f"time still needed: {time}, {jobs} at a time")

    def _remaining_seconds(self, states: Sequence[RunState], jobs: int) -> float | None:
        """How long the runs to do will take, judged by the recorded ones of the row, or of all rows."""
        spent: dict[Any, list[float]] = {}
        for (row, _), entry in self.store.results().items():
            spent.setdefault(row, []).append(entry["seconds"])
        if not spent:
            return None
        known = {row: mean(times) for row, times in spent.items()}
        usual = mean(known.values())
        todo = [known.get(state.run.row, usual) for state in states if state.why]
        return sum(todo) / max(1, min(jobs, len(todo)))


def decides(record: Mapping[str, Any]) -> dict[str, Any]:
    """``engine.run.Run.decides`` of the run behind a record; what had no version yet counts as version 1."""
    data, weights, not_in_id = record["data"], record["weights"], ("initial", "trained", "standing", "parts")
    splits = {split: identity for split, identity in {"test": data, "train": data.get("train")}.items() if identity}
    full = {split: identity["full_fingerprint"] for split, identity in splits.items() if "full_fingerprint" in identity}
    tasks = record["protocol"].get("tasks", {})
    if record["schema"] == 1 and "vqa_overall" in record["metrics"]:  # which had the questions in every protocol
        tasks = {"questions": record["protocol"]["questions"]}
    return {
        "kind": record.get("kind", "bench"),
        "method": [record["method"]["name"], record["method"].get("version", 1)],
        "dataset": [record["dataset"], data.get("version", 1)],
        "protocol": record["protocol"]["id"],
        "data": {split: identity["fingerprint"] for split, identity in splits.items()},
        **({"data_full": full} if full else {}),
        "subsets": data.get("subsets"),
        "weights": {name: value for name, value in weights.items() if name not in not_in_id},
        "start": (weights.get("initial") or {}).get("sha256"),
        "files": [],
        **({"tasks": [task["id"] for task in tasks.values()]} if tasks else {}),
    }
