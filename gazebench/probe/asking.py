"""Asks a prober about the people of a split; an interrupted pass can be continued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gazebench.core.boxes import IntArray
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.probe.parsing import ParsedAnswer
from gazebench.probe.probers import Job, Prober
from gazebench.vlm.ask import Outcome
from gazebench.vlm.ask import ask as ask_resumably
from gazebench.vlm.messages import Failure, Reply
from gazebench.vlm.store import AnswerStore, StoredAnswer, shard_of


@dataclass(eq=False)
class Probe:
    """A prober and the people of a split it is asked about.

    Attributes:
        stride: in video, every n-th frame of a person is asked about; the other frames take the nearest one's regions.
        source: (P,) int64; the row whose regions are used for row p: p itself where p is asked about, -1 where p has no
            head box.

    Raises:
        DataError: the stride is below 1.
    """

    dataset: GazeDataset
    records: Records
    prober: Prober
    store: AnswerStore
    stride: int = 1
    source: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.source = sources(self.records, self.stride)

    @property
    def asked(self) -> IntArray:
        """The rows asked about, ascending."""
        return np.unique(self.source[self.source >= 0])

    def unreadable(self, image: int) -> str:
        """Why an image's header cannot be read, "" where it can."""
        if not self.records.sizes[image].all():
            try:
                self.dataset.image(self.records, image)
            except ImageError as error:
                return str(error)
        return ""

    def parse(self, person: int, reply: Reply) -> ParsedAnswer:
        width, height = self.records.sizes[self.records.person_image[person]].tolist()
        return self.prober.parse(reply, (width, height))

    def final(self, person: int, stored: Sequence[StoredAnswer]) -> ParsedAnswer:
        """A person's first usable answer, or the last one if none is usable."""
        for answer in stored:
            found = self.parse(person, answer.reply)
            if found.usable:
                break
        return found


def sources(records: Records, stride: int) -> IntArray:
    """(P,) int64, see ``Probe.source``.

    People of one group with the same ``track`` (a column of data sets of clips) are one person in several frames.
    """
    if stride < 1:
        raise DataError(f"--stride {stride}: the stride must be at least 1")
    source = np.full(records.people, -1, dtype=np.int64)
    appearances: dict[tuple[str, str], list[int]] = {}
    tracks = records.columns.get("track", records.person_id)
    # An image without a size has no normalised boxes, although the release may have some.
    unknown = (records.sizes == 0).any(axis=1)[records.person_image]
    for person in np.flatnonzero(np.isfinite(records.head).all(axis=1) | unknown).tolist():
        key = (str(records.groups[records.person_image[person]]), str(tracks[person]))
        appearances.setdefault(key, []).append(person)
    for people in appearances.values():
        asked = np.arange(0, len(people), stride)
        order = np.arange(len(people))
        nearest = asked[np.abs(order[:, None] - asked).argmin(1)]  # the earlier of two equally near ones
        source[people] = np.array(people)[nearest]
    return source


def ask(probe: Probe, *, shard: tuple[int, int] | None = None, limit: int = 0, progress: str = "") -> Outcome:
    """Asks about everybody (or the shard, or the first ``limit`` people) without a usable answer.

    Raises:
        VLMError: the model cannot be asked. All answers until then are stored.
    """
    records, people = probe.records, probe.asked
    if shard is not None:
        people = people[shard_of([str(records.images[image]) for image in records.person_image[people]], *shard)]
    rows = {str(records.person_id[person]): int(person) for person in (people[:limit] if limit else people)}
    reasons = {image: probe.unreadable(image) for image in {int(records.person_image[row]) for row in rows.values()}}
    lost = {key: reason for key, row in rows.items() if (reason := reasons[int(records.person_image[row])])}

    def send(attempt: int, waiting: Callable[[str], bool]) -> Iterable[Reply | Failure]:
        jobs = (
            Job(key, int(records.person_image[row]), records.head[row], attempt)
            for key, row in rows.items()
            if waiting(key)
        )
        return probe.prober.ask(probe.dataset, records, jobs)

    outcome = ask_resumably(
        probe.store,
        records.split,
        [key for key in rows if key not in lost],
        send,
        shard=shard,
        attempts=probe.prober.attempts,
        usable=lambda key, reply: probe.parse(rows[key], reply).usable,
        progress=progress,
    )
    unreadable = tuple(dict.fromkeys([*lost.values(), *outcome.unreadable]))
    return replace(outcome, asked=len(rows), open={**lost, **outcome.open}, unreadable=unreadable)
