"""The resumable loop that asks a model about many items and stores the answers as they arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tqdm import tqdm

from gazebench.vlm.messages import Failure, Reply, Unreadable
from gazebench.vlm.store import AnswerStore

Send = Callable[[int, Callable[[str], bool]], Iterable[Reply | Failure]]
"""Takes the attempt (from 0) and a function that says whether a key needs it; yields answers in any order."""


@dataclass(frozen=True)
class Outcome:
    """The result of asking.

    Attributes:
        asked: number of items, including those answered before.
        answered: number of answers that arrived now.
        open: reason by key for items without any answer.
        unusable: number of items that have unusable answers only.
        unreadable: the reasons that are unreadable images, each once.
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
    """Asks about every item that has no usable answer in the store yet.

    An item that gets a failure and no answer stays open: the next call asks about it again.

    Args:
        store: the store of the answers.
        split: name of the file in the store.
        keys: the items.
        send: asks about the items for which ``waiting(key)`` is true. It should go through its items lazily, since
            answers may arrive in between.
        shard: ``(index, count)`` writes to this shard's file.
        attempts: largest number of answers to an item; unusable ones are asked for again.
        usable: whether an answer is usable; by default every answer is.
        progress: unit of the progress bar, e.g. ``people``; no bar by default.

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

            for result in send(attempt, waiting):
                if isinstance(result, Reply):
                    writer.append(result, attempt)
                    answered += 1
                    take(attempt, result)
                elif result.key not in tried:
                    failed[result.key] = result
                bar.set_postfix_str(f"{len(tried) - len(done) + len(failed):,} without use", refresh=False)
                bar.update(len(done) - bar.n)
    return Outcome(
        asked=len(wanted),
        answered=answered,
        open={key: failed[key].reason if key in failed else "not answered" for key in wanted if key not in tried},
        unusable=len(tried) - len(done),
        unreadable=tuple(dict.fromkeys(each.reason for each in failed.values() if isinstance(each, Unreadable))),
    )
