"""VL4Gaze: gaze as visual question answering, in a vision-language model tuned on four tasks at once.

VL4Gaze: Unleashing Vision-Language Models for Gaze Following. Only the abstract is public: that a VLM is tuned on four
tasks is the paper's, everything else is ours (docs/vqa.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gazebench.core.types import Batch, Prediction
from gazebench.core.weights import read_weights
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard, Recipe, chosen, our_choice
from gazebench.methods.vl4gaze.dialogue import Dialogue, Pair, buckets
from gazebench.nn.backbones import ComputeDtype
from gazebench.nn.constrained_decoding import ForcedTokens, Grammar, decode, free_text, number
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adamw_or_muon, trainable, warm_cosine
from gazebench.nn.qwen3vl import Tuning, load
from gazebench.vlm.coordinates import whole
from gazebench.vqa.questions.parsing import parse
from gazebench.vqa.questions.templates import ANYONE, templates
from gazebench.vqa.task import Questions

_UNSAID = "the paper's text is not public; "

FULL: Recipe = {
    **our_choice(_UNSAID + "people out of frame are asked about too", loader__people="labelled"),
    **our_choice(_UNSAID + "the last epoch needs no choice", loader__selection="last"),
    **our_choice(_UNSAID + "a fine-tuning", trainer__max_epochs=2),
    **our_choice(_UNSAID + "customary where language models are tuned", trainer__gradient_clip_val=1.0),
    **our_choice("what fits on one GPU of 80 GB", loader__batch_size=16, loader__eval_batch_size=32),
}

VIDEO: Recipe = {**FULL, **our_choice("neighbouring frames say the same", loader__train_stride=6)}

TINY: Recipe = our_choice(
    "fits the embedded backbone and two CPU cores",
    model__backbone_weights="pretrained",
    model__compute_dtype="float32",
    model__image_size=160,
    model__tuning="language",
    model__optimizer="muon",
    model__lr=1.2e-3,
    model__lr_muon=0.012,
    model__questions_limit=8,
    loader__batch_size=20,
)


class VL4Gaze(Method):
    """A Qwen3-VL that answers questions about where people look.

    ``outputs["questions"]`` of its predictions are free answers to the batch's questions. Points and in/out scores are
    those of the text, too: the point it writes about a person when asked by head box, and the probability that this
    answer begins with a point and not with a refusal.

    Args:
        backbone: ``tiny``, a folder with a Qwen3-VL as ``save_pretrained`` writes it, or a model's id on the hub.
        backbone_weights: ``pretrained``, ``random`` or a file.
        compute_dtype: precision of the frozen weights; trained weights are float32.
        tuning: ``lora`` of the language model; ``language``, all of it; ``full``, the image encoder too; ``none``, the
            zero-shot row.
        rank: r of LoRA.
        alpha: LoRA's updates are scaled by alpha / r.
        dropout: dropout of the updates' input.
        instructions: whether the system prompt says how to answer; a model that is not tuned needs it.
        object_weight: probability of learning a question for an object when its image comes by, 0 to 1.
        direction_weight: the same probability for directions.
        point_weight: the same for points.
        recognition_weight: the same for questions of any kind of which half cannot be answered.
        questions_limit: most questions about an image that are learnt at once, drawn anew each time.
        answer_limit: most tokens of an answer.
        rows_limit: questions answered at once, alike in length.
        image_size: side of the square input in pixels.
        augment: crop, flip and jitter head boxes in training; questions and answers follow.
        optimizer: ``adamw``, or ``muon`` for the matrices beside it.
        lr: learning rate.
        lr_muon: learning rate of the matrices with ``muon``.
        weight_decay: weight decay of all trained weights.
        checkpointing: recompute layers in the backward pass: less memory, more time.
    """

    version: ClassVar[int] = 1
    card = MethodCard(
        title="VL4Gaze (ours)",
        family="vision-language model",
        paper="VL4Gaze: Unleashing Vision-Language Models for Gaze Following (abstract)",
        citation="vl4gaze",
        licence="Apache-2.0 (written from the abstract)",
    )
    capabilities = frozenset({"point", "inout", "text"})
    tasks = (Questions,)
    stage = ("backbone", "tuning", "rank")
    sources = {
        "backbone": ("ours", _UNSAID + "the model OmniGF starts from"),
        "backbone_weights": ("ours", "a pretrained model is what is tuned"),
        "compute_dtype": ("ours", "the precision the weights are published in"),
        "tuning": ("ours", _UNSAID + "customary at this size"),
        "rank": ("ours", _UNSAID + "customary"),
        "alpha": ("ours", _UNSAID + "twice the rank is customary"),
        "dropout": ("ours", _UNSAID + "customary"),
        "instructions": ("ours", "tuning teaches how to answer"),
        "object_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "direction_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "point_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "recognition_weight": ("paper", "abstract: trained on all tasks; the weight is ours"),
        "questions_limit": ("ours", "keeps crowded pictures within memory"),
        "answer_limit": ("ours", "twice the longest answer of the templates"),
        "rows_limit": ("ours", "no effect on results"),
        "image_size": ("ours", _UNSAID + "as the other methods here"),
        "augment": ("ours", _UNSAID + "customary in gaze following"),
        "optimizer": ("ours", _UNSAID + "customary"),
        "lr": ("ours", _UNSAID + "customary for LoRA"),
        "lr_muon": ("ours", "only for models trained from scratch"),
        "weight_decay": ("ours", _UNSAID + "with few weights that learn it matters little"),
        "checkpointing": ("ours", "no effect on results"),
    }
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
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
        backbone: str = "Qwen/Qwen3-VL-4B-Instruct",
        backbone_weights: str = "pretrained",
        compute_dtype: ComputeDtype = "bfloat16",
        tuning: Tuning = "lora",
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.05,
        instructions: bool = False,
        object_weight: float = 1.0,
        direction_weight: float = 1.0,
        point_weight: float = 1.0,
        recognition_weight: float = 1.0,
        questions_limit: int = 16,
        answer_limit: int = 24,
        rows_limit: int = 64,
        image_size: int = 448,
        augment: bool = True,
        optimizer: Literal["adamw", "muon"] = "adamw",
        lr: float = 1e-4,
        lr_muon: float = 0.02,
        weight_decay: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.weight = {
            "object": object_weight,
            "direction": direction_weight,
            "point": point_weight,
            "recognition": recognition_weight,
        }
        _check(self.weight, questions_limit, answer_limit, rows_limit)
        self.vlm = load(backbone, backbone_weights, compute_dtype)
        self.vlm.tune(tuning, rank, alpha, dropout, checkpointing)
        self.templates = templates()
        system = self.templates.instructions if instructions else ""
        self.dialogue = Dialogue(self.vlm, system, self.vlm.grid(image_size))
        self.image_size, self.tuning, self.augment = image_size, tuning, augment
        self.questions_limit, self.answer_limit, self.rows_limit = questions_limit, answer_limit, rows_limit
        self.optimizer_name, self.lr, self.lr_muon, self.weight_decay = optimizer, lr, lr_muon, weight_decay
        self.title = _title(self.weight, tuning)

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The recipe of the data set, or one that fits the tiny backbone."""
        recipe = super().recipe(dataset, model)
        return {**recipe, **TINY} if chosen(recipe, model, "backbone") == "tiny" else recipe

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
        questions = [self.point_question(box) for box in batch.head.tolist()]
        point, inside = batch.head.new_full((batch.people, 2), 0.5), batch.head.new_zeros(batch.people)
        around = self.templates.point.format(x="\n", y="\n").split("\n")  # before, between and after the numbers
        first, refusal = (self.dialogue.tokens(text)[0] for text in (around[0], self.templates.refusals["outside"]))
        owner = batch.image_index.tolist()
        for people, texts, states in self._answers(questions, owner, images, lambda: self._point_grammar(*around)):
            inside[people] = self.vlm.logits(states)[:, [first, refusal]].softmax(1)[:, 0].to(inside)
            for person, text in zip(people, texts, strict=True):
                found = parse("point", text).point
                if found is not None:
                    point[person] = point.new_tensor(found)
        return point, inside

    def point_question(self, box: Sequence[float]) -> str:
        """The question for a person's point; without a box (NaN) in words that fit anybody."""
        known = all(side == side for side in box)
        trait = "box" if known else ANYONE
        numbers = ", ".join(str(whole(side)) for side in box) if known else ""
        observer = self.templates.observers[trait][0].format(box=numbers)
        return self.templates.questions["point"][0].format(observer=observer)

    def free_answers(self, questions: Sequence[str], owner: Sequence[int], images: Tensor) -> list[str]:
        """Free answers to some questions, each about one of the encoded images."""
        answers = [""] * len(questions)
        for places, texts, _ in self._answers(
            questions, owner, images, lambda: free_text(self.dialogue, self.answer_limit)
        ):
            for place, text in zip(places, texts, strict=True):
                answers[place] = text
        return answers

    def _answers(
        self, questions: Sequence[str], owner: Sequence[int], images: Tensor, grammar: Callable[[], Grammar]
    ) -> Iterator[tuple[list[int], list[str], Tensor]]:
        """Answers under a grammar, in batches of questions alike in length.

        Args:
            questions: any number of them.
            owner: the image of each.
            images: (1 + D, B, N, C) encoded images.
            grammar: makes the grammar of one answer.

        Yields:
            The places of R questions, their answers, and the states (R, C) that the answers begin after.
        """
        for places in buckets([len(self.dialogue.question(text)) for text in questions], self.rows_limit):
            rows = self.dialogue.prompts([questions[place] for place in places]).to(self.vlm.model.device)
            shown = images[:, [owner[place] for place in places]]
            answers, prompt = decode(self.vlm, rows, shown, [grammar() for _ in places], self.dialogue.padding)
            yield places, self.dialogue.text([answer.ids for answer in answers]), prompt[:, -1]

    def _point_grammar(self, start: str, between: str, end: str) -> Grammar:
        """Two whole numbers from 0 to 999 with the texts around them."""
        yield ForcedTokens(self.dialogue.pieces(start))
        yield from number(self.dialogue, self.dialogue.pieces(between))
        yield from number(self.dialogue, self.dialogue.pieces(end))

    # Training ----------------------------------------------------------------------------------------------------

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

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, or Muon beside it, under a warm-up and a cosine."""
        groups = [{"params": trainable(self.vlm), "lr": self.lr}]
        optimizer = adamw_or_muon(self.optimizer_name, groups, self.vlm, self.lr_muon, self.weight_decay)
        return optimizer, warm_cosine(optimizer, int(self.trainer.estimated_stepping_batches))

    # Weights -----------------------------------------------------------------------------------------------------

    def load_initial(self, path: Path) -> None:
        """Starts from an earlier stage of the same configuration."""
        self.load_export(read_weights(path))

    def weights_identity(self) -> dict[str, Any]:
        """Name and initial weights of the Qwen3-VL."""
        return self.vlm.weights_identity(self.tuning)


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
