"""``gazebench bench``: train, predict, score, record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gazebench.cli.options import BoardsOption, NameArgument, RunsOption, command, given_settings, places

if TYPE_CHECKING:
    from gazebench.engine.config import Config
    from gazebench.engine.run import Places


PAIR = ("gazelle", "hclora")
"""Without a method both are run: what a frozen backbone says, and what the same one says after it was adapted."""
PAIR_SIZE = ["--dataset.train=1800", "--dataset.val=200", "--dataset.test=200", "--trainer.max_epochs=1"]
"""Two thirds of the scenes, seen once: minutes on two slow cores. These are no benchmark results."""

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

    The result is a record and a row of the leaderboard; DATASET is gazeworld by default. Data sets
    joined by `+` are trained on together and tested one by one. Without METHOD, Gaze-LLE on a
    frozen backbone and HCLoRA are trained on part of GazeWorld and compared on the same people, with pictures.
    Every constructor argument is a setting: --model.lr 1e-3, --dataset.root DIR, --loader.batch_size 32,
    --trainer.max_epochs 3; `gazebench settings METHOD DATASET` lists them with their values. A killed run continues
    when the command is repeated.
    """
    from gazebench.engine.config import resolve
    from gazebench.engine.run import bench_each
    from gazebench.report.run import show

    options = given_settings(ctx)
    options += [f"--{name}={value}" for name, value in (("seed", seed), ("init", init)) if value is not None]
    where = places(runs, boards)
    given = [method, dataset or "gazeworld"] if method else []
    if config is not None:
        commands = [[*([method] if method else []), *([dataset] if dataset else []), f"--config={config}"]]
    elif given:
        commands = [given]
    else:
        from gazebench.engine.precision import options as precision

        fast = precision()
        print(f"precision: {'bfloat16' if fast else 'float32'}, the faster one here", file=sys.stderr)
        commands = [[name, "gazeworld", *PAIR_SIZE, *fast] for name in PAIR]
    folders = []
    for words in commands:
        resolved = resolve([*words, *options])
        print(f"{banner(resolved)}: reading annotations ...", file=sys.stderr)
        for tested, outcome in bench_each(resolved, where, again=again):
            show(outcome, tested, where)
            folders.append(outcome.folder)
    if not given and config is None:
        compare_pair(folders[0], folders[1], where)


def compare_pair(a: Path, b: Path, where: Places) -> None:
    """Writes the comparison of two runs beside them; prints what it says and where its pictures are."""
    from gazebench.report.compare import compare, read_side

    out = a.parent.parent / f"{a.name}-{b.name}"
    findings = compare(read_side(str(a), where), read_side(str(b), where), out)
    print("\n".join(["", *findings, ""]))
    for name, what in (("best", "gains"), ("worst", "loses")):
        if (out / f"{name}.png").is_file():
            print(f"{out / name}.png: the same people twice, where the adapted backbone {what} most")
    print(f"comparison {out / 'README.md'}")


def banner(config: Config) -> str:
    method, dataset = config.method.cls.card.title, config.dataset.cls.card.title
    return f"{method} on {dataset}, seed {config.values['seed']}"
