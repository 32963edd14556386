"""Asks the questions of a file, resumably; what was answered is never asked again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazebench.core.boxes import IntArray
from gazebench.vlm.messages import Failure
from gazebench.vlm.store import AnswerStore, shard_of
from gazebench.vqa.answerers import Answerer
from gazebench.vqa.files import Row, read

Progress = Callable[[int, int, int], None]
"""Called with how many questions are answered, of how many, and how many of these could not be asked."""


@dataclass(frozen=True)
class Outcome:
    """What a pass over a file came to.

    Attributes:
        asked: questions of this part of the file.
        open: those without an answer, by the fault of the server or of a picture, with the reason.
        answered: answers that came in this pass.
    """

    asked: int
    open: Mapping[str, str]
    answered: int


def store_of(root: Path, answerer: Answerer, card: Mapping[str, Any]) -> AnswerStore:
    """Where the answers to the questions of a card are kept: those of other questions lie in other folders."""
    identity = {**answerer.identity(), "asked": {"protocol": card["protocol"], "sha256": card["sha256"]}}
    return AnswerStore(root / str(card["dataset"]) / "answers", answerer.name, identity)


def ask(
    path: Path,
    card: Mapping[str, Any],
    answerer: Answerer,
    store: AnswerStore,
    shard: tuple[int, int] | None = None,
    limit: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Asks what has no answer yet, once; any answer is one, be it empty, huge or a refusal.

    Only a failure of the server, or a picture that cannot be read, leaves a question open.

    Raises:
        VLMError: the model cannot be asked. All answers until then are stored.
    """
    split = str(card["split"])
    known = set(store.answers(split))
    mine = None if shard is None else set(_part(path, shard).tolist())
    total = _count(path, mine, limit)
    done = sum(row.question.id in known for row in _chosen(path, mine, limit))
    answered, failed = 0, dict[str, str]()
    with store.writer(split, shard) as writer:
        waiting = (row for row in _chosen(path, mine, limit) if row.question.id not in known)
        for said in answerer.ask(waiting):
            if isinstance(said, Failure):
                failed[said.key] = said.reason
                continue
            writer.append(said)
            answered += 1
            if progress is not None:
                progress(done + answered, total, len(failed))
    return Outcome(total, failed, answered)


def _part(path: Path, shard: tuple[int, int]) -> IntArray:
    """The places of the questions of a shard; those about one picture stay together."""
    return shard_of([row.image for row in read(path)], *shard)


def _chosen(path: Path, mine: Collection[int] | None, limit: int) -> Iterator[Row]:
    taken = 0
    for place, row in enumerate(read(path)):
        if mine is None or place in mine:
            if limit and taken >= limit:
                return
            taken += 1
            yield row


def _count(path: Path, mine: Collection[int] | None, limit: int) -> int:
    return sum(1 for _ in _chosen(path, mine, limit))
