"""Rubbish in the annotations of every data set: each row, file and image is named, or skipped and counted."""

import csv
import gzip
import io
import json
import os
import pickle
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gazebench.core.errors import DataError, ImageError, UserError
from gazebench.core.types import Annotations, Records
from gazebench.data.annotations import ReleasedDataset
from gazebench.data.check import findings
from gazebench.data.images import image_size
from gazebench.datasets.vsgaze import write_table
from gazebench.engine.registry import load_dataset

BOX = {"xmin": 5, "ymin": 5, "xmax": 9, "ymax": 5}
FAR = {"xmin": 5000, "ymin": 10, "xmax": 5100, "ymax": 60}
"""A box beyond the right border of every image here."""
OUTSIDE = [{"gaze_x": 55, "gaze_y": 40}, {"gaze_x": 1.3, "gaze_y": 0.4}, {"gaze_x": -1, "gaze_y": -1}]
"""Normalised points of nobody whose target is in frame."""
TRAIN = ("path", "id", "body_x", "body_y", "body_w", "body_h", "eye_x", "eye_y", "gaze_x", "gaze_y", *BOX, "in_out",
         "source", "meta")  # fmt: skip


@dataclass
class Rows:
    """What can be wrong with the rows of one label file of a data set.

    Attributes:
        file: a pattern, relative to the root; the first file is broken.
        split: that reads the file.
        bad: cells by column, each set together spoiling the second row.
        columns: of a file without a header.
        twice: a row must not be there twice.
    """

    file: str
    split: str
    bad: list[dict[str, Any]]
    columns: tuple[str, ...] = ()
    twice: bool = True
    options: dict[str, Any] = field(default_factory=dict)


PSEUDO, TRUE = (
    {"gaze_pseudo_label": "jar", "label_id": 0},
    {"gaze_gt_label": "A", "gaze_gt_labels": "A", "test_label_id": 0},
)
TABLES = {
    "gazefollow": Rows("train_annotations_release.txt", "trainval", [
        {"path": " "}, {"gaze_x": "right"}, {"gaze_y": "nan"}, {"xmin": ""}, {"ymin": "inf"}, {"in_out": 2},
        {"in_out": ""}, BOX, {"xmin": -30, "xmax": -10}, FAR, *({"in_out": 1} | gaze for gaze in OUTSIDE),
    ], TRAIN, twice=False),
    "gazefollow test": Rows("test_annotations_release.txt", "test", [
        {"path": " "}, {"gaze_x": "right"}, {"gaze_x": "1_0"}, BOX, *OUTSIDE,
    ], tuple(name for name in TRAIN if name != "in_out"), twice=False),
    "vat": Rows("annotations/test/*/*/*.txt", "test", [
        {"frame": ""}, {"gaze_x": "left"}, {"gaze_y": "nan"}, {"xmin": ""}, BOX, {"xmin": -9, "xmax": -2}, FAR,
        {"gaze_x": 5000, "gaze_y": 40},
    ], ("frame", *BOX, "gaze_x", "gaze_y")),
    "childplay": Rows("annotations/test/*.csv", "test", [
        {"clip": "elsewhere"}, {"frame": "two"}, {"frame": 2.5}, {"frame": 0}, {"person_id": 1.25}, {"person_id": -1},
        {"bbox_x": ""}, {"bbox_height": "nan"}, {"bbox_height": 0}, {"bbox_width": -3}, {"bbox_x": -90},
        {"bbox_x": 5000}, {"gaze_class": "inside"}, {"is_child": "yes"},
        *({"gaze_class": "inside_visible", "gaze_x": cell} for cell in ("left", "", "inf", 5000)),
    ]),
    "gazehoi": Rows("test-annotations.csv", "test", [
        {"file_name": ""}, {"o_ymin": ""}, {"h_xmax": "nan"}, {"oc_x": "left"}, {"object": "spoon"}, {"object": ""},
        {"h_ymin": 5, "h_ymax": 5}, {"o_xmin": 5, "o_xmax": 5}, {"h_xmin": -9, "h_xmax": -5},
        {"h_xmin": 5000, "h_xmax": 5100}, {"o_ymin": 5000, "o_ymax": 5100}, {"oc_x": 5000},
    ]),
    "gazefollow_semantic": Rows("gaze-labels-train.csv", "train", [
        PSEUDO | {"path": "train/0/x.jpg"}, PSEUDO | {"path": "OF VAL"}, PSEUDO | {"id": 99}, {"label_id": "one"},
        {"label_id": 0.5},
    ]),
    "gazefollow_semantic test": Rows("gaze-labels-test.csv", "test", [
        TRUE | {"path": "test2/0/x.jpg"}, TRUE | {"gaze_gt_label": "spoon"}, TRUE | {"test_label_id": 99},
        TRUE | {"gaze_gt_labels": "A-spoon"}, TRUE | {"gaze_gt_labels": "A-A-A-A-A-A"},
    ]),
    "vsgaze": Rows("vat_test.*", "test", [
        {"path": None}, {"path": "frame.jpg"}, {"path": "../a/b.jpg"}, {"person_ids": lambda ids: ids * 0 + 3},
        {"person_ids": lambda ids: ids + 0.5}, {"head_bboxes": lambda boxes: boxes[:-1]},
        {"head_bboxes": lambda boxes: boxes[:, :3]}, {"head_bboxes": lambda boxes: boxes * np.nan},
        {"head_bboxes": lambda boxes: boxes * (1, 0, 1, 0)}, {"head_bboxes": lambda boxes: boxes + 1},
        {"inout": lambda inout: inout + 3}, {"inout": None}, {"gaze_points": lambda points: points[:-1]},
        {"inout": lambda inout: inout * 0 + 1, "gaze_points": lambda points: points * 0 - 1},
        {"inout": lambda inout: inout * 0 + 1, "gaze_points": lambda points: points * 0 + 1.3},
        {"lah_pairs": lambda labels: labels[:-1]}, {"coatt_pairs": lambda labels: labels * 0 + 3},
        {"laeo_pairs": None}, {"pairs": lambda pairs: pairs * 0 + 88},
    ], options={"parts": ("vat",)}),
}  # fmt: skip
ROW = 3
"""Of the file, counted from 1, that is broken."""
CSV = [case for case in TABLES if case != "vsgaze"]
NAMES = [case for case in TABLES if " " not in case]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    """By data set, the root of its fake release, written once."""

    @cache
    def root(name: str) -> Path:
        load_dataset(name).fake(folder := tmp_path_factory.mktemp(name), people=24)
        return folder

    return root


@pytest.fixture
def release(fakes, tmp_path):
    """A fake release of one's own: how to open it, and the label file to break."""

    def copied(case: str) -> tuple[Callable[..., ReleasedDataset], Path]:
        name, rows = case.split()[0], TABLES[case]
        root = shutil.copytree(fakes(name), tmp_path / "release")
        return partial(load_dataset(name), root, **rows.options), min(root.glob(rows.file))

    return copied


def read_table(file: Path) -> pd.DataFrame:
    return pd.read_hdf(file, "data") if file.suffix == ".h5" else pd.read_parquet(file)


def spoil(file: Path, rows: Rows, cells: Any) -> None:
    """Breaks row ``ROW`` by other cells or as a whole; takes it away where nothing is given."""
    if file.suffix not in (".csv", ".txt"):
        table = read_table(file).to_dict("records")
        row = table.pop(ROW - 1)
        for name, cell in cells.items() if isinstance(cells, dict) else ():
            row[name] = cell(np.array([*row[name]], dtype=float)) if callable(cell) else cell
        table[ROW - 1 : ROW - 1] = [table[0] if cells == "twice" else row] if cells else []
        write_table(file.with_suffix(""), pd.DataFrame(table))
        return
    lines = file.read_text(encoding="utf-8").split("\n")
    line = lines.pop(ROW - 1)
    if isinstance(cells, dict):
        names = rows.columns or lines[0].split(",")
        row = dict(zip(names, next(csv.reader([line])), strict=True)) | cells
        line = ",".join(f'"{cell}"' for cell in row.values())
    elif cells:
        line = {"twice": lines[ROW - 2], "short": line.rsplit(",", 2)[0], "long": f"{line},x,x"}.get(
            cells, cells + line
        )
    lines[ROW - 1 : ROW - 1] = [line] if cells else []
    file.write_text("\n".join(lines), encoding="utf-8")


def fingerprint(annotations: Annotations, cells: Any) -> str:
    """That of the annotations; the head of somebody whose gaze is outside stays a head of the frame."""
    outside = isinstance(cells, dict) and cells.get("gaze_x") == 5000
    scored = [name for name in annotations.scored if not (outside and name == "heads")]
    return replace(annotations, scored=scored).fingerprint()


@pytest.mark.parametrize(
    ("case", "cells"),
    [
        (case, cells)
        for case, rows in TABLES.items()
        for cells in (*rows.bad, *(("short", "long", "\0", '"') if case in CSV else ()), *("twice",) * rows.twice)
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(release, case, cells):
    opened, file = release(case)
    rows, whole = TABLES[case], file.read_bytes()
    spoil(file, rows, None)
    without = fingerprint(opened(bad_rows="skip").parse(rows.split), cells)
    file.write_bytes(whole)
    if "semantic" in case and isinstance(cells, dict):
        first = min(json.loads(file.with_name("vocab2id.json").read_text()).items(), key=lambda item: item[1])[0]
        val = file.with_name("gaze-labels-val.csv").read_text().split("\n")[1].split(",")[0]
        cells = {name: str(cell).replace("A", first).replace("OF VAL", val) for name, cell in cells.items()}
    spoil(file, rows, cells)
    place = f"{file.relative_to(opened().root)}:{ROW}: "
    with pytest.raises(DataError) as error:
        opened().records(rows.split)
    assert place in str(error.value)
    assert "bad_rows skip" in str(error.value)
    skipping = opened(bad_rows="skip")
    annotations = skipping.parse(rows.split)
    assert fingerprint(annotations, cells) == without, "everybody else is as before"
    assert [str(issue).startswith(place) for issue in annotations.issues if issue.row] == [True]
    assert skipping.completeness(rows.split).issues
    assert not skipping.completeness(rows.split).complete


MUTATIONS = int(os.environ.get("GAZEBENCH_MUTATIONS", "140"))
"""Mutated files in all; the environment variable asks for more."""
NASTY = ["", " ", "nan", "inf", "-1", "0", "1", "2", "-0.0", "0.5", "1.3", "55", "5000", "1e308", "-1e308", "1_0",
         "0x10", "\uff11", "x", '"', "\0", "a;b", "None", "true", "../..", "\\"]  # fmt: skip


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """An annotation file after one to three changes of letters, cells or lines, and at times of the whole."""
    lines = whole.decode().split("\n")

    def below(number: int) -> int:
        return int(rng.integers(max(number, 1)))

    for _ in range(1 + below(3)):
        place, line, kind = below(len(lines)), below(len(lines)), below(11)
        cells = lines[place].split(",")
        at, other, letter = below(len(cells)), below(len(cells)), below(len(lines[place]))
        if kind == 0:
            new = ["", *"0123456789.,-e naxjpg/\0\u00e9\u2028'\";"][below(29)]
            cells = [lines[place][:letter] + new + lines[place][letter + below(2) :]]
        elif kind == 1:
            cells[at] = NASTY[below(len(NASTY))]
        elif kind == 2:
            del cells[at]
        elif kind == 3:
            cells.insert(at, cells[other])
        elif kind == 4:
            cells[at], cells[other] = cells[other], cells[at]
        elif kind == 5:
            with suppress(ValueError):
                cells[at] = f"{float(cells[at]) * rng.choice([-1, 0.1, 0.9, 1.1, 10]):.6g}"
        elif kind == 6:
            cells = [lines[place][:letter]]
        lines[place] = ",".join(cells)
        if kind == 7:
            lines.pop(place)
        elif kind == 8:
            lines.insert(line, lines[place])
        elif kind == 9:
            lines[place], lines[line] = lines[line], lines[place]
        elif kind == 10:
            lines[place : place + 2] = [",".join(lines[place : place + 2])]
        lines = lines or [""]
    encoding = ["utf-16", "utf-8-sig", "utf-8-sig"][below(3)] if below(20) == 0 else "utf-8"
    data = bytearray("\n".join(lines).encode(encoding))
    if below(20) == 0:
        data = data.replace(b"\n", b"\r\n")
    if below(20) == 0:
        del data[below(len(data)) :]
    elif below(20) == 0 and data:
        data[below(len(data))] = below(256)
    return bytes(data)


@dataclass
class Files:
    """A second reading of annotation files, one row at a time, without the lines that a loader names as bad.

    Attributes:
        root: the folder of the files.
        issues: what the loader says, by file and line.
    """

    root: Path
    issues: Mapping[str, Mapping[int, str]]

    def outside(self, file: str, line: int) -> bool:
        """Whether the line is bad for its place in the picture, which the rows do not tell."""
        return "outside the picture of" in self.issues[file].get(line, "")

    def rows(self, file: str, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
        """Line and cells by column of each row that a reader of rows can take."""
        text = io.TextIOWrapper(io.BytesIO((self.root / file).read_bytes()), "utf-8-sig", "replace").read()
        header = [] if columns else [cell.strip().lower() for cell in next(csv.reader(text.split("\n")[:1]))]
        for line, content in enumerate(text.split("\n"), 1):
            named = line in self.issues[file] and not self.outside(file, line)
            if content.strip() and not named and (columns or line > 1):
                cells = [cell.strip() for cell in next(csv.reader([content], skipinitialspace=True))]
                names = [name for name in columns if name != "in_out" or len(cells) == len(columns)] or header
                yield line, dict(zip(names, cells, strict=True))


Person = dict[str, Any]
"""``image``, ``head``, ``points``, ``inout`` and columns, in the release's units; ``place`` is file and line."""


def floats(row: Mapping[str, str], names: Sequence[str]) -> list[float]:
    return [float(row[name]) for name in names]


def gazefollow_people(files: Files, file: str) -> dict[str, Person]:
    people: dict[str, Person] = {}
    for line, row in files.rows(file, TRAIN):
        label, path = row.get("in_out", "1"), row["path"].replace("\\", "/")
        if label != "-1":
            head, place = floats(row, [*BOX]), (file, line)
            first = {"image": path, "head": head, "points": [], "inout": 0, "rows": [], "place": place}
            one = people.setdefault(f"{path}#{float(row['eye_x'])!r}", first)
            one["points"] += [floats(row, ["gaze_x", "gaze_y"])] * int(label)
            one["inout"] |= int(label)
            one["rows"].append(row["id"])
    return people | {name: one | {"rows": " ".join(one["rows"])} for name, one in people.items()}


def semantic_train_people(files: Files) -> dict[str, Person]:
    people = gazefollow_people(files, "train_annotations_release.txt")
    owners = {(one["image"], number): name for name, one in people.items() for number in one["rows"].split()}
    names: dict[str, str] = {}
    rows = [(file, row) for file in ("gaze-labels-train.csv", "gaze-labels-val.csv") for _, row in files.rows(file)]
    for _, row in rows:
        owner = owners.get((row["path"].replace("\\", "/"), row["id"]))
        if owner and row["gaze_pseudo_label"] and row["label_id"] and float(row["label_id"]) != -1:
            names.setdefault(owner, row["gaze_pseudo_label"])
    val = {row["path"] for file, row in rows if "val" in file}
    return {name: one | {"label": names.get(name, "")} for name, one in people.items() if one["image"] not in val}


def semantic_test_people(files: Files) -> dict[str, Person]:
    people = gazefollow_people(files, "test_annotations_release.txt")
    classes = json.loads((files.root / "vocab2id.json").read_text())
    right = {}
    for _, row in files.rows("gaze-labels-test.csv"):
        if row["gaze_gt_label"] and row["test_label_id"] and float(row["test_label_id"]) != -1:
            several = row["gaze_gt_labels"] or row["gaze_gt_label"]
            labels = [several] if several in classes else several.split("-")
            right[row["path"].replace("\\", "/")] = (row["gaze_gt_label"], "|".join(labels))
    seen: set[str] = set()
    for one in people.values():
        one["label"], one["labels"] = ("", "") if one["image"] in seen else right.get(one["image"], ("", ""))
        seen.add(one["image"])
    return people


def vat_people(files: Files) -> dict[str, Person]:
    people = {}
    for path in (files.root / "annotations/test").glob("*/*/*.txt"):
        file = str(path.relative_to(files.root))
        show, clip, track = path.relative_to(files.root / "annotations/test").with_suffix("").parts
        rows = [(n, row) for n, row in files.rows(file, TABLES["vat"].columns) if not files.outside(file, n)]
        boxes = [[*map(min, *halves), *map(max, *halves)] for _, row in rows
                 for halves in [(floats(row, ["xmin", "ymin"]), floats(row, ["xmax", "ymax"]))]]  # fmt: skip
        for place, (line, row) in enumerate(rows):
            window = [boxes[min(max(place + step, 0), len(rows) - 1)] for step in range(-5, 6)]
            clip_name = f"{show.replace(' ', '_')}/{clip}"
            gaze = floats(row, ["gaze_x", "gaze_y"])
            people[f"{clip_name}/{Path(row['frame']).stem}#{track}"] = {
                "image": f"images/{clip_name}/{row['frame']}", "head": np.mean(window, axis=0), "place": (file, line),
                "inout": int(gaze != [-1, -1]), "points": [[max(side, 0) for side in gaze]] * (gaze != [-1, -1]),
            }  # fmt: skip
    return people


def childplay_people(files: Files) -> dict[str, Person]:
    people: dict[str, Person] = {}
    heads: dict[str, list[list[float]]] = {}
    for path in (files.root / "annotations/test").glob("*.csv"):
        file, clip = str(path.relative_to(files.root)), path.stem
        video, start = clip.rsplit("-", 1)[0].rsplit("_", 1)
        for line, row in files.rows(file):
            frame, person = int(float(row["frame"])), int(float(row["person_id"]))
            x, y, width, height = floats(row, ["bbox_x", "bbox_y", "bbox_width", "bbox_height"])
            image = f"images/{clip}/{video}_{int(start) + frame - 1}.jpg"
            heads.setdefault(image, []).append(box := [x, y, x + width, y + height])
            inside = row["gaze_class"] == "inside_visible"
            gaze = floats(row, ["gaze_x", "gaze_y"]) if inside else []
            if (inside and -1 not in gaze) or row["gaze_class"] == "outside_frame":
                people[f"{clip}/{frame}#{person}"] = {
                    "image": image, "head": box, "inout": int(inside), "points": [gaze] * inside, "place": (file, line),
                    "is_child": int(row["is_child"]), "track": f"{clip}#{person}", "heads": heads[image],
                }  # fmt: skip
    return people


def gazehoi_people(files: Files) -> dict[str, Person]:
    return {
        f"{name}#{row['pair_id']}": {
            "image": f"images/{name}", "head": floats(row, ["h_xmin", "h_ymin", "h_xmax", "h_ymax"]), "inout": 1,
            "points": [floats(row, ["oc_x", "oc_y"])], "place": ("test-annotations.csv", line), "label": row["object"],
            "target_box": floats(row, ["o_xmin", "o_ymin", "o_xmax", "o_ymax"]),
        }
        for line, row in files.rows("test-annotations.csv")
        for name in [row["file_name"].replace("\\", "/")]
        if float(row["h_xmin"]) != -1
    }  # fmt: skip


SECOND_READING: dict[str, Callable[[Files], dict[str, Person]]] = {
    "gazefollow": partial(gazefollow_people, file="train_annotations_release.txt"),
    "gazefollow test": partial(gazefollow_people, file="test_annotations_release.txt"),
    "vat": vat_people,
    "childplay": childplay_people,
    "gazehoi": gazehoi_people,
    "gazefollow_semantic": semantic_train_people,
    "gazefollow_semantic test": semantic_test_people,
}


def assert_read(records: Records, people: dict[str, Person], files: Files, pixels: bool) -> None:
    """The records are these people, but for those whose place in the picture, or whose picture, is an issue."""
    missing = {file for file, lines in files.issues.items() if "no such file" in lines.get(0, "")}
    left = {
        name: one for name, one in people.items() if not files.outside(*one["place"]) and one["image"] not in missing
    }
    assert sorted(records.person_id.tolist()) == sorted(left)
    for person, name in enumerate(records.person_id.tolist()):
        one, image = left[name], records.person_image[person]
        size = records.sizes[image]

        def shown(box: Sequence[float], size: Any = size) -> list[float]:
            corners = np.sort(np.reshape(box, (2, 2)), axis=0)
            return np.clip(corners / size, 0, 1).ravel().tolist()

        assert records.images[image] == one["image"]
        assert records.inout[person] == one["inout"]
        np.testing.assert_allclose(records.head[person], shown(one["head"]), rtol=1e-12, atol=1e-15)
        points = np.reshape(one["points"], (-1, 2)) / (size if pixels else 1)
        np.testing.assert_array_equal(records.points_of(person), points)
        for column in one.keys() - {"image", "head", "inout", "points", "place", "target_box", "heads"}:
            assert records.columns[column][person] == one[column], column
        if "target_box" in one:
            np.testing.assert_array_equal(records.columns["target_box"][person], shown(one["target_box"]))
        if "heads" in one:
            found = records.columns["heads"][person]
            boxes = [box for box in map(shown, one["heads"]) if box[2] > box[0] and box[3] > box[1]]
            np.testing.assert_array_equal(np.sort(found[~np.isnan(found[:, 0])], axis=0), np.sort(boxes, axis=0))


@pytest.mark.parametrize("case", CSV)
def test_a_mutated_file_gives_a_typed_error_or_the_values_of_a_second_reading(release, case, monkeypatch):
    """Every line that is not named is there, with its values."""
    for module in ("annotations", "dataset"):
        monkeypatch.setattr(f"gazebench.data.{module}.cached", lambda key, build: build())
    monkeypatch.setattr(
        "gazebench.data.dataset._size", cache(lambda path: image_size(path) if path.is_file() else (0, 0))
    )
    opened, file = release(case)
    split, whole, refused, read = TABLES[case].split, file.read_bytes(), 0, 0
    for seed in range(MUTATIONS // len(CSV)):
        file.write_bytes(data := mutated(whole, np.random.default_rng([seed, len(case)])))
        try:
            records = opened(bad_rows="skip", missing_images="skip").records(split)
        except UserError:  # the whole file is none of the release
            refused += 1
            continue
        issues: dict[str, dict[int, str]] = defaultdict(dict)
        for issue in records.issues:
            assert not issue.row or issue.row not in issues[issue.file], "a line is named once"
            issues[issue.file][issue.row] = issue.what
        files = Files(opened().root, issues)
        try:
            assert_read(records, SECOND_READING[case](files), files, pixels="gazefollow" not in case)
        except Exception as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
        read += 1
    assert read > refused


def mutated_cell(cell: Any, rng: np.random.Generator) -> Any:
    """A cell of a table after a change of one number, of its shape, or of the whole."""
    if isinstance(cell, str):
        return rng.choice(["", "a.jpg", "../a/b.jpg", "a//b.jpg", cell.replace("/", "\\"), f"{cell}x"])
    value = np.array([*cell], dtype=float)
    kind = int(rng.integers(9))
    if kind < 4 and value.size:
        value.flat[rng.integers(value.size)] = rng.choice([np.nan, np.inf, -1, 0, 1, 2, 0.5, 1.05, 1.3, 55, -30, 1e308])
        return value
    return [None, "text", value[:-1], np.concatenate([value, value[-1:]]), value.tolist(), value.astype(str)][kind % 6]


def test_a_mutated_table_gives_a_typed_error_or_the_values_of_a_second_reading(release, monkeypatch):
    for module in ("annotations", "dataset"):
        monkeypatch.setattr(f"gazebench.data.{module}.cached", lambda key, build: build())
    opened, file = release("vsgaze")
    whole, read = read_table(file).to_dict("records"), 0
    for seed in range(MUTATIONS // len(CSV)):
        rng, rows = np.random.default_rng(seed), [dict(row) for row in whole]
        for _ in range(rng.integers(1, 4)):
            at, column = rng.integers(len(rows)), rng.choice([*rows[0]])
            rows[at][column] = mutated_cell(whole[at if rng.integers(4) else 0][column], rng)
        if rng.integers(4) == 0:
            rows.insert(int(rng.integers(len(rows))), rows[rng.integers(len(rows))])
        table = pd.DataFrame(rows)
        monkeypatch.setattr(pd, "read_hdf", lambda *_, table=table: table.copy())
        monkeypatch.setattr(pd, "read_parquet", lambda *_, table=table: table.copy())
        records = opened(bad_rows="skip", missing_images="skip").records("test")
        lines = {issue.row for issue in records.issues if issue.row}
        missing = {issue.file for issue in records.issues if not issue.row}
        people: dict[str, Person] = {}
        labels: dict[str, list[int]] = {name: [] for name in ("lah_pairs", "laeo_pairs", "coatt_pairs")}
        sound = [row for line, row in enumerate(rows, start=1) if line not in lines]
        frames = {"vat/" + row["path"].replace("\\", "/"): row for row in sound}
        for image in sorted(frames.keys() - missing):
            row = frames[image]
            ids = [int(float(number)) for number in row["person_ids"]]
            for place, number in enumerate(ids):
                if number != -1:
                    inout = int(float(row["inout"][place]))
                    corners = np.array([*row["head_bboxes"][place]], dtype=float).reshape(2, 2)
                    people[f"{image}#{number}"] = {
                        "head": np.sort(corners, axis=0).ravel().clip(0, 1), "inout": inout,
                        "points": [np.array(row["gaze_points"][place], dtype=float)] * (inout == 1),
                    }  # fmt: skip
            real = [number for number in ids if number != -1]
            pairs = [tuple(int(float(number)) for number in pair) for pair in row["pairs"]]
            for name, found in labels.items():
                known = dict(zip(pairs[::-1], [int(float(label)) for label in row[name]][::-1], strict=True))
                found += [known.get(pair, -1) for pair in permutations(real, 2)]
        assert sorted(records.person_id.tolist()) == sorted(people)
        for person, name in enumerate(records.person_id.tolist()):
            assert records.inout[person] == people[name]["inout"]
            np.testing.assert_array_equal(records.head[person], people[name]["head"])
            np.testing.assert_array_equal(records.points_of(person), np.reshape(people[name]["points"], (-1, 2)))
        for name, found in zip(("lah", "laeo", "sa"), labels.values(), strict=True):
            assert records.pairs[name].tolist() == found
        read += bool(lines)
    assert read


@pytest.mark.parametrize(
    "damage", ["empty", "header only", "a folder", "none", "without a column", "UTF-16", "semicolons", "half a .gz"]
)
@pytest.mark.parametrize("case", TABLES)
def test_a_file_that_is_none_of_the_release_is_named(release, case, damage):
    opened, file = release(case)
    rows, root = TABLES[case], opened().root
    if damage == "without a column" and case == "vsgaze":
        write_table(file.with_suffix(""), read_table(file).drop(columns="inout"))
    elif damage == "without a column":
        header, *lines = file.read_text(encoding="utf-8").split("\n")
        header = header.replace("gaze", "x").replace("object", "y")  # without one, each row is bad
        file.write_text("\n".join([header, *(line + ",1" * bool(rows.columns) for line in lines)]), encoding="utf-8")
    elif damage in ("UTF-16", "semicolons", "half a .gz") and case == "vsgaze":
        pytest.skip("its tables are no text")
    elif damage == "UTF-16":
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-16")
    elif damage == "semicolons":
        file.write_text(file.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    elif damage == "header only" and case == "vsgaze":
        write_table(file.with_suffix(""), read_table(file)[:0])
    elif damage == "header only":
        file.write_text("" if rows.columns else file.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")
    else:
        whole = file.read_bytes()
        for each in root.glob(rows.file) if damage == "none" else [file]:
            each.unlink()
        if damage == "half a .gz":
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(whole)[:-20])
    if damage == "empty":
        file.touch()
    elif damage == "a folder":
        file.mkdir()
    with pytest.raises(DataError) as error:
        opened().records(rows.split)
    assert rows.file.split("*")[0].rstrip("/.") in str(error.value)
    word = {"header only": "no rows", "UTF-16": "UTF-16", "semicolons": "semicolons"}.get(damage, "")
    assert word in str(error.value)


def change(file: Path, rows: Rows, difference: str) -> None:
    """Rewrites a file in another way of writing the same."""
    text = file.read_text(encoding="utf-8")
    header, *lines = text.split("\n")
    names = rows.columns or tuple(header.split(","))
    if difference == "byte-order mark, line ends":
        file.write_bytes(text.replace("\n", " \r\n\r\n").encode("utf-8-sig"))
    elif difference == "blanks":
        cells = [[f'"{cell}"' if "," in cell else f"{cell} " for cell in row] for row in csv.reader(text.splitlines())]
        file.write_text("\n".join("  " + ",  ".join(row) for row in cells), encoding="utf-8")
    elif difference == "capitals" and not rows.columns:
        file.write_text("\n".join([header.upper(), *lines]), encoding="utf-8")
    elif difference == "backslashes":
        place = next((names.index(name) for name in ("path", "file_name") if name in names), None)
        table = [*csv.reader(text.splitlines())]
        for row in table if place is not None else ():
            row[place] = row[place].replace("/", "\\")
        file.write_text("\n".join(",".join(f'"{cell}"' for cell in row) for row in table), encoding="utf-8")
    elif difference == "gz":
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


@pytest.mark.parametrize("difference", ["byte-order mark, line ends", "blanks", "capitals", "backslashes", "gz"])
@pytest.mark.parametrize("case", CSV)
def test_ways_of_writing_the_same_file_make_no_difference(release, case, difference):
    opened, file = release(case)
    before = opened().parse(TABLES[case].split)
    change(file, TABLES[case], difference)
    after = opened().parse(TABLES[case].split)
    assert after.fingerprint() == before.fingerprint()
    assert after.columns.keys() == before.columns.keys()


@pytest.mark.parametrize(
    ("case", "cells"),
    [
        ("gazefollow", {"xmin": 70, "xmax": 1e6}),
        ("vat", {"xmin": 70, "xmax": 1e6}),
        ("childplay", {"bbox_x": 70, "bbox_width": 1e6}),
        ("gazehoi", {"h_xmin": 70, "h_xmax": 1e6}),
    ],
)
def test_a_box_partly_outside_is_clipped(release, case, cells):
    opened, file = release(case)
    spoil(file, TABLES[case], cells)
    records = opened().records(TABLES[case].split)
    assert not records.issues
    assert (records.head >= 0).all()
    assert (records.head <= 1).all()
    clipped = records.head[:, 2] == 1
    # The boxes of a track of VideoAttentionTarget are smoothed, so that those beside it reach the border too.
    assert clipped.any() if case == "vat" else clipped.sum() == 1
    left = 70 / records.sizes[records.person_image[clipped], 0]
    assert case == "vat" or records.head[clipped, 0] == pytest.approx(left)


@pytest.mark.parametrize("case", NAMES)
def test_images_that_are_not_there_or_no_images(release, case):
    opened, _ = release(case)
    split = TABLES[case].split
    data = pickle.loads(pickle.dumps(opened()))  # as a worker gets it
    records = data.records(split)
    name, file = str(records.images[0]), data.path(records, 0)
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(ImageError, match=file.name):
        data.image(records, 0)
    assert sum(file.name in finding for finding in findings(data, split, 0)) == 1
    file.unlink()
    with pytest.raises(DataError) as error:
        opened().records(split)
    assert name in str(error.value)
    assert "missing_images skip" in str(error.value)
    skipping = opened(missing_images="skip")
    assert len(skipping.records(split)) == len(records) - 1
    assert [issue.file for issue in skipping.records(split).issues] == [name]
    assert not skipping.completeness(split).complete
    folder = opened().root / Path(file.relative_to(opened().root)).parts[0]
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(DataError, match=folder.name):
        opened().records(split)


def test_five_bad_rows_are_shown_of_many(release):
    opened, file = release("gazefollow")
    file.write_text("x,y\n" * 1234 + file.read_text(encoding="utf-8"))
    with pytest.raises(DataError) as error:
        opened().records("trainval")
    assert "1,234 bad rows" in str(error.value)
    assert str(error.value).count(f"{file.name}:") == 5
