"""Probers: vision-language models, the ground truth of drawn scenes, and a saliency map."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import yaml
from scipy import ndimage

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Records
from gazebench.data.dataset import GazeDataset
from gazebench.data.images import resized
from gazebench.probe.parsing import ParsedAnswer, parse_answer
from gazebench.vlm.coordinates import Convention, convention_of, whole
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.images import ask_about_images
from gazebench.vlm.messages import Backend, Decoding, EncodedImage, Failure, Message, Reply, Request, Unreadable


@dataclass(frozen=True, eq=False)
class Job:
    """One person to be asked about.

    Attributes:
        key: the person's id.
        image: position of the image in the records.
        head: (4,) xyxy, normalised.
        attempt: number of earlier answers, all unusable.
    """

    key: str
    image: int
    head: FloatArray
    attempt: int = 0


class Prober(ABC):
    """Names the regions that are likely to attract a person, by scene context alone."""

    name: str
    convention: Convention
    attempts: int = 1
    may_name_none: bool = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that its answers depend on, as JSON values."""

    @abstractmethod
    def ask(self, dataset: GazeDataset, records: Records, jobs: Iterable[Job]) -> Iterator[Reply | Failure]:
        """Yields answers as they arrive, in any order, and ``Unreadable`` for people of unreadable images.

        ``jobs`` is consumed lazily.
        """

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) in pixels at which an image of this (width, height) is shown."""
        return size

    def parse(self, reply: Reply, size: tuple[int, int]) -> ParsedAnswer:
        """The regions of an answer about an image of this (width, height)."""
        shown = self.shown_size(size)
        return parse_answer(reply.text, reply.finish_reason, shown, self.convention, self.may_name_none)


@dataclass(frozen=True)
class Prompt:
    """An entry of ``prompts.yaml``; ``{box}`` in ``user`` is replaced by the head box."""

    name: str
    convention: Literal["0-999"]
    system: str
    user: str

    def messages(self, head: FloatArray, image: EncodedImage) -> tuple[Message, ...]:
        """The messages about one person; the image is first, so that a server can cache it for all its people."""
        box = ", ".join(str(whole(float(value))) for value in head)
        return Message("system", (self.system,)), Message("user", (image, self.user.format(box=box)))


@cache
def prompts() -> Mapping[str, Prompt]:
    text = (files("gazebench.probe") / "prompts.yaml").read_text(encoding="utf-8")
    return {name: Prompt(name=name, **entry) for name, entry in yaml.safe_load(text).items()}


def prompt(name: str) -> Prompt:
    """A prompt by name.

    Raises:
        DataError: there is none.
    """
    if name not in prompts():
        raise DataError(f"no prompt {name!r}; gazebench/probe/prompts.yaml has {', '.join(prompts())}")
    return prompts()[name]


SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "regions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "bbox_2d": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                    "label": {"type": "string"},
                },
                "required": ["bbox_2d", "label"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["regions"],
    "additionalProperties": False,
}
"""The JSON schema of an answer, in the form that the prompts ask for."""


class ModelProber(Prober):
    """A vision-language model.

    Args:
        backend: the model.
        prompt: what it is asked.
        encoding: how images are shown to it.
        decoding: decoding of the first attempt.
        attempts: attempts to get a usable answer; those after the first are at temperature 0.7 with other seeds.
        name: name of the splits from its answers; by default the model's.
        coordinates: how the model writes them (``vlm.coordinates.named``); by default as its family does.
        structured: whether a server is asked to hold the model to ``SCHEMA``.
    """

    AGAIN: ClassVar[float] = 0.7
    """Temperature of the later attempts: at 0 the model would repeat its answer."""

    def __init__(
        self,
        backend: Backend,
        prompt: Prompt,
        encoding: Encoding | None = None,
        decoding: Decoding | None = None,
        attempts: int = 3,
        name: str = "",
        coordinates: str = "",
        structured: bool = False,
    ) -> None:
        if attempts < 1:
            raise DataError(f"--attempts {attempts}: ask at least once")
        self.backend, self.prompt, self.attempts = backend, prompt, attempts
        self.encoding, self.decoding = encoding or Encoding(), decoding or Decoding()
        self.convention, self.structured = convention_of(str(backend.identity()["model"]), coordinates), structured
        model = str(backend.identity()["model"]).rstrip("/").rsplit("/", 1)[-1]
        self.name = name or "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in model.lower())

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "vision-language model",
            **self.backend.identity(),
            "prompt": asdict(self.prompt),
            "pictures": self.encoding.identity(),
            "decoding": {**asdict(self.decoding), "attempts": self.attempts, "temperature_again": self.AGAIN},
            **({"structured": SCHEMA} if self.structured else {}),
        }

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.encoding.shown_size(size)

    def ask(self, dataset: GazeDataset, records: Records, jobs: Iterable[Job]) -> Iterator[Reply | Failure]:
        def request(job: Job, image: EncodedImage) -> Request:
            decoding = self.decoding
            if job.attempt:
                decoding = replace(decoding, temperature=self.AGAIN, seed=decoding.seed + job.attempt)
            return Request(
                job.key, self.prompt.messages(job.head, image), decoding, SCHEMA if self.structured else None
            )

        about = ((job.image, job.key, partial(request, job)) for job in jobs)
        return ask_about_images(self.backend, about, dataset, records, self.encoding)


class LocalProber(Prober):
    """Base class of probers that compute their regions."""

    convention = Convention("unit")
    may_name_none = True

    def ask(self, dataset: GazeDataset, records: Records, jobs: Iterable[Job]) -> Iterator[Reply | Failure]:
        for job in jobs:
            try:
                boxes = self.regions(dataset, records, job)
            except ImageError as error:
                yield Unreadable(job.key, str(error))
                continue
            regions = [{"bbox_2d": [round(float(v), 6) for v in box]} for box in boxes]
            yield Reply(job.key, json.dumps({"regions": regions}), "stop")

    @abstractmethod
    def regions(self, dataset: GazeDataset, records: Records, job: Job) -> FloatArray:
        """(K, 4) xyxy, normalised."""


class Oracle(LocalProber):
    """The ground truth of the scene, which only drawn data sets have."""

    name = "oracle"

    def identity(self) -> dict[str, Any]:
        return {"kind": "the dataset's own truth", "model": "oracle", "version": 1}

    def regions(self, dataset: GazeDataset, records: Records, job: Job) -> FloatArray:
        """The data set's ``salient_regions``.

        Raises:
            DataError: the data set has none.
        """
        found = dataset.salient_regions(records, job.image)
        if found is None:
            raise DataError(
                f"{dataset.card.title} has no ground truth of salient regions; use --prober saliency, openai or "
                "transformers"
            )
        return found


class SpectralResidual(LocalProber):
    """A saliency map without a model: Hou and Zhang, Saliency Detection: A Spectral Residual Approach, 2007.

    Its regions are the most salient ones above the map's mean plus two standard deviations, without those that are
    mostly the person's own head. The map shows contrast, not meaning: it is for trying out the pipeline, and no
    substitute for the paper's prober.
    """

    name = "spectral-residual"
    WIDTH, SMOOTHING, DEVIATIONS, MOST, LEAST_AREA = 64, 2.5, 2.0, 3, 0.002

    def __init__(self) -> None:
        self._last: tuple[str, FloatArray] = "", np.zeros((0, 4))

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "saliency map without a model",
            "model": self.name,
            "version": 1,
            "width": self.WIDTH,
            "smoothing": self.SMOOTHING,
            "deviations": self.DEVIATIONS,
            "regions": self.MOST,
            "least_area": self.LEAST_AREA,
        }

    def regions(self, dataset: GazeDataset, records: Records, job: Job) -> FloatArray:
        key = str(records.images[job.image])
        if self._last[0] != key:
            self._last = key, self._of_image(dataset.image(records, job.image))
        boxes = self._last[1]
        low, high = np.maximum(boxes[:, :2], job.head[:2]), np.minimum(boxes[:, 2:], job.head[2:])
        shared = np.clip(high - low, 0, None).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return boxes[shared <= 0.5][: self.MOST]

    def _of_image(self, image: npt.NDArray[np.uint8]) -> FloatArray:
        height, width = image.shape[:2]
        grid = max(1, round(self.WIDTH * height / width)), self.WIDTH
        salient = saliency(resized(image, grid).astype(np.float64).mean(2), self.SMOOTHING)
        labels, _ = ndimage.label(salient > salient.mean() + self.DEVIATIONS * salient.std())
        found = []
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            box = columns.start / grid[1], rows.start / grid[0], columns.stop / grid[1], rows.stop / grid[0]
            if (box[2] - box[0]) * (box[3] - box[1]) >= self.LEAST_AREA:
                found.append((float(salient[labels == label].sum()), box))
        found.sort(reverse=True)
        return np.array([box for _, box in found], dtype=np.float64).reshape(-1, 4)


def saliency(grey: FloatArray, smoothing: float) -> FloatArray:
    """(h, w) luminance -> (h, w) spectral-residual saliency, >= 0."""
    spectrum = np.fft.fft2(grey)
    magnitude = np.log(np.abs(spectrum) + 1e-9)
    residual = magnitude - ndimage.uniform_filter(magnitude, 3, mode="wrap")
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    return ndimage.gaussian_filter(np.abs(back) ** 2, smoothing)
