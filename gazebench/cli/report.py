"""``gazebench report``: writes the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, places

app = typer.Typer()


@command(app, "report", "gazebench report runs/vat/gazelle/5f2c91ab03 --dataset.root DIR")
def report(
    run: Annotated[str, typer.Argument(help="Folder or id of a run.")],
    root: Annotated[Path | None, typer.Option("--dataset.root", help="Where the images are now.")] = None,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> None:
    """Write a run's page: scores, settings, curves, errors by group, large angles, images."""
    from gazebench.report import run_page, site
    from gazebench.report.run_data import find_run

    where = places(runs, boards)
    print(f"page      {run_page.write(find_run(run, where), where, None if root is None else str(root))}")
    print(f"all runs  {site.build(site.of_runs(where), where.boards, where.runs)}")
