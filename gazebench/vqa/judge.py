"""A model that judges descriptions: does this answer name the same thing as the right one?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gazebench.vlm.messages import Backend, Decoding, Failure, Message, Request
from gazebench.vlm.reading import without_thoughts
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.describe import prompts
from gazebench.vqa.questions.reading import LONGEST
from gazebench.vqa.scoring import Answered

JUDGE = "judge-1"
DECODING = Decoding(max_tokens=512)


def identity(backend: Backend, answers: str) -> dict[str, Any]:
    """All that verdicts depend on; ``answers`` is the digest of those judged."""
    prompt = {"name": JUDGE, **prompts()[JUDGE]}
    return {**backend.identity(), "prompt": prompt, "decoding": vars(DECODING), "answers": answers}


def judge(backend: Backend, answered: Answered, store: AnswerStore, split: str) -> tuple[dict[str, bool], int]:
    """Verdicts on the descriptions by question id, each asked for once, and how many have none.

    An empty answer or a refusal is wrong without being asked about; a verdict that is neither yes nor no is a no.
    """
    known = store.answers(split)
    objects = [index for index, row in enumerate(answered.rows) if row.question.task == "object"]
    wanted = [index for index in objects if answered.said[index].phrase]
    open_ = [index for index in wanted if answered.rows[index].question.id not in known]
    with store.writer(split) as writer:
        for said in backend.ask(_requests(answered, open_)):
            if not isinstance(said, Failure):
                writer.append(said)
    known = store.answers(split)
    verdicts = {key: _yes(answers[0].reply.text) for key, answers in known.items()}
    return verdicts, sum(answered.rows[index].question.id not in known for index in wanted)


def _requests(answered: Answered, chosen: list[int]) -> Iterator[Request]:
    prompt = prompts()[JUDGE]
    for index in chosen:
        row = answered.rows[index]
        text = prompt["user"].format(
            question=row.question.text, truth=row.truth.answer, answer=answered.texts[index][:LONGEST]
        )
        yield Request(row.question.id, (Message("system", (prompt["system"],)), Message("user", (text,))), DECODING)


def _yes(text: str) -> bool:
    words = without_thoughts(text).lower().replace("*", " ").replace(".", " ").replace(",", " ").split()
    return bool(words) and (words[0] == "yes" or (words[-1] == "yes" and "no" not in words))
