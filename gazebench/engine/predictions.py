"""Predictions files: one row for each person, written by this suite or by any other program."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError, UserError
from gazebench.core.files import write_atomically
from gazebench.core.types import SOCIAL, Batch, Item, Prediction, Records, pairs_of
from gazebench.metrics.protocol import Protocol

FORMAT = """CSV, Parquet or JSON lines with one row for each person and the columns
  person_id            as `gazebench data ids DATASET` lists them
  x, y                 the predicted point, normalised to [0, 1]; leave them out to have the protocol decode the heatmap
  inout                optional; larger means more surely in frame
  label                optional; the name of the category looked at; empty for no answer, which counts as wrong
  lah, laeo, sa        optional; a JSON object with a probability for everybody else of the image, by person_id: that
                       this person looks at the other one's head, that they look at each other, at the same thing
  text_x, text_y       optional; the point, normalised, in the text that a vision-language model wrote; scored apart
  questions            optional; a JSON object with the answer to every question about this person, by the question's id
                       (`gazebench vqa build` lists the questions)
  heatmap              optional; the raw map, row by row (a list, or little-endian float32 bytes in Parquet)
  heatmap_h, heatmap_w its height and width
A metric whose columns are missing is left out of the result (AUC needs the raw heatmap)."""

MARGIN = 0.5
"""How far outside the picture, in its width or height, a point may lie: a regressed point may overshoot, and points
anywhere in the picture stay legal in every usual unit but [0, 1] (pixels, per cent, thousandths, [-1, 1])."""
FIFTYONE = ".fiftyone.json"
"""Ending of the file that FiftyOne reads, and which holds all columns but heatmaps."""
ROWS = 512
"""Rows that are read and written at a time."""

Heatmap = npt.NDArray[np.float32]
_METADATA = b"gazebench"
_NUMBERS = ("x", "y", "inout", "text_x", "text_y", "heatmap_h", "heatmap_w", "used_annotation")
_TYPES: dict[str, pa.DataType] = {
    "person_id": pa.string(), "image_id": pa.string(), "x": pa.float64(), "y": pa.float64(), "inout": pa.float64(),
    "label": pa.string(), "text": pa.string(), "text_x": pa.float64(), "text_y": pa.float64(),
    **dict.fromkeys([*BOX, "head_score", "label_probability"], pa.float64()),
    **dict.fromkeys(SOCIAL, pa.string()), "used_annotation": pa.int64(),
    "heatmap": pa.binary(), "heatmap_h": pa.int32(), "heatmap_w": pa.int32(),
}  # fmt: skip


class PartWriter:
    """Writes predictions batch by batch; the columns are those of the first batch."""

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self.path, self.protocol = path, protocol
        path.parent.mkdir(parents=True, exist_ok=True)
        self.writer: pq.ParquetWriter | None = None

    def write(self, batch: Batch, prediction: Prediction) -> None:
        """Appends the people of a batch.

        Raises:
            UserError: a prediction is not finite; to leave it out would improve the score.
        """
        for name, value in prediction.tensors().items():
            if not torch.isfinite(value).all():
                raise UserError(
                    f"the {name} predicted for {', '.join(batch.image_ids[:3])} ... is not finite: the model has "
                    "diverged; lower the learning rate"
                )
        columns = _columns(batch, prediction.to("cpu"), self.protocol)
        fields = [pa.field(name, _TYPES.get(name, pa.string())) for name in columns]
        table = pa.table(columns, schema=pa.schema(fields))
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _columns(batch: Batch, prediction: Prediction, protocol: Protocol) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "person_id": batch.person_ids,
        "image_id": [batch.image_ids[image] for image in batch.image_index.tolist()],
    }
    point = protocol.point(prediction)
    if point is not None:
        columns["x"], columns["y"] = point.double().T.tolist()
    if prediction.inout is not None:
        columns["inout"] = prediction.inout.double().tolist()
    for name in ("label", "text"):
        if getattr(prediction, name) is not None:
            columns[name] = list(getattr(prediction, name))
    if prediction.text_point is not None:
        columns["text_x"], columns["text_y"] = prediction.text_point.double().T.tolist()
    for name in SOCIAL:
        scores = getattr(prediction, name)
        if scores is not None:
            pairs = batch.pairs.tolist()
            by_id = [(j, batch.person_ids[i], s) for (i, j), s in zip(pairs, scores.double().tolist(), strict=True)]
            columns[name] = _objects(batch.people, by_id)
    for task, outputs in prediction.outputs.items():
        items = batch.items.get(task, [])
        columns[task] = _objects(
            batch.people, [(item.person, item.id, text) for item, text in zip(items, outputs, strict=True)]
        )
    if prediction.used_annotation is not None:
        columns["used_annotation"] = prediction.used_annotation.tolist()
    if prediction.heatmap is not None:
        columns["heatmap"] = [row.tobytes() for row in prediction.heatmap.float().numpy().astype("<f4")]
        height, width = prediction.heatmap.shape[-2:]
        columns |= {"heatmap_h": [height] * batch.people, "heatmap_w": [width] * batch.people}
    return columns


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of one method as a predictions file: JSON lines, CSV, Parquet or FiftyOne's JSON, by its ending.

    A heatmap is a list of numbers, row by row. All rows have the same keys.

    Raises:
        DataError: the ending is another one, or CSV is to hold heatmaps.
    """
    ending = check_ending(path)
    if ending == ".json":
        content = json.dumps({"labels": _to_fiftyone(rows)}, ensure_ascii=False)
        write_atomically(path, content)
        return

    def write(target: Path) -> None:
        waiting = iter(rows)
        first, writer = True, None
        with target.open("w", encoding="utf-8", newline="") as file:
            while some := list(islice(waiting, ROWS)):
                if ending == ".jsonl":
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
                elif ending == ".csv":
                    pd.DataFrame(some).to_csv(file, index=False, header=first, lineterminator="\n")
                else:
                    writer = _write_group(target, some, writer)
                first = False
        if ending == ".parquet":
            (writer or _write_group(target, [{"person_id": ""}], None, empty=True)).close()

    write_atomically(path, write)


def check_ending(path: Path, heatmaps: bool = False) -> str:
    """The ending of a predictions file.

    Raises:
        DataError: there is no such form, or it cannot hold heatmaps.
    """
    if path.suffix not in (".jsonl", ".csv", ".parquet") and not path.name.endswith(FIFTYONE):
        raise DataError(f"{path}: unknown ending {path.suffix!r}; give .jsonl, .csv, .parquet or {FIFTYONE}")
    if heatmaps and path.suffix in (".csv", ".json"):
        raise DataError(f"{path}: {path.suffix} cannot hold heatmaps; give .jsonl or .parquet")
    return path.suffix


def _to_fiftyone(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """``labels`` of FiftyOne's detection format: by image without its ending, the heads with all else as attributes.

    A person without a box is a detection ``picture`` of the whole of it.
    """
    labels: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        x0, y0, x1, y1 = (row.get(name) for name in BOX)
        boxed = x0 is not None
        one: dict[str, Any] = {
            "label": "head" if boxed else "picture",
            "bounding_box": [x0, y0, x1 - x0, y1 - y0] if boxed else [0, 0, 1, 1],  # type: ignore[operator]
            "attributes": {name: row[name] for name in row.keys() - {*BOX, "head_score"} if row[name] is not None},
        }
        if row.get("head_score") is not None:
            one["confidence"] = row["head_score"]
        labels.setdefault(str(PurePosixPath(row["image_id"]).with_suffix("")), []).append(one)
    return labels


def _from_fiftyone(path: Path) -> pd.DataFrame:
    rows = []
    try:
        for one in chain.from_iterable(json.loads(path.read_text(encoding="utf-8"))["labels"].values()):
            x, y, width, height = one["bounding_box"]
            box = (x, y, x + width, y + height) if one["label"] == "head" else [None] * 4
            rows.append(one["attributes"] | dict(zip(BOX, box, strict=True)) | {"head_score": one.get("confidence")})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not FiftyOne's labels of `gazebench predict --out x{FIFTYONE}`: {error!r}") from error
    return pd.DataFrame(rows, dtype=object)


def _write_group(
    path: Path, rows: Sequence[Mapping[str, Any]], writer: pq.ParquetWriter | None, empty: bool = False
) -> pq.ParquetWriter:
    schema = pa.schema([pa.field(name, _TYPES.get(name, pa.string())) for name in rows[0]])
    packed = [
        {**row, "heatmap": np.asarray(row["heatmap"], "<f4").tobytes()} if "heatmap" in row else dict(row)
        for row in rows[: 0 if empty else None]
    ]
    writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
    writer.write_table(pa.Table.from_pylist(packed, schema=schema))
    return writer


def _objects(people: int, entries: Sequence[tuple[int, str, Any]]) -> list[str]:
    """A JSON object for each person, of (person, key, value) entries."""
    found: list[dict[str, Any]] = [{} for _ in range(people)]
    for person, key, value in entries:
        found[person][key] = value
    return [json.dumps(each, separators=(",", ":"), ensure_ascii=False) for each in found]


def merge_parts(folder: Path, target: Path, order: Sequence[str], provenance: Mapping[str, Any]) -> None:
    """Joins the processes' parts into one file and removes them.

    Args:
        folder: holds ``part-*.parquet``.
        target: the file to write.
        order: ids of the people in the order to write; each is written once, although several parts may have it.
        provenance: JSON values for the file's metadata.
    """
    parts = [_Rows(path) for path in sorted(folder.glob("part-*.parquet"))]
    place: dict[str, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for row, person in enumerate(part.file.read(columns=["person_id"]).column(0).to_pylist()):
            place.setdefault(person, (number, row))
    places = [place[person] for person in order if person in place]
    schema = parts[0].file.schema_arrow if parts else pa.schema([("person_id", pa.string())])
    schema = schema.with_metadata({_METADATA: json.dumps(provenance).encode()})

    def write(path: Path) -> None:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(places), ROWS):
                rows = [parts[number].row(row) for number, row in places[start : start + ROWS]]
                writer.write_table(pa.Table.from_batches(rows).cast(schema).combine_chunks())

    write_atomically(target, write)
    shutil.rmtree(folder, ignore_errors=True)


class _Rows:
    """Rows of a Parquet file, ``ROWS`` in memory at a time; rows should be asked for in ascending order."""

    def __init__(self, path: Path, columns: list[str] | None = None) -> None:
        # Without a buffer size a whole row group is read, and pandas writes a million rows into one.
        self.file, self.columns = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False), columns
        counts = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        self.start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.batches: Iterator[pa.RecordBatch] = iter(())
        self.first, self.batch = int(self.start[-1]), pa.record_batch({})  # after the last row: nothing is open yet

    def row(self, row: int) -> pa.RecordBatch:
        group = int(np.searchsorted(self.start, row, "right")) - 1
        if row < self.first or self.start[group] >= self.first + self.batch.num_rows:
            self.batches = self.file.iter_batches(ROWS, [group], self.columns)
            self.first, self.batch = int(self.start[group]), next(self.batches)
        while row >= self.first + self.batch.num_rows:
            self.first, self.batch = self.first + self.batch.num_rows, next(self.batches)
        return self.batch.slice(row - self.first, 1)


def _number(value: Any) -> float:
    """The float of a text, exactly (pandas' reader may round the last digit); NaN where it is no number."""
    try:
        return math.nan if "_" in str(value) else float(value)  # Python reads 1_0 as 10
    except (TypeError, ValueError):
        return math.nan


class PredictionFile:
    """A predictions file, read and checked; heatmaps of a Parquet file are read when they are needed.

    Attributes:
        path: the file.
        frame: all columns but the heatmap, by ``person_id``.
        provenance: what made the predictions; None for a file of another program.

    Raises:
        DataError: the file is missing or unreadable, a column is missing, or a row is wrong; names file and row (of a
            CSV, the line).
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        self.provenance: dict[str, Any] | None = None
        self._first = 2 if path.suffix == ".csv" else 1  # the number of the first row in messages: a CSV's line
        self._heatmap: Callable[[int], Heatmap | None] | None = None  # of a row
        try:
            frame = self._read(path)
        except (ValueError, OSError, pa.ArrowException) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read ({error}). Predictions are\n{FORMAT}") from error
        self.frame = self._checked(frame)

    def _read(self, path: Path) -> pd.DataFrame:
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            metadata = (file.schema_arrow.metadata or {}).get(_METADATA)
            self.provenance = json.loads(metadata) if metadata else None
            names = [name for name in file.schema_arrow.names if name != "heatmap"]
            if len(names) < len(file.schema_arrow.names):
                rows = _Rows(path, ["heatmap", "heatmap_h", "heatmap_w"])
                self._heatmap = lambda row: _map(path, row + self._first, rows.row(row).to_pylist()[0])
            return file.read(columns=names).to_pandas()
        if path.suffix in (".jsonl", ".ndjson"):  # not by pandas, which rounds numbers and converts some texts
            lines = path.read_text(encoding="utf-8").split("\n")
            found = [_json_row(path, row, line) for row, line in enumerate(lines, start=1) if line.strip()]
            return pd.DataFrame(found, dtype=object)
        if path.suffix == ".csv":
            # A category or a person may be called "None" or "NA": only an empty cell is missing.
            texts = dict.fromkeys(("person_id", "label", *_NUMBERS), str)
            return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
        if path.name.endswith(FIFTYONE):
            return _from_fiftyone(path)
        raise DataError(f"{path}: unknown ending {path.suffix!r}. Predictions are\n{FORMAT}")

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        path, answers = self.path, set(frame.columns) - {"person_id", "image_id", "x", "y", "inout"}
        if "person_id" not in frame or not ({"x", "y"} <= set(frame.columns) or answers or self._heatmap):
            raise DataError(f"{path}: columns are {', '.join(map(str, frame.columns))}. Predictions are\n{FORMAT}")
        if frame.empty:
            raise DataError(f"{path}: no rows")
        self._refuse(frame, "person_id", frame["person_id"].isna(), "which is no person")
        frame["person_id"] = frame["person_id"].astype(str)
        self._refuse(frame, "person_id", frame["person_id"].duplicated(), "which has two rows; keep one")
        for name in _NUMBERS:
            if name in frame:
                numbers = frame[name].map(_number)
                wrong = numbers.isna() & frame[name].notna() | numbers.isin([math.inf, -math.inf])
                self._refuse(frame, name, wrong, "not a finite number")
                frame[name] = numbers.astype(float)
        if "label" in frame:
            texts = frame["label"].map(lambda value: isinstance(value, str)) | frame["label"].isna()
            self._refuse(frame, "label", ~texts, "not the name of a category")
        if (self._heatmap or "heatmap" in frame) and not {"heatmap_h", "heatmap_w"} <= set(frame.columns):
            raise DataError(f"{path}: heatmap needs the columns heatmap_h and heatmap_w")
        self._check_points(frame)
        frame = frame.drop(columns=[name for name in frame if frame[name].isna().all()])
        if "heatmap_h" not in frame:
            self._heatmap = None
        for name in _NUMBERS:
            if name in frame:
                self._refuse(frame, name, frame[name].isna(), "but other rows have one; give it for all or for nobody")
        if "label" in frame:
            frame = frame.fillna({"label": ""})
        if "heatmap" in frame:
            maps = [_map(path, row, record) for row, record in enumerate(frame.to_dict("records"), self._first)]
            self._heatmap = maps.__getitem__
            frame = frame.drop(columns="heatmap")
        for name in SOCIAL:
            if name in frame:
                cells = enumerate(frame[name].tolist(), self._first)
                found = [_object(path, row, name, cell, _probability) or {} for row, cell in cells]
                frame[name] = pd.Series(found, index=frame.index, dtype=object)
        frame["row"] = np.arange(len(frame))
        return frame.set_index("person_id")

    def _refuse(self, frame: pd.DataFrame, name: str, wrong: pd.Series, why: str) -> None:
        rows = np.flatnonzero(wrong.to_numpy(dtype=bool))
        if len(rows):
            value = frame[name].tolist()[rows[0]]
            raise DataError(f"{self.path}:{rows[0] + self._first}: {name} is {value!r}, {why}")

    def _check_points(self, frame: pd.DataFrame) -> None:
        """Refuses points that say nothing, and those that can hardly be normalised.

        A file of the suite is left alone: its points are what a method learned, which may be bad, and
        ``gazebench check`` looks at the unit.
        """
        given = {name: frame[name] for name in ("x", "y") if name in frame}
        numbers = [name for name, column in given.items() if column.notna().any()]
        decoded = self._heatmap is not None or "heatmap" in frame
        if len(numbers) == 1 or (given and not numbers and not decoded):
            without = " and ".join(sorted({"x", "y"} - {*numbers}))
            raise DataError(
                f"{self.path}: no row has a finite point: rows 1 to {len(frame)} have no {without}; leave both columns "
                "out if no points are to be scored"
            )
        for name, column in given.items() if self.provenance is None else ():
            outside = (column < -MARGIN) | (column > 1 + MARGIN)
            self._refuse(frame, name, outside, "far outside the picture: is it normalised to [0, 1]?")

    def covers(self, records: Records) -> npt.NDArray[np.bool_]:
        """(P,) whether each person of the records is in the file.

        Raises:
            DataError: none of them is.
        """
        known = np.isin(records.person_id.astype(str), self.frame.index.to_numpy(dtype=str))
        if not known.any():
            here, there = (str(next(iter(some), "")) for some in (self.frame.index, records.person_id))
            raise DataError(
                f"{self.path}: nobody of {records.dataset}/{records.split} is in it (an id in the file: {here!r}, in "
                f"the data: {there!r}); `gazebench data ids` lists the ids"
            )
        return known

    def prediction(self, records: Records, items: Mapping[str, Sequence[Item]]) -> Prediction:
        """The predictions for the people of these records, and for these items by task.

        Raises:
            DataError: the file lacks a pair or an item.
        """
        ids = [str(person) for person in records.person_id]
        rows = self.frame.loc[ids]

        def tensor(name: str | list[str], dtype: Any = np.float64) -> torch.Tensor:
            return torch.from_numpy(rows[name].to_numpy(dtype, copy=True))

        pairs = pairs_of(records.person_image)
        social: dict[str, Any] = {
            name: self._pair_scores(name, ids, pairs, rows[name].tolist()) for name in SOCIAL if name in rows
        }
        return Prediction(
            heatmap=None if self._heatmap is None else self._heatmaps(self._heatmap, rows["row"].tolist()),
            point=tensor(["x", "y"]) if {"x", "y"} <= set(rows) else None,
            inout=tensor("inout") if "inout" in rows else None,
            label=rows["label"].tolist() if "label" in rows else None,
            text_point=tensor(["text_x", "text_y"]) if {"text_x", "text_y"} <= set(rows) else None,
            used_annotation=tensor("used_annotation", np.int64) if "used_annotation" in rows else None,
            outputs={
                task: self._outputs(task, ids, rows[task].tolist(), found)
                for task, found in items.items()
                if task in rows
            },
            **social,
        )

    def _outputs(self, task: str, ids: list[str], cells: list[Any], items: Sequence[Item]) -> list[str]:
        """The text for each item. Cells are parsed here and not before, since only now it is known which are tasks'."""
        outputs = []
        read = [
            _object(self.path, int(self.frame["row"][ids[p]]) + self._first, task, cell, _text)
            for p, cell in enumerate(cells)
        ]
        for item in items:
            answer = (read[item.person] or {}).get(item.id)
            if answer is None:
                raise DataError(
                    f'{self.path}: {task} of {ids[item.person]!r} lacks item {item.id!r}; give "" for no answer, or '
                    "leave the column out"
                )
            outputs.append(answer)
        return outputs

    def _heatmaps(self, heatmap_of: Callable[[int], Heatmap | None], rows: Sequence[int]) -> torch.Tensor:
        """(N, h, w) the heatmaps of these rows."""
        found = {row: heatmap_of(row) for row in sorted(rows)}  # ascending, so that the file is read once
        size = next((heatmap.shape for heatmap in found.values() if heatmap is not None), None)
        for row, heatmap in found.items():
            if heatmap is None or heatmap.shape != size:
                has = "no heatmap" if heatmap is None else f"a heatmap of {heatmap.shape}"
                raise DataError(
                    f"{self.path}:{row + self._first}: {has}; all people need one of the same size, e.g. {size}"
                )
        return torch.from_numpy(np.stack([found[row] for row in rows]))  # type: ignore[misc]

    def _pair_scores(self, name: str, ids: list[str], pairs: Any, cells: list[Any]) -> torch.Tensor:
        scores = []
        for i, j in pairs.tolist():
            if ids[i] not in cells[j]:
                raise DataError(
                    f"{self.path}: {name} of {ids[j]!r} lacks {ids[i]!r}, who is in the same picture; give a "
                    "probability for everybody else there"
                )
            scores.append(cells[j][ids[i]])
        return torch.tensor(scores, dtype=torch.float64)


def _json_row(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{row}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}:{row}: not a JSON object")
    return found


def _object(path: Path, row: int, name: str, cell: Any, kind: Callable[[Any], Any]) -> dict[str, Any] | None:
    """The JSON object in a cell, with every value checked by ``kind``; None for an empty cell."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    try:
        values = json.loads(cell) if isinstance(cell, str) else cell
        entries = [(str(key), value) for key, value in values.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}:{row}: {name} is {str(cell)[:60]!r}, not a JSON object by id ({error})") from error
    found = {}
    for key, value in entries:
        try:
            found[key] = kind(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}:{row}: {name} of {key!r} is {value!r}, {error}") from error
    return found


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("not a probability in [0, 1]")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _map(path: Path, row: int, cells: Mapping[Any, Any]) -> Heatmap | None:
    raw = cells["heatmap"]
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return None
    try:
        height, width = int(cells["heatmap_h"]), int(cells["heatmap_w"])
        flat = np.frombuffer(raw, "<f4") if isinstance(raw, bytes) else np.asarray(raw, dtype=np.float32)
        heatmap = flat.astype(np.float32).reshape(height, width)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}:{row}: the heatmap does not fit its heatmap_h and heatmap_w ({error})") from error
    if not np.isfinite(heatmap).all():
        raise DataError(f"{path}:{row}: the heatmap holds values that are not finite")
    return heatmap


def chunks(records: Records, people: int = 256) -> Iterator[npt.NDArray[np.int64]]:
    """Chunks of image positions, in order, each with at most ``people`` people or one image."""
    start = records.person_start
    first = 0
    while first < len(records):
        last = max(first + 1, int(np.searchsorted(start, start[first] + people, "right")) - 1)
        yield np.arange(first, min(last, len(records)))
        first = last
