"""VSGaze: who looks where, at whom, with whom, in the videos of four data sets; in the release of MTGS."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import BOX, FloatArray, IntArray
from gazebench.core.errors import DataError
from gazebench.core.types import IN_FRAME, SOCIAL, UNKNOWN, Annotations, Issue
from gazebench.data.annotations import (
    PARTS_OF_SPLIT,
    POINT,
    ReleasedDataset,
    Rows,
    far_outside,
    people_of,
    without_area,
)
from gazebench.data.dataset import Card
from gazebench.metrics.protocol import SOCIAL_GAZE, Protocol, ProtocolMetric
from gazebench.metrics.spatial import InOutAP, MinL2

if TYPE_CHECKING:
    from gazebench.datasets.gazeworld.fakes import FakeImage

KEY = "data"
PAIRS = {"lah": "lah_pairs", "laeo": "laeo_pairs", "sa": "coatt_pairs"}
COLUMNS = ("path", "person_ids", "head_bboxes", "gaze_points", "inout", "pairs", "lah_pairs")
"""Those every part has."""
ANNOTATORS = "gaze_points_p1"
"""Of a part with several annotators, on test: what they marked for the last person, the only one they saw."""
NOBODY = -1
"""The id of the placeholder every list begins with."""
PERSON = ["image", "group", "person_id", "part", "track", "inout", *BOX, *POINT]
"""What is read of a person, for each of their points."""

IMAGES = {
    "vat": "vat/images",
    "childplay": "childplay",
    "videocoatt": "videocoatt",
    "uco_laeo": "uco_laeo",
    "gazefollow": "gazefollow",
}
"""The parts, and the folder below the root that the paths of each start from."""
VIDEO = ("vat", "childplay", "videocoatt", "uco_laeo")
"""VSGaze as papers report it; GazeFollow's file comes with the release."""
INOUT_KNOWN = frozenset({"vat", "childplay"})
"""The parts whose annotators said what is out of frame."""
LABELS: Mapping[str, tuple[str, ...]] = dict.fromkeys(VIDEO, SOCIAL) | {"gazefollow": ("lah",)}
"""The labels of pairs that count, by part."""

FAKE_PATHS = {
    "childplay": "images/drawn_{split}_{index:03d}/{index:03d}_{number}.jpg",
    "gazefollow": "{split}/{index:08d}/{index:08d}.jpg",
}
"""Of drawn images, in the parts that have their own layout."""


@dataclass(eq=False)
class VSGaze(ReleasedDataset):
    """VSGaze; a group is a clip of a part, its frames stand in order.

    Everybody whose head is boxed is a person, many of them with a target nobody told (``inout`` -1). Columns ``part``
    (the data set a frame is from) and ``track`` (a person through a clip); pairs ``lah``, ``laeo``, ``sa``.

    A file ``PART_SPLIT.parquet`` with the same columns, lists nested, stands in for ``PART_SPLIT.h5``.

    Args:
        root: the folder that holds the annotation files, and of each part a folder (or link) with its images.
        parts: the data sets to read: the four of the papers unless told otherwise, and ``gazefollow``.
    """

    parts: tuple[str, ...] = VIDEO

    card: ClassVar[Card] = Card(
        name="vsgaze",
        title="VSGaze",
        licence="research use; the videos belong to their owners",
        source="https://doi.org/10.34777/jggs-1128",
        citation="Gupta, Tafasca, Farkhondeh, Vuillecard, Odobez: MTGS: a novel framework for multi-person temporal "
        "gaze following and social gaze prediction. NeurIPS 2024",
        layout="vat_train.h5 vat_val.h5 vat_test.h5\nchildplay_train.h5 ...\nvideocoatt_train.h5 ...\n"
        "uco_laeo_train.h5 ...\ngazefollow_train.h5 ...   (only where --dataset.parts has it)\n"
        "and the release of each data set, or a link to it:\nvat/images/SHOW/CLIP/00002720.jpg ...\n"
        "childplay/images/...\nvideocoatt/...\nuco_laeo/...\ngazefollow/train/...",
        # 714K points and 444K, 30K, 420K positive pairs are published, rounded and of no split.
        official={},
        label_version="release of 2024",
        head_boxes="annotated, missing ones detected and tracked (release)",
    )
    protocol: ClassVar[Protocol] = Protocol(
        name="vsgaze",
        version=1,
        unit="person in a frame; for laeo and sa an ordered pair of people",
        metrics=(
            # Of GazeFollow's several annotations MTGS takes the nearest; elsewhere there is one.
            ProtocolMetric("dist", MinL2),
            ProtocolMetric("ap", InOutAP, subsets=False, where=("part", INOUT_KNOWN)),
            *SOCIAL_GAZE,
        ),
        headline="dist",
        notes="f1_lah, f1_laeo and ap_sa are of a method's own scores, f1_lah_pp and f1_laeo_pp follow from its "
        "points: never compare one with the other. No rule is published for ap_sa from points, so there is none.",
    )

    def parse(self, split: str) -> Annotations:
        """The files of that name of all parts, one part after another."""
        wrong = [part for part in self.parts if part not in IMAGES]
        if wrong or len(set(self.parts)) != len(self.parts) or not self.parts:
            raise DataError(f"parts are {list(self.parts)}; give some of {', '.join(IMAGES)}, each once")
        root = self.existing_root()
        tables = {
            (part, name): _table_file(root, f"{part}_{name}") for part in self.parts for name in PARTS_OF_SPLIT[split]
        }
        self.existing_root(*(IMAGES[part] for part in self.parts))
        return self.checked(self.cached(tables.values(), lambda: _read(root, split, tables), split, *self.parts))

    def lacking(self, split: str) -> list[str]:
        """Parts that are left out or added."""
        return [] if set(self.parts) == set(VIDEO) else [f"parts {', '.join(self.parts)}, not {', '.join(VIDEO)}"]

    def image_file(self, image: str) -> str:
        """The file of a frame, below its show's folder as spelt on disk."""
        part, folder, rest = image.split("/", 2)
        return f"{IMAGES[part]}/{self.on_disk(IMAGES[part], folder)}/{rest}"

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> VSGaze:
        """A tiny set of drawn clips in all five parts, with ``people`` or more in each of train, val and test."""
        from gazebench.datasets.gazeworld.fakes import fake_clip, fake_images

        root.mkdir(parents=True, exist_ok=True)
        for split in ("train", "val", "test"):
            tables: dict[str, list[dict[str, Any]]] = {part: [] for part in IMAGES}
            # The first clip is one in which two people look at each other, or nothing social could be scored.
            mutual = next(index for index, image in enumerate(fake_images(seed, split)) if image.pairs["laeo"].any())
            written = 0
            for place, index in enumerate(
                [mutual, *(other for other in range(mutual + people + len(IMAGES)) if other != mutual)]
            ):
                part = [*IMAGES][place % len(IMAGES)]
                if written >= people and all(tables.values()):
                    break
                for number, image in enumerate(
                    fake_clip(seed, index, split, 1 if part == "gazefollow" else 3), start=10
                ):
                    path = FAKE_PATHS.get(part, "drawn_{split}/{index:03d}/{number:08d}.jpg")
                    path = path.format(split=split, index=index, number=number)
                    image.save(root / IMAGES[part] / path)
                    tables[part].append(_fake_row(part, split, path, image))
                    written += len(image.people) if part in VIDEO else 0
            for part, rows in tables.items():
                write_table(root / f"{part}_{split}", pd.DataFrame(rows))
        return cls(root)


def write_table(stem: Path, frame: pd.DataFrame) -> Path:
    """Writes a table as the release has it, ``stem.h5``; as ``stem.parquet`` where PyTables is not installed.

    Args:
        stem: the file without its ending.
        frame: ``COLUMNS`` and more; cells hold arrays or lists of any depth.
    """
    if importlib.util.find_spec("tables"):
        file = stem.with_name(f"{stem.name}.h5")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.PerformanceWarning)  # of the cells that are arrays
            frame.to_hdf(file, key=KEY, mode="w")
    else:
        file = stem.with_name(f"{stem.name}.parquet")
        # Parquet knows lists of lists, but no arrays of more than one dimension.
        frame.map(lambda cell: cell.tolist() if isinstance(cell, np.ndarray) else cell).to_parquet(file)
    return file


def _fake_row(part: str, split: str, path: str, image: FakeImage) -> dict[str, Any]:
    """The row of a drawn frame, with the placeholder first."""
    people = [NOBODY, *(person.id for person in image.people)]
    inout, gaze = [UNKNOWN], [(-1.0, -1.0)]
    for place, person in enumerate(image.people):
        # Elsewhere nobody said who looks out of the frame, and of the first person's head only the box is known.
        hidden = part not in INOUT_KNOWN and (not person.inout or (not place and len(image.people) > 1))
        inout.append(UNKNOWN if hidden else person.inout)
        gaze.append(person.gaze if inout[-1] == IN_FRAME else (-1.0, -1.0))
    pairs = [*permutations(people, 2)]
    row: dict[str, Any] = {
        "path": path,
        "person_ids": np.array(people),
        "head_bboxes": np.array([(0.0,) * 4, *(person.head for person in image.people)]),
        "gaze_points": np.array(gaze),
        "inout": np.array(inout),
        "pairs": np.array(pairs).reshape(-1, 2),
    }
    unknown = {person for person, label in zip(people, inout, strict=True) if label == UNKNOWN}
    for name in LABELS[part]:
        label_of = dict(zip(permutations(people[1:], 2), image.pairs[name].tolist(), strict=True))
        # A label needs the target of the one who looks, or of both; the placeholder's is never known.
        row[PAIRS[name]] = np.array(
            [
                -1 if NOBODY in pair or unknown.intersection(pair[1:] if name == "lah" else pair) else label_of[pair]
                for pair in pairs
            ],
            dtype=np.int64,
        )
    if part == "gazefollow" and split == "test":
        row["inout"] = np.array([IN_FRAME])
        row["gaze_points"] = np.zeros((0, 2))
        row[ANNOTATORS] = np.array([*image.annotations(image.people[-1]).tolist(), (-1.0, -1.0)])
    return row


def _table_file(root: Path, name: str) -> str:
    """The file of a table, relative to the root.

    Raises:
        DataError: there is none, or it cannot be read without PyTables.
    """
    release, ours = f"{name}.h5", f"{name}.parquet"
    if (root / ours).is_file():
        return ours
    if not (root / release).is_file():
        raise DataError(f"{root / release}: no such file; take it from the release ({VSGaze.card.source})")
    if not importlib.util.find_spec("tables"):
        raise DataError(
            f"{root / release}: reading HDF5 tables needs PyTables: pip install tables. (Or write {ours} where it is "
            "installed, with gazebench.datasets.vsgaze.write_table on what pandas.read_hdf gives.)"
        )
    return release


def _table(file: Path) -> pd.DataFrame:
    """The rows of a file.

    Raises:
        DataError: it is no such table, or a column is missing.
    """
    try:
        frame = pd.read_hdf(file, KEY) if file.suffix == ".h5" else pd.read_parquet(file)
    except Exception as error:  # PyTables and Arrow have their own kinds
        raise DataError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); take the file of the release"
        ) from error
    assert isinstance(frame, pd.DataFrame)
    frame.columns = [str(name).strip().lower() for name in frame]
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise DataError(f"{file}: lacks the column {', '.join(missing)}; take the file of the release")
    return frame


@dataclass(frozen=True)
class _Frame:
    """The people of a row that makes sense, without the placeholder.

    Attributes:
        image: ``part/path``.
        people: rows of ``PERSON``, one for each person and point.
        labels: labels of their pairs by name, in the order of ``pairs_of``.
        unscored: labelled pairs with the placeholder.
    """

    image: str
    people: list[tuple[Any, ...]]
    labels: dict[str, npt.NDArray[np.int8]]
    unscored: int


def _read(root: Path, split: str, tables: Mapping[tuple[str, str], str]) -> Annotations:
    """The people of all tables, one table after another; frames of a clip stand by number."""
    frames: list[_Frame] = []
    issues: list[Issue] = []
    seen: set[str] = set()
    for (part, _), file in tables.items():
        found: list[_Frame] = []
        table = _table(root / file)
        if table.empty:
            issues.append(Issue(file, 0, "the file has no rows"))
        for row, cells in enumerate(table.to_dict("records"), start=1):
            try:
                frame = _frame(part, {str(name): cell for name, cell in cells.items()})
                if frame.image in seen:
                    raise ValueError(f"{cells['path']} is there twice")
            except ValueError as error:
                issues.append(Issue(file, row, str(error)))
            else:
                found.append(frame)
                seen.add(frame.image)
        # Names of frames grow by a digit where their numbers do.
        frames += sorted(found, key=lambda frame: (_group(frame.image), len(frame.image), frame.image))
    table = pd.DataFrame([person for frame in frames for person in frame.people], columns=PERSON)
    labels = {
        name: np.concatenate([np.zeros(0, np.int8), *(frame.labels[name] for frame in frames)]) for name in SOCIAL
    }
    return people_of(
        Rows([], table, issues),
        "vsgaze",
        split,
        {"part": table["part"], "track": table["track"]},
        head_unit="normalised",
        point_unit="normalised",
        pairs=labels,
        scored=("part", *SOCIAL),
        counts={"left_out_pairs_with_placeholder": sum(frame.unscored for frame in frames)},
    )


def _group(image: str) -> str:
    """The clip of an image, which in GazeFollow is the image."""
    return image if image.startswith("gazefollow/") else image.rpartition("/")[0]


def _frame(part: str, cells: Mapping[str, Any]) -> _Frame:
    """One row.

    Raises:
        ValueError: what is wrong with it.
    """
    path = cells["path"].replace("\\", "/") if isinstance(cells["path"], str) else cells["path"]
    if not isinstance(path, str) or "/" not in path or {"", ".", ".."}.intersection(path.split("/")):
        raise ValueError(f"path is {path!r}, expected FOLDER/.../FILE")
    ids = _integers("person_ids", _numbers(cells, "person_ids", ()))
    real = np.flatnonzero(ids != NOBODY)
    people = ids[real].tolist()
    if len(set(people)) != len(people):
        raise ValueError(f"person_ids {people} repeat")
    boxes = _numbers(cells, "head_bboxes", (4,), len(ids))[real]
    empty = without_area(boxes, limit=1)
    if empty.any():
        raise ValueError(f"person {people[int(empty.argmax())]}: head box of no area inside the picture")
    inout, points = _targets(cells, ids, real)
    labels, unscored = _labels(part, cells, people)
    image = f"{part}/{path}"
    group = _group(image)
    rows = [
        (image, group, f"{image}#{person}", part, f"{group}#{person}", inout[place], *boxes[place], *point)
        for place, person in enumerate(people)
        for point in (points[place] if inout[place] == IN_FRAME else [(np.nan, np.nan)])
    ]
    return _Frame(image, rows, labels, unscored)


def _targets(cells: Mapping[str, Any], ids: IntArray, real: IntArray) -> tuple[IntArray, list[FloatArray]]:
    """In or out, and the points, of the people ``ids[real]``."""
    if cells.get(ANNOTATORS) is not None:
        inout, points = np.full(len(real), UNKNOWN), [np.zeros((0, 2)) for _ in real]
        if len(real):
            marked = _numbers(cells, ANNOTATORS, (2,))
            points[-1] = marked[marked[:, 0] != -1]
            inout[-1] = IN_FRAME
    else:
        inout = _integers("inout", _numbers(cells, "inout", (), len(ids))[real], labels=True)
        points = [*_numbers(cells, "gaze_points", (2,), len(ids))[real][:, None]]
    for place, marked in enumerate(points):
        if inout[place] == IN_FRAME and (not len(marked) or (marked == -1).all(axis=1).any()):
            raise ValueError(f"person {ids[real[place]]} is in frame, but no gaze point is given")
        if inout[place] == IN_FRAME and (far := far_outside(marked)).any():
            raise ValueError(f"person {ids[real[place]]}: gaze {marked[far][0].tolist()} is outside the picture")
    return inout, points


def _labels(part: str, cells: Mapping[str, Any], people: Sequence[int]) -> tuple[dict[str, npt.NDArray[np.int8]], int]:
    """Labels of all ordered pairs of people, -1 where the row tells none; how many labels are the placeholder's."""
    pairs = [(i, j) for i, j in _integers("pairs", _numbers(cells, "pairs", (2,))).tolist()]
    strangers = sorted({person for pair in pairs for person in pair} - {*people, NOBODY})
    if strangers:
        raise ValueError(f"pairs speak of person {strangers[0]}, who is not among person_ids")
    labels, unscored = {}, 0
    for name in SOCIAL:
        known: dict[tuple[int, ...], int] = {}
        if name in LABELS[part]:
            given = _integers(PAIRS[name], _numbers(cells, PAIRS[name], (), len(pairs)), labels=True).tolist()
            # Of a pair that is there twice the first label counts, as in MTGS's code.
            known = dict(reversed([*zip(pairs, given, strict=True)]))
            unscored += sum(NOBODY in pair and label != UNKNOWN for pair, label in zip(pairs, given, strict=True))
        labels[name] = np.array([known.get(pair, UNKNOWN) for pair in permutations(people, 2)], dtype=np.int8)
    return labels, unscored


def _integers(name: str, values: FloatArray, *, labels: bool = False) -> IntArray:
    if ((values != np.trunc(values)) | (np.abs(values) > 2**53)).any() or (
        labels and not np.isin(values, (1, 0, -1)).all()
    ):
        raise ValueError(f"{name} is {values.tolist()}, expected {'1, 0 and -1' if labels else 'whole numbers'}")
    return values.astype(np.int64)


def _numbers(cells: Mapping[str, Any], name: str, width: tuple[int, ...], length: int | None = None) -> FloatArray:
    """A cell as (length, *width) finite numbers.

    Raises:
        ValueError: it is something else.
    """
    cell = cells.get(name)
    try:
        # Nested lists come from Parquet as arrays of arrays.
        values = np.array([*cell] if isinstance(cell, np.ndarray) else cell, dtype=np.float64)
        values = values.reshape(len(values), *width)
    except (TypeError, ValueError):
        shape = " x ".join(["n", *map(str, width)])
        raise ValueError(f"{name} is {str(cell)[:60]!r}, expected {shape} numbers") from None
    if length is not None and len(values) != length:
        raise ValueError(f"{name} has {len(values)} entries, expected {length}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return values
