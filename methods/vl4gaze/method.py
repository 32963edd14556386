"""VL4Gaze: gaze as visual question answering, in a vision-language model tuned on four tasks at once.

VL4Gaze: Unleashing Vision-Language Models for Gaze Following. Only the abstract is public: that a VLM is tuned on four
tasks is the paper's, everything else is ours (docs/vqa.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gazebench.core.types import Batch, Prediction
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import MethodCard, Recipe, our_choice
from gazebench.engine.vlm_method import VLMMethod
from gazebench.methods.vl4gaze.dialogue import Dialogue, Pair, buckets
from gazebench.nn.constrained_decoding import ForcedTokens, Grammar, decode, free_text, number
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import trainable
from gazebench.nn.qwen3vl import Tuning
from gazebench.vlm.coordinates import whole
from gazebench.vqa.questions.parsing import parse
from gazebench.vqa.questions.templates import ANYONE, templates
from gazebench.vqa.task import Questions

_UNSAID = "of the paper only the abstract was at hand; "

FULL: Recipe = {
    **our_choice(_UNSAID + "people out of frame are asked about too", loader__people="labelled"),
    **our_choice(_UNSAID + "the last epoch needs no choice", loader__selection="last"),
    **our_choice(_UNSAID + "a fine-tuning", trainer__max_epochs=2),
    **our_choice(_UNSAID + "customary where language models are tuned", trainer__gradient_clip_val=1.0),
    **our_choice("what fits on one GPU of 80 GB", loader__batch_size=16, loader__eval_batch_size=32),
}

VIDEO: Recipe = {**FULL, **our_choice("neighbouring frames say the same", loader__train_stride=6)}


class VL4Gaze(VLMMethod):
    """A Qwen3-VL that answers questions about where people look.

    ``outputs["questions"]`` of its predictions are free answers to the batch's questions. Points and in/out scores are
    those of the text, too: the point it writes about a person when asked by head box, and the probability that this
    answer begins with a point and not with a refusal.

    Args:
        instructions: whether the system prompt says how to answer; a model that is not tuned needs it.
        object_weight: probability of learning a question for an object when its image comes by, 0 to 1.
        direction_weight: the same probability for directions.
        point_weight: the same for points.
        recognition_weight: the same for questions of any kind of which half cannot be answered.
        questions_limit: most questions about an image that are learnt at once, drawn anew each time.
        answer_limit: most tokens of an answer.
        rows_limit: questions answered at once, alike in length.
    """

    version: ClassVar[int] = 1
    card = MethodCard(
        title="VL4Gaze (ours)",
        family="vision-language model",
        paper="VL4Gaze: Unleashing Vision-Language Models for Gaze Following (abstract)",
        citation="vl4gaze",
        licence="Apache-2.0 (written from the abstract)",
        sees=frozenset({"picture", "head box", "text"}),
    )
    capabilities = frozenset({"point", "inout", "text"})
    tasks = (Questions,)
    stage = ("backbone", "tuning", "rank")
    sources = {
        "backbone": ("ours", _UNSAID + "the model OmniGF starts from"),
        "backbone_weights": ("ours", "a pretrained model is what is tuned"),
        "tuning": ("ours", _UNSAID + "customary at this size"),
        "instructions": ("ours", "tuning teaches how to answer"),
        "object_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "direction_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "point_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "recognition_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "questions_limit": ("ours", "keeps crowded pictures within memory"),
        "answer_limit": ("ours", "twice the longest answer of the templates"),
        "rows_limit": ("ours", "no effect on results"),
        "image_size": ("ours", _UNSAID + "as the other methods here"),
        "optimizer": ("ours", _UNSAID + "customary"),
    }
    tiny: ClassVar[Recipe] = {
        **VLMMethod.tiny,
        **our_choice("fits the embedded backbone and two CPU cores", model__questions_limit=8),
    }
    recipes = {
        "*": FULL,
        "vat": VIDEO,
        "childplay": VIDEO,
        "gazeworld": {
            **FULL,
            **our_choice("the embedded world runs on two CPU cores", model__backbone="tiny", model__augment=False),
            **our_choice("one pass takes a CPU core some six minutes", trainer__max_epochs=1),
        },
    }

    def __init__(
        self,
        instructions: bool = False,
        object_weight: float = 1.0,
        direction_weight: float = 1.0,
        point_weight: float = 1.0,
        recognition_weight: float = 1.0,
        questions_limit: int = 16,
        answer_limit: int = 24,
        rows_limit: int = 64,
        **vlm: Any,
    ) -> None:
        weight = {
            "object": object_weight,
            "direction": direction_weight,
            "point": point_weight,
            "recognition": recognition_weight,
        }
        _check(weight, questions_limit, answer_limit, rows_limit)
        super().__init__(**vlm)
        self.weight, self.templates = weight, templates()
        system = self.templates.instructions if instructions else ""
        self.dialogue = Dialogue(self.vlm, system, self.vlm.grid(self.image_size))
        self.questions_limit, self.answer_limit, self.rows_limit = questions_limit, answer_limit, rows_limit
        self.title = _title(weight, self.tuning)

    def preprocess(self) -> Preprocess:
        return Preprocess.square(self.image_size, self.augment)

    # Prediction --------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Prediction:
        """Everybody's point and in/out score, and answers to all questions."""
        items = batch.items.get("questions", [])
        if not batch.people:
            none = batch.head.new_zeros(0)
            return Prediction(point=none.reshape(0, 2), inout=none, outputs={"questions": []})
        assert batch.images is not None
        images = self.vlm.encode(batch.images)
        point, inout = self._points(batch, images)
        of_person = batch.image_index.tolist()
        answers = self.free_answers(
            [item.input.text for item in items], [of_person[item.person] for item in items], images
        )
        return Prediction(point=point, inout=inout, outputs={"questions": answers} if items else {})

    def _points(self, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 2) the point written about every person, and (P,) how probably it is one and no refusal."""
        around = self.templates.point.format(x="\n", y="\n").split("\n")  # before, between and after the numbers
        questions = [self.point_question(box) for box in batch.head.tolist()]
        texts, states = self._answers(
            questions, batch.image_index.tolist(), images, lambda: self._point_grammar(*around)
        )
        first, refusal = (self.dialogue.tokens(text)[0] for text in (around[0], self.templates.refusals["outside"]))
        inside = self.vlm.logits(states)[:, [first, refusal]].softmax(1)[:, 0]
        points = [parse("point", text).point or (0.5, 0.5) for text in texts]
        return batch.head.new_tensor(points), inside.to(batch.head)

    def point_question(self, box: Sequence[float]) -> str:
        """The question for a person's point; without a box (NaN) in words that fit anybody."""
        known = all(side == side for side in box)
        trait = "box" if known else ANYONE
        numbers = ", ".join(str(whole(side)) for side in box) if known else ""
        observer = self.templates.observers[trait][0].format(box=numbers)
        return self.templates.questions["point"][0].format(observer=observer)

    def free_answers(self, questions: Sequence[str], owner: Sequence[int], images: Tensor) -> list[str]:
        """Free answers to some questions, each about one of the encoded images."""
        return self._answers(questions, owner, images, lambda: free_text(self.dialogue, self.answer_limit))[0]

    def _answers(
        self, questions: Sequence[str], owner: Sequence[int], images: Tensor, grammar: Callable[[], Grammar]
    ) -> tuple[list[str], Tensor]:
        """Answers under a grammar, written in batches of questions alike in length.

        Args:
            questions: Q of them.
            owner: the image of each.
            images: (1 + D, B, N, C) encoded images.
            grammar: makes the grammar of one answer.

        Returns:
            Q answers, and the states (Q, C) that they begin after.
        """
        texts, states = [""] * len(questions), images.new_empty(len(questions), self.vlm.dim)
        for places in buckets([len(self.dialogue.question(text)) for text in questions], self.rows_limit):
            rows = self.dialogue.prompts([questions[place] for place in places]).to(self.vlm.model.device)
            shown = images[:, [owner[place] for place in places]]
            answers, prompt = decode(self.vlm, rows, shown, [grammar() for _ in places], self.dialogue.padding)
            states[places] = prompt[:, -1].to(states)
            for place, text in zip(places, self.dialogue.text([answer.ids for answer in answers]), strict=True):
                texts[place] = text
        return texts, states

    def _point_grammar(self, start: str, between: str, end: str) -> Grammar:
        """Two whole numbers from 0 to 999 with the texts around them."""
        yield ForcedTokens(self.dialogue.pieces(start))
        yield from number(self.dialogue, self.dialogue.pieces(between))
        yield from number(self.dialogue, self.dialogue.pieces(end))

    # Training ----------------------------------------------------------------------------------------------------

    @classmethod
    def left_out(cls, model: Mapping[str, Any]) -> frozenset[str]:
        points = model["tuning"] == "none" or model["point_weight"] > 0
        return frozenset() if points else frozenset({"gaze", "social"})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the tokens of some answers, and of nothing else."""
        assert batch.images is not None
        pairs = self.draw_questions(batch)
        images = [image for image, some in enumerate(pairs) if some]
        if not images:  # a zero with a gradient for everything that learns
            nothing = torch.stack([parameter.sum() * 0 for parameter in trainable(self.vlm)])[:0]
            return {"language": batch_mean(nothing)}
        rows = self.dialogue.packed([pairs[image] for image in images], self.vlm.model.dtype).to(batch.head.device)
        states = self.vlm.states(rows, self.vlm.encode(batch.images[images]))
        return {"language": batch_mean(self.vlm.token_losses(rows, states))}

    def draw_questions(self, batch: Batch) -> list[list[Pair]]:
        """Some questions about each image with their answers: by the weights of their types, at most so many."""
        assert batch.targets is not None, "training needs targets"
        items = batch.items.get("questions", [])
        truths = batch.targets.truths.get("questions", [])
        pairs: list[list[Pair]] = [[] for _ in batch.image_ids]
        image = batch.image_index.tolist()
        order, luck = torch.randperm(len(items)).tolist(), torch.rand(len(items)).tolist()
        for place in order:
            item = items[place]
            some = pairs[image[item.person]]
            if luck[place] < self.weight[item.input.task] and len(some) < self.questions_limit:
                some.append((item.input.text, truths[place].answer))
        return pairs


def _title(weight: Mapping[str, float], tuning: Tuning) -> str:
    if tuning == "none":
        return "VL4Gaze (ours, zero-shot)"
    learnt = [kind for kind, share in weight.items() if share]
    return "VL4Gaze (ours)" if len(learnt) == len(weight) else f"VL4Gaze (ours, {' + '.join(learnt)} only)"


def _check(weight: Mapping[str, float], *limits: int) -> None:
    """Raises ValueError for settings that make no sense, with the remedy."""
    wrong = [f"--model.{kind}_weight {share}: choose 0 to 1" for kind, share in weight.items() if not 0 <= share <= 1]
    if not any(weight.values()):
        wrong.append("all types of question have weight 0: give one of them 1")
    if min(limits) < 1:
        wrong.append("--model.questions_limit, answer_limit and rows_limit are at least 1")
    if wrong:
        raise ValueError("; ".join(wrong))
