"""Many pictures or images of a data set, one after the other: read ahead, resumed after a kill, the bad ones listed."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from tqdm import tqdm

from gazebench.core.boxes import BOX, FloatArray
from gazebench.core.errors import DataError, ImageError
from gazebench.core.journal import Journal
from gazebench.data.dataset import GazeDataset
from gazebench.data.detector import HeadDetector
from gazebench.data.head_boxes import grow_faces, read
from gazebench.engine.model import GazeModel, PictureGaze, PictureLike, Prepared, as_array, as_box, batches
from gazebench.engine.things import Things

THREADS = 4
"""Pictures that are decoded, and whose heads are found, at a time."""

Given = tuple[FloatArray | None, list[str] | None]
"""Head boxes of a picture (None to find them) and the ids of its people (None to number them)."""
T = TypeVar("T")
R = TypeVar("R")


def find_pictures(places: Sequence[str], stdin: Callable[[], bytes]) -> dict[str, PictureLike]:
    """The pictures at files, folders (with all below), patterns, and ``-``: stdin, one picture or a path a line.

    Returns:
        What to open by name: the path below a folder that was given, else the path as it was given.

    Raises:
        DataError: a place does not exist, or there is no picture at all.
    """
    found: dict[str, PictureLike] = {}
    queue = deque(places)
    while queue:
        place = queue.popleft()
        path = Path(place)
        if place == "-":
            content = stdin()
            if _is_picture(content):
                found["stdin"] = Image.open(BytesIO(content))
            else:
                queue.extendleft(reversed([line for line in content.decode(errors="replace").splitlines() if line]))
        elif path.is_dir():
            endings = Image.registered_extensions()
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
            for file in files:
                name = file.relative_to(path).as_posix()
                found[name if found.get(name, file) == file else file.as_posix()] = file
        elif path.is_file():
            found[path.as_posix()] = path
        elif more := sorted(glob.glob(place, recursive=True)):  # noqa: PTH207  (Path.glob takes no absolute pattern)
            queue.extendleft(reversed(more))
        else:
            raise DataError(f"{place}: no such picture, folder or pattern")
    if not found:
        raise DataError(f"{', '.join(places)}: no pictures")
    return found


def _is_picture(content: bytes) -> bool:
    try:
        Image.open(BytesIO(content)).close()
    except Exception:  # Pillow's plugins raise almost anything
        return False
    return True


class BoxFile:
    """Head boxes of pictures from a file (``data.head_boxes``), by the picture's name, else by its last part.

    Args:
        path: the file.
        faces: the boxes are those of faces, which are grown to heads.
        tracks: the pictures are a video's frames, in which the same people are.
    """

    def __init__(self, path: Path, faces: bool = False, tracks: bool = False) -> None:
        rows = read(path, tracks)
        if (rows["image"] == "").any():
            raise DataError(f"{path}: boxes of pictures need the column image")
        self.rows, self.faces = {str(name): table for name, table in rows.groupby("image", sort=False)}, faces
        parts = pd.Series(list(self.rows)).str.rsplit("/").str[-1]
        self.last = {part: name for part, name in zip(parts, self.rows, strict=True) if (parts == part).sum() == 1}

    def __call__(self, name: str, width: int, height: int) -> Given:
        table = self.rows.get(name)
        if table is None:
            table = self.rows.get(self.last.get(name.rpartition("/")[2], ""), pd.DataFrame(columns=[*BOX, "person_id"]))
        boxes, ids = table[BOX].to_numpy(np.float64), table["person_id"].tolist()
        if self.faces:
            boxes = _grown(boxes, width, height)
        return boxes, ids if all(ids) else None


def _grown(faces: FloatArray, width: int, height: int) -> FloatArray:
    """Heads of normalised faces, clipped."""
    size = np.tile([width, height], 2)
    return np.clip(grow_faces(faces * size) / size, 0, 1)


def boxes_of_one(texts: Sequence[str], faces: bool) -> Callable[[str, int, int], Given]:
    """The boxes of the one picture there is, from texts ``x0,y0,x1,y1``.

    Raises:
        DataError: a text is not four numbers.
    """
    numbers = []
    for text in texts:
        try:
            numbers.append([float(part) for part in text.split(",")])
        except ValueError:
            raise DataError(f"--box {text}: give four numbers x0,y0,x1,y1, in pixels or all in [0, 1]") from None

    def boxes(name: str, width: int, height: int) -> Given:
        made = [as_box(row, width, height, f"--box {text}") for row, text in zip(numbers, texts, strict=True)]
        return _grown(np.array(made), width, height) if faces else np.array(made), None

    return boxes


def predict_pictures(
    model: GazeModel,
    pictures: Mapping[str, PictureLike],
    boxes: Callable[[str, int, int], Given],
    done: Journal | dict[str, dict[str, Any]],
    *,
    batch_size: int = 8,
    heatmaps: bool = False,
    things: Things | None = None,
    show: Callable[[npt.NDArray[np.uint8], PictureGaze], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Predicts for all pictures that are not done; bad pictures are kept with their ``error``, and tried again.

    Args:
        model: the model.
        pictures: what to open, by name.
        boxes: the boxes of a picture, by its name, width and height.
        done: where finished pictures are kept.
        batch_size: pictures at a time.
        heatmaps: keep heatmaps too.
        things: names what is looked at.
        show: called with each picture and what was predicted, before it counts as done.

    Returns:
        By name of the picture: ``size`` and ``people`` (``PictureGaze.rows``), or ``error``.
    """
    entries = done.entries if isinstance(done, Journal) else done
    add = done.add if isinstance(done, Journal) else done.__setitem__
    todo = [name for name in pictures if "people" not in entries.get(name, {})]
    full: dict[str, npt.NDArray[np.uint8]] = {}

    def prepare(name: str) -> Prepared | ImageError:
        try:
            array = as_array(pictures[name])
        except ImageError as error:
            return error
        if show is not None or things is not None:
            full[name] = array
        return model.prepare(array, *_reordered(boxes(name, array.shape[1], array.shape[0]), name))

    bar = tqdm(total=len(pictures), initial=len(pictures) - len(todo), unit="picture", disable=None, leave=False)

    def good() -> Iterator[Prepared]:
        for name, ready in zip(todo, ahead(prepare, todo, 2 * batch_size), strict=True):
            if isinstance(ready, ImageError):
                add(name, {"error": str(ready)})
                bar.update()
            else:
                yield ready

    with bar:
        for batch in batches(good(), batch_size):
            for gaze in model.predict_prepared(batch):
                array = full.pop(gaze.name, None)
                if array is not None:
                    gaze = gaze if things is None else things(array, gaze)
                    if show is not None:
                        show(array, gaze)
                add(gaze.name, {"size": gaze.size, "people": gaze.rows(heatmaps)})
                bar.update()
    return {name: entries[name] for name in pictures}


def _reordered(given: Given, name: str) -> tuple[Any, str, Any]:
    return given[0], name, given[1]


def heads_of_dataset(
    dataset: GazeDataset, splits: Sequence[str], detector: HeadDetector, done: Journal
) -> pd.DataFrame:
    """The heads in all images of some splits: columns ``image``, ``BOX`` and ``score``; unreadable ones have none.

    Args:
        dataset: the data set; an image is read as for training, without its orientation tag.
        splits: names of splits; an image of several is looked at once.
        detector: finds the heads.
        done: where finished images are kept.
    """
    for split in splits:
        records = dataset.records(split)
        todo = [i for i, name in enumerate(records.images.tolist()) if "boxes" not in done.entries.get(str(name), {})]

        def find(image: int, records: Any = records) -> dict[str, Any]:
            try:
                found, scores = detector(dataset.image(records, image))
            except ImageError as error:
                return {"error": str(error)}
            return {"boxes": found.tolist(), "scores": scores.tolist()}

        found = zip(todo, ahead(find, todo, 2 * THREADS), strict=True)
        for image, entry in tqdm(found, desc=split, total=len(todo), unit="image", disable=None, leave=False):
            done.add(str(records.images[image]), entry)
    rows = [
        (image, *box, score)
        for image, entry in done.entries.items()
        for box, score in zip(entry.get("boxes", ()), entry.get("scores", ()), strict=True)
    ]
    return pd.DataFrame(rows, columns=["image", *BOX, "score"])


def ahead(function: Callable[[T], R], values: Iterable[T], count: int) -> Iterator[R]:
    """``map`` by threads, at most ``count`` results ahead."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        try:
            for value in values:
                waiting.append(pool.submit(function, value))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
