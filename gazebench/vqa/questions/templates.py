"""The words of a protocol, from its readable file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gazebench.vqa.types import Form, Refusal

ANYONE = "anyone"
"""The expression that fits everybody."""


@dataclass(frozen=True)
class Templates:
    """What is asked and answered; see ``templates.yaml``.

    Attributes:
        name, version: of the protocol.
        instructions: the system prompt of models that were not trained on these questions.
        questions: paraphrases by form, with the place ``{observer}``.
        observers: expressions by trait, with the place ``{value}`` (of ``box``: ``{box}``).
        point: how a point is answered, with the places ``{x}`` and ``{y}``.
        refusals: the answer to what cannot be answered, by reason.
        values: the words a trait may have.
        near: of a trait, groups of words that two viewers may use for one thing.
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
    near: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    synonyms: Sequence[Sequence[str]] = ()
    digest: str = ""

    @property
    def id(self) -> str:
        """Name and version, e.g. ``gazebench-vqa-v1``."""
        return f"{self.name}-v{self.version}"

    def alike(self, trait: str, value: str) -> frozenset[str]:
        """The values that may pass for this one, itself included."""
        return frozenset({value}.union(*(group for group in self.near.get(trait, ()) if value in group)))

    def same(self, label: str) -> frozenset[str]:
        """The words that name a category, itself included, in lower case."""
        label = label.lower()
        return frozenset({label}.union(*(group for group in self.synonyms if label in group)))


@cache
def templates(name: str = "templates.yaml") -> Templates:
    """The words of the protocol, read once."""
    text = (files("gazebench.vqa.questions") / name).read_bytes()
    read: dict[str, Any] = yaml.safe_load(text)
    answers = read.pop("answers")
    return Templates(**read, **answers, digest=hashlib.sha256(text).hexdigest()[:16])
