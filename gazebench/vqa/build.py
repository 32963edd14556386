"""From a data set's annotations to a file of questions with its card."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gazebench.data.dataset import GazeDataset
from gazebench.engine.record import code_identity
from gazebench.vqa import files
from gazebench.vqa.question_builder import SEED, Descriptions, QuestionBuilder
from gazebench.vqa.task import Questions

NOTES = {
    True: "everybody in a picture is annotated: expressions fit exactly as many people as they say",
    False: "people without annotation may be in the pictures: observers are told by head box, ambiguity is two "
    "annotated people and 'the person', and a box said to hold nobody holds no annotated head",
}
"""What a file can guarantee of the people in its images, by ``GazeDataset.everybody``."""


def build(
    dataset: GazeDataset,
    split: str,
    folder: Path,
    *,
    descriptions: Descriptions | None = None,
    describer: dict[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Writes ``<split>.jsonl`` and its card into a folder; the same arguments give the same file.

    Args:
        dataset: whose split is asked about.
        split: train, val, trainval or test.
        folder: made where it is missing.
        descriptions: of people, where they are not the data set's own.
        describer: identity of the model that made ``descriptions``.
    """
    builder = QuestionBuilder(dataset, dataset.records(split), descriptions)
    identity, code = dataset.identity(split), code_identity()
    card = {
        "protocol": Questions.id,
        "origin": Questions.origin,
        "templates": builder.templates.digest,
        "seed": SEED,
        "dataset": dataset.card.name,
        "split": split,
        **{name: identity[name] for name in ("fingerprint", "label_version", "completeness")},
        "synthetic": dataset.card.synthetic,
        "descriptions": describer or "the dataset's own",
        "everybody": dataset.everybody,
        "note": NOTES[dataset.everybody],
        "date": datetime.now(UTC).date().isoformat(),
        "code": {name: code[name] for name in ("version", "commit", "dirty")},
    }
    path = folder / f"{split}.jsonl"
    return path, files.write(path, builder.everything(), card)
