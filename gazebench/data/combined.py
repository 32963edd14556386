"""Several data sets as one to train on; each is tested by itself, under its own protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.types import Annotations, Records, ragged_starts
from gazebench.data.dataset import Card, Crop, Description, GazeDataset, strided

FILL: dict[str, Any] = {"U": "", "f": np.nan}
"""What a person has in a column that only another data set has, by its kind; columns of other kinds need all."""


@dataclass(eq=False)
class CombinedDataset(GazeDataset):
    """The people of several data sets, one set after another; ``combine`` makes a class for given data sets.

    Images, groups and people have the name of their data set and a slash before their own. Pair labels that a data set
    lacks are unknown. The validation split, by which an epoch may be selected, is that of the first data set, and so
    is the protocol that scores it.

    Args:
        root: the folders of the releases in the order of the names, joined by ``+``; empty for one that needs none.
        bad_rows: of every data set.
        subsets: of every data set.
        head_boxes: of every data set.
        depth: of every data set; to give one each, use ``settings``.
        decoder: turns heatmaps into points, where it is not to be the protocol's.
        missing_boxes: of every data set.
        settings: further settings by name, e.g. ``{"gazeworld": {"train": 100}}``.
        strides: by name, every n-th image of each source in training.
        weights: by name, how often a training image is seen in an epoch on average; 1 where it is not given.
    """

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    strides: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    parts: ClassVar[Mapping[str, type[GazeDataset]]]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, given in (("settings", self.settings), ("strides", self.strides), ("weights", self.weights)):
            if unknown := sorted(given.keys() - self.parts.keys()):
                raise ValueError(f"{name} of {', '.join(unknown)}; the data sets are {', '.join(self.parts)}")
        if any(stride < 1 for stride in self.strides.values()) or any(weight <= 0 for weight in self.weights.values()):
            raise ValueError("strides must be at least 1 and weights positive")
        self.members = {name: cls(**self.options(name)) for name, cls in self.parts.items()}

    def options(self, name: str) -> dict[str, Any]:
        """The constructor's arguments of one data set, as plain values."""
        roots = [] if self.root is None else str(self.root).split("+")
        if len(roots) not in (0, len(self.parts)):
            raise ValueError(
                f"root has {len(roots)} folders for {len(self.parts)} data sets ({', '.join(self.parts)}): join by +"
            )
        root = dict(zip(self.parts, roots, strict=False)).get(name)
        shared = {each.name: getattr(self, each.name) for each in fields(GazeDataset) if each.init}
        given = {key: None if value is None else str(value) for key, value in shared.items()}
        return given | {"root": root or None} | self.settings.get(name, {})

    def records(self, split: str) -> Records:
        if split not in self._memo:
            found: dict[str, Records] = {}
            for name, member in self.members.items():
                if split == "val" and found:
                    break
                records, stride = member.records(split), self.strides.get(name, 1)
                if stride > 1 and split in ("train", "trainval"):
                    records = records.select(strided(records, stride)[records.person_image])
                found[name] = records
            self._memo[split] = joined(self.card.name, split, found)
        return self._memo[split]

    def repeats(self, records: Records) -> FloatArray | None:
        if not self.weights:
            return None
        names = [str(image).partition("/")[0] for image in records.images]
        return np.array([self.weights.get(name, 1.0) for name in names])

    def image(
        self,
        records: Records,
        image: int,
        size: tuple[int, int] | None = None,
        crop: Crop | None = None,
        flip: bool = False,
    ) -> npt.NDArray[np.uint8]:
        member, own = self._own(records, image)
        return member.image(own, 0, size, crop, flip)

    def path(self, records: Records, image: int) -> Path:
        member, own = self._own(records, image)
        return member.path(own, 0)

    def depth_map(
        self, records: Records, image: int, size: tuple[int, int], crop: Crop | None = None, flip: bool = False
    ) -> npt.NDArray[np.float32]:
        member, own = self._own(records, image)
        return member.depth_map(own, 0, size, crop, flip)

    def salient_regions(self, records: Records, image: int) -> FloatArray | None:
        member, own = self._own(records, image)
        return member.salient_regions(own, 0)

    def descriptions(self, records: Records, image: int) -> list[Description]:
        member, own = self._own(records, image)
        return member.descriptions(own, 0)

    def lacking(self, split: str) -> list[str]:
        known = {name: member.completeness(split) for name, member in self.members.items()}
        return [f"{name}: {defect}" for name, found in known.items() for defect in found.defects]

    def identity(self, split: str) -> dict[str, Any]:
        """The base's, with those of the data sets and how they are mixed."""
        return super().identity(split) | {
            "members": {name: member.identity(split) for name, member in self.members.items()},
            "strides": self.strides,
            "weights": self.weights,
        }

    def _own(self, records: Records, image: int) -> tuple[GazeDataset, Records]:
        """The data set an image is from, and the image's records as that data set calls it."""
        own = records.of_images(np.array([image]))
        name, _, rest = str(own.images[0]).partition("/")
        return self.members[name], replace(own, dataset=name, images=np.array([rest]))

    def parse(self, split: str) -> Annotations:
        raise DataError(f"{self.card.name} has no annotation files of its own; its data sets have")

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> CombinedDataset:
        made = [part.fake(root / name, people=people, seed=seed).root for name, part in cls.parts.items()]
        return cls(Path("+".join("" if folder is None else str(folder) for folder in made)))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """For worker processes that are no forks: the class itself has no place in a module."""
        return _again, (dict(self.parts), {each.name: getattr(self, each.name) for each in fields(self) if each.init})


def combine(parts: Mapping[str, type[GazeDataset]]) -> type[CombinedDataset]:
    """The class of a combination of data sets by name."""
    cards = [cls.card for cls in parts.values()]

    def all_of(name: str) -> str:
        return "; ".join(dict.fromkeys(str(getattr(card, name)) for card in cards))

    card = Card(
        name="+".join(parts), title=" + ".join(card.title for card in cards), licence=all_of("licence"),
        source=all_of("source"), citation=", ".join(dict.fromkeys(card.citation for card in cards)),
        layout="", official={}, label_version=all_of("label_version"), head_boxes=all_of("head_boxes"),
        synthetic=all(card.synthetic for card in cards),
    )  # fmt: skip
    protocol = next(iter(parts.values())).protocol
    everybody = all(cls.everybody for cls in parts.values())
    declared = {"card": card, "protocol": protocol, "parts": dict(parts), "everybody": everybody}
    return type("Combined", (CombinedDataset,), declared | {"__doc__": CombinedDataset.__doc__})


def joined(name: str, split: str, parts: Mapping[str, Records]) -> Records:
    """The records of several data sets, one after another."""
    found = list(parts.values())
    first = ragged_starts([len(each) for each in found])

    def texts(column: str) -> npt.NDArray[Any]:
        return np.array([f"{part}/{text}" for part, each in parts.items() for text in getattr(each, column)])

    def labels(each: Records, pairs: str) -> npt.NDArray[np.int8]:
        return each.pairs.get(pairs, np.full(int(each.pair_start[-1]), -1, np.int8))

    columns: dict[str, npt.NDArray[Any]] = {}
    for column in dict.fromkeys(column for each in found for column in each.columns):
        like = next(each.columns[column] for each in found if column in each.columns)
        if any(column not in each.columns for each in found) and like.dtype.kind not in FILL:
            continue
        filled = [
            each.columns[column]
            if column in each.columns
            else np.full((each.people, *like.shape[1:]), FILL[like.dtype.kind], like.dtype)
            for each in found
        ]
        if all(values.shape[1:] == like.shape[1:] for values in filled):
            columns[column] = np.concatenate(filled)
    pairs = dict.fromkeys(pairs for each in found for pairs in each.pairs)
    kept = {*columns, *pairs}
    return Records(
        dataset=name,
        split=split,
        images=texts("images"),
        groups=texts("groups"),
        person_id=texts("person_id"),
        person_image=np.concatenate([each.person_image + start for each, start in zip(found, first, strict=False)]),
        head=np.concatenate([each.head for each in found]),
        points=np.concatenate([each.points for each in found]),
        point_start=ragged_starts(np.concatenate([np.diff(each.point_start) for each in found])),
        inout=np.concatenate([each.inout for each in found]),
        columns=columns,
        pairs={pair: np.concatenate([labels(each, pair) for each in found]) for pair in pairs},
        scored=tuple(dict.fromkeys(column for each in found for column in each.scored if column in kept)),
        sizes=np.concatenate([each.sizes for each in found]),
        issues=tuple(issue for each in found for issue in each.issues),
    )


def _again(parts: Mapping[str, type[GazeDataset]], options: Mapping[str, Any]) -> CombinedDataset:
    return combine(parts)(**options)
