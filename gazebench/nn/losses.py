"""Means of losses over all processes that share a batch."""

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
    """The mean over the batch of all processes; for an empty batch, a zero that keeps the graph.

    DDP averages the gradients of the processes, which may have different numbers of people. Each process therefore
    returns its sum, divided by the count of all processes and multiplied by their number: the averaged gradient is then
    that of the mean over all people. All processes have to call the function equally often.

    Args:
        losses: one value for each person (pixel, token, pair) of this process, in any shape.
    """
    world = world_size()
    if world == 1:
        return losses.mean() if losses.numel() else losses.sum()
    count = torch.tensor(0 if _idle.get() else losses.numel(), device=losses.device)
    dist.all_reduce(count)
    return losses.sum() * (world / count.clamp_min(1))


@contextmanager
def idle(is_idle: bool) -> Iterator[None]:
    """While ``is_idle``, ``batch_mean`` does not count the people of this process."""
    token = _idle.set(is_idle)
    try:
        yield
    finally:
        _idle.reset(token)
