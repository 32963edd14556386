"""Rubbish in the annotations of every data set: each row, file and image is named, or skipped and counted."""

import csv
import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Annotations
from gazebench.data.annotations import ReleasedDataset
from gazebench.data.check import findings
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


@pytest.mark.parametrize("case", CSV)
def test_rubbish_never_passes_unnamed(release, case, monkeypatch):
    """Of rows with random letters each is named once, or makes sense and counts."""
    opened, file = release(case)
    split, letters = TABLES[case].split, list("0123456789.,-e naxjpg/\0é\u2028'\"")
    monkeypatch.setattr(ReleasedDataset, "_present", lambda self, of: np.ones(len(of), bool))

    def counted(annotations):
        left_out = sum(number for name, number in annotations.counts.items() if "left_out" in name)
        if "semantic" in case:
            return int((annotations.columns["label"] != "").sum()) + left_out
        return len(annotations.points) + int((annotations.inout != 1).sum()) + left_out

    whole, clean, named = file.read_text(encoding="utf-8").split("\n"), counted(opened().parse(split)), 0
    for seed in range(6):
        rng, lines = np.random.default_rng(seed), whole.copy()
        for place in range(1, len(lines) - 1):
            line = list(lines[place])
            for _ in range(int(rng.integers(0, 3))):
                line[int(rng.integers(len(line)))] = letters[int(rng.integers(len(letters)))]
            lines[place] = "".join(line)
        file.write_bytes("\n".join(lines).encode() + b"\xff\xfe\n")
        with pytest.raises(DataError, match=f"{file.name}:"):
            opened().parse(split)
        annotations = opened(bad_rows="skip").parse(split)
        bad = [issue.row for issue in annotations.issues if issue.row]
        assert len(lines) in bad, "the line of no text at all"
        assert len(set(bad)) == len(bad)
        assert counted(annotations) + len(bad) - 1 >= clean, "no row is lost unnamed"
        assert np.isfinite(annotations.head).all()
        assert np.isfinite(annotations.points).all()
        named += len(bad)
    assert named > 12


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
