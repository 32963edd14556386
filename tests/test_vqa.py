"""Visual question answering: files, whoever answers, resuming, scores against references, and the table."""

import json
import threading
import tracemalloc
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from torchmetrics.functional.text import bleu_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places
from gazebench.metrics import vqa as metrics
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import QUESTIONS
from gazebench.metrics.scoring import Scorer
from gazebench.vlm import tiny
from gazebench.vlm.local import LocalModel
from gazebench.vlm.messages import Backend, Decoding, Failure, Picture, Reply, VLMError
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.store import AnswerStore
from gazebench.vqa import answerers, asking, command, files, judge, protocols, scoring, table
from gazebench.vqa.answerers import Examples, Majority, ModelAnswerer, Oracle, Random, Shuffled
from gazebench.vqa.build import build
from gazebench.vqa.describe import Describer, described, understood
from gazebench.vqa.questions.reading import Said
from gazebench.vqa.types import Question, Truth

ROOT = Path(__file__).resolve().parent.parent
WORLD = load_dataset("gazeworld")
SIZES = ["--dataset.train=16", "--dataset.val=2", "--dataset.test=14"]


@pytest.fixture(scope="module")
def world():
    return WORLD(train=16, val=2, test=14)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """The questions of train and test."""
    place = tmp_path_factory.mktemp("questions")
    for split in ("train", "test"):
        build(world, split, place)
    return place


class Scripted(Backend):
    """Answers by a function of the key; dies after so many requests."""

    def __init__(self, say=lambda key: "left", die_after=None):
        self.say, self.die_after, self.requests = say, die_after, []

    def identity(self):
        return {"backend": "scripted", "model": "org/Scripted 1.0"}

    def ask(self, requests):
        for request in requests:
            if self.die_after is not None and len(self.requests) >= self.die_after:
                raise VLMError("the server is gone")
            self.requests.append(request)
            said = self.say(request.key)
            yield said if isinstance(said, Reply | Failure) else Reply(request.key, said, "stop")


def answered_by(folder, tmp_path, answerer):
    path = folder / "test.jsonl"
    card = files.read_card(path)
    store = asking.store_of(tmp_path, answerer, card)
    outcome = asking.ask(path, card, answerer, store)
    return outcome, scoring.collect(path, card, answerer, store), store


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_is_the_same_every_time_and_says_what_it_is(world, folder, tmp_path):
    path, card = build(world, "test", tmp_path)
    assert path.read_bytes() == (folder / "test.jsonl").read_bytes()
    assert card["protocol"] == "gazebench-vqa-v1"
    assert card["origin"] == "ours"
    rows = list(files.read(path))
    assert card["counts"]["questions"] == len(rows)
    assert card["counts"]["images"] == len({row.image for row in rows}) == 14
    assert card["counts"]["people"] == len({row.person for row in rows}) == world.records("test").people
    assert sum(card["counts"]["task"].values()) == len(rows)
    assert [files.Row.from_json(row.to_json()) for row in rows[:20]] == rows[:20]
    assert len({row.question.id for row in rows}) == len(rows)
    assert files.read_card(path)["sha256"] == card["sha256"]


def test_a_protocol_is_known_or_named_as_unknown(folder, monkeypatch):
    card = files.read_card(folder / "test.jsonl")
    assert protocols.rules(card).origin == "ours"
    with pytest.raises(DataError, match=r"vl4gaze-v1; known here: gazebench-vqa-v1"):
        protocols.rules({**card, "protocol": "vl4gaze-v1"})
    with pytest.raises(DataError, match="other templates"):
        protocols.rules({**card, "templates": "0"})
    other = replace(protocols.OURS, id="vl4gaze-v1", origin="official", metrics=QUESTIONS[:1])
    monkeypatch.setitem(protocols.PROTOCOLS, other.id, other)
    assert protocols.rules({**card, "protocol": "vl4gaze-v1"}) is other


def test_a_changed_file_or_a_broken_line_is_an_error(folder, tmp_path):
    path = tmp_path / "test.jsonl"
    with pytest.raises(DataError, match="gazebench vqa build"):
        files.read_card(path)
    path.write_bytes((folder / "test.jsonl").read_bytes() + b"{}\n")
    with pytest.raises(DataError, match="no card"):
        files.read_card(path)
    path.with_suffix(".json").write_bytes((folder / "test.json").read_bytes())
    with pytest.raises(DataError, match="not the file its card vouches for"):
        files.read_card(path)
    with pytest.raises(DataError, match=r"test\.jsonl:\d+: not a question"):
        list(files.read(path))


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path, folder):
    def rows():
        yield next(files.read(folder / "test.jsonl"))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write(tmp_path / "x.jsonl", rows(), {})
    assert not list(tmp_path.iterdir())


def test_files_stream_in_constant_memory(tmp_path, folder):
    row = next(files.read(folder / "test.jsonl"))

    def rows(count):
        for index in range(count):
            yield replace(row, image=f"{index // 4}", question=replace(row.question, id=str(index)))

    path = tmp_path / "x.jsonl"
    tracemalloc.start()
    try:
        card = files.write(path, rows(8000), {})
        assert sum(1 for _ in files.read(path)) == 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (card["counts"]["questions"], card["counts"]["images"]) == (8000, 2000)
    assert peak < 1e6 < 2e6 < path.stat().st_size


# Round trips ----------------------------------------------------------------------------------------------------------


def test_the_truth_scores_everything_and_others_answers_do_not(folder, tmp_path):
    _, truth, _ = answered_by(folder, tmp_path, Oracle())
    perfect = scoring.measure(truth)
    best = {use.name: 1.0 if use.metric().higher_is_better else 0.0 for use in QUESTIONS}
    assert set(perfect) == set(best) - {"vqa_object_clip"}
    for name, value in perfect.items():
        tolerance = {"vqa_point_l2": 1e-3, "vqa_point_angle": 0.5}.get(name, 0)
        assert value.value == pytest.approx(best[name], abs=tolerance), name
        assert value.low - 1e-9 <= value.value <= value.high + 1e-9
    _, others, _ = answered_by(folder, tmp_path, Shuffled(folder / "test.jsonl"))
    chance = scoring.measure(others)
    assert chance["vqa_overall"].value < 0.35
    assert chance["vqa_object"].value < 0.3
    assert chance["vqa_direction"].value < 0.4
    assert chance["vqa_point"].value < 0.3
    assert 0.2 < chance["vqa_refusal"].value < 0.8
    assert chance["vqa_parsed"].value == 1, "answers of another form would not be read"


def test_floors_answer_in_the_form_asked_for(folder, tmp_path):
    for answerer in (Random(folder / "train.jsonl"), Majority(folder / "train.jsonl")):
        outcome, found, _ = answered_by(folder, tmp_path, answerer)
        assert outcome.answered == outcome.asked == len(found.rows)
        assert all(said.parsed for said in found.said)
    rows = list(files.read(folder / "train.jsonl"))
    majority = Majority(folder / "train.jsonl")
    directions = [row.truth.answer for row in rows if row.question.task == "direction"]
    row = next(row for row in rows if row.question.task == "direction")
    assert directions.count(majority.answer(row)) == max(map(directions.count, directions))
    points = [row.truth.points[0] for row in rows if row.question.task == "point" and row.truth.points]
    row = next(row for row in rows if row.question.task == "point")
    mean = [round(999 * value) for value in np.mean(points, axis=0)]
    assert json.loads(majority.answer(row)) == {"point_2d": mean}


# Asking ---------------------------------------------------------------------------------------------------------------


def model(world, backend, **options):
    return ModelAnswerer(backend, world, world.records("test"), **options)


def test_a_killed_evaluation_goes_on_without_asking_again(world, folder, tmp_path):
    path, card = folder / "test.jsonl", files.read_card(folder / "test.jsonl")
    dying = model(world, Scripted(die_after=25))
    store = asking.store_of(tmp_path, dying, card)
    with pytest.raises(VLMError, match="gone"):
        asking.ask(path, card, dying, store)
    again = model(world, Scripted())
    outcome = asking.ask(path, card, again, asking.store_of(tmp_path, again, card))
    total = card["counts"]["questions"]
    assert (outcome.asked, outcome.answered, dict(outcome.open)) == (total, total - 25, {})
    first, second = ([request.key for request in each.backend.requests] for each in (dying, again))
    assert not set(first) & set(second)
    assert len(first) + len(second) == total
    assert not asking.ask(path, card, model(world, idle := Scripted()), store).answered
    assert not idle.requests


def test_failures_stay_open_and_whatever_else_comes_is_an_answer(world, folder, tmp_path):
    rows = [row for row in files.read(folder / "test.jsonl") if row.question.task == "point" and not row.truth.refusal]
    ids = [row.question.id for row in rows[:4]]
    bad = {ids[0]: Failure(ids[0], "too large"), ids[1]: "", ids[2]: "[1, 2] " * 100_000,
           ids[3]: Reply(ids[3], "", "content_filter")}  # fmt: skip
    backend = Scripted(lambda key: bad.get(key, "I cannot tell."))
    outcome, found, store = answered_by(folder, tmp_path, model(world, backend))
    assert dict(outcome.open) == {ids[0]: "too large"}
    assert found.open == 1
    said = {row.question.id: each for row, each in zip(found.rows, found.said, strict=True)}
    assert [said[key].parsed for key in ids] == [False, False, True, True]
    assert said[ids[3]].refusal
    assert len(store.answers("test")[ids[2]][0].reply.text) == 700_000, "kept word for word"
    values = scoring.measure(found)
    assert values["vqa_refusal_recall"].value == 1
    assert values["vqa_false_refusal"].value == 1
    assert values["vqa_direction_steps"].value == 4
    again = model(world, backend := Scripted())
    assert asking.ask(folder / "test.jsonl", files.read_card(folder / "test.jsonl"), again, store).answered == 1
    assert [request.key for request in backend.requests] == [ids[0]]


def test_shards_are_pictures_and_make_one_set(world, folder, tmp_path):
    path, card = folder / "test.jsonl", files.read_card(folder / "test.jsonl")
    image = {row.question.id: row.image for row in files.read(path)}
    parts = []
    for number in (1, 2, 3):
        answerer = model(world, Scripted())
        asking.ask(path, card, answerer, asking.store_of(tmp_path, answerer, card), (number, 3))
        parts.append({image[request.key] for request in answerer.backend.requests})
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert scoring.collect(path, card, answerer, asking.store_of(tmp_path, answerer, card)).open == 0


def test_a_question_is_shown_with_its_picture_once_encoded(world, folder, tmp_path):
    backend = Scripted()
    answered_by(folder, tmp_path, model(world, backend))
    rows = {row.question.id: row for row in files.read(folder / "test.jsonl")}
    pictures = {}
    for request in backend.requests:
        system, user = request.messages
        assert system.role == "system"
        picture, text = user.parts
        assert text == rows[request.key].question.text
        pictures.setdefault(rows[request.key].image, set()).add(id(picture))
    assert len(pictures) == 14
    assert all(len(ids) == 1 for ids in pictures.values())


def test_questions_about_unreadable_pictures_stay_open(world, folder, tmp_path, monkeypatch):
    rows = list(files.read(folder / "test.jsonl"))
    lost = rows[5].image
    place = [str(image) for image in world.records("test").images].index(lost)
    real = answerers.shown

    def broken(dataset, records, image, encoding):
        if image == place:
            raise ImageError(f"{lost}: not a readable picture")
        return real(dataset, records, image, encoding)

    monkeypatch.setattr(answerers, "shown", broken)
    outcome, _, store = answered_by(folder, tmp_path, model(world, Scripted()))
    assert set(outcome.open) == {row.question.id for row in rows if row.image == lost}
    assert all("not a readable picture" in reason for reason in outcome.open.values())
    monkeypatch.setattr(answerers, "shown", real)
    again = asking.ask(folder / "test.jsonl", files.read_card(folder / "test.jsonl"), model(world, Scripted()), store)
    assert again.answered == len(outcome.open)
    assert not again.open


def test_a_model_in_this_process_sees_examples_and_question(world, folder, tmp_path):
    place = tiny.build(tmp_path / "tiny")
    backend = LocalModel(place, device="cpu", batch_size=2)
    examples = Examples(folder / "train.jsonl", world, 1)
    answerer = model(world, backend, examples=examples, encoding=Encoding(64), decoding=Decoding(max_tokens=4))
    card = files.read_card(folder / "test.jsonl")
    store = asking.store_of(tmp_path, answerer, card)
    outcome = asking.ask(folder / "test.jsonl", card, answerer, store, limit=3)
    assert (outcome.asked, outcome.answered) == (3, 3)
    assert answerer.identity()["backend"] == "transformers"


def test_examples_are_the_same_everywhere_and_never_of_test(world, folder, tmp_path):
    train = folder / "train.jsonl"
    backend = Scripted()
    examples = Examples(train, world, shots=3)
    answerer = model(world, backend, examples=examples)
    answered_by(folder, tmp_path, answerer)
    truth = {row.question.text: row for row in files.read(train)}
    form = {row.question.id: row.question.form for row in files.read(folder / "test.jsonl")}
    before = {}
    for request in backend.requests:
        turns = request.messages[1:-1]
        assert [turn.role for turn in turns] == ["user", "assistant"] * 3
        refusals = 0
        for shown, said in zip(turns[::2], turns[1::2], strict=True):
            picture, text = shown.parts
            assert isinstance(picture, Picture)
            assert truth[text].question.form == form[request.key]
            refusals += said.parts[0].startswith("cannot tell")
        assert refusals == 1
        before.setdefault(form[request.key], set()).add(tuple(map(id, turns)))
    assert all(len(ids) == 1 for ids in before.values())
    assert Examples(train, world, 3).identity() == examples.identity() != Examples(train, world, 3, seed=1).identity()
    assert answerer.mode == "in context, 3 examples"
    assert model(world, backend).identity() != answerer.identity()
    with pytest.raises(DataError, match="would give its answers away"):
        Examples(folder / "test.jsonl", world, 1)
    with pytest.raises(DataError, match="are wanted"):
        Examples(train, world, 500)


# Metrics against other code -------------------------------------------------------------------------------------------


def point_of(x, y, points=((0.5, 0.5),), head=(0.1, 0.1, 0.2, 0.2)):
    return Truth("", points=points, head=head), Said(point=None if x is None else (x, y))


def values_of(metric, task, pairs, **fields):
    questions = [Question(str(index), 0, task, "point", "box", "") for index in range(len(pairs))]
    truths, said = zip(*pairs, strict=True)
    return metric.values(questions=questions, truths=list(truths), said=list(said), **fields)


def test_points_against_numpy():
    dice = np.random.default_rng(0)
    points, said = dice.random((40, 3, 2)), dice.random((40, 2))
    pairs = [point_of(*said[i], points=tuple(map(tuple, points[i]))) for i in range(40)]
    distance = np.linalg.norm(said - points.mean(1), axis=1)
    assert torch.allclose(values_of(metrics.PointDistance(), "point", pairs)[0][:, 0], torch.from_numpy(distance))
    assert values_of(metrics.PointWithin(), "point", pairs)[0].mean() == (distance <= 0.1).mean()
    one, other = said - 0.15, points.mean(1) - 0.15
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    angle = values_of(metrics.PointAngle(), "point", pairs)[0][:, 0].numpy()
    assert np.allclose(angle, np.degrees(np.arccos(cosine)), atol=1e-4)


def test_no_point_costs_as_much_as_the_worst():
    pairs = [point_of(None, None, points=((0.2, 0.9),))]
    assert float(values_of(metrics.PointDistance(), "point", pairs)[0]) == pytest.approx(np.hypot(0.8, 0.9))
    assert float(values_of(metrics.PointAngle(), "point", pairs)[0]) == 180
    assert float(values_of(metrics.PointWithin(), "point", pairs)[0]) == 0
    assert not len(values_of(metrics.PointAngle(), "point", [point_of(0.3, 0.3, head=(np.nan,) * 4)])[0])


def test_refusals_against_scikit_learn():
    dice = np.random.default_rng(1)
    due, done = dice.random(200) < 0.5, dice.random(200) < 0.4
    pairs = [(Truth("", refusal="outside" if a else ""), Said(refusal="ambiguous") if b else Said(direction=1))
             for a, b in zip(due, done, strict=True)]  # fmt: skip
    expected = {
        metrics.RefusalAccuracy: accuracy_score(due, done),
        metrics.RefusalPrecision: precision_score(due, done),
        metrics.RefusalRecall: recall_score(due, done),
        metrics.RefusalF1: f1_score(due, done),
        metrics.FalseRefusal: 1 - recall_score(~due, ~done),
    }
    for kind, value in expected.items():
        metric = kind()
        values, chosen = values_of(metric, "recognition", pairs)
        metric.add(chosen, values)
        assert float(metric.compute()) == pytest.approx(value), kind
    unread = [(Truth("", refusal="outside"), Said()), (Truth(""), Said())]
    values, _ = values_of(metrics.RefusalAccuracy(), "recognition", unread)
    assert float(metrics.RefusalAccuracy().reduce(values)) == 0, "what cannot be read is wrong either way"


def lcs(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_texts_against_torchmetrics_and_by_hand():
    said = ["the quick brown fox jumps over it", "red ball on the shelf", "cat", ""]
    truth = ["a quick brown fox jumps over him", "the red ball on the table", "dog", "cup"]
    pairs = [(Truth("", labels=("x",), references=(b,)), Said(phrase=a)) for a, b in zip(said, truth, strict=True)]
    plain = [text.split(" ", 1)[1] if text[:2] in ("a ", "th") else text for text in truth]
    bleu = metrics.ObjectBLEU()
    found = float(bleu.reduce(values_of(bleu, "object", pairs)[0]))
    assert found == pytest.approx(float(bleu_score(said, [[one] for one in plain], smooth=True)), abs=1e-6)
    rouge = values_of(metrics.ObjectROUGE(), "object", pairs)[0][:, 0].tolist()
    for value, a, b in zip(rouge, said, plain, strict=True):
        a, b = a.split(), b.split()
        common = lcs(a, b)
        assert value == pytest.approx(2 * common / (len(a) + len(b)) if common else 0)
    short = [(Truth("", labels=("ball",), references=("a red ball",)), Said(phrase="red ball"))]
    assert float(bleu.reduce(values_of(bleu, "object", short)[0])) == pytest.approx(1)


def test_similarity_takes_the_best_description_and_nothing_of_no_answer():
    def similar(texts, others):
        return [len(set(a) & set(b)) / 10 for a, b in zip(texts, others, strict=True)]

    pairs = [(Truth("", references=("abc", "abcdef")), Said(phrase="abcd")), (Truth("", references=("a",)), Said())]
    found = values_of(metrics.ObjectSimilarity(), "object", pairs, similarity=similar)[0]
    assert found[:, 0].tolist() == [0.4, 0.0]


def test_intervals_are_over_sources(folder, tmp_path):
    _, found, _ = answered_by(folder, tmp_path, Random(folder / "train.jsonl"))
    value = scoring.measure(found)["vqa_direction"]
    rows = [(row.group, said.direction == row.truth.direction)
            for row, said in zip(found.rows, found.said, strict=True) if row.question.task == "direction"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["group", "right"]).astype({"right": float})
    sums = frame.groupby("group")["right"].agg(["sum", "count"]).to_numpy()
    dice = np.random.default_rng(9)
    picks = dice.integers(0, len(sums), (4000, len(sums)))
    means = sums[picks, 0].sum(1) / sums[picks, 1].sum(1)
    assert value.value == pytest.approx(frame["right"].mean())
    assert np.allclose((value.low, value.high), np.percentile(means, (2.5, 97.5)), atol=0.04)
    one = replace(found, rows=[replace(row, group="one") for row in found.rows])
    assert scoring.measure(one)["vqa_direction"].low is None, "one source says nothing about chance"


def test_draws_are_what_repeated_questions_would_give():
    dice = np.random.default_rng(3)
    weights = dice.integers(0, 3, (5, 30)).astype(float)
    flags = dice.integers(0, 2, (30, 2)).astype(float)
    tasks = np.stack([dice.integers(0, 4, 30), dice.integers(0, 2, 30)], axis=1).astype(float)
    matches = np.cumprod(dice.integers(1, 3, (30, 4))[:, ::-1], axis=1)[:, ::-1]
    texts = np.concatenate([matches, matches + 1, matches[:, :2]], axis=1).astype(float)
    for kind, values in {
        metrics.RefusalAccuracy: flags, metrics.RefusalPrecision: flags, metrics.RefusalRecall: flags,
        metrics.RefusalF1: flags, metrics.FalseRefusal: flags, metrics.Overall: tasks, metrics.ObjectBLEU: texts,
    }.items():  # fmt: skip
        metric = kind()
        slow = GazeMetric.drawn(metric, values, weights)
        assert np.allclose(metric.drawn(values, weights), slow, equal_nan=True), kind
    nothing = np.zeros((1, 30))
    assert np.isnan(metrics.RefusalPrecision().drawn(flags, nothing)[0])


def test_the_evaluator_scores_answers_of_any_method(world):
    records = world.records("test")
    samples = ImageSamples(
        world, records, Preprocess((32, 32), questions=True), augment=False, sees_images=False, bad_images="error",
        seed=0,
    )  # fmt: skip
    batches = [collate([samples[i] for i in part]) for part in (range(7), range(7, 14))]
    evaluator = Scorer(world.protocol)
    for batch in batches:
        answers = [truth.answer for truth in batch.targets.answers]
        scored = evaluator.update(Prediction(extra={"answers": answers}), batch)
        assert "vqa_overall" in scored.values
    scores = evaluator.compute()
    assert scores["vqa_overall"]["all"].value == 1
    assert scores["vqa_parsed"]["all"].count == sum(len(batch.questions) for batch in batches)
    assert set(scores["vqa_refusal"]) == {"all"}
    evaluator.reset()
    evaluator.update(Prediction(point=torch.full((batch.people, 2), 0.5)), batch)
    assert not any(name.startswith("vqa") for name in evaluator.compute())
    with pytest.raises(ValueError, match="one each"):
        evaluator.update(Prediction(extra={"answers": ["x"]}), batch)
    assert world.protocol.describe()["questions"]["id"] == "gazebench-vqa-v1"


def test_stored_answers_are_scored_again_and_bad_ones_explained(world, folder, tmp_path, capsys):
    said = {str(person): {} for person in world.records("test").person_id}
    for row in files.read(folder / "test.jsonl"):
        said[row.person][row.question.id] = row.truth.answer

    def scored(name, people, *more):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"person_id": p, "answers": own}) + "\n" for p, own in people.items()))
        capsys.readouterr()
        done = main(["score", str(file), "gazeworld", *SIZES, *more, f"--boards={tmp_path}", f"--runs={tmp_path}"])
        found = list((tmp_path / "gazeworld").glob(f"{name}-*.json")) if not done else []
        return json.loads(found[0].read_text()) if found else capsys.readouterr().err

    truth = scored("truth", said)
    assert truth["metrics"]["vqa_overall"]["all"]["value"] == 1
    assert truth["metrics"]["vqa_parsed"]["all"]["count"] == sum(map(len, said.values()))
    assert "avg_l2" not in truth["metrics"]
    mute = scored("mute", {person: dict.fromkeys(own, "") for person, own in said.items()})
    assert mute["metrics"]["vqa_overall"]["all"]["value"] == 0
    person, own = next((person, own) for person, own in said.items() if own)
    gone = next(iter(own))
    lacking = scored("lacking", {**said, person: {name: text for name, text in own.items() if name != gone}})
    assert f"answers of '{person}' lack question '{gone}'" in lacking
    assert "lacking.jsonl" in lacking
    numbers = scored("numbers", {**said, person: {**own, gone: 5}})
    row = 1 + list(said).index(person)
    assert f"numbers.jsonl:{row}: answers of '{gone}' is 5, not a text" in numbers
    # Who is left out changes what is asked of the others.
    few = dict(list(said.items())[1:])
    assert "no prediction" in scored("few", few)


def test_answers_of_a_part_of_the_people_are_not_scored(world, tmp_path):
    people = [str(person) for person in world.records("test").person_id][1:]
    rows = [{"person_id": person, "x": 0.5, "y": 0.5, "answers": {}} for person in people]
    file = tmp_path / "part.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--partial", *SIZES, f"--boards={tmp_path}", f"--runs={tmp_path}"]
    assert main(["score", str(file), "gazeworld", *options]) == 0
    record = json.loads(next((tmp_path / "gazeworld").glob("part-*.json")).read_text())
    assert "avg_l2" in record["metrics"]
    assert not any(name.startswith("vqa") for name in record["metrics"])
    assert any("answers were not scored" in reason for reason in record["status"]["reasons"])


def test_runs_stand_by_what_they_learnt(tmp_path):
    record = json.loads(next((ROOT / "leaderboards" / "gazeworld").glob("vl4gaze-*.json")).read_text())
    kinds = {"zero-shot": (0, None), "trained": (9, None), "given": (0, {"file": "weights.pt"})}
    (tmp_path / "gazeworld").mkdir()
    for title, (learnt, initial) in kinds.items():
        one = record | {"run": title, "method": record["method"] | {"name": title, "title": title}}
        one["parameters"] = {"total": 9, "trained": learnt}
        one["weights"] = record["weights"] | {"initial": initial}
        (tmp_path / "gazeworld" / f"{title}-{title}.json").write_text(json.dumps(one))
    modes = {row["model"].split(",")[0]: row["mode"] for row in table._records(tmp_path, "gazeworld")}
    assert modes == {"zero-shot": "zero-shot", "trained": "trained", "given": "trained"}


# Models that describe and judge ---------------------------------------------------------------------------------------


def test_a_model_describes_what_nobody_named(tmp_path):
    dataset = load_dataset("gazefollow").fake(tmp_path / "data", people=8)
    records = dataset.records("test")
    first = str(records.person_id[0])
    say = {first: "no idea"}.get
    backend = Scripted(lambda key: say(key) or '{"object": "Dog", "description": "a brown dog on the sofa."}')
    describer = Describer(backend, Encoding(), Decoding())
    store = AnswerStore(tmp_path / "store", "describer", describer.identity())
    assert not describer.ask(dataset, records, store)
    assert len(backend.requests) == records.people
    x, y = np.round(999 * records.points_of(1).mean(0)).astype(int)
    assert f"[{x}, {y}]" in backend.requests[1].messages[1].parts[1]
    describer.ask(dataset, records, store)
    assert len(backend.requests) == records.people, "nobody is asked about twice"
    path, card = build(dataset, "test", tmp_path, words=described(dataset, records, store), describer={"model": "m"})
    objects = [row for row in files.read(path) if row.question.task == "object"]
    assert {row.person for row in objects} == {str(person) for person in records.person_id} - {first}
    assert {(row.truth.answer, row.truth.labels) for row in objects} == {("a brown dog on the sofa", ("dog",))}
    assert card["descriptions"] == {"model": "m"}
    assert understood("") == understood("[1]") == understood('{"object": 3}') == ("", "")


def test_a_judge_is_asked_once_about_what_was_said(world, folder, tmp_path):
    _, found, _ = answered_by(folder, tmp_path, model(world, Scripted(lambda key: "a red ball")))
    objects = [row.question.id for row in found.rows if row.question.task == "object"]
    verdicts = dict(zip(objects, ["Yes.", "no", "**Yes**", "perhaps"] * len(objects), strict=False))
    backend = Scripted(lambda key: verdicts[key])
    store = AnswerStore(tmp_path / "judge", "judge", judge.identity(backend, "digest"))
    right, open_ = judge.judge(backend, found, store, "test")
    assert open_ == 0
    assert [right[key] for key in objects[:4]] == [True, False, True, False]
    assert {request.key for request in backend.requests} == set(objects)
    judge.judge(backend, found, store, "test")
    assert len(backend.requests) == len(objects)
    share = np.mean([right[key] for key in objects])
    assert scoring.measure(found, judged=right)["vqa_object_judge"].value == pytest.approx(share)
    failing = Scripted(lambda key: Failure(key, "busy"))
    store = AnswerStore(tmp_path / "other", "judge", judge.identity(failing, "digest"))
    assert judge.judge(failing, found, store, "test")[1] == len(objects)


# The command ----------------------------------------------------------------------------------------------------------


class Talker(BaseHTTPRequestHandler):
    """Says "right" to everything, but nothing to the first question; counts."""

    asked: list[str] = []
    broken = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._send(200, {"data": [{"id": "tiny"}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = request["messages"][-1]["content"][-1]["text"]
        type(self).asked.append(text)
        if type(self).broken and len(self.asked) == 1:
            self._send(413, {"error": {"message": "too large"}})
        else:
            self._send(200, {"choices": [{"message": {"content": "right"}, "finish_reason": "stop"}]})

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_the_command_from_questions_to_the_table(tmp_path, capsys):
    places = Places(tmp_path / "runs", tmp_path / "boards")
    run = partial(command.main, places=places)
    assert run(["build", "gazeworld", *SIZES, "--split", "train", "--split", "test"]) == 0
    path = tmp_path / "runs/vqa/gazeworld/test.jsonl"
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert "recognition: answer" in path.with_suffix(".md").read_text()
    assert run(["ask", str(path), *SIZES, "--backend", "majority", "--board"]) == 0
    (row,) = (tmp_path / "boards/gazeworld").glob("*.json")
    record = json.loads(row.read_text())
    assert {"avg_l2", "avg_angle", "ap"} <= set(record["metrics"])
    assert record["samples"]["people"] == WORLD(train=16, val=2, test=14).records("test").people
    with ThreadingHTTPServer(("127.0.0.1", 0), Talker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asks = ["ask", str(path), *SIZES, "--backend", "openai", "--model", "tiny", "--in-flight", "1",
                "--url", f"http://127.0.0.1:{server.server_port}/v1", "--title", "Talker"]  # fmt: skip
        assert run(asks) == 1, "one question is open"
        before = len(Talker.asked)
        with pytest.raises(DataError, match=r"1 of .* have no answer"):
            run(["score", *asks[1:]])
        Talker.broken = False
        assert run(asks) == 0
        assert len(Talker.asked) == before + 1, "only what was open is asked again"
        with pytest.raises(DataError, match="not other"):
            run([*asks, "--model", "other"])
        server.shutdown()
    assert "Talker (zero-shot) on gazeworld/test" in capsys.readouterr().out
    assert run(["table", "gazeworld"]) == 0
    page = (tmp_path / "boards/vqa/gazeworld/README.md").read_text()
    assert "Majority" in page
    assert "Talker" in page
    assert "which is ours" in page
    assert "test: incomplete data" in page
    frame = pd.read_csv(tmp_path / "boards/vqa/gazeworld/table.csv")
    assert set(frame["model"]) == {"Majority", "Talker"}
    assert len(list(Path(tmp_path / "boards/vqa/gazeworld").glob("*.json"))) == 2
    with pytest.raises(DataError, match="built from other annotations"):
        run([*asks, "--dataset.test=13"])
    with pytest.raises(DataError, match="makes no sense here"):
        run([*asks, "--nonsense=1"])
