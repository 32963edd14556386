"""Answers written token by token under the schema, and the anchors' states collected on the way.

What the schema fixes is not asked for: after every choice all tokens up to the next one go through the model at once.
So a person takes some eight passes and not one for each of two dozen tokens, and no second pass is needed for the
states, for a token's state comes out when the token goes in.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import torch
from torch import Tensor
from transformers import DynamicCache

from gazebench.nn.gaze_language import (
    BETWEEN,
    TO_CATEGORY,
    TO_POINT,
    Answer,
    closing,
    opening,
    parse_answers,
)
from gazebench.nn.qwen3vl import GazeVLM, Looked
from gazebench.nn.rows import IGNORED, Rows, Scribe

LONGEST_CATEGORY: Final = 16
"""Of a generated category in tokens."""
LINE: Final = 48
"""Tokens a person may take where nothing keeps an answer to the schema; what comes later is cut."""


@dataclass(frozen=True)
class Put:
    """Tokens that are next whatever the model thinks; ``anchor``: the first of them is the next person's."""

    ids: Sequence[int]
    anchor: bool = False


@dataclass(frozen=True)
class Ask:
    """The model chooses: of ``ids`` (N,), or, where there are none, of all tokens but those no text may have.

    ``status``: the choice is between a target inside, first, and one outside.
    """

    ids: Tensor | None = None
    status: bool = False


Writing = Generator[Put | Ask, int, None]
"""Writes one row's answer: is sent the chosen token after every ``Ask``."""


@dataclass
class Transcript:
    """What was written of P people in R rows.

    Attributes:
        text: R answers.
        answers: P of them; None where there was no well-formed one.
        inside: (P,) float32 in [0, 1], the probability of a target inside against one outside at the choice of the
            status; where nothing keeps to the schema 1, 0, or 0.5 where there was no answer.
        anchors: (P, C) the states of the people's anchors; None where nothing keeps to the schema.
        prompt: (R, L, C) the states of the prompts.
        passes: how often the model was run.
    """

    text: list[str]
    answers: list[Answer | None]
    inside: Tensor
    anchors: Tensor | None
    prompt: Tensor
    passes: int


@dataclass
class _Row:
    """A row's answer in the making."""

    writing: Writing
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    ask: Ask | None = None

    def advance(self, chosen: int | None) -> None:
        """Goes on to the next choice, or to the end (``ask`` is None); ``pending`` is what the model has not seen."""
        self.pending, self.anchors, self.ask = [], [], None
        if chosen is not None:
            self._take([chosen])
        try:
            step = next(self.writing) if chosen is None else self.writing.send(chosen)
            while isinstance(step, Put):
                if step.anchor:
                    self.anchors.append(len(self.pending))
                self._take(step.ids)
                step = next(self.writing)
            self.ask = step
        except StopIteration:
            return

    def _take(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.pending += ids


class Writer:
    """Writes answers with a model.

    Args:
        vlm: the model.
        scribe: knows the tokens of prompts and answers.
        constrained: whether answers are kept to the schema.
    """

    def __init__(self, vlm: GazeVLM, scribe: Scribe, constrained: bool = True) -> None:
        self.vlm, self.scribe, self.constrained = vlm, scribe, constrained

    @torch.no_grad()
    def write(self, prompts: Rows, patches: Tensor, patch_grid: Tensor, heads: Tensor | None) -> Transcript:
        """Answers for all people of some prompts (``Scribe.rows`` without answers); the rest as ``GazeVLM.states``.

        The likeliest token is taken at every choice.
        """
        counts = torch.bincount(prompts.person_row).tolist()
        limits = [LINE * count for count in counts]
        rows = [
            _Row(self._schema(count) if self.constrained else self.free(limit))
            for count, limit in zip(counts, limits, strict=True)
        ]
        prompt, anchors, inside, passes = self._run(rows, prompts, patches, patch_grid, heads)
        return self._transcript(rows, counts, anchors, inside, prompt, passes)

    @torch.no_grad()
    def say(self, writings: Sequence[Writing], prompts: Rows, pictures: Looked) -> tuple[list[str], Tensor]:
        """Writes after some prompts, one writing each, all of which begin alike: with a choice, or with what is put.

        Args:
            writings: R of them.
            prompts: R rows.
            pictures: of each row.

        Returns:
            What was written, without the end of the turn, and (R, V) the scores of the first token.
        """
        rows = [_Row(writing) for writing in writings]
        prompt = self._run(rows, prompts, pictures, None, None)[0]
        return self._text(rows), self.vlm.logits(prompt[:, -1])

    def _run(
        self,
        rows: Sequence[_Row],
        prompts: Rows,
        patches: Tensor | Looked,
        patch_grid: Tensor | None,
        heads: Tensor | None,
    ) -> tuple[Tensor, list[list[Tensor]], list[list[float]], int]:
        """Writes the rows to their end; the states of the prompts, the anchors', probabilities of a target inside."""
        cache = DynamicCache(config=self.vlm.model.config)
        prompt = states = self.vlm.states(prompts, patches, patch_grid, heads, cache)
        mask, position = prompts.attention_mask, prompts.next_position
        last = torch.full_like(position, states.shape[1] - 1)
        chosen: list[int | None] = [None] * len(rows)
        anchors: list[list[Tensor]] = [[] for _ in rows]
        inside: list[list[float]] = [[] for _ in rows]
        self._advance(rows, chosen)
        if not any(row.pending for row in rows):  # begins with a choice, for which the prompt is all there is
            self._advance(rows, self._choose(rows, states, last, inside))
        passes = 1
        while True:
            width = max(len(row.pending) for row in rows)
            if not width or all(row.ask is None and not row.anchors for row in rows):
                break  # nobody is to choose, and what is left has no anchor
            ids, seen = self._padded(rows, width, mask)
            mask = torch.cat([mask, seen], dim=1)
            steps = (position[:, None] + torch.arange(width, device=mask.device)).expand(3, -1, -1)
            states = self.vlm.further(ids, mask, steps, cache)
            position, last = position + seen.sum(1), seen.sum(1) - 1
            passes += 1
            for row, found, own in zip(rows, anchors, states, strict=True):
                found += [own[place] for place in row.anchors]
            self._advance(rows, self._choose(rows, states, last, inside))
        return prompt, anchors, inside, passes

    def _text(self, rows: Sequence[_Row]) -> list[str]:
        ids = [row.ids[:-1] if row.ids[-1:] == [self.scribe.end] else row.ids for row in rows]
        return list(self.scribe.tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False))

    def _transcript(
        self,
        rows: Sequence[_Row],
        counts: Sequence[int],
        anchors: Sequence[Sequence[Tensor]],
        inside: Sequence[Sequence[float]],
        prompt: Tensor,
        passes: int,
    ) -> Transcript:
        text = self._text(rows)
        answers = [answer for each, count in zip(text, counts, strict=True) for answer in parse_answers(each, count)]
        if self.constrained:
            probability = [value for row in inside for value in row]
            collected = torch.stack([state for row in anchors for state in row])
        else:
            certain = {"inside": 1.0, "outside": 0.0}
            probability = [0.5 if answer is None else certain[answer.status] for answer in answers]
            collected = None
        return Transcript(text, answers, prompt.new_tensor(probability, dtype=torch.float32), collected, prompt, passes)

    @staticmethod
    def _advance(rows: Sequence[_Row], chosen: Sequence[int | None]) -> None:
        for row, token in zip(rows, chosen, strict=True):
            if token is None and row.ids and row.ask is None:  # written to the end
                row.pending, row.anchors = [], []
            else:
                row.advance(token)

    def _padded(self, rows: Sequence[_Row], width: int, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What every row has pending, padded on the right: ids and 1 where they are its own, both (R, width)."""
        ids = [row.pending + [self.scribe.padding] * (width - len(row.pending)) for row in rows]
        seen = [[1] * len(row.pending) + [0] * (width - len(row.pending)) for row in rows]
        return torch.tensor(ids, device=mask.device), torch.tensor(seen, device=mask.device)

    def _choose(
        self, rows: Sequence[_Row], states: Tensor, last: Tensor, inside: Sequence[list[float]]
    ) -> list[int | None]:
        """The token each asking row chooses after its last one; probabilities of a status go to ``inside``."""
        chosen: list[int | None] = [None] * len(rows)
        asking = [index for index, row in enumerate(rows) if row.ask is not None]
        if not asking:
            return chosen
        where = torch.tensor(asking, device=states.device)
        scores = self.vlm.logits(states[where, last[where]])
        best = scores.masked_fill(self._mute(scores), -torch.inf).argmax(1).tolist()
        for index, own, free in zip(asking, scores, best, strict=True):
            ask = rows[index].ask
            assert ask is not None
            if ask.ids is None:
                chosen[index] = free
                continue
            allowed = own[ask.ids]
            chosen[index] = int(ask.ids[int(allowed.argmax())])
            if ask.status:
                inside[index].append(float(allowed.softmax(0)[0]))
        return chosen

    def _mute(self, scores: Tensor) -> Tensor:
        mute = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        mute[self.vlm.mute] = True
        return mute

    def _schema(self, people: int) -> Writing:
        """Lines of the schema for all people, and the end."""
        tokens = self.scribe.pieces
        inside, outside = tokens("inside"), tokens("outside")
        for person in range(people):
            last = person == people - 1
            yield Put(tokens(opening(person)), anchor=True)
            is_inside = (yield Ask(self._ids(inside[0], outside[0]), status=True)) == inside[0]
            yield Put((inside if is_inside else outside)[1:])
            if is_inside:
                yield Put(tokens(TO_POINT))
                yield from self._number(tokens(BETWEEN))
                end = tokens(TO_CATEGORY if self.scribe.semantic else closing(category=False, point=True, last=last))
                yield from self._number(end)
                if self.scribe.semantic:
                    yield from self._category(tokens(closing(category=True, point=True, last=last)))
            else:
                yield Put(tokens(closing(category=False, point=False, last=last)))
        yield Put([self.scribe.end])

    def _number(self, then: Sequence[int]) -> Writing:
        """A whole number from 0 to 999 without leading zeros, and what follows it."""
        digits = self._digits
        digit = yield Ask(self._ids(*digits))
        for _ in range(2 if digit != digits[0] else 0):
            digit = yield Ask(self._ids(then[0], *digits))
            if digit == then[0]:
                yield Put(then[1:])
                return
        yield Put(then)

    def point(self, start: str, between: str, end: str) -> Writing:
        """A point of two whole numbers from 0 to 999 with what stands around them."""
        yield Put(self.scribe.pieces(start))
        yield from self._number(self.scribe.pieces(between))
        yield from self._number(self.scribe.pieces(end))

    def _category(self, then: Sequence[int]) -> Writing:
        """Some words, and what follows them."""
        first, text = self._words
        yield Ask(first)
        going_on = torch.cat([self._ids(then[0]), text])
        for _ in range(LONGEST_CATEGORY - 1):
            token = yield Ask(going_on)
            if token == then[0]:
                yield Put(then[1:])
                return
        yield Put(then)

    def free(self, limit: int) -> Writing:
        """Whatever the model writes until it ends or has written enough."""
        for _ in range(limit):
            if (yield Ask()) == self.scribe.end:
                return

    def _ids(self, *tokens: int) -> Tensor:
        return torch.tensor(tokens, device=self.vlm.model.device)

    @cached_property
    def _digits(self) -> list[int]:
        return [self.scribe.tokens(digit)[0] for digit in "0123456789"]

    @cached_property
    def _words(self) -> tuple[Tensor, Tensor]:
        """Tokens a category can begin with, a letter or digit, and those it can go on with.

        The latter are printable text by themselves, without quotes and backslashes.
        """
        tokenizer = self.scribe.tokenizer
        special = {*tokenizer.all_special_ids, *self.vlm.mute, *tokenizer.added_tokens_decoder}
        ids = [index for index in range(len(tokenizer)) if index not in special]
        texts = tokenizer.batch_decode([[index] for index in ids], clean_up_tokenization_spaces=False)
        # A part of a character decodes to the replacement mark.
        known = [
            (index, text)
            for index, text in zip(ids, texts, strict=True)
            if text and text.isprintable() and not {"\ufffd", '"', "\\"} & set(text)
        ]
        first = [index for index, text in known if text[0].isalnum()]
        return self._ids(*first), self._ids(*(index for index, _ in known))


def token_losses(vlm: GazeVLM, rows: Rows, states: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy (N,) of every learnt token of the answers, and the person (N,) it is about."""
    # A token is predicted by the state before it.
    owner = rows.learnt[:, 1:]
    learnt = owner != IGNORED
    scores = vlm.logits(states[:, :-1][learnt])
    losses = torch.nn.functional.cross_entropy(scores, rows.input_ids[:, 1:][learnt], reduction="none")
    return losses, owner[learnt]
