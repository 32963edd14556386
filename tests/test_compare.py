"""Comparing two runs: the statistics against brute force, the groups, and what cannot be compared."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.data.groups import CROWDS, DISTANCES, HEADS, traits
from gazebench.engine.contract import small_config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, bench
from gazebench.metrics.spatial import average_precisions
from gazebench.report import compare

WORLD = load_dataset("gazeworld")


def names(sources):
    return [str(source) for source in sources]


def drawn(rng, sources, statistic, draws):
    """The 95% interval of a statistic of people when whole sources are drawn."""
    count, found = sources.max() + 1, []
    for _ in range(draws):
        found.append(statistic(np.concatenate([np.flatnonzero(sources == s) for s in rng.integers(0, count, count)])))
    return tuple(np.quantile(found, [0.025, 0.975]))


def test_the_interval_is_that_of_drawing_whole_sources():
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    a = rng.normal(size=len(sources))
    b = a + 0.3 + rng.normal(size=30)[sources]
    found = compare.difference("everybody", a, b, names(sources))
    expected = drawn(rng, sources, lambda people: (b - a)[people].mean(), 4000)
    assert found.mean == pytest.approx((b - a).mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.04)
    assert (found.people, found.sources) == (len(a), 30)


def test_twins_tell_nothing_new():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=40), rng.normal(0.2, size=40)
    once = compare.difference("", a, b, names(range(40)))
    twice = compare.difference("", np.tile(a, 2), np.tile(b, 2), names(range(40)) * 2)
    assert (twice.low, twice.high, twice.p) == pytest.approx((once.low, once.high, once.p))
    naive = compare.difference("", np.tile(a, 2), np.tile(b, 2), names(range(80)))
    assert naive.high - naive.low < 0.8 * (once.high - once.low)


def test_p_is_the_share_of_sign_flips_at_least_as_far():
    gap = np.array([0.4, 0.1, -0.2, 0.5, 0.3, 0.35, -0.05, 0.2])
    found = compare.difference("", np.zeros(8), gap, names(range(8)))
    flips = [abs((gap * signs).sum()) for signs in itertools.product((1, -1), repeat=8)]
    assert found.p == pytest.approx(np.mean(np.array(flips) >= abs(gap.sum()) - 1e-12))
    alone = compare.difference("", np.zeros(5), np.ones(5), ["clip"] * 5)
    assert np.isnan(alone.low)
    assert not alone.clear


def test_average_precisions_of_draws_are_scikit_learns():
    rng = np.random.default_rng(3)
    truth = rng.random(40) < 0.5
    scores = rng.integers(0, 8, (30, 40)) / 8  # many ties
    weight = rng.integers(0, 4, (30, 40)).astype(float)
    expected = [average_precision_score(truth, s, sample_weight=w) for s, w in zip(scores, weight, strict=True)]
    assert average_precisions(scores, truth, weight) == pytest.approx(expected, abs=1e-12)
    shared = [average_precision_score(truth, scores[0], sample_weight=w) for w in weight]
    assert average_precisions(scores[:1], truth, weight) == pytest.approx(shared, abs=1e-12)
    plain = [average_precision_score(truth, s) for s in scores]
    assert average_precisions(scores, truth, np.ones((1, 40))) == pytest.approx(plain, abs=1e-12)


def test_average_precision_is_compared_by_drawing_whole_sources():
    rng = np.random.default_rng(2)
    sources = np.repeat(np.arange(25), rng.integers(1, 6, 25))
    truth = rng.random(len(sources)) < 0.6
    a = truth + rng.normal(0, 1.5, len(truth))
    b = truth + rng.normal(0, 0.7, len(truth))

    def gap(people=slice(None)):
        return average_precision_score(truth[people], b[people]) - average_precision_score(truth[people], a[people])

    found = compare.precision_difference("", truth, a, b, names(sources))
    assert found.mean == pytest.approx(gap())
    assert (found.low, found.high) == pytest.approx(drawn(rng, sources, gap, 300), abs=0.05)
    assert found.p < 0.1
    same = compare.precision_difference("", truth, a, a, names(sources))
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


@pytest.fixture(scope="module")
def records():
    return WORLD(train=6, val=3, test=24).records("test")


def pair_of(runs, metric="avg_l2"):
    places, found = runs
    a, b = (compare.read_side(str(found[name]), places) for name in ("center", "random"))
    return compare.join(a, b, WORLD.protocol, metric)


def test_groups_are_those_of_their_names(runs, records):
    pair = pair_of(runs)
    found = {one.what: one for one in compare.by_group(pair, records)}
    everybody = found["everybody"]
    assert everybody.people == (records.inout == 1).sum() == len(pair.joined)
    assert everybody.a == pytest.approx(pair.joined["a"].mean())
    subset = pair.joined["subset"]
    for name in ("consistent", "inconsistent"):
        assert found[name].people == (subset == name).sum()
        assert found[name].b == pytest.approx(pair.joined["b"][subset == name].mean())
    for kinds in (HEADS, DISTANCES, CROWDS):
        assert sum(found[name].people for _, name in kinds if name in found) == everybody.people
    row = np.flatnonzero(records.inout == 1)[0]
    head, points = records.head[row], records.points_of(row)
    expected = np.hypot(*(points.mean(0) - [(head[0] + head[2]) / 2, (head[1] + head[3]) / 2]))
    assert traits(records).loc[str(records.person_id[row]), "distance"] == pytest.approx(expected)


def test_in_and_out_of_frame_are_told_apart(runs, records):
    pair = pair_of(runs)
    assert compare.in_or_out(pair.a, pair.b, WORLD.protocol, records) is None, "these methods say nothing of it"
    truth = pair.a.people["target_inout"].to_numpy(dtype=float)
    guess, right = np.random.default_rng(0).random(len(truth)), 0.2 + 0.6 * truth

    def found(scores):
        sides = (replace(s, people=s.people.assign(inout=v)) for s, v in ((pair.a, guess), (pair.b, scores)))
        return compare.by_inout(compare.in_or_out(*sides, WORLD.protocol, records))

    everybody, inside, outside = found(right)
    assert everybody.people == inside.people + outside.people == len(truth)
    assert everybody.b == 1
    assert everybody.a == pytest.approx(average_precision_score(truth, guess))
    assert (inside.a, inside.b) == pytest.approx((guess[truth == 1].mean(), 0.8))
    assert (outside.a, outside.b) == pytest.approx((1 - guess[truth == 0].mean(), 0.8))
    assert len(found(9 * right)) == 1, "only ranks count where scores are no probabilities"


def test_seeds_of_a_side_are_averaged(runs):
    places, found = runs
    one, two = (compare.read_side(str(found[name]), places) for name in ("random", "random-1"))
    both = compare.read_side(f"{found['random'].name},{found['random-1'].name}", places)
    assert both.title == "Random, seeds 0, 1"
    mean = (one.people["metric_avg_l2"] + two.people["metric_avg_l2"].reindex(one.people.index)) / 2
    assert both.people["metric_avg_l2"].to_numpy() == pytest.approx(mean.to_numpy(), nan_ok=True)
    for wrong in ("random,center", "random,random"):
        with pytest.raises(DataError, match=found["random"].name):
            compare.read_side(",".join(found[name].name for name in wrong.split(",")), places)


@pytest.mark.parametrize(("metric", "higher"), [("avg_l2", False), ("auc", True)])
def test_better_follows_the_direction_of_the_metric(runs, metric, higher):
    pair = pair_of(runs, metric)
    assert pair.higher is higher
    a, b = np.zeros(30) + 0.5, np.zeros(30) + 0.9
    a[0] += 1e-3
    (line,) = compare.words(pair, [compare.difference("everybody", a, b, names(range(30)))])
    assert ("is better" if higher else "is worse") in line
    level = compare.difference("everybody", np.arange(30.0), np.arange(30.0)[::-1], names(range(30)))
    assert "no clear difference" in compare.words(pair, [level])[0]


def test_the_command(runs, tmp_path, capsys):
    places, found = runs
    arguments = ["compare", found["center"].name, str(found["random"]), f"--out={tmp_path}", f"--runs={places.runs}"]
    assert main(arguments) == 0
    assert "everybody: " in capsys.readouterr().out
    page = (tmp_path / "README.md").read_text()
    for name in ("difference.png", "best.png", "worst.png"):
        assert f"![]({name})" in page
        assert (tmp_path / name).is_file()
    assert main(arguments) == 0
    assert (tmp_path / "README.md").read_text() == page, "the same runs give the same page"


def test_what_cannot_be_compared_is_said(runs, tmp_path, capsys):
    places, found = runs
    other, empty = tmp_path / "center" / "other", tmp_path / "center" / "empty"
    for folder in (other, empty):
        shutil.copytree(found["center"], folder)
    record = json.loads((other / "record.json").read_text())
    record["data"]["fingerprint"] = "x"
    (other / "record.json").write_text(json.dumps(record))
    (empty / "scores.parquet").unlink()
    for words, named in (
        ([str(other)], "annotations"),
        ([str(empty)], "scores.parquet"),
        (["nonsense"], "nonsense"),
        ([str(found["random"]), "--metric=ap"], "ap"),
    ):
        arguments = ["compare", str(found["center"]), *words, f"--runs={places.runs}", f"--out={tmp_path / 'page'}"]
        assert main(arguments) == 2
        assert named in capsys.readouterr().err
    a, b = (compare.read_side(str(found[name]), places) for name in ("center", "random"))
    with pytest.raises(DataError, match="auc"):
        compare.join(a, replace(b, people=b.people.drop(columns="metric_auc")), WORLD.protocol, "auc")
