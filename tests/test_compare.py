"""Comparing two runs: the statistics against brute force, the words, and what cannot be compared."""

import itertools
import shutil

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.data.groups import CROWDS, DISTANCES, HEADS, traits
from gazebench.engine.contract import small_config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, bench
from gazebench.metrics import functional
from gazebench.report import compare

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


def test_average_precisions_of_draws_are_scikit_learns():
    rng = np.random.default_rng(3)
    truth = rng.random(40) < 0.5
    scores = rng.integers(0, 8, (30, 40)) / 8  # many ties
    weight = rng.integers(0, 4, (30, 40)).astype(float)
    expected = [average_precision_score(truth, s, sample_weight=w) for s, w in zip(scores, weight, strict=True)]
    assert functional.average_precisions(scores, truth, weight) == pytest.approx(expected, abs=1e-12)
    shared = [average_precision_score(truth, scores[0], sample_weight=w) for w in weight]
    assert functional.average_precisions(scores[:1], truth, weight) == pytest.approx(shared, abs=1e-12)
    plain = [average_precision_score(truth, s) for s in scores]
    assert functional.average_precisions(scores, truth, np.ones((1, 40))) == pytest.approx(plain, abs=1e-12)


def test_average_precision_is_compared_by_drawing_whole_sources():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(25), rng.integers(1, 6, 25))
    truth = rng.random(len(clusters)) < 0.6
    a = truth + rng.normal(0, 1.5, len(truth))
    b = truth + rng.normal(0, 0.7, len(truth))
    found = compare.precision_difference("", truth, a, b, list(map(str, clusters)))
    assert found.mean == pytest.approx(average_precision_score(truth, b) - average_precision_score(truth, a))
    draws = []
    for _ in range(300):
        people = np.concatenate([np.flatnonzero(clusters == c) for c in rng.integers(0, 25, 25)])
        draws.append(
            average_precision_score(truth[people], b[people]) - average_precision_score(truth[people], a[people])
        )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.05)
    assert found.p < 0.1
    same = compare.precision_difference("", truth, a, a, list(map(str, clusters)))
    assert (same.mean, same.p) == (0, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two baselines on the same scenes, the second with two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    places = Places(folder / "runs", folder / "boards")
    found = {}
    for name, seed in (("center", 0), ("random", 0), ("random", 1)):
        key = name if not seed else f"{name}-{seed}"
        found[key] = bench(small_config(name, "gazeworld", "--dataset.test=24", f"--seed={seed}"), places).folder
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
    for names in (HEADS, DISTANCES, CROWDS):
        assert sum(found[name].people for _, name in names if name in found) == everybody.people
    facts = traits(dataset, records)
    person = str(records.person_id[np.flatnonzero(records.inout == 1)[0]])
    row = int(np.flatnonzero(records.person_id == person)[0])
    head, points = records.head[row], records.points_of(row)
    expected = np.hypot(*(points.mean(0) - [(head[0] + head[2]) / 2, (head[1] + head[3]) / 2]))
    assert facts.loc[person, "distance"] == pytest.approx(expected)


def with_inout(side, scores):
    people = side.people.assign(inout=scores)
    return compare.Side(side.name, side.folder, side.record, people, side.seeds)


def test_in_and_out_of_frame_are_told_apart(runs):
    pair = pair_of(runs)
    records = WORLD(train=6, val=3, test=24).records("test")
    assert compare.in_or_out(pair.a, pair.b, WORLD.protocol, records) is None, "these methods say nothing of it"
    truth = pair.a.people["target_inout"].to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    guess, sure = rng.random(len(truth)), 0.2 + 0.6 * truth
    both = compare.in_or_out(with_inout(pair.a, guess), with_inout(pair.b, sure), WORLD.protocol, records)
    everybody, inside, outside = compare.inout_slices(both)
    assert everybody.people == inside.people + outside.people == len(truth)
    assert everybody.b == 1
    assert everybody.a == pytest.approx(average_precision_score(truth, guess))
    assert (inside.a, inside.b) == pytest.approx((guess[truth == 1].mean(), 0.8))
    assert (outside.a, outside.b) == pytest.approx((1 - guess[truth == 0].mean(), 0.8))
    assert "in/out" in compare.words(both, [everybody])[0]
    logits = compare.in_or_out(with_inout(pair.a, guess), with_inout(pair.b, 9 * sure), WORLD.protocol, records)
    assert len(compare.inout_slices(logits)) == 1, "only ranks count where scores are no probabilities"


def test_seeds_of_a_side_are_averaged(runs):
    places, found = runs
    one, two = (compare.read_side(str(found[name]), places) for name in ("random", "random-1"))
    both = compare.read_side(f"{found['random'].name},{found['random-1'].name}", places)
    assert both.title == "Random, seeds 0, 1"
    mean = (one.people["metric_avg_l2"] + two.people["metric_avg_l2"].reindex(one.people.index)) / 2
    assert both.people["metric_avg_l2"].to_numpy() == pytest.approx(mean.to_numpy(), nan_ok=True)
    for names, message in (("random,center", "more than the seed"), ("random,random", "every seed once")):
        with pytest.raises(DataError, match=message):
            compare.read_side(",".join(found[name].name for name in names.split(",")), places)


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
