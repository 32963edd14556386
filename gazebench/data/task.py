"""A task beyond where people look: it adds items to samples and metrics to a protocol, e.g. questions about gaze."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.types import Item, Records
from gazebench.metrics.protocol import ProtocolMetric

if TYPE_CHECKING:
    from gazebench.data.dataset import GazeDataset


class ItemSource(ABC):
    """The items of one split: what a task asks about the people of an image."""

    @abstractmethod
    def items(
        self, image: int, head: FloatArray, points: Sequence[FloatArray], size: tuple[int, int]
    ) -> list[tuple[Item, Any]]:
        """The items of an image as it is shown, each with its truth; ``Item.person`` counts the image's people.

        Args:
            image: position in the records.
            head: (P, 4) normalised boxes, in the training view where there is one.
            points: of each person (A, 2) normalised, in the view.
            size: width, height in pixels of the view.
        """

    def of_images(self, records: Records, images: IntArray) -> tuple[list[Item], list[Any]]:
        """The items of images as they are in the records, and their truths; ``Item.person`` counts all people."""
        items, truths, people = list[Item](), list[Any](), 0
        for image in images.tolist():
            one = records.of_images(np.array([image]))
            points = [one.points_of(person) for person in range(one.people)]
            for item, truth in self.items(image, one.head, points, tuple(one.sizes[0].tolist())):
                items.append(replace(item, person=item.person + people))
                truths.append(truth)
            people += one.people
        return items, truths


class Task(ABC):
    """A task that methods may declare (``Method.tasks``); its answers are texts, one for each item.

    Attributes:
        name: key of ``Batch.items``, ``Targets.truths`` and ``Prediction.outputs``; the column of predictions files;
            the ``unit`` of metrics that count items.
        metrics: columns that a scored run has besides those of the data set's protocol.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[ProtocolMetric, ...]]

    @abstractmethod
    def source(self, dataset: GazeDataset, records: Records) -> ItemSource:
        """Where the items of these records come from; the same split gives the same items, whoever asks."""

    @abstractmethod
    def fields(self, items: Sequence[Item], truths: Sequence[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """What its metrics read, by the names of their ``fields``; the lists are parallel."""

    def describe(self) -> dict[str, Any]:
        """What a record says of the task: at least ``id``, its name with a version."""
        return {"id": f"{self.name}-v1"}
