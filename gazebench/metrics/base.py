"""The base of all metrics: values of people (or pairs, or items of a task) as a torchmetrics object."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from gazebench.core.boxes import FloatArray

Values = tuple[Tensor, Tensor]
"""Values (K,) float64 and the people, or pairs, or items, they belong to (K,) int64, ascending.

A sample without a value is left out: there are no sentinel values.
"""


class GazeMetric(Metric):
    """A mean over people, each counted once; ``compute`` is an empty tensor where nobody has a value.

    ``update(keys, **fields)`` takes the (P,) int64 keys of the people (``core.types.stable_key``) and the ``fields``
    that the metric names. The scorer offers

    - of the prediction: ``heatmap`` (P, h, w), ``point`` and ``text_point`` (P, 2), ``inout_score`` (P,),
      ``predicted_label`` and ``predicted_class`` (P texts), ``lah_score``, ``laeo_score``, ``sa_score`` (N,);
    - of the truth: ``points`` (G, 2) with ``point_person`` (G,), ``head`` (P, 4), ``sizes`` (P, 2) in pixels, ``inout``
      (P,), ``pairs`` (N, 2), and every column and every label of pairs that the data set's records hold, by name;
    - ``vocabulary`` of the protocol, and what the tasks in play add (``data.task.Task.fields``).

    Coordinates are normalised. A metric whose fields are not all there has no value.

    Attributes:
        fields: names of the fields it reads.
        function: a static method from these fields, in their order, to ``Values``.
        unit: what is counted: ``person``, ``pair``, or the name of a task whose items are.
        about: what a metric of people or pairs asks of a method, a key of ``protocol.TASKS``.
        columns: numbers kept of each counted thing.
    """

    fields: ClassVar[tuple[str, ...]]
    function: Callable[..., Values]
    unit: ClassVar[str] = "person"
    about: ClassVar[str] = "gaze"
    columns: ClassVar[int] = 1
    higher_is_better: bool = False
    is_differentiable: bool = False
    full_state_update: bool = False
    keys: Any
    sources: Any

    def __init__(self, variant: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A MetricCollection merges metrics whose states look alike after one batch, as those of mean and minimum do
        # where everybody has one annotation; a name of its own keeps each apart.
        self._stored = f"stored_{type(self).__name__}{variant}"
        for state in ("keys", "sources", self._stored):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """True from the start: of nobody there is a defined result, so torchmetrics has nothing to warn of."""
        return True

    @property
    def stored(self) -> Any:
        """The values, one tensor a batch."""
        return getattr(self, self._stored)

    def values(self, **fields: Any) -> Values:
        """The values (K,) or (K, n) float64 of those people who have one, and who they are (K,) int64.

        What ``function`` makes of the fields, unless a class has its own way.
        """
        return self.function(*(fields[name] for name in self.fields))

    def update(self, keys: Tensor, **fields: Any) -> None:
        """Adds people; those without a value are left out."""
        values, people = self.values(**{name: fields[name] for name in self.fields})
        self.add(keys.to(people.device)[people], values)

    def add(self, keys: Tensor, values: Tensor, sources: Tensor | None = None) -> None:
        """Adds values that ``values`` made, with the keys of their people.

        Args:
            keys: (K,) int64.
            values: (K,) or (K, n).
            sources: (K,) int64, the same for people of one clip or image; each person's own when left out.
        """
        self.keys.append(keys.to(self.device))
        self.sources.append((keys if sources is None else sources).to(self.device))
        self.stored.append(values.to(self.device, torch.float64).reshape(len(values), self.columns))
        self._update_count += 1  # what the wrapped update does
        self._computed = None

    def sync(self, *arguments: Any, **settings: Any) -> None:
        """Gathers over processes; one that saw nobody takes part with nothing, or the others would wait for it."""
        if not self.keys:
            self.add(torch.zeros(0, dtype=torch.int64), torch.zeros(0, self.columns))
        super().sync(*arguments, **settings)

    def compute(self) -> Tensor:
        """The metric, float64 (); shape (0,) where there is none."""
        self.once = self._once()
        return self.reduce(self.once[0])

    def reduce(self, values: Tensor) -> Tensor:
        """From all people's values to the metric: their mean."""
        return values.mean() if len(values) else values.new_zeros(0)

    def drawn(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """(B,) what ``reduce`` gives where the values (K, n) are there (B, K) times; NaN where it gives nothing."""
        rows = torch.from_numpy(values)
        found = [self.reduce(rows.repeat_interleave(torch.from_numpy(times), dim=0)) for times in weights.astype(int)]
        return np.array([float(value) if value.numel() else math.nan for value in found])

    once: tuple[Tensor, Tensor] | None = None
    """After ``compute``: everybody's values (K, n), of all processes, and the sources (K,) they are from."""

    @property
    def count(self) -> int:
        """The people counted, over all processes; known after ``compute``."""
        return 0 if self.once is None else len(self.once[0])

    def reset(self) -> None:
        super().reset()
        self.once = None

    def _once(self) -> tuple[Tensor, Tensor]:
        if not len(self.keys):
            return torch.zeros(0, self.columns, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        parts = (self.keys, self.stored, self.sources)
        keys, stored, sources = (torch.cat(part) if isinstance(part, list) else part for part in parts)
        first = torch.full_like(keys, len(keys))
        _, group = torch.unique(keys, return_inverse=True)
        first = first.scatter_reduce_(0, group, torch.arange(len(keys), device=keys.device), "amin")
        once = first[: int(group.max()) + 1] if len(keys) else first
        return stored[once], sources[once]  # in the order of the keys, so that no sum depends on who saw whom


class PooledMetric(GazeMetric):
    """One number of the values (K, 2) of all people together; ``drawn`` says how, and has to be given."""

    columns = 2
    higher_is_better = True

    def reduce(self, values: Tensor) -> Tensor:
        """NaN where a value is: left out, a diverged model would score better; empty where there is no such number."""
        if values.isnan().any():
            return values.new_tensor(math.nan)
        found = self.drawn(values.numpy(force=True), np.ones((1, len(values))))[0] if len(values) else math.nan
        return values.new_zeros(0) if math.isnan(found) else values.new_tensor(found)
