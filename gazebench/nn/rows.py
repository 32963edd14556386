"""Prompts and answers as rows of tokens, with the place of every slot, anchor and image token.

A row is one picture with up to ``limit`` of its people: system prompt, picture, a line a person, and the answer. All
rows begin alike up to the end of the picture; they are padded on the left, so that prompts end, and answers begin, in
one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from gazebench.nn.gaze_language import Answer, answer_pieces, opening, person_line

_PEOPLE, _ANSWER, _IMAGE = "@@people@@", "@@answer@@", "<|image_pad|>"
IGNORED: Final = -100


@dataclass(frozen=True)
class Written:
    """An answer in tokens.

    Attributes:
        ids: the tokens.
        person: of each token, whose line it is in, counted within the row; the end of the turn is the last person's.
        learnt: of each token, whether the language branch learns it.
        anchors: of each person, the index of the line's first token.
    """

    ids: list[int]
    person: list[int]
    learnt: list[bool]
    anchors: list[int]


@dataclass(frozen=True)
class Rows:
    """R rows of L columns about P people.

    Attributes:
        input_ids: (R, L) int64, padded on the left.
        attention_mask: (R, L) int64, 0 on padding; or what is added to scores of attention, (R, 1, L, L) float.
        position_ids: (3, R, L) int64, time, row and column as Qwen3-VL counts them; 0 on padding.
        image_start: (R,) int64, the column of the first image token.
        person_row: (P,) int64 ascending.
        anchor: (P,) int64, the column of each person's anchor.
        learnt: (R, L) int64, the person (of all P) whose loss a token counts for, ``IGNORED`` for none.
        next_position: (R,) int64, the position of the next token, on all three axes.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    image_start: Tensor
    person_row: Tensor
    anchor: Tensor
    learnt: Tensor
    next_position: Tensor


class Scribe:
    """Writes rows for one model and one kind of prompt.

    Args:
        processor: of the model, with the slot token in its tokenizer.
        system: the system prompt.
        grid: rows and columns of image tokens.
        slots: whether every person has a ``<|gaze_pad|>``.
        semantic: whether categories are asked for.

    Raises:
        ValueError: a chat template or tokenizer that is not of the expected kind.
    """

    def __init__(self, processor: Any, system: str, grid: tuple[int, int], *, slots: bool, semantic: bool) -> None:
        self.tokenizer = processor.tokenizer
        self.grid, self.slots, self.semantic = grid, slots, semantic
        turns = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _PEOPLE}]},
        ]
        answered = [*turns, {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}]
        asked = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = processor.apply_chat_template(answered, tokenize=False)
        start, _, rest = asked.partition(_PEOPLE)
        end = whole.removeprefix(f"{asked}{_ANSWER}")
        if not rest or asked.count(_IMAGE) != 1 or _IMAGE not in start or end == whole:
            raise ValueError(
                "the model's chat template does not write picture, text and answer as Qwen3-VL's does; it wrote "
                f"{asked!r} and {whole!r}"
            )
        self.start = self.tokens(start.replace(_IMAGE, _IMAGE * (grid[0] * grid[1])))
        self.rest = self.tokens(rest)
        self.end = self.tokens(end)[0]
        self.padding = self.tokenizer.pad_token_id
        image = self.tokens(_IMAGE)
        first = self.tokenizer.decode(self.tokens(opening(0))[:1])
        if len(image) != 1 or self.padding is None or first != "P":
            raise ValueError("the tokenizer is not of Qwen's kind: no image or padding token, or answers do not begin "
                             f"with the token 'P' but with {first!r}")  # fmt: skip
        self.before_image = self.start.index(image[0])
        self.pieces = lru_cache(maxsize=4096)(self.tokens)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, special ones included."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, boxes: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
        """The prompt about people with these normalised head boxes, and the index of the last token of each line."""
        lines = [person_line(index, box, self.slots) for index, box in enumerate(boxes)]
        ids, ends = list(self.start), []
        # A line with its break ends where the pre-tokeniser cuts, so lines can be tokenised one by one.
        for line in (*(f"{line}\n" for line in lines[:-1]), *lines[-1:]):
            ids += self.tokens(line)
            ends.append(len(ids) - 1)
        return ids + self.rest, ends

    def answer(self, answers: Sequence[Answer]) -> Written:
        """All people's answers and the end of the turn."""
        written = Written([], [], [], [])
        for index, answer in enumerate(answers):
            last = index == len(answers) - 1
            written.anchors.append(len(written.ids))
            pieces = answer_pieces(index, answer, semantic=self.semantic, last=last)
            for text, learnt in pieces:
                self._append(written, index, self.pieces(text), learnt)
            if last:
                self._append(written, index, [self.end], pieces[-1].learnt)
        return written

    def _append(self, written: Written, person: int, ids: Sequence[int], learnt: bool) -> None:
        written.ids.extend(ids)
        written.person.extend([person] * len(ids))
        written.learnt.extend([learnt] * len(ids))

    def rows(
        self, boxes: Sequence[Sequence[Sequence[float]]], answers: Sequence[Sequence[Answer]] | None, device: Any = None
    ) -> Rows:
        """Rows about the people of each picture.

        Args:
            boxes: of every row, its people's normalised head boxes, at least one.
            answers: of every row, its people's answers; None writes prompts, whose anchors are the last tokens of the
                people's lines.
            device: of the tensors.
        """
        ids, anchors, learnt, people = [], [], [], 0
        for row, heads in enumerate(boxes):
            prompt, ends = self.prompt(heads)
            if answers is None:
                ids.append(prompt)
                anchors.append(ends)
                learnt.append([IGNORED] * len(prompt))
            else:
                written = self.answer(answers[row])
                ids.append(prompt + written.ids)
                anchors.append([len(prompt) + anchor for anchor in written.anchors])
                owners = [
                    people + person if learns else IGNORED
                    for person, learns in zip(written.person, written.learnt, strict=True)
                ]
                learnt.append([IGNORED] * len(prompt) + owners)
            people += len(heads)
        return self.padded(ids, anchors, learnt, device)

    def padded(
        self, ids: Sequence[list[int]], anchors: Sequence[list[int]], learnt: Sequence[list[int]], device: Any = None
    ) -> Rows:
        """Rows of tokens that all begin with ``start``, with their anchors and who learns what (see ``Rows``)."""
        lengths = torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        shift = width - lengths  # (R,) columns of padding

        def left(rows: Sequence[list[int]], value: int) -> Tensor:
            return torch.tensor([[value] * (width - len(row)) + row for row in rows])

        index = torch.arange(width) - shift[:, None]  # (R, L) place in the row without its padding, negative on padding
        counts = [len(row) for row in anchors]
        person_row = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(counts))
        flat = torch.tensor([anchor for row in anchors for anchor in row])
        fields = {
            "input_ids": left(ids, self.padding),
            "attention_mask": (index >= 0).long(),
            "position_ids": self.positions(index),
            "image_start": shift + self.before_image,
            "person_row": person_row,
            "anchor": flat + shift[person_row],
            "learnt": left(learnt, IGNORED),
            "next_position": self.positions(lengths[:, None])[0, :, 0],
        }
        return Rows(**{name: tensor.to(device) for name, tensor in fields.items()})

    def positions(self, index: Tensor) -> Tensor:
        """(R, L) places in a row -> (3, R, L) its multimodal rotary positions: those of ``get_rope_index``.

        A picture takes as many positions as its longer side has tokens; negative places (padding) are at 0.
        """
        height, width = self.grid
        inside = index - self.before_image
        picture = (inside >= 0) & (inside < height * width)
        after = index - height * width + max(height, width)
        text = torch.where(inside < 0, index, after).clamp_min(0)
        offsets = (torch.zeros_like(inside), inside // width, inside % width)
        return torch.stack([torch.where(picture, self.before_image + offset, text) for offset in offsets])
