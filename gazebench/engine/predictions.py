"""Saved predictions: one parquet row a person, enough to score again without the model; other people's files too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning import Callback

from gazebench.core.types import SOCIAL, Batch, DataError, Prediction, Records
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard
from gazebench.metrics.scoring import ScoredBatch

FORMAT = """One row a person. CSV, Parquet or JSON lines, with the columns
  person_id            as `gazebench data ids DATASET` lists them
  x, y                 the predicted point, normalised to [0, 1]; leave them out to have the protocol decode the heatmap
  inout                optional; larger means more surely in frame
  label                optional; the name of the category looked at, empty for no answer (which is wrong)
  lah, laeo, sa        optional; a JSON object with a probability for everybody else of the picture, by person_id: that
                       this person looks at the other one's head, that they look at each other, at the same thing
  answers              optional; a JSON object with the answer to every question about this person, by the question's id
                       (`gazebench vqa build` lists the questions)
  heatmap              optional; the raw map, row by row (a list, or little-endian float32 bytes in Parquet)
  heatmap_h, heatmap_w its height and width
Metrics a file has no column for are absent from its result (AUC needs the raw heatmap)."""


def rows_of(scored: ScoredBatch) -> dict[str, list[Any]]:
    """The columns stored for a scored batch."""
    batch, prediction = scored.batch, scored.prediction
    assert batch.targets is not None
    image = batch.image_index.tolist()
    columns: dict[str, list[Any]] = {
        "person_id": batch.person_ids,
        "image_id": [batch.image_ids[i] for i in image],
        "group": [batch.groups[i] for i in image],
        "subset": batch.targets.subset,
        "target_inout": batch.targets.inout.tolist(),
    }
    people = len(batch.person_ids)
    x, y = scored.point.double().cpu().T.tolist() if scored.point is not None else ([None] * people,) * 2
    columns |= {"x": x, "y": y}
    columns["inout"] = [None] * people if prediction.inout is None else prediction.inout.double().cpu().tolist()
    columns["label"] = list(prediction.extra.get("label", [None] * people))
    for name in SOCIAL:
        scores = prediction.extra.get(name)
        columns[name] = [None] * people if scores is None else _by_looker(batch, scores.double().tolist())
    for name, (values, sample) in scored.values.items():
        if values.ndim == 1:
            column: list[float | None] = [None] * people
            for index, value in zip(sample.tolist(), values.tolist(), strict=True):
                column[index] = value
            columns[f"metric_{name}"] = column
    if batch.questions and "answers" in prediction.extra:
        columns["answers"] = _by_person(batch, prediction.extra["answers"])
    heatmap = prediction.heatmap
    columns["heatmap"] = (
        [None] * people if heatmap is None else [row.tobytes() for row in heatmap.float().cpu().numpy().astype("<f4")]
    )
    height, width = (None, None) if heatmap is None else heatmap.shape[-2:]
    columns |= {"heatmap_h": [height] * people, "heatmap_w": [width] * people}
    if prediction.used_annotation is not None:
        columns["used_annotation"] = prediction.used_annotation.tolist()
    return columns


def _by_looker(batch: Batch, scores: list[float]) -> list[str]:
    """P JSON objects: of each person j the scores of the pairs (i, j), by the id of i."""
    said: list[dict[str, float]] = [{} for _ in batch.person_ids]
    for (i, j), score in zip(batch.pairs.tolist(), scores, strict=True):
        said[j][batch.person_ids[i]] = score
    return [json.dumps(others, separators=(",", ":")) for others in said]


def _by_person(batch: Batch, answers: Sequence[str]) -> list[str]:
    """P JSON objects: of each person the answers by the id of the question."""
    said: list[dict[str, str]] = [{} for _ in batch.person_ids]
    for question, answer in zip(batch.questions, answers, strict=True):
        said[question.person][question.id] = answer
    return [json.dumps(own, separators=(",", ":"), ensure_ascii=False) for own in said]


class PredictionWriter(Callback):
    """Streams the scored test batches of this process to a parquet part, in constant memory."""

    _TYPES: ClassVar[dict[str, pa.DataType]] = {
        "target_inout": pa.int8(), "heatmap": pa.binary(), "heatmap_h": pa.int32(), "heatmap_w": pa.int32(),
        "used_annotation": pa.int64(), "label": pa.string(), "answers": pa.string(),
        **dict.fromkeys(SOCIAL, pa.string()),
    }  # fmt: skip

    def __init__(self, folder: Path, metrics: list[str], *, heatmaps: bool = True) -> None:
        self.folder, self.metrics, self.heatmaps = folder, metrics, heatmaps
        self.writer: pq.ParquetWriter | None = None

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Opens this rank's part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = ["person_id", "image_id", "group", "subset"]
        number = ["x", "y", "inout", *(f"metric_{name}" for name in self.metrics)]
        fields = [pa.field(name, pa.string()) for name in text] + [pa.field(name, pa.float64()) for name in number]
        fields += [pa.field(name, kind) for name, kind in self._TYPES.items()]
        self.schema = pa.schema(fields)
        self.part = self.folder / f"part-{trainer.global_rank}.parquet"
        self.writer = pq.ParquetWriter(self.part, self.schema, compression="zstd")

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Appends a batch."""
        if not isinstance(outputs, ScoredBatch):
            return
        assert self.writer is not None
        rows = rows_of(outputs)
        if not self.heatmaps:
            rows["heatmap"] = [None] * len(rows["person_id"])
        full = {name: rows.get(name, [None] * len(rows["person_id"])) for name in self.schema.names}
        self.writer.write_table(pa.table(full, schema=self.schema))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Closes the part."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def merge_parts(folder: Path, target: Path) -> int:
    """Joins the ranks' parts into one file, each person once, and removes them; returns the number of people."""
    seen: set[str] = set()
    temporary = target.with_name(f".{target.name}.tmp")
    writer: pq.ParquetWriter | None = None
    parts = sorted(folder.glob("part-*.parquet"))
    for part in parts:
        for group in _groups(part):
            fresh = [person not in seen for person in group.column("person_id").to_pylist()]
            seen.update(group.column("person_id").to_pylist())
            writer = writer or pq.ParquetWriter(temporary, group.schema, compression="zstd")
            writer.write_table(group.filter(pa.array(fresh)))
    if writer is None:
        return 0
    writer.close()
    temporary.replace(target)
    for part in parts:
        part.unlink()
    folder.rmdir()
    return len(seen)


def _groups(path: Path) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path)
    for index in range(file.num_row_groups):
        yield file.read_row_group(index)


def read_predictions(path: Path) -> pd.DataFrame:
    """A predictions file as a table by ``person_id``: float ``x, y, inout``, ``heatmap`` arrays, scores of pairs.

    Raises:
        DataError: the file is missing or unreadable, a column is missing, a row makes no sense; names file and row.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Predictions are\n{FORMAT}")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix in (".jsonl", ".ndjson"):
            frame = pd.read_json(path, lines=True, dtype={"person_id": str})
        elif path.suffix == ".csv":
            frame = pd.read_csv(path, dtype={"person_id": str})
            if "label" in frame:  # pandas would take a category such as "None" for a missing one
                frame["label"] = pd.read_csv(path, usecols=["label"], dtype=str, keep_default_na=False, na_values=[""])
        else:
            raise DataError(f"{path}: unknown ending {path.suffix!r}. Predictions are\n{FORMAT}")
    except (ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error}). Predictions are\n{FORMAT}") from error
    alone = {"heatmap", "label", "answers", *SOCIAL}
    if "person_id" not in frame or not ({"x", "y"} <= set(frame.columns) or alone & set(frame.columns)):
        raise DataError(f"{path}: columns are {', '.join(map(str, frame.columns))}. Predictions are\n{FORMAT}")
    frame["person_id"] = frame["person_id"].astype(str)
    repeated = frame["person_id"].duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated.to_numpy())[0])
        raise DataError(f"{path}:{row + 1}: person {frame['person_id'].iloc[row]!r} is predicted twice; keep one row")
    for name in ("x", "y", "inout"):
        if name in frame:
            numbers = pd.to_numeric(frame[name], errors="coerce")
            wrong = numbers.isna() & frame[name].notna() | numbers.isin([math.inf, -math.inf])
            if wrong.any():
                row = int(np.flatnonzero(wrong.to_numpy())[0])
                raise DataError(f"{path}:{row + 1}: {name} is {frame[name].iloc[row]!r}, not a finite number")
            frame[name] = numbers.astype(float)
    if "label" in frame:
        texts = frame["label"].map(lambda value: isinstance(value, str)) | frame["label"].isna()
        if not texts.all():
            row = int(np.flatnonzero(~texts.to_numpy(dtype=bool))[0])
            raise DataError(f"{path}:{row + 1}: label is {frame['label'].tolist()[row]!r}, not the name of a category")
        if frame["label"].isna().all():
            frame = frame.drop(columns="label")
        else:
            frame["label"] = frame["label"].fillna("")
    if "heatmap" in frame:
        maps = [_map(path, row, record) for row, record in enumerate(frame.to_dict("records"), start=1)]
        frame["heatmap"] = pd.Series(maps, index=frame.index, dtype=object)
    kinds: dict[str, Callable[[Any], float | str]] = {**dict.fromkeys(SOCIAL, _probability), "answers": _text}
    for name, kind in kinds.items():
        if name in frame:
            said = [_named(path, row, name, cell, kind) for row, cell in enumerate(frame[name].tolist(), start=1)]
            frame[name] = pd.Series(said, index=frame.index, dtype=object)
    return frame.set_index("person_id")


def _named(path: Path, row: int, name: str, cell: Any, kind: Callable[[Any], float | str]) -> dict[str, Any] | None:
    """What one row says by id, of the others in the picture or of questions; None where it says nothing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    try:
        said = json.loads(cell) if isinstance(cell, str) else cell
        items = [(str(each), value) for each, value in said.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}:{row}: {name} is {str(cell)[:60]!r}, not a JSON object by id ({error})") from error
    found = {}
    for each, value in items:
        try:
            found[each] = kind(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}:{row}: {name} of {each!r} is {value!r}, {error}") from error
    return found


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("not a probability in [0, 1]")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _map(path: Path, row: int, record: dict[Any, Any]) -> np.ndarray | None:
    raw = record["heatmap"]
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return None
    try:
        height, width = int(record["heatmap_h"]), int(record["heatmap_w"])
        flat = np.frombuffer(raw, "<f4") if isinstance(raw, bytes) else np.asarray(raw, dtype=np.float32)
        heatmap = flat.astype(np.float32).reshape(height, width)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}:{row}: the heatmap does not fit its heatmap_h and heatmap_w ({error})") from error
    if not np.isfinite(heatmap).all():
        raise DataError(f"{path}:{row}: the heatmap holds values that are not finite")
    return heatmap


class Stored(Method):
    """Predictions from a file, as a method: what scores them is then exactly what scores everything else."""

    card = MethodCard(title="stored predictions", family="file")
    trains = False
    sees_images = False

    def __init__(self, frame: pd.DataFrame, title: str) -> None:
        super().__init__()
        self.frame = frame
        self.title = title
        self.has = {
            name: name in frame and bool(frame[name].notna().all())
            for name in ("x", "y", "inout", "heatmap", "used_annotation", "label", *SOCIAL)
        }
        # Somebody about whom nothing is asked has none.
        self.has["answers"] = "answers" in frame and bool(frame["answers"].notna().any())
        self.shapes = {heatmap.shape for heatmap in frame["heatmap"]} if self.has["heatmap"] else set()
        if len(self.shapes) > 1:
            raise DataError(f"{title}: all heatmaps must have one size, they have {sorted(self.shapes)}")

    def preprocess(self) -> Preprocess:
        """Nothing is looked at; questions are asked where there are answers."""
        return Preprocess(questions=self.has["answers"])

    def covered(self, records: Records) -> tuple[Records, list[str]]:
        """The records the file speaks of, and the people it leaves out.

        Raises:
            DataError: the file speaks of nobody in these records.
        """
        known = np.array([str(person) in self.frame.index for person in records.person_id], dtype=bool)
        if not known.any():
            raise DataError(
                f"{self.title}: nobody of {records.dataset}/{records.split} is in it "
                f"(it says e.g. {str(self.frame.index[0])!r}, the data {str(records.person_id[0])!r}); "
                f"`gazebench data ids` lists the ids"
            )
        return records.select(known), [str(person) for person in records.person_id[~known]]

    def forward(self, batch: Batch) -> Prediction:
        """Looks the people up."""
        rows = self.frame.loc[batch.person_ids]
        heatmap = torch.from_numpy(np.stack(list(rows["heatmap"]))) if self.has["heatmap"] else None
        return Prediction(
            heatmap=heatmap,
            point=torch.from_numpy(rows[["x", "y"]].to_numpy(np.float64, copy=True))
            if self.has["x"] and self.has["y"]
            else None,
            inout=torch.from_numpy(rows["inout"].to_numpy(np.float64, copy=True)) if self.has["inout"] else None,
            used_annotation=(
                torch.from_numpy(rows["used_annotation"].to_numpy(np.int64, copy=True))
                if self.has["used_annotation"]
                else None
            ),
            extra=({"label": rows["label"].tolist()} if self.has["label"] else {})
            | {name: self._scores(name, batch, rows[name].tolist()) for name in SOCIAL if self.has[name]}
            | ({"answers": self._answers(batch, rows["answers"].tolist())} if self.has["answers"] else {}),
        )

    def _answers(self, batch: Batch, said: list[dict[str, str] | None]) -> list[str]:
        """The answers to the questions of a batch.

        Raises:
            DataError: the file says nothing of a question.
        """
        found = []
        for question in batch.questions:
            answer = (said[question.person] or {}).get(question.id)
            if answer is None:
                raise DataError(
                    f"{self.title}: answers of {batch.person_ids[question.person]!r} lack question {question.id!r}: "
                    f'{question.text!r}; give "" for no answer, or leave the column out to score points alone'
                )
            found.append(answer)
        return found

    def _scores(self, name: str, batch: Batch, said: list[dict[str, float]]) -> torch.Tensor:
        """(N,) float64 the scores of the pairs of a batch.

        Raises:
            DataError: the file says nothing of a pair.
        """
        ids, scores = batch.person_ids, []
        for i, j in batch.pairs.tolist():
            if ids[i] not in said[j]:
                raise DataError(
                    f"{self.title}: {name} of {ids[j]!r} says nothing of {ids[i]!r}, who is in the same picture; give "
                    "a probability for everybody else there"
                )
            scores.append(said[j][ids[i]])
        return torch.tensor(scores, dtype=torch.float64)
