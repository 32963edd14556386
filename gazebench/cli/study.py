"""``gazebench study``: many runs by a plan, and their summary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, given_settings, places

app = typer.Typer()


@command(app, "study", "gazebench study studies/finding.yaml --quick --jobs 2", settings=True)
def study(
    ctx: typer.Context,
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Rows, seeds, tables, figures and claims.")],
    quick: Annotated[bool, typer.Option("--quick", help="The plan's small study, in a folder of its own.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs, with their commands.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; one a GPU by default.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train everything anew.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Take over the board's runs of the same ids.")] = False,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Add seeds for open claims, up to the plan's `more_seeds`.")
    ] = False,
    render_only: Annotated[bool, typer.Option("--render-only", help="Run nothing; write page and figures.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only tell whether the page is up to date.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of results and page; named after the plan.")] = None,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> int:
    """Run what a plan still lacks, each run in its own process, and write tables, figures and claims.

    A killed study continues when the command is repeated. Settings such as --trainer.max_epochs 3 go to every run.
    The exit code is 1 when a run failed or, with --check, when the page is out of date.
    """
    from gazebench.report.page import stale
    from gazebench.study import page
    from gazebench.study.run import Study

    found = Study.open(plan, places(runs, boards), quick=quick, extra=given_settings(ctx), out=out)
    if check:
        old = stale(page.texts(found.plan, found.store))
        if old:
            hint = f"gazebench study {plan}{' --quick' if quick else ''} --render-only"
            print(f"out of date: {', '.join(map(str, old))}; run `{hint}`", file=sys.stderr)
        return 1 if old else 0
    if render_only:
        found.render()
        return 0
    return found.run(jobs=jobs, again=again, adopt=adopt, dry_run=dry_run, until_decided=until_decided)
