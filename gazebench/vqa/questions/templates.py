"""The texts of the protocol, from ``templates.yaml``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gazebench.vqa.types import Form, Refusal

ANYONE = "anyone"
"""The expression that fits everybody."""


@dataclass(frozen=True)
class Templates:
    """What is asked and answered.

    Attributes:
        name, version: of the protocol.
        instructions: the system prompt of models that were not trained on these questions.
        questions: paraphrases by form, with the placeholder ``{observer}``.
        observers: expressions by trait, with the placeholder ``{value}`` (of ``box``: ``{box}``).
        point: how a point is answered, with the placeholders ``{x}`` and ``{y}``.
        refusals: the answer to a question that cannot be answered, by reason.
        values: the possible values of a trait.
        near: groups of values of a trait that two viewers may use for the same thing.
        synonyms: groups of words for one category.
        digest: of the file.
    """

    name: str
    version: int
    instructions: str
    questions: Mapping[Form, Sequence[str]]
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
def templates() -> Templates:
    """The texts of the protocol, read once."""
    text = (files("gazebench.vqa.questions") / "templates.yaml").read_bytes()
    read: dict[str, Any] = yaml.safe_load(text)
    answers = read.pop("answers")
    return Templates(**read, **answers, digest=hashlib.sha256(text).hexdigest()[:16])
