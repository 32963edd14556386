"""Every metric against an independent reference, over thousands of cases with ties, borders and repetitions."""

import inspect
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, average_precision_score, precision_score, roc_auc_score
from torchmetrics import MetricCollection

from gazebench.core.types import SOCIAL, pairs_of
from gazebench.metrics import semantic, social, spatial
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.semantic import LabelAccuracy, MultiLabelAccuracy, label_accuracy
from gazebench.metrics.spatial import (  # fmt: skip
    AngleToMean,
    GazeAccuracy,
    HeadPrecision,
    InOutAP,
    L2ToMean,
    MeanAngle,
    MeanAngleFromEye,
    MeanL2,
    MinAngle,
    MinL2,
    TextL2,
    angle,
    angle_to_mean,
    auc_points,
    auc_rectangle,
    first_annotation,
    mean_angle,
    min_angle,
)

KINDS = ("smooth", "noise", "levels", "flat", "cut")


def heatmap_of(rng, kind, height=64, width=64):
    """Of the kinds that matter: smooth, noisy, with few levels (ties), flat, sharp with zero tails."""
    y, x = np.mgrid[:height, :width]
    cx, cy, s = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1, 12)
    bell = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s * s))
    return {
        "smooth": bell,
        "noise": rng.random((height, width)),
        "levels": np.round(bell * 4) / 4,
        "flat": np.full((height, width), rng.random()),
        "cut": np.where(bell < 0.3, 0, bell),
    }[kind].astype(np.float32)


def annotations(rng, count):
    """Points of one person: anywhere, on borders, repeated, and some to be skipped."""
    points = rng.random((count, 2))
    points[rng.random(count) < 0.2] = rng.choice([0.0, 1.0], 2)
    if count > 2:
        points[-1] = points[0]
        if rng.random() < 0.3:
            points[1] = [-0.1, 0.5]
    return points


def reference_auc(heatmap, points, width, height):
    """The definition, straight: resize, mark pixels, scikit-learn."""
    truth = np.zeros((height, width))
    for x, y in points:
        if x >= 0:
            truth[min(int(y * height), height - 1), min(int(x * width), width - 1)] = 1
    whole = F.interpolate(torch.from_numpy(heatmap)[None, None], (height, width), mode="bilinear", align_corners=False)
    return roc_auc_score(truth.ravel(), whole.numpy().ravel())


@pytest.mark.parametrize("kind", KINDS)
def test_auc_points(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for case in range(120):
        width, height = (640, 480) if case == 0 else (int(side) for side in rng.integers(2, 160, 2))
        heatmap = heatmap_of(rng, kind, *(int(side) for side in rng.integers(2, 70, 2)))
        points = annotations(rng, int(rng.integers(1, 12)))
        ours = auc_points(torch.from_numpy(heatmap), points, width, height)
        if (points[:, 0] < 0).all():
            assert ours is None
        else:
            assert ours == pytest.approx(reference_auc(heatmap, points, width, height), abs=1e-9)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), [[-1.0, 0.5]], [[np.nan, np.nan]]])
def test_auc_points_without_positive_or_negative_pixels(points):
    assert auc_points(torch.rand(8, 8), points, 20, 10) is None
    assert auc_points(torch.rand(8, 8), [[0.5, 0.5]], 1, 1) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_auc_refuses_what_cannot_be_ranked(bad):
    heatmap = torch.rand(64, 64)
    heatmap[3, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        auc_points(heatmap, [[0.5, 0.5]], 64, 64)
    with pytest.raises(ValueError, match="finite"):
        auc_rectangle(heatmap[None], torch.tensor([[0.5, 0.5]]))


def reference_rectangle(heatmap, x, y):
    """The official order of operations, in plain Python."""
    truth = np.zeros((64, 64))
    left, top = max(0, int(x * 64 - 9)), max(0, int(y * 64 - 9))
    right, bottom = min(int(x * 64 + 10), 63), min(int(y * 64 + 10), 63)
    truth[top:bottom, left:right] = 1
    return roc_auc_score(truth.ravel(), heatmap.ravel())


def test_auc_rectangle():
    rng = np.random.default_rng(1)
    heatmaps = [heatmap_of(rng, KINDS[index % 5]) for index in range(250)]
    points = [rng.random(2) if i % 7 else rng.choice([0.0, 1.0, 0.999, 1e-9], 2) for i in range(250)]
    values, people = auc_rectangle(torch.from_numpy(np.stack(heatmaps)), torch.tensor(np.stack(points)))
    assert people.tolist() == list(range(250))
    expected = [reference_rectangle(heatmap, *point) for heatmap, point in zip(heatmaps, points, strict=True)]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-9)


def test_auc_rectangle_at_its_limits():
    heatmap = torch.zeros(1, 64, 64)
    heatmap[:, 63], heatmap[:, :, 63] = 1, 1
    corner = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    assert float(auc_rectangle(heatmap, corner)[0]) < 0.5, "the last row and column are never positive"
    nobody_first = torch.tensor([[torch.nan, torch.nan], [0.5, 0.5]])
    assert auc_rectangle(torch.rand(2, 64, 64), nobody_first)[1].tolist() == [1]
    assert auc_rectangle(torch.rand(0, 64, 64), torch.zeros(0, 2))[1].tolist() == []
    with pytest.raises(ValueError, match="64 x 64"):
        auc_rectangle(torch.rand(1, 32, 32), torch.tensor([[0.5, 0.5]]))


@pytest.fixture
def crowd():
    """500 people with 0 to 12 annotators, heads and image sizes, flat."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 13, 500)
    start = rng.random((500, 2)) * 0.8
    sizes = rng.integers(100, 2000, (500, 2))
    return {
        "point": torch.tensor(rng.random((500, 2))),
        "points": torch.tensor(rng.random((counts.sum(), 2))),
        "point_person": torch.tensor(np.repeat(np.arange(500), counts)),
        "head": torch.tensor(np.concatenate([start, start + rng.random((500, 2)) * 0.2], axis=1)),
        "sizes": torch.tensor(sizes),
        "eye": torch.tensor(eye_of(sizes)),
        "inout": torch.tensor((counts > 0) & (rng.random(500) < 0.8)).long(),  # points out of frame do not count
    }


def by_hand(crowd, value):
    """{person: value(prediction, annotations, head centre, size)} by a plain loop."""
    result = {}
    for person in np.flatnonzero(crowd["inout"]).tolist():
        points = crowd["points"][crowd["point_person"] == person].numpy()
        x0, y0, x1, y1 = crowd["head"][person].tolist()
        center = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        result[person] = value(crowd["point"][person].numpy(), points, center, crowd["sizes"][person].numpy())
    return result


def eq9(prediction, target, head):
    """HCLoRA's equation 9, literally."""
    a, b = prediction - head, target - head
    return np.degrees(np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1)))


def eye_of(size):
    """An eye for each person, inside the picture and unlike the head's centre."""
    return np.array([0.3, 0.4]) * size / (size + 300)


REFERENCES = {
    "l2_to_mean": (L2ToMean(), lambda p, q, h, s: np.linalg.norm(p - q.mean(0))),
    "mean_l2": (MeanL2(), lambda p, q, h, s: np.linalg.norm(p - q, axis=1).mean()),
    "min_l2": (MinL2(), lambda p, q, h, s: np.linalg.norm(p - q, axis=1).min()),
    "angle_to_mean": (AngleToMean(), lambda p, q, h, s: eq9(p, q.mean(0), h)),
    "mean_angle": (MeanAngle(), lambda p, q, h, s: np.mean([eq9(p, t, h) for t in q])),
    "min_angle": (MinAngle(), lambda p, q, h, s: min(eq9(p, t, h) for t in q)),
    "angle_to_mean_pixel": (AngleToMean(plane="pixel"), lambda p, q, h, s: eq9(p * s, q.mean(0) * s, h * s)),
    "mean_angle_pixel": (MeanAngle(plane="pixel"), lambda p, q, h, s: np.mean([eq9(p * s, t * s, h * s) for t in q])),
    "mean_angle_eye": (MeanAngleFromEye(), lambda p, q, h, s: np.mean([eq9(p, t, eye_of(s)) for t in q])),
    "min_angle_pixel": (MinAngle(plane="pixel"), lambda p, q, h, s: min(eq9(p * s, t * s, h * s) for t in q)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_point_metrics(name, crowd):
    metric, reference = REFERENCES[name]
    expected = by_hand(crowd, reference)
    fields = {field: crowd[field] for field in metric.fields}
    values, people = metric.values(**fields)
    assert people.tolist() == list(expected)
    np.testing.assert_allclose(values.numpy(), list(expected.values()), atol=1e-6)
    metric.update(torch.arange(500), **fields)
    assert float(metric.compute()) == pytest.approx(np.mean(list(expected.values())), abs=1e-7)
    assert metric.count == len(expected)
    # A prediction that is not a number is not left out: a diverged model would score better.
    metric.update(torch.arange(500, 1000), **fields | {"point": torch.full((500, 2), torch.nan)})
    assert metric.compute().isnan()
    metric.reset()
    assert (metric.count, metric.compute().numel()) == (0, 0)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 1.0, 45.0, 90.0, 179.0, 180.0])
@pytest.mark.parametrize("turn", [0.0, 100.0, 179.9, 359.9])
def test_angles_in_closed_form(degrees, turn):
    start, end = np.radians([turn, turn + degrees])
    head = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    one = head + 0.3 * torch.tensor([[np.cos(start), np.sin(start)]])
    other = head + 0.1 * torch.tensor([[np.cos(end), np.sin(end)]])
    assert float(angle(one, other, head)) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize("plane", ["normalised", "pixel"])
@pytest.mark.parametrize("function", [angle_to_mean, mean_angle, min_angle])
def test_who_has_an_angle_is_a_matter_of_the_truth_alone(function, plane):
    """A prediction without a direction counts 180; a target without one, or a person without a head, is left out."""
    origin = torch.tensor([[0.5, 0.5], [torch.nan] * 2, [0.1, 0.1], [0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    points = torch.tensor([[0.1, 0.1], [0.1, 0.2], [0.1, 0.5], [0.5, 0.5], [0.5, 0.25]], dtype=torch.float64)
    there = torch.tensor([[0.5, 0.5], [0.9, 0.9], [0.7, 0.1], [0.9, 0.9], [0.5, 0.0]], dtype=torch.float64)
    for point, expected in (
        (there, [180.0, 90.0, 0.0]), (origin, [180.0] * 3), (torch.full((5, 2), torch.nan), [torch.nan] * 3),
    ):  # fmt: skip
        values, people = function(point, points, torch.arange(5), origin, torch.full((5, 2), 100), plane)
        assert people.tolist() == [0, 2, 4]
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_of_several_annotations_those_at_the_origin_have_no_angle():
    origin, owner = torch.tensor([[0.5, 0.5]]), torch.zeros(3, dtype=torch.int64)
    points = torch.tensor([[0.5, 0.5], [0.5, 0.75], [0.75, 0.5]])
    for function, expected in ((mean_angle, 45.0), (min_angle, 0.0), (angle_to_mean, 45.0)):
        values, _ = function(torch.tensor([[0.5, 0.8]]), points, owner, origin, torch.ones(1, 2))
        assert float(values) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_annotation_is_that_of_the_lowest_row_in_any_order(seed):
    rng = np.random.default_rng(seed)
    owner, points = rng.integers(0, 40, 100), rng.random((100, 2))
    found = first_annotation(41, torch.tensor(points), torch.tensor(owner)).numpy()
    for person in range(41):
        rows = np.flatnonzero(owner == person)
        np.testing.assert_array_equal(found[person], points[rows[0]] if len(rows) else [np.nan, np.nan])


@pytest.mark.parametrize("kind", [InOutAP, social.SharedAttention])
def test_average_precision(kind):
    rng = np.random.default_rng(5)
    for _ in range(300):
        n = int(rng.integers(2, 60))
        score, label = rng.integers(0, 6, n) / 5, rng.integers(-1, 2, n)
        metric = kind()
        metric.update(torch.arange(n), **dict(zip(kind.fields, map(torch.tensor, (score, label)), strict=True)))
        known = label >= 0
        value = metric.compute()
        if len(set(label[known])) == 2:
            assert float(value) == pytest.approx(average_precision_score(label[known], score[known]), abs=1e-12)
            assert metric.count == known.sum()
        else:
            assert value.numel() == 0, "precision over one class says nothing"


MONOTONE = {
    "the map": lambda h: h,
    "10h - 3": lambda h: 10 * h - 3,
    "-1/h": lambda h: -1 / h,
    "its logarithm": torch.log,
    "its cube": lambda h: h**3,
}
"""Strictly increasing, also in float32, on the levels 1/64 to 1 that are drawn here."""


@pytest.mark.parametrize("change", MONOTONE)
def test_a_monotone_change_of_a_map_leaves_the_areas_as_they_are_to_the_last_digit(change):
    rng = np.random.default_rng(6)
    maps = torch.tensor(rng.integers(1, 65, (20, 64, 64)) / 64, dtype=torch.float32)
    target = torch.tensor(rng.random((20, 2)))
    changed = MONOTONE[change](maps)
    assert auc_rectangle(changed, target)[0].tolist() == auc_rectangle(maps, target)[0].tolist()
    for before, after in zip(maps, changed, strict=True):
        points = annotations(rng, 5)
        # At the map's own size: between cells of a map that is resized a curved change is another map.
        assert auc_points(after, points, 64, 64) == auc_points(before, points, 64, 64)
        if change == "10h - 3":
            assert auc_points(after, points, 190, 130) == pytest.approx(auc_points(before, points, 190, 130), abs=1e-5)


@pytest.mark.parametrize("kind", [InOutAP, social.SharedAttention])
def test_a_logit_has_the_average_precision_of_its_probability_to_the_last_digit(kind):
    rng = np.random.default_rng(7)
    logit, label = torch.tensor(rng.integers(-40, 41, 500) / 8), torch.tensor(rng.integers(-1, 2, 500))
    found = []
    for score in (logit, logit.sigmoid(), logit.sigmoid().float(), 10 * logit - 3):
        metric = kind()
        metric.update(torch.arange(500), **dict(zip(kind.fields, (score, label), strict=True)))
        found.append(float(metric.compute()))
    assert 0 < found[0] < 1
    assert len(set(found)) == 1


def crowded_heads(rng, people, most):
    """(P, K, 4) boxes on a grid of sixteenths, so that points lie on bounds; NaN where there are fewer than K."""
    low = rng.integers(0, 12, (people, most, 2)) / 16
    heads = np.concatenate([low, low + rng.integers(1, 5, (people, most, 2)) / 16], axis=2)
    heads[np.arange(most) >= rng.integers(0, most + 1, (people, 1))] = np.nan
    return heads


def lies_in(point, boxes):
    """Whether a point lies in one of some boxes, bounds inclusive, in plain Python."""
    return any(x0 <= point[0] <= x1 and y0 <= point[1] <= y1 for x0, y0, x1, y1 in boxes.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_head_precision(seed):
    rng = np.random.default_rng(seed)
    people = 300
    heads, point, target = crowded_heads(rng, people, 1 + seed), *(rng.integers(0, 17, (2, people, 2)) / 16)
    inout = rng.integers(-1, 2, people)
    # Two annotations each: the first one counts.
    points = np.stack([target, rng.random((people, 2))], axis=1).reshape(-1, 2)
    metric = HeadPrecision()
    metric.update(
        torch.arange(people), point=torch.tensor(point), points=torch.tensor(points), heads=torch.tensor(heads),
        point_person=torch.arange(people).repeat_interleave(2), inout=torch.tensor(inout),
    )  # fmt: skip
    seen = np.flatnonzero(inout == 1)
    predicted, truth = ([lies_in(some[p], heads[p]) for p in seen] for some in (point, target))
    assert 0 < sum(truth) < len(truth)
    assert float(metric.compute()) == pytest.approx(precision_score(truth, predicted), abs=1e-12)
    assert metric.count == sum(predicted)


def test_head_precision_needs_a_prediction_in_a_head():
    fields = {
        "point": torch.tensor([[0.9, 0.9]]), "points": torch.tensor([[0.1, 0.1]]), "point_person": torch.tensor([0]),
        "inout": torch.tensor([1]), "heads": torch.tensor([[[0.0, 0.0, 0.2, 0.2]]]),
    }  # fmt: skip
    metric = HeadPrecision()
    metric.update(torch.arange(1), **fields)
    assert metric.compute().numel() == 0
    metric.update(torch.arange(1), **fields | {"point": torch.tensor([[torch.nan, 0.1]])})
    assert metric.compute().isnan(), "left out, a diverged model would score better"


@pytest.mark.parametrize("seed", range(8))
def test_gaze_accuracy(seed):
    rng = np.random.default_rng(seed)
    boxes, point = crowded_heads(rng, 300, 1)[:, 0], rng.integers(0, 17, (300, 2)) / 16
    point[:3] = np.nan  # in no box
    metric = GazeAccuracy()
    metric.update(torch.arange(300), point=torch.tensor(point), target_box=torch.tensor(boxes))
    right = [lies_in(point[p], boxes[p : p + 1]) for p in range(300) if not np.isnan(boxes[p, 0])]
    assert 0 < sum(right) < len(right) < 300
    assert float(metric.compute()) == pytest.approx(np.mean(right), abs=1e-12)
    assert metric.count == len(right)


@pytest.mark.parametrize("seed", range(8))
def test_label_accuracy(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = (rng.choice(["", "cup", "Cup", "cup ", "book", "fish bowl"], 200).tolist() for _ in range(2))
    several = [sorted(set(rng.choice(["cup", "Cup", "book", "bowl"], rng.integers(0, 4)))) for _ in range(200)]
    one, multi = LabelAccuracy(), MultiLabelAccuracy()
    one.update(torch.arange(200), predicted_label=predicted, label=truth)
    multi.update(torch.arange(200), predicted_label=predicted, labels=["|".join(words) for words in several])
    known = [person for person in range(200) if truth[person]]
    expected = accuracy_score([truth[p] for p in known], [predicted[p] for p in known])
    assert float(one.compute()) == pytest.approx(expected, abs=1e-12)
    assert one.count == len(known) < 200
    right = [predicted[p] in several[p] for p in range(200) if several[p]]
    assert 0 < sum(right) < len(right)
    assert float(multi.compute()) == pytest.approx(np.mean(right), abs=1e-12)
    assert multi.count == len(right)


def test_a_label_for_everybody_or_an_error():
    with pytest.raises(ValueError, match=r"3 .* 2 people"):
        label_accuracy(["cup"] * 3, ["cup", ""])


def concrete(modules):
    found = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted(
        (one for one in found if issubclass(one, GazeMetric) and hasattr(one, "fields")), key=lambda one: one.__name__
    )


METRICS = [metric for metric in concrete([semantic, social, spatial]) if metric is not social.F1]
DOWNWARDS = {L2ToMean, MeanL2, MinL2, AngleToMean, MeanAngle, MinAngle, MeanAngleFromEye, TextL2}


@pytest.mark.parametrize("kind", METRICS, ids=lambda kind: kind.__name__)
def test_torchmetrics_manners(kind, crowd):
    metric = kind()
    assert metric.higher_is_better is (kind not in DOWNWARDS)
    assert (metric.compute().numel(), metric.count) == (0, 0), "nobody is no value"
    metric.reset()
    fields = {**crowd, "heatmap": torch.rand(500, 64, 64), "inout_score": torch.rand(500)}
    fields["heads"] = torch.tensor(crowded_heads(np.random.default_rng(4), 500, 6))
    fields |= {"target_box": fields["head"], "text_point": fields["point"]}
    fields |= {"label": ["cup", "book"] * 250, "labels": ["cup|jar", "book"] * 250}
    fields |= {"predicted_label": ["cup"] * 500, "predicted_class": ["jar"] * 250 + ["cup"] * 250}
    fields["pairs"] = torch.from_numpy(pairs_of(np.arange(500) // 4))
    fields |= {name: torch.randint(-1, 2, (1500,)) for name in SOCIAL}
    fields |= {f"{name}_score": torch.rand(1500) for name in SOCIAL}
    fields["sizes"] = fields["sizes"] // 20 + 2
    given = {field: fields[field] for field in metric.fields}
    keys = torch.arange(1500 if metric.unit == "pair" else 500)
    whole = metric.clone()
    whole.update(keys, **given)
    once, counted = float(whole.compute()), whole.count
    whole.update(keys, **given)
    assert (float(whole.compute()), whole.count) == (once, counted), "everybody counts once"
    assert float(pickle.loads(pickle.dumps(whole)).compute()) == once
    collection = MetricCollection({"a": metric.clone()})
    collection.update(keys, **given)
    assert float(collection.compute()["a"]) == once


def test_a_collection_never_takes_one_metric_for_another():
    """With one annotation each, mean and minimum agree on the first batch; later ones tell them apart."""
    together, alone = MetricCollection([L2ToMean(), MeanL2(), MinL2()]), [L2ToMean(), MeanL2(), MinL2()]
    for index, annotators in enumerate((1, 5)):
        owner = torch.arange(4).repeat_interleave(annotators)
        fields = {"point": torch.rand(4, 2), "points": torch.rand(len(owner), 2), "point_person": owner}
        for metric in (together, *alone):
            metric.update(torch.arange(4) + 4 * index, **fields, inout=torch.ones(4, dtype=torch.int64))
    assert together.compute() == {type(metric).__name__: metric.compute() for metric in alone}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_arrival_does_not_change_a_bit(seed):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(4781, generator=generator)
    values = torch.rand(4781, 1, generator=generator, dtype=torch.float64)
    results = []
    for world in (1, 2, 3):
        order = torch.cat([torch.arange(rank, 4781, world) for rank in range(world)])
        metric = L2ToMean()
        metric.add(keys[order], values[order])
        results.append(float(metric.compute()))
    assert len(set(results)) == 1
