"""``gazebench eval``: predict and score with given weights."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gazebench.cli.bench import banner
from gazebench.cli.options import BoardsOption, RunsOption, command, given_settings, places

app = typer.Typer()


@command(app, "eval", "gazebench eval runs/gazefollow/gazelle/RUN/weights.pt gazelle vat", settings=True)
def evaluate(
    ctx: typer.Context,
    weights: Annotated[str, typer.Argument(help="weights.pt of a run, or published weights: a file or an address.")],
    method: Annotated[str, typer.Argument(help="By default that of config.yaml beside the weights.")] = "",
    dataset: Annotated[str, typer.Argument(help="By default that of config.yaml beside the weights.")] = "",
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> None:
    """Predict and score with given weights.

    Settings that are not given are taken from config.yaml beside the weights, where a run writes it.
    """
    from gazebench.core.weights import local_file
    from gazebench.engine.config import read_config, resolve
    from gazebench.engine.run import bench as run
    from gazebench.report.run import show

    file = local_file(weights)
    beside = file.parent / "config.yaml"
    base = read_config(beside) if beside.is_file() else {}
    names = [name for name in (method, dataset) if name]
    config = resolve([*names, *given_settings(ctx)], prog="gazebench eval", base=base | {"init": None})
    print(banner(config), file=sys.stderr)
    where = places(runs, boards)
    show(run(config, where, weights=file), config, where)
