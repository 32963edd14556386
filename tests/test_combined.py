"""Several data sets in one training: their people side by side, each tested by its own protocol."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from gazebench.core.errors import DataError
from gazebench.data.combined import combine, joined
from gazebench.data.datamodule import EpochSampler, GazeDataModule
from gazebench.data.transforms import Preprocess
from gazebench.datasets.childplay import ChildPlay
from gazebench.datasets.vat import VAT
from gazebench.engine.contract import small_config
from gazebench.engine.registry import find
from gazebench.engine.run import bench, bench_each


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return combine({"vat": VAT, "childplay": ChildPlay}).fake(tmp_path_factory.mktemp("mixed"), people=6)


def test_people_stand_side_by_side_as_their_data_sets_have_them(mixed):
    records, parts = mixed.records("trainval"), {n: m.records("trainval") for n, m in mixed.members.items()}
    assert records.people == sum(each.people for each in parts.values())
    assert len(set(records.person_id)) == records.people
    first = parts["vat"]
    for place, (name, part) in ((0, ("vat", first)), (len(first), ("childplay", parts["childplay"]))):
        one, own = records.of_images(np.array([place])), part.of_images(np.array([0]))
        for column in ("head", "points", "inout", "sizes"):
            np.testing.assert_array_equal(getattr(one, column), getattr(own, column))
        assert one.person_id.tolist() == [f"{name}/{person}" for person in own.person_id]
        for column in own.columns.keys() & one.columns.keys():
            np.testing.assert_array_equal(one.columns[column], own.columns[column])
        np.testing.assert_array_equal(
            mixed.image(records, place, (32, 48)), mixed.members[name].image(part, 0, (32, 48))
        )
        assert mixed.path(records, place) == mixed.members[name].path(part, 0)


def test_what_one_data_set_lacks_is_unknown(mixed):
    one, other = (member.records("test") for member in mixed.members.values())
    social = {"laeo": np.ones(int(one.pair_start[-1]), np.int8)}
    columns = {"label": np.full(one.people, "cup"), "box": np.zeros((one.people, 4)), "flag": np.ones(one.people, bool)}
    both = joined(
        "x", "test", {"a": replace(one, columns=columns, pairs=social), "b": replace(other, columns={}, pairs={})}
    )
    assert both.columns.keys() == {"label", "box"}
    assert both.columns["label"].tolist() == ["cup"] * one.people + [""] * other.people
    assert np.isnan(both.columns["box"][one.people :]).all()
    assert (both.pairs["laeo"][: len(social["laeo"])] == 1).all()
    assert (both.pairs["laeo"][len(social["laeo"]) :] == -1).all()


def test_strides_and_weights_are_by_data_set(mixed):
    alone = {name: len(member.records("trainval")) for name, member in mixed.members.items()}
    strided = type(mixed)(mixed.root, strides={"vat": 2}).records("trainval")
    names = [image.partition("/")[0] for image in strided.images]
    groups = mixed.members["vat"].records("trainval").groups
    assert names.count("childplay") == alone["childplay"]
    assert names.count("vat") == sum(-(-count // 2) for count in np.unique(groups, return_counts=True)[1])
    assert len(type(mixed)(mixed.root, strides={"vat": 2}).records("test")) == len(mixed.records("test"))
    weighted = type(mixed)(mixed.root, weights={"vat": 2.5, "childplay": 0.5})
    repeats = weighted.repeats(weighted.records("trainval"))
    seen = np.zeros((6, len(repeats)), int)
    for epoch in range(6):
        sampler = EpochSampler(len(repeats), shuffle=True, seed=3, epoch=epoch, repeats=repeats)
        order = [image for _, image in sampler]
        assert len(order) == len(sampler)
        seen[epoch] = np.bincount(order, minlength=len(repeats))
    vat = repeats == 2.5
    assert (seen[:, vat].sum(1) == 2 * vat.sum() + round(vat.sum() / 2)).all()
    assert set(seen[:, vat].ravel().tolist()) == {2, 3}
    assert (seen[:, ~vat].sum(1) == round((~vat).sum() / 2)).all()
    assert len({tuple(each) for each in seen.tolist()}) == 6  # drawn anew


def test_without_weights_the_order_is_what_it_was():
    order = np.arange(9)
    np.random.default_rng([5, 2, 1]).shuffle(order)
    assert [image for _, image in EpochSampler(9, shuffle=True, seed=5, epoch=2)] == order.tolist()


def test_workers_that_are_no_forks_get_it_too(mixed):
    again = pickle.loads(pickle.dumps(mixed))
    assert again.records("test").fingerprint() == mixed.records("test").fingerprint()


def test_validation_is_that_of_the_first(mixed):
    assert {image.partition("/")[0] for image in mixed.records("val").images} == {"vat"}
    module = GazeDataModule(mixed, Preprocess((32, 32)), selection="val", batch_size=8, workers=0)
    assert {group.partition("/")[0] for group in module.train_records().groups} == {"vat", "childplay"}


@pytest.mark.parametrize(
    ("wrong", "named"), [({"strides": {"gazefollow": 2}}, "gazefollow"), ({"weights": {"vat": 0}}, "weights")]
)
def test_settings_of_no_member_are_refused(mixed, wrong, named):
    with pytest.raises(ValueError, match=named):
        type(mixed)(mixed.root, **wrong)
    with pytest.raises(ValueError, match="3 folders for 2"):
        type(mixed)("a+b+c")


def test_one_training_and_a_record_by_each_protocol(mixed, places):
    options = [f"--dataset.root={mixed.root}", '--dataset.strides={"childplay": 2}', "--model.image_size=112",
               "--model.dim=32", "--model.layers=1", "--model.heads=2"]  # fmt: skip
    config = small_config("gazelle", "vat+childplay", *options)
    found = bench_each(config, places)
    assert [tested.dataset.name for tested, _ in found] == ["vat", "childplay"]
    (folder,) = (places.runs / "vat+childplay" / "gazelle").iterdir()
    for tested, outcome in found:
        record = outcome.record
        assert record["protocol"]["id"] == find("datasets", tested.dataset.name).cls.protocol.id
        assert record["data"]["train"]["members"].keys() == {"vat", "childplay"}
        assert record["data"]["train"]["strides"] == {"childplay": 2}
        assert record["weights"]["initial"]["run"] == folder.name
        assert record["selection"] == "last epoch of trainval of all data sets"
        assert record["training"]["people_a_step"] == 6
        assert record["samples"]["people"] == mixed.members[tested.dataset.name].records("test").people
        alone = bench(tested, places, weights=folder / "weights.pt").record  # a run of its own: nobody says who trained
        assert alone["run"] != record["run"]
        assert {m: s["all"]["value"] for m, s in alone["metrics"].items()} == {
            m: s["all"]["value"] for m, s in record["metrics"].items()
        }
    before = (folder / "weights.pt").stat().st_mtime_ns
    assert all(outcome.repeated for _, outcome in bench_each(config, places))
    assert (folder / "weights.pt").stat().st_mtime_ns == before
    assert json.loads((folder / "training.json").read_text())["training"]["processes"] == 1


def test_names_are_checked(mixed):
    with pytest.raises(Exception, match="twice"):
        find("datasets", "vat+vat")
    with pytest.raises(Exception, match="nosuch"):
        find("datasets", "vat+nosuch")
    with pytest.raises(DataError, match="VideoAttentionTarget"):
        small_config("center", "vat+childplay").new_dataset().records("trainval")
    assert joined("x", "test", {"vat": mixed.members["vat"].records("test")}).people
