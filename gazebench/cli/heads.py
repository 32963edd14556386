"""``gazebench heads``: head boxes of a data set by a detector."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import (
    ConfidenceOption,
    DetectorOption,
    HeadClassOption,
    NameArgument,
    PixelsOption,
    command,
    given_settings,
)

app = typer.Typer()


@command(app, "heads", "gazebench heads vat --dataset.root DIR --out head_boxes.parquet", settings=True)
def heads(
    ctx: typer.Context,
    dataset: NameArgument,
    out: Annotated[Path, typer.Option(help="The file to write, .parquet.")] = Path("head_boxes.parquet"),
    split: Annotated[list[str] | None, typer.Option(help="A split, may be repeated; all by default.")] = None,
    detector: DetectorOption = "centerface",
    confidence: ConfidenceOption = 0.3,
    head_class: HeadClassOption = None,
    detector_pixels: PixelsOption = "rgb-1",
    again: Annotated[bool, typer.Option("--again", help="Begin anew instead of continuing.")] = False,
) -> None:
    """Find the heads in the images of a data set, for `--dataset.head_boxes FILE`.

    There, a box goes to the person whose annotated box it overlaps most; people without one are errors, or are left
    out and counted (`--dataset.missing_boxes skip`). Repeating the command continues where it was stopped.
    """
    from gazebench.core.errors import DataError
    from gazebench.core.files import write_atomically
    from gazebench.core.journal import Journal
    from gazebench.data.detector import HeadDetector
    from gazebench.engine.bulk import heads_of_dataset
    from gazebench.engine.config import dataset_with

    if out.suffix != ".parquet":
        raise DataError(f"--out {out}: the file of boxes ends in .parquet")
    data = dataset_with(dataset, given_settings(ctx))
    finder = HeadDetector(detector, confidence, head_class, detector_pixels)
    identity = {"dataset": dataset, "root": str(data.root), "detector": finder.identity()}
    with Journal(out.with_suffix(".images.jsonl"), identity, again) as done:
        boxes = heads_of_dataset(data, split or ["train", "val", "test"], finder, done)
        bad = [entry["error"] for entry in done.entries.values() if "error" in entry]
        write_atomically(out, lambda path: boxes.to_parquet(path, index=False))
    for reason in bad:
        print(reason, file=sys.stderr)
    print(f"{len(boxes):,} heads in {len(done.entries) - len(bad):,} images, {len(bad):,} images unreadable: {out}")
