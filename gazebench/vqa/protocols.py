"""The protocols of questions by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gazebench.core.errors import DataError
from gazebench.vqa.task import Questions
from gazebench.vqa.task_v2 import QuestionsV2

PROTOCOLS: dict[str, type[Questions]] = {protocol.id: protocol for protocol in (Questions, QuestionsV2)}
NEWEST = QuestionsV2.id


def protocol_of(card: Mapping[str, Any]) -> Questions:
    """The protocol that a card of questions names.

    Raises:
        DataError: this version of the suite knows no such protocol, or other texts of it.
    """
    name = str(card["protocol"])
    if name not in PROTOCOLS:
        raise DataError(f"questions of the protocol {name}; known here: {', '.join(PROTOCOLS)}; build them anew")
    protocol = PROTOCOLS[name]()
    if card["templates"] != protocol.digest:
        raise DataError(f"these questions were made from other templates than those of {name} here; build them anew")
    return protocol
