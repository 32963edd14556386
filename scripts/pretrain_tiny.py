"""Pre-trains the backbone `tiny` on GazeWorld: ``python scripts/pretrain_tiny.py --minutes 15``.

It stands in for a foundation model: it gets to know things, people and places, and is taught nothing about gaze.
Every patch tells what can be seen in it, the box, depth, colour word and eye-catchingness of the instance it shows, and
its own pixels; the class token tells which categories the picture holds. Half-way up, after ``FACE_DEPTH`` blocks, the
patches of a head also tell where the parts of the face are (eyes, nose, mouth, ears): keypoints and parts are best read
from the middle of foundation models. No label depends on where the eyes point. Before a scene is drawn, moreover, its
people swap poses (head, eyes, lean) with those of other scenes, so that no gaze in the pictures has anything to do with
what is around it.

Writes the weights (float16, names as in timm) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from gazebench.datasets.gazeworld.tiny_vit import TINY_WEIGHTS
from gazebench.datasets.gazeworld.world import WORLD_VERSION
from gazebench.datasets.gazeworld.world.patches import CLASSES, COLOUR_WORDS, FACE, HEAD, Patches, gather
from gazebench.nn.backbones import ViTBackbone, build_backbone

SCRIPT_VERSION = 2
SIZE, PATCH = 224, 14
GRID = SIZE // PATCH
FACE_DEPTH = 4


@dataclass
class Pictures:
    """``gazebench.datasets.gazeworld.world.patches.Patches`` of N pictures, as tensors."""

    images: Tensor
    seen: Tensor
    place: Tensor
    colour: Tensor
    salient: Tensor
    face: Tensor


def tensors(patches: Patches) -> Pictures:
    """The same as tensors."""
    return Pictures(*(torch.from_numpy(getattr(patches, field.name)) for field in fields(Pictures)))


class Teacher(nn.Module):
    """The backbone with a linear answer to every question."""

    def __init__(self, backbone: ViTBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        dim = backbone.embed_dim
        seen = nn.Linear(dim, len(CLASSES))
        # The share of patches that show a class is small: start from there, not from one half.
        nn.init.constant_(seen.bias, -4.0)
        self.questions = nn.ModuleDict(
            {
                "seen": seen,
                "place": nn.Linear(dim, 5),
                "colour": nn.Linear(dim, len(COLOUR_WORDS)),
                "salient": nn.Linear(dim, 1),
                "pixels": nn.Linear(dim, 3 * PATCH**2),
            }
        )
        self.whole = nn.Linear(dim, len(CLASSES))
        self.face = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * len(FACE)))
        # On a CPU the fused kernel's backward pass makes a whole step 1.6 times slower than the plain one.
        for block in backbone.blocks:
            block.attn.fused_attn = False  # type: ignore[union-attr]

    def forward(self, images: Tensor, keep: Tensor) -> dict[str, Tensor]:
        """(B, 3, 224, 224) uint8 and the (B, n) patches to look at -> answers (B, n, ...) and ``whole`` (B, K)."""
        tokens = self.backbone.embed(images)
        chosen = torch.cat([torch.zeros_like(keep[:, :1]), keep + 1], 1)
        tokens = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
        for block in self.backbone.blocks[:FACE_DEPTH]:
            tokens = block(tokens)
        face = self.face(tokens[:, 1:]).float().unflatten(2, (len(FACE), 3))
        for block in self.backbone.blocks[FACE_DEPTH:]:
            tokens = block(tokens)
        tokens = self.backbone.model.norm(tokens)
        answers = {name: head(tokens[:, 1:]).float() for name, head in self.questions.items()}
        return {**answers, "whole": self.whole(tokens[:, 0]).float(), "face": face}


def true_pixels(backbone: ViTBackbone, images: Tensor) -> Tensor:
    """(B, 256, 588): the normalised pixels of every patch."""
    normalised = (images / 255 - backbone.image_mean) / backbone.image_std
    return F.unfold(normalised, PATCH, stride=PATCH).mT


def losses(answers: dict[str, Tensor], truth: Pictures, pixels: Tensor, keep: Tensor) -> dict[str, Tensor]:
    """The mean loss of every question over the patches it applies to."""

    def kept(values: Tensor) -> Tensor:
        return values[torch.arange(len(keep))[:, None], keep]

    seen, place, colour, salient = map(kept, (truth.seen, truth.place, truth.colour.long(), truth.salient))
    face = kept(truth.face).float()
    head = ~face[..., 0, 0].isnan()
    shown, coloured, thing = ~place[..., 0].isnan(), colour >= 0, salient >= 0
    # Backgrounds are most of the picture and easily drawn; the detail is in what stands before them.
    weight = 0.25 + shown.float()
    error = (answers["pixels"] - kept(pixels)).square().mean(2)
    return {
        "seen": 8 * F.binary_cross_entropy_with_logits(answers["seen"], seen.float()),
        "whole": 2 * F.binary_cross_entropy_with_logits(answers["whole"], truth.seen.any(1).float()),
        "place": 3 * F.smooth_l1_loss(answers["place"][shown], place[shown].float(), beta=0.05),
        "colour": 0.2 * F.cross_entropy(answers["colour"][coloured], colour[coloured]),
        "salient": 0.3 * F.binary_cross_entropy_with_logits(answers["salient"][..., 0][thing], salient[thing].float()),
        "pixels": (weight * error).sum() / weight.sum(),
        "face": 4 * F.smooth_l1_loss(answers["face"][head][..., :2], face[head][..., :2], beta=0.1)
        + 0.5 * F.binary_cross_entropy_with_logits(answers["face"][head][..., 2], face[head][..., 2]),
    }


def batches(pictures: Patches, size: int, generator: torch.Generator) -> Iterator[Pictures]:
    """Endless shuffled batches, half of them mirrored."""
    while True:
        order = torch.randperm(len(pictures.images), generator=generator)
        for index in order[: len(order) // size * size].split(size):
            yield tensors(pictures.pick(index.numpy(), bool(torch.rand(1, generator=generator) < 0.5)))


@torch.no_grad()
def score(teacher: Teacher, held_out: Patches) -> dict[str, float]:
    """What a held-out picture gets right: mean AP of the classes per patch and per picture, and so on."""
    teacher.eval()
    pictures = tensors(held_out)
    parts: list[dict[str, Tensor]] = []
    pixel_error = pixel_spread = 0.0
    for index in torch.arange(len(pictures.images)).split(32):
        batch = tensors(held_out.pick(index.numpy()))
        with torch.autocast("cpu", torch.bfloat16):
            answers = teacher(batch.images, torch.arange(GRID**2).expand(len(index), -1))
        pixels = true_pixels(teacher.backbone, batch.images)
        shown = ~batch.place[..., 0].isnan()
        pixel_error += float((answers.pop("pixels") - pixels)[shown].square().sum())
        pixel_spread += float((pixels - pixels.mean(2, keepdim=True))[shown].square().sum())
        parts.append(answers)
    teacher.train()
    answers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def mean_ap(truth: Tensor, logits: Tensor) -> float:
        columns = [c for c in range(truth.shape[1]) if truth[:, c].any()]
        return float(np.mean([average_precision_score(truth[:, c], logits[:, c]) for c in columns]))

    shown, coloured, thing = ~pictures.place[..., 0].isnan(), pictures.colour >= 0, pictures.salient >= 0
    return {
        "seen_map": mean_ap(pictures.seen.flatten(0, 1), answers["seen"].flatten(0, 1)),
        "whole_map": mean_ap(pictures.seen.any(1), answers["whole"]),
        "head_ap": average_precision_score(pictures.seen[..., HEAD].flatten(), answers["seen"][..., HEAD].flatten()),
        "box_error": float((answers["place"][shown] - pictures.place[shown])[:, :4].abs().mean()),
        "depth_error": float((answers["place"][shown] - pictures.place[shown])[:, 4].abs().mean()),
        "colour_accuracy": float((answers["colour"].argmax(2)[coloured] == pictures.colour[coloured]).float().mean()),
        "salient_ap": average_precision_score(pictures.salient[thing], answers["salient"][..., 0][thing]),
        "pixels_explained": 1 - pixel_error / pixel_spread,
        "face_error": float((answers["face"] - pictures.face.float())[..., :2].abs().nanmean()),
    }


def save(path: Path, value: Any) -> None:
    """Writes a file that is whole or not there."""
    partial_file = path.with_suffix(".partial")
    torch.save(value, partial_file)
    partial_file.replace(path)


def main() -> None:
    """Draws, trains, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15, help="of training; drawing and scoring come on top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--keep", type=float, default=0.5, help="share of patches looked at in the first 80 %%")
    parser.add_argument("--muon", type=float, default=0.02, help="peak rate of the blocks' matrices")
    parser.add_argument("--adamw", type=float, default=2e-3, help="peak rate of everything else")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--start", type=Path, help="weights to go on from instead of random ones")
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS)
    parser.add_argument("--state", type=Path, default=Path("runs/pretrain_tiny.state"), help="to resume from, if there")
    options = parser.parse_args()

    begun = time.monotonic()
    train = gather(options.scenes, options.seed, "train", SIZE, PATCH, options.workers)[0]
    held_out = gather(256, options.seed, "val", SIZE, PATCH, options.workers)[0]
    print(f"drew {len(train.images)} + {len(held_out.images)} scenes in {time.monotonic() - begun:.0f} s", flush=True)

    torch.manual_seed(options.seed)
    backbone = build_backbone("tiny", weights=options.start or "random").requires_grad_(True)
    started = options.start and hashlib.sha256(options.start.read_bytes()).hexdigest()
    teacher = Teacher(backbone).train()
    matrices = [p for p in backbone.blocks.parameters() if p.dim() == 2]
    rest = [p for p in teacher.parameters() if not any(p is m for m in matrices)]
    optimisers = {
        "muon": (torch.optim.Muon(matrices, lr=options.muon, weight_decay=0.01), options.muon),
        "adamw": (torch.optim.AdamW(rest, lr=options.adamw, weight_decay=0.01), options.adamw),
    }
    step, spent = 0, 0.0
    if options.state.is_file():
        state = torch.load(options.state, weights_only=True)
        teacher.load_state_dict(state["teacher"])
        for name, (optimiser, _) in optimisers.items():
            optimiser.load_state_dict(state[name])
        step, spent = state["step"], state["spent"]
        print(f"resumed after {step} steps, {spent / 60:.1f} minutes", flush=True)

    budget = options.minutes * 60
    generator = torch.Generator().manual_seed(options.seed + 1000 * step)
    stream = batches(train, options.batch, generator)
    running: dict[str, float] = {}
    last_saved = spent
    while spent < budget:
        began = time.monotonic()
        share = spent / budget
        rate = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        batch = next(stream)
        count = round(GRID**2 * (options.keep if share < 0.8 else 1.0))
        # Heads are small and few: their patches are always looked at.
        heads = ~batch.face[:, :, 0, 0].isnan()
        keep = (torch.rand(len(batch.images), GRID**2, generator=generator) - heads.float()).argsort(1)[:, :count]
        with torch.autocast("cpu", torch.bfloat16):
            answers = teacher(batch.images, keep)
        parts = losses(answers, batch, true_pixels(backbone, batch.images), keep)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        for optimiser, peak in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        spent += time.monotonic() - began
        for name, value in parts.items():
            running[name] = 0.95 * running.get(name, value.item()) + 0.05 * value.item()
        if step % 50 == 0:
            print(f"{spent:6.0f} s step {step:5}  " + "  ".join(f"{k} {v:.3f}" for k, v in running.items()), flush=True)
        if spent - last_saved > 120:
            last_saved = spent
            options.state.parent.mkdir(parents=True, exist_ok=True)
            optimiser_states = {name: optimiser.state_dict() for name, (optimiser, _) in optimisers.items()}
            save(options.state, {"teacher": teacher.state_dict(), "step": step, "spent": spent, **optimiser_states})

    figures = {name: round(float(value), 4) for name, value in score(teacher, held_out).items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(options.out, {name: tensor.half() for name, tensor in backbone.model.state_dict().items()})
    card = {
        "script": SCRIPT_VERSION,
        "world": WORLD_VERSION,
        "seed": options.seed,
        "scenes": len(train.images),
        "batch": options.batch,
        "steps": step,
        "minutes": round(spent / 60, 1),
        "started_from": started,
        "val": figures,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
    }
    options.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    options.state.unlink(missing_ok=True)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
