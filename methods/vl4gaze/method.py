"""VL4Gaze: gaze as visual question answering, in a vision-language model tuned on four tasks at once.

VL4Gaze: Unleashing Vision-Language Models for Gaze Following. Only the abstract is public: that a VLM is tuned on four
tasks is the paper's, everything else is ours (docs/vqa.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gazebench.core.types import Batch, Prediction
from gazebench.core.weights import misfits, read_weights
from gazebench.data.transforms import Preprocess
from gazebench.engine.method import Method, MethodCard, Recipe, Setting, trainable
from gazebench.methods.vl4gaze.dialogue import Dialogue, Pair, buckets
from gazebench.nn.backbones import ComputeDtype
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import MuonAdamW, matrices, warm_cosine
from gazebench.nn.qwen3vl import Looked, Tuning, load_vlm
from gazebench.nn.writing import Writer, token_losses
from gazebench.vqa.questions.geometry import whole
from gazebench.vqa.questions.reading import read
from gazebench.vqa.questions.templates import ANYONE, templates
from gazebench.vqa.types import QuestionType

_UNSAID = "the paper's text is not public; "


def _ours(why: str, **values: Any) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, "ours", why) for name, value in values.items()}


FULL: Recipe = {
    **_ours(_UNSAID + "people out of frame are asked about too", loader__people="labelled"),
    **_ours(_UNSAID + "the last epoch needs no choice", loader__selection="last"),
    **_ours(_UNSAID + "a fine-tuning", trainer__max_epochs=2),
    **_ours(_UNSAID + "customary where language models are tuned", trainer__gradient_clip_val=1.0),
    **_ours("what fits on one GPU of 80 GB", loader__batch_size=16, loader__eval_batch_size=32),
}

TINY: Recipe = _ours(
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

    ``extra["answers"]`` holds its free answers to the batch's questions. Its points and in/out scores are those of the
    text, too: of every person, the point it writes when asked by head box, and the probability that the answer begins
    with a point and not with a refusal.

    Args:
        backbone: ``tiny``, a folder with a Qwen3-VL as ``save_pretrained`` writes it, or a model's id on the hub.
        backbone_weights: ``pretrained``, ``random`` or a file.
        compute_dtype: of the frozen weights; what learns is float32.
        tuning: ``lora`` of the language model; ``language``, all of it; ``full``, the image encoder too; ``none``, the
            zero-shot row.
        rank: r of LoRA.
        alpha: its updates are scaled by alpha / r.
        dropout: of what goes into them.
        instructions: whether the system prompt says how to answer; a model that is not tuned needs it.
        object_weight: share of the questions for objects that are learnt each time they come by, 0 to 1.
        direction_weight: of those for directions.
        point_weight: of those for points.
        recognition_weight: of those of which half cannot be answered.
        questions_limit: most questions about a picture that are learnt at once, drawn anew each time.
        answer_limit: most tokens of an answer.
        rows_limit: questions answered at once, alike in length.
        image_size: side of the square input in pixels.
        augment: crop, flip and jitter head boxes in training; questions and answers follow.
        optimizer: ``adamw``, or ``muon`` for the matrices beside it.
        lr: learning rate.
        lr_muon: of the matrices with ``muon``.
        weight_decay: of all.
        checkpointing: recompute layers in the backward pass: less memory, more time.
    """

    card = MethodCard(
        title="VL4Gaze (ours)",
        family="vision-language model",
        paper="VL4Gaze: Unleashing Vision-Language Models for Gaze Following (abstract)",
        citation="vl4gaze",
        licence="Apache-2.0 (written from the abstract)",
        note="protocol, templates and training are ours: the paper's are not public",
    )
    capabilities = frozenset({"point", "inout", "text"})
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
        "vat": {**FULL, **_ours("neighbouring frames say the same", loader__train_stride=6)},
        "childplay": {**FULL, **_ours("neighbouring frames say the same", loader__train_stride=6)},
        "gazeworld": {
            **FULL,
            **_ours("the embedded world runs on two CPU cores", model__backbone="tiny", model__augment=False),
            **_ours("one pass takes a CPU core some six minutes", trainer__max_epochs=1),
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
        self.weight: dict[QuestionType, float] = {
            "object": object_weight,
            "direction": direction_weight,
            "point": point_weight,
            "recognition": recognition_weight,
        }
        _check(self.weight, questions_limit, answer_limit, rows_limit)
        self.vlm = load_vlm(backbone, backbone_weights, compute_dtype)
        self.vlm.tune(tuning, rank, alpha, dropout)
        if checkpointing:
            self.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.image_size, self.tuning, self.augment = image_size, tuning, augment
        self.words = templates()
        system = self.words.instructions if instructions else ""
        self.dialogue = Dialogue(self.vlm.processor, system, self.vlm.grid(image_size))
        self.writer = Writer(self.vlm, self.dialogue, constrained=False)
        self.questions_limit, self.answer_limit, self.rows_limit = questions_limit, answer_limit, rows_limit
        self.optimizer_name, self.lr, self.lr_muon, self.weight_decay = optimizer, lr, lr_muon, weight_decay
        self.title = _title(self.weight, tuning)

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The recipe of the dataset, or one that fits the tiny backbone."""
        recipe = dict(super().recipe(dataset, model))
        chosen = recipe.get("model.backbone")
        backbone = model.get("backbone", chosen.value if chosen else "")
        return {**recipe, **TINY} if backbone == "tiny" else recipe

    def preprocess(self) -> Preprocess:
        """Square pictures, aspect not kept, with questions."""
        size = (self.image_size, self.image_size)
        if self.augment:
            return Preprocess(size=size, questions=True)
        return Preprocess(size=size, crop=0.0, flip=0.0, box_jitter=0.0, questions=True)

    # Prediction --------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Prediction:
        """In training the losses of the answers; at evaluation everybody's point, and answers to all questions."""
        if not batch.people:
            none = batch.head.new_zeros(0)
            return Prediction(point=none.reshape(0, 2), inout=none, extra={"answers": []})
        assert batch.images is not None
        patches, grid = self.vlm.pixels(batch.images)
        if self.training:
            return Prediction(extra=self._learnt(batch, patches, grid))
        pictures = self.vlm.look(patches, grid)
        point, inout = self._points(batch, pictures)
        image = batch.image_index.tolist()
        answers = self._said(
            [question.text for question in batch.questions],
            [image[question.person] for question in batch.questions],
            pictures,
        )
        return Prediction(point=point, inout=inout, extra={"answers": answers} if batch.questions else {})

    def _learnt(self, batch: Batch, patches: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """The loss (N,) of every token of the answers that are learnt this time."""
        assert batch.targets is not None, "training needs targets"
        pairs = self._drawn(batch)
        images = [image for image, some in enumerate(pairs) if some]
        if not images:
            return {"token_loss": self._nothing()}
        dtype = self.vlm.model.dtype
        rows = self.dialogue.packed([pairs[image] for image in images], batch.head.device, dtype)
        states = self.vlm.states(rows, patches[images], grid[images], None)
        return {"token_loss": token_losses(self.vlm, rows, states)[0]}

    def _drawn(self, batch: Batch) -> list[list[Pair]]:
        """Some questions about each image with their answers: by the tasks' weights, and no more than allowed."""
        assert batch.targets is not None
        pairs: list[list[Pair]] = [[] for _ in batch.image_ids]
        image = batch.image_index.tolist()
        order = torch.randperm(len(batch.questions)).tolist()
        luck = torch.rand(len(batch.questions)).tolist()
        for place in order:
            question, truth = batch.questions[place], batch.targets.answers[place]
            some = pairs[image[question.person]]
            if luck[place] < self.weight[question.task] and len(some) < self.questions_limit:
                some.append((question.text, truth.answer))
        return pairs

    def _nothing(self) -> Tensor:
        """Nothing, with a gradient for everything that learns."""
        return torch.stack([parameter.sum() * 0 for parameter in trainable(self.vlm)])[:0]

    def _points(self, batch: Batch, pictures: Looked) -> tuple[Tensor, Tensor]:
        """(P, 2) the point written about every person, and (P,) how probably it is one and no refusal."""
        prompts = [self._canonical(box) for box in batch.head.tolist()]
        point, inside = batch.head.new_full((batch.people, 2), 0.5), batch.head.new_zeros(batch.people)
        around = self.words.point.format(x="\n", y="\n").split("\n")  # before, between and after the numbers
        first, refusal = (self.dialogue.tokens(text)[0] for text in (around[0], self.words.refusals["outside"]))
        lengths = [len(self.dialogue.question(prompt)) for prompt in prompts]
        for chosen in buckets(lengths, self.rows_limit):
            images = batch.image_index[chosen].tolist()
            rows = self.dialogue.asked([prompts[person] for person in chosen], batch.head.device)
            writings = [self.writer.point(*around) for _ in chosen]
            texts, scores = self.writer.say(writings, rows, pictures.of(images))
            inside[chosen] = scores[:, [first, refusal]].softmax(1)[:, 0].to(inside)
            for person, text in zip(chosen, texts, strict=True):
                said = read("point", text).point
                if said is not None:
                    point[person] = point.new_tensor(said)
        return point, inside

    def _canonical(self, box: Sequence[float]) -> str:
        """The question everybody is asked for a point; people without a box by words that fit anybody."""
        known = all(side == side for side in box)
        trait = "box" if known else ANYONE
        numbers = ", ".join(str(whole(side)) for side in box) if known else ""
        return self.words.questions["point"][0].format(observer=self.words.observers[trait][0].format(box=numbers))

    def _said(self, questions: Sequence[str], images: Sequence[int], pictures: Looked) -> list[str]:
        """Free answers to some questions about the pictures of those places."""
        answers = [""] * len(questions)
        lengths = [len(self.dialogue.question(text)) for text in questions]
        for chosen in buckets(lengths, self.rows_limit):
            rows = self.dialogue.asked([questions[place] for place in chosen], self.vlm.model.device)
            shown = pictures.of([images[place] for place in chosen])
            writings = [self.writer.free(self.answer_limit) for _ in chosen]
            texts, _ = self.writer.say(writings, rows, shown)
            for place, text in zip(chosen, texts, strict=True):
                answers[place] = text
        return answers

    # Training ----------------------------------------------------------------------------------------------------

    def loss(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the answers' tokens, and of nothing else."""
        return {"language": batch_mean(prediction.extra["token_loss"])}

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, where asked for with Muon, under a warm-up and a cosine."""
        learning = trainable(self.vlm)
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "muon":
            big = matrices(self.vlm)
            chosen = {id(parameter) for parameter in big}
            others = [parameter for parameter in learning if id(parameter) not in chosen]
            groups = [{"params": others, "lr": self.lr}] if others else []
            optimizer = MuonAdamW(big, groups, self.lr_muon, self.weight_decay)
        else:
            optimizer = torch.optim.AdamW(learning, lr=self.lr, weight_decay=self.weight_decay)
        return optimizer, warm_cosine(optimizer, int(self.trainer.estimated_stepping_batches))

    # Weights -----------------------------------------------------------------------------------------------------

    def load_initial(self, path: Path) -> None:
        """Starts from an earlier stage of the same configuration."""
        self.load_export(read_weights(path))

    def load_export(self, weights: Mapping[str, Tensor]) -> None:
        """Strictly."""
        found = misfits(self.export(), weights, [])
        if found:
            raise ValueError(
                f"the weights do not fit {self.title}: {found}; use the --model.{', .'.join(self.stage)} they were "
                "trained with"
            )
        self.load_state_dict(dict(weights), strict=False)

    def weights_identity(self) -> dict[str, Any]:
        """Which Qwen3-VL, and whose weights it started from."""
        return {"grade": self.vlm.grade(self.tuning), "name": self.vlm.identity["name"], "backbone": self.vlm.identity}


def _title(weight: Mapping[QuestionType, float], tuning: Tuning) -> str:
    if tuning == "none":
        return "VL4Gaze (ours, zero-shot)"
    learnt = [task for task, share in weight.items() if share]
    return "VL4Gaze (ours)" if len(learnt) == len(weight) else f"VL4Gaze (ours, {' + '.join(learnt)} only)"


def _check(weight: Mapping[QuestionType, float], questions_limit: int, answer_limit: int, rows_limit: int) -> None:
    """Raises ValueError for settings that make no sense, with the remedy."""
    wrong = [f"--model.{task}_weight {share}: choose 0 to 1" for task, share in weight.items() if not 0 <= share <= 1]
    if not any(weight.values()):
        wrong.append("all tasks have weight 0: give one of them 1")
    if min(questions_limit, answer_limit, rows_limit) < 1:
        wrong.append("--model.questions_limit, answer_limit and rows_limit are at least 1")
    if wrong:
        raise ValueError("; ".join(wrong))
