"""The nouns of the suite: records of a dataset, a batch, a prediction.

Every coordinate says its unit. *Normalised* means x / image width and y / image height, both in [0, 1], with
(0, 0) the top-left corner of the image. People are never padded: a batch is its images plus a flat list of
people with the index of the image each of them stands in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gazebench.core.errors import DataError as DataError
from gazebench.core.errors import PictureError as PictureError

Unit = Literal["pixel", "normalised"]
Policy = Literal["error", "skip"]
"""Bad input: stop and name it, or leave it out, named and counted."""
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

IN_FRAME, OUT_OF_FRAME, UNKNOWN = 1, 0, -1
"""Values of ``inout``: the target is in the picture, is outside it, or nobody said."""

SOCIAL = ("lah", "laeo", "sa")
"""Labels and scores of pairs of people (``pairs_of``): looking at a head, looking at each other, shared attention."""


Form = Literal["object", "direction", "point"]
"""What a question asks for: what somebody looks at, in which direction, or at which point."""
Task = Literal["object", "direction", "point", "recognition"]
"""What a question counts for; those of ``recognition`` have any form, and half of them cannot be answered."""
Observer = Literal["box", "unique", "ambiguous", "non_exist"]
"""How a question refers to whom it asks about: by a head box, or by words that fit one, several or no person."""
Refusal = Literal["", "ambiguous", "non_exist", "outside"]
"""Why a question cannot be answered: several people fit, nobody does, or the target is outside the picture."""


@dataclass(frozen=True)
class Issue:
    """One problem found in a dataset: the file, the row (1-based, 0 when it has none) and what is wrong."""

    file: str
    row: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.what}" if self.row else f"{self.file}: {self.what}"


@dataclass(frozen=True, eq=False)
class Records:
    """The annotations of one split, in columns; I images, P people, G annotated points.

    Attributes:
        images: (I,) str, path relative to the dataset's root, or any key the dataset can draw from.
        groups: (I,) str, the source a picture comes from (clip, scene): what splits and intervals cluster by.
        person_id: (P,) str, unique in the split, stable across machines.
        person_image: (P,) int64, ascending index into ``images``.
        head: (P, 4) float64 xmin, ymin, xmax, ymax in ``head_unit``; a row of NaN is a person without a box.
        points: (G, 2) float64 x, y in ``point_unit``; the annotated targets of all people, one after another.
        point_start: (P + 1,) int64; person p owns ``points[point_start[p]:point_start[p + 1]]``.
        inout: (P,) int8, 1 in frame, 0 out of frame, -1 unknown.
        columns: further columns over people (``subset``, ``label``, ``track`` ...), each of length P. A float column of
            shape (P, 4) or (P, K, 4) holds boxes xyxy in ``head_unit``, a row of NaN is none (``holds_boxes``): it
            reaches the batch normalised and in the training view, as the head boxes do, but without their jitter.
        pairs: labels of pairs of people by name (``SOCIAL``): int8, 1 yes, 0 no, -1 not known, one for each row of
            ``pairs_of(person_image)``; empty where a release has none.
        scored: the columns and pairs a score depends on besides what every score does; they count in the fingerprint.
        counts: further numbers of the release by name, e.g. rows that the protocol leaves out.
        sizes: (I, 2) int64 width, height in pixels where the annotations tell; else None (read from the image).
        issues: rows that were skipped, with their reason.
    """

    dataset: str
    split: str
    images: npt.NDArray[Any]
    groups: npt.NDArray[Any]
    person_id: npt.NDArray[Any]
    person_image: IntArray
    head: FloatArray
    points: FloatArray
    point_start: IntArray
    inout: npt.NDArray[np.int8]
    head_unit: Unit = "pixel"
    point_unit: Unit = "normalised"
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    pairs: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    scored: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    sizes: IntArray | None = None
    issues: tuple[Issue, ...] = ()

    def __post_init__(self) -> None:
        people = len(self.person_id)
        expected = {
            "groups": (self.groups, len(self.images)),
            "person_image": (self.person_image, people),
            "head": (self.head, people),
            "inout": (self.inout, people),
            "point_start": (self.point_start, people + 1),
            **{name: (column, people) for name, column in self.columns.items()},
        }
        for name, (column, length) in expected.items():
            if len(column) != length:
                raise ValueError(f"{self.dataset}/{self.split}: {name} has {len(column)} rows, expected {length}")
        if people and (np.diff(self.person_image) < 0).any():
            raise ValueError(f"{self.dataset}/{self.split}: person_image must ascend (image-major order)")
        number = int(pair_starts(self.person_image, len(self.images))[-1])
        for name, labels in self.pairs.items():
            if len(labels) != number:
                raise ValueError(f"{self.dataset}/{self.split}: {name} has {len(labels)} rows, expected {number} pairs")
            if name in self.columns:
                raise ValueError(f"{self.dataset}/{self.split}: {name} names both a column and pairs")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def people(self) -> int:
        """The number of people."""
        return len(self.person_id)

    @property
    def person_start(self) -> IntArray:
        """(I + 1,) int64; image i owns the people ``person_start[i]:person_start[i + 1]``."""
        return np.searchsorted(self.person_image, np.arange(len(self.images) + 1)).astype(np.int64)

    def points_of(self, person: int) -> FloatArray:
        """(A, 2) the annotated points of one person, in ``point_unit``."""
        return self.points[self.point_start[person] : self.point_start[person + 1]]

    def select(self, people: npt.NDArray[np.bool_], split: str | None = None) -> Records:
        """The records of the marked people (bool of length P); images left without people are dropped."""
        keep = np.flatnonzero(people)
        kept_images, person_image = np.unique(self.person_image[keep], return_inverse=True)
        counts = np.diff(self.point_start)
        owner = np.repeat(np.arange(self.people), counts)
        # Whoever is left keeps the order, so the pairs left are those of the people left, in order.
        both = people[pairs_of(self.person_image)].all(axis=1) if self.pairs else None
        return replace(
            self,
            split=self.split if split is None else split,
            images=self.images[kept_images],
            groups=self.groups[kept_images],
            person_id=self.person_id[keep],
            person_image=person_image.astype(np.int64),
            head=self.head[keep],
            points=self.points[people[owner]] if len(owner) else self.points,
            point_start=np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
            inout=self.inout[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
            pairs={name: labels[both] for name, labels in self.pairs.items()},
            sizes=None if self.sizes is None else self.sizes[kept_images],
        )

    def fingerprint(self) -> str:
        """Hex digest of everything a score depends on: who, where, which box, which points."""
        digest = hashlib.sha256(f"{self.head_unit} {self.point_unit}".encode())
        for text in (self.images, self.person_id):
            digest.update("\n".join(map(str, text)).encode())
        for array in (self.person_image, self.head, self.points, self.point_start, self.inout):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name in self.scored:
            column = self.columns[name] if name in self.columns else self.pairs[name]
            texts = column.dtype.kind == "U"  # whose bytes depend on the longest of them
            digest.update("\n".join(column).encode() if texts else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def pairs_of(image: IntArray) -> IntArray:
    """(N, 2) all ordered pairs (i, j) of different people of one image, as positions in ``image``.

    Image by image, and within one as ``itertools.permutations(people, 2)`` gives them: by i, then by j. Of a pair
    (i, j), ``lah`` says that **j looks at i's head** (the order of MTGS's release: who is looked at comes first),
    ``laeo`` that they look at each other and ``sa`` that they look at the same thing.

    Args:
        image: (P,) int64 ascending, the image each person stands in.
    """
    start, stop = np.searchsorted(image, image, "left"), np.searchsorted(image, image, "right")
    others = stop - start - 1
    first = np.repeat(np.arange(len(image)), others)
    second = np.repeat(start - ragged_starts(others)[:-1], others) + np.arange(len(first))
    return np.stack([first, second + (second >= first)], axis=1).astype(np.int64)


def pair_starts(image: IntArray, images: int) -> IntArray:
    """(images + 1,) int64; image k owns the rows ``pair_starts[k]:pair_starts[k + 1]`` of ``pairs_of(image)``."""
    people = np.bincount(image, minlength=images)
    return ragged_starts(people * (people - 1))


def holds_boxes(column: npt.NDArray[Any]) -> bool:
    """Whether a column of ``Records`` holds boxes: float, (P, 4) or (P, K, 4)."""
    return column.dtype.kind == "f" and column.ndim > 1 and column.shape[-1] == 4


def normalise(values: FloatArray, unit: Unit, width: int, height: int) -> FloatArray:
    """Divides the last axis (x, y pairs) by the image's width and height where it is in pixels."""
    if unit == "normalised":
        return np.asarray(values, dtype=np.float64)
    scale = np.array([width, height] * (values.shape[-1] // 2), dtype=np.float64)
    return np.asarray(values, dtype=np.float64) / scale


def clean_boxes(boxes: FloatArray) -> FloatArray:
    """Swaps reversed corners and clips to the image (PROTOCOLS: box clean-up); (N, 4) normalised xyxy."""
    low = np.minimum(boxes[:, :2], boxes[:, 2:])
    high = np.maximum(boxes[:, :2], boxes[:, 2:])
    return np.clip(np.concatenate([low, high], axis=1), 0.0, 1.0)


def sample_key(text: str) -> int:
    """A stable signed 64-bit key of a person id: what metrics deduplicate by across processes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True)
class InWords:
    """What words can say of one person of a picture.

    Attributes:
        traits: what the person looks like, by the name of the trait (``clothes``: ``red``).
        hidden: the names of those traits that cannot be seen in this picture.
        target: what the person looks at, described in a few words without an article; "" where nobody knows, or
            where there is nothing.
        labels: the categories that count as right for it.
    """

    traits: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    target: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question about somebody of a picture.

    Attributes:
        id: unique in the split: the person's id and the task.
        person: the row of the person it was made for, in the records or in the batch.
        task: what the answer counts for; a method must not use it, since a user's question comes without.
        form: what is asked for.
        observer: how the person is referred to.
        text: the question.
    """

    id: str
    person: int
    task: Task
    form: Form
    observer: Observer
    text: str


@dataclass(frozen=True)
class Truth:
    """What is known of a question's answer; a method sees it in its loss, never in its forward at evaluation.

    Attributes:
        answer: the answer as it should be written.
        refusal: why there is none; "" where there is.
        points: the annotated points, normalised; empty with a refusal.
        head: xyxy normalised; NaN where it is not known.
        size: width, height of the picture in pixels.
        direction: sector 0 to 7 (``questions.geometry``), -1 where there is none.
        labels: the right categories; empty where nobody told.
        references: descriptions of the target; empty likewise.
    """

    answer: str
    refusal: Refusal = ""
    points: tuple[tuple[float, float], ...] = ()
    head: tuple[float, float, float, float] = (math.nan,) * 4
    size: tuple[int, int] = (1, 1)
    direction: int = -1
    labels: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One item of a task, e.g. a question, as a method sees it."""

    id: str
    person: int
    input: Any


@dataclass
class Targets:
    """What is to be predicted, for P people; a method sees it in its loss, never in its forward at evaluation.

    Attributes:
        point: (P, 2) float32 normalised; one target for training (the first annotation, the mean at test);
            NaN when the target is out of frame or unknown.
        inout: (P,) int64, 1 in frame, 0 out of frame, -1 unknown.
        points: (G, 2) float64 normalised; every annotation.
        point_person: (G,) int64 ascending; the person of each annotation.
        subset: P names (``consistent``, ``inconsistent`` or "" where the person has none).
        extra: the further columns of the records by name, each of length P: texts as arrays, numbers as tensors. Those
            metrics know are ``label`` (P texts, the category looked at, "" for none), ``target_box`` (P, 4), the box
            of the thing looked at, and ``heads`` (P, K, 4), all head boxes of the person's picture, both float64
            normalised xyxy, a row of NaN is none; ``labels`` (P texts), all right categories of a person, joined by
            ``|``. ``lah``, ``laeo`` and ``sa`` are labels of the pairs of people instead, (N,) int64 in the order of
            ``Batch.pairs``: 1 yes, 0 no, -1 not known (left out of losses and scores).
        answers: what is known of the answer to each of the batch's ``questions``.
    """

    point: Tensor
    inout: Tensor
    points: Tensor
    point_person: Tensor
    subset: list[str]
    extra: dict[str, Any] = field(default_factory=dict)
    answers: list[Truth] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Tensor] = field(default_factory=dict)
    truths: dict[str, list[Any]] = field(default_factory=dict)

    def points_of(self, person: int) -> Tensor:
        """(A, 2) the annotations of one person of the batch."""
        return self.points[self.point_person == person]


@dataclass
class Batch:
    """B images with P people in all.

    Attributes:
        images: (B, 3, H, W) uint8, resized, not yet normalised; None for methods that look at no picture.
        image_index: (P,) int64 ascending; the image each person stands in.
        head: (P, 4) float32 normalised xyxy; a row of NaN is a person without a box.
        person_ids: P stable ids.
        image_ids: B keys of the images.
        groups: B sources (clip, scene).
        sizes: (B, 2) int64 original width, height in pixels.
        targets: what is to be predicted; None when nothing is known (``predict``).
        skipped: images that could not be read, as ``path: reason`` (policy ``skip``).
        questions: what is asked about these people, where a method's preprocessing wants questions.
        extra: further inputs a method's preprocessing made.
    """

    images: Tensor | None
    image_index: Tensor
    head: Tensor
    person_ids: list[str]
    image_ids: list[str]
    groups: list[str]
    sizes: Tensor
    targets: Targets | None = None
    skipped: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    items: dict[str, list[Item]] = field(default_factory=dict)

    @property
    def people(self) -> int:
        """The number of people P."""
        return len(self.person_ids)

    @property
    def pairs(self) -> Tensor:
        """(N, 2) int64 all ordered pairs (i, j) of people of the same image: ``pairs_of``, where ``lah`` is explained.

        ``batch.pairs[:, 1]`` are those who look, ``batch.pairs[:, 0]`` those whose head may be looked at. An image
        with one person has no pair.
        """
        return torch.from_numpy(pairs_of(self.image_index.cpu().numpy())).to(self.image_index.device)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with every tensor on ``device``; Lightning calls it to move a batch."""
        return _moved(self, torch.device(device))

    def split_by_image(self, flat: Tensor) -> list[Tensor]:
        """Splits a flat (P, ...) tensor into B tensors, one per image."""
        counts = torch.bincount(self.image_index.cpu(), minlength=len(self.image_ids))
        return list(flat.split(counts.tolist()))


@dataclass
class Prediction:
    """What a method says of the P people of a batch; a field it has no opinion on is None.

    Attributes:
        heatmap: (P, h, w) float in [0, 1], raw (AUC needs it unrounded).
        point: (P, 2) float normalised; given only by methods that predict a point directly. Where it is None the
            protocol decodes the heatmap.
        inout: (P,) float, larger means more surely in frame.
        used_annotation: (P,) int64, the annotation a human baseline used as its answer, which is therefore left out
            of the truth; -1 for none.
        extra: named outputs of further tasks (semantic, social, text) and of a method's own auxiliary losses. ``label``
            is a list of P texts, the category each person looks at, "" where the method has no answer: a name and not
            an index, so that a method needs to know no dataset's numbering. ``lah``, ``laeo`` and ``sa`` are (N,)
            float probabilities in [0, 1] in the order of ``Batch.pairs``, by heads of the method's own; scores that
            follow from points alone (PP) are the harness's business. ``answers`` is a list of texts, one for each of
            ``Batch.questions``, "" for none.
    """

    heatmap: Tensor | None = None
    point: Tensor | None = None
    inout: Tensor | None = None
    used_annotation: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    label: list[str] | None = None
    lah: Tensor | None = None
    laeo: Tensor | None = None
    sa: Tensor | None = None
    text: list[str] | None = None
    outputs: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:  # until the evaluator knows the fields
        given = {name: getattr(self, name) for name in ("label", *SOCIAL, "text")}
        given["answers"] = self.outputs.get("questions")
        self.extra = {name: value for name, value in given.items() if value is not None} | self.extra

    def to(self, device: torch.device | str) -> Prediction:
        """A copy with every tensor detached and on ``device``."""
        return _moved(self, torch.device(device), detach=True)


def _moved(value: Any, device: torch.device, detach: bool = False) -> Any:
    if isinstance(value, Tensor):
        return (value.detach() if detach else value).to(device, non_blocking=True)
    if isinstance(value, Targets | Batch | Prediction):
        return replace(value, **{name: _moved(item, device, detach) for name, item in vars(value).items()})
    if isinstance(value, Mapping):
        return {name: _moved(item, device, detach) for name, item in value.items()}
    return value


def ragged_starts(counts: Iterable[int] | Sequence[int]) -> IntArray:
    """(N + 1,) int64 offsets from N counts."""
    return np.concatenate([[0], np.cumsum(np.fromiter(counts, dtype=np.int64))]).astype(np.int64)
