"""Questions about pictures as rows of tokens: one a row to be answered, or all of a picture packed into one to learn.

Packed questions share the picture, which is read once for all of them, and nothing else: each one sees the picture and
itself, at the positions it would have alone. So what is learnt is what is asked for later, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gazebench.nn.rows import IGNORED, Rows, Scribe

Pair = tuple[str, str]
"""A question and its answer."""


class Dialogue(Scribe):
    """Writes questions, and answers to learn, for one model.

    Args:
        processor: of the model.
        system: the system prompt; may be empty.
        grid: rows and columns of image tokens.

    Raises:
        ValueError: a chat template or tokenizer that is not of the expected kind.
    """

    def __init__(self, processor: Any, system: str, grid: tuple[int, int]) -> None:
        super().__init__(processor, system, grid, slots=False, semantic=False)

    def question(self, text: str) -> list[int]:
        """What comes after the picture, up to where the answer begins."""
        return [*self.tokens(text), *self.rest]

    def asked(self, questions: Sequence[str], device: Any = None) -> Rows:
        """A row a question, to be answered."""
        ids = [self.start + self.question(text) for text in questions]
        last = [[len(row) - 1] for row in ids]
        return self.padded(ids, last, [[IGNORED] * len(row) for row in ids], device)

    def packed(self, pictures: Sequence[Sequence[Pair]], device: Any = None, dtype: Any = torch.float32) -> Rows:
        """A row a picture with all its questions and answers, of which the answers are learnt.

        ``learnt`` counts the pairs of all pictures, one after another; there are no anchors.

        Args:
            pictures: of each, its pairs; at least one.
            device: of the tensors.
            dtype: of the mask.
        """
        ids: list[list[int]] = []
        owner: list[list[int]] = []  # -1 what all see
        learnt: list[list[int]] = []
        place: list[list[int]] = []  # where a token would stand if its question were alone
        number = 0
        for pairs in pictures:
            row, parts, learns = list(self.start), [-1] * len(self.start), [IGNORED] * len(self.start)
            places = list(range(len(row)))
            for question, answer in pairs:
                asked, said = self.question(question), [*self.tokens(answer), self.end]
                row += asked + said
                parts += [number] * (len(asked) + len(said))
                learns += [IGNORED] * len(asked) + [number] * len(said)
                places += range(len(self.start), len(self.start) + len(asked) + len(said))
                number += 1
            ids.append(row)
            owner.append(parts)
            learnt.append(learns)
            place.append(places)
        width = max(map(len, ids))

        def right(rows: Sequence[list[int]], value: int) -> torch.Tensor:
            return torch.tensor([row + [value] * (width - len(row)) for row in rows])

        mine, index = right(owner, -2), right(place, -1)
        order = torch.arange(width)
        seen = (mine[:, None, :] == -1) | (mine[:, None, :] == mine[:, :, None])  # (R, query, key)
        seen &= order[None, :] <= order[:, None]
        seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself, or its softmax would be of nothing
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        rows = len(ids)
        fields = {
            "input_ids": right(ids, self.padding),
            "attention_mask": mask[:, None],
            "position_ids": self.positions(index),
            "image_start": torch.full((rows,), self.before_image),
            "person_row": torch.zeros(0, dtype=torch.int64),
            "anchor": torch.zeros(0, dtype=torch.int64),
            "learnt": right(learnt, IGNORED),
            "next_position": self.positions(torch.tensor([[len(row)] for row in ids]))[0, :, 0],
        }
        return Rows(**{name: tensor.to(device) for name, tensor in fields.items()})


def buckets(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Places in batches of at most ``size``, alike in length: little is padded; longest first: memory fails early."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return [order[start : start + size] for start in range(0, len(order), size)]
