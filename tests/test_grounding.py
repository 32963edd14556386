"""What embedded models are pre-trained on: labels of patches and questions about scenes, blind to gaze."""

import ast
import importlib.util
import json
import math
import re
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.pretraining.grounding import DIRECTIONS, ask
from gazebench.datasets.gazeworld.pretraining.patches import (
    CLASSES,
    COLOUR_WORDS,
    MIN_SHARE,
    Patches,
    gather,
    label,
)
from gazebench.datasets.gazeworld.pretraining.views import SMALLEST, drawn, shrink_people, swap_poses, view
from gazebench.nn.qwen3vl import load

SIZE, PATCH = 64, 16
NEAREST = re.compile(r"(What|Point at what) is nearest to the head (.+) in the direction ([a-z-]+)[?.]")
GRID = SIZE // PATCH


@pytest.fixture(scope="module")
def scenes():
    return [compose(7, index, "train") for index in range(12)]


def test_patches_say_what_a_loop_over_their_pixels_finds(scenes):
    for scene in scenes[:4]:
        labels = label(drawn(scene, SIZE), PATCH)
        image, ids = draw(scene, SIZE, SIZE, mask=True)
        assert np.array_equal(labels.images, image.transpose(2, 0, 1))
        things = {thing.id: thing for thing in scene.things}
        people = {person.id: person for person in scene.people}
        for row in range(GRID):
            for column in range(GRID):
                count, shown = {}, {}
                for y in range(row * PATCH, (row + 1) * PATCH):
                    for x in range(column * PATCH, (column + 1) * PATCH):
                        part = int(ids[y, x])
                        name = scene.backdrop.kind if not part else things[part].category if part in things else "body"
                        if part in people:
                            left, top, right, bottom = (round(edge * SIZE) for edge in people[part].head)
                            name = "head" if left <= x < right and top <= y < bottom else "body"
                        count[name] = count.get(name, 0) + 1
                        if part:
                            shown[part, name] = shown.get((part, name), 0) + 1
                index = row * GRID + column
                seen = {CLASSES[c] for c in np.flatnonzero(labels.seen[index])}
                assert {name for name, pixels in count.items() if pixels >= MIN_SHARE * PATCH**2} >= seen
                most = max(shown.values(), default=0)
                assert bool(np.isfinite(labels.place[index, 0])) == (most >= MIN_SHARE * PATCH**2)
                if most < MIN_SHARE * PATCH**2:
                    assert labels.colour[index] == -1
                    continue
                tops = [key for key, pixels in shown.items() if pixels == most]
                boxes = {(p, n): people[p].head if n == "head" else people[p].body if p in people else things[p].box
                         for p, n in tops}  # fmt: skip
                centre = ((column + 0.5) / GRID, (row + 0.5) / GRID) * 2
                found = labels.place[index, :4] + np.array(centre)
                part, name = next(key for key in tops if np.allclose(found, boxes[key], atol=2e-3))
                colour = people[part].clothes if part in people else things[part].colour
                assert labels.colour[index] == (-1 if name == "head" else COLOUR_WORDS.index(colour))
                assert np.isfinite(labels.face[index]).all() == (name == "head")


def test_mirrored_patches():
    patches, scenes = gather(1, 7, "train", SIZE, PATCH, workers=1)
    assert len(scenes) == len(patches.images) == 64
    index = np.array([5, 2])
    plain, turned = patches.pick(index), patches.pick(index, mirrored=True)
    back = turned.pick(np.arange(2), mirrored=True)
    for field in fields(Patches):
        one, two = getattr(plain, field.name), getattr(back, field.name)
        assert np.array_equal(one, two, equal_nan=one.dtype.kind == "f"), field.name
    assert np.array_equal(turned.images, plain.images[..., ::-1])
    # A patch's mirror image shows the same box, seen from the other side.
    here, there = plain.place.reshape(2, GRID, GRID, 5), turned.place.reshape(2, GRID, GRID, 5)
    assert np.array_equal(here[..., 0], -there[:, :, ::-1, 2], equal_nan=True)
    assert np.array_equal(here[..., 1], there[:, :, ::-1, 1], equal_nan=True)


def test_swapped_poses_are_all_there_and_nothing_else_changes(scenes):
    swapped = swap_poses(scenes, np.random.default_rng(0))
    assert swapped != scenes
    for name in ("gaze_yaw", "head_yaw", "lean"):
        before, after = ([getattr(p, name) for s in some for p in s.people] for some in (scenes, swapped))
        assert sorted(before) == sorted(after)
    for one, other in zip(scenes, swapped, strict=True):
        assert one.things == other.things
        assert [(p.head, p.look, p.x, p.id) for p in one.people] == [(p.head, p.look, p.x, p.id) for p in other.people]


def test_shrunken_people_stand_where_they_stood(scenes):
    for scene in scenes:
        smaller = shrink_people(scene, np.random.default_rng(0))
        assert smaller.things == scene.things
        holders = {thing.holder for thing in scene.things}
        for one, other in zip(scene.people, smaller.people, strict=True):
            assert one.size * SMALLEST - 1e-3 <= other.size <= one.size
            assert other.size < one.size or one.id in holders
            assert other.body[3] == pytest.approx(one.body[3], abs=0.01) or one.look.pose == "bust"
            assert (other.look, other.x, other.gaze_yaw) == (one.look, one.x, one.gaze_yaw)


def test_views_hold_no_answer(scenes):
    """Another salient thing, other gazes, targets and subsets: the same view."""
    for scene in scenes:
        other = next(thing.id for thing in scene.things if thing.id != scene.salient)
        blank = {"gaze": (0.5, 0.5), "gaze_yaw": 3.0, "gaze_pitch": 3.0, "eye": (0.5, 0.5), "subset": "",
                 "target_kind": "void", "target_id": 0, "target_category": "", "target_depth": 0.5}  # fmt: skip
        people = tuple(replace(person, **blank) for person in scene.people)
        assert view(replace(scene, salient=other, people=people)) == view(scene)
        assert view(replace(scene, things=scene.things[1:])) != view(scene)


ANSWERS = re.compile("salien|subset|target|gaze_|annotat|stands out")


@pytest.mark.parametrize("file", ["patches.py", "training.py", "grounding.py", "pretrain_tiny.py", "pretrain_vlm.py"])
def test_pretraining_reads_no_answer(file):
    """No name, attribute or text of the code speaks of what is salient, targets, subsets or gazes; docstrings may."""
    root = Path(__file__).resolve().parent.parent
    folder = root / ("scripts" if file.startswith("pretrain") else "datasets/gazeworld/pretraining")
    tree = ast.parse((folder / file).read_text("utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {node.value for node in ast.walk(tree)
              if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told}  # fmt: skip
    assert not [word for word in words if ANSWERS.search(word.replace("neither salience nor gaze", ""))]


def test_no_answer_depends_on_where_anybody_looks(scenes):
    swapped = swap_poses(scenes, np.random.default_rng(1))
    for one, other in zip(scenes, swapped, strict=True):
        assert ask(one, np.random.default_rng(2), 40) == ask(other, np.random.default_rng(2), 40)


def middle_of(numbers):
    """Of a point or box from 0 to 999."""
    return ((numbers[0] + numbers[-2]) / 2 / 999, (numbers[1] + numbers[-1]) / 2 / 999)


@pytest.mark.parametrize("mirrored", [False, True])
def test_answers_are_true(scenes, mirrored):
    def box(sides):
        turned = (1 - sides[2], sides[1], 1 - sides[0], sides[3]) if mirrored else sides
        return [round(999 * side) for side in turned]

    def inside(point, thing):
        left, top, right, bottom = box(thing.box)
        return left - 1 <= point[0] <= right + 1 and top - 1 <= point[1] <= bottom + 1

    def person_with(head):
        return next(person for person in scene.people if box(person.head) == json.loads(head)["bbox_2d"])

    def seen_from(person, thing, direction):
        """Distance, and degrees from the middle of a direction; a sector is 22.5 wide on both sides."""
        x, y = (thing.centre[axis] - person.eye[axis] for axis in range(2))
        x *= scene.aspect * (-1 if mirrored else 1)
        off = math.degrees(math.atan2(-y, x)) - 45 * DIRECTIONS.index(direction)
        return math.hypot(x, y), abs((off + 180) % 360 - 180)

    kinds = set()
    for number, scene in enumerate(scenes):
        things = {thing.category: thing for thing in scene.things}
        names = {f"{thing.colour} {thing.category}": thing for thing in scene.things}
        for question, answer, given, place, shown in ask(scene, np.random.default_rng(number), 60, mirrored):
            numbers = [int(digits) for digits in re.findall(r"(?<!_)\d+", question)]
            assert (given is None) == (not numbers)
            if numbers:
                assert given == pytest.approx(middle_of(numbers), abs=2e-3)
            coordinates = next(iter(json.loads(answer).values())) if answer[0] == "{" else None
            if coordinates:
                assert place == pytest.approx(middle_of(coordinates), abs=2e-3)
            elif answer in names:
                assert inside([999 * side for side in place], names[answer])
            by_sight = ("What is", "Point at what")
            assert (shown is not None) == question.startswith(by_sight)
            if shown is not None:
                assert things[shown.category] == shown
                assert f" {shown.category}" not in question
                assert place == ((1 - shown.centre[0] if mirrored else shown.centre[0]), shown.centre[1])
                assert coordinates or names[answer] == shown
            kinds.add(" ".join(question.split()[:2]))
            if found := re.fullmatch(r"Point at the (.+)\.", question):
                assert inside(coordinates, names[found[1]])
            elif question == "Locate all heads.":
                heads = [each["bbox_2d"] for each in json.loads(answer)]
                assert heads == sorted(box(person.head) for person in scene.people)
            elif found := re.fullmatch(r"Locate the head of the person in (\w+)\.", question):
                assert person_with(answer).clothes == found[1]
            elif found := re.fullmatch(r"Locate the (.+)\.", question):
                assert coordinates == box(things[found[1]].box)
            elif found := re.fullmatch(r"Is there a (.+)\?", question):
                assert answer == ("yes" if found[1] in things else "no")
            elif question.startswith("What is at ["):
                assert inside(numbers, names[answer])
            elif found := re.fullmatch(r"What does the person with the head (.+) wear\?", question):
                assert person_with(found[1]).clothes == answer
            elif found := re.fullmatch(r"Where is the (.+) as seen from the head (.+)\?", question):
                assert seen_from(person_with(found[2]), names[found[1]], answer)[1] <= 22.5 + 0.05
            elif found := NEAREST.fullmatch(question):
                views = {name: seen_from(person_with(found[2]), thing, found[3]) for name, thing in names.items()}
                if any(abs(off - 22.5) < 0.1 for _, off in views.values()):
                    continue  # on the border, where rounding decides
                _, nearest = min((distance, name) for name, (distance, off) in views.items() if off <= 22.5)
                assert inside(coordinates, names[nearest]) if coordinates else answer == nearest
            else:
                assert (question, answer) == ("What place is it?", scene.backdrop.kind)
    assert len(kinds) >= 8


def test_batches_and_losses_of_the_pretraining(scenes, monkeypatch):
    file = Path(__file__).resolve().parent.parent / "scripts" / "pretrain_vlm.py"
    spec = importlib.util.spec_from_file_location("pretrain_vlm", file)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)  # where dataclasses look for their annotations
    spec.loader.exec_module(script)
    vlm = load("tiny", "random")
    labels = [label(drawn(scene, script.SIZE), vlm.cell) for scene in scenes]
    patches = Patches(*(np.stack([getattr(each, field.name) for each in labels]) for field in fields(Patches)))
    data = script.Batches(vlm, (patches, scenes), seed=0)
    batch = data.batch(np.array([3, 8]), questions=3, mirrored=True)
    assert torch.equal(batch.patches["images"], torch.from_numpy(patches.images[[3, 8]]).flip(3))
    decode, rows = vlm.processor.tokenizer.decode, batch.rows
    for row in range(2):
        text = decode(rows.input_ids[row])
        answers = decode(rows.input_ids[row][rows.learnt[row] >= 0]).split("<|im_end|>")[:-1]
        assert len(answers) == 3
        assert all(f"<|im_start|>assistant\n{answer}<|im_end|>" in text for answer in answers)
    before = [decode(rows.input_ids[row, : column + 1]) for row, column in zip(batch.row, batch.column, strict=True)]
    assert 0 < batch.given < len(before)
    assert all(text.endswith(("?", ".")) for text in before[: batch.given])
    assert all(text.endswith("<|im_start|>assistant\n") for text in before[batch.given :])
    assert len(batch.name) == len(batch.colour) == len(before) - batch.given
    assert ((batch.name >= 0) == (batch.colour >= 0)).all()
    asked = [text.split("<|im_end|>")[-2] for text in before[batch.given :]]  # questions of a row follow one another
    by_sight = [re.search(r"(What is (at|near)|Point at what)", question) is not None for question in asked]
    assert [int(index) >= 0 for index in batch.name] == by_sight
    shares = script.shares(batch.spot, batch.patches["seen"].shape[1])
    side = script.SIZE // vlm.cell
    centres = torch.stack(torch.meshgrid([(torch.arange(side) + 0.5) / side] * 2, indexing="xy"), 2).flatten(0, 1)
    assert torch.allclose(shares @ centres, batch.spot.clamp(0.5 / side, 1 - 0.5 / side), atol=1e-5)
    losses = script.losses(script.Model(vlm), batch)
    assert set(losses) >= {"text", "points", "name", "seen", "place", "face"}
    assert all(torch.isfinite(value) for value in losses.values())
