"""Pre-trains the small head encoder on GazeWorld: ``python scripts/pretrain_head.py --minutes 5``.

It stands in for the ResNet-18 trained on Gaze360 with which OmniGF starts (section 3.2): from the crop of a head it
tells the direction of the eyes in space. Of where a gaze lands it is taught nothing: people are drawn with the poses of
people of other scenes, and what is around the head is not in the crop.

Writes the network's weights (float16) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.datasets.gazeworld.world import WORLD_VERSION
from gazebench.datasets.gazeworld.world.patches import gather
from gazebench.methods.omnigf.head_encoder import SMALL_WEIGHTS, SmallNet, head_crops

SCRIPT_VERSION = 1
SIZE, PATCH, SIDE = 224, 14, 64


@dataclass
class Heads:
    """P heads in B pictures.

    Attributes:
        images: (B, 3, S, S) uint8.
        owner: (P,) the picture of each.
        box: (P, 4) normalised.
        gaze: (P, 3) unit vectors: to the right, down, into the picture.
    """

    images: Tensor
    owner: Tensor
    box: Tensor
    gaze: Tensor

    def crops(self, chosen: Tensor, jitter: float, mirrored: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops (N, 3, S, S) of some heads, their boxes moved by up to a share of their sides, and gaze (N, 3)."""
        box, gaze = self.box[chosen], self.gaze[chosen]
        sides = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        box = box + jitter * sides * (2 * torch.rand(box.shape, generator=generator) - 1)
        pictures, index = self.owner[chosen].unique(return_inverse=True)
        crops = head_crops(self.images[pictures], box, index, SIDE)
        return (crops.flip(3), gaze * gaze.new_tensor([-1, 1, 1])) if mirrored else (crops, gaze)


def drawn(count: int, seed: int, split: str, workers: int) -> Heads:
    """The heads of a world's pictures, whose people have swapped poses."""
    patches, scenes = gather(count, seed, split, SIZE, PATCH, workers)
    people = [(index, person) for index, scene in enumerate(scenes) for person in scene.people]
    angles = np.radians([(person.gaze_yaw, person.gaze_pitch) for _, person in people])
    yaw, pitch = angles.T
    gaze = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], 1)
    return Heads(
        torch.from_numpy(patches.images),
        torch.tensor([index for index, _ in people]),
        torch.tensor([person.head for _, person in people], dtype=torch.float32),
        torch.from_numpy(gaze).float(),
    )


@torch.no_grad()
def score(net: nn.Module, heads: Heads) -> dict[str, float]:
    """Median angles between told and true directions in degrees: in space, and in the picture."""
    generator = torch.Generator()
    parts = torch.arange(len(heads.box)).split(256)
    told = torch.cat([net(heads.crops(part, 0.0, False, generator)[0]) for part in parts])

    def median(one: Tensor, other: Tensor) -> float:
        return math.degrees(float(F.cosine_similarity(one, other).clamp(-1, 1).acos().median()))

    return {"angle": median(told, heads.gaze), "angle_in_picture": median(told[:, :2], heads.gaze[:, :2])}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="of training; drawing and scoring come on top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=SMALL_WEIGHTS)
    return parser.parse_args()


def main() -> None:
    """Draws, trains, scores, writes."""
    options = parsed()
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    train = drawn(options.scenes, options.seed, "train", options.workers)
    held_out = drawn(256, options.seed, "val", options.workers)
    print(f"drew {len(train.box)} + {len(held_out.box)} heads", flush=True)
    net = SmallNet()
    told = nn.Sequential(net, nn.Linear(net.width, 3))
    optimizer = torch.optim.AdamW(told.parameters(), lr=options.lr, weight_decay=0.05)
    budget, begun, step, running = options.minutes * 60, time.monotonic(), 0, 0.0
    while (spent := time.monotonic() - begun) < budget:
        rate = min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * spent / budget)) / 2
        optimizer.param_groups[0]["lr"] = options.lr * rate
        chosen = torch.randint(len(train.box), (options.batch,), generator=generator)
        crops, gaze = train.crops(chosen, 0.1, step % 2 == 1, generator)
        loss = 1 - F.cosine_similarity(told(crops), gaze).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        running = 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"{spent:6.0f} s step {step:5}  loss {running:.4f}", flush=True)
    figures = {name: round(value, 2) for name, value in score(told.eval(), held_out).items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in net.state_dict().items()}, options.out)
    card = {
        "script": SCRIPT_VERSION,
        "world": WORLD_VERSION,
        "seed": options.seed,
        "heads": len(train.box),
        "batch": options.batch,
        "steps": step,
        "minutes": options.minutes,
        "val": figures,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
    }
    options.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
