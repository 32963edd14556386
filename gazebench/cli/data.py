"""``gazebench data check|fake|ids``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import NameArgument, SplitOption, command, given_settings

SPLITS = ("train", "val", "test")

app = typer.Typer(
    name="data",
    help="Check a data set, write a tiny one, list its people.",
    epilog="Example: gazebench data check gazefollow --dataset.root DIR",
    no_args_is_help=True,
)


@command(app, "check", "gazebench data check gazefollow --dataset.root DIR", settings=True)
def check(
    ctx: typer.Context,
    dataset: NameArgument,
    pictures: Annotated[int, typer.Option(help="Images to decode in each split; 0 is all.")] = 200,
    rows: Annotated[int, typer.Option(help="Incomplete parts to list; 0 is all, complete ones too.")] = 20,
) -> int:
    """Check a data set on disk.

    The command parses every split, compares it with the official counts and part by part with the release's list where
    there is one (ChildPlay's clips), decodes images evenly spaced over the split, and lists what is wrong. The exit
    code is 1 if anything is.
    """
    from gazebench.data.check import findings, parts_table
    from gazebench.engine.config import dataset_with

    data = dataset_with(dataset, given_settings(ctx))
    problems = 0
    print(f"{data.card.title} ({data.card.licence}), labels {data.card.label_version}")
    for split in SPLITS:  # before anything stops at what is missing
        for line in parts_table(data, split, rows):
            print(f"  {line}")
    for split in SPLITS:
        print(f"  {data.completeness(split)}")
        found = findings(data, split, pictures)
        problems += len(found)
        for finding in found[:10]:
            print(f"    {finding}")
        if len(found) > 10:
            print(f"    ... and {len(found) - 10:,} more")
    return 1 if problems else 0


@command(app, "fake", "gazebench data fake vat tiny_vat")
def fake(
    dataset: NameArgument,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    people: Annotated[int, typer.Option(help="Approximate number of people in each split.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
) -> None:
    """Write a tiny set of drawn images in the official layout."""
    from gazebench.core.errors import DataError
    from gazebench.engine.registry import load_dataset

    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: the folder is not empty; give a new one")
    data = load_dataset(dataset).fake(folder, people=people, seed=seed)
    for split in SPLITS:
        print(data.completeness(split))
    print(f"use it with DATASET={dataset} DATA_ROOT={folder}")


@command(app, "ids", "gazebench data ids gazeworld > ids.csv", settings=True)
def ids(ctx: typer.Context, dataset: NameArgument, split: SplitOption = "test") -> None:
    """List the people of a split as CSV.

    The columns are `person_id` and `image`; a predictions file needs a row for every person.
    """
    from gazebench.engine.config import dataset_with

    records = dataset_with(dataset, given_settings(ctx)).records(split)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["person_id", "image"])
    writer.writerows(zip(records.person_id, records.images[records.person_image], strict=True))
