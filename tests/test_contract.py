"""The one contract over everything registered, and what it says of plug-ins that break it."""

import pytest

from gazebench.engine.contract import check, small_config
from gazebench.engine.registry import KINDS, entries, load_dataset
from gazebench.engine.run import Places, bench

GOOD = '''
import torch
from torch import nn
from gazebench.engine.method import Method, MethodCard, our_choice
from gazebench.nn.optimizers import adam_cosine
from gazebench.data.transforms import Preprocess
from gazebench.core.types import Prediction


class Line(Method):
    """Learns one offset from the head's centre."""

    card = MethodCard(title="Line", family="test")
    capabilities = frozenset({"point"})
    sees_images = False

    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))
        self.lr = lr

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        head = batch.head.nan_to_num(0.5)
        return Prediction(point=(head[:, :2] + head[:, 2:]) / 2 + self.offset)

    def loss(self, batch):
        known, prediction = ~batch.targets.point.isnan().any(1), self(batch)
        return {"l2": (prediction.point[known] - batch.targets.point[known]).square().sum()}

    def optimizer(self):
        return adam_cosine(self.parameters(), self.lr, self.trainer.max_epochs)
'''

POINT, L2 = "(head[:, :2] + head[:, 2:]) / 2 + self.offset", '{"l2": (prediction.point[known] -'
BREAKAGES = {
    "forward() returns Tensor, not a gazebench.core.types.Prediction": (f"Prediction(point={POINT})", POINT),
    "preprocess() returns NoneType": ("return Preprocess()", "return None"),
    "Line lacks forward(): The prediction for all P people": ("def forward", "def forwards"),
    "Line lacks loss(): Scalar training losses by name": ("def loss", "def losses"),
    "Line lacks optimizer()": ("def optimizer", "def optimizers"),
    "neither a heatmap nor a point": (f"point={POINT}", ""),
    "point reaches 500": (POINT, "head[:, :2] * 0 + 500"),
    "point has shape": (POINT, f"({POINT})[:, :1]"),
    "point has 1 rows": (POINT, f"({POINT})[:1]"),
    "point is not finite for 1 of": (POINT, f"{POINT} + (torch.arange(batch.people) != 1)[:, None].float().log()"),
    "heatmap leaves [0, 1]: 0 to 7": (POINT, f"{POINT}, heatmap=torch.eye(9).expand(batch.people, 9, 9) * 7"),
    "heatmap has shape": (POINT, f"{POINT}, heatmap=torch.ones(batch.people, 9)"),
    "inout has shape": (POINT, f"{POINT}, inout=torch.ones(batch.people, 2)"),
    "add 'inout' to `capabilities`": (POINT, f"{POINT}, inout=torch.ones(batch.people)"),
    "add 'social' to `capabilities`": (POINT, f"{POINT}, sa=torch.ones(len(batch.pairs))"),
    "lah has 1 rows": (POINT, f"{POINT}, lah=torch.ones(1)"),
    "laeo leaves [0, 1]: 2 to 2": (POINT, f"{POINT}, laeo=torch.full((len(batch.pairs),), 2.0)"),
    "label is ['cup']": (POINT, f"{POINT}, label=['cup']"),
    "add 'semantic' to `capabilities`": (POINT, f"{POINT}, label=['cup'] * batch.people"),
    "leak": (POINT, f"{POINT} + (0 if batch.targets is None else batch.targets.inout[:, None] / 99)"),
    "depends on what else is in the batch": (POINT, f"{POINT} + batch.people"),
    "for a person without a head box": (".nan_to_num(0.5)", ""),
    "changes from one call to the next": (POINT, f"{POINT} + torch.rand(2) / 1e6"),
    "differs after export() and load_export()": (
        "def loss",
        "def export(self):\n        return {'offset': self.offset + 1}\n\n    def loss",
    ),
    "takes weights with a missing key": ("def loss", "def load_export(self, weights): pass\n\n    def loss"),
    "no gradient reaches idle": ("self.lr = lr", "self.lr = lr; self.idle = nn.Parameter(torch.zeros(1))"),
    "no gradient reaches anything": (L2, '{"l2": (prediction.point[known].detach() -'),
    "the gradient of offset stays 0": (POINT, POINT.replace("self.offset", "self.offset.detach() + 0 * self.offset")),
    "do not lower the loss": (POINT, POINT.replace("self.offset", "2 * self.offset.detach() - self.offset")),
    "the gradient of offset is not finite": (POINT, f"{POINT} + self.offset.abs().sqrt()"),
    "loss() returns tensor": ("known, pred", "return self(batch).point.sum()\n        known, pred"),
    "loss() gives l2 with shape": (".square().sum()", ".square().sum(1)"),
    "the loss is nan": (".square().sum()", ".square().sum() * float('nan')"),
    "add 'head box' to `sees`": ('family="test"', 'family="test", sees=frozenset({"picture"})'),
    "no optimizer today (broken.py:": ("return adam_cosine", "raise OSError('no optimizer today'); return adam_cosine"),
    "do not make a configuration": ("sees_images = False", 'recipes = {"*": our_choice("deep", model__depth=1)}'),
}


OURS = [name for kind in KINDS for name, entry in entries(kind).items() if entry.ours]


LITTLE = ["--model.image_size=112", "--model.dim=32", "--model.layers=1", "--model.heads=2"]
OPTIONS = {"vl4gaze": ["--model.answer_limit=6"], "gazelle": LITTLE, "hclora": LITTLE, "scene_only": LITTLE}
"""Smaller than what the contract takes, to save time."""
CLIPS = [(name, ["--model.temporal=true"]) for name in ("chong", "pdp")]


@pytest.mark.parametrize(("name", "options"), [*((name, OPTIONS.get(name, [])) for name in OURS), *CLIPS])
def test_everything_of_ours_keeps_the_contract(name, options):
    assert check(name, *options) == []


@pytest.mark.parametrize("name", [name for name, entry in entries("datasets").items() if entry.ours])
def test_a_method_learns_and_is_scored_on_every_data_set(name, tmp_path):
    options = []
    if name != "gazeworld":
        load_dataset(name).fake(tmp_path / "data", people=16)
        options = [f"--dataset.root={tmp_path / 'data'}"]
    places = Places(tmp_path / "runs", tmp_path / "boards")
    record = bench(small_config("gazelle", name, *options), places).record
    headline = record["metrics"][load_dataset(name).protocol.headline]["all"]
    assert headline["count"] == record["data"]["found"]["in_frame"] > 0
    assert record["status"]["class"] == "smoke"


def test_a_plugin_file_keeps_it(tmp_path):
    path = tmp_path / "line.py"
    path.write_text(GOOD)
    assert check(str(path)) == []


@pytest.mark.parametrize("finding", BREAKAGES)
def test_a_broken_plugin_gets_a_finding_to_act_on(tmp_path, finding):
    path = tmp_path / "broken.py"
    before, after = BREAKAGES[finding]
    assert GOOD.count(before) == 1
    path.write_text(GOOD.replace(before, after))
    findings = check(str(path))
    assert any(finding in found for found in findings), findings


WITH_METRIC = '''
from dataclasses import dataclass, replace
import torch
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import ProtocolMetric


class Spread(GazeMetric):
    """The distance to the middle of all points."""

    fields = ("point",)

    def __init__(self):
        super().__init__()
        pass

    def values(self, point):
        return (point.double() - 0.5).norm(dim=1), torch.arange(len(point))


@dataclass(eq=False)
class Wide(GazeWorld):
    """GazeWorld with one metric more."""

    card = replace(GazeWorld.card, name="wide")
    protocol = replace(GazeWorld.protocol, metrics=(*GazeWorld.protocol.metrics, ProtocolMetric("spread", Spread)))
'''
OWN_LIST, MEAN = "pass", "return (point.double()"
KEPT = "self.extra.append({}); return (point.double()"
FILLED = """self.add_state('extra', [], 'cat')

    def sync(self, *a, **k):
        self.extra or self.extra.append(torch.zeros(0))
        super().sync(*a, **k)"""


@pytest.mark.parametrize(
    ("edits", "finding"),
    [
        ({}, None),
        ({OWN_LIST: "self.add_state('extra', [], 'cat')", MEAN: KEPT.format("point")}, "'extra'"),
        ({OWN_LIST: "self.add_state('extra', [], 'cat')", MEAN: KEPT.format("point[:, 0]")}, "'extra'"),
        ({OWN_LIST: "self.add_state('extra', [], None)", MEAN: KEPT.format("point[:, 0]")}, "'extra'"),
        ({OWN_LIST: FILLED, MEAN: KEPT.format("point[:, 0]")}, None),
        ({OWN_LIST: FILLED, MEAN: KEPT.format("point[:, 0].long()")}, "'extra'"),
        ({OWN_LIST: "self.add_state('extra', torch.zeros(()), 'sum')"}, None),
        ({OWN_LIST: "pass\n\n    def reduce(self, values):\n        return values.max()"}, "saw nobody"),
        ({OWN_LIST: "pass\n\n    def reduce(self, values):\n        return values.sum()"}, "for nobody"),
    ],
)
def test_a_metric_of_a_process_that_saw_nobody_is_that_of_the_others(tmp_path, edits, finding):
    """Without processes: a list that such a process leaves empty makes the others wait, or raises, by version."""
    text = WITH_METRIC
    for before, after in edits.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    path = tmp_path / "wide.py"
    path.write_text(text)
    findings = [found for found in check(str(path)) if "metric" in found]
    assert len(findings) == (finding is not None), findings
    if finding:
        assert "'spread' (Spread)" in findings[0]
        assert finding in findings[0]
