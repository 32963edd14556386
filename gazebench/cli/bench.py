"""``gazebench bench``: train, predict, score, record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gazebench.cli.options import BoardsOption, NameArgument, RunsOption, command, given_settings, places

if TYPE_CHECKING:
    from gazebench.engine.config import Config


app = typer.Typer()


@command(app, "bench", "gazebench bench gazelle vat --dataset.root DIR --model.backbone dinov2_vitl14", settings=True)
def bench(
    ctx: typer.Context,
    method: NameArgument = "",
    dataset: NameArgument = "",
    config: Annotated[Path | None, typer.Option(help="config.yaml of a run, to repeat it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation; 0 by default.")] = None,
    init: Annotated[str | None, typer.Option(help="Weights to start from: a file, an address, or `none`.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Delete an earlier run with the same id, and repeat it.")
    ] = False,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> None:
    """Train, predict and score a method.

    METHOD and DATASET are gazelle and gazeworld by default; data sets joined by `+` are trained on together and tested
    one by one. The result is a record and a row of the leaderboard.
    Every constructor argument is a setting: --model.lr 1e-3, --dataset.root DIR, --loader.batch_size 32,
    --trainer.max_epochs 3; `gazebench settings METHOD DATASET` lists them with their values. A killed run continues
    when the command is repeated.
    """
    from gazebench.engine.config import resolve
    from gazebench.engine.run import bench_each
    from gazebench.report.run import show

    names = [method, dataset] if dataset else [method] if method else []
    if config is None:
        names = (names + ["gazelle", "gazeworld"][len(names) :])[:2]
    options = given_settings(ctx)
    options += [f"--{name}={value}" for name, value in (("seed", seed), ("init", init)) if value is not None]
    resolved = resolve([*names, *([f"--config={config}"] if config else []), *options])
    print(f"{banner(resolved)}: reading annotations ...", file=sys.stderr)
    where = places(runs, boards)
    for tested, outcome in bench_each(resolved, where, again=again):
        show(outcome, tested, where)


def banner(config: Config) -> str:
    method, dataset = config.method.cls.card.title, config.dataset.cls.card.title
    return f"{method} on {dataset}, seed {config.values['seed']}"
