"""``gazebench leaderboard``: writes the leaderboards from the records."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, places

app = typer.Typer()


@command(app, "leaderboard", "gazebench leaderboard gazeworld")
def leaderboard(
    datasets: Annotated[list[str] | None, typer.Argument(help="All that have records when none is given.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell whether the pages are up to date.")] = False,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> int:
    """Write the leaderboards from the records: Markdown, CSV, and pages for a browser (`BOARDS/index.html`).

    The pages for a browser always show all data sets; --check leaves them out.
    """
    from gazebench.core.plugins import PluginError
    from gazebench.engine.registry import load_dataset
    from gazebench.report.board import refresh, texts
    from gazebench.report.page import stale
    from gazebench.report.site import build

    where = places(runs, boards)
    names = datasets or sorted(folder.name for folder in where.boards.glob("*/") if any(folder.glob("*.json")))
    known, unknown = {}, 0
    for name in names:
        try:
            known[name] = load_dataset(name)
        except PluginError as error:  # the other boards can still be written
            if datasets:
                raise
            unknown += 1
            print(f"{where.boards / name} is not written: {error}", file=sys.stderr)
    if check:
        old = [path for name, dataset in known.items() for path in stale(texts(where.boards, name, dataset))]
        if old:
            print(f"out of date: {', '.join(map(str, old))}; run `gazebench leaderboard`", file=sys.stderr)
        return 1 if old or unknown else 0
    for name, dataset in known.items():
        print(refresh(where.boards, name, dataset))
    print(f"board for a browser: {build(where.boards, where.boards)}")
    return 1 if unknown else 0
