"""``gazebench score``: a predictions file to metrics and a record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import BoardsOption, NameArgument, SplitOption, command, given_settings, places

app = typer.Typer()


@command(app, "score", 'gazebench score mine.parquet vat --dataset.root DIR --title "My method"', settings=True)
def score(
    ctx: typer.Context,
    predictions: Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet (docs/predictions.md).")],
    dataset: NameArgument,
    title: Annotated[str, typer.Option(help="Name in tables; the file's name by default.")] = "",
    split: SplitOption = "test",
    partial: Annotated[bool, typer.Option("--partial", help="Accept a file that leaves people out.")] = False,
    boards: BoardsOption = None,
) -> None:
    """Score a predictions file of any program, with the same code as `bench`.

    The file has one row for each person: person_id (`gazebench data ids DATASET` lists them), x and y in [0, 1], and
    optionally inout, label, lah, laeo, sa, questions, heatmap.
    """
    from gazebench.engine.config import dataset_with
    from gazebench.engine.record import write_record
    from gazebench.engine.score import score as run
    from gazebench.report.board import refresh
    from gazebench.report.run import print_scores

    where, data = places(None, boards), dataset_with(dataset, given_settings(ctx))
    record = run(predictions, data, split=split, partial=partial, title=title)
    path = write_record(record, where.boards)
    refresh(where.boards, record["dataset"], type(data))
    print_scores(record, data.protocol)
    print(f"record: {path}")
