"""Questions about images as rows of tokens: one a row to be answered, or all of an image packed into one to learn.

Packed questions share the image, which is read once for all of them, and nothing else: each one sees the image and
itself, at the positions it would have alone. So what is learnt is what is asked for later, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gazebench.nn.prompt_builder import PromptBuilder, padded
from gazebench.nn.qwen3vl import IGNORED, TokenRows

Pair = tuple[str, str]
"""A question and its answer."""
_SHARED, _PADDING = -1, -2


class Dialogue(PromptBuilder):
    """Builds rows of questions, and of answers to learn."""

    def question(self, text: str) -> list[int]:
        """The tokens after the image, up to where the answer begins."""
        return [*self.tokens(text), *self.before_answer]

    def prompts(self, questions: Sequence[str]) -> TokenRows:
        """One row for each question, to be answered."""
        return self.padded([self.start + self.question(text) for text in questions])

    def packed(self, images: Sequence[Sequence[Pair]], dtype: torch.dtype = torch.float32) -> TokenRows:
        """A row an image with all its questions and answers, padded on the right; the answers are learnt.

        ``learnt`` counts the pairs of all images, one after another.

        Args:
            images: for each image its pairs, at least one.
            dtype: dtype of the mask.
        """
        ids: list[list[int]] = []
        owner: list[list[int]] = []
        learnt: list[list[int]] = []
        place: list[list[int]] = []  # where a token would stand if its question were alone
        number, begin = 0, len(self.start)
        for pairs in images:
            ids.append(list(self.start))
            owner.append([_SHARED] * begin)
            learnt.append([IGNORED] * begin)
            place.append(list(range(begin)))
            for question, answer in pairs:
                prompt, target = self.question(question), [*self.tokens(answer), self.end]
                length = len(prompt) + len(target)
                ids[-1] += prompt + target
                owner[-1] += [number] * length
                learnt[-1] += [IGNORED] * len(prompt) + [number] * len(target)
                place[-1] += range(begin, begin + length)
                number += 1
        mine = padded(owner, _PADDING, "right")
        width = mine.shape[1]
        seen = (mine[:, None, :] == _SHARED) | (mine[:, None, :] == mine[:, :, None])  # (R, query, key)
        # Padding sees itself, or its softmax would be of nothing.
        seen = seen.tril() | torch.eye(width, dtype=torch.bool)
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return TokenRows(
            input_ids=padded(ids, self.padding, "right"),
            attention_mask=mask[:, None],
            position_ids=self.positions(padded(place, -1, "right")),
            learnt=padded(learnt, IGNORED, "right"),
        )


def buckets(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Places in batches of at most ``size``, alike in length: little is padded; longest first: memory fails early."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return [order[start : start + size] for start in range(0, len(order), size)]
