"""Visual question answering: files, whoever answers, resuming, scores against references, and the table."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from torchmetrics.functional.text import bleu_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError, ImageError
from gazebench.engine.record import validate
from gazebench.engine.registry import load_dataset
from gazebench.metrics.base import GazeMetric
from gazebench.report import run_data
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.local import LocalModel
from gazebench.vlm.messages import Backend, Decoding, EncodedImage, Failure, Reply
from gazebench.vlm.store import AnswerStore
from gazebench.vqa import asking, files, judge, metrics, protocols, scoring
from gazebench.vqa import table as question_table
from gazebench.vqa.answerers import Examples, Majority, ModelAnswerer, Oracle, Random, Shuffled
from gazebench.vqa.build import build
from gazebench.vqa.describe import Describer, described, parse_target
from gazebench.vqa.metrics_v2 import QUESTION_METRICS_V2
from gazebench.vqa.questions.parsing import ParsedAnswer, as_json, schema
from gazebench.vqa.task_v2 import QuestionsV2
from gazebench.vqa.types import Question, Truth

ROOT = Path(__file__).resolve().parent.parent
WORLD = load_dataset("gazeworld")
SIZES = ["--dataset.train=16", "--dataset.val=2", "--dataset.test=40"]


@pytest.fixture(scope="module")
def world():
    return WORLD(train=16, val=2, test=40)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """The questions of train and test."""
    place = tmp_path_factory.mktemp("questions")
    for split in ("train", "test"):
        build(world, split, place)
    return place


@pytest.fixture(scope="module")
def path(folder):
    return folder / "test.jsonl"


@pytest.fixture(scope="module")
def card(path):
    return files.read_card(path)


@pytest.fixture(scope="module")
def questions(path):
    return list(files.read(path))


class Scripted(Backend):
    """Answers by a function of the key."""

    def __init__(self, answer=lambda key: "left"):
        self.answer, self.requests = answer, []

    def identity(self):
        return {"backend": "scripted", "model": "org/Scripted 1.0"}

    def ask(self, requests):
        for request in requests:
            self.requests.append(request)
            answer = self.answer(request.key)
            yield answer if isinstance(answer, Reply | Failure) else Reply(request.key, answer, "stop")

    @property
    def keys(self):
        return [request.key for request in self.requests]


@pytest.fixture
def ask(path, card, tmp_path):
    """Asks the test questions; returns the outcome, questions with answers, and the store."""

    def run(answerer, **options):
        store = asking.store_of(tmp_path, answerer, card)
        outcome = asking.ask(path, card, answerer, store, **options)
        return outcome, asking.collect(path, card, answerer, store, partial=True), store

    return run


@pytest.fixture
def measured(world, card):
    """The scores of questions with answers."""

    def run(answered, **options):
        found = scoring.measure(answered, card, world, **options)
        assert all(set(subsets) == {"all"} for subsets in found.values())
        return {name: subsets["all"] for name, subsets in found.items()}

    return run


@pytest.fixture
def model(world):
    return lambda backend, **options: ModelAnswerer(backend, world, world.records("test"), **options)


def test_a_file_is_the_same_every_time_and_says_what_it_is(world, path, card, questions, tmp_path):
    again, own = build(world, "test", tmp_path)
    assert (again.read_bytes(), own["sha256"]) == (path.read_bytes(), card["sha256"])
    assert (card["protocol"], card["origin"]) == ("gazebench-vqa-v2", "ours")
    counts = card["counts"]
    assert counts["questions"] == len({record.question.id for record in questions}) == len(questions)
    assert counts["images"] == len({record.image for record in questions}) == 40
    assert counts["people"] == len({record.person for record in questions}) == world.records("test").people
    assert sum(counts["task"].values()) == len(questions)
    assert [files.QuestionRecord.from_json(record.to_json()) for record in questions[:20]] == questions[:20]


def test_a_protocol_is_known_or_named_as_unknown(card, monkeypatch):
    assert protocols.protocol_of(card).origin == "ours"
    with pytest.raises(DataError, match=r"vl4gaze-v1.*gazebench-vqa-v1, gazebench-vqa-v2"):
        protocols.protocol_of({**card, "protocol": "vl4gaze-v1"})
    with pytest.raises(DataError, match="templates"):
        protocols.protocol_of({**card, "templates": "0"})
    other = type("Other", (QuestionsV2,), {"id": "vl4gaze-v1", "origin": "official"})
    monkeypatch.setitem(protocols.PROTOCOLS, other.id, other)
    assert type(protocols.protocol_of({**card, "protocol": "vl4gaze-v1"})) is other


def test_a_changed_file_or_a_broken_line_is_an_error(path, tmp_path):
    copy = tmp_path / "test.jsonl"
    with pytest.raises(DataError, match=r"test\.jsonl.*gazebench vqa build"):
        files.read_card(copy)
    copy.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(DataError, match=r"test\.jsonl.*test\.json\b"):
        files.read_card(copy)
    shutil.copy(path.with_suffix(".json"), copy.with_suffix(".json"))
    with pytest.raises(DataError, match=r"test\.jsonl"):
        files.read_card(copy)
    with pytest.raises(DataError, match=r"test\.jsonl:\d+"):
        list(files.read(copy))


def test_files_stream_in_constant_memory_and_come_whole_or_not_at_all(tmp_path, questions):
    def many(count, error=None):
        for index in range(count):
            question = replace(questions[0].question, id=str(index))
            yield replace(questions[0], image=f"{index // 4}", question=question)
        if error:
            raise error

    place = tmp_path / "x.jsonl"
    with pytest.raises(OSError, match="disk full"):
        files.write(place, many(1, OSError("disk full")), {})
    assert not list(tmp_path.iterdir())
    tracemalloc.start()
    try:
        counts = files.write(place, many(8000), {})["counts"]
        assert sum(1 for _ in files.read(place)) == 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (counts["questions"], counts["images"]) == (8000, 2000)
    assert peak < 1e6 < 2e6 < place.stat().st_size


def test_the_truth_scores_everything_and_others_answers_do_not(path, ask, measured):
    perfect = measured(ask(Oracle())[1])
    best = {use.name: 1.0 if use.metric().higher_is_better else 0.0 for use in QUESTION_METRICS_V2}
    needs_more = {name for name in best if "clip" in name or "judge" in name or name.endswith("_ap")}
    assert set(perfect) == set(best) - needs_more
    records = ask(Oracle())[1].records
    best["vqa2_refused"] = np.mean([bool(record.truth.refusal) for record in records])
    for name, score in perfect.items():
        tolerance = {"vqa2_point_l2": 1e-3, "vqa2_point_angle": 0.5}.get(name, 0)
        assert score.value == pytest.approx(best[name], abs=tolerance), name
        if score.low is not None:  # of a single source there is no interval
            assert score.low - 1e-9 <= score.value <= score.high + 1e-9
    chance = measured(ask(Shuffled(path))[1])
    bounds = {"overall": 0.35, "object": 0.3, "direction": 0.4, "point": 0.3}
    assert all(chance[f"vqa2_{name}"].value < bound for name, bound in bounds.items())
    for name in ("refusal", "sa"):
        assert chance[f"vqa2_{name}"].low <= 0.5 <= chance[f"vqa2_{name}"].high
    assert chance["vqa2_parsed"].value == 1, "answers of another form would not be parsed"


def test_baselines_answer_in_the_form_asked_for(folder, questions, ask):
    for answerer in (Random(folder / "train.jsonl"), Majority(folder / "train.jsonl")):
        outcome, found, _ = ask(answerer)
        assert outcome.answered == outcome.asked == len(found.records)
        assert all(answer.valid for answer in found.parsed)
    train, majority = list(files.read(folder / "train.jsonl")), Majority(folder / "train.jsonl")
    first = {record.question.task: record for record in questions}
    directions = [record.truth.answer for record in train if record.question.task == "direction"]
    assert directions.count(majority.answer(first["direction"])) == max(map(directions.count, directions))
    points = [r.truth.points[0] for r in train if r.question.task == "point" and r.truth.points]
    mean = [round(999 * value) for value in np.mean(points, axis=0)]
    assert json.loads(majority.answer(first["point"])) == {"point_2d": mean}


def test_failures_stay_open_and_whatever_else_comes_is_an_answer_once_and_for_all(questions, ask, measured, model):
    ids = [r.question.id for r in questions if r.question.task == "point" and not r.truth.refusal][:4]
    bad = {ids[0]: Failure(ids[0], "too large"), ids[1]: "", ids[2]: "[1, 2] " * 100_000,
           ids[3]: Reply(ids[3], "", "content_filter")}  # fmt: skip
    outcome, found, store = ask(model(Scripted(lambda key: bad.get(key, "I cannot tell."))))
    assert (dict(outcome.open), found.open) == ({ids[0]: "too large"}, 1)
    parsed = {record.question.id: answer for record, answer in zip(found.records, found.parsed, strict=True)}
    assert [parsed[key].valid for key in ids] == [False, False, True, True]
    assert parsed[ids[3]].refusal
    assert len(store.answers("test")[ids[2]][0].reply.text) == 700_000, "kept word for word"
    scores = measured(found)
    worst = {"vqa2_refusal_recall": 1, "vqa2_false_refusal": 1, "vqa2_direction_steps": 4}
    assert {name: scores[name].value for name in worst} == worst
    again = Scripted()
    assert ask(model(again))[0].answered == 1
    assert again.keys == [ids[0]]


def test_shards_are_images_and_make_one_set(questions, ask, model):
    image = {record.question.id: record.image for record in questions}
    parts = []
    for number in (1, 2, 3):
        backend = Scripted()
        found = ask(model(backend), shard=(number, 3))[1]
        parts.append({image[key] for key in backend.keys})
    assert sum(map(len, parts)) == len(set().union(*parts)) == 40
    assert found.open == 0


def test_a_question_is_shown_with_its_image_once_encoded(questions, ask, model):
    backend = Scripted()
    ask(model(backend))
    asked = {record.question.id: record for record in questions}
    images = {}
    for request in backend.requests:
        system, user = request.messages
        image, text = user.parts
        assert (system.role, text) == ("system", asked[request.key].question.text)
        images.setdefault(asked[request.key].image, set()).add(id(image))
    assert [len(ids) for ids in images.values()] == [1] * 40


def test_questions_about_unreadable_images_stay_open(world, questions, ask, model, monkeypatch):
    lost = questions[5].image
    place = [str(image) for image in world.records("test").images].index(lost)

    def broken(records, image):
        if image == place:
            raise ImageError(f"{lost}: broken")
        return WORLD.image(world, records, image)

    monkeypatch.setattr(world, "image", broken)
    outcome = ask(model(Scripted()))[0]
    assert set(outcome.open) == {record.question.id for record in questions if record.image == lost}
    assert outcome.unreadable == (f"{lost}: broken",)
    monkeypatch.undo()
    again = ask(model(Scripted()))[0]
    assert (again.answered, dict(again.open)) == (len(outcome.open), {})


def test_a_model_in_this_process_sees_examples_and_question(world, folder, ask, model, save_vlm, tmp_path):
    backend = LocalModel(save_vlm(tmp_path / "tiny"), device="cpu", batch_size=2)
    examples = Examples(folder / "train.jsonl", world, 1)
    answerer = model(backend, examples=examples, encoding=Encoding(64), decoding=Decoding(max_tokens=4))
    outcome = ask(answerer, limit=3)[0]
    assert (outcome.asked, outcome.answered, answerer.identity()["backend"]) == (3, 3, "transformers")


def test_examples_are_the_same_everywhere_and_never_of_test(world, folder, path, questions, ask, model):
    train, backend = folder / "train.jsonl", Scripted()
    examples = Examples(train, world, shots=3)
    answerer = model(backend, examples=examples)
    ask(answerer)
    truth = {record.question.text: record for record in files.read(train)}
    form = {record.question.id: record.question.form for record in questions}
    before = {}
    for request in backend.requests:
        turns = request.messages[1:-1]
        assert [turn.role for turn in turns] == ["user", "assistant"] * 3
        for shown in turns[::2]:
            image, text = shown.parts
            assert isinstance(image, EncodedImage)
            assert truth[text].question.form == form[request.key]
        refused = sum(answer.parts[0].startswith("cannot tell") for answer in turns[1::2])
        assert refused == (0 if form[request.key] == "yes_no" else 1)
        before.setdefault(form[request.key], set()).add(tuple(map(id, turns)))
    assert all(len(ids) == 1 for ids in before.values())
    assert Examples(train, world, 3).identity() == examples.identity() != Examples(train, world, 3, seed=1).identity()
    assert answerer.mode == "in context, 3 examples"
    assert model(backend).identity() != answerer.identity()
    for place, shots in ((path, 1), (train, 500)):
        with pytest.raises(DataError, match=place.name):
            Examples(place, world, shots)


def values_of(metric, kind, pairs, **fields):
    questions = [Question(str(index), kind, "point", "box", "") for index in range(len(pairs))]
    truths, parsed = zip(*pairs, strict=True)
    return metric.values(questions=questions, truths=list(truths), parsed=list(parsed), **fields)


def test_points_against_numpy_and_no_point_as_the_worst():
    rng = np.random.default_rng(0)
    points, given, head = rng.random((40, 3, 2)), rng.random((40, 2)), (0.1, 0.1, 0.2, 0.2)
    truths = [Truth("", points=tuple(map(tuple, some)), head=head) for some in points]
    pairs = [(truth, ParsedAnswer(point=tuple(point))) for truth, point in zip(truths, given, strict=True)]
    distance = np.linalg.norm(given - points.mean(1), axis=1)
    assert torch.allclose(values_of(metrics.PointDistance(), "point", pairs)[0][:, 0], torch.from_numpy(distance))
    assert values_of(metrics.PointWithin(), "point", pairs)[0].mean() == (distance <= 0.1).mean()
    one, other = given - 0.15, points.mean(1) - 0.15
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    angle = values_of(metrics.PointAngle(), "point", pairs)[0][:, 0].numpy()
    assert np.allclose(angle, np.degrees(np.arccos(cosine)), atol=1e-4)
    silent = [(Truth("", points=((0.2, 0.9),), head=head), ParsedAnswer())]
    worst = {metrics.PointDistance: np.hypot(0.8, 0.9), metrics.PointAngle: 180, metrics.PointWithin: 0}
    for kind, value in worst.items():
        assert float(values_of(kind(), "point", silent)[0]) == pytest.approx(value)
    at_the_head = [(silent[0][0], ParsedAnswer(point=(0.15, 0.15)))]
    assert float(values_of(metrics.PointAngle(), "point", at_the_head)[0]) == 180
    assert not len(values_of(metrics.PointAngle(), "point", [(Truth("", points=((0.2, 0.9),)), pairs[0][1])])[0])


def test_refusals_against_scikit_learn():
    rng = np.random.default_rng(1)
    due, done = rng.random(200) < 0.5, rng.random(200) < 0.4
    refusal, direction = ParsedAnswer(refusal="ambiguous"), ParsedAnswer(direction=1)
    pairs = [(Truth("", "outside" if a else ""), refusal if b else direction) for a, b in zip(due, done, strict=True)]
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
    unparsed = [(Truth("", "outside"), ParsedAnswer()), (Truth(""), ParsedAnswer())]
    values, _ = values_of(metrics.RefusalAccuracy(), "recognition", unparsed)
    assert float(metrics.RefusalAccuracy().reduce(values)) == 0, "what cannot be parsed is wrong either way"


def longest_common(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_texts_against_torchmetrics_and_by_hand():
    answers = ["the quick brown fox jumps over it", "red ball on the shelf", "cat", ""]
    truth = ["a quick brown fox jumps over him", "the red ball on the table", "dog", "cup"]
    pairs = [(Truth("", references=(b,)), ParsedAnswer(phrase=a)) for a, b in zip(answers, truth, strict=True)]
    plain = [text.split(" ", 1)[1] if text[:2] in ("a ", "th") else text for text in truth]
    bleu = metrics.ObjectBLEU()
    found = float(bleu.reduce(values_of(bleu, "object", pairs)[0]))
    assert found == pytest.approx(float(bleu_score(answers, [[one] for one in plain], smooth=True)), abs=1e-6)
    rouge = values_of(metrics.ObjectROUGE(), "object", pairs)[0][:, 0].tolist()
    for value, a, b in zip(rouge, map(str.split, answers), map(str.split, plain), strict=True):
        common = longest_common(a, b)
        assert value == pytest.approx(2 * common / (len(a) + len(b)) if common else 0)
    short = [(Truth("", references=("a red ball",)), ParsedAnswer(phrase="red ball"))]
    assert float(bleu.reduce(values_of(bleu, "object", short)[0])) == pytest.approx(1)


class Letters:
    """Stands for a CLIP: texts are as similar as they share letters."""

    def similarity(self, texts, others):
        return [len(set(a) & set(b)) / 10 for a, b in zip(texts, others, strict=True)]


def test_similarity_takes_the_best_description_and_nothing_of_no_answer(ask, measured):
    pairs = [(Truth("", references=("abc", "abcdef")), ParsedAnswer(phrase="abcd")),
             (Truth("", references=("a",)), ParsedAnswer())]  # fmt: skip
    found = values_of(metrics.ObjectSimilarity(), "object", pairs, vocabulary=Letters())[0]
    assert found[:, 0].tolist() == [0.4, 0.0]
    assert 0.2 < measured(ask(Oracle())[1], vocabulary=Letters())["vqa2_object_clip"].value < 1


def test_intervals_are_over_sources(folder, ask, measured):
    found = ask(Random(folder / "train.jsonl"))[1]
    score = measured(found)["vqa2_direction"]
    rows = [(record.group, float(answer.direction == record.truth.direction))
            for record, answer in zip(found.records, found.parsed, strict=True)
            if record.question.task == "direction"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["group", "right"])
    sums = frame.groupby("group")["right"].agg(["sum", "count"]).to_numpy()
    picks = np.random.default_rng(9).integers(0, len(sums), (4000, len(sums)))
    means = sums[picks, 0].sum(1) / sums[picks, 1].sum(1)
    assert (score.value, score.sources) == (pytest.approx(frame["right"].mean()), len(sums))
    assert np.allclose((score.low, score.high), np.percentile(means, (2.5, 97.5)), atol=0.04)


def test_draws_are_what_repeated_questions_would_give():
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 3, (5, 30)).astype(float)
    flags = rng.integers(0, 2, (30, 2)).astype(float)
    types = np.stack([rng.integers(0, 4, 30), rng.integers(0, 2, 30)], axis=1).astype(float)
    matches = np.cumprod(rng.integers(1, 3, (30, 4))[:, ::-1], axis=1)[:, ::-1]
    texts = np.concatenate([matches, matches + 1, matches[:, :2]], axis=1).astype(float)
    for kind, values in {
        metrics.RefusalAccuracy: flags, metrics.RefusalPrecision: flags, metrics.RefusalRecall: flags,
        metrics.RefusalF1: flags, metrics.FalseRefusal: flags, metrics.Overall: types, metrics.ObjectBLEU: texts,
    }.items():  # fmt: skip
        metric = kind()
        slow = GazeMetric.drawn(metric, values, weights)
        assert np.allclose(metric.drawn(values, weights), slow, equal_nan=True), kind
    assert np.isnan(metrics.RefusalPrecision().drawn(flags, np.zeros((1, 30)))[0])


def test_a_model_describes_what_nobody_named(tmp_path):
    dataset = load_dataset("gazefollow").fake(tmp_path / "data", people=8)
    records = dataset.records("test")
    first = str(records.person_id[0])
    answer = {first: "no idea"}.get
    backend = Scripted(lambda key: answer(key) or '{"object": "Dog", "description": "a brown dog on the sofa."}')
    describer = Describer(backend, Encoding(), Decoding())
    store = AnswerStore(tmp_path / "store", "describer", describer.identity())
    assert not describer.ask(dataset, records, store).open
    assert len(backend.requests) == records.people
    person = records.person_id.tolist().index(backend.keys[1])
    x, y = np.round(999 * records.points_of(person).mean(0)).astype(int)
    assert f"[{x}, {y}]" in backend.requests[1].messages[1].parts[1]
    describer.ask(dataset, records, store)
    assert len(backend.requests) == records.people, "nobody is asked about twice"
    descriptions = described(dataset, records, store)
    path, card = build(dataset, "test", tmp_path, descriptions=descriptions, describer={"model": "m"})
    objects = [record for record in files.read(path) if record.question.task == "object"]
    assert {record.person for record in objects} == {str(person) for person in records.person_id} - {first}
    assert {(r.truth.answer, r.truth.labels) for r in objects} == {("a brown dog on the sofa", ("dog",))}
    assert card["descriptions"] == {"model": "m"}
    assert parse_target("") == parse_target("[1]") == parse_target('{"object": 3}') == ("", "")


def test_a_judge_is_asked_once_about_what_was_answered(ask, measured, model, tmp_path):
    _, found, store = ask(model(Scripted(lambda key: "a red ball")))
    objects = [record.question.id for record in found.records if record.question.task == "object"]
    said = ["Yes.", "no", '{"verdict": "yes"}', "perhaps", "Verdict: correct"]
    verdicts = dict(zip(objects, said * len(objects), strict=False))
    backend = Scripted(verdicts.get)
    for _ in range(2):
        right, by = judge.judge(backend, found, tmp_path / "judge", store, "test")
        assert sorted(backend.keys) == sorted(objects)
    unreadable = len(objects[3::5])
    assert (by["model"], by["asked"], by["unreadable"]) == ("org/Scripted 1.0", len(objects), unreadable)
    assert [right.get(key) for key in objects[:5]] == [True, False, True, None, True]
    scores = measured(found, judged=right)
    assert scores["vqa2_object_judge"].value == pytest.approx(np.mean(list(right.values())))
    assert scores["vqa2_object_judge"].count == len(objects) - unreadable
    assert scores["vqa2_object_judge_open"].value == pytest.approx(unreadable / len(objects))
    assert backend.requests[0].schema["properties"]["verdict"]["enum"] == ["yes", "no"]
    with pytest.raises(DataError, match=str(len(objects))):
        judge.judge(Scripted(lambda key: Failure(key, "busy")), found, tmp_path / "other", store, "test")


def test_the_commands_from_questions_to_the_table(tmp_path, capsys, chat_server):
    runs, boards = f"--runs={tmp_path / 'runs'}", f"--boards={tmp_path / 'boards'}"
    path, board = tmp_path / "runs/vqa/gazeworld/test.jsonl", tmp_path / "boards/vqa/gazeworld"

    def run(step, *arguments):
        code = main(["vqa", step, *map(str, arguments)])
        return code, "".join(capsys.readouterr())

    assert run("build", "gazeworld", *SIZES, "--split", "train", "--split", "test", runs)[0] == 0
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert "recognition: answer" in path.with_suffix(".md").read_text()
    assert run("ask", path, *SIZES, "--backend", "majority", "--board", runs, boards)[0] == 0
    (row,) = (tmp_path / "boards/gazeworld").glob("*.json")
    record = json.loads(row.read_text())
    assert {"avg_l2", "avg_angle", "ap"} <= set(record["metrics"])
    assert record["samples"]["people"] == WORLD(train=16, val=2, test=40).records("test").people
    answers = iter([(413, "too large")])
    url, asked = chat_server(lambda text: next(answers, "right"))
    given = [path, *SIZES, "--model", "tiny", "--in-flight", 1, "--title", "Two words", "--url", url, runs, boards]
    assert run("ask", *given)[0] == 1, "one question is open"
    before = len(asked)
    code, told = run("score", *given)
    assert (code, "--partial" in told) == (2, True)
    code, told = run("ask", *given)
    assert (code, "Two words (zero-shot) on gazeworld/test" in told) == (0, True)
    assert "points read as thousand" in told
    assert "structured" in run("score", *given, "--no-structured")[1], "answers that were asked for otherwise are named"
    assert len(asked) == before + 1, "only what was open is asked again"
    code, told = run("score", *given, "--judge", "openai")
    assert (code, "vqa2_object_judge" in told) == (0, True)
    code, told = run("ask", *given, "--model", "other")
    assert (code, "tiny" in told) == (2, True)
    assert run("table", "gazeworld", boards)[0] == 0
    page = (board / "README.md").read_text()
    assert all(text in page for text in ("Majority", "Two words", "are ours", "test, gazebench-vqa-v2: incomplete"))
    assert set(pd.read_csv(board / "table.csv")["model"]) == {"Majority", "Two words"}
    records = [json.loads(record.read_text()) for record in board.glob("*.json")]
    assert len(records) == 2
    for record in records:
        validate(record)
    code, told = run("ask", path, "--dataset.test=39", "--backend", "oracle", runs, boards)
    assert (code, "test.jsonl" in told) == (2, True)
    assert run("ask", path, *SIZES, "--nonsense=1")[0] == 2


def test_arrows_of_the_table_need_no_registered_task(monkeypatch):
    monkeypatch.setattr(run_data, "task_metrics", lambda: ())
    named = {name for _, headings in question_table.GROUPS for name in headings}
    scores = {name: {"value": 0.5, "count": 1} for name in named}
    row = question_table.ModelRow("test", "complete", "gazebench-vqa-v2", "zero-shot", "Any", scores, 1)
    falling = {column.name for column in question_table.table([row]).columns if column.higher is False}
    lower = ("refused", "cut", "unread", "direction_steps", "point_l2", "point_angle", "false_refusal")
    assert falling >= {f"{version}_{name}" for version in ("vqa", "vqa2") for name in lower}
    assert not any(name.endswith(("_object", "_f1", "_overall", "_parsed")) for name in falling)


def test_the_table_reads_records_of_all_schemas(tmp_path):
    rows = list(question_table._results(ROOT / "leaderboards" / "vqa" / "gazeworld"))
    found = {(row.mode, row.model): row for row in rows if row.protocol == "gazebench-vqa-v1" and row.split == "test"}
    for kind in (("ceiling", "Truth"), ("floor", "Majority")):
        score = found[kind].metrics["vqa_overall"]
        assert (found[kind].questions, score["low"] <= score["value"] <= score["high"]) == (4541, True)
    # Runs of methods are trained or zero-shot by what they learnt.
    record = json.loads(next((ROOT / "leaderboards" / "gazeworld").glob("vl4gaze-*.json")).read_text())
    kinds = {"zero-shot": (0, None), "trained": (9, None), "given": (0, {"file": "weights.pt"})}
    (tmp_path / "gazeworld").mkdir()
    for title, (learnt, initial) in kinds.items():
        one = record | {"run": title, "method": record["method"] | {"name": title, "title": title}}
        one["parameters"] = {"total": 9, "trained": learnt}
        one["weights"] = record["weights"] | {"initial": initial}
        (tmp_path / "gazeworld" / f"{title}-{title}.json").write_text(json.dumps(one))
    modes = {row.model.split(",")[0]: row.mode for row in question_table._records(tmp_path, "gazeworld")}
    assert modes == {"zero-shot": "zero-shot", "trained": "trained", "given": "trained"}


def test_answers_in_a_predictions_file_are_scored_and_bad_ones_explained(world, questions, tmp_path, capsys):
    answers = {str(person): {} for person in world.records("test").person_id}
    for record in questions:
        answers[record.person][record.question.id] = record.truth.answer

    def scored(name, people, *more, **columns):
        file = tmp_path / f"{name}.jsonl"
        rows = [{"person_id": person, "questions_v2": own, **columns} for person, own in people.items()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        capsys.readouterr()
        if main(["score", str(file), "gazeworld", *SIZES, *more, f"--boards={tmp_path}"]):
            return capsys.readouterr().err
        return json.loads(next((tmp_path / "gazeworld").glob(f"{name}-*.json")).read_text())

    truth = scored("truth", answers)
    assert truth["metrics"]["vqa2_overall"]["all"]["value"] == 1
    assert truth["metrics"]["vqa2_parsed"]["all"]["count"] == len(questions)
    assert "avg_l2" not in truth["metrics"]
    assert truth["protocol"]["tasks"]["questions_v2"]["id"] == "gazebench-vqa-v2"
    person, own = next((person, own) for person, own in answers.items() if own)
    gone = next(iter(own))
    told = scored("lacking", {**answers, person: {name: text for name, text in own.items() if name != gone}})
    assert all(name in told for name in ("lacking.jsonl", person, gone))
    told = scored("numbers", {**answers, person: {**own, gone: 5}})
    assert f"numbers.jsonl:{1 + list(answers).index(person)}" in told
    few = dict(list(answers.items())[1:])  # who is left out changes what is asked of the others
    part = scored("part", few, "--partial", x=0.5, y=0.5)
    assert "avg_l2" in part["metrics"]
    assert not any(name.startswith("vqa2") for name in part["metrics"])
    assert any("questions_v2 were not scored" in reason for reason in part["status"]["reasons"])


def test_points_are_read_as_the_family_writes_them_and_what_others_would_give_is_said(
    world, path, card, questions, ask, measured, model, tmp_path
):
    points = {r.question.id: r.truth.points for r in questions if r.question.task == "point" and not r.truth.refusal}
    sizes = {record.question.id: record.truth.size for record in questions}

    class Pixels(Scripted):
        def identity(self):
            return {"backend": "scripted", "model": "org/Qwen2.5-VL-3B-Instruct"}

    def answer(key):
        resized = 28 * np.round(np.array(sizes[key]) / 28)
        x, y = np.mean(points[key], axis=0) * resized if key in points else (0, 0)
        return json.dumps({"point_2d": [round(x), round(y)]})

    answerer = model(Pixels(answer))
    _, found, store = ask(answerer)
    assert measured(found)["vqa2_point"].value == 1
    read = scoring.reading(found, card, answerer)
    assert (read["coordinates"], read["family"], read["points"]) == ("pixels", "Qwen2.5-VL", len(points))
    assert read["vqa_point"]["pixels"] == 1 > read["vqa_point"]["thousand"]
    assert read["unread"]["unit"] == len(points) > read["unread"]["thousand"] == 0
    assert sum(read["status"]["point"].values()) == sum(record.question.task == "point" for record in questions)
    told = scoring.other_coordinates(read)
    assert all(name in told for name in ("pixels", "Qwen2.5-VL", "thousand-yx", "percent"))
    given = model(Pixels(answer), coordinates="thousand")
    assert scoring.reading(asking.collect(path, card, given, store), card, given)["coordinates"] == "thousand"
    kept = pd.read_csv(scoring.write_reading(tmp_path / "read.csv", found, read), keep_default_na=False).set_index(
        "question"
    )
    key = next(iter(points))
    assert (kept.loc[key, "status"], kept.loc[key, "how"]) == ("read", "json")
    assert float(kept.loc[key, "x"]) == pytest.approx(np.mean(points[key], axis=0)[0], abs=5e-3)
    with pytest.raises(DataError, match="thousand"):
        model(Pixels(answer), coordinates="inches")


def test_answers_by_a_schema_are_the_same_answers(world, folder, questions, ask, measured, model):
    truth = {record.question.id: record for record in questions}

    def answer(key):
        record = truth[key]
        return as_json(record.question.form, record.truth.answer, record.truth.refusal)

    backend = Scripted(answer)
    answerer = model(backend, structured=True, examples=Examples(folder / "train.jsonl", world, 2))
    found = ask(answerer)[1]
    assert measured(found)["vqa2_overall"].value == 1
    assert {one.how for one in found.parsed} == {"json"}
    for request in backend.requests:
        form = truth[request.key].question.form
        assert request.schema == schema(form)
        jsonschema.validate(json.loads(answer(request.key)), schema(form))
        for turn in request.messages[2:-1:2]:
            jsonschema.validate(json.loads(turn.parts[0]), schema(form))
    plain = model(backend, examples=Examples(folder / "train.jsonl", world, 2)).identity()
    assert "structured" not in plain
    assert {name: value for name, value in answerer.identity().items() if name != "structured"} == plain


def test_what_is_cut_refused_or_not_read_is_counted_apart(questions, ask, measured, model):
    said = ["", "I cannot tell.", "somewhere over there", Reply("", "<think>The head is", "length")] * len(questions)
    answers = {
        record.question.id: replace(one, key=record.question.id) if isinstance(one, Reply) else one
        for record, one in zip((r for r in questions if r.question.form == "point"), said, strict=False)
    }
    found = ask(model(Scripted(lambda key: answers.get(key, "left"))))[1]
    chosen = [
        answer.status for r, answer in zip(found.records, found.parsed, strict=True) if r.question.form == "point"
    ]
    assert chosen[:4] == ["unread", "refused", "unread", "cut"]
    scores = measured(found)
    for name in ("cut", "refused", "unread"):
        share = sum(answer.status == name for answer in found.parsed) / len(found.parsed)
        assert scores[f"vqa2_{name}"].value == pytest.approx(share)
    total = sum(scores[f"vqa2_{name}"].value for name in ("cut", "unread")) + scores["vqa2_parsed"].value
    assert total == pytest.approx(1)
