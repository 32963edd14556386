"""Intervals against brute force: whole sources drawn anew, pooled metrics by scikit-learn's weights."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from gazebench.metrics.base import GazeMetric
from gazebench.metrics.intervals import Interval, bootstrap, interval, mean_of
from gazebench.metrics.scoring import intervals_of
from gazebench.metrics.social import LookingAtEachOther, SharedAttention
from gazebench.metrics.spatial import InOutAP, L2ToMean


def sample(people=60, sources=12, seed=0):
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, sources, people)
    owner[:sources] = np.arange(sources)
    return rng, owner


def test_the_mean_is_that_of_whole_sources_drawn_anew():
    rng, owner = sample()
    values = rng.normal(size=(60, 2)) + rng.normal(size=12)[owner][:, None]
    low, high = bootstrap(mean_of(values, owner, 12), 12)
    drawn = []
    for _ in range(4000):
        people = np.concatenate([np.flatnonzero(owner == source) for source in rng.integers(0, 12, 12)])
        drawn.append(values[people].mean(0))
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert np.stack([low, high]) == pytest.approx(expected, abs=0.05)
    alone = bootstrap(mean_of(values[:, 0], owner, 12), 12)
    assert alone == pytest.approx((low[0], high[0]), abs=1e-12), "the same draws whatever they are taken with"
    naive = bootstrap(mean_of(values, np.arange(60), 60), 60)
    assert (naive[1] - naive[0] < 0.8 * (high - low)).all(), "people of one source are no independent witnesses"


def test_portions_change_nothing(monkeypatch):
    rng, owner = sample()
    statistic = mean_of(rng.normal(size=60), owner, 12)
    whole = bootstrap(statistic, 12)
    monkeypatch.setattr("gazebench.metrics.intervals._CELLS", 12 * 700)
    assert bootstrap(statistic, 12) == whole


def test_one_source_says_nothing_about_chance():
    low, high = bootstrap(mean_of(np.ones((3, 2)), np.zeros(3, int), 1), 1)
    assert np.isnan([low, high]).all()
    assert low.shape == high.shape == (2,)


def test_pooled_metrics_of_a_draw_are_scikit_learns_with_weights():
    rng, _ = sample()
    truth, score = rng.random(60) < 0.4, rng.integers(0, 20, 60) / 20  # with ties
    weights = rng.poisson(1.0, (25, 60)).astype(float)
    expected = [average_precision_score(truth, score, sample_weight=row) for row in weights]
    answers = np.stack([score, truth], 1)
    assert InOutAP().drawn(answers, weights) == pytest.approx(expected, abs=1e-12)
    expected = [f1_score(truth, score > 0.5, sample_weight=row) for row in weights]
    assert LookingAtEachOther().drawn(answers[:, ::-1], weights) == pytest.approx(expected, abs=1e-12)
    only = truth.astype(float)[None]
    assert np.isnan(InOutAP().drawn(answers, only)).all(), "one label alone has no average precision"
    assert np.isnan(InOutAP().drawn(answers, 1 - only)).all()
    assert np.isnan(LookingAtEachOther().drawn(np.stack([truth, np.zeros(60)], 1), 1 - only)).all()


@pytest.mark.parametrize("metric", [InOutAP(), SharedAttention(), LookingAtEachOther(), L2ToMean()])
def test_a_draw_is_what_reduce_gives_of_it(metric):
    """The general way, sample by sample, which a plug-in's own metric takes."""
    rng, _ = sample(20)
    truth, score = (rng.random(20) < 0.5).astype(float), rng.random(20)
    values = {LookingAtEachOther: np.stack([truth, score], 1), L2ToMean: score[:, None]}.get(
        type(metric), np.stack([score, truth], 1)
    )
    weights = rng.integers(0, 3, (8, 20)).astype(float)
    assert metric.drawn(values, weights) == pytest.approx(GazeMetric.drawn(metric, values, weights), abs=1e-12)


def fed(metric, values, owner):
    metric.add(torch.arange(len(owner)), torch.from_numpy(values), torch.from_numpy(owner) * 7 - 3)
    metric.compute()
    return metric


def test_metrics_keep_their_own_sources():
    """Metrics over the same people are drawn together, others alone; each as if it were alone."""
    rng, owner = sample()
    distance, answer = rng.random(60), np.stack([rng.random(60), (rng.random(60) < 0.5).astype(float)], 1)
    half = np.arange(60) % 2 == 0
    found = intervals_of(
        {
            ("one", "all"): fed(L2ToMean(), distance, owner),
            ("two", "all"): fed(L2ToMean(), distance**2, owner),
            ("one", "consistent"): fed(L2ToMean(), distance[half], owner[half]),
            ("ap", "all"): fed(InOutAP(), answer, owner),
            ("lonely", "all"): fed(L2ToMean(), distance[:3], np.zeros(3, int)),
        }
    )
    assert found.keys() == {("one", "all"), ("two", "all"), ("one", "consistent"), ("ap", "all")}
    for name, values, who in (
        (("one", "all"), distance, owner),
        (("two", "all"), distance**2, owner),
        (("one", "consistent"), distance[half], np.unique(owner[half], return_inverse=True)[1]),
    ):
        low, high = bootstrap(mean_of(values, who, who.max() + 1), who.max() + 1)
        assert found[name] == pytest.approx((float(low), float(high), int(who.max()) + 1), abs=1e-12)
    draws = [
        average_precision_score(answer[:, 1], answer[:, 0], sample_weight=np.bincount(d, minlength=12)[owner])
        for d in rng.integers(0, 12, (600, 12))
    ]
    assert found["ap", "all"][:2] == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.03)


def test_seeds_have_students_interval():
    found = interval([1.0, 2.0, 3.0, math.nan])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert interval([1.0]).half is None
    assert interval([0.0, 0.0, 0.0]) == Interval(0.0, None, 3), "three runs that all fail are not known to vary by 0"
    assert interval([1.0, 2.0]) == Interval(1.5, None, 2), "of two it would be 12.7 standard errors wide"
