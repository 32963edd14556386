"""The data types of the suite: annotations and records of a data set, a batch, a prediction.

Coordinates are *normalised* unless said otherwise: x / image width and y / image height, (0, 0) the top-left corner.
People are never padded: a batch is its images plus a flat list of people with the index of the image each stands in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gazebench.core.boxes import FloatArray, IntArray, Unit, clean_boxes, holds_boxes, holds_points, normalise

Policy = Literal["error", "skip"]
"""What to do with bad input: stop with an error that names it, or leave it out and report it."""

IN_FRAME, OUT_OF_FRAME, UNKNOWN = 1, 0, -1
"""Values of ``inout``: the target is inside the image, outside it, or not annotated."""

SOCIAL = ("lah", "laeo", "sa")
"""Labels and scores of pairs of people (``pairs_of``): looking at a head (LAH), looking at each other (LAEO), and
shared attention (SA)."""


@dataclass(frozen=True)
class Issue:
    """One problem in a data set: the file, the row (1-based, 0 when it has none) and what is wrong."""

    file: str
    row: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.what}" if self.row else f"{self.file}: {self.what}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Records:
    """The people of one split, in columns; I images, P people, G annotated points. Everything is normalised.

    Attributes:
        dataset: name of the data set.
        split: name of the split.
        images: (I,) str, path relative to the data set's root, or any key the data set can draw from.
        groups: (I,) str, the source an image comes from (clip, scene): splits and intervals cluster by it.
        person_id: (P,) str, unique in the split, stable across machines.
        person_image: (P,) int64, ascending index into ``images``.
        head: (P, 4) float64 xmin, ymin, xmax, ymax; a row of NaN is a person without a box.
        points: (G, 2) float64 x, y; the annotated targets of all people, one person after another.
        point_start: (P + 1,) int64; person p owns ``points[point_start[p]:point_start[p + 1]]``.
        inout: (P,) int8, 1 in frame, 0 out of frame, -1 unknown.
        columns: further columns over people (``subset``, ``label``, ``track`` ...), each of length P; metrics and
            methods may read any of them by name. A float column of shape (P, 4) or (P, K, 4) holds boxes xyxy, where a
            row of NaN is no box, one of shape (P, 2) points; they are cropped and mirrored with the image in training,
            but never jittered. ``track`` (str) is the same for the appearances of one person in the images of a group.
        pairs: labels of pairs of people by name (``SOCIAL``): int8, 1 yes, 0 no, -1 not known, one for each row of
            ``pairs_of(person_image)``; empty where a release has none.
        scored: the columns and pairs that are part of ``fingerprint``, besides the arrays above.
        counts: further numbers of the release by name, e.g. rows that the protocol leaves out.
        sizes: (I, 2) int64 width, height in pixels; (0, 0) where the image's header cannot be read, and then the
            boxes and points of its people are NaN where the release gives them in pixels.
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
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    pairs: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    scored: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    sizes: IntArray
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
        where = f"{self.dataset}/{self.split}"
        for name, (column, length) in expected.items():
            if len(column) != length:
                raise ValueError(f"{where}: {name} has {len(column)} rows, expected {length}")
        if people and (np.diff(self.person_image) < 0).any():
            raise ValueError(f"{where}: person_image must ascend (image-major order)")
        number = int(self.pair_start[-1]) if self.pairs else 0
        for name, labels in self.pairs.items():
            if len(labels) != number:
                raise ValueError(f"{where}: {name} has {len(labels)} rows, expected {number} pairs")
            if name in self.columns:
                raise ValueError(f"{where}: {name} names both a column and pairs")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def people(self) -> int:
        return len(self.person_id)

    @cached_property
    def person_start(self) -> IntArray:
        """(I + 1,) int64; image i owns the people ``person_start[i]:person_start[i + 1]``."""
        return np.searchsorted(self.person_image, np.arange(len(self.images) + 1)).astype(np.int64)

    @cached_property
    def pair_start(self) -> IntArray:
        """(I + 1,) int64; image i owns the rows ``pair_start[i]:pair_start[i + 1]`` of ``pairs_of(person_image)``."""
        people = np.bincount(self.person_image, minlength=len(self.images))
        return ragged_starts(people * (people - 1))

    def points_of(self, person: int) -> FloatArray:
        """(A, 2) the annotated points of one person."""
        return self.points[self.point_start[person] : self.point_start[person + 1]]

    def select(self, people: npt.NDArray[np.bool_], split: str | None = None) -> Self:
        """The marked people (bool of length P) in their order; images left without people are dropped."""
        keep = np.flatnonzero(people)
        kept_images, person_image = np.unique(self.person_image[keep], return_inverse=True)
        # People keep their order, so the pairs of two marked people are all pairs of the selection, in order.
        both = people[pairs_of(self.person_image)].all(axis=1) if self.pairs else None
        return self._taken(kept_images, keep, person_image, both, self.split if split is None else split)

    def of_images(self, images: IntArray) -> Self:
        """The images at these positions, in this order, each with all its people."""
        images = np.asarray(images, dtype=np.int64)
        start, stop = self.person_start[images], self.person_start[images + 1]
        pairs = _rows(self.pair_start[images], self.pair_start[images + 1]) if self.pairs else None
        person_image = np.repeat(np.arange(len(images)), stop - start)
        return self._taken(images, _rows(start, stop), person_image, pairs, self.split)

    def _taken(self, images: IntArray, people: Any, person_image: IntArray, pairs: Any, split: str) -> Self:
        start, stop = self.point_start[:-1][people], self.point_start[1:][people]
        return replace(
            self,
            split=split,
            images=self.images[images],
            groups=self.groups[images],
            person_id=self.person_id[people],
            person_image=person_image.astype(np.int64),
            head=self.head[people],
            points=self.points[_rows(start, stop)],
            point_start=ragged_starts(stop - start),
            inout=self.inout[people],
            columns={name: column[people] for name, column in self.columns.items()},
            pairs={name: labels[pairs] for name, labels in self.pairs.items()},
            sizes=None if self.sizes is None else self.sizes[images],
        )

    def fingerprint(self) -> str:
        """Hex digest of people, head boxes, points and scored columns: records of these are grouped by it."""
        digest = hashlib.sha256(b"normalised normalised")  # the units of heads and points
        for text in (self.images, self.person_id):
            digest.update("\n".join(map(str, text)).encode())
        for array in (self.person_image, self.head, self.points, self.point_start, self.inout):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name in self.scored:
            digest.update(_bytes(self.columns[name] if name in self.columns else self.pairs[name]))
        return digest.hexdigest()

    def full_fingerprint(self, read: Iterable[str] = ()) -> str:
        """Hex digest of everything a score or its interval depends on: also of sources, sizes, and what metrics read.

        Args:
            read: names of fields that metrics read; the columns and pairs among them are covered.
        """
        known = {**self.columns, **self.pairs}
        covered = {"groups": self.groups, "sizes": self.sizes} | {name: known[name] for name in read if name in known}
        digest = hashlib.sha256(self.fingerprint().encode())
        for name in sorted(covered):
            digest.update(f"\n{name}\n".encode() + _bytes(covered[name]))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotations(Records):
    """What a parser returns: records in the release's own units.

    Attributes:
        head_unit: unit of ``head`` and of all columns that hold boxes.
        point_unit: unit of ``points`` and of all columns that hold points.
        files: the annotation files, relative to the data set's root.
        lines: (P, 2) int64, the index of the person's file in ``files`` and the line there; None where there is none.
        sizes: None where the annotations lack them; they are then read from the images' headers.
    """

    head_unit: Unit = "pixel"
    point_unit: Unit = "normalised"
    files: tuple[str, ...] = ()
    lines: IntArray | None = None
    sizes: IntArray | None = None  # type: ignore[assignment]

    def _taken(self, images: IntArray, people: IntArray, person_image: IntArray, pairs: Any, split: str) -> Self:
        taken = super()._taken(images, people, person_image, pairs, split)
        return taken if self.lines is None else replace(taken, lines=self.lines[people])

    def place(self, person: int) -> tuple[str, int]:
        """File and line of a person; the person's image and 0 where they have no line."""
        if self.lines is None:
            return str(self.images[self.person_image[person]]), 0
        return self.files[self.lines[person, 0]], int(self.lines[person, 1])

    def normalised(self, sizes: IntArray) -> Records:
        """Records with clean, normalised boxes, given the sizes (I, 2) of the images in pixels."""
        per_person = sizes[self.person_image]
        per_point = np.repeat(per_person, np.diff(self.point_start), axis=0)

        def boxes(column: FloatArray) -> FloatArray:
            scale = per_person.reshape(len(per_person), *(1,) * (column.ndim - 2), 2)
            return clean_boxes(normalise(column, self.head_unit, scale))

        values = {name: value for name, value in vars(self).items() if name in Records.__dataclass_fields__}
        return Records(
            **values
            | {
                "sizes": sizes,
                "head": boxes(self.head),
                "points": normalise(self.points, self.point_unit, per_point),
                "columns": {
                    name: boxes(column)
                    if holds_boxes(column)
                    else normalise(column, self.point_unit, per_person)
                    if holds_points(column)
                    else column
                    for name, column in self.columns.items()
                },
            }
        )


def ragged_starts(counts: Iterable[int] | Sequence[int]) -> IntArray:
    """(N + 1,) int64 offsets from N counts."""
    numbers = counts if isinstance(counts, np.ndarray) else np.fromiter(counts, dtype=np.int64)
    return np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64)


def ragged_ranges(start: IntArray, stop: IntArray) -> IntArray:
    """The concatenated ranges ``start[0]:stop[0]``, ``start[1]:stop[1]`` ..."""
    counts = stop - start
    return np.repeat(start - ragged_starts(counts)[:-1], counts) + np.arange(counts.sum())


def _rows(start: IntArray, stop: IntArray) -> IntArray | slice:
    """The same as an index: a slice where it is one range, as for a single image, which every sample takes."""
    return slice(int(start[0]), int(stop[0])) if len(start) == 1 else ragged_ranges(start, stop)


def pairs_of(image: IntArray) -> IntArray:
    """(N, 2) all ordered pairs (i, j) of different people of one image, as positions in ``image``.

    They are sorted by image, then by i, then by j, as ``itertools.permutations(people, 2)`` gives them. Of a pair
    (i, j), ``lah`` says that **j looks at i's head** (the order of MTGS's release: the person looked at comes first),
    ``laeo`` that they look at each other and ``sa`` that they look at the same thing.

    Args:
        image: (P,) int64 ascending, the image each person stands in.
    """
    start, stop = np.searchsorted(image, image, "left"), np.searchsorted(image, image, "right")
    others = stop - start - 1
    first = np.repeat(np.arange(len(image)), others)
    second = np.repeat(start - ragged_starts(others)[:-1], others) + np.arange(len(first))
    return np.stack([first, second + (second >= first)], axis=1).astype(np.int64)


def _bytes(column: npt.NDArray[Any]) -> bytes:
    """What a digest takes of an array; the bytes of one of texts would depend on its longest text."""
    return "\n".join(column.tolist()).encode() if column.dtype.kind == "U" else np.ascontiguousarray(column).tobytes()


def stable_key(text: str) -> int:
    """A signed 64-bit hash of an id, the same on every machine; metrics deduplicate by it across processes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True)
class Item:
    """One item of a task (``data.task.Task``), e.g. a question, as a method sees it.

    Attributes:
        id: unique in the split.
        person: the row of its person in the batch.
        input: what the method is given, as the task defines it.
    """

    id: str
    person: int
    input: Any


@dataclass
class Targets:
    """The ground truth of P people; a method sees it in its loss, never in its forward at evaluation.

    Attributes:
        point: (P, 2) float32 normalised; the first annotation; NaN when the target is out of frame or unknown.
        inout: (P,) int64, 1 in frame, 0 out of frame, -1 unknown.
        points: (G, 2) float64 normalised; every annotation.
        point_person: (G,) int64 ascending; the person of each annotation.
        columns: the further columns of the records by name, each of length P: texts as arrays, numbers as tensors.
            ``label`` is the category looked at ("" for none), ``target_box`` (P, 4) the box of the object looked at,
            ``heads`` (P, K, 4) all head boxes of the person's image, ``subset`` is ``consistent``, ``inconsistent`` or
            "" for none.
        pairs: labels of pairs of people by name (``lah``, ``laeo``, ``sa``), (N,) int64 in the order of
            ``Batch.pairs``: 1 yes, 0 no, -1 not known (left out of losses and scores).
        truths: by task, the ground truth of each of the batch's ``items``.
    """

    point: Tensor
    inout: Tensor
    points: Tensor
    point_person: Tensor
    columns: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Tensor] = field(default_factory=dict)
    truths: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Batch:
    """B images with P people in all.

    Attributes:
        images: (B, 3, H, W) uint8, resized, not yet normalised; None for methods that use no image.
        image_index: (P,) int64 ascending; the image each person stands in.
        head: (P, 4) float32 normalised xyxy; a row of NaN is a person without a box.
        person_ids: P stable ids.
        image_ids: B keys of the images.
        sizes: (B, 2) int64 original width, height in pixels.
        targets: the ground truth; None in prediction.
        skipped: images that could not be read, with the reason (policy ``skip``).
        items: by task, the items about these people, where the method has tasks.
        heads: (P, 3, S, S) uint8, heads cut out as ``Preprocess.heads`` says; None for methods that need none.
        depth: (B, H, W) float32 depth maps, larger where it is nearer; None for methods that need none.
        track: for methods of clips (``Preprocess.clips``), the track of each person: the same person through a clip.
        step: (P,) int64, the place of each person's row in their track, counted over the whole split.
        window: (P, L) int64, for methods that answer L rows of a track together (``Clips.reach``): these rows in order,
            of the people of this batch and, from P on, of ``context``. The nearest stands for one that cannot be read.
        context: further images whose people are in windows; nobody asks about them.
    """

    images: Tensor | None
    image_index: Tensor
    head: Tensor
    person_ids: list[str]
    image_ids: list[str]
    sizes: Tensor
    targets: Targets | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    items: dict[str, list[Item]] = field(default_factory=dict)
    heads: Tensor | None = None
    depth: Tensor | None = None
    track: list[str] = field(default_factory=list)
    step: Tensor | None = None
    window: Tensor | None = None
    context: Batch | None = None

    @property
    def people(self) -> int:
        return len(self.person_ids)

    @property
    def pairs(self) -> Tensor:
        """(N, 2) int64 all ordered pairs (i, j) of people of the same image: ``pairs_of``, where ``lah`` is explained.

        ``batch.pairs[:, 1]`` are those who look, ``batch.pairs[:, 0]`` those whose head may be looked at.
        """
        return torch.from_numpy(pairs_of(self.image_index.cpu().numpy())).to(self.image_index.device)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with every tensor on ``device``; Lightning calls it to move a batch."""
        return _moved(self, torch.device(device))


@dataclass
class Prediction:
    """A method's prediction for the P people of a batch; None for what it does not predict.

    Attributes:
        heatmap: (P, h, w) float in [0, 1], raw (AUC needs it unrounded).
        point: (P, 2) float normalised; given only by methods that predict a point directly. Where it is None the
            protocol decodes the heatmap.
        inout: (P,) float, larger means more surely in frame.
        label: P texts, the name of the category each person looks at, "" where the method has no answer.
        lah: (N,) float in [0, 1] in the order of ``Batch.pairs``, predicted by the method itself; the metrics derive
            scores from points alone (post-processing) where it is None.
        laeo: as ``lah``.
        sa: as ``lah``.
        text: P texts that a vision-language model wrote about each person, "" where nothing usable; stored, not scored.
        text_point: (P, 2) float normalised, the points in such texts, scored apart from ``point``; the middle of the
            image for a text without a point.
        used_annotation: (P,) int64, the index of the annotation that a human baseline gave as its prediction, which is
            then left out of the ground truth; -1 for none.
        outputs: by task, one text for each of the batch's ``items``, "" for none.
    """

    heatmap: Tensor | None = None
    point: Tensor | None = None
    inout: Tensor | None = None
    label: list[str] | None = None
    lah: Tensor | None = None
    laeo: Tensor | None = None
    sa: Tensor | None = None
    text: list[str] | None = None
    text_point: Tensor | None = None
    used_annotation: Tensor | None = None
    outputs: dict[str, list[str]] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Prediction:
        """A copy with every tensor detached and on ``device``."""
        return _moved(self, torch.device(device), detach=True)

    def tensors(self) -> dict[str, Tensor]:
        """The scored numeric fields that are not None, by name."""
        names = ("heatmap", "point", "inout", "text_point", *SOCIAL)
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _moved(value: Any, device: torch.device, detach: bool = False) -> Any:
    if isinstance(value, Tensor):
        # To the CPU the copy must be finished: it would be read before a GPU has written it.
        return (value.detach() if detach else value).to(device, non_blocking=device.type != "cpu")
    if isinstance(value, Targets | Batch | Prediction):
        return replace(value, **{name: _moved(item, device, detach) for name, item in vars(value).items()})
    if isinstance(value, Mapping):
        return {name: _moved(item, device, detach) for name, item in value.items()}
    return value
