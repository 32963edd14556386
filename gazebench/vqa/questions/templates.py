"""The texts of the protocols, from ``templates.yaml`` (version 1) and ``templates-v2.yaml``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from gazebench.vqa.types import Refusal

ANYONE = "anyone"
"""The expression that fits everybody."""
FIRST_DIGESTS: Final[Mapping[str, str]] = {
    "37a4be53cb7680b9": "5dd7d0ffa000d39c",
    "5ea87a5907d51e37": "81c72e4b7805b22f",
}
"""From a digest of the texts alone to the one that records have, which was of the files with their first comments."""


@dataclass(frozen=True)
class Templates:
    """What is asked and answered.

    Attributes:
        name, version: of the protocol.
        instructions: the system prompt of models that were not trained on these questions.
        questions: paraphrases by form (of yes / no questions by type), with the placeholder ``{observer}`` and, where
            there are two people, ``{other}``.
        observers: expressions by trait, with the placeholder ``{value}`` (of ``box``: ``{box}``).
        point: how a point is answered, with the placeholders ``{x}`` and ``{y}``.
        refusals: the answer to a question that cannot be answered, by reason.
        values: the possible values of a trait.
        near: groups of values of a trait that two viewers may use for the same thing.
        synonyms: groups of words for one category.
        digest: of the texts.
    """

    name: str
    version: int
    instructions: str
    questions: Mapping[str, Sequence[str]]
    observers: Mapping[str, Sequence[str]]
    point: str
    refusals: Mapping[Refusal, str]
    values: Mapping[str, Sequence[str]]
    near: Mapping[str, Sequence[Sequence[str]]]
    synonyms: Sequence[Sequence[str]]
    digest: str

    @property
    def id(self) -> str:
        """Name and version, e.g. ``gazebench-vqa-v1``."""
        return f"{self.name}-v{self.version}"

    def alike(self, trait: str, value: str) -> frozenset[str]:
        """The values that a viewer may confuse with this one, itself included."""
        return frozenset({value}.union(*(group for group in self.near.get(trait, ()) if value in group)))

    def same(self, label: str) -> frozenset[str]:
        """The words that name a category, itself included, in lower case."""
        label = label.lower()
        return frozenset({label}.union(*(group for group in self.synonyms if label in group)))


@cache
def templates(version: int = 1) -> Templates:
    """The texts of a version of the protocol, read once; version 2 takes over what it does not name itself."""
    read: dict[str, Any] = {}
    for name in ("templates.yaml", "templates-v2.yaml")[:version]:
        read |= yaml.safe_load((files("gazebench.vqa.questions") / name).read_bytes())
    digest = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]
    answers = read.pop("answers")
    return Templates(**read, **answers, digest=FIRST_DIGESTS.get(digest, digest))
