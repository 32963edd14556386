"""Has the questions of a file answered, resumably, and joins questions and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.vlm import ask as loop
from gazebench.vlm.coordinates import Convention
from gazebench.vlm.messages import Reply
from gazebench.vlm.store import AnswerStore, shard_of
from gazebench.vqa.answerers import Answerer
from gazebench.vqa.files import QuestionRecord, read
from gazebench.vqa.protocols import protocol_of
from gazebench.vqa.questions.parsing import ParsedAnswer
from gazebench.vqa.task import Questions


@dataclass
class Answered:
    """The questions of a file with their answers.

    Attributes:
        records: the questions.
        texts: the answers, "" where there is none.
        parsed: the parsed answers.
        replies: the answers as they arrived.
        sizes: (width, height) in pixels of the images as they were shown; None where nothing was.
        open: how many have no answer.
    """

    records: list[QuestionRecord] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    parsed: list[ParsedAnswer] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    open: int = 0

    def parse(self, index: int, protocol: Questions, convention: Convention) -> ParsedAnswer:
        """An answer as it is read by a convention of coordinates."""
        reply = self.replies[index]
        return protocol.parse(
            self.records[index].question.form, reply.text, reply.finish_reason, self.sizes[index], convention,
            reply.p_yes,
        )  # fmt: skip


def store_of(root: Path, answerer: Answerer, card: Mapping[str, Any]) -> AnswerStore:
    """Where the answers to the questions of a card are kept; those to other questions are in other folders."""
    identity = {**answerer.identity(), "asked": {"protocol": card["protocol"], "sha256": card["sha256"]}}
    return AnswerStore(root / str(card["dataset"]) / "answers", answerer.name, identity)


def ask(
    path: Path,
    card: Mapping[str, Any],
    answerer: Answerer,
    store: AnswerStore,
    shard: tuple[int, int] | None = None,
    limit: int = 0,
) -> loop.Outcome:
    """Asks what has no answer yet, once; any answer counts as one, be it empty, huge or a refusal.

    Only a failure of the server, or an image that cannot be read, leaves a question open.

    Args:
        path: of the questions.
        card: theirs.
        answerer: who is asked.
        store: keeps the answers.
        shard: ``(index, count)`` asks this part only; questions about one image stay together.
        limit: asks only so many, 0 all.

    Raises:
        VLMError: the model cannot be asked. All answers until then are stored.
    """
    mine = None if shard is None else set(shard_of([record.image for record in read(path)], *shard).tolist())

    def chosen() -> Iterator[QuestionRecord]:
        taken = 0
        for place, record in enumerate(read(path)):
            if mine is None or place in mine:
                if limit and taken >= limit:
                    return
                taken += 1
                yield record

    return loop.ask(
        store, str(card["split"]), (record.question.id for record in chosen()),
        lambda _, waiting: answerer.ask(record for record in chosen() if waiting(record.question.id)),
        shard=shard, progress="questions",
    )  # fmt: skip


def collect(
    path: Path, card: Mapping[str, Any], answerer: Answerer, store: AnswerStore, *, partial: bool = False
) -> Answered:
    """Joins questions and stored answers.

    Raises:
        DataError: some have no answer, unless ``partial``.
    """
    stored, protocol = store.answers(str(card["split"])), protocol_of(card)
    found = Answered()
    for record in read(path):
        answers = stored.get(record.question.id)
        reply = answers[0].reply if answers else Reply(record.question.id, "")
        found.open += not answers
        found.records.append(record)
        found.texts.append(reply.text)
        found.replies.append(reply)
        found.sizes.append(answerer.size(record))
        found.parsed.append(found.parse(-1, protocol, answerer.convention))
    if found.open and not partial:
        raise DataError(
            f"{found.open:,} of {len(found.records):,} questions have no answer in {store.folder}; ask for them "
            "(the same command with ask), or add --partial, which counts them as wrong"
        )
    return found
