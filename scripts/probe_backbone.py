"""Measures what frozen features of backbones tell linearly: ``python scripts/probe_backbone.py tiny tiny2``.

Ridge regressions from single patch tokens of the last layer, and of layer ``FACE_DEPTH`` for heads, are fitted on some
scenes and tested on others. Neither kind was seen in pre-training.

- ``what``: mean average precision of what is seen in a patch;
- ``where``: mean error of the box of the instance that a patch shows, in image sizes;
- ``head``: average precision of heads among patches;
- ``salient``: average precision of the salient thing among the patches of things (chance: the share of such patches);
- ``gaze``: median error in degrees of the direction of the gaze in the image, from the mean token of a head (chance:
  90);
- ``target``: mean distance from the gaze to the point predicted from that token and the place of the head, normalised.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from torch import Tensor

from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.pretraining.patches import HEAD, label
from gazebench.datasets.gazeworld.pretraining.training import mean_ap
from gazebench.datasets.gazeworld.pretraining.views import HEADS, drawn
from gazebench.nn.backbones import build_backbone

SIZE, PATCH = 224, 14
GRID = SIZE // PATCH
FACE_DEPTH = 4


class Data:
    """Scenes of a split that no training uses, with the labels of their patches and heads."""

    def __init__(self, count: int, split: str, world: int) -> None:
        scenes = [compose(0, index, split, world) for index in range(count)]  # type: ignore[arg-type]
        seen = [drawn(scene, SIZE) for scene in scenes]
        labels = [label(each, PATCH) for each in seen]
        self.images = torch.from_numpy(np.stack([each.images for each in labels]))
        self.seen = np.stack([each.seen for each in labels]).reshape(-1, labels[0].seen.shape[1])
        self.place = np.stack([each.place for each in labels]).reshape(-1, 5)[:, :4].astype(float)
        salient = []
        for scene, (_, _, ids) in zip(scenes, seen, strict=True):
            middle = ids[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].ravel()
            thing = np.isin(middle, [each.id for each in scene.things])
            salient.append(np.where(thing, middle == scene.salient, -1))
        self.salient = np.concatenate(salient)
        self.heads, self.gaze, self.aspect = [], [], []
        for row, (scene, (view, _, _)) in enumerate(zip(scenes, seen, strict=True)):
            boxes = {each.id - HEADS: each.box for each in view.instances if each.id > HEADS}
            for person in scene.people:
                if person.inout:
                    self.heads.append((row, boxes[person.id]))
                    self.gaze.append(person.gaze)
                    self.aspect.append(scene.aspect)
        self.truth = np.array(self.gaze)
        self.middle = np.array([((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for _, b in self.heads])
        self.wide = np.stack([self.aspect, np.ones(len(self.aspect))], 1)

    def of_heads(self, tokens: Tensor) -> np.ndarray:
        """(P, C): the mean token of the patches whose centres, or at least the nearest to it, are in a head."""
        centre = (np.arange(GRID) + 0.5) / GRID
        found = []
        for row, (left, top, right, bottom) in self.heads:
            x, y = (np.flatnonzero((centre > a) & (centre < b)) for a, b in ((left, right), (top, bottom)))
            x = x if len(x) else [min(GRID - 1, int((left + right) / 2 * GRID))]
            y = y if len(y) else [min(GRID - 1, int((top + bottom) / 2 * GRID))]
            found.append(tokens[row].reshape(GRID, GRID, -1)[np.ix_(y, x)].mean((0, 1)))
        return torch.stack(found).numpy()


@torch.no_grad()
def encoded(name: str, weights: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 256, C) patch tokens of the last layer, and of layer ``FACE_DEPTH``."""
    backbone = build_backbone(name, weights)
    last = torch.cat([backbone(part).flatten(2).mT for part in images.split(16)])
    middle = torch.cat([backbone.tokens(part, FACE_DEPTH)[:, 1:] for part in images.split(16)])
    return last, middle


def probe(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    mean, std = x.mean(0), x.std(0) + 1e-6
    return Ridge(10.0).fit((x - mean) / std, y).predict((x_test - mean) / std)


def measure(name: str, weights: str, train: Data, test: Data) -> dict[str, float]:
    (x, x_middle), (t, t_middle) = (encoded(name, weights, data.images) for data in (train, test))
    x_flat, t_flat = x.flatten(0, 1).numpy(), t.flatten(0, 1).numpy()
    seen = probe(x_flat, train.seen.astype(float), t_flat)
    shown, shown_test = np.isfinite(train.place[:, 0]), np.isfinite(test.place[:, 0])
    place = probe(x_flat[shown], train.place[shown], t_flat[shown_test])
    thing, thing_test = train.salient >= 0, test.salient >= 0
    salient = probe(x_flat[thing], train.salient[thing].astype(float), t_flat[thing_test])
    heads, heads_test = train.of_heads(x_middle), test.of_heads(t_middle)
    ray = (train.truth - train.middle) * train.wide
    way = probe(heads, ray / np.linalg.norm(ray, axis=1, keepdims=True), heads_test)
    true = (test.truth - test.middle) * test.wide
    cosine = (way * true).sum(1) / np.linalg.norm(way, axis=1) / np.linalg.norm(true, axis=1)
    with_place = np.concatenate([heads, train.middle], 1), np.concatenate([heads_test, test.middle], 1)
    target = probe(with_place[0], train.truth, with_place[1])
    return {
        "what": mean_ap(torch.from_numpy(test.seen), torch.from_numpy(seen)),
        "where": float(np.abs(place - test.place[shown_test]).mean()),
        "head": float(average_precision_score(test.seen[:, HEAD], seen[:, HEAD])),
        "salient": float(average_precision_score(test.salient[thing_test], salient)),
        "salient_chance": float(test.salient[thing_test].mean()),
        "gaze": float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1))))),
        "target": float(np.linalg.norm(target - test.truth, axis=1).mean()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="+", help="backbones; NAME=FILE for other weights, NAME=random for none")
    options.add_argument("--scenes", type=int, default=400, help="to fit on; half as many to test on")
    options.add_argument("--world", type=int, default=1)
    given = options.parse_args()
    train, test = Data(given.scenes, "probe", given.world), Data(given.scenes // 2, "probe-test", given.world)
    for entry in given.names:
        name, _, weights = entry.partition("=")
        torch.manual_seed(0)
        figures = measure(name, weights or "pretrained", train, test)
        print(entry, json.dumps({key: round(value, 4) for key, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
