"""Answers as models of many families write them, each with its right reading, which was written down by hand.

``data/transcripts.jsonl`` has one answer a line: the style of a model family, the form of the question, how coordinates
are written, the finish reason, the right reading and the text. ``right`` is a point or box as shares of the image
("512/999 300/999"), a direction, a phrase, yes or no, or after a # the reason of a refusal, ``unread`` or ``cut``. All
texts were written for this test; none comes from a model.
"""

import json
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazebench.core.errors import DataError
from gazebench.probe.parsing import parse_answer
from gazebench.vlm.coordinates import FAMILIES, Convention, convention_of, family_of, named
from gazebench.vqa.questions.geometry import DIRECTIONS
from gazebench.vqa.questions.parsing import parse

SIZE = (640, 480)
FILE = Path(__file__).parent / "data" / "transcripts.jsonl"
TRANSCRIPTS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
QWEN = FAMILIES["Qwen2.5-VL"].convention  # pixels in multiples of 28


def reading(form, text, finish_reason, convention):
    """What is read, in the words of the file; a point or a box as a list."""
    if form == "box":
        found = parse_answer(text, finish_reason, SIZE, convention)
        if found.usable:
            return found.regions[0].tolist()
        return "#cut" if finish_reason == "length" else "#unread"
    answer = parse(form, text, finish_reason, SIZE, convention)
    if answer.refusal:
        return f"#{answer.refusal}"
    if not answer.valid:
        return f"#{answer.status}"
    if form == "point":
        return list(answer.point)
    return {"direction": DIRECTIONS[answer.direction], "object": answer.phrase, "yes_no": answer.verdict}[form]


@pytest.mark.parametrize("row", TRANSCRIPTS, ids=lambda row: f"{row['style']}-{row['form']}")
def test_an_answer_is_read_as_it_is_meant(row):
    convention = QWEN if row["coordinates"] == "qwen2.5" else named(row["coordinates"])
    found = reading(row["form"], row["text"], row["finish_reason"], convention)
    right = row["right"]
    if isinstance(found, list) and not right.startswith("#"):
        right = pytest.approx([float(Fraction(number)) for number in right.split()], abs=1e-9)
    assert found == right, row["text"][-300:]


def test_the_transcripts_are_many_different_and_of_all_forms():
    assert len(TRANSCRIPTS) >= 300
    assert len({json.dumps(row) for row in TRANSCRIPTS}) == len(TRANSCRIPTS)
    styles = Counter(row["style"] for row in TRANSCRIPTS)
    assert len(styles.keys() - {"issue", "prose", "judge", "probe"}) >= 10
    assert sum("think" in row["text"].lower() for row in TRANSCRIPTS) >= 25
    forms = Counter(row["form"] for row in TRANSCRIPTS)
    assert min(forms[form] for form in ("point", "direction", "object", "yes_no")) >= 60
    status = Counter(row["right"] if row["right"].startswith("#") else "read" for row in TRANSCRIPTS)
    for name in ("ambiguous", "non_exist", "outside", "refused", "unread", "cut"):
        assert status[f"#{name}"] >= 8, status


@pytest.mark.parametrize(
    ("model", "family", "coordinates"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", "Qwen2-VL", "thousand"),
        ("Qwen/Qwen2.5-VL-72B-Instruct-AWQ", "Qwen2.5-VL", "pixels"),
        ("Qwen/Qwen3-VL-8B-Thinking", "Qwen3-VL", "thousand"),
        ("allenai/Molmo-7B-D-0924", "Molmo", "percent"),
        ("gemini-2.5-pro", "Gemini", "thousand-yx"),
        ("OpenGVLab/InternVL3-8B", "InternVL", "thousand"),
        ("zai-org/GLM-4.5V", "GLM-V", "thousand"),
        ("llava-hf/llava-1.5-7b-hf", "LLaVA", "unit"),
        ("vikhyatk/moondream2", "Moondream", "unit"),
        ("deepseek-ai/deepseek-vl2-small", "DeepSeek-VL2", "thousand"),
        ("gpt-4o", "", "thousand"),
        ("runs/tiny-vlm", "", "thousand"),
    ],
)
def test_the_family_of_a_model_declares_its_coordinates(model, family, coordinates):
    assert (family_of(model), convention_of(model).name) == (family, coordinates)
    assert convention_of(model, "percent-yx") == Convention("percent", y_first=True)
    assert convention_of(model, coordinates) == convention_of(model), "with its multiple of pixels"


def test_conventions_have_edges_and_nothing_beyond():
    for name, edges in {"thousand": (999, 999), "unit": (1, 1), "percent": (100, 100), "pixels": SIZE}.items():
        convention = named(name)
        assert convention.name == name
        assert convention.point(*edges, SIZE) == (1, 1)
        assert convention.point(edges[0] + 2, 0, SIZE) is convention.point(-1, 0, SIZE) is None
    assert named("pixels").point(1, 1) is None, "of an image whose size is not known"
    assert QWEN.point(644, 476, SIZE) == (1, 1)
    with pytest.raises(DataError, match=r"inches.*thousand.*pixels"):
        named("inches")


@settings(max_examples=150, deadline=1000)
@given(
    text=st.lists(
        st.one_of(st.sampled_from([row["text"][:300] for row in TRANSCRIPTS]), st.text(max_size=9),
                  st.sampled_from(["<think>", "</think>", "[", "{", '"', "left", "512", ", ", "not ", "\n", "(", "%"])),
        max_size=6,
    ).map("".join),
    form=st.sampled_from(["point", "direction", "object", "yes_no"]),
    finish_reason=st.sampled_from(["stop", "length"]),
)  # fmt: skip
def test_no_rubbish_crashes_the_readers_and_points_lie_in_the_picture(text, form, finish_reason):
    answer = parse(form, text, finish_reason, SIZE)
    assert answer.status in ("read", "refused", "cut", "unread")
    assert answer.point is None or all(0 <= value <= 1 for value in answer.point)
    assert (answer.status == "cut") <= (finish_reason == "length")


@pytest.mark.parametrize(
    "text", ["[" * 500_000, "left " * 100_000, "<think>" * 50_000, "(1, 2" * 50_000, "no, " * 90_000]
)
def test_huge_answers_are_read_in_no_time(text):
    start = time.perf_counter()
    for form in ("point", "direction", "object", "yes_no"):
        parse(form, text, "length", SIZE)
    assert time.perf_counter() - start < 10
