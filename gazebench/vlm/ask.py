"""The resumable loop that asks a model about many items: answers are stored as they come, and are never asked again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tqdm import tqdm

from gazebench.vlm.messages import Failure, Reply, Unreadable
from gazebench.vlm.store import AnswerStore

Send = Callable[[int, Callable[[str], bool]], Iterable[Reply | Failure]]
"""Called with the attempt (from 0) and a function that tells whether a key needs it; gives answers in any order."""


@dataclass(frozen=True)
class Outcome:
    """What a pass came to.

    Attributes:
        asked: items of this pass, those answered before included.
        answered: answers that came in this pass.
        open: reason by key of those without any answer, by the fault of the server or of an image.
        unusable: items all of whose answers were of no use.
        unreadable: those of the reasons that are images nobody can read; each once.
    """

    asked: int
    answered: int
    open: Mapping[str, str]
    unusable: int = 0
    unreadable: tuple[str, ...] = ()


def ask(
    store: AnswerStore,
    split: str,
    keys: Iterable[str],
    send: Send,
    *,
    shard: tuple[int, int] | None = None,
    attempts: int = 1,
    usable: Callable[[str, Reply], bool] | None = None,
    progress: str = "",
) -> Outcome:
    """Asks for every key that has no usable answer in the store yet, at most ``attempts`` times in all.

    A failure leaves a key open: the next pass asks again.

    Args:
        store: keeps the answers.
        split: the file of the store.
        keys: of the items to be answered in this pass.
        send: asks for the items that ``waiting(key)`` is true for when their turn comes; it should draw its items
            lazily, for answers may arrive in between.
        shard: ``(index, count)`` writes to this shard's file.
        attempts: answers of no use are asked for again, so often in all.
        usable: whether an answer is of use; by default any is.
        progress: what the items are called on a progress bar (``people``); no bar by default.

    Raises:
        VLMError: the model cannot be asked. All answers until then are stored.
    """
    wanted = dict.fromkeys(keys)
    tried: dict[str, set[int]] = {}
    done: set[str] = set()
    failed: dict[str, Failure] = {}

    def take(attempt: int, reply: Reply) -> None:
        key = reply.key
        failed.pop(key, None)
        tried.setdefault(key, set()).add(attempt)
        if key not in done and (usable is None or usable(key, reply)):
            done.add(key)

    for key, stored in store.answers(split).items():
        for answer in stored if key in wanted else ():
            take(answer.attempt, answer.reply)
    answered = 0
    bar = tqdm(
        total=len(wanted),
        initial=len(done),
        unit=f" {progress}",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        disable=not progress or len(done) == len(wanted),
    )
    with store.writer(split, shard) as writer, bar:
        for attempt in range(attempts):

            def waiting(key: str, attempt: int = attempt) -> bool:
                before = tried.get(key, set())
                open_ = key in wanted and key not in done
                return open_ and attempt not in before and before.issuperset(range(attempt))

            for said in send(attempt, waiting):
                if isinstance(said, Reply):
                    writer.append(said, attempt)
                    answered += 1
                    take(attempt, said)
                elif said.key not in tried:
                    failed[said.key] = said
                bar.set_postfix_str(f"{len(tried) - len(done) + len(failed):,} without use", refresh=False)
                bar.update(len(done) - bar.n)
    return Outcome(
        asked=len(wanted),
        answered=answered,
        open={key: failed[key].reason if key in failed else "not answered" for key in wanted if key not in tried},
        unusable=len(tried) - len(done),
        unreadable=tuple(dict.fromkeys(said.reason for said in failed.values() if isinstance(said, Unreadable))),
    )
