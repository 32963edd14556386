"""Who looks at whom: the order of pairs, the metrics against plain loops, and everything that carries the labels."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.types import SOCIAL, Prediction, Records, pair_starts, pairs_of, ragged_starts
from gazebench.data import annotations as annotation_cache
from gazebench.data.datamodule import GazeDataModule, ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.datasets.gazeworld.world import clip, compose, social
from gazebench.engine.contract import small_config
from gazebench.engine.predictions import read_predictions
from gazebench.engine.run import Places, bench
from gazebench.metrics import functional
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.scoring import Scorer
from gazebench.metrics.social import (
    LookingAtEachOther,
    LookingAtEachOtherByPoint,
    LookingAtHeads,
    LookingAtHeadsByPoint,
    SharedAttention,
)

BOARD = Path(__file__).resolve().parent.parent / "leaderboards" / "gazeworld"


def crowds(rng, images=40, most=6):
    """How many people stand in each image."""
    return rng.integers(0, most + 1, images)


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_the_permutations_image_by_image(seed):
    counts = crowds(np.random.default_rng(seed), images=seed)
    expected, start = [], 0
    for count in counts.tolist():
        expected += [list(pair) for pair in permutations(range(start, start + count), 2)]
        start += count
    image = np.repeat(np.arange(len(counts)), counts)
    assert pairs_of(image).tolist() == expected
    starts = pair_starts(image, len(counts))
    assert starts.tolist() == ragged_starts(counts * (counts - 1)).tolist()
    assert starts[-1] == len(expected)


# The metrics, by plain loops over the rules of PROTOCOLS section 6 -------------------------------------------------


def situation(seed, images=60):
    """Random people, labels and scores; scores on a coarse grid, so that they tie, and points on bounds of heads."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), crowds(rng, images))
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
    truth, said = {}, {}
    for person, rows in lookers(fields):
        scores = fields["lah_score"][rows].tolist()
        best = scores.index(max(scores))
        positive = [place for place, row in enumerate(rows) if fields["lah"][row] == 1]
        truth[person] = int(bool(positive))
        if positive:
            said[person] = scores[best] if positive[0] == best else 0.0
        else:
            said[person] = scores[best]
    return truth, {person: score > 0.5 for person, score in said.items()}


def reference_lah_pp(fields):
    truth, said = {}, {}
    for person, rows in lookers(fields):
        heads = [fields["head"][fields["pairs"][row][0]] for row in rows]
        hits = [strictly_inside(fields["point"][person], box) for box in heads]
        positive = [place for place, row in enumerate(rows) if fields["lah"][row] == 1]
        truth[person] = int(bool(positive))
        said[person] = hits[positive[0]] if positive else any(hits)
    return truth, said


def reference_laeo(fields):
    kept = {}
    for person in range(len(fields["inout"])):
        rows = candidates(fields, person)
        if rows:
            scores = fields["laeo_score"][rows].tolist()
            best = scores.index(max(scores))
            kept |= {row: scores[place] if place == best else 0.0 for place, row in enumerate(rows)}
    known = [row for row, label in enumerate(fields["laeo"]) if label != -1]
    return {row: int(fields["laeo"][row]) for row in known}, {row: kept[row] > 0.5 for row in known}


def reference_laeo_pp(fields):
    known = [row for row, label in enumerate(fields["laeo"]) if label != -1]
    said = {}
    for row in known:
        i, j = fields["pairs"][row].tolist()
        point, head = fields["point"], fields["head"]
        said[row] = strictly_inside(point[i], head[j]) and strictly_inside(point[j], head[i])
    return {row: int(fields["laeo"][row]) for row in known}, said


REFERENCES = {
    LookingAtHeads: reference_lah,
    LookingAtHeadsByPoint: reference_lah_pp,
    LookingAtEachOther: reference_laeo,
    LookingAtEachOtherByPoint: reference_laeo_pp,
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("seed", range(12))
def test_f1_against_plain_loops(kind, seed):
    fields, metric = situation(seed), kind()
    truth, said = REFERENCES[kind](fields)
    values, sample = metric.values(**tensors(fields, metric))
    assert sample.tolist() == list(truth)
    assert values[:, 0].tolist() == list(truth.values())
    assert (values[:, 1] > 0.5).tolist() == list(said.values())
    assert 0 < sum(truth.values()) < len(truth)
    assert any(said.values())
    number = len(fields["pairs"]) if metric.unit == "pair" else len(fields["inout"])
    metric.update(torch.arange(number), **tensors(fields, metric))
    expected = f1_score(list(truth.values()), list(said.values()))
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)
    assert metric.count == len(truth)


@pytest.mark.parametrize("seed", range(12))
def test_shared_attention(seed):
    fields, metric = situation(seed), SharedAttention()
    known = fields["sa"] != -1
    metric.update(torch.arange(len(known)), **tensors(fields, metric))
    expected = average_precision_score(fields["sa"][known], fields["sa_score"][known])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)
    assert metric.count == known.sum() < len(known)


def one_looker(label, score, inout=1):
    """Three people; what the last says of the heads of the first two, and what is known of it."""
    pairs = torch.from_numpy(pairs_of(np.zeros(3, dtype=np.int64)))
    mine = {(0, 2): 0, (1, 2): 1}
    rows = [mine.get(tuple(pair)) for pair in pairs.tolist()]
    return functional.looking_at_heads(
        torch.tensor([0.0 if row is None else score[row] for row in rows]),
        torch.tensor([-1 if row is None else label[row] for row in rows]),
        pairs,
        torch.tensor([1, 1, inout]),
    )


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ((1, 0), (0.9, 0.2), [1, 0.9]),
        ((1, 0), (0.8, 0.9), [1, 0.0]),  # the best is elsewhere
        ((1, 1), (0.3, 0.9), [1, 0.0]),  # of several it is the first that counts
        ((0, 0), (0.3, 0.9), [0, 0.9]),
        ((-1, 0), (0.9, 0.3), [0, 0.9]),  # a candidate without a label competes
        ((1, 0), (0.7, 0.7), [1, 0.7]),  # the first of equal ones is kept
        ((0, 1), (0.7, 0.7), [1, 0.0]),
    ],
)
def test_a_looker_keeps_one_candidate(label, score, expected):
    values, people = one_looker(label, score)
    assert people.tolist() == [2]
    assert values[0].tolist() == pytest.approx(expected)


def test_lookers_without_a_label_or_a_target_in_frame_are_skipped():
    assert one_looker((-1, -1), (0.9, 0.9))[1].tolist() == []
    for inout in (0, -1):
        assert one_looker((1, 0), (0.9, 0.9), inout)[1].tolist() == []


def test_the_threshold_itself_is_a_no():
    assert functional.f1(torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.51])) == pytest.approx(2 / 3)
    assert functional.f1(torch.zeros(3), torch.full((3,), 0.5)) is None, "nothing was to be found, nothing was"
    assert functional.f1(torch.zeros(3), torch.ones(3)) == 0.0


@pytest.mark.parametrize("kind", [*REFERENCES, SharedAttention])
def test_a_score_that_is_not_a_number_spoils_the_value(kind):
    fields, metric = situation(3), kind()
    for name in ("point", *(f"{name}_score" for name in SOCIAL)):
        fields[name] = np.where(np.ones(fields[name].shape, bool), np.nan, 0.0)
    number = len(fields["pairs"]) if metric.unit == "pair" else len(fields["inout"])
    metric.update(torch.arange(number), **tensors(fields, metric))
    assert metric.compute().isnan()


def test_people_alone_have_no_pair():
    image, nothing = np.arange(3), torch.zeros(0)
    assert pairs_of(image).shape == (0, 2)
    pairs = torch.from_numpy(pairs_of(image))
    for values, sample in (
        functional.looking_at_heads(nothing, nothing, pairs, torch.ones(3)),
        functional.looking_at_each_other(nothing, nothing, pairs),
        functional.looking_at_heads_by_point(torch.rand(3, 2), torch.rand(3, 4), nothing, pairs, torch.ones(3)),
        functional.looking_at_each_other_by_point(torch.rand(3, 2), torch.rand(3, 4), nothing, pairs),
    ):
        assert values.shape == (0, 2)
        assert len(sample) == 0


# What carries them -------------------------------------------------------------------------------------------------


def some_records(counts):
    """People of several images; a pair's label is a digest of the two people's names."""
    image = np.repeat(np.arange(len(counts)), counts)
    people, names = len(image), np.array([f"i{k}" for k in range(len(counts))])
    labels = [(7 * i + j) % 3 - 1 for i, j in pairs_of(image).tolist()]
    return Records(
        dataset="some", split="test", images=names, groups=names,
        person_id=np.array([f"p{person}" for person in range(people)]), person_image=image,
        head=np.tile([0.1, 0.1, 0.4, 0.4], (people, 1)), points=np.full((people, 2), 0.5),
        point_start=np.arange(people + 1), inout=np.ones(people, dtype=np.int8), head_unit="normalised",
        pairs={"lah": np.array(labels, dtype=np.int8)}, sizes=np.full((len(counts), 2), 64),
    )  # fmt: skip


def by_names(records):
    """{(id of i, id of j): label}."""
    ids = records.person_id.tolist()
    rows = pairs_of(records.person_image).tolist()
    return {(ids[i], ids[j]): label for (i, j), label in zip(rows, records.pairs["lah"].tolist(), strict=True)}


@pytest.mark.parametrize("seed", range(10))
def test_pairs_follow_the_people_that_are_left(seed):
    rng = np.random.default_rng(seed)
    records = some_records(rng.integers(1, 6, 12))
    keep = rng.random(records.people) < 0.6
    left = records.select(keep)
    names = set(records.person_id[keep].tolist())
    expected = {pair: label for pair, label in by_names(records).items() if names.issuperset(pair)}
    assert by_names(left) == expected
    assert len(expected) > 5


def test_pairs_survive_the_cache_and_count_in_the_fingerprint_where_a_score_needs_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path))
    records = some_records([2, 3])
    for _ in range(2):
        kept = annotation_cache.cached(["x"], [], lambda: records)
        assert kept.pairs["lah"].tolist() == records.pairs["lah"].tolist()
        assert kept.pairs["lah"].dtype == np.int8
    other = annotation_cache.replace(records, pairs={"lah": -records.pairs["lah"]})
    assert other.fingerprint() == records.fingerprint()
    scored = [annotation_cache.replace(some, scored=("lah",)).fingerprint() for some in (records, other)]
    assert scored[0] != scored[1]


def test_records_refuse_pairs_that_fit_nobody():
    records = some_records([2, 3])
    with pytest.raises(ValueError, match="lah has 7 rows, expected 8 pairs"):
        annotation_cache.replace(records, pairs={"lah": np.zeros(7, np.int8)})
    with pytest.raises(ValueError, match="lah names both a column and pairs"):
        annotation_cache.replace(records, columns={"lah": np.zeros(5)})


def batch_of(data, split="test", images=None):
    samples = ImageSamples(data, data.records(split), Preprocess(), augment=False, sees_images=False,
                           bad_images="error", seed=0)  # fmt: skip
    return collate([samples[image] for image in (range(len(samples)) if images is None else images)])


def test_a_batch_carries_the_labels_of_its_pairs():
    data = GazeWorld(train=2, val=2, test=8)
    batch = batch_of(data, images=[5, 1, 7])
    expected = {name: [] for name in SOCIAL}
    pairs, start = [], 0
    for index in (5, 1, 7):
        scene = compose(0, index, "test")
        for name, values in social(scene).items():
            expected[name] += values.tolist()
        pairs += [list(pair) for pair in permutations(range(start, start + len(scene.people)), 2)]
        start += len(scene.people)
    assert batch.pairs.tolist() == pairs
    for name in SOCIAL:
        assert batch.targets.extra[name].dtype == torch.int64
        assert batch.targets.extra[name].tolist() == expected[name]


def test_everybody_can_be_trained_on():
    data = GazeWorld(train=4, val=2, test=2)
    records = data.records("trainval")
    records.inout[::2] = -1
    people = {
        who: GazeDataModule(data, Preprocess(), people=who).train_records().people
        for who in ("in_frame", "labelled", "all")
    }
    assert people["in_frame"] <= people["labelled"] < people["all"] == records.people
    assert people["labelled"] == (records.inout != -1).sum()


def social_world(test=40):
    return GazeWorld(train=2, val=2, test=test)


def test_truth_scores_one_and_the_columns_are_apart():
    """What is known of every pair, given as scores, and what everybody looks at, given as points."""
    data = social_world()
    batch, records = batch_of(data), data.records("test")
    truth = {name: batch.targets.extra[name].double() for name in SOCIAL}
    gaze = torch.tensor([person.gaze for k in range(len(records)) for person in compose(0, k, "test").people])
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(extra=truth), batch)
    scores = evaluator.compute()
    assert scores.keys() == {"f1_lah", "f1_laeo", "ap_sa"}
    assert all(subsets["all"].value == 1 for subsets in scores.values())
    assert scores["ap_sa"]["all"].count == len(batch.pairs)
    evaluator.reset()
    evaluator.update(Prediction(point=gaze), batch)
    scores = evaluator.compute()
    assert {"f1_lah_pp", "f1_laeo_pp"} <= scores.keys()
    assert not {"f1_lah", "f1_laeo", "ap_sa", "ap_sa_pp"} & scores.keys(), "no rule is published for them"
    assert scores["f1_laeo_pp"]["all"].value == 1
    assert 0.9 < scores["f1_lah_pp"]["all"].value <= 1, "a thing in front of a head can be what is looked at"


def test_points_in_the_middle_of_nothing_look_at_nobody():
    data = social_world()
    batch = batch_of(data)
    evaluator = Scorer(data.protocol)
    evaluator.update(Prediction(point=torch.zeros(batch.people, 2)), batch)
    scores = evaluator.compute()
    assert scores["f1_lah_pp"]["all"].value == scores["f1_laeo_pp"]["all"].value == 0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda n: torch.rand(n + 1), r"lah has shape \(\d+,\) for \d+ pairs"),
        (lambda n: torch.rand(n, 1), r"lah has shape \(\d+, 1\)"),
        (lambda n: torch.linspace(-3, 4, n), r"lah leaves \[0, 1\] \(-3 to 4\): give probabilities, not logits"),
    ],
)
def test_scores_that_are_none_are_named(scores, message):
    data = social_world(4)
    batch = batch_of(data)
    with pytest.raises(ValueError, match=message):
        Scorer(data.protocol).update(Prediction(extra={"lah": scores(len(batch.pairs))}), batch)


def test_a_column_can_be_over_some_people_only():
    """As AP over two of VSGaze's parts; the values kept per person are of those people, too."""
    data = social_world(12)
    batch = batch_of(data)
    kinds = batch.targets.extra["target_kind"]
    use = ProtocolMetric(
        "ap", data.protocol.use("ap").metric, subsets=False, where=("target_kind", frozenset({"void", "outside"}))
    )
    protocol = Protocol(name="some", version=1, unit="person", metrics=(use,), headline="ap")
    evaluator, said = Scorer(protocol), torch.rand(batch.people)
    scored = evaluator.update(Prediction(inout=said), batch)
    inside = np.isin(kinds, ["void", "outside"])
    assert scored.values["ap"][1].tolist() == np.flatnonzero(inside).tolist()
    expected = average_precision_score(batch.targets.inout[inside], said[inside])
    assert evaluator.compute()["ap"]["all"].value == pytest.approx(expected)
    assert evaluator.compute()["ap"]["all"].count == inside.sum() < batch.people
    assert protocol.describe()["where"] == {"ap": {"target_kind": ["outside", "void"]}}
    assert "where" not in data.protocol.describe()


def test_pairs_are_in_no_subset():
    with pytest.raises(ValueError, match=r"protocol some: \['sa'\] score pairs or questions, which are in no"):
        Protocol(name="some", version=1, unit="pair", metrics=(ProtocolMetric("sa", SharedAttention),), headline="sa")


# GazeWorld ---------------------------------------------------------------------------------------------------------


def test_the_world_knows_who_looks_at_whom():
    seen = dict.fromkeys(SOCIAL, 0)
    for index in range(200):
        scene = compose(0, index, "test")
        labels = {name: values.tolist() for name, values in social(scene).items()}
        people = scene.people
        for k, (i, j) in enumerate(permutations(range(len(people)), 2)):
            one, other = people[i], people[j]
            looks = other.target_kind == "person" and other.target_id == one.id
            back = one.target_kind == "person" and one.target_id == other.id
            same = one.target_kind in ("thing", "person") and one.target_id == other.target_id
            assert [labels[name][k] for name in SOCIAL] == [looks, looks and back, same]
            seen = {name: seen[name] + labels[name][k] for name in SOCIAL}
            if looks:  # the point lies in the head: what post-processing rests on
                assert one.head[0] < other.gaze[0] < one.head[2]
                assert one.head[1] < other.gaze[1] < one.head[3]
    assert all(count > 10 for count in seen.values()), seen


def test_clips_know_it_too_and_people_keep_their_identity():
    scenes = clip(0, 4, "train", 40)
    everybody = [person.id for person in scenes[0].people]
    labels = []
    for scene in scenes:
        assert [person.id for person in scene.people] == everybody
        labels.append(np.concatenate([social(scene)[name] for name in SOCIAL]).tolist())
    assert len(everybody) > 1
    assert len({tuple(row) for row in labels}) > 1, "gazes move on, and the labels with them"


def test_the_worlds_fingerprint_is_what_records_on_the_board_carry():
    """Labels of pairs follow from the scenes: to have them makes no other data of it."""
    data = GazeWorld()
    board = json.loads(next(iter(BOARD.glob("center-*.json"))).read_text(encoding="utf-8"))
    assert data.records("test").fingerprint() == board["data"]["fingerprint"]
    assert data.protocol.id == board["protocol"]["id"]


# A run, and its file -----------------------------------------------------------------------------------------------

GOSSIP = '''
import torch
from gazebench.engine.method import Method, MethodCard
from gazebench.data.transforms import Preprocess
from gazebench.core.types import Prediction


class Gossip(Method):
    """Scores every pair by where the two heads are."""

    card = MethodCard(title="Gossip", family="test")
    capabilities = frozenset({"point", "social"})
    sees_images = False
    trains = False

    def preprocess(self):
        return Preprocess()

    def forward(self, batch):
        here, there = batch.head[batch.pairs[:, 1]], batch.head[batch.pairs[:, 0]]
        gap = (here - there).abs().sum(1)
        scores = {"lah": torch.exp(-gap / 2), "laeo": torch.exp(-gap / 3), "sa": 1 - torch.exp(-gap)}
        return Prediction(point=torch.tensor([[0.4, 0.5]]).repeat(batch.people, 1), extra=scores)
'''


def test_stored_scores_of_pairs_score_as_the_run_did(tmp_path):
    method = tmp_path / "gossip.py"
    method.write_text(GOSSIP)
    places = Places(tmp_path / "runs", tmp_path / "boards")
    world = ["--dataset.test=60"]
    run = bench(small_config(str(method), "gazeworld", *world), places)
    columns = {"f1_lah", "f1_laeo", "ap_sa", "f1_lah_pp"}
    assert columns <= run.record["metrics"].keys()
    assert all(0 < run.record["metrics"][name]["all"]["value"] < 1 for name in ("f1_lah", "ap_sa"))
    table = read_predictions(run.folder / "predictions.parquet")
    said = {person: scores for person, scores in table["lah"].items() if len(scores) == 3}
    assert said, "somebody stands with three others"
    for person, scores in said.items():
        picture = person.split("#")[0]
        assert all(other != person and other.split("#")[0] == picture for other in scores)
    flat = table.reset_index()[["person_id", "x", "y", *SOCIAL]]
    texts = flat.assign(**{name: flat[name].map(json.dumps) for name in SOCIAL})
    texts.to_csv(tmp_path / "csv.csv", index=False)
    flat.to_json(tmp_path / "json.jsonl", orient="records", lines=True)
    texts[["person_id", "lah"]].to_csv(tmp_path / "alone.csv", index=False)
    where = [f"--runs={places.runs}", f"--boards={places.boards}", "--dataset.train=6", "--dataset.val=3", *world]
    for file in ("csv.csv", "json.jsonl", "alone.csv"):
        assert main(["score", str(tmp_path / file), "gazeworld", *where]) == 0
        scored = json.loads(next((places.boards / "gazeworld").glob(f"{file.split('.')[0]}-*.json")).read_text())
        expected = {"f1_lah"} if file == "alone.csv" else columns
        assert expected <= scored["metrics"].keys()
        for name in expected:
            assert scored["metrics"][name]["all"] == pytest.approx(run.record["metrics"][name]["all"], abs=1e-9), file


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("{", "lah is '{', not a JSON object by id"),
        ("[1]", "not a JSON object"),
        ('{"b": "much"}', "lah of 'b' is 'much', not a probability"),
        ('{"b": 1.5}', "lah of 'b' is 1.5, not a probability"),
        ('{"b": NaN}', "lah of 'b' is nan, not a probability"),
    ],
)
def test_files_that_make_no_sense_are_explained(tmp_path, cell, message):
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps({"person_id": p, "lah": c}) + "\n" for p, c in (("a", "{}"), ("b", cell))))
    with pytest.raises(DataError, match=r"said\.jsonl:2: ") as error:
        read_predictions(file)
    assert message in str(error.value)


def test_a_pair_nobody_speaks_of_is_named(tmp_path, capsys):
    data = social_world(3)
    people = data.records("test").person_id.tolist()
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps({"person_id": person, "lah": {}}) + "\n" for person in people))
    options = [f"--runs={tmp_path}", f"--boards={tmp_path}", "--dataset.test=3", "--dataset.train=2", "--dataset.val=2"]
    assert main(["score", str(file), "gazeworld", *options]) != 0
    assert "says nothing of" in capsys.readouterr().err
