"""Comparing two runs: the statistics against brute force, the words, and what cannot be compared."""

import itertools
import shutil

import numpy as np
import pytest

from gazebench import compare
from gazebench.bench import Places, bench
from gazebench.cli import main
from gazebench.contract import small_config
from gazebench.registry import load_dataset
from gazebench.types import DataError

WORLD = load_dataset("gazeworld")


def test_the_interval_is_that_of_drawing_whole_sources():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    a = rng.normal(size=len(clusters))
    b = a + 0.3 + rng.normal(size=30)[clusters]
    found = compare.difference("everybody", a, b, list(map(str, clusters)))
    draws = []
    for _ in range(4000):
        people = np.concatenate([np.flatnonzero(clusters == c) for c in rng.integers(0, 30, 30)])
        draws.append((b - a)[people].mean())
    assert found.mean == pytest.approx((b - a).mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.04)
    assert (found.people, found.clusters) == (len(a), 30)


def test_twins_are_no_further_witnesses():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=40), rng.normal(0.2, size=40)
    names = [str(i) for i in range(40)]
    once = compare.difference("", a, b, names)
    twice = compare.difference("", np.tile(a, 2), np.tile(b, 2), names * 2)
    assert (twice.low, twice.high, twice.p) == pytest.approx((once.low, once.high, once.p))
    naive = compare.difference("", np.tile(a, 2), np.tile(b, 2), [str(i) for i in range(80)])
    assert naive.high - naive.low < 0.8 * (once.high - once.low)


def test_p_is_the_share_of_sign_flips_at_least_as_far():
    gap = np.array([0.4, 0.1, -0.2, 0.5, 0.3, 0.35, -0.05, 0.2])
    found = compare.difference("", np.zeros(8), gap, [str(i) for i in range(8)])
    flips = [abs((gap * signs).sum()) for signs in itertools.product((1, -1), repeat=8)]
    assert found.p == pytest.approx(np.mean(np.array(flips) >= abs(gap.sum()) - 1e-12))


def test_one_source_says_nothing_about_chance():
    found = compare.difference("", np.zeros(5), np.ones(5), ["clip"] * 5)
    assert np.isnan(found.low)
    assert not found.clear


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two baselines on the same scenes."""
    folder = tmp_path_factory.mktemp("compare")
    places = Places(folder / "runs", folder / "boards")
    found = {}
    for name in ("center", "random"):
        found[name] = bench(small_config(name, "gazeworld", "--dataset.test=24"), places).folder
    return places, found


def pair_of(runs, metric="avg_l2"):
    places, found = runs
    a, b = (compare.read_side(str(found[name]), places) for name in ("center", "random"))
    return compare.join(a, b, WORLD.protocol, metric)


def test_groups_are_those_of_their_names(runs):
    pair = pair_of(runs)
    dataset = WORLD(train=6, val=3, test=24)
    records = dataset.records("test")
    found = {one.what: one for one in compare.slices(pair, dataset, records)}
    everybody = found["everybody"]
    assert everybody.people == (records.inout == 1).sum() == len(pair.joined)
    assert everybody.a == pytest.approx(pair.joined["a"].mean())
    subset = pair.joined["subset"]
    for name in ("consistent", "inconsistent"):
        assert found[name].people == (subset == name).sum()
        assert found[name].b == pytest.approx(pair.joined["b"][subset == name].mean())
    for names in (compare.HEADS, compare.DISTANCES, compare.CROWDS):
        assert sum(found[name].people for _, name in names if name in found) == everybody.people
    facts = compare.traits(dataset, records)
    person = str(records.person_id[np.flatnonzero(records.inout == 1)[0]])
    row = int(np.flatnonzero(records.person_id == person)[0])
    head, points = records.head[row], records.points_of(row)
    expected = np.hypot(*(points.mean(0) - [(head[0] + head[2]) / 2, (head[1] + head[3]) / 2]))
    assert facts.loc[person, "distance"] == pytest.approx(expected)


def test_better_follows_the_direction_of_the_metric(runs):
    for metric, higher in (("avg_l2", False), ("auc", True)):
        pair = pair_of(runs, metric)
        assert pair.higher is higher
        a, b = np.zeros(30) + 0.5, np.zeros(30) + 0.9
        a[0] += 1e-3
        found = compare.difference("everybody", a, b, [str(i) for i in range(30)])
        (line,) = compare.words(pair, [found])
        assert ("is better" if higher else "is worse") in line
        level = compare.difference("everybody", np.arange(30.0), np.arange(30.0)[::-1], [str(i) for i in range(30)])
        assert "no clear difference" in compare.words(pair, [level])[0]


def test_the_command(runs, tmp_path, capsys):
    places, found = runs
    out = tmp_path / "page"
    arguments = ["compare", found["center"].name, str(found["random"]), f"--out={out}", f"--runs={places.runs}"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "everybody: " in text
    page = (out / "README.md").read_text()
    assert all(f"![]({name})" in page for name in ("difference.png", "best.png", "worst.png"))
    assert all((out / name).is_file() for name in ("difference.png", "best.png", "worst.png"))
    first = page
    assert main(arguments) == 0
    assert (out / "README.md").read_text() == first, "the same runs give the same page"


def test_what_cannot_be_compared_is_said(runs, tmp_path, capsys):
    import json

    places, found = runs
    other = tmp_path / "runs" / "gazeworld" / "center" / "other"
    shutil.copytree(found["center"], other)
    record = json.loads((other / "record.json").read_text())
    record["data"]["fingerprint"] = "x"
    (other / "record.json").write_text(json.dumps(record))
    empty = tmp_path / "runs" / "gazeworld" / "center" / "empty"
    shutil.copytree(found["center"], empty)
    (empty / "predictions.parquet").unlink()
    for pair, message in (
        ([str(found["center"]), str(other)], "different annotations"),
        ([str(found["center"]), str(empty)], "kept no predictions"),
        ([str(found["center"]), "nonsense"], "0 finished runs are called so"),
        (
            [str(found["center"]), str(found["random"]), "--metric=ap"],
            "ap: compared are means over people: auc, avg_l2",
        ),
    ):
        assert main(["compare", *pair, f"--runs={places.runs}", f"--out={tmp_path / 'page'}"]) == 2
        assert message in capsys.readouterr().err
    a, b = (compare.read_side(str(found[name]), places) for name in ("center", "random"))
    bare = compare.Side("b", b.folder, b.record, b.people.drop(columns="metric_auc"))
    with pytest.raises(DataError, match="b has no auc"):
        compare.join(a, bare, WORLD.protocol, "auc")
