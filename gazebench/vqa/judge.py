"""A model that judges descriptions: does this answer name the same thing as the right one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.vlm.ask import ask
from gazebench.vlm.messages import Backend, Decoding, Failure, Message, Reply, Request
from gazebench.vlm.parsing import answer_parts, yes_or_no
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.asking import Answered
from gazebench.vqa.describe import prompts

JUDGE = "judge-2"
DECODING = Decoding(max_tokens=512)
SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


def judge(
    backend: Backend, answered: Answered, root: Path, answers: AnswerStore, split: str
) -> tuple[dict[str, bool], dict[str, Any]]:
    """Verdicts on the descriptions by question id, each asked for once, and who judged.

    An empty answer or a refusal is wrong without being asked about. What is neither a yes nor a no is no verdict: the
    description is left out and stays open. Who judged says how many of them there are.

    Args:
        backend: the judge.
        answered: the answers to be judged.
        root: folder of all stores of verdicts.
        answers: where the answers come from.
        split: of the data set.

    Raises:
        DataError: some have no verdict.
    """
    prompt = prompts()[JUDGE]
    judged_by = {
        **backend.identity(),
        "prompt": {"name": JUDGE, **prompt},
        "decoding": vars(DECODING),
        "answers": answers.digest(split),
    }
    store = AnswerStore(root, "judge", judged_by)
    places = {
        record.question.id: index
        for index, record in enumerate(answered.records)
        if record.question.task == "object" and answered.parsed[index].phrase
    }

    def request(key: str) -> Request:
        record, text = answered.records[places[key]], answer_parts(answered.texts[places[key]])[-1]
        question = prompt["user"].format(question=record.question.text, truth=record.truth.answer, answer=text)
        return Request(key, (Message("system", (prompt["system"],)), Message("user", (question,))), DECODING, SCHEMA)

    def send(_: int, waiting: Callable[[str], bool]) -> Iterator[Reply | Failure]:
        return backend.ask(request(key) for key in places if waiting(key))

    outcome = ask(store, split, places, send)
    if outcome.open:
        raise DataError(f"{len(outcome.open):,} descriptions have no verdict; repeat the command to ask for them")
    said = {key: found[0].reply for key, found in store.answers(split).items() if key in places}
    read = {key: yes_or_no(reply.text, reply.finish_reason)[0] for key, reply in said.items()}
    verdicts = {key: verdict == "yes" for key, verdict in read.items() if verdict}
    by = {name: judged_by[name] for name in ("model", "backend") if name in judged_by}
    return verdicts, by | {"prompt": JUDGE, "asked": len(read), "unreadable": len(read) - len(verdicts)}
