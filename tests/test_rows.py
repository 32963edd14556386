"""Rows that lack a part of the input: what they see, that the contract checks it, how boards show them."""

from dataclasses import replace

import pytest
import torch

from gazebench.data.datamodule import ImageSamples, collate
from gazebench.engine import contract
from gazebench.engine.contract import small_config
from gazebench.engine.method import blind
from gazebench.engine.registry import entries, load_method
from gazebench.methods.head_crop import HeadCrop
from gazebench.methods.scene_only import SceneOnly
from gazebench.methods.two_branch import TwoBranch
from gazebench.report.board_rows import RunGroup
from gazebench.scaffold import package


@pytest.fixture(scope="module")
def batch():
    dataset = small_config("head_crop").new_dataset()
    samples = ImageSamples(dataset, dataset.records("test"), HeadCrop().preprocess())
    return collate([samples[image] for image in range(4)])


def findings(method, batch):
    method.eval()
    return list(contract._blindness_findings(method, method.predict_batch(batch), batch))


def test_a_card_that_hides_an_input_is_found_out(batch, monkeypatch):
    torch.manual_seed(0)
    whole = TwoBranch("tiny", "random")
    assert findings(whole, batch) == []
    for less, what in (({"head box", "head crop"}, "the picture"), ({"picture"}, "the head box")):
        monkeypatch.setattr(TwoBranch, "card", replace(TwoBranch.card, sees=frozenset(less)))
        found = findings(whole, batch)
        assert {line.split(" depends")[0] for line in found} == {"heatmap", "point"}
        assert all(what in line for line in found)


def test_scene_only_is_one_answer_a_picture(batch):
    torch.manual_seed(0)
    model = SceneOnly(backbone="tiny", backbone_weights="random", image_size=224, dim=32, layers=1, heads=2).eval()
    found = model.predict_batch(batch).heatmap
    for image in range(4):
        own = found[batch.image_index == image]
        assert torch.equal(own, own[:1].expand_as(own))
    plain = super(SceneOnly, model).decode(
        model.encode(batch), replace(batch, head=torch.full_like(batch.head, torch.nan))
    )
    torch.testing.assert_close(found, plain.heatmap, atol=1e-5, rtol=0)


def test_the_head_crop_is_what_gazebench_new_writes(batch, tmp_path):
    package.write("methods", "mine", tmp_path / "mine")
    written = load_method(str(tmp_path / "mine" / "gazebench_mine.py"))
    torch.manual_seed(0)
    ours, theirs = HeadCrop().eval(), written().eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(batch).point, theirs(batch).point)
    assert torch.equal(ours.loss(batch)["distance"], theirs.loss(batch)["distance"])
    assert written.card.sees == HeadCrop.card.sees


@pytest.mark.parametrize(
    ("sees", "expected"),
    [
        ({"picture", "head box"}, ""), ({"picture", "head crop", "text"}, ""), ({"picture"}, "head-blind"),
        ({"picture", "text"}, "head-blind"), ({"head box", "head crop"}, "scene-blind"), ({"head box"}, "scene-blind"),
        ({"text"}, ""), ({"annotations"}, ""), (set(), ""), (None, ""),
    ],
)  # fmt: skip
def test_who_is_blind(sees, expected):
    assert blind(sees) == expected


def test_all_of_ours_say_what_they_see_and_who_is_blind():
    cards = {name: load_method(name).card for name, entry in entries("methods").items() if entry.ours}
    assert all(card.sees is not None for card in cards.values())
    assert {name: card.blind for name, card in cards.items() if card.blind} == {
        "head_crop": "scene-blind", "scene_only": "head-blind"
    }  # fmt: skip


def test_a_board_takes_it_from_the_record_then_from_the_method():
    def row(**method):
        return RunGroup({"r": {"method": {"title": "T", "family": "f", **method}, "config": {"model": {}}}})

    assert (row(name="scene_only").sees, row(name="scene_only").blind) == ("picture", "head-blind")
    told = row(name="unknown", sees=["head crop", "head box"])
    assert (told.sees, told.blind, told.reference) == ("head box, head crop", "scene-blind", "")
    assert row(name="unknown").sees == row(name="unknown").blind == ""
    floor = row(name="center", family="baseline")
    assert (floor.sees, floor.blind, floor.reference) == ("nothing", "", "floor")
