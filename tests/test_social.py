"""Who looks at whom: the order of pairs, the metrics against plain loops, and everything that carries the labels."""

import json
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from gazebench.core.files import cached
from gazebench.core.types import SOCIAL, Prediction, Records, pairs_of
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.metrics import social
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.scoring import Scorer
from gazebench.metrics.spatial import InOutAP

BOARD = Path(__file__).resolve().parent.parent / "leaderboards" / "gazeworld"


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_the_permutations_image_by_image(seed):
    records = some_records(np.random.default_rng(seed).integers(0, 7, seed))
    start = records.person_start
    expected = [list(pair) for a, b in pairwise(start) for pair in permutations(range(a, b), 2)]
    assert pairs_of(records.person_image).tolist() == expected
    counts = np.diff(start)
    assert np.diff(records.pair_start).tolist() == (counts * (counts - 1)).tolist()


def situation(seed, images=60):
    """Random people, labels and scores; scores on a coarse grid, so that they tie, and points on bounds of heads."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(0, 7, images))
    pairs, people = pairs_of(image), len(image)
    low = rng.integers(0, 4, (people, 2)) / 8
    head = np.concatenate([low, low + rng.integers(3, 7, (people, 2)) / 8], axis=1)
    head[rng.random(people) < 0.1] = np.nan
    fields = {
        "pairs": pairs,
        "inout": rng.choice([-1, 0, 1], people, p=[0.2, 0.2, 0.6]),
        "head": head,
        "point": rng.integers(0, 33, (people, 2)) / 32,
    }
    for name in SOCIAL:
        fields[name] = rng.choice([-1, 0, 1], len(pairs), p=[0.4, 0.4, 0.2])
        fields[f"{name}_score"] = rng.integers(0, 11, len(pairs)) / 10
    return fields


def tensors(fields, metric):
    return {name: torch.from_numpy(np.asarray(fields[name])) for name in metric.fields}


def candidates(fields, looker):
    """The pairs in which somebody looks, in order."""
    return [row for row, (_, j) in enumerate(fields["pairs"].tolist()) if j == looker]


def lookers(fields):
    """Everybody in frame, with their pairs, of whom anything is known."""
    for person, inout in enumerate(fields["inout"].tolist()):
        rows = candidates(fields, person)
        if inout == 1 and any(fields["lah"][row] != -1 for row in rows):
            yield person, rows


def strictly_inside(point, box):
    return bool(box[0] < point[0] < box[2] and box[1] < point[1] < box[3])


def reference_lah(fields):
    truth, claimed = {}, {}
    for person, rows in lookers(fields):
        scores = fields["lah_score"][rows].tolist()
        best = scores.index(max(scores))
        positive = [place for place, row in enumerate(rows) if fields["lah"][row] == 1]
        truth[person] = int(bool(positive))
        claimed[person] = max(scores) > 0.5 and (not positive or positive[0] == best)
    return truth, claimed


def reference_lah_pp(fields):
    truth, claimed = {}, {}
    for person, rows in lookers(fields):
        heads = [fields["head"][fields["pairs"][row][0]] for row in rows]
        hits = [strictly_inside(fields["point"][person], box) for box in heads]
        positive = [place for place, row in enumerate(rows) if fields["lah"][row] == 1]
        truth[person] = int(bool(positive))
        claimed[person] = hits[positive[0]] if positive else any(hits)
    return truth, claimed


def reference_laeo(fields):
    kept = {}
    for person in range(len(fields["inout"])):
        rows = candidates(fields, person)
        scores = fields["laeo_score"][rows].tolist()
        kept |= {row: place == scores.index(max(scores)) and max(scores) > 0.5 for place, row in enumerate(rows)}
    known = [row for row, label in enumerate(fields["laeo"]) if label != -1]
    return {row: int(fields["laeo"][row]) for row in known}, {row: kept[row] for row in known}


def reference_laeo_pp(fields):
    truth, claimed = {}, {}
    for row, ((i, j), label) in enumerate(zip(fields["pairs"].tolist(), fields["laeo"].tolist(), strict=True)):
        if label != -1:
            point, head = fields["point"], fields["head"]
            truth[row] = label
            claimed[row] = strictly_inside(point[i], head[j]) and strictly_inside(point[j], head[i])
    return truth, claimed


REFERENCES = {
    social.LookingAtHeads: reference_lah,
    social.LookingAtHeadsByPoint: reference_lah_pp,
    social.LookingAtEachOther: reference_laeo,
    social.LookingAtEachOtherByPoint: reference_laeo_pp,
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("seed", range(12))
def test_f1_against_plain_loops(kind, seed):
    fields, metric = situation(seed), kind()
    truth, claimed = REFERENCES[kind](fields)
    values, sample = metric.values(**tensors(fields, metric))
    assert (sample.tolist(), values[:, 0].tolist()) == (list(truth), list(truth.values()))
    assert (values[:, 1] > 0.5).tolist() == list(claimed.values())
    assert 0 < sum(truth.values()) < len(truth)
    assert any(claimed.values())
    metric.update(torch.arange(len(fields["pairs"])), **tensors(fields, metric))
    expected = f1_score(list(truth.values()), list(claimed.values()))
    assert (float(metric.compute()), metric.count) == (pytest.approx(expected, abs=1e-12), len(truth))


@pytest.mark.parametrize("kind", [*REFERENCES, social.SharedAttention])
def test_answers_that_are_not_numbers_and_people_alone(kind):
    """A score of NaN is not left out (a diverged model would score better); without pairs there is no value."""
    fields, metric = situation(3), kind()
    for name in ("point", *(f"{name}_score" for name in SOCIAL)):
        fields[name] = np.full(fields[name].shape, np.nan)
    metric.update(torch.arange(len(fields["pairs"])), **tensors(fields, metric))
    assert metric.compute().isnan()
    alone = {name: value[:3] for name, value in fields.items()}
    alone |= {name: value[:0] for name, value in fields.items() if name[:2] in ("la", "sa", "pa")}
    values, sample = metric.values(**tensors(alone, metric))
    assert (values.shape, len(sample)) == ((0, 2), 0)


def some_records(counts):
    """So many people in each image; a pair's label follows from its people's numbers."""
    image = np.repeat(np.arange(len(counts)), counts)
    people, names = len(image), np.array([f"i{k}" for k in range(len(counts))], dtype=str)
    labels = [(7 * i + j) % 3 - 1 for i, j in pairs_of(image).tolist()]
    return Records(
        dataset="some", split="test", images=names, groups=names,
        person_id=np.array([f"p{person}" for person in range(people)], dtype=str), person_image=image,
        head=np.tile([0.1, 0.1, 0.4, 0.4], (people, 1)), points=np.full((people, 2), 0.5),
        point_start=np.arange(people + 1), inout=np.ones(people, dtype=np.int8),
        pairs={"lah": np.array(labels, dtype=np.int8)}, sizes=np.full((len(counts), 2), 64),
    )  # fmt: skip


def by_names(records):
    """{(id of i, id of j): label}."""
    ids = records.person_id.tolist()
    rows = pairs_of(records.person_image).tolist()
    return {(ids[i], ids[j]): label for (i, j), label in zip(rows, records.pairs["lah"].tolist(), strict=True)}


@pytest.mark.parametrize("seed", range(10))
def test_pairs_follow_the_people_and_images_that_are_taken(seed):
    rng = np.random.default_rng(seed)
    records = some_records(rng.integers(0, 6, 20))
    keep = rng.random(records.people) < 0.6
    images = rng.permutation(20)[:12]
    left, taken = records.select(keep), records.of_images(images)
    assert taken.images.tolist() == records.images[images].tolist()
    for some in (left, taken):
        names = set(some.person_id.tolist())
        expected = {pair: label for pair, label in by_names(records).items() if names.issuperset(pair)}
        assert by_names(some) == expected
        assert len(expected) > 5


def test_pairs_survive_the_cache_and_count_in_the_fingerprint_where_a_score_needs_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path))
    records = some_records([2, 3])
    for _ in range(2):
        kept = cached(["x"], lambda: records)
        assert kept.pairs["lah"].tolist() == records.pairs["lah"].tolist()
        assert kept.pairs["lah"].dtype == np.int8
    other = replace(records, pairs={"lah": -records.pairs["lah"]})
    assert other.fingerprint() == records.fingerprint()
    assert len({replace(some, scored=("lah",)).fingerprint() for some in (records, other)}) == 2


@pytest.mark.parametrize(
    "wrong", [{"pairs": {"lah": np.zeros(7, np.int8)}}, {"columns": {"lah": np.zeros(5)}}, {"groups": np.zeros(3)}]
)
def test_records_refuse_what_fits_nobody(wrong):
    with pytest.raises(ValueError, match=r"lah|groups"):
        replace(some_records([2, 3]), **wrong)


def social_world(test=40):
    return GazeWorld(train=2, val=2, test=test)


def test_a_batch_carries_the_labels_of_its_pairs():
    data = social_world(8)
    samples = ImageSamples(data, data.records("test"), Preprocess(), sees_images=False)
    batch, taken = collate([samples[image] for image in (5, 1, 7)]), samples.records.of_images(np.array([5, 1, 7]))
    assert batch.pairs.tolist() == pairs_of(taken.person_image).tolist()
    for name in SOCIAL:
        assert batch.targets.pairs[name].dtype == torch.int64
        assert batch.targets.pairs[name].tolist() == taken.pairs[name].tolist()


def scores_of(data, **answer):
    records = data.records("test")
    scorer = Scorer(data.protocol, records)
    scorer.update(np.arange(len(records)), Prediction(**answer))
    return {name: subsets["all"] for name, subsets in scorer.compute().items()}


def test_truth_scores_one_and_the_columns_are_apart():
    """What is known of every pair, given as scores, and what everybody looks at, given as points."""
    data = social_world()
    records = data.records("test")
    scores = scores_of(data, **{name: torch.from_numpy(records.pairs[name]).double() for name in SOCIAL})
    assert {name: score.value for name, score in scores.items()} == {"f1_lah": 1, "f1_laeo": 1, "ap_sa": 1}
    assert scores["ap_sa"].count == records.pair_start[-1]
    gaze = torch.tensor([person.gaze for key in records.images for person in data.scene(str(key)).people])
    scores = scores_of(data, point=gaze)
    assert not {"f1_lah", "f1_laeo", "ap_sa", "ap_sa_pp"} & scores.keys(), "no rule is published for them"
    assert scores["f1_laeo_pp"].value == 1
    assert 0.9 < scores["f1_lah_pp"].value <= 1, "a thing in front of a head can be what is looked at"
    nobody = scores_of(data, point=torch.zeros(records.people, 2))
    assert nobody["f1_lah_pp"].value == nobody["f1_laeo_pp"].value == 0


@pytest.mark.parametrize(
    "scores", [lambda n: torch.rand(n + 1), lambda n: torch.rand(n, 1), lambda n: torch.linspace(-3, 4, n)]
)
def test_scores_that_are_no_probabilities_of_pairs_are_named(scores):
    data = social_world(4)
    with pytest.raises(ValueError, match="lah"):
        scores_of(data, lah=scores(int(data.records("test").pair_start[-1])))


def test_a_metric_can_be_over_some_people_only():
    """As AP over two of VSGaze's parts; the values of each person are those people's, too."""
    data = social_world(12)
    records = data.records("test")
    some = ProtocolMetric("ap", InOutAP, subsets=False, where=("target_kind", frozenset({"void", "outside"})))
    protocol = Protocol(name="some", version=1, unit="person", metrics=(some,), headline="ap")
    scorer, score = Scorer(protocol, records), torch.rand(records.people)
    values = scorer.update(np.arange(len(records)), Prediction(inout=score))
    inside = np.isin(records.columns["target_kind"], ["void", "outside"])
    assert values["ap"][1].tolist() == np.flatnonzero(inside).tolist()
    found = scorer.compute()["ap"]["all"]
    assert found.value == pytest.approx(average_precision_score(records.inout[inside], score[inside]))
    assert found.count == inside.sum() < records.people
    assert protocol.describe()["where"] == {"ap": {"target_kind": ["outside", "void"]}}
    assert "where" not in data.protocol.describe()


@pytest.mark.parametrize("settings", [{}, {"subsets": False, "where": ("target_kind", frozenset({"void"}))}])
def test_pairs_are_in_no_subset(settings):
    with pytest.raises(ValueError, match="pair"):
        ProtocolMetric("sa", social.SharedAttention, **settings)


def test_the_worlds_fingerprint_is_what_records_on_the_board_carry():
    """Labels of pairs follow from the scenes: to have them makes no other data of it."""
    data = GazeWorld()
    board = json.loads(next(iter(BOARD.glob("center-*.json"))).read_text(encoding="utf-8"))
    assert data.records("test").fingerprint() == board["data"]["fingerprint"]
    assert data.completeness("test").complete
    assert data.protocol.id == board["protocol"]["id"]
