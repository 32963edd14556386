"""The processes that share one run: how many there are, which of them this is, and what they know together."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only


def world_size() -> int:
    """How many processes compute together now; 1 before they have met."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of a run's processes this is; known before they meet, from what the launcher or the scheduler set.

    The first process of a further node has local rank 0: until Lightning has counted all of them, its node tells it
    from the first process of all.
    """
    known = int(getattr(rank_zero_only, "rank", 0) or 0)
    return known or int(os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0)


def union(names: Iterable[str]) -> set[str]:
    """What any of the processes names; all of them have to ask."""
    mine = set(names)
    if world_size() == 1:
        return mine
    gathered: list[set[str]] = [set() for _ in range(world_size())]
    dist.all_gather_object(gathered, mine)
    return mine.union(*gathered)
