"""``gazebench study``: runs what a plan still lacks and renders it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gazebench.core.errors import DataError
from gazebench.engine.run import BOARDS, Places
from gazebench.study import adoption, page
from gazebench.study.figures import draw_figures, gather_heatmaps
from gazebench.study.measured import Measured
from gazebench.study.plan import Plan, Run, read_plan
from gazebench.study.running import State, devices, duration, execute, remaining_seconds, states
from gazebench.study.store import Store

USAGE = (
    "gazebench study PLAN.yaml [--quick] [--dry-run] [--jobs N] [--again] [--adopt] [--render-only] [--check] "
    "[--out=DIR] [--runs=DIR] [--boards=DIR] [--group.setting=value of every run ...]"
)


def main(arguments: Sequence[str], places: Places) -> int:
    """Runs and renders a study; 1 when a run failed or, with ``--check``, when the page is out of date.

    Raises:
        DataError: a mistake in the plan or on the command line.
    """
    parser = argparse.ArgumentParser(prog="gazebench study", usage=USAGE, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("plan", type=Path)
    for flag in ("--quick", "--dry-run", "--again", "--adopt", "--render-only", "--check"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--jobs", type=int, default=max(1, len(devices())))
    parser.add_argument("--out", type=Path)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"usage: {USAGE}")
        return 0 if arguments else 2
    try:
        given, extra = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise DataError(f"gazebench study: {error}\n{USAGE}") from error
    wrong = [word for word in extra if not word.startswith("--") or "." not in word or "=" not in word]
    if wrong or given.jobs < 1:
        raise DataError(f"gazebench study: {' '.join(wrong) or f'--jobs {given.jobs}'} makes no sense here\n{USAGE}")
    plan = read_plan(given.plan, quick=given.quick, extra=extra)
    # What a quick study leaves behind never mixes with the study's own results.
    out = given.out or given.plan.with_suffix("")
    out = out.with_name(f"{out.name}-quick") if plan.quick else out
    if plan.quick and places.boards == BOARDS:
        places = replace(places, boards=out / "leaderboards")
    store = Store(out)
    if given.check:
        return _check(plan, store)
    if given.render_only:
        render(plan, store, places)
        return 0
    if given.adopt and (taken := adoption.adopt(plan, store, places)):
        print(f"{taken} finished runs of these settings are on the board and need not be run again")
    found = states(plan, store, again=given.again)
    todo = [state.run for state in found if state.why]
    _announce(plan, found, todo, store, given.jobs, places, commands=given.dry_run)
    if given.dry_run:
        return 0
    failures = execute(plan, todo, store, places, jobs=given.jobs, finished=lambda: page.write(plan, store))
    render(plan, store, places)
    if failures:
        print(f"\n{len(failures)} of {len(todo)} runs failed; the same command tries them again:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure.run}: {failure.log}", file=sys.stderr)
    return 1 if failures else 0


def render(plan: Plan, store: Store, places: Places) -> None:
    """Writes the page, the tables and the figures from what is stored."""
    measured = Measured(plan, store)
    gather_heatmaps(measured, places)
    problems = draw_figures(measured, store.folder)
    page.write(plan, store)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    for verdict in map(measured.verdict, plan.claims):
        says = {None: "missing", True: "holds", False: "does not hold"}[verdict.holds]
        print(f"  {says:<14} {verdict.claim.text}")
    print(f"{len(measured.entries)} of {len(plan.runs)} runs are in {store.folder / 'README.md'}")


def _check(plan: Plan, store: Store) -> int:
    found = page.stale(plan, store)
    if found:
        command = f"gazebench study {plan.file}{' --quick' if plan.quick else ''} --render-only"
        print(f"out of date: {', '.join(map(str, found))}; run `{command}`", file=sys.stderr)
    return 1 if found else 0


def _announce(
    plan: Plan, found: Sequence[State], todo: Sequence[Run], store: Store, jobs: int, places: Places, *, commands: bool
) -> None:
    """Lists all runs, perhaps with the command that makes each alone, and the time the missing ones will take."""
    print(f"{plan.title}: {len(found)} runs, {len(found) - len(todo)} recorded, {len(todo)} to do")
    for state in found:
        arguments = " ".join((*state.run.arguments, *plan.extra, f"--seed={state.run.seed}"))
        commit = f" with commit {state.commit[:10]}" if state.commit else ""
        print(f"  {state.run!s:<24} {state.why or f'recorded{commit}'}")
        if commands and state.why:
            print(f"      gazebench bench {arguments}")
    if todo:
        seconds = remaining_seconds(todo, store, jobs, adoption.seconds(plan, places))
        told = "unknown, nothing like it is recorded" if seconds is None else f"about {duration(seconds)}"
        print(f"time still needed: {told}, {jobs} at a time")
