"""Means of losses that weigh every person alike, however many processes share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from gazebench.core.distributed import world_size

_idle: ContextVar[bool] = ContextVar("idle", default=False)


def batch_mean(losses: Tensor) -> Tensor:
    """The mean over the whole batch, whichever process holds its parts; of nothing, a zero that keeps the graph.

    DDP averages the gradients of the processes. A mean taken in each process would weigh a person by how many others
    the same process drew. Each process therefore gives its sum over the count of all, times the number of processes:
    the average of the gradients is then the gradient of the one mean. All processes have to call it equally often.

    Args:
        losses: one value for each person (place, token, pair) of this process, in any shape.
    """
    world = world_size()
    if world == 1:
        return losses.mean() if losses.numel() else losses.sum()
    count = torch.tensor(0 if _idle.get() else losses.numel(), device=losses.device)
    dist.all_reduce(count)
    return losses.sum() * (world / count.clamp_min(1))


@contextmanager
def idle(is_idle: bool) -> Iterator[None]:
    """While ``is_idle``, the people of this process do not count: it only keeps step with the others."""
    token = _idle.set(is_idle)
    try:
        yield
    finally:
        _idle.reset(token)
