"""The states that recurrent methods carry along a track from one batch to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from gazebench.core.types import Batch


class TrackStates:
    """Hidden states by track.

    A track goes on where its next row comes after the last one seen, whatever lies between them (a person leaves the
    picture, a frame cannot be read); else it begins anew, so that a second pass over a clip starts as the first did.
    """

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, Tensor]] = {}

    def clear(self) -> None:
        """Forgets everything: before a pass over other parts of the same tracks."""
        self._states.clear()

    def begin(self, batch: Batch, empty: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sequences of a batch.

        Args:
            batch: whose ``track`` and ``step`` are known; without them every person is a track of one row.
            empty: the state of a track that begins, of any shape (...).

        Returns:
            The sequence (P,) of each person, 0 to S - 1; their place (P,) in the sequence's rows of this batch; and the
            states (S, ...) before the batch.
        """
        tracks = batch.track or batch.person_ids
        steps = [0] * batch.people if batch.step is None else batch.step.tolist()
        self._kept = bool(batch.track)
        self._names = list(dict.fromkeys(tracks))
        number = {name: sequence for sequence, name in enumerate(self._names)}
        sequence, seen = [number[track] for track in tracks], [0] * len(self._names)
        place = []
        for each in sequence:
            place.append(seen[each])
            seen[each] += 1
        first = dict(zip(reversed(tracks), reversed(steps), strict=True))
        self._last = dict(zip(tracks, steps, strict=True))
        states = [self._after(name, first[name], empty) for name in self._names]
        device = batch.image_index.device
        return (
            torch.tensor(sequence, dtype=torch.int64, device=device),
            torch.tensor(place, dtype=torch.int64, device=device),
            torch.stack(states) if states else empty[None][:0],
        )

    def end(self, states: Tensor) -> None:
        """Keeps the states (S, ...) after the batch that ``begin`` was called with."""
        if self._kept:
            self._states |= {
                name: (self._last[name], state) for name, state in zip(self._names, states.detach(), strict=True)
            }

    def _after(self, name: str, first: int, empty: Tensor) -> Tensor:
        last, state = self._states.get(name, (first, empty))
        return state.to(empty) if last < first else empty
