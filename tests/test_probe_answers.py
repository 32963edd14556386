"""Answers of models: what is forgiven, what is not, and rubbish of every kind."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazebench.probe.parsing import MOST_REGIONS, parse_answer
from gazebench.vlm.coordinates import named

SIZE = (1280, 720)
ONE = [[100 / 999, 200 / 999, 300 / 999, 400 / 999]]


@pytest.mark.parametrize(
    "text",
    [
        '{"regions": [{"bbox_2d": [100, 200, 300, 400], "label": "cup"}]}',
        '```json\n{"regions": [{"bbox_2d": [100, 200, 300, 400]}]}\n```',
        'Sure! Here it is:\n```\n[{"bbox_2d": [100, 200, 300, 400], "label": "a [red] {cup}"}]\n```\nHope it helps :]',
        '{"bbox_2d": [100, 200, 300, 400]}',
        "[100, 200, 300, 400]",
        "[[100, 200, 300, 400]]",
        '[{"box": ["100", "200", "300", "400"]}]',
        '{"regions": [{"x1": 100, "y1": 200, "x2": 300, "y2": 400}]}',
        '{"regions": [{"bbox": {"xmin": 100, "ymin": 200, "xmax": 300, "ymax": 400}}]}',
        '{"regions": [{"bbox_2d": [300, 400, 100, 200]}]}',
        '{"regions": [{"bbox_2d": [100, 400, 300, 200]}]}',
        "<|box_start|>(100,200),(300,400)<|box_end|>",
        '<think>maybe [1, 2, 3, 4]?</think>{"regions": [{"bbox_2d": [100, 200, 300, 400]}]}',
        '{"person": {"bbox_2d": [0, 0, 50, 50]}, "regions": [{"bbox_2d": [100, 200, 300, 400], "score": 0.9}]}',
        'The head at [0, 0, 50, 50] is not one. {"regions": [{"bbox_2d": [100, 200, 300, 400]}]}',
        '{"regions": [{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [100, 200, 300, 400]}]}',
        "A long description of the scene. " * 300 + '{"regions": [{"bbox_2d": [100, 200, 300, 400]}]}',
        "<think>" + "[1, 2, 3, 4] " * 900 + '</think>{"regions": [{"bbox_2d": [100, 200, 300, 400]}]}',
        '{"bbox_2d": [100, 200, 300, 400]}\n{"bbox_2d": [100, 200, 300, 400]}',
        '{"regions": [{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [7, 7, 7, 90]}]}',
    ],
)
def test_forgiven(text):
    answer = parse_answer(text, "stop", SIZE)
    assert answer.usable, answer.problem
    assert np.allclose(answer.regions, ONE)


@pytest.mark.parametrize(
    ("text", "coordinates", "regions"),
    [
        ('{"regions": [{"bbox_2d": [640, 360, 1280, 720]}]}', "pixels", [[0.5, 0.5, 1, 1]]),
        ('[{"bbox_2d": [0, 0, 640, 360]}, {"bbox_2d": [640, 360, 1280, 720]}]', "pixels",
         [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]),
        ('{"regions": [{"bbox_2d": [0.25, 0.5, 1.0, 1]}]}', "unit", [[0.25, 0.5, 1, 1]]),
        ('{"regions": [{"bbox_2d": [0, 0, 1, 1]}]}', "unit", [[0, 0, 1, 1]]),
        ('[{"box_2d": [500, 250, 1000, 750], "label": "cup"}]', "thousand-yx",
         [[250 / 999, 500 / 999, 750 / 999, 1]]),
        ('{"xmin": 25, "ymin": 50, "xmax": 75, "ymax": 100}', "percent", [[0.25, 0.5, 0.75, 1]]),
        ("<loc0512><loc0256><loc1023><loc0768> cup", "thousand", [[256 / 1023, 512 / 1023, 768 / 1023, 1]]),
        ("[0, 0, 1000, 999]", "thousand", [[0, 0, 1, 1]]),
        ("[-10, 0, 500, 999]", "thousand", [[0, 0, 500 / 999, 1]]),
    ],
)  # fmt: skip
def test_coordinates_are_of_the_convention(text, coordinates, regions):
    assert np.allclose(parse_answer(text, "stop", SIZE, named(coordinates)).regions, regions)


@pytest.mark.parametrize(
    ("text", "reason", "problem"),
    [
        ('{"regions": [{"bbox_2d": [100, 200, 300, 400]}]}', "length", "cut"),
        ('{"regions": [{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [1', "stop", "not closed"),
        ("", "stop", "empty"),
        ("", "content_filter", "filter"),
        ("I cannot help with that.", "stop", "no box"),
        ('{"regions": []}', "stop", "no box"),
        ('{"regions": [{"point_2d": [500, 500]}]}', "stop", "no box"),
        ('{"regions": [{"bbox_2d": [100, 200, 300]}]}', "stop", "no box"),
        ('{"regions": [{"bbox_2d": [true, false, true, true]}]}', "stop", "no box"),
        ('{"regions": [{"bbox_2d": [NaN, 1, 2, 3]}]}', "stop", "no box"),
        ('{"regions": [{"bbox_2d": [1, 1, 2, 1e999]}]}', "stop", "no box"),
        ('{"regions": [{"bbox_2d": [50, 50, 50, 50]}]}', "stop", "no box with an area"),
        ('{"regions": [{"bbox_2d": [5000, 200, 9000, 400]}]}', "stop", "thousand"),
        ('{"regions": [{"bbox_2d": [640, 360, 1280, 720]}]}', "stop", "thousand"),  # pixels, which are not guessed
        ('{"regions": [{"bbox_2d": [0.25, 0.5, 1.0, 1]}]}', "stop", "thousand"),  # shares
        (json.dumps({"regions": [{"bbox_2d": [i, i, i + 9, i + 9]} for i in range(MOST_REGIONS + 1)]}), "stop", "21"),
        ("[" * 5000, "stop", "not closed"),
        ("<think>[100, 200, 300, 400] and on and on", "stop", "empty"),
    ],
)
def test_not_forgiven(text, reason, problem):
    answer = parse_answer(text, reason, SIZE)
    assert not answer.usable
    assert problem in answer.problem
    assert answer.regions.shape == (0, 4)


def test_nothing_is_an_answer_of_whoever_computes():
    assert parse_answer('{"regions": []}', "stop", (1, 1), named("unit"), may_be_none=True).usable
    assert not parse_answer("nothing", "stop", (1, 1), named("unit"), may_be_none=True).usable


numbers = st.one_of(st.integers(-5000, 5000), st.floats(allow_nan=True, allow_infinity=True), st.integers())
values = st.recursive(
    st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=6), st.lists(numbers, min_size=4, max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["bbox_2d", "regions", "x1", "y1", "x2", "y2", "label", "score"]), inner),
    ),
    max_leaves=20,
)
pieces = st.lists(
    st.one_of(
        st.sampled_from(
            ["[", "]", "{", "}", ",", ":", '"', "(", ")", "```json", "<think>", "</think>", "bbox_2d", "\\"]
        ),
        numbers.map(str),
        values.map(lambda value: json.dumps(value, default=str)),
        st.text(max_size=8),
    ),
    max_size=14,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    text=pieces,
    reason=st.sampled_from(["stop", "length", ""]),
    convention=st.sampled_from(["thousand", "pixels", "unit", "percent-yx"]),
)
def test_no_rubbish_crashes_it_and_no_box_leaves_the_image(text, reason, convention):
    answer = parse_answer(text, reason, SIZE, named(convention))
    assert answer.usable == bool(len(answer.regions))
    assert np.isfinite(answer.regions).all()
    assert ((answer.regions >= 0) & (answer.regions <= 1)).all()
    assert (answer.regions[:, 2:] > answer.regions[:, :2]).all()
    if reason == "length":
        assert not answer.usable


@settings(max_examples=100, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 480), st.integers(0, 480), st.integers(1, 500), st.integers(1, 500)),
        min_size=1, max_size=MOST_REGIONS,
    )
)  # fmt: skip
def test_what_is_written_is_what_is_read(boxes):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    text = "Well: " + json.dumps({"regions": [{"bbox_2d": box, "label": "x"} for box in boxes]})
    assert np.allclose(parse_answer(text, "stop", SIZE).regions, np.unique(np.array(boxes) / 999, axis=0))
