"""Random numbers that are the same on every machine and with every release of NumPy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

STEPS = 4096
"""Every number of a scene is a whole multiple of 1 / STEPS, so the last bit of a sine changes nothing."""


def grid(value: float) -> float:
    """Rounds to a multiple of 1 / ``STEPS``."""
    return round(value * STEPS) / STEPS


def seeded(*key: object) -> np.random.Generator:
    """A PCG64 generator of its own for every key (any values with a stable ``str``)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "big"))))


class Rng:
    """The draws of a key, all made of uniform doubles: NumPy may change its distributions, but not its bit streams."""

    def __init__(self, *key: object) -> None:
        self.random = seeded(*key).random

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``, rounded to the grid."""
        return grid(low + (high - low) * self.random())

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int((high - low + 1) * self.random())

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def normal(self, sigma: float) -> float:
        """Nearly normal with mean 0 and deviation ``sigma``: a sum of six uniforms, within 4.24 sigma."""
        return (sum(self.random() for _ in range(6)) - 3.0) * 1.4142135623730951 * sigma

    def choice(self, items: Sequence[T]) -> T:
        return items[int(len(items) * self.random())]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, with a probability proportional to its weight."""
        left = self.random() * sum(weights.values())
        for item, weight in weights.items():
            left -= weight
            if left < 0:
                return item
        return item

    def shuffled(self, items: Sequence[T]) -> list[T]:
        rest = list(items)
        return [rest.pop(int(len(rest) * self.random())) for _ in items]
