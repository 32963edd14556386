"""A trained method as an object: pictures in, who looks where out, for one's own programs and ``gazebench predict``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gazebench.core.boxes import BOX, FloatArray, Unit, clean_boxes, normalise
from gazebench.core.errors import DataError, ImageError, UserError
from gazebench.core.files import file_digest
from gazebench.core.plugins import PluginError, embedded
from gazebench.core.rgb import to_rgb
from gazebench.core.types import SOCIAL, Batch, Prediction
from gazebench.core.weights import EXPORT, local_file, read_weights
from gazebench.data.datamodule import fitted
from gazebench.data.detector import CENTERFACE, HeadDetector, Heads
from gazebench.data.images import load_image
from gazebench.engine.config import essence, method_with, read_config
from gazebench.engine.method import Method
from gazebench.engine.registry import entries, load_method, usable
from gazebench.metrics.decode import DECODERS
from gazebench.nn.feature_cache import without_cache

SMALLEST = 2
"""Pixels: the least width and height of a head box inside its image."""
SURE = 0.5
"""Probabilities above it say yes."""

PictureLike = str | Path | Image.Image | npt.NDArray[Any] | Tensor
"""A file, a PIL image (both are turned upright by their orientation tag), an array (H, W, 3) or (H, W), or a tensor
(3, H, W); numbers are uint8, or floats in [0, 1]."""
Detector = Callable[[npt.NDArray[np.uint8]], Heads]
"""A picture (H, W, 3) uint8 RGB to its heads; ``HeadDetector``, or a function of one's own."""
Boxes = npt.ArrayLike | Tensor
"""(P, 4) xyxy of one picture, each box in its pixels or all in [0, 1]; a row of NaN is a person without a box."""


@dataclass(frozen=True, eq=False)
class Gaze:
    """Where one person looks.

    Attributes:
        id: unique among the people of all pictures.
        box: (4,) the head, normalised xyxy; NaN where there is none.
        point: x, y, normalised.
        inout: larger means more surely in frame, in [0, 1] for all methods of the suite; None where the method does
            not predict it.
        heatmap: (h, w) in [0, 1]; None where the method does not predict it.
        label: the name of what is looked at; "" for no answer, None where the method names nothing.
        label_probability: of ``label`` among the classes that were asked for (``engine.things``), 0 for no answer; None
            where none were.
        looks_at: who of ``PictureGaze.people`` is looked at; None for nobody.
        social: the method's own probabilities of the relations ``lah``, ``laeo`` and ``sa`` (``Prediction``) with
            everybody else, by their position; empty where the method does not predict them.
        score: of the head's detection; None for boxes that were given.
    """

    id: str
    box: FloatArray
    point: tuple[float, float]
    inout: float | None = None
    heatmap: npt.NDArray[np.float32] | None = None
    label: str | None = None
    label_probability: float | None = None
    looks_at: int | None = None
    social: dict[str, dict[int, float]] = field(default_factory=dict)
    score: float | None = None

    @property
    def inside(self) -> bool:
        """Whether the target is in the picture, as far as the method tells."""
        return self.inout is None or self.inout > SURE


@dataclass(frozen=True, eq=False)
class PictureGaze:
    """Who looks where in a picture.

    Attributes:
        name: of the picture.
        size: width, height in pixels, upright.
        people: in the order of the boxes that were given; detected ones from left to right.
    """

    name: str
    size: tuple[int, int]
    people: list[Gaze]

    def sentences(self) -> list[str]:
        """What each person does, in words; people are numbered from 1."""
        return [f"person {number} {self._answer(one, number - 1)}" for number, one in enumerate(self.people, start=1)]

    def _answer(self, one: Gaze, number: int) -> str:
        if one.inout is not None and not one.inside:
            return f"looks out of the picture (probability {1 - one.inout:.2f})"
        sure = "" if one.inout is None else f" (in the picture, probability {one.inout:.2f})"
        if one.looks_at is not None:
            other = self.people[one.looks_at]
            own = one.social.get("laeo")
            mutual = other.looks_at == number if own is None else own[one.looks_at] > SURE
            text = f"looks at person {one.looks_at + 1}{', who looks back' if mutual else ''}"
        else:
            sure_of = "" if one.label_probability is None else f" (probability {one.label_probability:.2f})"
            thing = f"the {one.label}{sure_of}, " if one.label else ""
            text = f"looks at {thing}x {one.point[0]:.2f}, y {one.point[1]:.2f}"
        return text + sure

    def rows(self, heatmaps: bool = False) -> list[dict[str, Any]]:
        """A row a person in the form of a predictions file, with the box and what the person does in words."""
        found = []
        for one, text in zip(self.people, self.sentences(), strict=True):
            boxed = np.isfinite(one.box).all()
            row: dict[str, Any] = {"person_id": one.id, "image_id": self.name}
            row |= dict(zip(BOX, one.box.tolist() if boxed else [None] * 4, strict=True))
            row |= {"head_score": one.score, "x": one.point[0], "y": one.point[1]}
            named = {"inout": one.inout, "label": one.label, "label_probability": one.label_probability}
            row |= {name: value for name, value in named.items() if value is not None}
            for name, others in one.social.items():
                by_id = {self.people[other].id: value for other, value in others.items()}
                row[name] = json.dumps(by_id, separators=(",", ":"), ensure_ascii=False)
            row["looks_at"] = None if one.looks_at is None else self.people[one.looks_at].id
            row["answer"] = text
            if heatmaps and one.heatmap is not None:
                height, width = one.heatmap.shape
                row |= {"heatmap": one.heatmap.ravel().tolist(), "heatmap_h": height, "heatmap_w": width}
            found.append(row)
        return found


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture, ready for the method.

    Attributes:
        name: of the picture.
        size: width, height in pixels.
        image: (3, H, W) uint8 at the method's size; None for methods that see no images.
        boxes: (P, 4) normalised xyxy.
        scores: (P,) of detections; None for boxes that were given.
        ids: P ids.
        heads: (P, 3, S, S) uint8, cut out of the picture; None for methods that need none.
    """

    name: str
    size: tuple[int, int]
    image: Tensor | None
    boxes: FloatArray
    scores: FloatArray | None
    ids: list[str]
    heads: Tensor | None = None


class GazeModel:
    """A method with its weights; safe to call from several threads, which share its processor.

    Args:
        method: the method, with its weights.
        detector: finds heads where no boxes are given; it is called when first needed.
        device: ``auto`` is the first CUDA device, else the CPU; or any of torch's.
        identity: what the predictions depend on, for a file of them.

    Raises:
        DataError: the method reads annotations or depth maps, or there is no such device.
    """

    def __init__(
        self,
        method: Method,
        detector: Callable[[], Detector] = HeadDetector,
        device: str = "auto",
        identity: dict[str, Any] | None = None,
    ) -> None:
        if method.reads_annotations:
            raise DataError(f"{method.card.title} reads annotations; a picture has none")
        if method.sees_images and method.preprocess().depth:
            raise DataError(f"{method.card.title} reads depth maps; a picture has none: train with --model.depth=false")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=device)  # a method without weights would move anywhere
            self.method = method.to(torch.device(device)).eval()
        except (RuntimeError, AssertionError) as error:  # what torch raises differs by device
            raise DataError(f"--device {device}: {error}") from error
        self.identity = identity or {}
        self._new_detector = detector
        self._detector: Detector | None = None
        self._lock, self._making = threading.Lock(), threading.Lock()

    @property
    def detector(self) -> Detector:
        """The detector of heads, made when first asked for."""
        with self._making:
            if self._detector is None:
                self._detector = self._new_detector()
        return self._detector

    @overload
    def predict(self, images: PictureLike, boxes: Boxes | None = None, batch_size: int = 8) -> PictureGaze: ...  # type: ignore[overload-overlap]
    @overload
    def predict(
        self, images: Sequence[PictureLike], boxes: Sequence[Boxes | None] | None = None
    ) -> list[PictureGaze]: ...
    def predict(self, images: Any, boxes: Any = None, batch_size: int = 8) -> PictureGaze | list[PictureGaze]:
        """Where the people of one picture, or of each of a list, look.

        Args:
            images: one ``PictureLike``, or a list or tuple of them.
            boxes: head boxes of the picture, or one entry a picture; None to find the heads.
            batch_size: pictures at a time.

        Raises:
            ImageError: a file is no picture. DataError: a box makes no sense, the method predicts no place, or heads
            have to be found and there is no detector.
        """
        if not isinstance(images, list | tuple):
            return self.predict([images], [boxes])[0]
        boxes = boxes if boxes is not None else [None] * len(images)
        names = [Path(one).name if isinstance(one, str | Path) else f"picture {i}" for i, one in enumerate(images, 1)]
        ready = (self.prepare(as_array(one), own, name) for one, own, name in zip(images, boxes, names, strict=True))
        return [gaze for batch in batches(ready, batch_size) for gaze in self.predict_prepared(batch)]

    def prepare(
        self, picture: npt.NDArray[np.uint8], boxes: Boxes | None, name: str, ids: Sequence[str] | None = None
    ) -> Prepared:
        """Finds the heads of a picture (H, W, 3) uint8 where no boxes are given, and resizes it."""
        height, width = picture.shape[:2]
        scores = None
        if boxes is None:
            found, scores = self.detector(picture)
        else:
            given = boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes
            rows = np.asarray(given, dtype=np.float64).reshape(-1, 4)
            empty = np.full(4, np.nan)
            found = np.array([empty if np.isnan(row).all() else as_box(row, width, height, name) for row in rows])
            found = found.reshape(-1, 4)
        image = heads = None
        if self.method.sees_images:
            image, heads = fitted(picture, found, self.method.preprocess())
        names = [f"{name}#{number}" for number in range(1, len(found) + 1)]
        return Prepared(name, (width, height), image, found, scores, list(ids) if ids is not None else names, heads)

    def predict_prepared(self, pictures: Sequence[Prepared]) -> list[PictureGaze]:
        """Where the people of some pictures look, all in one batch."""
        peopled = [one for one in pictures if len(one.boxes)]
        people: list[Gaze] = []
        if peopled:
            heads = [one.heads for one in peopled if one.heads is not None]
            batch = Batch(
                images=torch.stack([one.image for one in peopled if one.image is not None])
                if self.method.sees_images
                else None,
                image_index=torch.repeat_interleave(torch.tensor([len(one.boxes) for one in peopled])),
                head=torch.from_numpy(np.concatenate([one.boxes for one in peopled])).float(),
                person_ids=[name for one in peopled for name in one.ids],
                image_ids=[one.name for one in peopled],
                sizes=torch.tensor([one.size for one in peopled]),
                heads=torch.cat(heads) if heads else None,
            )
            # One forward at a time: a method may keep state within it, and threads would only share the processor.
            with self._lock, without_cache():
                prediction = self.method.predict_batch(batch.to(self.method.device)).to("cpu")
            people = self._people(batch, prediction, [one.scores for one in peopled])
        rest = iter(people)
        return [PictureGaze(one.name, one.size, [next(rest) for _ in one.boxes]) for one in pictures]

    def _people(self, batch: Batch, prediction: Prediction, scores: Sequence[FloatArray | None]) -> list[Gaze]:
        heatmap = prediction.heatmap
        point = prediction.point if prediction.point is not None or heatmap is None else DECODERS["argmax"](heatmap)
        if point is None:
            raise DataError(f"{self.method.card.title} predicts neither a point nor a heatmap")
        if not torch.isfinite(point).all():
            raise UserError(
                f"the points predicted for {', '.join(batch.image_ids[:3])} ... are not finite: bad weights"
            )
        image, boxes, points = batch.image_index.numpy(), batch.head.double().numpy(), point.double().numpy()
        first = np.searchsorted(image, image)  # the first person of each one's picture
        social: list[dict[str, dict[int, float]]] = [{} for _ in image]
        for name in SOCIAL:
            values = getattr(prediction, name)
            if values is not None:
                for one in social:
                    one[name] = {}
                for (other, one), value in zip(batch.pairs.tolist(), values.double().tolist(), strict=True):
                    social[one][name][other - int(first[one])] = value
        people = []
        for i, box in enumerate(boxes):
            inout = None if prediction.inout is None else float(prediction.inout[i])
            mates = np.flatnonzero(image == image[i])
            own = scores[image[i]]
            people.append(
                Gaze(
                    id=batch.person_ids[i],
                    box=box,
                    point=(float(points[i, 0]), float(points[i, 1])),
                    inout=inout,
                    heatmap=None if heatmap is None else heatmap[i].float().numpy(),
                    label=None if prediction.label is None else prediction.label[i],
                    looks_at=looked_at(i - int(first[i]), boxes[mates], points[i], inout, social[i].get("lah")),
                    social=social[i],
                    score=None if own is None else float(own[i - int(first[i])]),
                )
            )
        return people


def looked_at(
    me: int, boxes: FloatArray, point: FloatArray, inout: float | None, lah: dict[int, float] | None
) -> int | None:
    """Who is looked at: by the method's own probabilities, else whose head the point lies in, the nearest middle."""
    if inout is not None and inout <= SURE:
        return None
    if lah is not None:
        best = max(lah, key=lambda other: lah[other], default=None)
        return best if best is not None and lah[best] > SURE else None
    inside = ((point > boxes[:, :2]) & (point < boxes[:, 2:])).all(axis=1)
    inside = inside & (np.arange(len(boxes)) != me)
    distance = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - point, axis=1)
    return int(np.where(inside, distance, np.inf).argmin()) if inside.any() else None


def batches(pictures: Iterator[Prepared], size: int, people: int = 64) -> Iterator[list[Prepared]]:
    """Lists of at most ``size`` pictures, and of so many people unless they are all in one picture."""
    waiting: list[Prepared] = []
    for one in pictures:
        if waiting and (len(waiting) == size or sum(len(other.boxes) for other in waiting) + len(one.boxes) > people):
            yield waiting
            waiting = []
        waiting.append(one)
    if waiting:
        yield waiting


def as_array(image: PictureLike) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a picture in any form.

    Raises:
        ImageError: the file is missing or no picture. DataError: the array or tensor is none.
    """
    if isinstance(image, str | Path):
        return load_image(image, own=True)
    if isinstance(image, Image.Image):
        try:
            return np.asarray(to_rgb(ImageOps.exif_transpose(image)))
        except Exception as error:  # as in load_image
            raise ImageError.of("the picture", error, own=True) from error
    values = image.detach().cpu().permute(1, 2, 0).numpy() if isinstance(image, Tensor) and image.ndim == 3 else image
    array = np.asarray(values)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise DataError(
            f"a picture is an array (H, W, 3) or (H, W), or a tensor (3, H, W); this one is {tuple(image.shape)}"
        )
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"the numbers of a picture are uint8, or floats in [0, 1]; these are {array.dtype}")
    return np.ascontiguousarray(array[:, :, :3])


def as_box(numbers: npt.ArrayLike, width: int, height: int, what: str) -> FloatArray:
    """A head box (4,), normalised and clipped, from four numbers in pixels, or all in [0, 1].

    Raises:
        DataError: they are not four finite numbers, or the box is less than ``SMALLEST`` pixels wide or high inside the
            image: it lies outside, or one of its normalised numbers is beyond [0, 1].
    """
    given = np.asarray(numbers, dtype=np.float64)
    if given.shape != (4,) or not np.isfinite(given).all():
        raise DataError(f"{what}: give four numbers x0,y0,x1,y1, in pixels or all in [0, 1]")
    unit: Unit = "normalised" if ((given >= 0) & (given <= 1)).all() else "pixel"
    box = clean_boxes(normalise(given, unit, (width, height)))
    if ((box[2:] - box[:2]) * (width, height) < SMALLEST).any():
        raise DataError(
            f"{what}: the box {','.join(f'{number:g}' for number in given)} has no area inside the image of {width} x "
            f"{height} pixels, or less than {SMALLEST} pixels a side; give x0,y0,x1,y1 in pixels or all in [0, 1]"
        )
    return box


def load(
    weights: str | Path,
    *settings: str,
    detector: str | Path = CENTERFACE,
    confidence: float = 0.3,
    device: str = "auto",
) -> GazeModel:
    """A trained method, ready to predict: ``gazebench.load``.

    Args:
        weights: published weights by name (``gazelle_dinov2_vitb14_inout``), file or address, a run's folder or its
            ``weights.pt``, an export (its folder, or ``hf:owner/repository`` with or without ``@revision``), the name
            of an embedded model (``gazelle_gazeworld``, for drawn scenes only), or that of a method that learns
            nothing.
        settings: settings of the method, ``--model.name=value``.
        detector: see ``HeadDetector``; needed, with the extra ``heads``, where no boxes are given.
        confidence: the least score of a head.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...

    Raises:
        DataError: there are no such weights, their method is not known, or they do not fit it.
    """
    method, identity = method_of_weights(str(weights), settings)
    return GazeModel(method, partial(HeadDetector, detector, confidence), device, identity)


def method_of_weights(weights: str, settings: Sequence[str] = ()) -> tuple[Method, dict[str, Any]]:
    """The method of weights, with these, and what its predictions depend on.

    The name of the method is in ``config.yaml`` beside the file, or published. Arguments and errors as of ``load``.
    """
    builder = embedded("GAZE_MODELS").get(weights)
    folder = Path(weights if builder is None else builder())
    file = local_file(weights) if weights.startswith("hf:") else folder
    if folder.is_dir():
        file = folder / (EXPORT if (folder / EXPORT).is_file() else "weights.pt")
    if file.is_file() and (beside := file.parent / "config.yaml").is_file():
        config = read_config(beside)
        torch.manual_seed(config["seed"])  # frozen random parts, which are not in the file, are those of the run
        return _loaded(file, config["method"], config["model"], settings)
    if not folder.exists() and weights in entries("methods"):
        if load_method(weights).trains:
            raise DataError(f"{weights} is a method that learns: give weights.pt of a run, or weights published for it")
        method = method_with(weights, settings, {})
        return method, {"method": weights, "version": method.version, "settings": list(settings)}
    published = {
        name: (entry.name, facts)
        for entry, found in usable("methods")
        if not isinstance(found, PluginError)
        for name, facts in found.published.items()
    }
    if not weights:
        raise DataError(
            "predicting needs --weights: the folder of a run (`make bench` makes one in minutes), published weights by "
            f"name, file or address ({', '.join(published)}), or for drawn scenes {', '.join(embedded('GAZE_MODELS'))}"
        )
    known = published.get(file.stem)
    path = local_file(known[1].url if known and weights in published and not file.is_file() else weights)
    if known is None:
        raise DataError(
            f"{path}: the method of these weights is not known: there is no config.yaml beside them, and their name is "
            f"none of {', '.join(published)}"
        )
    return _loaded(path, known[0], known[1].model, settings)


def _loaded(path: Path, name: str, model: Mapping[str, Any], settings: Sequence[str]) -> tuple[Method, dict[str, Any]]:
    method = method_with(name, settings, model)
    method.load_export(read_weights(path))
    identity = {"method": name, "version": method.version, "weights": file_digest(path)}
    return method, identity | essence({"model": dict(model)}) | {"settings": list(settings)}
