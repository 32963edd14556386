"""OmniGF: a vision-language model that says, and shows, where all people of a picture look.

OmniGF: A Dual-Branch Vision-Language Framework for Unified Gaze Following (equations and sections below).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, SOCIAL, Batch, Prediction, Targets
from gazebench.core.weights import misfits, read_weights
from gazebench.data.transforms import Preprocess, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, Recipe, Setting, trainable
from gazebench.methods.omnigf.gaze_branch import GazeBranch, spread
from gazebench.methods.omnigf.head_encoder import HeadEncoder, HeadNet, head_crops
from gazebench.nn.backbones import ComputeDtype
from gazebench.nn.gaze_language import PROMPTS, Answer, as_json
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import MuonAdamW, matrices, warm_cosine
from gazebench.nn.qwen3vl import Tuning, load_vlm
from gazebench.nn.rows import Rows, Scribe
from gazebench.nn.writing import Transcript, Writer, token_losses
from gazebench.vqa.questions.geometry import LARGEST, whole

Branches = Literal["language", "gaze", "both"]
HEAD_ENCODER_SHARE = 0.1
"""Of the heads' learning rate, for an encoder that starts from weights and so knows gaze already."""

_UNSAID = "the paper does not say; "


def _paper(place: str, **values: Any) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, "paper", place) for name, value in values.items()}


def _ours(why: str, **values: Any) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, "ours", why) for name, value in values.items()}


GAZEFOLLOW: Recipe = {
    **_paper("section 4.3", loader__batch_size=8, trainer__accumulate_grad_batches=2),
    **_ours(
        _UNSAID + "people out of frame are part of what both branches tell",
        loader__people="labelled",
    ),
    **_ours(_UNSAID + "the last epoch needs no choice", loader__selection="last"),
    **_ours(_UNSAID + "within the 2 to 30 hours of section 4.3", trainer__max_epochs=10),
    **_ours(_UNSAID + "customary where language models are tuned", trainer__gradient_clip_val=1.0),
    **_ours("what fits beside a 4B model with its keys and values", loader__eval_batch_size=32),
}

VIDEO: Recipe = {
    **GAZEFOLLOW,
    **_paper("section 4.3: fine-tuned from the GazeFollow checkpoint", init="from:gazefollow"),
    **_ours("section 4.3 has reduced rates, whose numbers are lost", model__lr=1e-5, model__lr_heads=5e-5),
    **_ours("neighbouring frames say the same; as Gaze-LLE's official code does", loader__train_stride=6),
    **_ours(_UNSAID + "a fine-tuning", trainer__max_epochs=3),
}

SEMANTIC: Recipe = {
    **GAZEFOLLOW,
    **_paper("section 4.3: from the localization-only checkpoint on GazeFollow", init="from:gazefollow"),
    **_paper("section 4.6", model__semantic=True),
    **_ours(_UNSAID + "a fine-tuning", trainer__max_epochs=3),
}

SOCIAL_GAZE: Recipe = {
    **VIDEO,
    **_paper("section 4.7: everybody is in the prompt, annotated or not", loader__people="all"),
    **_paper("section 3.2.2", model__social=True),
}

TINY: Recipe = _ours(
    "fits the embedded backbone and two CPU cores",
    model__backbone_weights="pretrained",
    model__compute_dtype="float32",
    model__image_size=160,
    model__picture_size=224,
    model__head_net="small",
    model__head_weights="embedded",
    model__head_size=64,
    model__decoder_width=64,
    model__tuning="language",
    model__optimizer="muon",
    model__lr=1.2e-3,
    model__lr_heads=2e-3,
    model__lr_muon=0.012,
    loader__batch_size=20,
    trainer__accumulate_grad_batches=1,
    init=None,
)


class OmniGF(Method):
    """OmniGF on a Qwen3-VL: a language branch and a gaze branch over one pass for all people of a picture.

    Predictions hold in ``extra``: ``text`` (P JSON objects, "" where an answer is missing or malformed), with
    ``semantic`` also ``label``, and with ``social`` also ``lah``, ``laeo`` and ``sa``.

    Args:
        backbone: ``tiny``, a folder with a Qwen3-VL as ``save_pretrained`` writes it, or a model's id on the hub.
        backbone_weights: ``pretrained``, ``random`` or a file.
        compute_dtype: of the frozen weights; what learns is float32.
        branches: ``both`` (the paper's), or a row of its ablation (section 4.5) with one of them.
        head_tokens: whether heads get into the prompt as embeddings.
        tuning: ``lora`` of the language model; ``language``, all of it; ``full``, the image encoder too; ``none``,
            which with ``branches`` ``language`` and without head tokens is the zero-shot row.
        rank: r of LoRA.
        alpha: its updates are scaled by alpha / r.
        dropout: of what goes into them.
        semantic: whether the language branch also names what is looked at.
        social: whether the gaze branch also judges pairs of people.
        decode: how answers are read at evaluation: ``generate`` writes them and takes the anchors on the way;
            ``anchors`` writes "unknown" for everybody in one pass and gives no text. Needs the gaze branch.
        constrained: keep generated answers to the schema. Without it they may be malformed; ``language`` alone only.
        hidden_share: share of people whose own answer is "unknown" in training, so that ``decode`` ``anchors`` meets
            nothing new; the gaze branch learns from them all the same.
        people_limit: people in one prompt; a picture with more takes several.
        image_size: side of the square input in pixels.
        picture_size: side at which pictures are read: what heads are cut from. 0 is ``image_size``.
        head_net: ``resnet18``, or ``small`` for tiny crops.
        head_weights: a file with the head encoder's weights (the paper's are trained on Gaze360), ``embedded`` for
            those of ``small``, or "" to start afresh.
        head_size: side of the head crops in pixels.
        decoder_width: channels of the gaze branch's heads.
        deconvolutions: of the heatmap decoder, each doubling the map.
        language_weight: of the loss of the language branch.
        heatmap_weight: of the heatmaps' squared error.
        inout_weight: of the in/out loss of the gaze branch.
        social_weight: of the pairs' losses.
        optimizer: ``adamw``, or ``muon`` for the language model's matrices beside it.
        lr: learning rate of the language model.
        lr_heads: of the gaze branch and the head encoder; an encoder that starts from weights learns at a tenth of it.
        lr_muon: of the matrices with ``muon``.
        weight_decay: of all.
        augment: crop, flip and jitter head boxes in training.
        checkpointing: recompute layers in the backward pass: less memory, more time.
    """

    card = MethodCard(
        title="OmniGF",
        family="vision-language model",
        paper="OmniGF: A Dual-Branch Vision-Language Framework for Unified Gaze Following",
        citation="omnigf",
        licence="Apache-2.0 (written from the paper)",
    )
    capabilities = frozenset({"point", "heatmap", "inout", "semantic", "social", "text"})
    stage = ("backbone", "branches", "head_tokens", "tuning", "rank", "head_net", "decoder_width", "deconvolutions")
    sources = {
        "backbone": ("paper", "section 4.3"),
        "backbone_weights": ("paper", "section 4.3"),
        "compute_dtype": ("ours", _UNSAID + "the precision the weights are published in"),
        "branches": ("paper", "section 3.2"),
        "head_tokens": ("paper", "section 3.2"),
        "tuning": ("paper", "section 4.3"),
        "rank": ("ours", "the number is lost; 16 is customary"),
        "alpha": ("ours", _UNSAID + "twice the rank is customary"),
        "dropout": ("ours", _UNSAID + "customary"),
        "semantic": ("paper", "section 4.6, where a dataset has categories"),
        "social": ("paper", "section 4.7, where a dataset has pairs"),
        "decode": ("paper", "section 3.2.2"),
        "constrained": ("ours", "no answer is lost; the paper only asks for its schema"),
        "hidden_share": ("ours", "as the paper's dummy slots, for the mode that writes nothing"),
        "people_limit": ("ours", "the paper sees accuracy fall with over 15 people"),
        "image_size": ("paper", "section 4.3"),
        "picture_size": ("ours", "the paper cuts heads from the original; twice the input keeps most of their detail"),
        "head_net": ("paper", "section 3.2"),
        "head_weights": ("ours", "the paper's, trained on Gaze360, are not published; pass a file"),
        "head_size": ("paper", "section 4.3"),
        "decoder_width": ("ours", _UNSAID + "as wide as Gaze-LLE's decoder"),
        "deconvolutions": ("ours", '"several"; two make 56 of 14, next to the 64 of the target'),
        "language_weight": ("ours", "the number is lost; the unit of the others"),
        "heatmap_weight": ("ours", "the number is lost; brings the mean squared error of a sparse map up to the rest"),
        "inout_weight": ("ours", "the number is lost"),
        "social_weight": ("ours", "the number is lost"),
        "optimizer": ("paper", "section 4.3"),
        "lr": ("ours", "the number is lost; customary for LoRA"),
        "lr_heads": ("ours", "the number is lost; customary for parts that start afresh"),
        "lr_muon": ("ours", "only for models trained from scratch, on which it was tried"),
        "weight_decay": ("ours", _UNSAID + "with few weights that learn it matters little"),
        "augment": ("ours", _UNSAID + "customary in gaze following"),
        "checkpointing": ("ours", "no effect on results"),
    }
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
    recipes = {
        "gazefollow": GAZEFOLLOW,
        "vat": VIDEO,
        "childplay": VIDEO,
        "gazefollow_semantic": SEMANTIC,
        "gazehoi": SEMANTIC,
        "vsgaze": SOCIAL_GAZE,
        "*": GAZEFOLLOW,
        "gazeworld": {
            **GAZEFOLLOW,
            **_ours("the embedded world runs on two CPU cores", model__backbone="tiny", model__augment=False),
            **_ours("the world has names of things and labels of pairs", model__semantic=True, model__social=True),
            **_ours("one pass takes two CPU cores some five minutes", trainer__max_epochs=1),
        },
    }

    def __init__(
        self,
        backbone: str = "Qwen/Qwen3-VL-4B-Instruct",
        backbone_weights: str = "pretrained",
        compute_dtype: ComputeDtype = "bfloat16",
        branches: Branches = "both",
        head_tokens: bool = True,
        tuning: Tuning = "lora",
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.05,
        semantic: bool = False,
        social: bool = False,
        decode: Literal["generate", "anchors"] = "generate",
        constrained: bool = True,
        hidden_share: float = 0.3,
        people_limit: int = 16,
        image_size: int = 448,
        picture_size: int = 896,
        head_net: HeadNet = "resnet18",
        head_weights: str = "",
        head_size: int = 224,
        decoder_width: int = 256,
        deconvolutions: int = 2,
        language_weight: float = 1.0,
        heatmap_weight: float = 100.0,
        inout_weight: float = 1.0,
        social_weight: float = 1.0,
        optimizer: Literal["adamw", "muon"] = "adamw",
        lr: float = 1e-4,
        lr_heads: float = 5e-4,
        lr_muon: float = 0.02,
        weight_decay: float = 0.0,
        augment: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.speaks, self.shows = branches != "gaze", branches != "language"
        _check_settings(self.speaks, self.shows, semantic, social, decode, constrained, people_limit)
        self.vlm = load_vlm(backbone, backbone_weights, compute_dtype)
        self.vlm.tune(tuning, rank, alpha, dropout)
        if not self.speaks:  # nobody learns to write; a tied one is the embedding, which learns
            head = self.vlm.model.lm_head.weight
            head.requires_grad_(head.requires_grad and head is self.vlm.model.get_input_embeddings().weight)
        if checkpointing:
            self.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.image_size, self.picture_size = image_size, picture_size or image_size
        self.head_size, self.head_weights = head_size, head_weights
        grid = self.vlm.grid(image_size)
        system = PROMPTS["semantic" if semantic else "basic"]
        self.scribe = Scribe(self.vlm.processor, system, grid, slots=head_tokens, semantic=semantic)
        self.writer = Writer(self.vlm, self.scribe, constrained)
        self.head_encoder: HeadEncoder | None = None
        if head_tokens:
            self.head_encoder = HeadEncoder(head_net, self.vlm.dim, self.vlm.embedding_scale(), head_weights)
        self.branch: GazeBranch | None = None
        if self.shows:
            self.branch = GazeBranch(self.vlm.dim, decoder_width, deconvolutions, Preprocess().heatmap_size, social)
        self.title = _title(branches, head_tokens, tuning)
        self.generates = self.speaks and decode == "generate"
        self.semantic, self.augment, self.people_limit, self.tuning = semantic, augment, people_limit, tuning
        self.hidden_share = hidden_share if self.shows else 0.0
        self.weights = {
            "language": language_weight,
            "heatmap": heatmap_weight,
            "inout": inout_weight,
            **dict.fromkeys(SOCIAL, social_weight),
        }
        self.optimizer_name, self.lr, self.lr_heads, self.lr_muon = optimizer, lr, lr_heads, lr_muon
        self.weight_decay = weight_decay

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The recipe of the dataset, without what the chosen branches cannot do, or one that fits the tiny backbone."""
        cannot = {"language": "model.social", "gaze": "model.semantic"}.get(model.get("branches", ""))
        recipe = {name: value for name, value in super().recipe(dataset, model).items() if name != cannot}
        chosen = recipe.get("model.backbone")
        backbone = model.get("backbone", chosen.value if chosen else "")
        return {**recipe, **TINY} if backbone == "tiny" else recipe

    def preprocess(self) -> Preprocess:
        """Pictures as large as heads are cut from, aspect not kept."""
        size = (self.picture_size, self.picture_size)
        return Preprocess(size=size) if self.augment else Preprocess(size=size, crop=0.0, flip=0.0, box_jitter=0.0)

    # Input -------------------------------------------------------------------------------------------------------

    def row_people(self, batch: Batch) -> tuple[list[list[int]], list[int]]:
        """The people of each row, at most ``people_limit`` of one picture, and the row's picture."""
        people: list[list[int]] = []
        images: list[int] = []
        for person, image in enumerate(batch.image_index.tolist()):
            if not images or images[-1] != image or len(people[-1]) == self.people_limit:
                people.append([])
                images.append(image)
            people[-1].append(person)
        return people, images

    def answers(self, targets: Targets, hidden: list[bool]) -> list[Answer]:
        """What each of P people's answer should be; "unknown" for those nobody annotated and those ``hidden``."""
        inout, point = targets.inout.tolist(), targets.point.double().tolist()
        label = targets.extra.get("label", [""] * len(inout))
        found = []
        for person, state in enumerate(inout):
            x, y = point[person]
            if hidden[person] or state not in (IN_FRAME, OUT_OF_FRAME) or (state == IN_FRAME and x != x):
                found.append(Answer("unknown"))
            elif state == IN_FRAME:
                found.append(Answer("inside", (whole(x), whole(y)), str(label[person])))
            else:
                found.append(Answer("outside"))
        return found

    def patches(self, batch: Batch, images: list[int]) -> tuple[Tensor, Tensor]:
        """The picture of each row as the backbone takes it: (R, N, D) patches and their grid (R, 3)."""
        assert batch.images is not None
        scene = batch.images
        if scene.shape[-1] != self.image_size or scene.shape[-2] != self.image_size:
            side = (self.image_size, self.image_size)
            scene = F.interpolate(scene.float(), side, mode="bilinear", antialias=True).round().to(torch.uint8)
        patches, grid = self.vlm.pixels(scene)
        return patches[images], grid[images]

    def head_embeddings(self, batch: Batch) -> Tensor | None:
        """(P, C) of the people's heads; None without head tokens."""
        if self.head_encoder is None:
            return None
        assert batch.images is not None
        return self.head_encoder(head_crops(batch.images, batch.head, batch.image_index, self.head_size))

    # Prediction --------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Prediction:
        """One pass a picture for all its people; teacher-forced in training, and blind to targets at evaluation."""
        if not batch.people:
            return self._nobody(batch)
        people, images = self.row_people(batch)
        head = batch.head.tolist()
        boxes = [[head[person] for person in row] for row in people]
        patches, grid = self.patches(batch, images)
        heads = self.head_embeddings(batch)
        device = batch.head.device
        if self.generates and not self.training:
            rows = self.scribe.rows(boxes, None, device)
            transcript = self.writer.write(rows, patches, grid, heads)
            prediction = self._shown(batch, rows, transcript.prompt, transcript.anchors)
            return self._told(prediction, transcript)
        written: list[list[Answer]] | None = None
        if self.speaks:
            script = self._script(batch)
            written = [[script[person] for person in row] for row in people]
        rows = self.scribe.rows(boxes, written, device)
        states = self.vlm.states(rows, patches, grid, heads)
        prediction = self._shown(batch, rows, states, states[rows.person_row, rows.anchor])
        if self.speaks and self.training:
            losses, owner = token_losses(self.vlm, rows, states)
            prediction.extra |= {"token_loss": losses, "token_person": owner}
        return prediction

    def _script(self, batch: Batch) -> list[Answer]:
        """The answers written ahead: the true ones in training, "unknown" at evaluation."""
        if not self.training:
            return [Answer("unknown")] * batch.people
        assert batch.targets is not None, "training needs targets"
        return self.answers(batch.targets, (torch.rand(batch.people) < self.hidden_share).tolist())

    def _shown(self, batch: Batch, rows: Rows, states: Tensor, anchors: Tensor | None) -> Prediction:
        """What the gaze branch says of (R, L, C) states with image tokens and (P, C) anchors."""
        if self.branch is None:
            return Prediction()
        assert anchors is not None
        person = anchors.float()
        maps = self.branch.heatmap(image_tokens(rows, states, self.scribe.grid).float(), person, rows.person_row)
        inout = self.branch.inout(person).squeeze(1)
        extra: dict[str, Any] = {"maps": maps, "inout_logit": inout}
        if self.branch.pairs is not None:
            logits = self.branch.pair_logits(person, batch.pairs)
            extra |= {"pair_logits": logits}
            extra |= {name: logits[:, index].float().sigmoid() for index, name in enumerate(SOCIAL)}
        return Prediction(heatmap=spread(maps.float()), inout=inout.float().sigmoid(), extra=extra)

    def _told(self, prediction: Prediction, transcript: Transcript) -> Prediction:
        """Adds what the language branch says; points and in/out only where the gaze branch does not."""
        answers = transcript.answers
        prediction.extra["text"] = [as_json(answer) for answer in answers]
        if self.semantic:
            prediction.extra["label"] = ["" if answer is None else answer.category for answer in answers]
        if not self.shows:
            # Somebody who is said to look outside, or of whom nothing is said, has the point that is least far off.
            centre = (LARGEST / 2, LARGEST / 2)
            points = [centre if answer is None or answer.point is None else answer.point for answer in answers]
            prediction.point = transcript.inside.new_tensor(points) / LARGEST
            prediction.inout = transcript.inside
        return prediction

    def _nobody(self, batch: Batch) -> Prediction:
        none = batch.head.new_zeros(0)
        if not self.shows:
            return Prediction(point=none.reshape(0, 2), inout=none)
        height, width = self.preprocess().heatmap_size
        return Prediction(heatmap=none.reshape(0, height, width), inout=none)

    # Training ----------------------------------------------------------------------------------------------------

    def loss(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Equation 3: each branch's losses times their weights, over the people who have a target for them."""
        targets, extra = batch.targets, prediction.extra
        assert targets is not None
        losses: dict[str, Tensor] = {}
        if "token_loss" in extra:
            losses["language"] = batch_mean(extra["token_loss"])
        if "maps" in extra:
            seen = (targets.inout == IN_FRAME) & targets.point.isfinite().all(1)
            truth = gaussian_heatmap(targets.point[seen], extra["maps"].shape[-2:])
            losses["heatmap"] = batch_mean((extra["maps"][seen].float() - truth).square())
            known = (targets.inout == IN_FRAME) | (targets.inout == OUT_OF_FRAME)
            score, is_in = extra["inout_logit"][known].float(), (targets.inout[known] == IN_FRAME).float()
            losses["inout"] = batch_mean(F.binary_cross_entropy_with_logits(score, is_in, reduction="none"))
        if "pair_logits" in extra:
            losses |= {
                name: self._pair_loss(extra["pair_logits"][:, index], targets.extra.get(name))
                for index, name in enumerate(SOCIAL)
            }
        return {name: self.weights[name] * loss for name, loss in losses.items()}

    @staticmethod
    def _pair_loss(logits: Tensor, labels: Tensor | None) -> Tensor:
        """BCE over the labelled ones of (N,) pairs."""
        known = torch.zeros_like(logits, dtype=torch.bool) if labels is None else labels >= 0
        truth = logits.new_zeros(0) if labels is None else labels[known]
        return batch_mean(F.binary_cross_entropy_with_logits(logits[known].float(), truth.float(), reduction="none"))

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, where asked for with Muon, under a warm-up and a cosine (section 4.3)."""
        language = trainable(self.vlm)
        groups: list[dict[str, Any]] = [{"params": language, "lr": self.lr}]
        encoder_share = HEAD_ENCODER_SHARE if self.head_weights else 1.0
        for module, share in ((self.branch, 1.0), (self.head_encoder, encoder_share)):
            groups += [{"params": trainable(module), "lr": share * self.lr_heads}] if module is not None else []
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "muon":
            big = matrices(self.vlm)
            chosen = {id(parameter) for parameter in big}
            groups[0]["params"] = [parameter for parameter in language if id(parameter) not in chosen]
            optimizer = MuonAdamW(big, [group for group in groups if group["params"]], self.lr_muon, self.weight_decay)
        else:
            filled = [group for group in groups if group["params"]]
            optimizer = torch.optim.AdamW(filled, lr=self.lr, weight_decay=self.weight_decay)
        return optimizer, warm_cosine(optimizer, int(self.trainer.estimated_stepping_batches))

    # Weights -----------------------------------------------------------------------------------------------------

    def load_initial(self, path: Path) -> None:
        """Starts from an earlier stage of the same configuration, which need not have judged pairs."""
        self._load(read_weights(path), may_lack="branch.pairs.")

    def load_export(self, weights: Mapping[str, Tensor]) -> None:
        """Strictly."""
        self._load(weights)

    def _load(self, weights: Mapping[str, Tensor], may_lack: str = "") -> None:
        own = self.export()
        optional = [name for name in own if may_lack and name.startswith(may_lack)]
        found = misfits(own, weights, optional)
        if found:
            raise ValueError(
                f"the weights do not fit {self.title}: {found}; use the --model.{', .'.join(self.stage)} they were "
                "trained with"
            )
        self.load_state_dict(dict(weights), strict=False)

    def weights_identity(self) -> dict[str, Any]:
        """Which Qwen3-VL, and whose weights it and the head encoder started from."""
        return {
            "grade": self.vlm.grade(self.tuning),
            "name": self.vlm.identity["name"],
            "backbone": self.vlm.identity,
            "head_encoder": None if self.head_encoder is None else self.head_encoder.identity,
        }


def image_tokens(rows: Rows, states: Tensor, grid: tuple[int, int]) -> Tensor:
    """(R, L, C) states -> (R, C, h, w) those of the image tokens, row by row of the picture."""
    columns = rows.image_start[:, None] + torch.arange(grid[0] * grid[1], device=states.device)
    return states[torch.arange(len(states), device=states.device)[:, None], columns].mT.unflatten(2, grid)


def _title(branches: Branches, head_tokens: bool, tuning: Tuning) -> str:
    if branches == "language" and tuning == "none" and not head_tokens:
        return "OmniGF (zero-shot text)"
    if branches == "both":
        return "OmniGF" if head_tokens else "OmniGF (both branches)"
    return f"OmniGF ({branches} branch{' + head tokens' if head_tokens else ''})"


def _check_settings(
    speaks: bool, shows: bool, semantic: bool, social: bool, decode: str, constrained: bool, people_limit: int
) -> None:
    """Raises ValueError for settings that exclude each other, with the remedy."""
    problems = {
        "--model.semantic needs the language branch": semantic and not speaks,
        "--model.social needs the gaze branch": social and not shows,
        "--model.decode anchors needs both branches": decode == "anchors" and not (speaks and shows),
        "--model.constrained false leaves nobody a sure anchor: it is for --model.branches language": not constrained
        and shows,
        "--model.people_limit is at least 1": people_limit < 1,
    }
    found = [problem for problem, there in problems.items() if there]
    if found:
        raise ValueError("; ".join(found))
