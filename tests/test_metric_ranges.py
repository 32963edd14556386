"""Every metric is in its range, whatever is predicted: flat maps, one pixel, huge and tiny values, points anywhere."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gazebench.core.types import SOCIAL, pairs_of
from gazebench.metrics import semantic, social, spatial
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.decode import DECODERS
from gazebench.metrics.spatial import auc_points

PEOPLE = 3
WORDS = ["", "cup", "Cup", "a cup|book", "書"]
POINT = st.one_of(st.floats(-1, 2), st.sampled_from([0.0, 1.0, 0.5, -0.0, 1e-300, 1e30, -1e30]))
PLACE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5]))
ANGLES = {"AngleToMean", "MeanAngle", "MinAngle", "MeanAngleFromEye"}
DISTANCES = {"L2ToMean", "MeanL2", "MinL2", "TextL2"}
METRICS = {
    name: kind
    for module in (spatial, social, semantic)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, GazeMetric) and hasattr(kind, "fields") and kind is not social.F1
}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def array(shape, elements, kind=np.float64):
    return arrays.arrays(kind, shape, elements=elements)


@st.composite
def heatmaps(draw, people, height, width):
    """(P, h, w) float32: flat, a single other pixel, two levels, or anything finite."""
    maps = np.full((people, height, width), draw(FLOATS), dtype=np.float32)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["flat", "pixel", "levels", "any"]))
    if kind == "pixel":
        maps[:, draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = draw(FLOATS)
    elif kind == "levels":
        maps[rng.random(maps.shape) < 0.5] = draw(FLOATS)
    elif kind == "any":
        with np.errstate(over="ignore"):
            maps = (rng.standard_normal(maps.shape) * 10.0 ** draw(st.integers(-40, 37))).astype(np.float32)
    return torch.from_numpy(maps)


@st.composite
def everything(draw):
    """All fields that metrics read, of a few people in one picture."""
    counts = [draw(st.integers(0, 3)) for _ in range(PEOPLE)]
    low = draw(array((PEOPLE, 2), PLACE))
    boxes = np.concatenate([low, low + draw(array((PEOPLE, 2), PLACE))], axis=1)
    boxes[[draw(st.booleans()) for _ in range(PEOPLE)]] = np.nan
    point = draw(array((PEOPLE, 2), POINT))
    points = draw(array((sum(counts), 2), PLACE))
    pairs = pairs_of(np.zeros(PEOPLE, dtype=np.int64))
    if draw(st.booleans()):  # predictions at the head centre
        point = np.nan_to_num((boxes[:, :2] + boxes[:, 2:]) / 2)
    labels = array(len(pairs), st.integers(-1, 1), np.int64)
    words = st.lists(st.sampled_from(WORDS), min_size=PEOPLE, max_size=PEOPLE)
    fields = {
        "heatmap": draw(heatmaps(PEOPLE, 64, 64)),
        "point": point,
        "text_point": point,
        "points": points,
        "point_person": np.repeat(np.arange(PEOPLE), counts),
        "head": boxes,
        "eye": low,
        "heads": np.repeat(boxes[None], PEOPLE, axis=0),
        "target_box": boxes[::-1].copy(),
        "sizes": draw(array((PEOPLE, 2), st.integers(1, 40), np.int64)),
        "inout": draw(array(PEOPLE, st.integers(-1, 1), np.int64)),
        "inout_score": draw(array(PEOPLE, st.floats(allow_nan=False, allow_infinity=False))),
        "pairs": pairs,
        **{name: draw(labels) for name in SOCIAL},
        **{f"{name}_score": draw(array(len(pairs), PLACE)) for name in SOCIAL},
        **{name: draw(words) for name in ("label", "labels", "predicted_label", "predicted_class")},
    }
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()}


@settings(max_examples=60, deadline=None)
@given(fields=everything())
def test_every_metric_is_in_its_range(fields):
    for name, kind in METRICS.items():
        for metric in [kind(), *([kind(plane="pixel")] if name in ANGLES else [])]:
            keys = torch.arange(len(fields["pairs"]) if metric.unit == "pair" else PEOPLE)
            metric.update(keys, **{field: fields[field] for field in metric.fields})
            value = metric.compute()
            highest = 180.0 if name in ANGLES else np.inf if name in DISTANCES else 1.0
            assert metric.count <= len(keys)
            assert value.numel() == 0 or 0 <= float(value) <= highest + 1e-9, (name, value)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), height=st.integers(1, 30), width=st.integers(1, 30))
def test_the_area_of_any_map_is_in_its_range(data, height, width):
    (heatmap,) = data.draw(heatmaps(1, height, width))
    points = data.draw(array((data.draw(st.integers(0, 4)), 2), POINT))
    size = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    area = auc_points(heatmap, points, *size)
    if area is not None:
        assert 0 <= area <= 1
        # At another size the interpolation's rounding, which is the official code's too, makes noise of a flat map.
        assert heatmap.amin() < heatmap.amax() or size != (width, height) or area == 0.5


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=60, deadline=None)
@given(heatmap=heatmaps(2, 12, 9))
def test_a_decoded_point_is_a_point_of_the_map(name, heatmap):
    point = DECODERS[name](heatmap)
    assert (tuple(point.shape), bool(torch.isfinite(point).all())) == ((2, 2), True)
    if name != "dark":  # whose step may leave a map that is no bell, as in the published code
        assert bool((point >= 0).all() and (point <= 1).all())
