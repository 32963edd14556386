"""Pre-trains the tiny Qwen3-VL on GazeWorld: ``python scripts/pretrain_vlm.py --steps 2100``.

It stands in for a foundation model: it learns to ground words in images, and nothing about gaze. It answers the
questions of ``gazebench.datasets.gazeworld.pretraining.grounding``, several about each image, which is encoded once
for all of them. By the text alone words would not be grounded within minutes, so layers that are thrown away predict
more: from the states of image tokens, what can be seen in them and where the parts of a face are; from the state that
begins an answer, which image token the answer is about and the category and colour of the thing there; from the state
that ends a question, the place whose coordinates it contains. No question is about what is salient, no answer depends
on where eyes point, and before a scene is drawn its people swap poses with those of other scenes, so that no gaze in
the images has anything to do with what is around it. (Version 3, of the shipped weights, also asked what stands out.)

Writes the weights (float16, names as in transformers) and, beside them, a card that tells how they were made.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from gazebench.datasets.gazeworld.catalogue import CATEGORIES
from gazebench.datasets.gazeworld.models import TINY_VLM_WEIGHTS
from gazebench.datasets.gazeworld.pretraining.grounding import POINT, ask, name_of
from gazebench.datasets.gazeworld.pretraining.patches import COLOUR_WORDS, HEAD, Patches, gather
from gazebench.datasets.gazeworld.pretraining.training import (
    PatchHeads,
    Training,
    mean_ap,
    parser,
    patch_losses,
    tensors,
)
from gazebench.datasets.gazeworld.scene import Scene
from gazebench.methods.vl4gaze.dialogue import Dialogue
from gazebench.nn.constrained_decoding import decode, free_text
from gazebench.nn.optimizers import adamw_or_muon, linear_weights
from gazebench.nn.qwen3vl import IGNORED, Qwen3VL, TokenRows, load
from gazebench.vqa.questions.parsing import parse

SCRIPT_VERSION = 5
SIZE = 160
NAMES = tuple(CATEGORIES)
SYSTEM_PROMPT = "You are a helpful assistant."


@dataclass
class Batch:
    """Images, what is true of their image tokens, and conversations about them.

    Attributes:
        patches: the labels of ``Patches`` as tensors; a patch is an image token.
        rows: the conversations, one row per image.
        row, column: (M,) the states that must point at something: those at the ends of questions, ``given`` in number,
            then those at the beginnings of answers.
        spot: (M, 2) where that is, normalised.
        name, colour: for the beginnings of answers, the indices of the thing's category and colour, -1 where the
            question contains them.
    """

    patches: dict[str, Tensor]
    rows: TokenRows
    row: Tensor
    column: Tensor
    spot: Tensor
    given: int
    name: Tensor
    colour: Tensor


class Batches:
    """Makes batches of drawn scenes."""

    def __init__(self, vlm: Qwen3VL, drawn: tuple[Patches, list[Scene]], seed: int) -> None:
        self.patches, self.scenes = drawn
        self.rng = np.random.default_rng(seed)
        self.dialogue = Dialogue(vlm, SYSTEM_PROMPT, vlm.grid(SIZE))

    def endless(self, size: int, questions: int) -> Iterator[Batch]:
        """Shuffled batches, half of them mirrored."""
        while True:
            order = self.rng.permutation(len(self.scenes))
            for start in range(0, len(order) - size + 1, size):
                yield self.batch(order[start : start + size], questions, bool(self.rng.random() < 0.5))

    def batch(self, index: np.ndarray, questions: int, mirrored: bool) -> Batch:
        """The scenes of some indices, with a number of questions about each."""
        drawn = [ask(self.scenes[i], self.rng, questions, mirrored) for i in index]
        rows = self.dialogue.packed([[(each.question, each.answer) for each in some] for some in drawn])
        given, answered, things = [], [], []
        for number, (image, each) in enumerate((image, each) for image, some in enumerate(drawn) for each in some):
            begin = int((rows.learnt[image] == number).nonzero()[0]) - 1  # the state that predicts the first token
            if each.given is not None:
                given.append((image, begin - len(self.dialogue.before_answer), each.given))
            if each.place is not None:
                answered.append((image, begin, each.place))
                thing = each.thing
                things.append((NAMES.index(thing.category), COLOUR_WORDS.index(thing.colour)) if thing else (-1, -1))
        row, column, spot = (torch.tensor(values) for values in zip(*given, *answered, strict=True))
        name, colour = torch.tensor(things).T
        labels = tensors(self.patches.pick(index, mirrored))
        return Batch(labels, rows, row, column, spot, len(given), name, colour)


class Model(nn.Module):
    """The Qwen3-VL with linear heads."""

    def __init__(self, vlm: Qwen3VL) -> None:
        super().__init__()
        self.vlm = vlm
        self.patch = PatchHeads(vlm.dim)
        self.queries = nn.ModuleList(nn.Linear(vlm.dim, vlm.dim) for _ in range(2))  # questions, answers
        self.keys = nn.Linear(vlm.dim, vlm.dim)
        self.name, self.colour = nn.Linear(vlm.dim, len(NAMES)), nn.Linear(vlm.dim, len(COLOUR_WORDS))

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Predictions, and the states (B, L, C) of the rows.

        The predictions are those of ``PatchHeads``, ``points`` (M, N) over the image tokens, and ``name`` and
        ``name_colour`` for the answers.
        """
        states = self.vlm.states(batch.rows, self.vlm.encode(batch.patches["images"]))
        image = self.vlm.image_states(batch.rows, states)
        questions, answers = states[batch.row, batch.column].split([batch.given, len(batch.row) - batch.given])
        query = torch.cat([self.queries[0](questions), self.queries[1](answers)])
        points = (query[:, None] * self.keys(image)[batch.row]).sum(2) / self.vlm.dim**0.5
        made = self.patch(image, image)
        return {**made, "points": points, "name": self.name(answers), "name_colour": self.colour(answers)}, states


def losses(model: Model, batch: Batch) -> dict[str, Tensor]:
    """The mean loss of everything that is predicted."""
    made, states = model(batch)
    known = batch.name >= 0
    return {
        "text": 2 * model.vlm.token_losses(batch.rows, states).mean(),
        "points": 0.5 * F.cross_entropy(made["points"], shares(batch.spot, batch.patches["seen"].shape[1])),
        "name": 0.5 * F.cross_entropy(made["name"][known], batch.name[known]),
        "name_colour": 0.2 * F.cross_entropy(made["name_colour"][known], batch.colour[known]),
        **patch_losses(made, batch.patches, face_weight=1),
    }


def shares(spot: Tensor, tokens: int) -> Tensor:
    """(M, 2) normalised points -> (M, N) the bilinear share of each that lies in each image token."""
    side = round(math.sqrt(tokens))
    centre = (torch.arange(side) + 0.5) / side
    near = (1 - (spot[:, :, None].clamp(0.5 / side, 1 - 0.5 / side) - centre).abs() * side).clamp_min(0)
    return (near[:, 1, :, None] * near[:, 0, None, :]).flatten(1)


@torch.no_grad()
def score(model: Model, data: Batches) -> dict[str, float]:
    """Accuracy on held-out images: mean AP of the classes per image token, answers token by token, and points."""
    model.eval()
    hits: dict[str, list[Tensor]] = {"tokens_right": [], "pointed_right": [], "named_right": []}
    seen, truth = [], []
    for index in np.arange(len(data.scenes)).reshape(-1, 32):
        batch = data.batch(index, 6, mirrored=False)
        made, states = model(batch)
        seen.append(made["seen"].flatten(0, 1))
        truth.append(batch.patches["seen"].flatten(0, 1))
        learnt = batch.rows.learnt[:, 1:] != IGNORED
        written = model.vlm.logits(states[:, :-1][learnt]).argmax(1)
        hits["tokens_right"].append(written == batch.rows.input_ids[:, 1:][learnt])
        spot = shares(batch.spot, batch.patches["seen"].shape[1])
        hits["pointed_right"].append(made["points"].argmax(1) == spot.argmax(1))
        known = batch.name >= 0
        hits["named_right"].append(made["name"][known].argmax(1) == batch.name[known])
    logits, labels = torch.cat(seen), torch.cat(truth)
    return {
        "seen_map": mean_ap(labels, logits),
        "head_ap": float(average_precision_score(labels[:, HEAD], logits[:, HEAD])),
        **{name: float(torch.cat(parts).float().mean()) for name, parts in hits.items()},
        "point_error": point_error(model.vlm, data),
    }


@torch.no_grad()
def point_error(vlm: Qwen3VL, data: Batches) -> float:
    """The mean normalised distance from the middle of a thing to the point that the model writes when asked for it.

    Answers that are no point count as the middle of the image.
    """
    dialogue = data.dialogue
    distances = []
    for index in np.arange(min(128, len(data.scenes))).reshape(-1, 32):
        scenes = [data.scenes[i] for i in index]
        things = [scene.things[data.rng.integers(len(scene.things))] for scene in scenes]
        rows = dialogue.prompts([POINT.format(name=name_of(thing)) for thing in things])
        images = vlm.encode(torch.from_numpy(data.patches.images[index]))
        answers, _ = decode(vlm, rows, images, [free_text(dialogue, 24) for _ in things], dialogue.padding)
        for thing, text in zip(things, dialogue.text([answer.ids for answer in answers]), strict=True):
            distances.append(math.dist(parse("point", text).point or (0.5, 0.5), thing.centre))
    return float(np.mean(distances))


def parsed() -> argparse.Namespace:
    options = parser(__doc__, steps=2100, scenes=9600, batch=24, out=TINY_VLM_WEIGHTS)
    options.add_argument("--questions", type=int, default=8, help="about each image")
    options.add_argument("--muon", type=float, default=0.02, help="peak rate of matrices")
    options.add_argument("--adamw", type=float, default=2e-3, help="peak rate of everything else")
    options.add_argument("--start", default="random", help="a file of weights to start from")
    return options.parse_args()


def main() -> None:
    options = parsed()
    began = time.monotonic()
    torch.manual_seed(options.seed)
    vlm = load("tiny", options.start)
    vlm.tune("full", 0, 0, 0.0)
    train, held_out = (
        Batches(vlm, gather(count, options.seed, split, SIZE, vlm.cell, options.workers), options.seed)
        for count, split in ((options.scenes, "pretrain"), (options.held_out, "pretrain-val"))
    )
    print(f"drew {len(train.scenes)} + {len(held_out.scenes)} scenes in {time.monotonic() - began:.0f} s", flush=True)

    model = Model(vlm).train()
    groups = [{"params": model.parameters(), "lr": options.adamw}]
    optimizer = adamw_or_muon("muon", groups, vlm, options.muon, weight_decay=0.01)
    matrices = {id(matrix) for matrix in linear_weights(vlm)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in matrices]
    training = Training(options, model, [optimizer], clipped=rest)
    train.rng = np.random.default_rng([options.seed, 0])
    stream = train.endless(options.batch, options.questions)
    for _ in training.steps():
        training.update(losses(model, next(stream)))
    tied = {"lm_head.weight"} if vlm.model.config.tie_word_embeddings else set()
    weights = {name: tensor for name, tensor in vlm.model.state_dict().items() if name not in tied}
    facts = {"script": SCRIPT_VERSION, "scenes": len(train.scenes), "started_from": vlm.identity["weights"]}
    training.export(weights, score(model, held_out), questions=options.questions, **facts)


if __name__ == "__main__":
    main()
