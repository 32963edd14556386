"""Asks a prober about the people of a split, resumably; what was answered is never asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gazebench.core.boxes import IntArray, clean_boxes, normalise
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.probe.answers import Answer, read_answer
from gazebench.probe.probers import Job, Prober
from gazebench.vlm.messages import Failure, Reply, Unreadable
from gazebench.vlm.store import Answer as Stored
from gazebench.vlm.store import AnswerStore, shard_of

Progress = Callable[[int, int, int], None]
"""Called with how many people are answered, of how many, and how many of these with nothing usable."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Who is asked about, and whose answer stands for whom.

    Attributes:
        stride: of video, every n-th appearance of a person is asked about.
        source: (P,) int64; the person whose regions stand for person p: p itself where p is asked about, -1 where p
            has no head box and cannot be asked about.
    """

    stride: int
    source: IntArray

    @property
    def asked(self) -> IntArray:
        """The people asked about, ascending."""
        return np.unique(self.source[self.source >= 0])


def plan(records: Records, stride: int = 1) -> Plan:
    """Every person, or every ``stride``-th appearance of each; the others take the nearest one's regions.

    Who is the same person in the frames of a clip is told by the group and by the person id after its last ``#``.

    Raises:
        DataError: the stride is below 1.
    """
    if stride < 1:
        raise DataError(f"--stride {stride}: must be at least 1")
    source = np.full(records.people, -1, dtype=np.int64)
    appearances: dict[tuple[str, str], list[int]] = {}
    for person in range(records.people):
        if np.isfinite(records.head[person]).all():
            who = str(records.person_id[person]).rpartition("#")[2]
            key = (str(records.groups[records.person_image[person]]), who)
            appearances.setdefault(key, []).append(person)
    for people in appearances.values():
        asked = np.arange(0, len(people), stride)
        order = np.arange(len(people))
        nearest = asked[np.abs(order[:, None] - asked).argmin(1)]  # the earlier of two equally near ones
        source[people] = np.array(people)[nearest]
    return Plan(stride, source)


@dataclass(frozen=True)
class Outcome:
    """What a pass over a split came to.

    Attributes:
        asked: people to be asked about in this shard.
        open: those without an answer, by the fault of the server or of a picture, with the reason.
        unreadable: of these reasons, those that are pictures nobody can read; one a picture.
        unusable: those whose answers, all attempts taken together, were of no use.
        answered: answers that came in this pass.
    """

    asked: int
    open: Mapping[str, str]
    unusable: int
    answered: int
    unreadable: tuple[str, ...] = ()


def ask(
    dataset: GazeDataset,
    records: Records,
    prober: Prober,
    store: AnswerStore,
    who: Plan,
    shard: tuple[int, int] | None = None,
    limit: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Asks about everybody of the plan (or of the shard, or the first ``limit``) who has no usable answer yet.

    Raises:
        VLMError: the model cannot be asked. All answers until then are stored.
    """
    people = who.asked
    if shard is not None:
        groups = [str(records.images[image]) for image in records.person_image[people]]
        people = people[shard_of(groups, *shard)]
    people = people[:limit] if limit else people
    jobs, lost = _jobs(dataset, records, people, prober)
    state = _State(dataset, records, prober, jobs)
    for key, stored in store.answers(records.split).items():
        for answer in stored:
            if key in jobs:
                state.take(key, answer.attempt, answer.reply)
    answered, failed, unreadable = 0, dict(lost), dict.fromkeys(lost.values())
    with store.writer(records.split, shard) as writer:
        for attempt in range(prober.attempts):
            for said in prober.ask(dataset, records, state.waiting(attempt)):
                if isinstance(said, Failure):
                    failed[said.key] = said.reason
                    if isinstance(said, Unreadable):
                        unreadable[said.reason] = None
                    continue
                writer.append(said, attempt)
                answered += 1
                failed.pop(said.key, None)
                state.take(said.key, attempt, said)
                if progress is not None:
                    progress(len(state.done), len(jobs), len(state.tried) - len(state.done))
    missing = lost | {key: failed.get(key, "not answered") for key in jobs if key not in state.tried}
    unusable = sum(key in state.tried and key not in state.done for key in jobs)
    return Outcome(len(people), missing, unusable, answered, tuple(unreadable))


class _State:
    """Who has a usable answer, and how many attempts the others had."""

    def __init__(self, dataset: GazeDataset, records: Records, prober: Prober, jobs: Mapping[str, Job]) -> None:
        self.dataset, self.records, self.prober, self.jobs = dataset, records, prober, jobs
        self.done: set[str] = set()
        self.tried: dict[str, set[int]] = {}

    def take(self, key: str, attempt: int, reply: Reply) -> None:
        self.tried.setdefault(key, set()).add(attempt)
        if key not in self.done and self.read(key, reply).usable:
            self.done.add(key)

    def read(self, key: str, reply: Reply) -> Answer:
        return understand(self.dataset, self.records, self.prober, self.jobs[key].image, reply)

    def waiting(self, attempt: int) -> Iterator[Job]:
        """The people who need this attempt: the earlier ones were made and of no use."""
        for key, job in self.jobs.items():
            tried = self.tried.get(key, set())
            if key not in self.done and attempt not in tried and all(earlier in tried for earlier in range(attempt)):
                yield Job(key, job.person, job.image, job.head, attempt)


def understand(dataset: GazeDataset, records: Records, prober: Prober, image: int, reply: Reply) -> Answer:
    """The regions of an answer about somebody of an image."""
    size = prober.size(dataset, records, image)
    return read_answer(reply.text, reply.finish_reason, size, prober.convention, prober.may_name_none)


def final(
    dataset: GazeDataset, records: Records, prober: Prober, image: int, stored: list[Stored]
) -> tuple[Answer, Reply]:
    """The first usable of a person's answers, or the last one."""
    for answer in stored:
        found = understand(dataset, records, prober, image, answer.reply)
        if found.usable:
            return found, answer.reply
    return found, stored[-1].reply


def _jobs(
    dataset: GazeDataset, records: Records, people: IntArray, prober: Prober
) -> tuple[dict[str, Job], dict[str, str]]:
    """What to ask about by person id; and of whom not even the picture's size can be read, with the reason."""
    jobs, lost = dict[str, Job](), dict[str, str]()
    for person in people:
        key, image = str(records.person_id[person]), int(records.person_image[person])
        try:
            prober.size(dataset, records, image)  # answers are read by it
            size = dataset.size(records, image) if records.head_unit == "pixel" else (1, 1)
        except ImageError as error:
            lost[key] = str(error)
            continue
        head = clean_boxes(normalise(records.head[[person]], records.head_unit, *size))[0]
        jobs[key] = Job(key, int(person), image, head)
    return jobs, lost
