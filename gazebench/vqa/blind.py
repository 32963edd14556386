"""What can be answered without looking: by the wording alone, or by the picture alone; and all baselines by name."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from gazebench.core.boxes import IntArray
from gazebench.data.dataset import GazeDataset
from gazebench.vlm.coordinates import LARGEST, whole
from gazebench.vqa.answerers import SEED, Answerer, Baseline, Majority, Oracle, Random, Shuffled, most_frequent
from gazebench.vqa.files import QuestionRecord, read
from gazebench.vqa.questions.templates import templates

PARTS: Final = 10
"""Of the images: the answers to the questions about one part are learnt from the others."""
LEAST: Final = 100
"""With fewer questions of a type nothing is learnt, and all get the most frequent answer."""
SIDE: Final = 16
"""Width and height in pixels of the pictures that are learnt from."""
_BOX: Final = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")


class CrossValidated(Baseline):
    """Learns the answers of each question type from the questions about other images, by ridge regression.

    Args:
        path: of the questions, which are their own training set: no picture is learnt from and asked about at once.
        dataset: what they are about.
    """

    def __init__(self, path: Path, dataset: GazeDataset) -> None:
        self.path, self.dataset = path, dataset

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"seed": SEED, "parts": PARTS, "least": LEAST, "learner": "ridge"}

    def answer(self, record: QuestionRecord) -> str:
        return self._answers[record.question.id]

    @abstractmethod
    def features(self, records: Sequence[QuestionRecord]) -> Any:
        """(N, D) array or sparse matrix: all that is seen of the questions of a type."""

    @cached_property
    def _answers(self) -> dict[str, str]:
        kinds: dict[str, list[QuestionRecord]] = {}
        for record in read(self.path):
            kinds.setdefault(record.question.task, []).append(record)
        # A recognition question that is not refused gets any answer of its form: only refusing counts.
        labels = Counter(label for record in kinds.get("object", ()) for label in record.truth.labels[:1])
        plain = {"object": most_frequent(labels) or "thing", "direction": "right", "point": _point(0.5, 0.5)}
        refusals = Counter(record.truth.answer for some in kinds.values() for record in some if record.truth.refusal)
        found = {}
        for task, records in sorted(kinds.items()):
            if task == "point":
                answers = self._points(records)
            elif task == "recognition":
                refused = self._classes(records, ["yes" if record.truth.refusal else "no" for record in records])
                answers = [
                    most_frequent(refusals) if yes == "yes" else plain[record.question.form]
                    for record, yes in zip(records, refused, strict=True)
                ]
            else:
                known = [one.truth.labels[0] if task == "object" else one.truth.answer for one in records]
                answers = self._classes(records, known)
            found.update({record.question.id: answer for record, answer in zip(records, answers, strict=True)})
        return found

    def _classes(self, records: Sequence[QuestionRecord], answers: Sequence[str]) -> list[str]:
        """Of those without an answer ("") nothing is learnt."""
        truths = np.array(answers)
        made = np.full(len(records), most_frequent(Counter(answer for answer in answers if answer)), dtype=object)
        if len(records) < LEAST:
            return [str(answer) for answer in made]
        x = self.features(records)
        for train, test in _parts(records, truths if len(set(answers)) == 2 else None):
            train = train[truths[train] != ""]
            if len(set(truths[train])) > 1:
                made[test] = RidgeClassifier().fit(x[train], truths[train]).predict(x[test])
        return [str(answer) for answer in made]

    def _points(self, records: Sequence[QuestionRecord]) -> list[str]:
        truths = np.array(
            [np.mean(record.truth.points, axis=0) if record.truth.points else (np.nan, np.nan) for record in records]
        )
        known = np.isfinite(truths).all(axis=1)
        made = np.tile(truths[known].mean(axis=0) if known.any() else (0.5, 0.5), (len(records), 1))
        x = self.features(records) if known.sum() >= LEAST else None
        for train, test in _parts(records, None):
            train = train[known[train]]
            if x is not None and len(train):
                made[test] = Ridge().fit(x[train], truths[train]).predict(x[test])
        return [_point(*each) for each in made.tolist()]


class TextOnly(CrossValidated):
    """The wording: one to three words in a row, and of boxes where about they lie and how large they are."""

    name, title = "text-only", "Text only"

    def features(self, records: Sequence[QuestionRecord]) -> Any:
        vectoriser = TfidfVectorizer(preprocessor=_words, token_pattern=r"\S+", ngram_range=(1, 3), min_df=2)
        return vectoriser.fit_transform([record.question.text for record in records])


class PictureOnly(CrossValidated):
    """The picture in small, and not a word of the question but its type."""

    name, title = "picture-only", "Picture only"

    def __init__(self, path: Path, dataset: GazeDataset, split: str = "test") -> None:
        super().__init__(path, dataset)
        self.split = split
        self._seen: dict[str, Any] = {}

    def features(self, records: Sequence[QuestionRecord]) -> Any:
        split = self.dataset.records(self.split)
        place = {str(image): index for index, image in enumerate(split.images)}
        names = {record.image for record in records}
        seen = {
            name: self.dataset.image(split, place[name], (SIDE, SIDE)).ravel() / 255.0
            for name in sorted(names)
            if name not in self._seen
        }
        self._seen |= seen
        return np.stack([self._seen[record.image] for record in records])


def _parts(records: Sequence[QuestionRecord], classes: Any) -> Iterator[tuple[IntArray, IntArray]]:
    """Places of the questions to learn from and of those to answer; both answers have equal shares of each part."""
    images = np.array([record.image for record in records])
    parts = min(PARTS, len(set(images)))
    if parts < 2:
        return
    kind = GroupKFold if classes is None else StratifiedGroupKFold
    folds = kind(parts, shuffle=True, random_state=SEED)
    yield from folds.split(np.zeros((len(records), 1)), classes, images)


def _point(x: float, y: float) -> str:
    return templates().point.format(x=whole(x), y=whole(y))


def _words(text: str) -> str:
    """A question in lower case, with words for about where its boxes are in place of their numbers."""
    number = 0

    def about(match: re.Match[str]) -> str:
        nonlocal number
        number += 1
        x0, y0, x1, y1 = (int(side) / LARGEST for side in match.groups())
        sizes = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "w": 2 * (x1 - x0), "h": 2 * (y1 - y0)}
        return " ".join(f"box{number}{name}{int(10 * value)}" for name, value in sizes.items())

    return _BOX.sub(about, text).lower()


BASELINES: Mapping[str, Callable[[Path, Path, GazeDataset, str], Answerer]] = {
    "oracle": lambda path, train, dataset, split: Oracle(),
    "shuffled": lambda path, train, dataset, split: Shuffled(path),
    "random": lambda path, train, dataset, split: Random(train),
    "majority": lambda path, train, dataset, split: Majority(train),
    "text-only": lambda path, train, dataset, split: TextOnly(path, dataset),
    "picture-only": lambda path, train, dataset, split: PictureOnly(path, dataset, split),
}
"""By name, from the files of questions and of training questions (for priors), the data set and its split."""
