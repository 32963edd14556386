"""95% intervals: of a metric over its samples, bootstrapped over whole sources, and of a mean over seeds, Student's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import stdtrit

from gazebench.core.boxes import FloatArray
from gazebench.core.types import stable_key

DRAWS = 9_999
"""How often the sources are drawn anew."""
LEVEL = 0.95
LEAST = 3
"""Runs that an interval over seeds takes; Student's factor for two is 12.7."""
METHOD = "percentile bootstrap over sources (clips, pictures), drawn whole"
_CELLS = 2**22
"""Drawn counts (or samples) held at a time."""

Statistic = Callable[[FloatArray], FloatArray]
"""From how often each source was drawn, (B, S), to the statistic under each of the draws, (..., B)."""


def bootstrap(
    statistic: Statistic, sources: int, *, samples: int = 0, seed: int = 0, draws: int = DRAWS
) -> tuple[FloatArray, FloatArray]:
    """95% percentile interval of a statistic of sources drawn with replacement.

    People of one clip, or of one picture, are no independent witnesses; so whole sources are drawn.

    Args:
        statistic: sees the draws in portions.
        sources: how many there are.
        samples: how many values the statistic handles a draw, where those are more than the sources.
        seed: of the draws.
        draws: how many.

    Returns:
        Lower and upper ends, each of the statistic's own shape; NaN for a single source, or where a draw has no value.
    """
    if sources < 2:
        nothing = np.full(np.shape(statistic(np.ones((1, max(1, sources)))))[:-1], math.nan)
        return nothing, nothing

    def of(drawn: npt.NDArray[np.int64], axis: int = -1) -> FloatArray:
        found = statistic(_counts(np.atleast_2d(drawn), sources))
        return found if drawn.ndim > 1 else found[..., 0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # where a draw has no value: said by NaN
        found = stats.bootstrap(
            (np.arange(sources),), of, vectorized=True, method="percentile", n_resamples=draws,
            batch=max(1, _CELLS // max(sources, samples)), rng=np.random.default_rng(seed),
        )  # fmt: skip
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)


def owners(sources: Iterable[str]) -> tuple[npt.NDArray[np.int64], int]:
    """(N,) which source each of N people is from, and how many there are; numbered the same whoever asks."""
    keys, owner = np.unique(np.array([stable_key(source) for source in sources], dtype=np.int64), return_inverse=True)
    return owner, len(keys)


def _counts(drawn: npt.NDArray[np.int64], sources: int) -> FloatArray:
    """(B, S) how often each source is among the drawn ones (B, S)."""
    place = drawn + sources * np.arange(len(drawn))[:, None]
    return np.bincount(place.ravel(), minlength=len(drawn) * sources).reshape(len(drawn), sources).astype(np.float64)


def mean_of(values: FloatArray, owner: npt.NDArray[np.int64], sources: int) -> Statistic:
    """The mean over people of values (N,) or (N, M) whose sources are ``owner`` (N,), as a statistic of the sources."""
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(owner, weights=column, minlength=sources) for column in columns.T], axis=1)
    people = np.bincount(owner, minlength=sources).astype(np.float64)

    def mean(counts: FloatArray) -> FloatArray:
        found = (counts @ sums / (counts @ people)[:, None]).T
        return np.asarray(found if values.ndim > 1 else found[0])

    return mean


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes:
        mean: NaN of nothing.
        half: half the interval's width; None of fewer than ``LEAST`` values, of which it says nothing.
        count: how many values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """The lower end; the mean where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the mean where there is no interval."""
        return self.mean + (self.half or 0.0)


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's interval of the mean of independent runs, by default at 95%; values that are NaN do not count.

    There is none of fewer than ``LEAST`` runs, nor of runs that all have the same value: they do not tell how far runs
    vary.
    """
    known = np.asarray([value for value in values if not math.isnan(value)], dtype=np.float64)
    if len(known) < LEAST or not np.ptp(known):
        return Interval(float(known.mean()) if len(known) else math.nan, None, len(known))
    quantile = float(stdtrit(len(known) - 1, (1 + level) / 2))
    return Interval(float(known.mean()), quantile * float(known.std(ddof=1)) / math.sqrt(len(known)), len(known))


def format_value(value: Any, digits: int = 4) -> str:
    """A metric's value as tables show it; an absent one is a dash."""
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"
