"""What people look at: Acc@1 and MultiAcc@1 of the category named."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from gazebench.metrics.base import GazeMetric, Values


def label_accuracy(predicted: Sequence[str], truths: Sequence[str], separator: str | None = None) -> Values:
    """Acc@1: 1 where the predicted category is the true one, letter by letter, else 0; MultiAcc@1: is any of them.

    Args:
        predicted: P categories; "" is no answer, which is wrong.
        truths: P categories, or with a ``separator`` the right categories of each, joined by it; people with "" have
            no value.
        separator: None where each text is one category.

    Raises:
        ValueError: there is not one prediction for each person.
    """
    if len(predicted) != len(truths):
        raise ValueError(f"{len(predicted)} predicted labels for {len(truths)} people")
    people = [person for person, labels in enumerate(truths) if labels]
    right = [
        float(predicted[person] in (truths[person].split(separator) if separator else (truths[person],)))
        for person in people
    ]
    return torch.tensor(right, dtype=torch.float64), torch.tensor(people, dtype=torch.int64)


class LabelAccuracy(GazeMetric):
    """Acc@1 of the category as it was named, for people whose target has a category."""

    fields = ("predicted_label", "label")
    about = "semantic"
    higher_is_better = True
    function: Any = staticmethod(label_accuracy)


class ClassAccuracy(LabelAccuracy):
    """Acc@1 of the class nearest to what was named (``vocabulary.Vocabulary``)."""

    fields = ("predicted_class", "label")


class MultiLabelAccuracy(LabelAccuracy):
    """MultiAcc@1 of the category as it was named."""

    fields = ("predicted_label", "labels")
    function = staticmethod(partial(label_accuracy, separator="|"))


class MultiClassAccuracy(MultiLabelAccuracy):
    """MultiAcc@1 of the class nearest to what was named (``vocabulary.Vocabulary``)."""

    fields = ("predicted_class", "labels")
