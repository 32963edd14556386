"""``gazebench compare``: two runs on the same people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import RunsOption, command, places

app = typer.Typer()


@command(app, "compare", "gazebench compare 5f2c,91ab,c03d 77e0,12aa,9b1f --out comparison")
def compare(
    a: Annotated[str, typer.Argument(help="Folder or id of a run; several seeds of one method with commas.")],
    b: Annotated[str, typer.Argument(help="The run to compare with, given like A.")],
    metric: Annotated[str, typer.Option(help="A mean over people; the protocol's headline by default.")] = "",
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("comparison"),
    seed: Annotated[int, typer.Option(help="Seed of the resampling.")] = 0,
    runs: RunsOption = None,
) -> None:
    """Compare two runs: paired intervals by subset, head size, distance and number of people, and images."""
    from gazebench.report.compare import compare as run
    from gazebench.report.compare import read_side

    where = places(runs, None)
    sides = read_side(a, where), read_side(b, where)
    findings = run(*sides, out, metric=metric, seed=seed)
    for name, side in zip("AB", sides, strict=True):
        print(f"{name}: {side.title} ({side.folder.name})")
    print("\n".join(["", *findings, "", f"page {out / 'README.md'}"]))
