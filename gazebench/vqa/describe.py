"""What people look at, described by a vision-language model where a data set has no names for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from gazebench.core.types import IN_FRAME, Records
from gazebench.data.dataset import Description, GazeDataset
from gazebench.vlm.ask import Outcome, ask
from gazebench.vlm.coordinates import whole
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.images import ask_about_images
from gazebench.vlm.messages import Backend, Decoding, EncodedImage, Failure, Message, Reply, Request
from gazebench.vlm.parsing import json_values, without_thoughts
from gazebench.vlm.store import AnswerStore
from gazebench.vqa.question_builder import Descriptions

DESCRIBE = "describe-1"
LONGEST = 100
"""Characters of a description; a longer one is not used."""


@cache
def prompts() -> dict[str, dict[str, str]]:
    """The prompts of models that describe or judge, by name."""
    found: dict[str, dict[str, str]] = yaml.safe_load((files("gazebench.vqa") / "prompts.yaml").read_text("utf-8"))
    return found


class Describer:
    """Asks a model what is at the annotated points.

    Args:
        backend: where it runs.
        encoding: how images are shown.
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

    def ask(self, dataset: GazeDataset, records: Records, store: AnswerStore) -> Outcome:
        """Asks about everybody in frame who has no answer yet."""
        looking = np.flatnonzero((records.inout == IN_FRAME) & (np.diff(records.point_start) > 0))
        people = {str(records.person_id[person]): person for person in looking.tolist()}

        def request(key: str, image: EncodedImage) -> Request:
            x, y = records.points_of(people[key]).mean(axis=0)
            text = self.prompt["user"].format(x=whole(float(x)), y=whole(float(y)))
            messages = (Message("system", (self.prompt["system"],)), Message("user", (image, text)))
            return Request(key, messages, self.decoding)

        def send(_: int, waiting: Callable[[str], bool]) -> Iterator[Reply | Failure]:
            image = records.person_image
            jobs = ((int(image[people[key]]), key, partial(request, key)) for key in people if waiting(key))
            return ask_about_images(self.backend, jobs, dataset, records, self.encoding)

        return ask(store, records.split, people, send, progress="descriptions")


def described(dataset: GazeDataset, records: Records, store: AnswerStore) -> Descriptions:
    """The data set's descriptions, with the model's targets where those name none."""
    targets = {key: parse_target(answers[0].reply.text) for key, answers in store.answers(records.split).items()}
    start = records.person_start

    def descriptions(image: int) -> list[Description]:
        found = []
        for person, own in enumerate(dataset.descriptions(records, image), start=start[image]):
            target, label = targets.get(str(records.person_id[person]), ("", ""))
            found.append(own if own.target or not target else Description(own.traits, own.hidden, target, (label,)))
        return found

    return descriptions


def parse_target(text: str) -> tuple[str, str]:
    """Description and category in an answer; both "" where it does not have the form asked for."""
    for value in json_values(without_thoughts(text))[0]:
        if isinstance(value, dict):
            kind, target = value.get("object"), value.get("description") or value.get("object")
            if isinstance(kind, str) and isinstance(target, str) and kind.strip() and len(target) <= LONGEST:
                return " ".join(target.split()).rstrip("."), " ".join(kind.lower().split())
    return "", ""
