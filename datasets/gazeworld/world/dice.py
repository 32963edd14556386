"""Random draws that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

STEPS = 4096
"""Every number of a description is a whole multiple of 1 / STEPS, so the last bit of a sine changes nothing."""


def grid(value: float) -> float:
    """Rounds to the grid of the descriptions."""
    return round(value * STEPS) / STEPS


def seeded(*key: object) -> np.random.Generator:
    """A PCG64 generator of its own for every key (any values with a stable ``str``)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "big"))))


class Dice:
    """Draws built on uniform doubles alone: NumPy may change its distributions, its bit streams it may not."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.roll = generator.random

    def uniform(self, low: float, high: float) -> float:
        """A number of the grid between ``low`` and ``high``."""
        return grid(low + (high - low) * self.roll())

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int((high - low + 1) * self.roll())

    def chance(self, share: float) -> bool:
        """True with probability ``share``."""
        return self.roll() < share

    def bell(self, sigma: float) -> float:
        """Nearly normal with deviation ``sigma``: six uniforms summed, so bounded by 4.24 sigma."""
        return (sum(self.roll() for _ in range(6)) - 3.0) * 1.4142135623730951 * sigma

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all alike."""
        return items[int(len(items) * self.roll())]

    def weigh(self, weights: Mapping[T, float]) -> T:
        """One of the keys, by weight."""
        left = self.roll() * sum(weights.values())
        for item, weight in weights.items():
            left -= weight
            if left < 0:
                return item
        return item

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order."""
        rest = list(items)
        return [rest.pop(int(len(rest) * self.roll())) for _ in items]
