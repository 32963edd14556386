"""Questions: whom an expression fits, what is true of an answer, how chances are drawn, how answers are parsed."""

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
from gazebench.vlm.coordinates import whole
from gazebench.vqa.question_builder import NOT_ASKED, REFUSALS, QuestionBuilder, plan_recognition
from gazebench.vqa.questions.geometry import DIRECTIONS, sector, steps
from gazebench.vqa.questions.parsing import parse
from gazebench.vqa.questions.phrases import names
from gazebench.vqa.questions.templates import templates
from gazebench.vqa.task import Questions

WORLD = load_dataset("gazeworld")


@pytest.fixture(scope="module")
def world():
    return WORLD(train=4, val=2, test=90)


@pytest.fixture(scope="module")
def asked(world):
    """The questions of the test split, each with its scene."""
    found = QuestionBuilder(world, world.records("test")).everything()
    return [(world.scene(record.image), record.question, record.truth) for record in found]


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
    if found["side"]:
        order = sorted(scene.people, key=lambda person: (person.head[0] + person.head[2]) / 2)
        return [order[0 if found["side"] == "left" else -1]]
    fits = {
        "clothes": lambda look: look.clothes == found["clothes"],
        "hair": lambda look: look.hair_colour == found["hair"] and look.hair not in ("bald", "cap"),
        "pose": lambda look: look.pose == found["pose"],
        "cap": lambda look: look.hair == "cap",
        "glasses": lambda look: look.glasses,
        "beard": lambda look: look.beard,
    }[found["thing"] or found.lastgroup]
    return [person for person in scene.people if fits(person.look)]


def test_an_answerable_question_fits_exactly_one_person_and_the_others_do_not(asked):
    seen = Counter()
    for scene, question, truth in asked:
        people = fitting(scene, question.text)
        seen[question.observer, truth.refusal] += 1
        least, most = {"ambiguous": (2, 99), "non_exist": (0, 0)}.get(question.observer, (1, 1))
        assert least <= len(people) <= most, question
        if question.observer in ("box", "unique"):  # and it is the one the truth is about
            assert question.id.startswith(f"test/{scene.index}#{people[0].id}/")
            assert (truth.refusal == "outside") == (people[0].inout == 0), question
        if question.observer == "unique" and re.search("glasses|beard", question.text):  # which can be seen
            assert abs((people[0].head_yaw + 180) % 360 - 180) <= 70
    for kind in (("box", ""), ("unique", ""), ("unique", "outside"), ("ambiguous", "ambiguous"),
                 ("non_exist", "non_exist")):  # fmt: skip
        assert seen[kind] > 5, seen
    assert {kind[0] for kind in seen if kind[1] == "ambiguous"} == {"ambiguous"}


def test_truths_are_those_of_the_scene(asked):
    for scene, question, truth in asked:
        if truth.refusal:
            assert (truth.answer, truth.points) == (templates().refusals[truth.refusal], ())
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
            angle = math.degrees(math.atan2((y - mean[1]) * truth.size[1], (mean[0] - x) * truth.size[0])) % 360
            apart = abs(angle - 45 * DIRECTIONS.index(truth.answer))
            assert min(apart, 360 - apart) <= 22.5 + 1e-9


def test_everybody_is_asked_for_a_point_and_recognition_is_balanced(world, asked):
    people = world.records("test").people
    assert sum(question.task == "point" for _, question, _ in asked) == people
    recognition = [(question.form, truth.refusal) for _, question, truth in asked if question.task == "recognition"]
    kinds = Counter(refusal for _, refusal in recognition)
    assert len(recognition) == people
    assert abs(kinds[""] - (people - kinds[""])) <= 1
    assert max(kinds[reason] for reason in REFUSALS) - min(kinds[reason] for reason in REFUSALS) <= 2
    for form in ("object", "direction", "point"):  # no form gives a refusal away
        refused = [bool(refusal) for each, refusal in recognition if each == form]
        assert 0.3 < np.mean(refused) < 0.7, form


def test_chance_depends_on_nothing_but_the_id(world):
    records = world.records("test")
    some = records.select(np.arange(records.people) < 60)
    one, again = (list(QuestionBuilder(world, some).everything()) for _ in range(2))
    assert one == again
    # Other people's presence changes only the recognition questions, which are planned for the whole split.
    everything = {record.question.id: record for record in QuestionBuilder(world, records).everything()}
    assert all(everything[r.question.id].question == r.question for r in one if r.question.task != "recognition")


def test_where_not_everybody_is_annotated_people_are_referred_to_by_box(tmp_path):
    dataset = load_dataset("gazefollow").fake(tmp_path, people=14)
    records = dataset.records("test")
    assert (records.inout == IN_FRAME).all()
    kinds = Counter(plan_recognition(records).tolist())
    assert kinds["outside"] == 0
    assert kinds[""] - sum(kinds[reason] for reason in REFUSALS) in (0, 1)
    found = list(QuestionBuilder(dataset, records).everything())
    assert {record.question.observer for record in found} <= {"box", "ambiguous", "non_exist"}
    assert not any(record.question.form == "object" for record in found), "nothing is named, so nobody is asked"
    for record in found:
        if record.truth.refusal == "non_exist":
            x0, y0, x1, y1 = (int(n) / 999 for n in re.search(r"\[(.*)\]", record.question.text)[1].split(", "))
            for left, top, right, bottom in records.head[records.images[records.person_image] == record.image]:
                assert x1 < left or x0 > right or y1 < top or y0 > bottom


def test_people_without_box_or_label_are_left_out():
    records = WORLD(train=2, val=2, test=12).records("test")
    head, inout = records.head.copy(), records.inout.copy()
    head[0], inout[1] = np.nan, -1
    kinds = plan_recognition(replace(records, head=head, inout=inout))
    assert kinds[:2].tolist() == [NOT_ASKED] * 2
    assert (kinds[2:] != NOT_ASKED).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_questions_reach_batches_with_their_people_and_mirror_with_them(world, flip):
    records, preprocess = world.records("train"), Preprocess((32, 32), crop=0.0, flip=flip, box_jitter=0.0)
    samples = ImageSamples(world, records, preprocess, augment=True, sees_images=False, tasks=[Questions()])
    batch = collate([samples[image] for image in range(len(records))])
    items = batch.items["questions"]
    assert len(items) > batch.people
    for item, truth in zip(items, batch.targets.truths["questions"], strict=True):
        assert item.id.startswith(f"{batch.person_ids[item.person]}/")
        assert np.allclose(truth.head, batch.head[item.person], atol=1e-6)
        if item.input.form == "direction" and not truth.refusal:
            x0, y0, x1, y1 = batch.head[item.person].tolist()
            point, size = batch.targets.point[item.person].tolist(), batch.sizes[batch.image_index[item.person]]
            assert truth.direction == sector(((x0 + x1) / 2, (y0 + y1) / 2), point, tuple(size.tolist()))


def test_templates_are_sound():
    texts = templates()
    assert (texts.id, texts.digest) == ("gazebench-vqa-v1", "5dd7d0ffa000d39c")
    for forms in texts.questions.values():
        assert len(set(forms)) == len(forms) >= 3
        assert all(text.count("{observer}") == 1 for text in forms)
    assert set(texts.values) <= set(texts.observers)
    for trait, expressions in texts.observers.items():
        place = "{box}" if trait == "box" else "{value}"
        assert trait in ("anyone", "glasses", "beard") or all(place in text for text in expressions)
    for trait, groups in texts.near.items():
        assert {word for group in groups for word in group} <= set(texts.values[trait])
    for reason, text in texts.refusals.items():
        assert {parse(form, text).refusal for form in texts.questions} == {reason}
    for form, text in (("object", "red cup"), ("direction", "top-right"), ("point", '{"point_2d": [x, y]}')):
        assert text in texts.instructions
        assert parse(form, text.replace("x", "1").replace("y", "2")).valid


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


@pytest.mark.parametrize(
    ("phrase", "label", "expected"),
    [
        ("red ball on the shelf", "ball", True), ("fishbowl", "fish bowl", True), ("woman in green", "person", True),
        ("two cats", "cat", True), ("cup on the table", "table", False), ("football", "ball", False),
        ("bookshelf", "book", False),
    ],
)  # fmt: skip
def test_names_go_by_head_noun_and_synonym(phrase, label, expected):
    assert names(phrase, label) is expected
