"""gazebench-vqa-v2: whom wordings fit, what they give away, questions about two people, and their English."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from harper import Linter

from gazebench.cli.main import main
from gazebench.core.types import SOCIAL, Records, pairs_of, ragged_starts, stable_key
from gazebench.engine.registry import load_dataset
from gazebench.vqa import asking, files, scoring
from gazebench.vqa.answerers import Oracle, Shuffled
from gazebench.vqa.balance import BOX, kind_of
from gazebench.vqa.blind import TextOnly
from gazebench.vqa.build import build
from gazebench.vqa.files import QuestionRecord, read, read_card
from gazebench.vqa.question_builder import BalancedQuestionBuilder
from gazebench.vqa.questions.templates import templates

WORLD = load_dataset("gazeworld")


@pytest.fixture(scope="module")
def world():
    return WORLD(train=4, val=2, test=220)


@pytest.fixture(scope="module")
def builder(world):
    return BalancedQuestionBuilder(world, world.records("test"))


@pytest.fixture(scope="module")
def asked(builder):
    return list(builder.everything())


class Street(load_dataset("gazefollow")):
    """Real annotations as far as questions can tell: nobody is described, and people near the edges look out."""

    def parse(self, split):
        rng, images = np.random.default_rng(5), 900
        image = np.repeat(np.arange(images), rng.integers(1, 5, images))
        people = len(image)
        inside = rng.random(people) < 0.8
        low = rng.uniform(0, (0.85, 0.5), (people, 2))
        edge = ~inside & (rng.random(people) < 0.4)
        low[edge, 0] = rng.choice([0.0, 0.75], edge.sum()) + rng.uniform(0, 0.1, edge.sum())
        names = np.array([f"{split}/{place}.jpg" for place in range(images)])
        number = len(pairs_of(image))
        return Records(
            dataset="street", split=split, images=names, groups=names, person_image=image,
            person_id=np.array([f"{split}/{of}#{person}" for person, of in enumerate(image)]),
            head=np.concatenate([low, low + rng.uniform(0.05, 0.15, (people, 1))], axis=1),
            points=rng.random((int(inside.sum()), 2)), point_start=ragged_starts(inside),
            inout=inside.astype(np.int8), columns={"label": np.where(inside, rng.choice(["cup", "dog"], people), "")},
            pairs={name: rng.choice([-1, 0, 0, 0, 1], number).astype(np.int8) for name in SOCIAL},
            sizes=np.tile([640, 480], (images, 1)),
        )  # fmt: skip

    def records(self, split):
        return self._memo.setdefault(split, self.parse(split))


def expressions(builder):
    """By person id, the expression of the planned recognition question."""
    names = builder.records.person_id
    return {str(names[p]): builder.expressions[row["expression"]] for p, row in enumerate(builder.asked)}


@pytest.mark.parametrize("place", ["world", "street"])
def test_every_kind_of_expression_has_every_verdict_in_equal_shares(place, builder, tmp_path):
    if place == "street":
        builder = BalancedQuestionBuilder(Street(tmp_path), Street(tmp_path).records("test"))
    of = expressions(builder)
    found = [record for record in builder.everything() if record.question.task == "recognition"]
    counts = Counter((kind_of(of[record.person]), record.truth.refusal) for record in found)
    kinds = {"box": ("non_exist", "outside"), "anyone": ("ambiguous", "outside")}
    if place == "world":
        kinds |= dict.fromkeys(("trait", "place"), ("ambiguous", "non_exist", "outside"))
    assert {kind for kind, _ in counts} == set(kinds)
    for kind, reasons in kinds.items():
        shares = {counts[kind, reason] for reason in reasons}
        assert len(shares) == 1, counts
        assert shares.pop() * len(reasons) == counts[kind, ""] > 10
        assert sum(counts[kind, reason] for reason in ("", *reasons)) == sum(
            number for (other, _), number in counts.items() if other == kind
        )


def fitting(scene, text):
    """The people of a scene whom some words may mean, read off the scene by other code than the builder's."""
    box = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", text)
    if box:
        corners = [int(number) / 999 for number in box.groups()]
        return [one for one in scene.people if np.allclose(one.head, corners, atol=0.6 / 999)]
    if side := re.search(r"(left|right)most", text):
        order = sorted(scene.people, key=lambda one: one.head[0] + one.head[2])
        return [order[0 if side[1] == "left" else -1]]
    if side := re.search(r"(left|right)(-hand)? half", text):
        return [one for one in scene.people if (one.head[2] <= 0.5 if side[1] == "left" else one.head[0] >= 0.5)]
    if pose := re.search(r"\b(standing|sitting)\b", text):
        return [one for one in scene.people if one.look.pose == pose[1]]
    if "beard" in text:
        return [one for one in scene.people if one.look.beard]
    if "glasses" in text:
        return [one for one in scene.people if one.look.glasses]
    if re.search(r"\bcap\b", text):
        return [one for one in scene.people if one.look.hair == "cap"]
    for colour in sorted(templates().values["hair"], key=len, reverse=True):
        if f"{colour} hair" in text or f"hair is {colour}" in text:
            plain = [one for one in scene.people if one.look.hair not in ("bald", "cap")]
            return [one for one in plain if one.look.hair_colour == colour]
    if clothes := re.search(
        r"(?:person in|wearing|dressed in) (\w+)\b(?! picture)", text.replace("in the picture", "")
    ):
        return [one for one in scene.people if one.look.clothes == clothes[1]]
    return list(scene.people)


def test_expressions_fit_as_many_people_as_they_say(world, asked):
    seen = Counter()
    for record in asked:
        question, truth, scene = record.question, record.truth, world.scene(record.image)
        if question.form == "yes_no":
            continue
        people = fitting(scene, question.text)
        least, most = {"ambiguous": (2, 99), "non_exist": (0, 0)}.get(truth.refusal, (1, 1))
        assert least <= len(people) <= most, question
        seen[question.task, truth.refusal] += 1
        if question.observer in ("box", "unique"):
            assert record.person == f"test/{scene.index}#{people[0].id}"
            assert (truth.refusal == "outside") == (people[0].inout == 0), question
    assert all(seen["recognition", refusal] > 20 for refusal in ("", "ambiguous", "non_exist", "outside")), seen


def test_yes_and_no_are_true_of_the_two_people_and_as_frequent(world, asked):
    counts = Counter()
    for record in asked:
        question, scene = record.question, world.scene(record.image)
        if question.form != "yes_no":
            continue
        looker = next(one for one in scene.people if record.person == f"test/{scene.index}#{one.id}")
        other = scene.people[question.other]
        truth = {
            "lah": looker.target_id == other.id,
            "laeo": looker.target_id == other.id and other.target_id == looker.id,
            "sa": looker.target_id == other.target_id != 0,
        }[question.task]
        assert record.truth.answer == ("yes" if truth else "no")
        first, second = re.fullmatch(r".*?(the (?:\w+ )?person.*?)(the (?:\w+ )?person.*)", question.text).groups()
        assert (fitting(scene, first), fitting(scene, second)) == ([looker], [other])
        counts[question.task, truth] += 1
    assert all(counts[task, True] == counts[task, False] > 0 for task in SOCIAL), counts


def leaking(record):
    """The question with a word of its own, where it is one of a fifth of those that cannot be answered."""
    if not record.truth.refusal or stable_key(record.person) % 5:
        return record
    return replace(record, question=replace(record.question, text=f"{record.question.text} Please!"))


def refusal_of(dataset, folder, floor, change=None, protocol="gazebench-vqa-v2"):
    """What a floor scores on the recognition questions, which are all it is asked."""
    path = folder / protocol / "test.jsonl"
    if not path.is_file():
        _, card = build(dataset, "test", path.parent, protocol=protocol)
        files.write(path, [one for one in read(path) if one.question.task == "recognition"], card)
    if change:
        path, original = folder / protocol / "changed" / "test.jsonl", path
        path.parent.mkdir(exist_ok=True)
        files.write(path, map(change, read(original)), read_card(original))
    card, answerer = read_card(path), Shuffled(path) if floor is Shuffled else floor(path, dataset)
    store = asking.store_of(folder, answerer, card)
    asking.ask(path, card, answerer, store)
    scores = scoring.measure(asking.collect(path, card, answerer, store), card, dataset)
    return scores["vqa2_refusal" if protocol == "gazebench-vqa-v2" else "vqa_refusal"]["all"]


@pytest.mark.slow  # the standard test set: the interval of a smaller one is wider, so less would be seen
@pytest.mark.parametrize("place", ["world", "street"])
def test_nothing_blind_tells_what_cannot_be_answered(place, tmp_path):
    """Above chance by no more than the interval; the same learner sees through questions that leak, and version 1."""
    dataset = WORLD() if place == "world" else Street(tmp_path)
    for floor in (TextOnly, Shuffled):  # the row of the floor that sees pictures alone is on the board
        score = refusal_of(dataset, tmp_path, floor)
        assert score.count > 1000
        assert score.low <= 0.5, (floor, score)
    assert refusal_of(dataset, tmp_path, TextOnly, leaking).low > 0.5
    if place == "street":
        assert refusal_of(dataset, tmp_path, TextOnly, protocol="gazebench-vqa-v1").low > 0.5


def test_numbers_of_boxes_tell_nothing(asked, builder):
    of = expressions(builder)
    rows = [
        (*map(int, re.findall(r"\d+", re.search(r"\[.*?\]", record.question.text)[0])), bool(record.truth.refusal))
        for record in asked if record.question.task == "recognition" and of[record.person] == (BOX, "")
    ]  # fmt: skip
    values = np.array(rows, dtype=float)
    refused = values[:, 4] == 1
    sizes = np.stack([values[:, 0], values[:, 1], values[:, 2] - values[:, 0], values[:, 3] - values[:, 1]], axis=1)
    spread = sizes.std(axis=0) * np.sqrt(1 / refused.sum() + 1 / (~refused).sum())
    assert (np.abs(sizes[refused].mean(axis=0) - sizes[~refused].mean(axis=0)) < 3 * spread).all()
    assert len({tuple(row[:4]) for row in rows}) == len(rows), "a box that is there twice would tell in a test set"


@pytest.mark.parametrize("name", ["gazeworld", "vsgaze"])
def test_all_pairs_become_the_columns_of_the_data_sets_own_protocol(name, tmp_path, capsys):
    dataset, given = WORLD(train=4, val=2, test=20), ["--dataset.train=4", "--dataset.val=2", "--dataset.test=20"]
    if name == "vsgaze":
        dataset, given = load_dataset(name).fake(tmp_path / "data"), [f"--dataset.root={tmp_path / 'data'}"]
    path, card = build(dataset, "test", tmp_path, all_pairs=True)
    questions = list(read(path))
    assert {question.question.task for question in questions} == set(SOCIAL)
    records = dataset.records("test")
    assert sum(one.question.task == "lah" for one in questions) == len(records.pairs["lah"])
    assert sum(one.question.task == "sa" for one in questions) == len(records.pairs["sa"]) / 2
    store = asking.store_of(tmp_path, Oracle(), card)
    asking.ask(path, card, Oracle(), store)
    answered = asking.collect(path, card, Oracle(), store)
    file = tmp_path / "pairs.jsonl"
    assert scoring.write_pairs(file, answered, dataset, card) == records.people
    assert not main(["score", str(file), name, *given, f"--boards={tmp_path}"])
    capsys.readouterr()
    record = json.loads(next((tmp_path / name).glob("*.json")).read_text())
    for column, label in {"f1_lah": "lah", "f1_laeo": "laeo", "ap_sa": "sa"}.items():
        if (records.pairs[label] == 1).any():
            assert record["metrics"][column]["all"]["value"] == 1, column
    assert "f1_lah" in record["metrics"]


def test_plans_are_the_same_in_every_process_and_hold_in_a_mirror(world, builder, asked):
    code = (
        "import hashlib; from gazebench.engine.registry import load_dataset;"
        "from gazebench.vqa.question_builder import BalancedQuestionBuilder as B;"
        "w = load_dataset('gazeworld')(train=4, val=2, test=30); b = B(w, w.records('test'), lambda i: w.descriptions("
        "w.records('test'), i)); print(hashlib.sha256(b.asked.tobytes() + b.social.tobytes()).hexdigest())"
    )
    small = WORLD(train=4, val=2, test=30)
    here = BalancedQuestionBuilder(small, small.records("test"))
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert other.stdout.strip() == hashlib.sha256(here.asked.tobytes() + here.social.tobytes()).hexdigest()
    mirrored, records = 0, builder.records
    for image in range(40):
        people = range(builder.start[image], builder.start[image + 1])
        head = records.head[people.start : people.stop]
        head = np.stack([1 - head[:, 2], head[:, 1], 1 - head[:, 0], head[:, 3]], axis=1)
        points = [records.points_of(person) * [-1, 1] + [1, 0] for person in people]
        for item, truth in builder.items(image, head, points, tuple(records.sizes[image].tolist())):
            if side := re.search("(left|right)(-hand)? half", item.input.text):
                inside = head[:, 2] <= 0.5 if side[1] == "left" else head[:, 0] >= 0.5
                assert inside.sum() == 1 if truth.refusal in ("", "outside") else inside.sum() != 1
                mirrored += 1
    assert mirrored > 5


FALSE_ALARMS = {
    "bbox": "the key of a box",
    "there": "'Is there eye contact between' is right",
    "cannot": "answers begin with a small letter",
}


def test_english_is_right_by_a_grammar_checker():
    """Spelling and grammar of all questions, with every expression in them (Harper); it finds fault with version 1."""
    linter, texts = Linter(), templates(2)
    values = {name: next(iter(words)) for name, words in texts.values.items()} | {"place": "leftmost", "half": "left"}
    people = [
        one.format(value=values.get(trait, ""), box="1, 2, 3, 4")
        for trait, some in texts.observers.items()
        for one in some
    ]
    asks = [ask for some in texts.questions.values() for ask in some]
    # Every question with some expressions, each time others, so that all of them come.
    pairs = [(ask, people[(5 * turn + place) % len(people)]) for place, ask in enumerate(asks) for turn in range(8)]
    said = [ask.format(observer=one, other="the person in blue") for ask, one in pairs]
    assert all(any(one in text for text in said) for one in people)
    faults = {
        (lint.problem_text, lint.message, text)
        for text in (*said, texts.instructions, *texts.refusals.values())
        for lint in linter.lint(text)
        if lint.problem_text not in FALSE_ALARMS
    }
    assert not faults, sorted(faults)[:5]
    assert linter.lint("Where to does the person in red look, as seen from their head?")


def test_templates_of_version_2_are_sound():
    texts = templates(2)
    assert (texts.id, texts.digest) == ("gazebench-vqa-v2", "81c72e4b7805b22f")
    assert texts.refusals == templates().refusals
    for form, asks in texts.questions.items():
        assert len(set(asks)) == len(asks) >= 4
        assert all(text.count("{observer}") == 1 and text.count("{other}") == (form in SOCIAL) for text in asks)
    for trait, some in texts.observers.items():
        assert 4 <= len(set(some)) == len(some)
        place = "{box}" if trait == "box" else "{value}"
        assert trait in ("anyone", "glasses", "beard") or all(place in text for text in some)


def test_a_question_about_two_people_survives_its_file(asked):
    some = [record for record in asked if record.question.form == "yes_no"][:20]
    assert [QuestionRecord.from_json(record.to_json()).question for record in some] == [one.question for one in some]
