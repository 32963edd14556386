"""Questions about the pictures of a dataset's split: what its records and its words can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gazebench.core.boxes import FloatArray
from gazebench.core.types import Records
from gazebench.data.dataset import Description, GazeDataset
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.questions.writing import Asked, Picture, Questioner, plan

SEED = 0
"""Of all questions of the protocol: another seed asks other questions, whose scores cannot be compared."""
PROBED = 200
"""Pictures that are looked through to learn whether a dataset describes anything."""

Words = Callable[[int], list[Description]]
"""From an image of the records to what can be said of its people."""


class Interviewer:
    """Asks about the people of some records.

    The same split of the same dataset is always asked the same, by whoever makes the questions.

    Args:
        dataset: whose ``descriptions`` and ``everybody`` say how people can be told apart.
        records: those asked about.
        seed: of all that is drawn by lot.
        words: takes the place of the dataset's ``descriptions``.
    """

    def __init__(self, dataset: GazeDataset, records: Records, seed: int = SEED, words: Words | None = None) -> None:
        self.dataset, self.records, self.seed, self.given = dataset, records, seed, words
        self.kinds = plan(records, seed)
        self.start = records.person_start
        probed = np.linspace(0, len(records) - 1, min(PROBED, len(records))).astype(int)
        describes = any(said.target for image in probed for said in self.words(int(image)))
        self.questioner = Questioner(seed, describes, templates())

    def words(self, image: int) -> list[Description]:
        """What can be said of the people of an image."""
        return self.given(image) if self.given is not None else self.dataset.descriptions(self.records, image)

    def about(self, image: int, head: FloatArray, points: Sequence[FloatArray], size: tuple[int, int]) -> list[Asked]:
        """The questions about an image as it is shown, each with the position of its person in the image.

        Args:
            image: of the records.
            head: (P, 4) normalised, in the view.
            points: of each person (A, 2) normalised, in the view.
            size: width, height in pixels of the view.
        """
        people = slice(self.start[image], self.start[image + 1])
        records = self.records
        picture = Picture(
            ids=[str(person) for person in records.person_id[people]],
            head=head,
            points=points,
            inout=records.inout[people].astype(np.int64),
            kinds=[str(kind) for kind in self.kinds[people]],
            words=self.words(image),
            size=size,
            everybody=self.dataset.everybody,
        )
        return list(self.questioner.ask(picture))

    def everything(self) -> Iterator[tuple[int, Asked]]:
        """All questions about the pictures as they are, with the image each is about; picture by picture."""
        records = self.records
        for image in range(len(records)):
            width, height = records.sizes[image].tolist()
            people = range(self.start[image], self.start[image + 1])
            head = records.head[people.start : people.stop]
            points = [records.points_of(person) for person in people]
            for asked in self.about(image, head, points, (width, height)):
                yield image, asked
