"""Pre-trains the small head encoder on GazeWorld: ``python scripts/pretrain_head.py --steps 1100``.

It stands in for the ResNet-18 trained on Gaze360 with which OmniGF starts (section 3.2): from the crop of a head it
predicts the direction of the eyes in space. It learns nothing about where a gaze lands: people are drawn with the poses
of people of other scenes, and what is around the head is not in the crop.

Writes the network's weights (float16) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.datasets.gazeworld.pretraining.patches import gather
from gazebench.datasets.gazeworld.pretraining.training import Training, parser
from gazebench.methods.omnigf.head_encoder import SMALL_WEIGHTS, SmallNet, head_crops

SCRIPT_VERSION = 3
SIZE, PATCH, SIDE = 224, 14, 64


@dataclass
class Heads:
    """P heads in B images.

    Attributes:
        images: (B, 3, S, S) uint8.
        owner: (P,) the index of each head's image.
        box: (P, 4) normalised xyxy.
        gaze: (P, 3) unit vectors: to the right, down, into the image.
    """

    images: Tensor
    owner: Tensor
    box: Tensor
    gaze: Tensor

    def crops(self, chosen: Tensor, jitter: float, mirrored: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops (N, 3, 64, 64) of some heads, their boxes moved by up to ``jitter`` of their sides, and gaze (N, 3)."""
        box, gaze = self.box[chosen], self.gaze[chosen]
        sides = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        box = box + jitter * sides * (2 * torch.rand(box.shape, generator=generator) - 1)
        images, index = self.owner[chosen].unique(return_inverse=True)
        crops = head_crops(self.images[images], box, index, SIDE)
        return (crops.flip(3), gaze * gaze.new_tensor([-1, 1, 1])) if mirrored else (crops, gaze)


def drawn(count: int, seed: int, split: str, workers: int) -> Heads:
    """The heads in images of a split, whose people have swapped poses."""
    patches, scenes = gather(count, seed, split, SIZE, PATCH, workers)
    people = [(index, person) for index, scene in enumerate(scenes) for person in scene.people]
    yaw, pitch = np.radians([(person.gaze_yaw, person.gaze_pitch) for _, person in people]).T
    gaze = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], 1)
    return Heads(
        torch.from_numpy(patches.images),
        torch.tensor([index for index, _ in people]),
        torch.tensor([person.head for _, person in people], dtype=torch.float32),
        torch.from_numpy(gaze).float(),
    )


@torch.no_grad()
def score(net: nn.Module, heads: Heads) -> dict[str, float]:
    """Median angles between predicted and true directions in degrees: in space, and in the image."""
    generator = torch.Generator()
    parts = torch.arange(len(heads.box)).split(256)
    predicted = torch.cat([net(heads.crops(part, 0.0, False, generator)[0]) for part in parts])

    def median(one: Tensor, other: Tensor) -> float:
        return math.degrees(float(F.cosine_similarity(one, other).clamp(-1, 1).acos().median()))

    return {"angle": median(predicted, heads.gaze), "angle_in_picture": median(predicted[:, :2], heads.gaze[:, :2])}


def main() -> None:
    options = parser(__doc__, steps=1100, scenes=6400, batch=128, out=SMALL_WEIGHTS)
    options.add_argument("--lr", type=float, default=2e-3, help="peak rate")
    options = options.parse_args()
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    train = drawn(options.scenes, options.seed, "pretrain", options.workers)
    held_out = drawn(options.held_out, options.seed, "pretrain-val", options.workers)
    print(f"drew {len(train.box)} + {len(held_out.box)} heads", flush=True)
    net = SmallNet()
    model = nn.Sequential(net, nn.Linear(net.width, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    training = Training(options, model, [optimizer])
    for _ in training.steps():
        chosen = torch.randint(len(train.box), (options.batch,), generator=generator)
        crops, gaze = train.crops(chosen, 0.1, training.step % 2 == 1, generator)
        training.update({"cosine": 1 - F.cosine_similarity(model(crops), gaze).mean()})
    figures = score(model.eval(), held_out)
    training.export(net.state_dict(), figures, script=SCRIPT_VERSION, heads=len(train.box))


if __name__ == "__main__":
    main()
