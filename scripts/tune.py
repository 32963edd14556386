"""Minutes instead of hours for choosing settings: ``python scripts/tune.py --set rank=8 --set aux_weight=0.1``.

Everything before the adapted blocks is computed once for the first 3,000 training scenes of GazeWorld, without
augmentation; then the adapted blocks, the decoder and the auxiliary heads of ``hclora`` train on 85 % of their people
and are scored on the rest. Validation and test scenes play no part. docs/verification.md has what it said when the
recipes were chosen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from gazebench.datasets.gazeworld import GazeWorld
from gazebench.methods.hclora import HCLoRA
from gazebench.nn.adaptation import head_prior
from gazebench.nn.gaze_cone import cell_centres
from gazebench.transforms import gaussian_heatmap
from gazebench.types import IN_FRAME

SCENES, ADAPTED, SIZE = 3000, 2, 224
DEFAULTS: dict[str, Any] = {
    "adaptation": "hclora", "supervision": "ooc", "rank": 16, "alpha": 32.0, "dropout": 0.0, "aux_weight": 1.0,
    "lr": 1.5e-3, "lr_adaptation": 4e-3, "batch": 8, "people": 8448,
}  # fmt: skip


def tokens_before_the_adapted_blocks(method: HCLoRA, folder: Path) -> dict[str, Tensor]:
    """Tokens (I, 257, C) bfloat16 and the people in frame of the first training scenes; kept in a file."""
    path = folder / f"gazebench-tune-{method.backbone.digest()}.pt"
    if path.is_file():
        return torch.load(path)
    world = GazeWorld(train=SCENES)
    records = world.records("train")
    tokens = []
    with torch.no_grad(), method.backbone.autocast():
        for image in range(SCENES):
            picture = torch.from_numpy(world.picture(records, image, size=(SIZE, SIZE))).permute(2, 0, 1)
            state = method.backbone.embed(picture[None])
            for block in method.backbone.blocks[:-ADAPTED]:
                state = block(state)
            tokens.append(state.bfloat16())
    seen = torch.from_numpy(records.inout == IN_FRAME)
    found = {
        "tokens": torch.cat(tokens),
        "image": torch.from_numpy(records.person_image)[seen],
        "head": torch.from_numpy(records.head).float()[seen],
        "point": torch.from_numpy(records.points).float(),
        "inconsistent": torch.from_numpy(records.columns["subset"] == "inconsistent")[seen],
    }
    torch.save(found, path)
    return found


def main() -> None:
    """Trains, and prints a line a quarter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"of {', '.join(DEFAULTS)}")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the tokens are kept")
    given = parser.parse_args()
    settings = DEFAULTS | {
        name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in given.set)
    }
    unknown = settings.keys() - DEFAULTS.keys()
    if unknown:
        parser.error(f"no settings: {', '.join(sorted(unknown))}")
    batch, people, lr = settings.pop("batch"), settings.pop("people"), settings.pop("lr")
    torch.manual_seed(0)
    method = HCLoRA(
        backbone="tiny", image_size=SIZE, dim=128, layers=2, heads=4, compute_dtype="bfloat16", adapted_blocks=ADAPTED,
        supervised_layers=ADAPTED, fused_attention=False, lr=lr, **settings,
    ).train()  # fmt: skip
    data = tokens_before_the_adapted_blocks(method, given.folder)
    total = len(data["image"])
    held_out = torch.arange(int(0.85 * total), total)
    groups = [group for group in method.parameter_groups() if group["params"]]
    optimizer = torch.optim.Adam(groups, lr=lr)
    steps = people // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps, pct_start=0.05
    )
    shuffled, begun = torch.Generator().manual_seed(0), time.monotonic()
    order = iter(torch.empty(0, dtype=torch.long))
    for step in range(1, steps + 1):
        chosen = [next(order, None) for _ in range(batch)]
        if chosen[-1] is None:
            order = iter(torch.randperm(int(0.85 * total), generator=shuffled))
            chosen = [next(order) for _ in range(batch)]
        losses = objective(method, data, torch.stack([index for index in chosen if index is not None]).sort().values)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
        if step % (steps // 4) == 0:
            print(json.dumps(settings), step, json.dumps(score(method, data, held_out)),
                  f"{time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip


def run(method: HCLoRA, data: dict[str, Tensor], people: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Heatmaps (P, 64, 64) and the auxiliary maps of some people."""
    images, owner = data["image"][people].unique(return_inverse=True)
    head, grid = data["head"][people], method.decoder.grid
    centre, prior, low = (head[:, :2] + head[:, 2:]) / 2, None, []
    with torch.autocast("cpu", torch.bfloat16):
        state = data["tokens"][images].float()
        if method.adaptation is None:
            for block in method.backbone.blocks[-ADAPTED:]:
                state = block(state)
            state = state[owner]
        else:
            if method.adaptation.per_person:
                prior = head_prior(head, grid).flatten(1)
                state, low = method.adaptation.adapted(method.backbone, state[owner], prior)
            else:
                state = method.adaptation.adapted(method.backbone, state, None)[0][owner]
        heatmap, _ = method.decoder(method.backbone.finish(state, grid), head)
    said = []
    if prior is not None:
        layers = zip(method.auxiliary, low, strict=False)
        said = [aux(z[:, method.backbone.prefix_tokens :].float(), prior, centre, grid) for aux, z in layers]
    return heatmap.float(), said


def objective(method: HCLoRA, data: dict[str, Tensor], people: Tensor) -> dict[str, Tensor]:
    """The heatmap's loss and the auxiliary one."""
    heatmap, said = run(method, data, people)
    head, point = data["head"][people], data["point"][people]
    losses = {"heatmap": F.binary_cross_entropy(heatmap, gaussian_heatmap(point))}
    if said:
        centre = (head[:, :2] + head[:, 2:]) / 2
        each = torch.stack([method.auxiliary_loss(layer, centre, point) for layer in said])
        losses["auxiliary"] = method.aux_weight * each.mean()
    return losses


@torch.no_grad()
def score(method: HCLoRA, data: dict[str, Tensor], people: Tensor) -> dict[str, float]:
    """L2 by subset, and the angle of the prediction and of the last auxiliary map on *inconsistent*, in degrees."""
    method.eval()
    found, mapped = [], []
    for part in people.split(32):
        heatmap, said = run(method, data, part)
        cell = heatmap.flatten(1).argmax(1)
        found.append((torch.stack([cell % 64, cell // 64], 1) + 0.5) / 64)
        if said and said[-1].shape[1] > 2:
            places = cell_centres(method.decoder.grid).flatten(0, 1)
            mapped.append(said[-1].softmax(1) @ places)
    method.train()
    head, point, apart = data["head"][people], data["point"][people], data["inconsistent"][people]
    centre = (head[:, :2] + head[:, 2:]) / 2

    def angle(where: Tensor) -> float:
        cosine = F.cosine_similarity(where - centre, point - centre).clamp(-1, 1)
        return round(float(cosine.arccos().rad2deg()[apart].mean()), 1)

    error = (torch.cat(found) - point).norm(dim=1)
    scores = {
        "consistent L2": round(float(error[~apart].mean()), 4),
        "inconsistent L2": round(float(error[apart].mean()), 4),
        "inconsistent angle": angle(torch.cat(found)),
    }
    return scores | ({"evidence angle": angle(torch.cat(mapped))} if mapped else {})


if __name__ == "__main__":
    main()
