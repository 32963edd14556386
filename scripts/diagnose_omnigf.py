"""Why OmniGF's gaze branch followed saliency, and what mends it: ``python scripts/diagnose_omnigf.py``.

The gaze branch is trained over states of the tiny Qwen3-VL that are computed once and do not learn: an image's tokens,
and the anchors of a prompt without head tokens. A thousand steps then take a quarter of a minute of a core. The head
encoder's network does not learn either, its projection does. Rows differ in what is added: to the person tokens the
truth itself (an oracle: the offset from the head to its target) or the embedding of the head, to the image tokens
embeddings of their positions. Before that, ridge regression tells how well positions can be read from image tokens and
the places of heads from anchors, with random and with pre-trained weights.

Writes ``frozen.json`` into ``studies/omnigf-diagnosis``, after every row; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.types import IN_FRAME, Batch, Records
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.dataset import GazeDataset
from gazebench.data.transforms import gaussian_heatmap
from gazebench.engine.config import resolve
from gazebench.methods.omnigf.gaze_branch import GazeBranch
from gazebench.methods.omnigf.head_encoder import HeadEncoder, head_crops
from gazebench.metrics.decode import argmax_point
from gazebench.nn.optimizers import trainable, warm_cosine

OUT = Path(__file__).parent.parent / "studies" / "omnigf-diagnosis" / "frozen.json"
GAZE_ALONE = ("omnigf", "gazeworld", "--model.branches=gaze", "--model.head_tokens=false")
PEOPLE, RATE = 20, 2e-3
"""People in a step and the learning rate of the branch, as in the method's recipe."""
READ = 200
"""Images of each split for the regressions."""
ROWS: dict[str, dict[str, Any]] = {
    "oracle": {"oracle": True},
    "oracle, positions": {"oracle": True, "positions": True},
    "neither": {},
    "positions": {"positions": True},
    "residual": {"residual": True},
    "positions and residual": {"positions": True, "residual": True},
}


@dataclass
class Frozen:
    """What is computed once of a split, without gradients.

    Attributes:
        image: (I, C, h, w) float16, the states of the image tokens.
        anchor: (P, C) the anchors' states.
        face: (P, F) float16, the features of the head encoder's network.
        owner: (P,) the image of each person.
        head: (P, 4) normalised.
        target: (P, 2) the mean of the annotations, NaN out of frame.
        subset: P names.
    """

    image: Tensor
    anchor: Tensor
    face: Tensor
    owner: Tensor
    head: Tensor
    target: Tensor
    subset: Any

    def first(self, images: int) -> Frozen:
        """The first images alone, with their people."""
        people = int((self.owner < images).sum())
        return Frozen(self.image[:images], *(getattr(self, each.name)[:people] for each in fields(self)[1:]))

    @property
    def centre(self) -> Tensor:
        return (self.head[:, :2] + self.head[:, 2:]) / 2


def batches(method: Any, dataset: GazeDataset, records: Records) -> Iterator[Batch]:
    """Eight images at a time, as the method reads them."""
    samples = ImageSamples(dataset, records, method.preprocess())
    for start in range(0, len(samples), 8):
        yield collate([samples[index] for index in range(start, min(start + 8, len(samples)))])


@torch.no_grad()
def faces(method: Any, dataset: GazeDataset, records: Records, size: int) -> Tensor:
    """(P, F) float16: what the head encoder's network makes of crops of that many pixels."""
    network = HeadEncoder("small", method.vlm.dim, weights="embedded").net.eval()
    found = []
    for batch in batches(method, dataset, records):
        assert batch.images is not None
        found.append(network(head_crops(batch.images, batch.head, batch.image_index, size)).half())
    return torch.cat(found)


def frozen(method: Any, dataset: GazeDataset, records: Records) -> Frozen:
    """The states of some people by a method with a gaze branch alone."""
    image, anchor = [], []
    for batch in batches(method, dataset, records):
        with torch.no_grad():
            rows, encoded = method.inputs(batch, None)
            states = method.vlm.states(rows, encoded)
        image.append(method.vlm.image_states(rows, states).mT.unflatten(2, method.prompts.grid).half())
        anchor.append(states[rows.person_row, rows.anchor])
    target = torch.full((records.people, 2), torch.nan)
    for person in np.flatnonzero(records.inout == IN_FRAME):
        target[person] = torch.from_numpy(records.points_of(person).mean(0))
    return Frozen(
        torch.cat(image),
        torch.cat(anchor),
        faces(method, dataset, records, method.head_size),
        torch.from_numpy(records.person_image),
        torch.from_numpy(records.head).float(),
        target,
        records.columns["subset"],
    )


class Model(nn.Module):
    """The gaze branch over frozen states, with or without what is to be tried."""

    def __init__(self, dim: int, grid: tuple[int, int], *, oracle: bool, positions: bool, residual: bool) -> None:
        super().__init__()
        self.branch = GazeBranch(dim, 64, 2, grid=grid if positions else None, residual=residual)
        self.oracle = nn.Linear(2, dim) if oracle else None
        self.encoder = HeadEncoder("small", dim, weights="embedded") if residual else None
        if self.encoder is not None:
            self.encoder.net.requires_grad_(False)

    def forward(self, data: Frozen, people: Tensor) -> Tensor:
        """(N,) indices of people -> (N, 64, 64) maps."""
        person = data.anchor[people]
        if self.oracle is not None:
            offset = (data.target - data.centre)[people].nan_to_num()
            person = person + self.oracle(offset)
        heads = None if self.encoder is None else self.encoder.embedded(data.face[people].float())
        image = data.image[data.owner[people]].float()
        outputs = self.branch(image, person, torch.arange(len(people)), torch.zeros(0, 2, dtype=torch.int64), heads)
        return outputs.maps


def trained(train: Frozen, test: Frozen, steps: int, seed: int, **what: bool) -> dict[str, Any]:
    """The errors on the test people by subset, and the seconds, after some steps under a warm-up and a cosine."""
    torch.manual_seed(seed)
    began = time.monotonic()
    settings = {"oracle": False, "positions": False, "residual": False} | what
    model = Model(train.anchor.shape[1], tuple(train.image.shape[2:]), **settings).train()
    optimizer = torch.optim.AdamW(trainable(model), lr=RATE, weight_decay=0.0)
    schedule = warm_cosine(optimizer, steps)["scheduler"]
    known = train.target.isfinite().all(1).nonzero().flatten()
    order = known[:0]
    for _ in range(steps):
        if len(order) < PEOPLE:
            order = known[torch.randperm(len(known))]
        people, order = order[:PEOPLE], order[PEOPLE:]
        loss = 100 * (model(train, people) - gaussian_heatmap(train.target[people], (64, 64))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trainable(model), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.monotonic() - began
    model.eval()
    with torch.no_grad():
        points = torch.cat([argmax_point(model(test, part)) for part in torch.arange(len(test.owner)).split(100)])
    error = (points - test.target).norm(dim=1).numpy()
    found = {name: round(float(error[test.subset == name].mean()), 4) for name in ("consistent", "inconsistent")}
    return {**found, "seconds": round(seconds)}


def readable(train: Frozen, test: Frozen) -> dict[str, float]:
    """The mean errors of ridge regressions: positions from image tokens, places of heads from anchors; image sides."""
    train, test = train.first(READ), test.first(READ)
    height, width = train.image.shape[2:]
    places = torch.stack(
        torch.meshgrid((torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height, indexing="xy"), 2
    ).flatten(0, 1)

    def tokens(data: Frozen) -> tuple[Tensor, Tensor]:
        return data.image.float().flatten(2).mT.flatten(0, 1), places.repeat(len(data.image), 1)

    def error(known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> float:
        x, y = (F.pad(states, (0, 1), value=1.0).double() for states in (known[0], asked[0]))
        gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1])
        weights = torch.linalg.solve(gram, x.T @ known[1].double())
        return round(float((y @ weights - asked[1]).norm(dim=1).mean()), 4)

    return {
        "position of an image token": error(tokens(train), tokens(test)),
        "place of a head": error((train.anchor, train.centre), (test.anchor, test.centre)),
        "place of a head, without looking": round(float((test.centre - train.centre.mean(0)).norm(dim=1).mean()), 4),
    }


def inputs(weights: str, images: int, *options: str) -> list[tuple[Any, GazeDataset, Records]]:
    """Method, data set and records of the training and of the test split; at most so many images of each."""
    config = resolve([*GAZE_ALONE, f"--model.backbone_weights={weights}", *options])
    torch.manual_seed(0)
    method, dataset = config.new_method().eval(), config.new_dataset()
    records = [dataset.records(split) for split in ("trainval", "test")]
    return [(method, dataset, each.of_images(np.arange(min(images, len(each))))) for each in records]


def splits(weights: str, images: int, *options: str) -> list[Frozen]:
    """The training and the test split under ``pretrained`` or ``random`` weights; at most so many images of each."""
    return [frozen(*each) for each in inputs(weights, images, *options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[800, 4000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--images", type=int, default=10**6, help="at most so many of each split")
    parser.add_argument(
        "--backbone", help="a folder with a Qwen3-VL or its id on the hub: only what can be read from it"
    )
    parser.add_argument("--weights", default="pretrained", help="of that backbone: pretrained, random or a file")
    parser.add_argument("--head-size", type=int, help="side of the head crops; 64 pixels by default")
    parser.add_argument("--states", type=Path, help="a file that keeps the states for the next time")
    options = parser.parse_args()
    stored: dict[str, Any] = json.loads(OUT.read_text("utf-8")) if OUT.is_file() else {"read": {}, "trained": {}}

    def store(part: str, name: str, value: Any) -> None:
        stored[part][name] = value
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", "utf-8")
        print(part, name, value, flush=True)

    if options.backbone:
        many = ("--model.image_size=224", "--model.tuning=none", "--model.head_size=64", "--model.head_net=small")
        name = f"{Path(options.backbone).name}, {options.weights}"
        given = splits(options.weights, options.images, f"--model.backbone={options.backbone}", *many)
        store("read", name, readable(*given))
        return
    if "random" not in stored["read"]:
        store("read", "random", readable(*splits("random", READ)))
    if options.states and options.states.is_file():
        train, test = (Frozen(**each) for each in torch.load(options.states, weights_only=False))
    else:
        train, test = splits("pretrained", options.images)
        if options.states:
            torch.save([vars(train), vars(test)], options.states)
    if options.head_size:
        given = inputs("pretrained", options.images)
        train, test = (
            replace(each, face=faces(*of, options.head_size)) for each, of in zip((train, test), given, strict=True)
        )
    else:
        store("read", "pretrained", readable(train, test))
    crops = f"; crops of {options.head_size}" if options.head_size else ""
    for steps in options.steps:
        for row in options.rows:
            for seed in options.seeds:
                name = f"{row}; {steps} steps; seed {seed}{crops}"
                if name not in stored["trained"]:
                    store("trained", name, trained(train, test, steps, seed, **ROWS[row]))


if __name__ == "__main__":
    main()
