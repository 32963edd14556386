"""The one contract over everything registered, and what it says of plug-ins that break it."""

import pytest

from gazebench.contract import check
from gazebench.registry import entries

GOOD = '''
import torch
from torch import nn
from gazebench.method import Method, MethodCard, adam_cosine
from gazebench.transforms import Preprocess
from gazebench.types import Prediction


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
        return Prediction(point=(batch.head[:, :2] + batch.head[:, 2:]) / 2 + self.offset)

    def loss(self, prediction, batch):
        known = ~batch.targets.point.isnan().any(1)
        return {"l2": (prediction.point[known] - batch.targets.point[known]).square().sum()}

    def optimizer(self):
        return adam_cosine(self.parameters(), self.lr, self.trainer.max_epochs)
'''

BREAKAGES = {
    "leak": ("+ self.offset)", "+ self.offset + (0 if batch.targets is None else batch.targets.inout[:, None] / 99))"),
    "neither a heatmap nor a point": ("point=(batch.head[:, :2] + batch.head[:, 2:]) / 2 + self.offset", ""),
    "point has shape": ("(batch.head[:, :2] + batch.head[:, 2:])", "(batch.head[:1, :2] + batch.head[:1, 2:])"),
    "depends on what else is in the batch": ("+ self.offset)", "+ self.offset + batch.people)"),
    "no gradient reaches": ("self.lr = lr", "self.lr = lr; self.idle = nn.Parameter(torch.zeros(1))"),
    "the loss is nan": (".square().sum()", ".square().sum() * float('nan')"),
    "without declaring": ("Prediction(", "Prediction(inout=torch.ones(batch.people), "),
    "a whole run fails": ("return adam_cosine", "raise OSError('no optimizer today'); return adam_cosine"),
}


@pytest.mark.parametrize("name", [*entries("methods"), *entries("datasets")])
def test_everything_registered_keeps_the_contract(name):
    assert check(name) == []


def test_a_plugin_file_keeps_it(tmp_path):
    path = tmp_path / "line.py"
    path.write_text(GOOD)
    assert check(str(path)) == []


@pytest.mark.parametrize("finding", BREAKAGES)
def test_a_broken_plugin_gets_a_finding_to_act_on(tmp_path, finding):
    path = tmp_path / "broken.py"
    before, after = BREAKAGES[finding]
    assert before in GOOD
    path.write_text(GOOD.replace(before, after))
    findings = check(str(path))
    assert any(finding in found for found in findings), findings
