"""Pre-trains the backbone `tiny2` on GazeWorld: ``python scripts/pretrain_tiny.py``.

It stands in for a foundation model: it learns to recognise things, people and places, and nothing about salience or
gaze. From every patch it predicts what can be seen in it, the box, depth and colour of the instance it shows, and the
pixels; from the class token, which categories the image holds. The patches of a head also predict, after ``FACE_DEPTH``
blocks, where the parts of the face are: foundation models represent keypoints and parts best in their middle layers.
Labels come from ``pretraining.views``, which hold no answer; before a scene is drawn its people swap poses (head, eyes,
lean) with those of other scenes, so that no gaze in the images has anything to do with what is around it, and become
smaller by a random factor. The scenes are of splits of their own. (Version 2 of this script, which made `tiny`, also
predicted whether a patch shows the salient thing.)

Writes the weights (float16, names as in timm) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from gazebench.datasets.gazeworld.models import TINY2_VIT_WEIGHTS
from gazebench.datasets.gazeworld.pretraining.patches import CLASSES, HEAD, Patches, gather
from gazebench.datasets.gazeworld.pretraining.training import (
    PatchHeads,
    Training,
    mean_ap,
    parser,
    patch_losses,
    tensors,
)
from gazebench.nn.backbones import ViTBackbone, build_backbone

SCRIPT_VERSION = 4
TAUGHT = "things, people, places, boxes, depths, colours, parts of faces, pixels; neither salience nor gaze"
SIZE, PATCH = 224, 14
GRID = SIZE // PATCH
FACE_DEPTH = 4


class Model(nn.Module):
    """The backbone with linear heads."""

    def __init__(self, backbone: ViTBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        dim = backbone.embed_dim
        self.patch = PatchHeads(dim)
        self.pixels, self.whole = nn.Linear(dim, 3 * PATCH**2), nn.Linear(dim, len(CLASSES))
        # On a CPU the backward pass of the fused kernel makes a whole step 1.6 times slower than the plain one does.
        for block in backbone.blocks:
            block.attn.fused_attn = False  # type: ignore[union-attr]

    def forward(self, images: Tensor, keep: Tensor) -> dict[str, Tensor]:
        """Predictions of patches: their labels (B, n, ...) and pixels (B, n, 588), and ``whole`` (B, K), the classes.

        Args:
            images: (B, 3, 224, 224) uint8.
            keep: (B, n), the indices of the patches to encode.
        """
        tokens = self.backbone.embed(images)
        chosen = torch.cat([torch.zeros_like(keep[:, :1]), keep + 1], 1)
        tokens = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
        for block in self.backbone.blocks[:FACE_DEPTH]:
            tokens = block(tokens)
        middle = tokens[:, 1:]
        for block in self.backbone.blocks[FACE_DEPTH:]:
            tokens = block(tokens)
        tokens = self.backbone.model.norm(tokens)
        made = self.patch(tokens[:, 1:], middle)
        return {**made, "pixels": self.pixels(tokens[:, 1:]).float(), "whole": self.whole(tokens[:, 0]).float()}


def true_pixels(backbone: ViTBackbone, images: Tensor) -> Tensor:
    """(B, 256, 588): the normalised pixels of every patch."""
    normalised = (images / 255 - backbone.image_mean) / backbone.image_std
    return F.unfold(normalised, PATCH, stride=PATCH).mT


def losses(model: Model, batch: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """The mean loss of everything that is predicted."""
    with torch.autocast("cpu", torch.bfloat16):
        made = model(batch["images"], keep)
    rows = torch.arange(len(keep))[:, None]
    truth = {name: batch[name][rows, keep] for name in ("seen", "place", "colour", "face")}
    pixels = true_pixels(model.backbone, batch["images"])[rows, keep]
    # Backgrounds are most of the image and easy to predict; the detail is in what stands before them.
    weight = 0.25 + (~truth["place"][..., 0].isnan()).float()
    return {
        **patch_losses(made, truth, face_weight=4),
        "whole": 2 * F.binary_cross_entropy_with_logits(made["whole"], batch["seen"].any(1).float()),
        "pixels": (weight * (made["pixels"] - pixels).square().mean(2)).sum() / weight.sum(),
    }


def shuffled(patches: Patches, seed: int, step: int, size: int) -> dict[str, Tensor]:
    """The batch of a step: every image once an epoch, in half of the steps all mirrored."""
    epoch, batch = divmod(step, len(patches.images) // size)
    order = np.random.default_rng([seed, epoch]).permutation(len(patches.images))
    mirrored = bool(np.random.default_rng([seed, epoch, batch]).random() < 0.5)
    return tensors(patches.pick(order[batch * size :][:size], mirrored))


@torch.no_grad()
def score(model: Model, held_out: Patches) -> dict[str, float]:
    """Accuracy on held-out images: mean AP of the classes per patch and per image, errors of boxes, and so on."""
    model.eval()
    truth = tensors(held_out)
    parts: list[dict[str, Tensor]] = []
    pixel_error = pixel_spread = 0.0
    for index in torch.arange(len(held_out.images)).split(32):
        images = truth["images"][index]
        with torch.autocast("cpu", torch.bfloat16):
            made = model(images, torch.arange(GRID**2).expand(len(index), -1))
        pixels = true_pixels(model.backbone, images)
        shown = ~truth["place"][index][..., 0].isnan()
        pixel_error += float((made.pop("pixels") - pixels)[shown].square().sum())
        pixel_spread += float((pixels - pixels.mean(2, keepdim=True))[shown].square().sum())
        parts.append(made)
    made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    shown, coloured = ~truth["place"][..., 0].isnan(), truth["colour"] >= 0
    place_error = (made["place"][shown] - truth["place"][shown]).abs()
    return {
        "seen_map": mean_ap(truth["seen"].flatten(0, 1), made["seen"].flatten(0, 1)),
        "whole_map": mean_ap(truth["seen"].any(1), made["whole"]),
        "head_ap": average_precision_score(truth["seen"][..., HEAD].flatten(), made["seen"][..., HEAD].flatten()),
        "box_error": float(place_error[:, :4].mean()),
        "depth_error": float(place_error[:, 4].mean()),
        "colour_accuracy": float((made["colour"].argmax(2) == truth["colour"])[coloured].float().mean()),
        "pixels_explained": 1 - pixel_error / pixel_spread,
        "face_error": float((made["face"] - truth["face"].float())[..., :2].abs().nanmean()),
    }


def parsed() -> argparse.Namespace:
    options = parser(__doc__, steps=2400, scenes=6400, batch=32, out=TINY2_VIT_WEIGHTS)
    options.add_argument("--keep", type=float, default=0.5, help="share of the patches that are encoded at first")
    options.add_argument("--muon", type=float, default=0.02, help="peak rate of the matrices of the blocks")
    options.add_argument("--adamw", type=float, default=2e-3, help="peak rate of everything else")
    options.add_argument("--start", type=Path, help="weights to start from instead of random ones")
    return options.parse_args()


def main() -> None:
    options = parsed()
    began = time.monotonic()
    train = gather(options.scenes, options.seed, "pretrain", SIZE, PATCH, options.workers)[0]
    held_out = gather(options.held_out, options.seed, "pretrain-val", SIZE, PATCH, options.workers)[0]
    print(f"drew {len(train.images)} + {len(held_out.images)} scenes in {time.monotonic() - began:.0f} s", flush=True)

    torch.manual_seed(options.seed)
    backbone = build_backbone("tiny", weights=options.start or "random").requires_grad_(True)
    started = options.start and hashlib.sha256(options.start.read_bytes()).hexdigest()
    model = Model(backbone).train()
    matrices = [p for p in backbone.blocks.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=options.muon, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=options.adamw, weight_decay=0.01)
    training = Training(options, model, [muon, adamw], clipped=rest)
    for step in training.steps():
        batch = shuffled(train, options.seed, step, options.batch)
        count = round(GRID**2 * (options.keep if step < 0.8 * options.steps else 1.0))
        # Heads are small and few: their patches are always encoded.
        heads = ~batch["face"][:, :, 0, 0].isnan()
        keep = (torch.rand(heads.shape, generator=torch.Generator().manual_seed(step)) - heads.float()).argsort(1)[
            :, :count
        ]
        training.update(losses(model, batch, keep))
    facts = {"script": SCRIPT_VERSION, "taught": TAUGHT, "scenes": len(train.images), "started_from": started}
    training.export(backbone.model.state_dict(), score(model, held_out), **facts)


if __name__ == "__main__":
    main()
