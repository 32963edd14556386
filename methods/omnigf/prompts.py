"""OmniGF's prompts and answers, as text and as rows of tokens (section 3.2).

A person is one line of the prompt and one line of the answer, both with the name ``P0``, ``P1`` ... Coordinates are
whole numbers from 0 to 999, the grounding convention of Qwen3-VL.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import torch
import yaml
from torch import Tensor

from gazebench.nn.prompt_builder import PromptBuilder
from gazebench.nn.qwen3vl import IGNORED, Qwen3VL, TokenRows
from gazebench.vlm.coordinates import LARGEST, whole

GAZE_PAD: Final = "<|gaze_pad|>"
"""The token whose embedding is replaced by a head's (equation 1)."""
SYSTEM_PROMPTS: Final[dict[str, str]] = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text("utf-8"))

Status = Literal["inside", "outside", "unknown"]
LONGEST_CATEGORY: Final = 60
"""Characters of a category; the rest is cut."""
TO_POINT: Final = '", "point_2d": ['
BETWEEN: Final = ", "
TO_CATEGORY: Final = '], "category": "'


@dataclass(frozen=True)
class GazeAnswer:
    """One person's answer.

    Attributes:
        status: where the gaze target is; people without annotation are ``unknown``, which is never learnt or generated.
        point: x, y from 0 to 999; only with ``inside``.
        category: what is looked at, "" where that is not known.
    """

    status: Status
    point: tuple[int, int] | None = None
    category: str = ""


# Text ------------------------------------------------------------------------------------------------------------


def person_line(index: int, box: Sequence[float], slot: bool) -> str:
    """A person's line of the prompt, equation 1.

    Args:
        index: the i of ``Pi``.
        box: normalised xyxy of the head; NaN is written as null.
        slot: whether the line begins with ``<|gaze_pad|>``.
    """
    known = all(math.isfinite(side) for side in box)
    described = json.dumps({"bbox_2d": [whole(side) for side in box] if known else None})
    return f"{GAZE_PAD if slot else ''}P{index}: {described}"


def opening(index: int) -> str:
    """The beginning of a person's line of the answer, up to the status; its first token is the person's anchor."""
    return f'P{index}: {{"status": "'


def closing(*, category: bool, point: bool, last: bool) -> str:
    """The end of a line; every line but the last one ends with a line break."""
    return ('"}' if category or not point else "]}") + ("" if last else "\n")


def answer_pieces(index: int, answer: GazeAnswer, *, semantic: bool, last: bool) -> list[tuple[str, bool]]:
    """A person's line of the answer, equation 2, as pieces of text and whether each is learnt.

    A piece is tokenised by itself. Lines are cut where Qwen's pre-tokeniser cuts too, so pieces and whole lines give
    the same tokens. Nothing is learnt of an unknown answer. Where categories are asked for and this one is not known,
    the line ends after the point and its end is not learnt.
    """
    learnt = answer.status != "unknown"
    texts = [opening(index), answer.status]
    category = clean_category(answer.category) if semantic else ""
    if answer.point is not None:
        texts += [TO_POINT, str(answer.point[0]), BETWEEN, str(answer.point[1])]
        texts += [TO_CATEGORY, category] if category else []
    named = bool(category) and answer.point is not None
    end = closing(category=named, point=answer.point is not None, last=last)
    end_learnt = learnt and (named or not semantic or answer.point is None)
    return [*((text, learnt) for text in texts), (end, end_learnt)]


def clean_category(text: str) -> str:
    """A category that can stand between quotes: no quotes or backslashes, letters or digits at both ends."""
    text = unicodedata.normalize("NFC", text)
    printable = "".join(character if character.isprintable() else " " for character in text)
    words = re.sub(r'["\\]', " ", printable).split()
    return re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(words)[:LONGEST_CATEGORY])


def parse_answers(text: str, people: int) -> list[GazeAnswer | None]:
    """The answers of ``people`` people in any text; None where an answer is missing or malformed.

    The first well-formed line of a person counts. It has a status of ``inside`` or ``outside`` and, when inside, a
    point of two numbers from 0 to 999.
    """
    found: list[GazeAnswer | None] = [None] * people
    place = 0
    while match := _NAME.search(text, place):
        place = match.end()
        try:
            read, place = _JSON.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        index = int(match[1])
        if index < people and found[index] is None:
            found[index] = _checked(read)
    return found


_NAME = re.compile(r"P(\d{1,4})\s*:\s*(?=\{)")
_JSON = json.JSONDecoder()


def _checked(read: dict[str, Any]) -> GazeAnswer | None:
    if read.get("status") == "outside":
        return GazeAnswer("outside")
    point, category = read.get("point_2d"), read.get("category", "")
    if read.get("status") != "inside" or not isinstance(point, list) or len(point) != 2:
        return None
    if not all(type(value) in (int, float) and 0 <= value <= LARGEST for value in point):
        return None
    return GazeAnswer("inside", (round(point[0]), round(point[1])), category if isinstance(category, str) else "")


def as_json(answer: GazeAnswer | None) -> str:
    """An answer as the object of equation 2; "" for None."""
    if answer is None:
        return ""
    fields = {"status": answer.status, "point_2d": answer.point, "category": answer.category}
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)


# Tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PeopleRows(TokenRows):
    """Rows about P people in all.

    Attributes:
        person_row: (P,) int64 ascending, the row of each person.
        anchor: (P,) int64, the column of each person's anchor.
    """

    person_row: Tensor
    anchor: Tensor


class PeoplePrompts(PromptBuilder):
    """Builds OmniGF's prompts.

    Args:
        vlm: the model, with the slot token in its tokenizer.
        grid: rows and columns of image tokens.
        slots: whether every person has a ``<|gaze_pad|>``.
        semantic: whether categories are asked for.
    """

    def __init__(self, vlm: Qwen3VL, grid: tuple[int, int], *, slots: bool, semantic: bool) -> None:
        super().__init__(vlm, SYSTEM_PROMPTS["semantic" if semantic else "basic"], grid)
        self.slots, self.semantic, self.suppressed = slots, semantic, vlm.suppressed
        first = self.tokenizer.decode(self.tokens(opening(0))[:1])
        if first != "P":
            raise ValueError(f"answers begin with the token {first!r} and not with 'P': the tokenizer is not Qwen's")

    def rows(
        self, boxes: Sequence[Sequence[Sequence[float]]], answers: Sequence[Sequence[GazeAnswer]] | None = None
    ) -> PeopleRows:
        """Rows about the people of each image.

        Args:
            boxes: for every row its people's normalised head boxes, at least one.
            answers: for every row its people's answers; their first tokens are the anchors. With None the rows are
                prompts, and the anchors are the last tokens of the people's lines.
        """
        ids: list[list[int]] = []
        learnt: list[list[int]] = []
        anchors: list[list[int]] = []
        people = 0
        for row, heads in enumerate(boxes):
            tokens, anchor = self._prompt(heads)
            numbers = [IGNORED] * len(tokens)
            if answers is not None:
                anchor = []
                for index, answer in enumerate(answers[row]):
                    anchor.append(len(tokens))
                    last = index == len(heads) - 1
                    for text, learns in answer_pieces(index, answer, semantic=self.semantic, last=last):
                        tokens += self.pieces(text)
                        numbers += [people + index if learns else IGNORED] * (len(tokens) - len(numbers))
                tokens.append(self.end)
                numbers.append(numbers[-1])
            ids.append(tokens)
            learnt.append(numbers)
            anchors.append(anchor)
            people += len(heads)
        made = self.padded(ids, None if answers is None else learnt)
        counts, lengths = (torch.tensor([len(row) for row in each]) for each in (anchors, ids))
        person_row = torch.repeat_interleave(torch.arange(len(ids)), counts)
        column = torch.tensor([place for row in anchors for place in row])
        padding = made.input_ids.shape[1] - lengths
        return PeopleRows(**vars(made), person_row=person_row, anchor=column + padding[person_row])

    def _prompt(self, boxes: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
        """The prompt about people with these normalised head boxes, and the index of the last token of each line."""
        ids, ends = list(self.start), []
        for index, box in enumerate(boxes):
            # A line with its break ends where the pre-tokeniser cuts, so lines can be tokenised one by one.
            line = person_line(index, box, self.slots)
            ids += self.tokens(line if index == len(boxes) - 1 else f"{line}\n")
            ends.append(len(ids) - 1)
        return ids + self.before_answer, ends

    @cached_property
    def category_tokens(self) -> tuple[Tensor, Tensor]:
        """Tokens a category can begin with (a letter or digit) and those it can go on with.

        The latter are printable text by themselves, without quotes and backslashes.
        """
        special = {*self.tokenizer.all_special_ids, *self.suppressed, *self.tokenizer.added_tokens_decoder}
        ids = [index for index in range(len(self.tokenizer)) if index not in special]
        texts = self.tokenizer.batch_decode([[index] for index in ids], clean_up_tokenization_spaces=False)
        # A part of a character decodes to the replacement mark.
        known = [
            (index, text)
            for index, text in zip(ids, texts, strict=True)
            if text and text.isprintable() and not {"\ufffd", '"', "\\"} & set(text)
        ]
        first = [index for index, text in known if text[0].isalnum()]
        return torch.tensor(first), torch.tensor([index for index, _ in known])
