"""``gazebench data check|fake|ids``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser

from gazebench.core.boxes import clean_boxes, normalise
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME
from gazebench.data.dataset import GazeDataset
from gazebench.engine.config import clear_errors
from gazebench.engine.registry import load_dataset


def check(arguments: Sequence[str]) -> int:
    """Parses every split, compares it with the official counts and decodes pictures; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="gazebench data check", allow_abbrev=False)
    parser.add_argument("dataset")
    parser.add_argument("--pictures", type=int, default=200, help="decode so many a split, evenly spaced; 0 is all")
    known, options = parser.parse_known_args(arguments)
    dataset = built(known.dataset, options)
    problems = 0
    print(f"{dataset.card.title} ({dataset.card.licence}), labels {dataset.card.label_version}")
    for split in ("train", "val", "test"):
        print(f"  {dataset.completeness(split)}")
        found = list(findings(dataset, split, known.pictures))
        problems += len(found)
        for finding in found[:10]:
            print(f"    {finding}")
        if len(found) > 10:
            print(f"    ... and {len(found) - 10:,} more")
    return 1 if problems else 0


def findings(dataset: GazeDataset, split: str, pictures: int) -> list[str]:
    """What is wrong with a split: skipped rows, unreadable pictures, empty boxes, points outside the picture."""
    records = dataset.records(split)
    found = [str(issue) for issue in records.issues]
    count = len(records)
    chosen = range(count) if not pictures else np.unique(np.linspace(0, count - 1, min(count, pictures)).astype(int))
    start = records.person_start
    for image in chosen:
        name = records.images[image]
        try:
            dataset.picture(records, int(image))
            width, height = dataset.size(records, int(image))
        except DataError as error:
            found.append(str(error))
            continue
        for person in range(start[image], start[image + 1]):
            box = clean_boxes(normalise(records.head[[person]], records.head_unit, width, height))[0]
            if np.isfinite(box).all() and (box[2:] <= box[:2]).any():
                found.append(f"{name}: person {records.person_id[person]} has a head box without area")
            points = normalise(records.points_of(person), records.point_unit, width, height)
            if records.inout[person] == IN_FRAME and len(points) and not ((points >= 0) & (points <= 1)).all():
                found.append(f"{name}: person {records.person_id[person]} is in frame with a target outside it")
    return found


def fake(arguments: Sequence[str]) -> int:
    """Writes a tiny set in the official layout, drawn by us."""
    parser = argparse.ArgumentParser(prog="gazebench data fake", allow_abbrev=False)
    parser.add_argument("dataset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args(arguments)
    if known.folder.exists() and any(known.folder.iterdir()):
        raise DataError(f"{known.folder} is not empty; give a new folder")
    dataset = load_dataset(known.dataset).fake(known.folder, people=known.people, seed=known.seed)
    for split in ("train", "val", "test"):
        print(dataset.completeness(split))
    print(f"use it with DATASET={known.dataset} DATA_ROOT={known.folder}")
    return 0


def ids(arguments: Sequence[str]) -> int:
    """Prints ``person_id`` and ``image`` of a split as CSV: what a predictions file must speak of."""
    parser = argparse.ArgumentParser(prog="gazebench data ids", allow_abbrev=False)
    parser.add_argument("dataset")
    parser.add_argument("--split", default="test")
    known, options = parser.parse_known_args(arguments)
    records = built(known.dataset, options).records(known.split)
    sys.stdout.write("person_id,image\n")
    for person, image in zip(records.person_id, records.images[records.person_image], strict=True):
        sys.stdout.write(f"{_csv(person)},{_csv(image)}\n")
    return 0


def built(name: str, options: Sequence[str]) -> GazeDataset:
    """A dataset from ``--dataset.root DIR`` and the like.

    Raises:
        DataError: an option it does not have.
    """
    dataset = load_dataset(name)
    parser = ArgumentParser(prog="gazebench data", exit_on_error=False)
    parser.add_class_arguments(dataset, "dataset", fail_untyped=False)
    with clear_errors("gazebench"):
        return dataset(**vars(parser.parse_args(list(options)).dataset))


def _csv(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text
