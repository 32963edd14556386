"""Questions: whom an expression fits, what is true of an answer, how lots are drawn, and how free answers are read."""

import json
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gazebench.core.types import IN_FRAME
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.engine.registry import load_dataset
from gazebench.vqa.interview import Interviewer
from gazebench.vqa.questions.geometry import DIRECTIONS, sector, steps, whole
from gazebench.vqa.questions.reading import REFUSED, Said, names, read
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.questions.writing import NOT_ASKED, REFUSALS, plan

WORLD = load_dataset("gazeworld")


@pytest.fixture(scope="module")
def world():
    return WORLD(train=4, val=2, test=90)


@pytest.fixture(scope="module")
def asked(world):
    """Image by image: the scene, the picture's size, and question and truth."""
    records = world.records("test")
    found = list(Interviewer(world, records).everything())
    return [(world.scene(str(records.images[image])), world.size(records, image), *pair) for image, pair in found]


# Whom an expression fits, by another way than the generator's --------------------------------------------------------


def fitting(scene, text):
    """The people of a scene a question may be about, by its words and the scene's own description."""
    box = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", text)
    if box:
        corners = [int(number) / 999 for number in box.groups()]
        return [p for p in scene.people if np.allclose(p.head, corners, atol=0.6 / 999)]
    found = re.search(
        r"the (?P<side>left|right)most person|(?:in|wearing) (?P<clothes>\w+)\b(?! picture)|with (?P<hair>[\w ]+) hair"
        r"|with (?:a )?(?P<thing>cap|glasses|beard)|who is (?P<pose>sitting|standing)",
        text.replace("in the picture", "").replace("as seen in", ""),
    )
    if not found:
        return list(scene.people)
    clothes, hair, thing, pose = (found[name] for name in ("clothes", "hair", "thing", "pose"))
    if found["side"]:
        order = sorted(scene.people, key=lambda person: (person.head[0] + person.head[2]) / 2)
        return [order[0 if found["side"] == "left" else -1]]
    tests = {
        "cap": lambda look: look.hair == "cap",
        "glasses": lambda look: look.glasses,
        "beard": lambda look: look.beard,
    }
    if clothes:
        return [person for person in scene.people if person.look.clothes == clothes]
    if hair:
        bare = ("bald", "cap")
        return [person for person in scene.people if person.look.hair_colour == hair and person.look.hair not in bare]
    if pose:
        return [person for person in scene.people if person.look.pose == pose]
    return [person for person in scene.people if tests[thing](person.look)]


def test_an_answerable_question_fits_exactly_one_person_and_the_others_do_not(asked):
    seen = Counter()
    for scene, _, question, truth in asked:
        people = fitting(scene, question.text)
        seen[question.observer, truth.refusal] += 1
        expected = {"box": 1, "unique": 1, "ambiguous": (2, 99), "non_exist": 0}[question.observer]
        if isinstance(expected, tuple):
            assert expected[0] <= len(people), question
        else:
            assert len(people) == expected, question
        if question.observer in ("box", "unique"):  # and it is the one the truth is about
            assert question.id.startswith(f"test/{scene.index}#{people[0].id}/")
            assert (truth.refusal == "outside") == (people[0].inout == 0), question
    for kind in (("box", ""), ("unique", ""), ("unique", "outside"), ("ambiguous", "ambiguous"),
                 ("non_exist", "non_exist")):  # fmt: skip
        assert seen[kind] > 5, seen
    assert {kind[0] for kind in seen if kind[1] == "ambiguous"} == {"ambiguous"}


def test_hidden_traits_tell_nobody_apart(asked):
    for scene, _, question, _ in asked:
        if question.observer == "unique" and re.search("glasses|beard", question.text):
            (person,) = fitting(scene, question.text)
            assert abs((person.head_yaw + 180) % 360 - 180) <= 70


def test_truths_are_those_of_the_scene(asked):
    for scene, size, question, truth in asked:
        if truth.refusal:
            assert truth.answer == templates().refusals[truth.refusal]
            assert not truth.points
            continue
        person = next(p for p in scene.people if question.id.startswith(f"test/{scene.index}#{p.id}/"))
        mean = np.mean(truth.points, axis=0)
        if question.form == "point":
            assert json.loads(truth.answer) == {"point_2d": [round(999 * mean[0]), round(999 * mean[1])]}
        if question.form == "object":
            assert truth.labels == (person.target_category,)
            target = {thing.id: f"{thing.colour} {thing.category}" for thing in scene.things} | {
                other.id: f"person in {other.clothes}" for other in scene.people
            }
            assert truth.answer == target[person.target_id]
        if question.form == "direction":
            x, y = (person.head[0] + person.head[2]) / 2, (person.head[1] + person.head[3]) / 2
            angle = math.degrees(math.atan2((y - mean[1]) * size[1], (mean[0] - x) * size[0])) % 360
            apart = abs(angle - 45 * DIRECTIONS.index(truth.answer))
            assert min(apart, 360 - apart) <= 22.5 + 1e-9


def test_everybody_is_asked_for_a_point_and_recognition_is_balanced(world, asked):
    records = world.records("test")
    by_task = Counter(question.task for _, _, question, _ in asked)
    assert by_task["point"] == records.people
    kinds = Counter(truth.refusal for _, _, question, truth in asked if question.task == "recognition")
    total = sum(kinds.values())
    assert total == records.people
    assert abs(kinds[""] - (total - kinds[""])) <= 1
    assert max(kinds[reason] for reason in REFUSALS) - min(kinds[reason] for reason in REFUSALS) <= 2
    forms = Counter((question.form, bool(truth.refusal)) for _, _, question, truth in asked
                    if question.task == "recognition")  # fmt: skip
    for form in ("object", "direction", "point"):  # no form gives a refusal away
        assert 0.3 < forms[form, True] / (forms[form, True] + forms[form, False]) < 0.7, forms


def test_lots_hang_on_nothing_but_seed_and_id(world):
    records = world.records("test")
    some = records.select(np.arange(records.people) < 60)
    again = Interviewer(world, some)
    one, other = dict(again.everything()), dict(Interviewer(world, some, seed=1).everything())
    assert one == dict(again.everything())
    assert one != other
    # Of the tasks that no plan of the split decides, other people's presence changes nothing.
    whole_set = {q.id: q for _, (q, _) in Interviewer(world, records).everything() if q.task != "recognition"}
    for _, (question, _) in again.everything():
        if question.task != "recognition":
            assert whole_set[question.id].text == question.text


def test_where_not_everybody_is_annotated_people_are_told_by_box(tmp_path):
    dataset = load_dataset("gazefollow").fake(tmp_path, people=14)
    records = dataset.records("test")
    assert (records.inout == IN_FRAME).all()
    kinds = Counter(plan(records).tolist())
    assert kinds["outside"] == 0
    assert kinds[""] - sum(kinds[reason] for reason in REFUSALS) in (0, 1)
    found = list(Interviewer(dataset, records).everything())
    observers = {question.observer for _, (question, _) in found}
    assert observers <= {"box", "ambiguous", "non_exist"}, "words cannot be known to be unique here"
    assert not any(question.form == "object" for _, (question, _) in found), "nothing is named, so nobody is asked"
    for image, (question, truth) in found:
        if truth.refusal == "non_exist":
            x0, y0, x1, y1 = (int(n) / 999 for n in re.search(r"\[(.*)\]", question.text)[1].split(", "))
            for person in np.flatnonzero(records.person_image == image):
                size = dataset.size(records, image)
                left, top, right, bottom = records.head[person] / np.tile(size, 2)
                assert x1 < left or x0 > right or y1 < top or y0 > bottom


def test_people_without_box_or_label_are_left_out():
    dataset = WORLD(train=2, val=2, test=12)
    records = dataset.records("test")
    head, inout = records.head.copy(), records.inout.copy()
    head[0], inout[1] = np.nan, -1
    kinds = plan(replace(records, head=head, inout=inout))
    assert kinds[:2].tolist() == [NOT_ASKED] * 2
    assert (kinds[2:] != NOT_ASKED).all()


def test_questions_reach_batches_with_their_people_and_mirror_with_them(world):
    records = world.records("train")
    for flip in (0.0, 1.0):
        preprocess = Preprocess((32, 32), crop=0.0, flip=flip, box_jitter=0.0, questions=True)
        samples = ImageSamples(
            world, records, preprocess, augment=True, sees_images=False, bad_images="error", seed=0
        )  # fmt: skip
        batch = collate([samples[image] for image in range(len(records))])
        assert len(batch.questions) == len(batch.targets.answers) > batch.people
        for question, truth in zip(batch.questions, batch.targets.answers, strict=True):
            assert question.id.startswith(f"{batch.person_ids[question.person]}/")
            assert np.allclose(truth.head, batch.head[question.person], atol=1e-6)
            if question.form == "direction" and not truth.refusal:
                x0, y0, x1, y1 = batch.head[question.person].tolist()
                point = batch.targets.point[question.person].tolist()
                size = tuple(batch.sizes[batch.image_index[question.person]].tolist())
                assert truth.direction == sector(((x0 + x1) / 2, (y0 + y1) / 2), point, size)
        assert batch.to("cpu").questions == batch.questions
    plain = ImageSamples(
        world, records, Preprocess((32, 32)), augment=False, sees_images=False, bad_images="error", seed=0
    )
    assert not collate([plain[0]]).questions


def test_templates_are_sound():
    words = templates()
    assert words.id == "gazebench-vqa-v1"
    for forms in words.questions.values():
        assert len(set(forms)) == len(forms) >= 3
        assert all(text.count("{observer}") == 1 for text in forms)
    assert set(words.values) <= set(words.observers)
    for trait, texts in words.observers.items():
        place = "{box}" if trait == "box" else "{value}"
        assert all(place in text or trait in ("anyone", "glasses", "beard") for text in texts)
    for trait, groups in words.near.items():
        assert {word for group in groups for word in group} <= set(words.values[trait])
    for reason, text in words.refusals.items():
        for form in words.questions:
            assert read(form, text).refusal == reason
    for form, text in (("object", "red cup"), ("direction", "top-right"), ("point", '{"point_2d": [x, y]}')):
        assert text in words.instructions
        assert read(form, text.replace("x", "1").replace("y", "2")).parsed


# Directions -----------------------------------------------------------------------------------------------------------


def test_sectors_and_steps():
    for index, name in enumerate(DIRECTIONS):
        for tilt in (-22.4, 0, 22.4):
            angle = math.radians(45 * index + tilt)
            end = 0.5 + math.cos(angle) / 4, 0.5 - math.sin(angle) / 4
            assert DIRECTIONS[sector((0.5, 0.5), end, (7, 7))] == name
    assert sector((0.2, 0.2), (0.4, 0.3), (100, 300)) == DIRECTIONS.index("bottom-right"), "as a viewer sees it"
    assert sector((0.2, 0.2), (0.2, 0.2), (9, 9)) == -1
    assert [steps(0, other) for other in range(8)] == [0, 1, 2, 3, 4, 3, 2, 1]
    assert [whole(value) for value in (-1, 0, 0.5, 1, 2)] == [0, 0, 500, 999, 999]


# Reading --------------------------------------------------------------------------------------------------------------

POINTS = {
    "[512, 300]": (512 / 999, 300 / 999),
    '```json\n{"point_2d": [10, 20], "label": "cup"}\n```': (10 / 999, 20 / 999),
    "The person looks at (0.5, 0.25).": (0.5, 0.25),
    "x=500, y=20": (500 / 999, 20 / 999),
    '<points x="10.0" y="20.0" alt="cup">': (10 / 999, 20 / 999),
    '{"x": 0.3, "y": 0.4}': (0.3, 0.4),
    "45%, 30%": (0.45, 0.3),
    "<think>maybe [1, 2]</think>[3, 4]": (3 / 999, 4 / 999),
    "First I saw (1, 2). Answer: (500, 600)": (500 / 999, 600 / 999),
    "[[100, 200, 300, 400]]": (200 / 999, 300 / 999),
    "12 34": (12 / 999, 34 / 999),
    "[1000, 0]": (1.0, 0.0),
    "[320, 1600]": (0.25, 1.0),
    "[1, 2] or [3, 4]": None,
    "[5000, 2]": None,
    "[-300, 2]": None,
    "somewhere": None,
    "": None,
    "7": None,
}


@pytest.mark.parametrize("text", POINTS)
def test_points_are_read(text):
    size = (1280, 1600) if "1600" in text else None
    said = read("point", text, size=size)
    expected = POINTS[text]
    assert said.parsed == (expected is not None)
    assert said.point == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top-right", "top-right"), ("Upper left.", "top-left"), ("**below**", "below"), ("up", "above"),
        ("to the left and down", "bottom-left"), ("Southwest", "bottom-left"), ("RIGHT", "right"),
        ("Not left. Answer: right", "right"), ("left or right", ""), ("somewhere", ""), ("", ""),
        ("downwards, to their lower right", "bottom-right"),
    ],
)  # fmt: skip
def test_directions_are_read(text, expected):
    said = read("direction", text)
    assert said.direction == (DIRECTIONS.index(expected) if expected else -1)
    assert said.parsed == bool(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red ball.", "red ball"),
        ("The person is looking at a red ball on the shelf.", "red ball on the shelf"),
        ('{"answer": "the cup"}', "cup"),
        ("It is the dog", "dog"),
        ("His gaze is directed towards the television, which is on", "television, which is on"),
        ("  ", ""),
    ],
)
def test_things_are_read(text, expected):
    assert read("object", text).phrase == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cannot tell: several people fit", "ambiguous"),
        ("There are multiple people in the image, so it is unclear who is meant.", "ambiguous"),
        ("There is no person in red.", "non_exist"),
        ("No one is wearing glasses; the person does not exist.", "non_exist"),
        ("They look at something out of frame.", "outside"),
        ('{"status": "outside"}', "outside"),
        ("I’m sorry, I can’t help with that.", REFUSED),
        ("It cannot be determined.", REFUSED),
    ],
)
def test_refusals_are_read(text, reason):
    for form in ("object", "direction", "point"):
        assert read(form, text) == Said(refusal=reason)


def test_filters_refuse_and_huge_answers_are_read_to_a_point():
    assert read("point", "", "content_filter").refusal == REFUSED
    assert not read("object", "").parsed
    assert read("point", "[" * 500_000).point is None
    assert read("direction", "left " * 200_000).direction == DIRECTIONS.index("left")
    assert len(read("object", "x" * 500_000).phrase) <= 4000


def test_names_go_by_head_noun_and_synonym():
    assert names("red ball on the shelf", "ball")
    assert names("fishbowl", "fish bowl")
    assert names("woman in green", "person")
    assert names("two cats", "cat")
    assert not names("cup on the table", "table")
    assert not names("football", "ball")
    assert not names("bookshelf", "book")
