"""Answers about all people of an image, kept to the schema of equation 2, and the anchors' states on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gazebench.methods.omnigf.prompts import (
    BETWEEN,
    TO_CATEGORY,
    TO_POINT,
    GazeAnswer,
    PeoplePrompts,
    PeopleRows,
    closing,
    opening,
    parse_answers,
)
from gazebench.nn.constrained_decoding import Choice, ForcedTokens, Grammar, decode, free_text, number
from gazebench.nn.qwen3vl import Qwen3VL

CATEGORY_TOKENS: Final = 16
"""Tokens of a generated category at most."""
LINE_TOKENS: Final = 48
"""Tokens a person may take where nothing keeps an answer to the schema; the rest is cut."""


@dataclass
class Transcript:
    """The generated answers about P people in R rows.

    Attributes:
        text: R answers.
        answers: P of them; None where there was no well-formed one.
        inside: (P,) float32 in [0, 1], the probability of ``inside`` against ``outside`` at the choice of the status;
            without the schema 1, 0, or 0.5 where there was no answer.
        anchors: (P, C) the states of the people's anchors; None without the schema.
        prompt: (R, L, C) the states of the prompts.
    """

    text: list[str]
    answers: list[GazeAnswer | None]
    inside: Tensor
    anchors: Tensor | None
    prompt: Tensor


def write_answers(
    vlm: Qwen3VL, prompts: PeoplePrompts, rows: PeopleRows, images: Tensor, constrained: bool = True
) -> Transcript:
    """Writes the answers to some prompts (``PeoplePrompts.rows`` without answers).

    Args:
        vlm: the model.
        prompts: its prompt builder.
        rows: R prompts.
        images: (1 + D, R, N, C), each row's encoded image.
        constrained: whether answers are kept to the schema.
    """
    counts = torch.bincount(rows.person_row).tolist()
    grammars = (schema(prompts, n) if constrained else free_text(prompts, LINE_TOKENS * n) for n in counts)
    written, prompt = decode(vlm, rows, images, grammars, prompts.padding)
    texts = prompts.text([row.ids for row in written])
    answers = [answer for text, count in zip(texts, counts, strict=True) for answer in parse_answers(text, count)]
    anchors = None
    if constrained:
        inside = [value for row in written for value in row.probabilities]
        anchors = torch.stack([state for row in written for state in row.states])
    else:
        certain = {"inside": 1.0, "outside": 0.0}
        inside = [0.5 if answer is None else certain[answer.status] for answer in answers]
    return Transcript(texts, answers, prompt.new_tensor(inside, dtype=torch.float32), anchors, prompt)


def schema(prompts: PeoplePrompts, people: int) -> Grammar:
    """Lines of equation 2 for all people, and the end; anchors' states and probabilities of the status are kept."""
    tokens = prompts.pieces
    inside, outside = tokens("inside"), tokens("outside")
    for person in range(people):
        last = person == people - 1
        yield ForcedTokens(tokens(opening(person)), keep_state=True)
        status = yield Choice([inside[0], outside[0]], keep_probability=True)
        if status == inside[0]:
            yield ForcedTokens([*inside[1:], *tokens(TO_POINT)])
            yield from number(prompts, tokens(BETWEEN))
            end = TO_CATEGORY if prompts.semantic else closing(category=False, point=True, last=last)
            yield from number(prompts, tokens(end))
            if prompts.semantic:
                yield from category(prompts, tokens(closing(category=True, point=True, last=last)))
        else:
            yield ForcedTokens([*outside[1:], *tokens(closing(category=False, point=False, last=last))])
    yield ForcedTokens([prompts.end])


def category(prompts: PeoplePrompts, then: Sequence[int]) -> Grammar:
    """The tokens of a category, and those that follow it."""
    first, text = prompts.category_tokens
    yield Choice(first)
    going_on = torch.cat([torch.tensor(then[:1]), text])
    for _ in range(CATEGORY_TOKENS - 1):
        token = yield Choice(going_on)
        if token == then[0]:
            yield ForcedTokens(then[1:])
            return
    yield ForcedTokens(then)
