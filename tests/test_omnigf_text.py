"""Prompts, answers, and reading answers back: the text of OmniGF's language branch, token by token."""

import hashlib
import json
import re

import pytest
import torch
from PIL import Image

from gazebench.methods.omnigf.head_encoder import HeadSlots
from gazebench.methods.omnigf.prompts import (
    GAZE_PAD,
    SYSTEM_PROMPTS,
    GazeAnswer,
    PeoplePrompts,
    answer_pieces,
    as_json,
    clean_category,
    parse_answers,
    person_line,
)
from gazebench.nn.qwen3vl import load
from gazebench.vlm.coordinates import whole

INSIDE = 'P3: {"status": "inside", "point_2d": [12, 999]}'
NAMED = 'P3: {"status": "inside", "point_2d": [12, 999], "category": "cup"}'
OUTSIDE = 'P3: {"status": "outside"}'


@pytest.fixture(scope="module")
def vlm():
    torch.manual_seed(0)
    vlm = load("tiny", "random").eval()
    HeadSlots(vlm)
    return vlm


def prompts(vlm, grid=(2, 2), slots=True, semantic=False):
    return PeoplePrompts(vlm, grid, slots=slots, semantic=semantic)


def people(seed, count):
    """Head boxes."""
    low = torch.rand((count, 2), generator=torch.Generator().manual_seed(seed)) * 0.8
    return torch.cat([low, low + 0.1], dim=1).tolist()


def answers(seed, count, semantic=False):
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 3, (count,), generator=generator).tolist()
    points = torch.randint(0, 1000, (count, 2), generator=generator).tolist()
    names = ["cup", "tennis racket", "3d printer", "", "kite"]
    return [
        GazeAnswer("inside", tuple(point), names[i % len(names)] if semantic else "")
        if kind == 0
        else GazeAnswer("outside" if kind == 1 else "unknown")
        for i, (kind, point) in enumerate(zip(kinds, points, strict=True))
    ]


def text_of(index, answer, semantic, last=True):
    return "".join(text for text, _ in answer_pieces(index, answer, semantic=semantic, last=last))


def test_prompts_are_those_of_the_appendix():
    basic, semantic = SYSTEM_PROMPTS["basic"], SYSTEM_PROMPTS["semantic"]
    assert hashlib.sha256(basic.encode()).hexdigest().startswith("ef25d806328fab09")
    longer = basic.replace("image. Output", "image, and what they are looking at. Output")
    assert semantic == longer.replace("[x, y]}", '[x, y], "category": "<object>"}')


def test_equation_1():
    assert person_line(2, [0.0, 0.5, 1.0, 0.2502], slot=True) == '<|gaze_pad|>P2: {"bbox_2d": [0, 500, 999, 250]}'
    assert person_line(0, [torch.nan] * 4, slot=False) == 'P0: {"bbox_2d": null}'
    assert [whole(value) for value in (-0.3, 0.0, 0.4999, 0.5006, 1.0, 7.0)] == [0, 0, 499, 500, 999, 999]


@pytest.mark.parametrize(
    ("answer", "semantic", "line", "learnt"),
    [
        (GazeAnswer("inside", (12, 999)), False, INSIDE, INSIDE),
        (GazeAnswer("inside", (12, 999), "cup"), True, NAMED, NAMED),
        (GazeAnswer("inside", (12, 999), "cup"), False, INSIDE, INSIDE),
        (GazeAnswer("outside", None, "cup"), True, OUTSIDE, OUTSIDE),
        (GazeAnswer("unknown"), True, OUTSIDE.replace("outside", "unknown"), ""),
        # Whether a category follows is not to be learnt from people whose category is not known.
        (GazeAnswer("inside", (12, 999)), True, INSIDE, INSIDE.removesuffix("]}")),
    ],
)
def test_equation_2_and_what_is_learnt_of_it(answer, semantic, line, learnt):
    assert text_of(3, answer, semantic) == line
    assert text_of(3, answer, semantic, last=False) == line + "\n"
    pieces = answer_pieces(3, answer, semantic=semantic, last=True)
    assert "".join(text for text, learns in pieces if learns) == learnt


@pytest.mark.parametrize(
    "category", ["cup", "tennis racket", "3d printer", "t-shirt", "café", "笔记本", "a/c (unit) x"]
)
def test_pieces_have_the_tokens_of_whole_lines(vlm, category):
    tokens = prompts(vlm, semantic=True).tokens
    for last in (True, False):
        for answer in (GazeAnswer("inside", (0, 105), category), GazeAnswer("inside", (7, 88)), GazeAnswer("outside")):
            pieces = [text for text, _ in answer_pieces(11, answer, semantic=True, last=last)]
            assert [token for text in pieces for token in tokens(text)] == tokens("".join(pieces))


@pytest.mark.parametrize(
    "hostile", ['say "hi"', "back\\slash", "two\nlines\tand \x00", "  ", "...", "}{", "x" * 500, "P1: {}"]
)
def test_any_category_gives_valid_json(hostile):
    clean = clean_category(hostile)
    line = text_of(0, GazeAnswer("inside", (1, 2), hostile), True)
    assert json.loads(line.removeprefix("P0: ")).get("category", "") == clean
    assert parse_answers(line, 1) == [GazeAnswer("inside", (1, 2), clean)]


@pytest.mark.parametrize("semantic", [False, True])
def test_reading_answers_back(semantic):
    given = [answer for answer in answers(5, 40, semantic) if answer.status != "unknown"]
    text = "".join(text_of(i, answer, semantic, last=i == len(given) - 1) for i, answer in enumerate(given))
    assert parse_answers(text, len(given)) == given
    assert ([as_json(answer) for answer in given], as_json(None)) == (re.findall(r"\{.*\}", text), "")


RUBBISH = [
    "", "I cannot see anybody.", "P0: {", 'P0: {"status": "inside"', 'P0: {"status": "inside"}',
    *(f'P0: {{"status": "inside", "point_2d": {point}}}' for point in (
        "[1, 2, 3]", "[1, 1000]", "[-1, 3]", "[NaN, 3]", '["1", 3]', "[true, 3]", '"here"', f"[{'9' * 5000}, 1]")),
    'P0: {"status": "unknown"}', 'P0: {"status": ["inside"]}', 'P1: {"status": "outside"}',
    "P0: " + '{"a": ' * 20000, f'P{"9" * 5000}: {{"status": "outside"}}',
]  # fmt: skip


@pytest.mark.parametrize("text", RUBBISH)
def test_malformed_answers_are_none(text):
    assert parse_answers(text, 1) == [None]


def test_good_answers_among_rubbish():
    first = INSIDE.replace("P3", "P1")
    text = f'Sure! P0: {{"status": 3}}\n{first} P0: {{"status": "outside"}} P0: {{"x": 1}} P7: {{}}'
    assert parse_answers(text, 3) == [GazeAnswer("outside"), GazeAnswer("inside", (12, 999)), None]
    braces = 'P0: {"status": "inside", "point_2d": [1, 2], "category": "a } b P1: {"}\nP1: {"status": "outside"}'
    assert parse_answers(braces, 2) == [GazeAnswer("inside", (1, 2), "a } b P1: {"), GazeAnswer("outside")]
    decimal = parse_answers('P0: {"status": "inside", "point_2d": [1.6, 2], "category": 3}', 1)
    assert decimal == [GazeAnswer("inside", (2, 2))]


@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (10, 10)])
def test_rows_are_what_processor_and_model_make_of_the_conversation(vlm, grid, slots):
    """Ids, padding and rotary positions of ragged rows, 1 to 12 people, against transformers itself."""
    counts = (1, 12, 3)
    boxes = [people(i, count) for i, count in enumerate(counts)]
    replies = [answers(i, count) for i, count in enumerate(counts)]
    rows = prompts(vlm, grid, slots).rows(boxes, replies)
    image = Image.new("RGB", (grid[1] * vlm.cell, grid[0] * vlm.cell))

    def chat(heads, reply):
        lines = "\n".join(person_line(i, box, slots) for i, box in enumerate(heads))
        answer = "".join(text_of(i, each, False, i == len(reply) - 1) for i, each in enumerate(reply))
        parts = ([{"type": "text", "text": text}] for text in (SYSTEM_PROMPTS["basic"], lines, answer))
        system, user, assistant = parts
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": [{"type": "image", "image": image}, *user]},
            {"role": "assistant", "content": assistant},
        ]

    batch = vlm.processor.apply_chat_template(
        [chat(*each) for each in zip(boxes, replies, strict=True)],
        tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left", "do_resize": False},
    )  # fmt: skip
    ids = batch["input_ids"][:, :-1]  # the template's last line break comes after the end of the turn
    assert torch.equal(rows.input_ids, ids)
    assert torch.equal(rows.attention_mask, batch["attention_mask"][:, :-1])
    kinds = (ids == vlm.model.config.image_token_id).int()
    expected, _ = vlm.model.model.get_rope_index(
        ids, kinds, batch["image_grid_thw"], attention_mask=rows.attention_mask
    )
    assert torch.equal(rows.position_ids, expected)


def characters(tokenizer, ids):
    """The text of some tokens, and of each character the token it is in."""
    parts = [tokenizer.decode([token]) for token in ids]
    return "".join(parts), [index for index, part in enumerate(parts) for _ in part]


@pytest.mark.parametrize("semantic", [False, True])
def test_anchors_slots_and_learnt_tokens_are_where_the_text_says(vlm, semantic):
    """Found again in the decoded text, person by person, of 1 to 12 people a row."""
    counts = list(range(1, 13))
    boxes = [people(i, count) for i, count in enumerate(counts)]
    replies = [answers(i, count, semantic) for i, count in enumerate(counts)]
    builder = prompts(vlm, semantic=semantic)
    rows, bare = builder.rows(boxes, replies), builder.rows(boxes)
    assert rows.person_row.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert bare.learnt is None
    decode = builder.tokenizer.decode
    slot = builder.tokens(GAZE_PAD)[0]
    person = 0
    for row, count in enumerate(counts):
        ids = rows.input_ids[row]
        text, token = characters(builder.tokenizer, ids)
        turn = text.index("<|im_start|>assistant\n")
        asked = [match.start() for match in re.finditer(re.escape(GAZE_PAD) + r"P\d+: \{\"bbox", text)]
        told = [turn + match.start() for match in re.finditer(r"P\d+: \{\"status", text[turn:])]
        assert len(asked) == len(told) == count
        assert [token[place] for place in told] == rows.anchor[person : person + count].tolist()
        assert (ids == slot).nonzero().flatten().tolist() == [token[place] for place in asked]
        for index, (begin, end) in enumerate(zip(told, [*told[1:], len(text)], strict=True)):
            answer, line = replies[row][index], text[begin:end]
            assert line.startswith(f"P{index}: ")
            if answer.status == "unknown":
                line = ""
            elif semantic and answer.status == "inside" and not answer.category:
                line = line.split("]}")[0]
            assert decode(ids[rows.learnt[row] == person + index]) == line
        # Without an answer the anchor is the last token of the person's line in the prompt.
        text, token = characters(builder.tokenizer, bare.input_ids[row])
        lines = [match.end() - 1 for match in re.finditer(r'P\d+: \{"bbox_2d": \[[\d, ]*\]\}', text)]
        assert [token[end] for end in lines] == bare.anchor[person : person + count].tolist()
        person += count


def test_a_strange_template_is_refused(vlm, monkeypatch):
    monkeypatch.setattr(vlm.processor, "chat_template", "{% for m in messages %}{{ m.content[-1].text }}{% endfor %}")
    with pytest.raises(ValueError, match="chat template"):
        prompts(vlm)
