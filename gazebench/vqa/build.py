"""From a data set's annotations to a file of questions with its card."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.data.dataset import GazeDataset
from gazebench.engine.record import code_identity
from gazebench.vqa import files
from gazebench.vqa.protocols import NEWEST, PROTOCOLS
from gazebench.vqa.question_builder import SEED, Descriptions

NOTES = {
    True: "everybody in a picture is annotated: expressions fit exactly as many people as they say",
    False: "people without annotation may be in the pictures: observers are told by head box, 'the person' is several "
    "where several are annotated, and a box said to hold nobody holds no annotated head",
}
"""What a file can guarantee of the people in its images, by ``GazeDataset.everybody``."""


def build(
    dataset: GazeDataset,
    split: str,
    folder: Path,
    *,
    descriptions: Descriptions | None = None,
    describer: dict[str, Any] | None = None,
    protocol: str = NEWEST,
    all_pairs: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Writes ``<split>.jsonl`` and its card into a folder; the same arguments give the same file.

    With ``all_pairs`` it is ``<split>-pairs.jsonl``, with the yes / no questions about all pairs of people alone.

    Args:
        dataset: whose split is asked about.
        split: train, val, trainval or test.
        folder: made where it is missing.
        descriptions: of people, where they are not the data set's own.
        describer: identity of the model that made ``descriptions``.
        protocol: id of the protocol.
        all_pairs: what the social columns of a data set's own protocol are taken of, not balanced; not in version 1.

    Raises:
        DataError: the protocol is not known, or cannot ask about pairs, or the data set has no labels of pairs.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"no protocol {protocol}; there are {', '.join(PROTOCOLS)}")
    asked, records = PROTOCOLS[protocol], dataset.records(split)
    if all_pairs and (asked.id != NEWEST or not records.pairs):
        raise DataError(f"all pairs: {protocol} on {dataset.card.name} has no questions about two people")
    further = {"all_pairs": True} if all_pairs else {}
    builder = asked.builder(dataset, records, descriptions, **further)
    identity, code = dataset.identity(split), code_identity()
    card = {
        "protocol": asked.id,
        "origin": asked.origin,
        **further,
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
    path = folder / (f"{split}-pairs.jsonl" if all_pairs else f"{split}.jsonl")
    return path, files.write(path, builder.everything(), card)
