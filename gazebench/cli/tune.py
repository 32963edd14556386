"""``gazebench tune``: settings chosen on validation, with equally many trials for every row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, places

app = typer.Typer()


@command(app, "tune", "gazebench tune studies/tuning.yaml --row frozen --jobs 2")
def tune(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Rows, their settings, and the number of trials.")],
    row: Annotated[list[str] | None, typer.Option(help="Only this row; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the trials.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time; one a GPU by default.")] = None,
    set_recipes: Annotated[
        bool, typer.Option("--set-recipes", help="Then put the chosen values into the recipes (engine/tuned.json).")
    ] = False,
    render_only: Annotated[bool, typer.Option("--render-only", help="Run nothing; write the page.")] = False,
    trial: Annotated[str, typer.Option(help="Only this trial, ROW/NUMBER, in this process; it is not stored.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the results; named after the plan.")] = None,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> int:
    """Choose settings on the validation split; the test split is not read.

    A killed tuning continues when the command is repeated. The exit code is 1 when a trial failed.
    """
    from gazebench.study.tuning import Tuning

    found = Tuning.open(plan, places(runs, boards), out)
    if trial:
        found.try_one(trial)
        return 0
    if render_only:
        found.render()
    elif found.run(rows=row or (), jobs=jobs, dry_run=dry_run):
        return 1
    if set_recipes and not dry_run:
        print(f"recipes have the chosen values of {found.set_recipes()} rows")
    return 0
