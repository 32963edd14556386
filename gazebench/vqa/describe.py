"""What people look at, in words of a vision-language model, where a dataset brings no names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from gazebench.core.boxes import normalise
from gazebench.core.types import IN_FRAME, Records
from gazebench.data.dataset import Description, GazeDataset
from gazebench.vlm.messages import Backend, Decoding, Failure, Message, Picture, Request
from gazebench.vlm.pictures import Encoding, encode, from_file
from gazebench.vlm.reading import json_values, without_thoughts
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.questions.geometry import whole

Progress = Callable[[int, int, int], None]
DESCRIBE = "describe-1"
LONGEST = 100
"""Characters of a description; what is longer is none."""


@cache
def prompts() -> dict[str, dict[str, str]]:
    """What models are asked besides the questions, by name."""
    found: dict[str, dict[str, str]] = yaml.safe_load((files("gazebench.vqa") / "prompts.yaml").read_text("utf-8"))
    return found


def shown(dataset: GazeDataset, records: Records, image: int, encoding: Encoding) -> Picture:
    """A picture as models are shown it.

    Raises:
        DataError: it cannot be read.
    """
    options = encoding.max_side, encoding.format, encoding.quality
    if dataset.root is None:  # drawn, not read
        return encode(dataset.picture(records, image), *options)
    return from_file(dataset.path(records, image), *options)


class Describer:
    """Asks a model what is at the annotated points.

    Args:
        backend: where it runs.
        encoding: how pictures are shown.
        decoding: how answers are drawn.
    """

    def __init__(self, backend: Backend, encoding: Encoding, decoding: Decoding) -> None:
        self.backend, self.encoding, self.decoding = backend, encoding, decoding
        self.prompt = prompts()[DESCRIBE]

    def identity(self) -> dict[str, Any]:
        """All that descriptions depend on."""
        return {
            **self.backend.identity(),
            "prompt": {"name": DESCRIBE, **self.prompt},
            "pictures": self.encoding.identity(),
            "decoding": vars(self.decoding),
        }

    def ask(
        self, dataset: GazeDataset, records: Records, store: AnswerStore, progress: Progress | None = None
    ) -> dict[str, str]:
        """Asks about everybody in frame who has no answer yet; returns who was left without, and why."""
        known = set(store.answers(records.split))
        people = [p for p in np.flatnonzero(records.inout == IN_FRAME).tolist() if len(records.points_of(p))]
        open_ = [p for p in people if str(records.person_id[p]) not in known]
        failed: dict[str, str] = {}
        with store.writer(records.split) as writer:
            for done, said in enumerate(self.backend.ask(self._requests(dataset, records, open_)), start=1):
                if isinstance(said, Failure):
                    failed[said.key] = said.reason
                else:
                    writer.append(said)
                if progress is not None:
                    progress(len(people) - len(open_) + done, len(people), len(failed))
        return failed

    def _requests(self, dataset: GazeDataset, records: Records, people: list[int]) -> Iterator[Request]:
        last, picture = -1, None
        for person in people:
            image = int(records.person_image[person])
            if picture is None or image != last:
                last, picture = image, shown(dataset, records, image, self.encoding)
            size = dataset.size(records, image)
            x, y = normalise(records.points_of(person), records.point_unit, *size).mean(axis=0)
            text = self.prompt["user"].format(x=whole(float(x)), y=whole(float(y)))
            messages = (Message("system", (self.prompt["system"],)), Message("user", (picture, text)))
            yield Request(str(records.person_id[person]), messages, self.decoding)


def described(dataset: GazeDataset, records: Records, store: AnswerStore) -> Callable[[int], list[Description]]:
    """What can be said of the people of an image: the dataset's words, and the model's where those name no target."""
    said = {key: understood(answers[0].reply.text) for key, answers in store.answers(records.split).items()}
    start = records.person_start

    def words(image: int) -> list[Description]:
        found = []
        for offset, own in enumerate(dataset.descriptions(records, image)):
            target, label = said.get(str(records.person_id[start[image] + offset]), ("", ""))
            if not own.target and target:
                own = Description(own.traits, own.hidden, target, (label,))
            found.append(own)
        return found

    return words


def understood(text: str) -> tuple[str, str]:
    """Description and kind out of an answer; both "" where it is not what was asked for."""
    for value in json_values(without_thoughts(text))[0]:
        if isinstance(value, dict):
            kind, target = value.get("object"), value.get("description") or value.get("object")
            if isinstance(kind, str) and isinstance(target, str) and kind.strip() and len(target) <= LONGEST:
                return " ".join(target.split()).rstrip("."), " ".join(kind.lower().split())
    return "", ""
