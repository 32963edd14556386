"""From a dataset's annotations to a file of questions with its card."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.engine import record as results
from gazebench.vqa import files
from gazebench.vqa.interview import SEED, Interviewer, Words
from gazebench.vqa.questions.templates import templates

NOTES = {
    True: "everybody in a picture is annotated: expressions fit exactly as many people as they say",
    False: "people without annotation may be in the pictures: observers are told by head box, ambiguity is two "
    "annotated people and 'the person', and a box said to hold nobody holds no annotated head",
}
"""How sure a file may be of who is in its pictures, by ``GazeDataset.everybody``."""


def build(
    dataset: GazeDataset, split: str, folder: Path, *, seed: int = SEED, words: Words | None = None,
    describer: dict[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Writes ``<split>.jsonl`` and its card into a folder; the same arguments give the same file.

    Args:
        dataset: whose split is asked about.
        split: train, val, trainval or test: the source's own.
        folder: made where it is missing.
        seed: of all that is drawn by lot; another than the protocol's is noted in the card.
        words: what can be said of people, where it is not the dataset's own.
        describer: identity of the model whose words they are.
    """
    records = dataset.records(split)
    interviewer = Interviewer(dataset, records, seed, words)
    path = folder / f"{split}.jsonl"
    return path, files.write(path, rows(interviewer, records), describe(dataset, split, seed, describer))


def rows(interviewer: Interviewer, records: Records) -> Iterator[files.Row]:
    """The questions of a split, picture by picture."""
    for image, (question, truth) in interviewer.everything():
        person = question.id.rpartition("/")[0]
        yield files.Row(str(records.images[image]), person, str(records.groups[image]), question, truth)


def describe(dataset: GazeDataset, split: str, seed: int, describer: dict[str, Any] | None) -> dict[str, Any]:
    """The card, but for counts and checksum."""
    words, identity, code = templates(), dataset.identity(split), results.code_identity()
    return {
        "protocol": words.id,
        "origin": "ours",
        "templates": words.digest,
        "seed": seed,
        "dataset": dataset.card.name,
        "split": split,
        "fingerprint": identity["fingerprint"],
        "label_version": identity["label_version"],
        "complete": identity["complete"],
        "synthetic": dataset.card.synthetic,
        "descriptions": describer or "the dataset's own",
        "everybody": dataset.everybody,
        "note": NOTES[dataset.everybody],
        "date": datetime.now(UTC).date().isoformat(),
        "code": {name: code[name] for name in ("version", "commit", "dirty")},
    }
