"""The same number whatever the number of processes, with an odd count and people that two of them saw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gazebench.core.distributed import union
from gazebench.core.types import SOCIAL, pairs_of
from gazebench.metrics import social
from gazebench.metrics.semantic import LabelAccuracy, MultiClassAccuracy
from gazebench.metrics.spatial import AUCRectangle, GazeAccuracy, HeadPrecision, InOutAP, L2ToMean
from gazebench.nn.losses import batch_mean, idle

PEOPLE = 33
METRICS = (
    L2ToMean, AUCRectangle, InOutAP, HeadPrecision, GazeAccuracy, LabelAccuracy, MultiClassAccuracy,
    social.LookingAtHeads, social.LookingAtHeadsByPoint, social.LookingAtEachOther, social.LookingAtEachOtherByPoint,
    social.SharedAttention,
)  # fmt: skip
IMAGES = np.arange(PEOPLE).reshape(-1, 3)
"""Three people each; a process sees whole images."""
SHARES = {
    "padded": [IMAGES[0::2].ravel().tolist(), [*IMAGES[1::2].ravel().tolist(), *IMAGES[0].tolist()]],
    "empty": [list(range(PEOPLE)), []],  # a process that saw nobody
}


def fields():
    generator = torch.Generator().manual_seed(0)
    return {
        "point": torch.rand(PEOPLE, 2, generator=generator),
        "points": torch.rand(PEOPLE, 2, generator=generator),
        "inout": torch.arange(PEOPLE) % 2,
        "inout_score": torch.rand(PEOPLE, generator=generator),
        "heatmap": torch.rand(PEOPLE, 64, 64, generator=generator),
        "heads": torch.rand(PEOPLE, 3, 4, generator=generator).sort(dim=2).values,
        "target_box": torch.tensor([[0.1, 0.1, 0.8, 0.8]]).repeat(PEOPLE, 1),
        "label": np.tile(["cup", "book", ""], PEOPLE // 3),
        "predicted_label": np.resize(["cup", "book"], PEOPLE),
        "labels": np.tile(["cup|jar", "book", ""], PEOPLE // 3),
        "predicted_class": np.resize(["jar", "book"], PEOPLE),
        # Large heads, or hardly any point would be in one.
        "head": torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.3, 0.9, 0.9], [0.2, 0.0, 0.8, 0.6]]).repeat(PEOPLE // 3, 1),
    }


def of_pairs():
    """Labels and scores of pairs, as tables over everybody."""
    generator = torch.Generator().manual_seed(1)
    labels = {name: torch.randint(-1, 2, (PEOPLE, PEOPLE), generator=generator) for name in SOCIAL}
    return labels | {f"{name}_score": torch.rand(PEOPLE, PEOPLE, generator=generator) for name in SOCIAL}


def score(people: list[int]) -> dict[str, list[float]]:
    """What a process that saw these people computes."""
    result = {}
    for metric in (kind() for kind in METRICS):
        for start in range(0, len(people), 6):
            part = torch.tensor(people[start : start + 6], dtype=torch.int64)
            pairs = torch.from_numpy(pairs_of(np.arange(len(part)) // 3))
            both = part[pairs]
            given = {name: values[part] for name, values in fields().items()}
            given |= {name: table[both[:, 0], both[:, 1]] for name, table in of_pairs().items()}
            given |= {"point_person": torch.arange(len(part)), "pairs": pairs}
            keys = both[:, 0] * 1000 + both[:, 1] if metric.unit == "pair" else part * 1000 - 7
            metric.update(keys, **{name: given[name] for name in metric.fields})
        result[type(metric).__name__] = [float(metric.compute()), metric.count]
    return result


def gradient(people: list[int], keeps_step: bool = False) -> float:
    """Of the mean loss of some people by a weight, averaged over the processes as DDP does."""
    weight = torch.tensor(0.5, requires_grad=True)
    with idle(keeps_step):
        loss = batch_mean((weight * torch.tensor(people, dtype=torch.float32) - 1).square())
    (loss * (0.0 if keeps_step else 1.0)).backward()
    total = weight.grad.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return float(total)


def run(rank: int, folder: str) -> None:
    """One process of two."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    everything = {}
    for name, shares in SHARES.items():
        found = everything[name] = score(shares[rank])
        found["gradient"] = gradient(shares[rank])
        found["idle"] = gradient(shares[rank], keeps_step=rank == 1)
        found["union"] = sorted(union(map(str, shares[rank])))
    (Path(folder) / f"{rank}.json").write_text(json.dumps(everything))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, forked) -> list[dict]:
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    code = f"import runpy\nrunpy.run_path({__file__!r})['run']({{rank}}, {str(folder)!r})"
    processes = [forked(code.format(rank=rank)) for rank in range(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", SHARES)
def test_two_processes_give_what_one_gives(ranks, name):
    alone, shares = score(list(range(PEOPLE))), SHARES[name]
    assert all(0 < value < 1 for value, _ in alone.values()), "a value at its limit would hide a loss"
    for rank in range(2):
        together = ranks[rank][name]
        for metric, (value, count) in alone.items():
            assert together[metric] == [value, count], metric
        everybody = shares[0] + shares[1]
        assert together["gradient"] == pytest.approx(gradient(everybody), rel=1e-6), "not the mean of two means"
        assert together["idle"] == pytest.approx(gradient(shares[0]), rel=1e-6)
        assert together["union"] == sorted(set(map(str, everybody)))
