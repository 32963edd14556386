"""Pre-trains the tiny Qwen3-VL on GazeWorld: ``python scripts/pretrain_vlm.py --minutes 30``.

It stands in for a foundation model: it learns to ground words in pictures and is taught nothing about gaze. It answers
the questions of ``gazebench.datasets.gazeworld.grounding``, several to a picture that is read once for all of them.
Through layers that are thrown away, the states of its image tokens tell what can be seen in them and where the parts of a face are, the
state that begins an answer points at the image token that the answer is about and tells the thing's category and
colour, and the state that ends a question points at the place it tells in numbers; by the text alone words find their
way into pictures too, but not in minutes. No answer depends on where eyes point, and before a scene is drawn its people
swap poses with those of other scenes, so that no gaze in the pictures has anything to do with what is around it.

Writes the weights (float16, names as in transformers) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from gazebench.datasets.gazeworld.grounding import POINT, Asked, ask, named
from gazebench.datasets.gazeworld.world import CATEGORIES, WORLD_VERSION, Scene
from gazebench.datasets.gazeworld.world.patches import CLASSES, COLOUR_WORDS, FACE, HEAD, Patches, gather
from gazebench.methods.vl4gaze.dialogue import Dialogue
from gazebench.nn.optimizers import MuonAdamW, matrices
from gazebench.nn.qwen3vl import TINY_WEIGHTS, GazeVLM, load_vlm
from gazebench.nn.rows import IGNORED, Rows
from gazebench.nn.writing import Writer
from gazebench.vqa.questions.reading import read

SCRIPT_VERSION = 3
SIZE = 160
NAMES = tuple(CATEGORIES)
PLAIN = "You are a helpful assistant."


@dataclass
class Lesson:
    """A batch: pictures, what is true of their image tokens (N of each), and conversations about them.

    ``row`` and ``column`` (M,) are of the states that point at something, ``spot`` (M, 2) is where that is; those of
    questions, ``given`` in number, come before those of answers. Of the latter ``name`` is the index of the thing's
    category and ``tint`` that of its colour, -1 where the question tells them.
    """

    images: Tensor
    seen: Tensor
    place: Tensor
    colour: Tensor
    salient: Tensor
    face: Tensor
    rows: Rows
    row: Tensor
    column: Tensor
    spot: Tensor
    given: int
    name: Tensor
    tint: Tensor


class School:
    """Makes lessons of drawn scenes."""

    def __init__(self, vlm: GazeVLM, patches: Patches, scenes: list[Scene], seed: int) -> None:
        self.patches, self.scenes = patches, scenes
        self.rng = np.random.default_rng(seed)
        self.dialogue = Dialogue(vlm.processor, PLAIN, vlm.grid(SIZE))

    def lessons(self, size: int, questions: int) -> Iterator[Lesson]:
        """Endless shuffled batches, half of them mirrored."""
        while True:
            order = self.rng.permutation(len(self.scenes))
            for start in range(0, len(order) - size + 1, size):
                yield self.lesson(order[start : start + size], questions, bool(self.rng.random() < 0.5))

    def lesson(self, index: np.ndarray, questions: int, mirrored: bool) -> Lesson:
        """The scenes of some indices and some questions about each."""
        shown = self.patches.pick(index, mirrored)
        seen, place, salient, face = map(torch.from_numpy, (shown.seen, shown.place, shown.salient, shown.face))
        images, colour = torch.from_numpy(shown.images), torch.from_numpy(shown.colour).long()
        talks = [ask(self.scenes[i], self.rng, questions, mirrored) for i in index]
        rows = self.dialogue.packed([[(each.question, each.answer) for each in talk] for talk in talks])
        return Lesson(images, seen, place, colour, salient, face, rows, *self.pointers(rows, talks))

    def pointers(self, rows: Rows, talks: list[list[Asked]]) -> tuple[Tensor, Tensor, Tensor, int, Tensor, Tensor]:
        """The states that point, where, and at what."""
        given, answered, things = [], [], []
        number = 0
        for row, talk in enumerate(talks):
            for asked in talk:
                begin = int((rows.learnt[row] == number).nonzero()[0]) - 1  # what the answer is written after
                if asked.given is not None:
                    given.append((row, begin - len(self.dialogue.rest), asked.given))
                if asked.place is not None:
                    answered.append((row, begin, asked.place))
                    thing = asked.thing
                    known = (NAMES.index(thing.category), COLOUR_WORDS.index(thing.colour)) if thing else (-1, -1)
                    things.append(known)
                number += 1
        row, column, spot = map(torch.tensor, zip(*given, *answered, strict=True))
        name, tint = torch.tensor(things).T
        return row, column, spot, len(given), name, tint


class Pupil(nn.Module):
    """The model, and linear answers about its image tokens."""

    def __init__(self, vlm: GazeVLM) -> None:
        super().__init__()
        self.vlm = vlm
        self.seen = nn.Linear(vlm.dim, len(CLASSES))
        # The share of tokens that show a class is small: start from there, not from one half.
        nn.init.constant_(self.seen.bias, -4.0)
        self.place = nn.Linear(vlm.dim, 5)
        self.colour = nn.Linear(vlm.dim, len(COLOUR_WORDS))
        self.salient = nn.Linear(vlm.dim, 1)
        self.face = nn.Sequential(nn.LayerNorm(vlm.dim), nn.Linear(vlm.dim, 3 * len(FACE)))
        self.points = nn.ModuleList(nn.Linear(vlm.dim, vlm.dim) for _ in range(2))  # questions, answers
        self.pointed = nn.Linear(vlm.dim, vlm.dim)
        self.name = nn.Linear(vlm.dim, len(NAMES))
        self.tint = nn.Linear(vlm.dim, len(COLOUR_WORDS))

    def forward(self, lesson: Lesson) -> tuple[dict[str, Tensor], Tensor]:
        """-> answers (B, N, ...) about image tokens, and the states of the rows."""
        patches, grid = self.vlm.pixels(lesson.images)
        states = self.vlm.states(lesson.rows, patches, grid, None)
        tokens = lesson.seen.shape[1]
        columns = lesson.rows.image_start[:, None] + torch.arange(tokens)
        image = states[torch.arange(len(states))[:, None], columns]
        answers = {name: getattr(self, name)(image) for name in ("seen", "place", "colour", "salient", "face")}
        answers["face"] = answers["face"].unflatten(2, (len(FACE), 3))
        pointing = states[lesson.row, lesson.column].split([lesson.given, len(lesson.row) - lesson.given])
        query = torch.cat([points(part) for points, part in zip(self.points, pointing, strict=True)])
        answers["points"] = (query[:, None] * self.pointed(image)[lesson.row]).sum(2) / self.vlm.dim**0.5
        answers |= {name: getattr(self, name)(pointing[1]) for name in ("name", "tint")}
        return answers, states


def losses(answers: dict[str, Tensor], states: Tensor, vlm: GazeVLM, lesson: Lesson) -> dict[str, Tensor]:
    """The mean loss of every question about image tokens, and of the text."""
    place, colour, salient, face = lesson.place.float(), lesson.colour, lesson.salient, lesson.face.float()
    head, shown, coloured, thing = ~face[..., 0, 0].isnan(), ~place[..., 0].isnan(), colour >= 0, salient >= 0
    learnt = lesson.rows.learnt[:, 1:] != IGNORED
    shows = lesson.name >= 0
    text = F.cross_entropy(vlm.logits(states[:, :-1][learnt]), lesson.rows.input_ids[:, 1:][learnt])
    return {
        "text": 2 * text,
        "points": 0.5 * F.cross_entropy(answers["points"], shares(lesson.spot, lesson.seen.shape[1])),
        "name": 0.5 * F.cross_entropy(answers["name"][shows], lesson.name[shows]),
        "tint": 0.2 * F.cross_entropy(answers["tint"][shows], lesson.tint[shows]),
        "seen": 8 * F.binary_cross_entropy_with_logits(answers["seen"], lesson.seen.float()),
        "place": 3 * F.smooth_l1_loss(answers["place"][shown], place[shown], beta=0.05),
        "colour": 0.2 * F.cross_entropy(answers["colour"][coloured], colour[coloured]),
        "salient": 0.3 * F.binary_cross_entropy_with_logits(answers["salient"][..., 0][thing], salient[thing].float()),
        "face": F.smooth_l1_loss(answers["face"][head][..., :2], face[head][..., :2], beta=0.1)
        + 0.5 * F.binary_cross_entropy_with_logits(answers["face"][head][..., 2], face[head][..., 2]),
    }


def shares(spot: Tensor, tokens: int) -> Tensor:
    """(M, 2) normalised points -> (M, N), how much of each is in which image token: bilinear."""
    side = round(math.sqrt(tokens))
    centre = (torch.arange(side) + 0.5) / side
    near = (1 - (spot[:, :, None].clamp(0.5 / side, 1 - 0.5 / side) - centre).abs() * side).clamp_min(0)
    return (near[:, 1, :, None] * near[:, 0, None, :]).flatten(1)


@torch.no_grad()
def score(pupil: Pupil, school: School) -> dict[str, float]:
    """What held-out pictures get right: mean AP of the classes per token, answers word by word, points and boxes."""
    pupil.eval()
    seen, truth, right, found, knew = [], [], [], [], []
    for index in np.arange(len(school.scenes)).reshape(-1, 32):
        lesson = school.lesson(index, 6, mirrored=False)
        answers, states = pupil(lesson)
        seen.append(answers["seen"].sigmoid().flatten(0, 1))
        truth.append(lesson.seen.flatten(0, 1))
        found.append((answers["points"].argmax(1) == shares(lesson.spot, lesson.seen.shape[1]).argmax(1)).float())
        shows = lesson.name >= 0
        knew.append((answers["name"][shows].argmax(1) == lesson.name[shows]).float())
        learnt = lesson.rows.learnt[:, 1:] != IGNORED
        best = pupil.vlm.logits(states[:, :-1][learnt]).argmax(1)
        right.append((best == lesson.rows.input_ids[:, 1:][learnt]).float())
    logits, labels = torch.cat(seen).numpy(), torch.cat(truth).numpy()
    shown = [c for c in range(labels.shape[1]) if labels[:, c].any()]
    figures = {
        "seen_map": float(np.mean([average_precision_score(labels[:, c], logits[:, c]) for c in shown])),
        "head_ap": float(average_precision_score(labels[:, HEAD], logits[:, HEAD])),
        "tokens_right": float(torch.cat(right).mean()),
        "pointed_right": float(torch.cat(found).mean()),
        "named_right": float(torch.cat(knew).mean()),
        "point_error": pointing(pupil.vlm, school),
    }
    pupil.train()
    return figures


@torch.no_grad()
def pointing(vlm: GazeVLM, school: School) -> float:
    """The mean distance, in picture sizes, from a thing's centre to where the model points when asked for it.

    Whatever is no point counts as the middle of the picture.
    """
    writer = Writer(vlm, school.dialogue, constrained=False)
    distance = []
    for index in np.arange(min(128, len(school.scenes))).reshape(-1, 32):
        scenes = [school.scenes[i] for i in index]
        things = [scene.things[school.rng.integers(len(scene.things))] for scene in scenes]
        rows = school.dialogue.asked([POINT.format(name=named(thing)) for thing in things])
        pictures = vlm.look(*vlm.pixels(torch.from_numpy(school.patches.images[index])))
        texts, _ = writer.say([writer.free(24) for _ in scenes], rows, pictures)
        for thing, text in zip(things, texts, strict=True):
            distance.append(math.dist(read("point", text).point or (0.5, 0.5), thing.centre))
    return float(np.mean(distance))


def save(path: Path, value: Any) -> None:
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(".partial")
    torch.save(value, partial_file)
    partial_file.replace(path)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of training; drawing and scoring come on top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=9600)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--questions", type=int, default=8, help="about each picture")
    parser.add_argument("--muon", type=float, default=0.02, help="peak rate of matrices")
    parser.add_argument("--adamw", type=float, default=2e-3, help="peak rate of everything else")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--start", default="random", help="weights to go on from: a file")
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS)
    parser.add_argument("--state", type=Path, default=Path("runs/pretrain_vlm.state"), help="to resume from, if there")
    return parser.parse_args()


def main() -> None:
    """Draws, trains, scores, writes."""
    options = parsed()
    begun = time.monotonic()
    torch.manual_seed(options.seed)
    vlm = load_vlm("tiny", options.start)
    vlm.tune("full", 0, 0, 0.0)
    train = School(vlm, *gather(options.scenes, options.seed, "train", SIZE, vlm.cell, options.workers), options.seed)
    held_out = School(vlm, *gather(256, options.seed, "val", SIZE, vlm.cell, options.workers), options.seed)
    print(f"drew {len(train.scenes)} + {len(held_out.scenes)} scenes in {time.monotonic() - begun:.0f} s", flush=True)

    pupil = Pupil(vlm).train()
    big = matrices(vlm)
    chosen = {id(parameter) for parameter in big}
    rest = [parameter for parameter in pupil.parameters() if id(parameter) not in chosen]
    optimizer = MuonAdamW(big, [{"params": rest, "lr": options.adamw}], options.muon, 0.01)
    peaks = [group["lr"] for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if options.state.is_file():
        state = torch.load(options.state, weights_only=True)
        pupil.load_state_dict(state["pupil"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
        train.rng = np.random.default_rng([options.seed, step])
        print(f"resumed after {step} steps, {spent / 60:.1f} minutes", flush=True)

    budget = options.minutes * 60
    running: dict[str, float] = {}
    last_saved = spent
    for lesson in train.lessons(options.batch, options.questions):
        if spent >= budget:
            break
        began = time.monotonic()
        rate = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent / budget)) / 2)
        answers, states = pupil(lesson)
        parts = losses(answers, states, vlm, lesson)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        spent += time.monotonic() - began
        for name, value in parts.items():
            running[name] = 0.95 * running.get(name, value.item()) + 0.05 * value.item()
        if step % 50 == 0:
            print(f"{spent:6.0f} s step {step:5}  " + "  ".join(f"{k} {v:.3f}" for k, v in running.items()), flush=True)
        if spent - last_saved > 120:
            last_saved = spent
            state = {"pupil": pupil.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
            save(options.state, state)

    figures = {name: round(value, 4) for name, value in score(pupil, held_out).items()}
    tied = vlm.model.config.tie_word_embeddings
    save(options.out, {n: t.half() for n, t in vlm.model.state_dict().items() if not (tied and n == "lm_head.weight")})
    card = {
        "script": SCRIPT_VERSION,
        "world": WORLD_VERSION,
        "seed": options.seed,
        "scenes": len(train.scenes),
        "batch": options.batch,
        "questions": options.questions,
        "steps": step,
        "minutes": round(spent / 60, 1),
        "started_from": vlm.identity["weights"],
        "val": figures,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
    }
    options.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    options.state.unlink(missing_ok=True)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
