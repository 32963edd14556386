"""The processes of one run: their number, this one's rank, and what they gather."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only


def world_size() -> int:
    """The number of processes of the run; 1 before ``torch.distributed`` is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process in the run, also before ``torch.distributed`` is initialised."""
    known = int(getattr(rank_zero_only, "rank", 0) or 0)
    # Lightning first knows the local rank only, which is 0 for one process of every node.
    places = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    return known or int(next((os.environ[name] for name in places if os.environ.get(name)), 0))


def union(names: Iterable[str]) -> set[str]:
    """The names that any of the processes gives; all processes have to call it."""
    mine = set(names)
    if world_size() == 1:
        return mine
    gathered: list[set[str]] = [set() for _ in range(world_size())]
    dist.all_gather_object(gathered, mine)
    return mine.union(*gathered)
