"""Conversations about an image as rows of tokens, which are all the same up to the end of the image.

The library's chat template and rotary positions are applied once, to a conversation with placeholders. Rows are then
concatenated from tokenised parts: ``apply_chat_template`` and ``get_rope_index`` for every row take twelve times as
long (91 ms instead of 7 for 8 rows of 3 people), and answer masks would need a template with ``generation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gazebench.nn.qwen3vl import IGNORED, Qwen3VL, TokenRows

_USER: Final = "@@user@@"
_ANSWER: Final = "@@answer@@"
_IMAGE: Final = "<|image_pad|>"


class PromptBuilder:
    """Builds prompts for one model and one system prompt.

    Args:
        vlm: the model; its tokenizer already has the special tokens that prompts use.
        system: the system prompt; may be empty.
        grid: rows and columns of image tokens.

    Attributes:
        start: the tokens before the user's text, image included.
        before_answer: the tokens between the user's text and the answer.
        end: the token that ends an answer.
        pieces: ``tokens`` with a cache.

    Raises:
        ValueError: the chat template or the tokenizer differs from Qwen's.
    """

    def __init__(self, vlm: Qwen3VL, system: str, grid: tuple[int, int]) -> None:
        self.tokenizer, self.grid = vlm.processor.tokenizer, grid
        turns = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _USER}]},
        ]
        answer = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        prompt = vlm.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = vlm.processor.apply_chat_template([*turns, answer], tokenize=False)
        start, _, before_answer = prompt.partition(_USER)
        end = whole.removeprefix(f"{prompt}{_ANSWER}")
        if not before_answer or start.count(_IMAGE) != 1 or end == whole:
            raise ValueError(
                "the model's chat template does not write image, text and answer as Qwen3-VL's does; it wrote "
                f"{prompt!r} and {whole!r}"
            )
        self.start = self.tokens(start.replace(_IMAGE, _IMAGE * (grid[0] * grid[1])))
        self.before_answer = self.tokens(before_answer)
        self.end = self.tokens(end)[0]
        self.padding = self.tokenizer.pad_token_id
        if len(self.tokens(_IMAGE)) != 1 or self.padding is None:
            raise ValueError("the tokenizer has no token for images or padding, unlike Qwen's")
        self.pieces = lru_cache(maxsize=4096)(self.tokens)
        self._start_positions, self._after_start = _rotary_positions(vlm, self.start, grid)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, special ones included."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of answers, without the token that ends them."""
        bare = [row[:-1] if row and row[-1] == self.end else row for row in ids]
        return list(self.tokenizer.batch_decode(bare, clean_up_tokenization_spaces=False))

    def padded(self, ids: Sequence[Sequence[int]], learnt: Sequence[Sequence[int]] | None = None) -> TokenRows:
        """Rows of any lengths as ``TokenRows``, padded on the left, so that all answers begin in the same column.

        Args:
            ids: the tokens of each row; they begin with ``start``.
            learnt: a number for each token, see ``TokenRows``.
        """
        lengths = torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        place = torch.arange(width) - (width - lengths)[:, None]  # in the row without its padding; negative on padding
        return TokenRows(
            input_ids=padded(ids, self.padding, "left"),
            attention_mask=(place >= 0).long(),
            position_ids=self.positions(place),
            learnt=None if learnt is None else padded(learnt, IGNORED, "left"),
        )

    def positions(self, place: Tensor) -> Tensor:
        """(R, L) places in a row, negative on padding -> (3, R, L) rotary positions, 0 on padding."""
        at_start = self._start_positions[:, place.clamp(0, len(self.start) - 1)]
        return torch.where(place < len(self.start), at_start, place + self._after_start)


def padded(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    """Lists of different lengths -> (R, L) int64."""
    return pad_sequence([torch.tensor(row) for row in rows], True, value, side)


def _rotary_positions(vlm: Qwen3VL, start: Sequence[int], grid: tuple[int, int]) -> tuple[Tensor, int]:
    """The positions (3, S) of the tokens ``start``, and the shift of the positions of later tokens.

    An image advances the position by the number of tokens of its longer side.
    """
    config, ids = vlm.model.config, torch.tensor([start])
    patches = torch.tensor([[1, *grid]]) * torch.tensor([1, *[config.vision_config.spatial_merge_size] * 2])
    kinds = (ids == config.image_token_id).int()
    positions, shift = vlm.model.model.get_rope_index(ids, kinds, patches)
    return positions[:, 0], int(shift)
