"""What a data set is to the suite: a card, records per split, images, a protocol, and a tiny fake of itself."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import FloatArray, IntArray
from gazebench.core.errors import DataError, ImageError, some
from gazebench.core.files import cached
from gazebench.core.types import IN_FRAME, Annotations, Policy, Records
from gazebench.data import head_boxes as own_boxes
from gazebench.data import saliency_splits
from gazebench.data.images import image_size, load_depth, load_image
from gazebench.metrics.decode import Decoder
from gazebench.metrics.protocol import Protocol

Crop = tuple[int, int, int, int]
SPLITS = ("train", "val", "trainval", "test")
"""``train`` and ``val`` are disjoint by source and together are ``trainval``, the official training set."""

COMPLETE = "complete"
"""The verdict on a part of a data set that is all there (``GazeDataset.inventory``)."""


@dataclass(frozen=True)
class Card:
    """What everybody who uses a data set should know of it.

    Attributes:
        name: the name used on the command line (the module's stem).
        title: the name used in print.
        licence: under which terms the images and annotations are released.
        source: where to get it.
        citation: the paper to cite.
        layout: the files expected below the root, as a few lines of text.
        official: the published counts by split, e.g. ``{"test": {"people": 4782}}``; what is not published is absent.
        label_version: which edition of the annotations the loader reads.
        head_boxes: where the head boxes come from.
        synthetic: drawn by us; its numbers are never those of a published benchmark.
    """

    name: str
    title: str
    licence: str
    source: str
    citation: str
    layout: str
    official: Mapping[str, Mapping[str, int]]
    label_version: str
    head_boxes: str
    synthetic: bool = False


@dataclass(frozen=True)
class Description:
    """What words can say of one person of an image.

    Attributes:
        traits: what the person looks like, by the name of the trait (``clothes``: ``red``).
        hidden: the names of those traits that cannot be seen in this image.
        target: what the person looks at, described in a few words without an article; "" where it is not known, or
            where there is nothing.
        labels: the categories that count as right for it.
    """

    traits: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    target: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completeness:
    """Whether a split on disk is the release's, and how that is known.

    Attributes:
        split: the split.
        found: counts on disk.
        official: the published counts; empty where nothing is published.
        issues: rows and images that were left out.
        digest: of the annotation files (``GazeDataset.label_digest``).
        pinned: that of the official annotation files; None where it is not known.
        lacking: what else of the release is not there (``GazeDataset.lacking``).
    """

    split: str
    found: Mapping[str, int]
    official: Mapping[str, int]
    issues: int
    digest: str | None = None
    pinned: str | None = None
    lacking: tuple[str, ...] = ()

    @property
    def by(self) -> Literal["digest", "counts", "file list"]:
        """The strongest check there is: the files' digest, published counts, or what the release's files list."""
        return "digest" if self.pinned else "counts" if self.official else "file list"

    @property
    def defects(self) -> list[str]:
        """What differs from the release."""
        found = [f"{self.found[k]:,} of {n:,} {k}" for k, n in self.official.items() if self.found[k] != n]
        return [*found, *([f"{self.issues:,} rows skipped"] if self.issues else []), *self._beyond_counts]

    @property
    def _beyond_counts(self) -> list[str]:
        changed = []
        if self.pinned and self.digest != self.pinned:
            what = f"digest {str(self.digest)[:12]}, expected {self.pinned[:12]}"
            changed.append(f"the annotation files are not those of the release ({what})")
        return [*changed, *self.lacking]

    @property
    def state(self) -> Literal["complete", "own list", "partial"]:
        """``own list``: nothing to compare with is published, but all that the release's own files list is there."""
        return "partial" if self.defects else "own list" if self.by == "file list" else "complete"

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def identity(self) -> dict[str, Any]:
        """What a result records of it."""
        return {"state": self.state, "by": self.by, "defects": self.defects, "labels_sha256": self.digest}

    def __str__(self) -> str:
        parts = [
            f"{n:,} {k}" + (f" (official {self.official[k]:,})" if k in self.official else "")
            for k, n in self.found.items()
        ]
        if self.issues:
            parts.append(f"{self.issues:,} rows skipped")
        partial = "; ".join(["not the official set", *self._beyond_counts])
        return f"{self.split}: {', '.join(parts)} - {partial if self.state == 'partial' else f'complete by {self.by}'}"


@dataclass(eq=False)
class GazeDataset(ABC):
    """Base of all data sets; the constructor's arguments are its settings on the command line.

    Args:
        root: the folder of the official release.
        bad_rows: ``error`` stops at rows that make no sense and names them, ``skip`` leaves them out and counts them.
        subsets: who is consistent and who inconsistent: the name of a prober whose split is shipped, a folder of split
            files, or a file (docs/splits.md).
        head_boxes: a file of head boxes of your own, e.g. a detector's, instead of the annotated ones (docs/data.md).
        missing_boxes: ``error`` stops where that file lacks somebody's box, ``skip`` leaves them out and counts them.
        depth: a folder of depth maps for methods that read them: for every picture a grey PNG of 16 bits and the same
            size under the picture's path, ending in .png (docs/peers.md).
        decoder: turns heatmaps into points, as a method's own paper does, where it is not to be the protocol's; such a
            result is of another protocol, which its record names, and stands on no board (docs/protocols.md).
    """

    root: Path | None = None
    bad_rows: Policy = "error"
    subsets: Path | None = None
    head_boxes: Path | None = None
    missing_boxes: Policy = "error"
    depth: Path | None = None
    decoder: Decoder | None = None
    _memo: dict[str, Records] = field(default_factory=dict, init=False, repr=False)
    _subsets: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _boxes: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    card: ClassVar[Card]
    protocol: ClassVar[Protocol]
    version: ClassVar[int] = 1
    """Raised, with a line in the changelog, when the same files give other records or other images."""
    superseded_by: ClassVar[str] = ""
    """Name of the data set that replaces this one, which stays for its records."""
    everybody: ClassVar[bool] = False
    """Whether all people of an image are in the records, so that words can be known to fit one person only."""

    def __post_init__(self) -> None:
        if self.decoder is not None:
            self.protocol = type(self).protocol.decoded_by(self.decoder)  # type: ignore[misc]

    @abstractmethod
    def parse(self, split: str) -> Annotations:
        """Reads the annotations of a split, in the units of the release."""

    @classmethod
    @abstractmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeDataset:
        """Writes a tiny set in the official layout below ``root`` and returns the data set over it."""

    def records(self, split: str) -> Records:
        """The people of ``train``, ``val``, ``trainval`` (train and val) or ``test``: normalised, boxes clean.

        Raises:
            DataError: the root is missing or a row makes no sense; the message names file, row and remedy.
        """
        if split not in SPLITS:
            raise DataError(f"{self.card.name} has no split {split!r}; it has {', '.join(SPLITS)}")
        if split not in self._memo:
            annotations = self.parse(split)
            sizes = annotations.sizes
            records = annotations.normalised(self._image_sizes(annotations) if sizes is None else sizes)
            if self.subsets is not None:
                place = saliency_splits.locate(Path(self.subsets), self.card.name, split)
                if place is not None:
                    records, self._subsets[split] = saliency_splits.attach(records, saliency_splits.read(place))
            if self.head_boxes is not None:
                records, self._boxes[split] = own_boxes.attach(records, Path(self.head_boxes), self.missing_boxes)
            self._memo[split] = records
        return self._memo[split]

    def _image_sizes(self, annotations: Annotations) -> IntArray:
        """(I, 2) width and height from the images' headers, (0, 0) of unreadable ones; kept between runs."""
        paths = [self.path(annotations, image) for image in range(len(annotations))]
        folders = sorted({path.parent for path in paths})
        # A file that is added, removed or replaced changes its folder's time; decoding checks the size again.
        changed = [(str(folder), folder.stat().st_mtime_ns if folder.is_dir() else 0) for folder in folders]

        def read() -> IntArray:
            with ThreadPoolExecutor(8) as pool:
                return np.array(list(pool.map(_size, paths)), dtype=np.int64).reshape(-1, 2)

        sizes = cached(["image sizes", changed, [str(path) for path in paths]], read)
        for image in np.flatnonzero((sizes == 0).any(axis=1)):  # a file mended in place leaves its folder as it was
            sizes[image] = _size(paths[image])
        return sizes

    def image(
        self,
        records: Records,
        image: int,
        size: tuple[int, int] | None = None,
        crop: Crop | None = None,
        flip: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; ``crop`` in pixels of the original, then resized to ``size`` (H, W), then flipped."""
        width, height = records.sizes[image].tolist()
        return load_image(self.path(records, image), size=size, crop=crop, flip=flip, expected=(width, height))

    def repeats(self, records: Records) -> FloatArray | None:
        """(I,) how often each image is seen in an epoch of training; None where each is seen once."""
        return None

    def depth_map(
        self, records: Records, image: int, size: tuple[int, int], crop: Crop | None = None, flip: bool = False
    ) -> npt.NDArray[np.float32]:
        """(H, W) float32, about 0 to 1 and larger where it is nearer, in the same view as ``image``.

        Raises:
            DataError: no folder of depth maps was given, or it lacks this one; says how to make them.
        """
        width, height = records.sizes[image].tolist()
        path = Path(self.depth or "DEPTH") / Path(str(records.images[image])).with_suffix(".png")
        if self.depth is None or not path.is_file():
            problem = "no folder of depth maps was given" if self.depth is None else f"{path}: no such depth map"
            raise DataError(
                f"{problem}. The method reads one for every picture of {self.card.title}: a grey PNG of 16 bits and "
                "the picture's size, larger where it is nearer, under the picture's path. Download the authors' or "
                f"make them, `python scripts/depth_maps.py {self.card.name} --root {self.root or 'ROOT'} --out DIR`, "
                "and give --dataset.depth DIR; or take the method without depth, --model.depth=false"
            )
        return load_depth(path, size, (width, height), crop, flip)

    def salient_regions(self, records: Records, image: int) -> FloatArray | None:
        """(K, 4) normalised xyxy: what a gaze-blind observer would bet on; None where the truth is not known."""
        return None

    def descriptions(self, records: Records, image: int) -> list[Description]:
        """What can be said of the people of an image, in their order; by default the names of what they look at.

        These are the columns ``label`` and, where several names are right, ``labels``.
        """
        start, stop = np.searchsorted(records.person_image, (image, image + 1))

        def column(name: str) -> list[str]:
            return [str(text) for text in records.columns[name][start:stop]] if name in records.columns else []

        first = column("label") or [""] * (stop - start)
        more = column("labels") or [""] * (stop - start)
        return [
            Description(target=name, labels=tuple(dict.fromkeys(word for word in (name, *others.split("|")) if word)))
            for name, others in zip(first, more, strict=True)
        ]

    def path(self, records: Records, image: int) -> Path:
        """The file of an image."""
        return self.existing_root() / str(records.images[image])

    def existing_root(self, *needed: str) -> Path:
        """The root, after checking that what is ``needed`` below it is there: files (with a suffix, or .gz), folders.

        Raises:
            DataError: says what to download, from where, how to lay it out, and what to run without it.
        """
        card = self.card
        if self.root is None:
            problem = f"no folder was given for {card.title}"
        elif not Path(self.root).is_dir():
            problem = f"{self.root} is not a folder"
        else:
            paths = {name: Path(self.root) / name for name in needed}
            missing = [
                name
                for name, path in paths.items()
                if not (path.is_file() or Path(f"{path}.gz").is_file() if path.suffix else path.is_dir())
            ]
            if not missing:
                return Path(self.root)
            problem = f"{self.root} holds no {', '.join(missing)}"
        layout = "\n".join(f"    {line}" for line in card.layout.strip().splitlines())
        raise DataError(
            f"{problem}.\n{card.title} is released at {card.source} ({card.licence}); it cannot be bundled.\n"
            f"Download it and lay it out as\n{layout}\n"
            f"then give the folder: DATA_ROOT=... to make, --dataset.root ... to gazebench.\n"
            f"Without it, the embedded world runs everything: DATASET=gazeworld."
        )

    def inventory(self, split: str) -> list[dict[str, Any]]:
        """The parts of a split (say, its clips), of which a release lists what they hold; none by default.

        One row a part with the same keys: what is expected, what is there, and a ``verdict`` that is ``COMPLETE`` where
        nothing is amiss. Missing files are part of the table and no error.
        """
        return []

    def label_digest(self, split: str) -> str | None:
        """The sha256 of a split's annotation files, whatever the spelling of line ends and folders.

        It is compared with the digest of the official files in ``splits/NAME/labels.json``, by split. None where a data
        set has no such rule.
        """
        return None

    def lacking(self, split: str) -> list[str]:
        """What the release has and this copy has not, beyond skipped rows, missing images and ``Card.official``.

        By default the parts of ``inventory`` that are not complete, by verdict.
        """
        parts: dict[str, list[str]] = {}
        for row in self.inventory(split):
            kind, name = next(iter(row.items()))
            if row["verdict"] != COMPLETE:
                parts.setdefault(f"{kind}s {row['verdict']}", []).append(name)
        return [f"{len(names):,} {what} ({some(names)})" for what, names in parts.items()]

    def completeness(self, split: str) -> Completeness:
        """What is on disk against what is known of the release."""
        records = self.records(split)
        found = {
            "images": len(records),
            "people": records.people,
            "in_frame": int((records.inout == IN_FRAME).sum()),
            **records.counts,
        }
        official = self.card.official.get(split, {})
        pinned = _pinned_labels(self.card.name).get(split)
        own = [f"head boxes of {boxes['file']}, not the release's"] if (boxes := self._boxes.get(split)) else []
        lacking = (*self.lacking(split), *own)
        return Completeness(split, found, official, len(records.issues), self.label_digest(split), pinned, lacking)

    def identity(self, split: str) -> dict[str, Any]:
        """What a result records of the data it was measured on."""
        completeness = self.completeness(split)
        return {
            "name": self.card.name,
            "version": self.version,
            "split": split,
            "label_version": self.card.label_version,
            "head_boxes": f"of {boxes['file']}" if (boxes := self._boxes.get(split)) else self.card.head_boxes,
            **({"own_head_boxes": boxes} if boxes else {}),
            "synthetic": self.card.synthetic,
            "fingerprint": self.records(split).fingerprint(),
            "full_fingerprint": self.records(split).full_fingerprint(self.protocol.reads),
            "found": dict(completeness.found),
            "official": dict(completeness.official),
            "skipped_rows": completeness.issues,
            "completeness": completeness.identity(),
            "subsets": self._subsets.get(split),
        }


def strided(records: Records, stride: int) -> npt.NDArray[np.bool_]:
    """(I,) bool; every ``stride``-th image of each group, counted in the group's order."""
    position = pd.Series(records.groups).groupby(records.groups).cumcount()
    return np.asarray(position % stride == 0, dtype=bool)


@cache
def _pinned_labels(name: str) -> dict[str, str]:
    """Digests of the official annotation files of a data set by split, from ``splits/NAME/labels.json``."""
    file = files("gazebench.splits") / name / "labels.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["sha256"]) if file.is_file() else {}


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except ImageError:
        return (0, 0)
