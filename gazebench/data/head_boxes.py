"""Head boxes of one's own, such as a detector's, in place of the annotated ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gazebench.core.boxes import BOX, FloatArray, IntArray, clean_boxes, normalise
from gazebench.core.errors import DataError, some
from gazebench.core.files import file_digest
from gazebench.core.types import Issue, Policy, Records

OVERLAP = 0.3
"""A box without a person's id belongs to a person whose annotated box it overlaps so much at least (IoU)."""
FARTHEST = 1.0
"""How far, in picture sizes, a coordinate may lie beyond the picture before it is taken for one in pixels."""

GROWTH = (1.3, 0.5, 0.1)
"""The box of a head from that of its face, in heights of the face: its width, and what it adds above and below. A face
seen from the side is narrow, a head is not; fitted to published head boxes (docs/pictures.md)."""

FORMAT = f"""Head boxes are COCO JSON (.json: its category head, else face, which is grown to a head), or CSV
(.csv, .csv.gz) or Parquet with one row a box and the columns
  xmin, ymin, xmax, ymax   normalised to [0, 1] by the picture's width and height
  image                    the picture, as `gazebench data ids DATASET` lists it
  person_id                the person, as listed there; empty, or left out, for a detection: it goes to the person of
                           its image whose annotated box it overlaps most, with an IoU of {OVERLAP} or more"""


def grow_faces(faces: FloatArray) -> FloatArray:
    """(K, 4) boxes of faces in pixels to boxes of heads, not clipped."""
    x0, y0, x1, y1 = faces.T
    width, above, below = GROWTH
    middle, height = (x0 + x1) / 2, y1 - y0
    half = height * width / 2
    return np.stack([middle - half, y0 - height * above, middle + half, y1 + height * below], axis=1)


def _read_coco(path: Path) -> pd.DataFrame:
    """The boxes of heads in a COCO JSON, else those of faces, grown; columns ``image``, ``person_id`` and ``BOX``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        images = {one["id"]: (str(one["file_name"]), one["width"], one["height"]) for one in content["images"]}
        names = {one["id"]: str(one["name"]).lower() for one in content["categories"]}
        found = [
            (names[one["category_id"]], *images[one["image_id"]], one.get("person_id", ""), *one["bbox"])
            for one in content["annotations"]
        ]
    except (KeyError, TypeError) as error:
        what = f"not a COCO JSON with images (file_name, width, height), annotations (bbox) and categories ({error})"
        raise DataError(f"{path}: {what}. {FORMAT}") from error
    kind = next((word for word in ("head", "face") if any(word in name for name in names.values())), None)
    if kind is None:
        raise DataError(f"{path}: none of the categories {', '.join(names.values())} is called head or face")
    columns = ["category", "image", "width", "height", "person_id", *BOX]
    table = pd.DataFrame(found, columns=columns)
    table = table[table["category"].str.contains(kind)].reset_index(drop=True)
    boxes = table[BOX].to_numpy(np.float64, copy=True)
    boxes[:, 2:] += boxes[:, :2]  # COCO gives width and height
    boxes = grow_faces(boxes) if kind == "face" else boxes
    table[BOX] = clean_boxes(normalise(boxes, "pixel", table[["width", "height"]].to_numpy(np.float64)))
    return table


def read(path: Path, tracks: bool = False) -> pd.DataFrame:
    """The rows of a file of head boxes, clean: columns ``image`` and ``person_id`` (text, "" for none) and ``BOX``.

    Args:
        path: see ``FORMAT``.
        tracks: whether a person may have a row in every image, and not one in all.

    Raises:
        DataError: the file is missing, unreadable or empty, a column is missing, or a row makes no sense; names it.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. {FORMAT}")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.suffix == ".json":
            table = _read_coco(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            raise DataError(f"{path}: unknown ending {path.suffix!r}. {FORMAT}")
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error}). {FORMAT}") from error
    missing = [name for name in BOX if name not in table]
    if missing or not {"image", "person_id"} & set(table):
        raise DataError(f"{path}: the columns are {', '.join(map(str, table))}. {FORMAT}")
    if table.empty:
        raise DataError(f"{path}: no rows. {FORMAT}")
    rows = pd.DataFrame(index=range(len(table)))
    for name in ("image", "person_id"):
        given = table[name] if name in table else pd.Series([""] * len(table))
        rows[name] = given.fillna("").astype(str).str.strip().to_numpy()
    rows[BOX] = table[BOX].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    boxes = rows[BOX].to_numpy()
    finite = np.isfinite(boxes).all(axis=1)
    far = finite & ((boxes < -FARTHEST) | (boxes > 1 + FARTHEST)).any(axis=1)
    clean = clean_boxes(boxes)
    twice = rows.duplicated(["image", "person_id"] if tracks else ["person_id"])
    for wrong, why in (
        (~finite, "four finite numbers are needed"),
        (far, "is it normalised to [0, 1]?"),
        ((clean[:, 2:] <= clean[:, :2]).any(axis=1), "no area inside the picture"),
        ((rows["image"] == "") & (rows["person_id"] == ""), "neither an image nor a person_id"),
        ((rows["person_id"] != "") & twice, "the person has two rows; keep one"),
    ):
        for row in np.flatnonzero(wrong)[:1]:
            raise DataError(f"{path}: row {row + 1}: {why} ({table.iloc[row].to_dict()})")
    rows[BOX] = clean
    return rows


def attach(records: Records, path: Path, missing: Policy) -> tuple[Records, dict[str, Any]]:
    """The records with the boxes of a file instead of their own, and what a result records of it.

    Rows with a ``person_id`` go to that person. The others of an image go to its remaining people, the pair of the
    largest overlap first, each box and each person once. The file may hold other splits' images too.

    Args:
        records: normalised, with the annotated boxes.
        path: see ``FORMAT``.
        missing: what to do with people who get no box: stop, or leave them out as issues.

    Raises:
        DataError: the file is bad, names a person who is not in the row's image, or lacks people (``error``).
    """
    rows = read(path)
    ids = pd.Index(records.person_id.astype(str))
    image, person = pd.Index(records.images.astype(str)).get_indexer(rows["image"]), ids.get_indexer(rows["person_id"])
    named = (rows["person_id"] != "").to_numpy()
    lost = named & (image >= 0) & ((person < 0) | (records.person_image[person] != image))
    for row in np.flatnonzero(lost)[:1]:
        raise DataError(
            f"{path}: row {row + 1}: there is no person {rows['person_id'][row]!r} in image {rows['image'][row]!r} of "
            f"{records.dataset}/{records.split}; `gazebench data ids` lists them"
        )
    boxes = rows[BOX].to_numpy()
    head = np.full_like(records.head, np.nan)
    by_id = np.flatnonzero(named & (person >= 0))
    head[person[by_id]] = boxes[by_id]
    detected = np.flatnonzero(~named & (image >= 0))
    waiting = np.flatnonzero(np.isnan(head).any(axis=1) & np.isfinite(records.head).all(axis=1))
    pairs = matched(records.head[waiting], records.person_image[waiting], boxes[detected], image[detected])
    for mine, box, _ in pairs:
        head[waiting[mine]] = boxes[detected[box]]
    without = np.asarray(np.isnan(head).any(axis=1))
    identity = {
        "file": path.name,
        "sha256": file_digest(path),
        "by_id": len(by_id),
        "by_overlap": len(pairs),
        "least_overlap": OVERLAP,
        "people_without": int(without.sum()),
        "boxes_unused": len(detected) - len(pairs),
    }
    if without.any() and missing == "error":
        seen = "" if len(by_id) + len(detected) else f"; an image in the file: {rows['image'][0]!r}"
        raise DataError(
            f"{path}: {without.sum():,} of {records.people:,} people of {records.dataset}/{records.split} get no head "
            f"box ({some(ids[without].tolist())}{seen}). Add them, or leave those people out and count them: "
            "--dataset.missing_boxes skip"
        )
    issues = tuple(Issue(path.name, 0, f"no head box for {name}") for name in ids[without])
    kept = replace(records, head=head, issues=(*records.issues, *issues))
    return kept.select(~without) if len(issues) else kept, identity


def matched(
    annotated: FloatArray, of_image: IntArray, found: FloatArray, in_image: npt.NDArray[np.intp]
) -> list[tuple[int, int, float]]:
    """Annotated boxes (A, 4) of images (A,) and found ones (F, 4) of images (F,) in pairs, each box once.

    Returns:
        Rows of both and their IoU: those of the largest IoU first, down to ``OVERLAP``.
    """
    left = pd.DataFrame({"image": of_image, "mine": range(len(of_image))})
    both = left.merge(pd.DataFrame({"image": in_image, "box": range(len(in_image))}), on="image")
    mine, box = both["mine"].to_numpy(), both["box"].to_numpy()
    a, b = annotated[mine], found[box]
    shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    iou = shared / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared)
    pairs: dict[int, tuple[int, float]] = {}
    taken = set[int]()
    for pair in np.lexsort((box, mine, -iou)):
        if iou[pair] < OVERLAP:
            break
        if mine[pair] not in pairs and box[pair] not in taken:
            pairs[int(mine[pair])] = int(box[pair]), float(iou[pair])
            taken.add(int(box[pair]))
    return [(one, other, overlap) for one, (other, overlap) in pairs.items()]
