"""GazeWorld: the same scenes everywhere, true truth, readable gazes, and a bet that fails where eyes are needed."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.world import (
    CATEGORIES,
    COLOURS,
    Scene,
    annotate,
    clip,
    compose,
    contact_sheet,
    draw,
    statistics,
)
from gazebench.datasets.gazeworld.world.compose import Target, aimed, sized
from gazebench.datasets.gazeworld.world.figure import HAIRSTYLES, Skull, direction
from gazebench.datasets.gazeworld.world.pen import Canvas, Pen

GOLDEN = {
    ("train", 0): "5ee9fefcaf504a14",
    ("train", 7): "f660b259f2a9a884",
    ("test", 123456): "4b278df2635a8464",
}
GOLDEN_THUMBNAIL = [
    [198, 192, 168, 194, 193, 190],
    [191, 201, 162, 166, 200, 185],
    [182, 179, 157, 158, 184, 131],
    [188, 187, 180, 138, 198, 198],
]


@pytest.fixture(scope="module")
def scenes():
    return [compose(0, index, "test") for index in range(300)]


def digest(scene):
    return hashlib.sha256(scene.to_json().encode()).hexdigest()[:16]


@pytest.mark.parametrize("key", GOLDEN)
def test_descriptions_are_the_same_on_every_machine(key):
    assert digest(compose(0, key[1], key[0])) == GOLDEN[key]


def test_pictures_are_the_same_in_another_process():
    scene = compose(0, 3, "train")
    picture = draw(scene, 120, 90)
    assert np.array_equal(picture, draw(scene, 120, 90))
    code = (
        "import hashlib; from gazebench.datasets.gazeworld.world import compose, draw;"
        "print(hashlib.sha256(draw(compose(0, 3, 'train'), 120, 90).tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(picture.tobytes()).hexdigest()


def test_picture_against_a_golden_thumbnail():
    thumbnail = Image.fromarray(draw(compose(0, 7, "train"), 96, 72)).resize((6, 4), Image.Resampling.BOX)
    ours = np.asarray(thumbnail.convert("L"), dtype=int)
    # Pillow may move an edge by a pixel; a moved person changes a cell by far more.
    np.testing.assert_allclose(ours, GOLDEN_THUMBNAIL, atol=4)


def test_json_round_trip(scenes):
    for scene in scenes[:40]:
        again = Scene.from_json(scene.to_json())
        assert again == scene
        assert np.array_equal(draw(again, 64, 48), draw(scene, 64, 48))
    other = json.loads(scenes[0].to_json()) | {"version": -1}
    with pytest.raises(ValueError, match="world version -1"):
        Scene.from_json(json.dumps(other))


def test_every_number_lies_on_the_grid(scenes):
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, float) else []

    for scene in scenes[:60]:
        fields = json.loads(scene.to_json())
        fields.pop("aspect")
        assert all(number * 4096 == int(number * 4096) for number in numbers(fields))


def test_splits_and_seeds_share_no_scene():
    def strip(scene):
        return replace(scene, seed=0, split="", index=0).to_json()

    keys = [(seed, split) for seed in (0, 1) for split in ("train", "val", "test")]
    texts = [strip(compose(seed, index, split)) for seed, split in keys for index in range(25)]
    assert len(set(texts)) == len(texts)


def test_boxes_ids_and_targets_are_true(scenes):
    for scene in scenes:
        ids = [thing.id for thing in scene.things] + [person.id for person in scene.people]
        assert len(set(ids)) == len(ids)
        assert 0 < min(ids) <= max(ids) < 256
        assert 1 <= len(scene.people) <= 6
        assert len({thing.category for thing in scene.things}) == len(scene.things)
        assert len({person.clothes for person in scene.people}) == len(scene.people)
        heads = {person.id: person.head for person in scene.people}
        boxes = {thing.id: thing.box for thing in scene.things} | heads
        for box in [*boxes.values(), *(person.body for person in scene.people)]:
            assert 0 <= box[0] < box[2] <= 1
            assert 0 <= box[1] < box[3] <= 1
        for person in scene.people:
            assert within(person.eye, person.head)
            in_picture = within(person.gaze, (0, 0, 1, 1))
            assert person.inout == int(in_picture) == int(person.target_kind != "outside")
            if person.target_kind in ("thing", "person"):
                assert within(person.gaze, boxes[person.target_id])
                assert person.target_id != person.id
            else:
                assert person.target_id == 0
                assert person.target_category == ""
            if person.target_kind == "void":
                assert not any(within(person.gaze, box) for box in boxes.values())
            bet = "consistent" if within(person.gaze, scene.salient_box) else "inconsistent"
            assert person.subset == (bet if in_picture else "")
            if person.target_id == scene.salient:
                assert person.subset == "consistent"


def within(point, box):
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def test_the_blind_bet_wins_where_it_should_and_only_there(scenes):
    facts = statistics(scenes)
    assert 0.60 <= facts["consistent"] <= 0.70
    assert 0.75 <= facts["in_frame"] <= 0.85
    assert facts["salient_l2"]["consistent"] < 0.06
    assert facts["salient_l2"]["inconsistent"] > 0.25
    assert 0.25 < facts["centre_l2"] < 0.36
    assert 2 < facts["people_per_scene"] < 3.2
    low, middle, high = facts["head_height"]
    assert 0.08 < low < middle < high < 0.3
    bet = np.array([scene.find(scene.salient).centre for scene in scenes for p in scene.people if p.inout])
    gaze = np.array([p.gaze for scene in scenes for p in scene.people if p.inout])
    hit = np.array([p.subset == "consistent" for scene in scenes for p in scene.people if p.inout])
    assert facts["salient_l2"]["inconsistent"] == pytest.approx(np.sqrt(((gaze - bet) ** 2).sum(1))[~hit].mean())


def test_inconsistent_targets_lie_in_all_directions(scenes):
    rays = np.array(
        [np.subtract(p.gaze, p.eye) for scene in scenes for p in scene.people if p.subset == "inconsistent"]
    )
    octants = np.floor((np.arctan2(rays[:, 1], rays[:, 0]) + np.pi) / (2 * np.pi) * 4).astype(int) % 4
    assert (np.bincount(octants, minlength=4) > 0.1 * len(rays)).all()


def test_social_gazes_occur():
    counts = Counter()
    for index in range(300):
        targets = {p.id: p.target_id for p in compose(1, index, "train").people}
        counts["mutual"] += sum(targets.get(other) == one for one, other in targets.items())
        looked_at = [target for target in targets.values() if target]
        counts["shared"] += len(looked_at) > len(set(looked_at))
    assert counts["mutual"] >= 10
    assert counts["shared"] >= 30


def test_annotators_are_as_unsure_as_those_of_gazefollow(scenes):
    to_rest, mean, least = [], [], []
    for scene in scenes:
        for person in scene.people:
            points = annotate(scene, person, 10)
            assert points.shape == (10 if person.inout else 0, 2)
            assert ((points >= 0) & (points < 1)).all()
            for k in range(len(points)):
                rest = np.delete(points, k, axis=0)
                apart = np.linalg.norm(rest - points[k], axis=1)
                to_rest.append(np.linalg.norm(rest.mean(0) - points[k]))
                mean.append(apart.mean())
                least.append(apart.min())
    # Measured on the real test set: .087, .110, .037.
    assert np.mean(to_rest) == pytest.approx(0.087, abs=0.010)
    assert np.mean(mean) == pytest.approx(0.110, abs=0.012)
    assert np.mean(least) == pytest.approx(0.037, abs=0.006)


def test_annotations_are_repeatable_and_follow_a_given_generator(scenes):
    scene = scenes[0]
    person = next(person for person in scene.people if person.inout)
    assert np.array_equal(annotate(scene, person, 5), annotate(scene, person, 10)[:5])
    one, two = (annotate(scene, person, 5, np.random.default_rng(seed)) for seed in (1, 2))
    assert not np.array_equal(one, two)


def alone(look, target, aspect=1.0):
    scene = compose(0, 0, "train", aspect=aspect)
    person = replace(scene.people[0], look=look, x=0.5, y=0.4, size=0.24, lean=0.0, depth=0.5)
    person = aimed(person, target, (0.0, 0.0, 0.01, 0.01), aspect, 0.75)
    return replace(scene, things=(), people=(sized(person, aspect),))


@pytest.mark.parametrize("hair", HAIRSTYLES)
@pytest.mark.parametrize("depth", [0.2, 0.9])
def test_mirrored_targets_give_mirrored_heads(hair, depth):
    look = replace(compose(0, 0, "train").people[0].look, hair=hair, pose="bust")
    faces = []
    for x in (0.9, 0.1):
        scene = alone(look, Target("void", 0, "", (x, 0.45), depth))
        scene = replace(scene, backdrop=replace(scene.backdrop, kind="room", pattern="plain", decor="none"))
        faces.append(draw(scene, 200, 200)[30:125, 60:140].astype(int))
    right, left = faces
    # Half a pixel of edge is all that may differ; unmirrored, the heads must differ plainly.
    assert np.abs(right - left[:, ::-1]).mean() < 4
    assert np.abs(right - left).mean() > 3 * np.abs(right - left[:, ::-1]).mean()


@pytest.mark.parametrize("side", [-1, 1])
def test_drawn_faces_are_on_the_side_of_the_gaze(side):
    look = replace(compose(0, 0, "train").people[0].look, hair="short", hair_colour="black", skin=0, beard=False)
    look = replace(look, glasses=False, pose="bust")
    scene = alone(look, Target("void", 0, "", (0.5 + 0.4 * side, 0.4), 0.5))
    left, top, right, bottom = (round(200 * edge) for edge in scene.people[0].head)
    head = draw(scene, 200, 200)[top:bottom, left:right].astype(int)
    columns = np.broadcast_to(np.arange(right - left), head.shape[:2])
    hair = (np.abs(head - (44, 38, 44)).max(2) < 25) & (np.arange(bottom - top) > (bottom - top) / 2)[:, None]
    skin = np.abs(head - (255, 222, 196)).max(2) < 25
    assert side * (columns[skin].mean() - columns[hair].mean()) > 0.15 * (right - left)


def test_heads_point_where_the_gaze_goes():
    look = compose(0, 0, "train").people[0].look
    for x, y, depth in ((0.95, 0.4, 0.5), (0.05, 0.4, 0.5), (0.9, 0.9, 0.3), (0.2, 0.05, 0.9), (0.8, 0.2, 0.1)):
        scene = alone(look, Target("void", 0, "", (x, y), depth))
        person = scene.people[0]
        nose = Skull(person.head_yaw, person.head_pitch).front
        eyes = Skull(person.gaze_yaw, person.gaze_pitch).front
        ray = np.subtract(person.gaze, person.eye) * (scene.aspect, 1)
        ray /= np.linalg.norm(ray)
        assert np.dot(eyes[:2], ray) == pytest.approx(np.hypot(*eyes[:2]), abs=0.002)
        assert np.dot(nose[:2], ray) > 0.9 * np.hypot(*nose[:2])
        assert np.dot(nose, eyes) > np.cos(np.radians(35))


def test_the_ball_agrees_with_rotation_matrices():
    yaw, pitch = np.radians(50), np.radians(-20)
    around_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    around_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    place = direction(23, 11)
    np.testing.assert_allclose(Skull(50, -20).turn(place), around_y @ around_x @ np.array(place), atol=1e-12)


@pytest.mark.parametrize(
    ("turn", "cap", "covers"),
    [
        ((0, 0), (0, 0, 40), "middle"),
        ((0, 0), (180, 0, 40), "nothing"),
        ((0, 0), (180, 0, 120), "rim"),
        ((0, 0), (90, 0, 60), "right"),
        ((180, 0), (180, 0, 60), "middle"),
        ((0, 0), (180, 0, 60), "nothing"),
        ((90, 0), (180, 0, 100), "left"),
    ],
)
def test_caps_cover_what_the_sphere_says(turn, cap, covers):
    """Against the sphere itself: a point of the disc is covered when its place is within the cap's radius."""
    skull = Skull(*turn)
    outline = skull.cap(*cap)
    picture = Image.new("L", (200, 200))
    if outline:
        ImageDraw.Draw(picture).polygon([(100 + 190 * x, 100 + 190 * y) for x, y in outline], fill=1)
    axis = np.array(skull.turn(direction(cap[0], cap[1])))
    hits = []
    for u in np.linspace(-0.9, 0.9, 13):
        for v in np.linspace(-0.9, 0.0, 7):  # above the jaw, where the outline is a plain ellipse
            if u * u + v * v < 0.9:
                inside = axis @ (u, v, np.sqrt(1 - u * u - v * v)) - np.cos(np.radians(cap[2]))
                if abs(inside) > 0.08:
                    x, y = skull.flat(u, v)
                    drawn = picture.getpixel((round(100 + 190 * x), round(100 + 190 * y)))
                    hits.append(bool(drawn) == (inside > 0))
    assert len(hits) > 20
    assert all(hits), covers


def test_masks_show_ids_inside_boxes():
    for index in range(12):
        scene = compose(2, index, "train")
        width, height = round(240 * scene.aspect), 240
        picture, ids = draw(scene, width, height, mask=True)
        assert picture.shape == (height, width, 3)
        assert ids.shape == (height, width)
        assert np.array_equal(picture, draw(scene, width, height))
        boxes = {thing.id: thing.box for thing in scene.things} | {person.id: person.body for person in scene.people}
        assert set(np.unique(ids)) <= set(boxes) | {0}
        assert {scene.salient, *(person.id for person in scene.people)} <= set(np.unique(ids))
        for owner in np.unique(ids[ids > 0]):
            rows, columns = np.nonzero(ids == owner)
            left, top, right, bottom = np.array(boxes[owner]) * (width, height, width, height)
            assert columns.min() >= left - 2
            assert columns.max() <= right + 2
            assert rows.min() >= top - 2
            assert rows.max() <= bottom + 2


def test_head_boxes_are_tight():
    """A box touches what differs when the person is taken away, seen on a body without arms beside the head."""
    for index in range(6):
        scene = compose(3, index, "val", people=1, crowd=0.0, aspect=4 / 3)
        person = scene.people[0]
        bare = replace(scene, people=(), things=())
        with_person = draw(replace(bare, people=(person,)), 400, 300).astype(int)
        changed = np.abs(with_person - draw(bare, 400, 300)).sum(2) > 30
        left, top, right, _ = np.array(person.head) * (400, 300, 400, 300)
        eye = round(person.eye[1] * 300)
        rows = np.nonzero(changed.any(1))[0]
        columns = np.nonzero(changed[: eye + 4].any(0))[0]
        assert abs(rows.min() - top) <= 2
        if person.look.hair not in ("bob", "long"):  # their hair falls beside the box
            assert columns.min() >= left - 2
            assert columns.max() <= right + 2


def test_one_picture_at_any_size(scenes):
    for scene in scenes[:6]:
        width = round(120 * scene.aspect)
        small = draw(scene, width, 120).astype(float)
        large = Image.fromarray(draw(scene, 3 * width, 360)).reduce(3)
        assert np.abs(small - np.asarray(large, dtype=float)).mean() < 6
        assert draw(scene, 64, 64).shape == (64, 64, 3)


def test_every_category_is_drawn_and_unlike_all_others():
    assert len(CATEGORIES) >= 24
    seen = {}
    for name, category in CATEGORIES.items():
        canvas = Canvas(64, 64, 1.0, 2, True)
        category.draw(Pen(canvas, 0.5, 0.85, 0.6, owner=1), COLOURS["blue"])
        picture = np.array(canvas.picture, dtype=int)
        assert 0.02 < (np.array(canvas.map) > 0).mean() < 0.7, name
        assert category.tints
        assert set(category.tints) <= set(COLOURS)
        for other, known in seen.items():
            assert (np.abs(picture - known).sum(2) > 60).mean() > 0.02, (name, other)
        seen[name] = picture


def test_clips_keep_everybody_and_stay_true():
    for index in range(4):
        scenes = clip(0, index, "train", 30)
        assert scenes[0] == compose(0, index, "train")
        assert [scene.frame for scene in scenes] == list(range(30))
        assert len({scene.name for scene in scenes}) == 30
        assert scenes == clip(0, index, "train", 30)
        for before, scene in pairwise(scenes):
            assert [(t.id, t.category, t.colour) for t in scene.things] == [
                (t.id, t.category, t.colour) for t in before.things
            ]
            heads = {p.id: p.head for p in scene.people}
            boxes = {t.id: t.box for t in scene.things} | heads
            for old, new in zip(before.people, scene.people, strict=True):
                assert (old.id, old.look) == (new.id, new.look)
                assert np.hypot(new.x - old.x, new.y - old.y) < 0.02
                assert new.inout == int(within(new.gaze, (0, 0, 1, 1)))
                assert within(new.eye, new.head)
                if new.target_id:
                    assert within(new.gaze, boxes[new.target_id])
                hit = within(new.gaze, scene.salient_box)
                assert new.subset == ("" if not new.inout else "consistent" if hit else "inconsistent")
        shifts = sum(
            (a.target_kind, a.target_id) != (b.target_kind, b.target_id)
            for before, scene in pairwise(scenes)
            for a, b in zip(before.people, scene.people, strict=True)
        )
        assert shifts >= 1


def test_options_change_the_mix():
    blind = statistics(compose(0, index, "train", consistent=1.0, outside=0.0) for index in range(60))
    assert blind["in_frame"] == 1
    assert blind["consistent"] > 0.8
    assert all(len(compose(0, index, "train", people=1, crowd=0.0).people) == 1 for index in range(10))
    assert compose(0, 0, "train", aspect=2.0).aspect == 2.0
    with pytest.raises(TypeError, match="no such option: persons"):
        compose(0, 0, "train", persons=3)


def test_contact_sheet_has_a_cell_per_scene(scenes):
    sheet = contact_sheet(scenes[:5], columns=3, height=60, overlay=True, annotators=3)
    width = round(60 * max(scene.aspect for scene in scenes[:5]))
    assert sheet.size == (3 * width + 12, 126)
    plain = contact_sheet(scenes[:5], columns=3, height=60)
    assert np.any(np.asarray(sheet) != np.asarray(plain))
