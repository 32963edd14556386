"""OmniGF: a vision-language model that tells, in words and in heatmaps, where all people of an image look.

OmniGF: A Dual-Branch Vision-Language Framework for Unified Gaze Following (equations and sections below).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, SOCIAL, Batch, Prediction, Targets
from gazebench.data.transforms import Preprocess, gaussian_heatmap, stretched
from gazebench.engine.method import MethodCard, Recipe, from_paper, our_choice
from gazebench.engine.vlm_method import UNSAID, VLMMethod
from gazebench.methods.omnigf.answers import Transcript, write_answers
from gazebench.methods.omnigf.gaze_branch import GazeBranch, GazeOutputs
from gazebench.methods.omnigf.head_encoder import HeadEncoder, HeadNet, HeadSlots, embedding_scale, head_crops
from gazebench.methods.omnigf.prompts import GazeAnswer, PeoplePrompts, PeopleRows, as_json
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import trainable
from gazebench.nn.qwen3vl import Tuning
from gazebench.vlm.coordinates import LARGEST, whole

Branches = Literal["language", "gaze", "both"]
HEAD_ENCODER_SHARE = 0.1
"""Share of ``lr_heads`` at which a head encoder that starts from weights learns: it can read gazes already."""

GAZEFOLLOW: Recipe = {
    **from_paper("section 4.3", loader__batch_size=8, trainer__accumulate_grad_batches=2),
    **our_choice(UNSAID + "people out of frame are part of what both branches tell", loader__people="labelled"),
    **our_choice(UNSAID + "the last epoch needs no choice", loader__selection="last"),
    **our_choice(UNSAID + "within the 2 to 30 hours of section 4.3", trainer__max_epochs=10),
    **our_choice(UNSAID + "customary where language models are tuned", trainer__gradient_clip_val=1.0),
    **our_choice("what fits beside a 4B model with its keys and values", loader__eval_batch_size=32),
}

VIDEO: Recipe = {
    **GAZEFOLLOW,
    **from_paper("section 4.3: fine-tuned from the GazeFollow checkpoint", init="from:gazefollow"),
    **our_choice("section 4.3 has reduced rates, whose numbers are lost", model__lr=1e-5, model__lr_heads=5e-5),
    **our_choice("neighbouring frames say the same; as Gaze-LLE's official code does", loader__train_stride=6),
    **our_choice(UNSAID + "a fine-tuning", trainer__max_epochs=3),
}

SEMANTIC: Recipe = {
    **GAZEFOLLOW,
    **from_paper("section 4.3: from the localization-only checkpoint on GazeFollow", init="from:gazefollow"),
    **from_paper("section 4.6", model__semantic=True),
    **our_choice(UNSAID + "a fine-tuning", trainer__max_epochs=3),
}

SOCIAL_GAZE: Recipe = {
    **VIDEO,
    **from_paper("section 4.7: everybody is in the prompt, annotated or not", loader__people="all"),
    **from_paper("section 3.2.2", model__social=True),
}

TINY: Recipe = {
    **VLMMethod.tiny,
    **our_choice(
        "fits the embedded backbone and two CPU cores",
        model__picture_size=224, model__head_net="small", model__head_weights="embedded", model__head_size=64,
        model__decoder_width=64, model__lr_heads=2e-3, trainer__accumulate_grad_batches=1, init=None,
    ),
}  # fmt: skip


class OmniGF(VLMMethod):
    """OmniGF on a Qwen3-VL: a language branch and a gaze branch over one pass for all people of an image.

    The prediction's ``text`` is P JSON objects, "" where an answer is missing or malformed, and ``text_point`` their
    points; it has ``label`` with ``semantic``, and ``lah``, ``laeo`` and ``sa`` with ``social``.

    Args:
        branches: ``both`` (the paper's), or a row of its ablation (section 4.5) with one of them; ``language`` with
            ``tuning`` ``none`` and without head tokens is the zero-shot row.
        head_tokens: whether embeddings of the heads stand in the prompt.
        semantic: whether the language branch also names what is looked at.
        social: whether the gaze branch also judges pairs of people.
        decode: how answers are read at evaluation: ``generate`` writes them and takes the anchors on the way;
            ``anchors`` writes "unknown" for everybody in one pass and gives no text. Needs the gaze branch.
        constrained: keep generated answers to the schema. Without it they may be malformed; ``language`` alone only.
        hidden_share: with ``decode`` ``anchors``, share of people whose own answer is "unknown" in training, so that
            evaluation meets nothing new; the gaze branch learns from them all the same.
        image_positions: whether embeddings of their positions are added to the image tokens before the product with the
            person token.
        head_residual: whether a projection of the head's embedding is also added to the person token; only with head
            tokens and a gaze branch.
        people_limit: people in one prompt; an image with more people takes several.
        picture_size: side of the image that heads are cut from. 0 is ``image_size``.
        head_net: ``resnet18``, or ``small`` for tiny crops.
        head_weights: a file with the head encoder's weights (the paper's are trained on Gaze360), ``embedded`` for
            those of ``small``, or "" to start afresh.
        head_size: side of the head crops in pixels.
        decoder_width: channels of the gaze branch's heads.
        deconvolutions: upsampling layers of the heatmap decoder, each doubling the map.
        language_weight: weight of the language branch's loss.
        heatmap_weight: weight of the heatmaps' squared error.
        inout_weight: weight of the gaze branch's in/out loss.
        social_weight: weight of the pairs' losses.
        lr_heads: learning rate of the gaze branch and the head encoder; a tenth of it for an encoder with weights.
    """

    version: ClassVar[int] = 2
    card = MethodCard(
        title="OmniGF",
        family="vision-language model",
        paper="OmniGF: A Dual-Branch Vision-Language Framework for Unified Gaze Following",
        citation="omnigf",
        licence="Apache-2.0 (written from the paper)",
        sees=frozenset({"picture", "head box", "head crop", "text"}),
    )
    capabilities = frozenset({"point", "heatmap", "inout", "semantic", "social", "text"})
    stage = (
        "backbone", "branches", "head_tokens", "image_positions", "head_residual", "tuning", "rank", "head_net",
        "decoder_width", "deconvolutions",
    )  # fmt: skip
    sources = {
        "backbone": ("paper", "section 4.3"),
        "backbone_weights": ("paper", "section 4.3"),
        "branches": ("paper", "section 3.2"),
        "head_tokens": ("paper", "section 3.2"),
        "tuning": ("paper", "section 4.3"),
        "rank": ("ours", "the number is lost; 16 is customary"),
        "semantic": ("paper", "section 4.6, where a dataset has categories"),
        "social": ("paper", "section 4.7, where a dataset has pairs"),
        "decode": ("paper", "section 3.2.2"),
        "constrained": ("ours", "no answer is lost; the paper only asks for its schema"),
        "hidden_share": ("ours", "the paper hides no answer of its annotated people; for the mode that writes nothing"),
        "image_positions": (
            "ours",
            "states of image tokens say too little about where these are (docs/omnigf.md)",
        ),
        "head_residual": ("ours", "the way from a head token to an anchor is long (docs/omnigf.md)"),
        "people_limit": ("ours", "the paper sees accuracy fall with over 15 people"),
        "image_size": ("paper", "section 4.3"),
        "picture_size": ("ours", "the paper cuts heads from the original; twice the input keeps most of their detail"),
        "head_net": ("paper", "section 3.2"),
        "head_weights": ("ours", "the paper's, trained on Gaze360, are not published; pass a file"),
        "head_size": ("paper", "section 4.3"),
        "decoder_width": ("ours", UNSAID + "as wide as Gaze-LLE's decoder"),
        "deconvolutions": ("ours", '"several"; two make 56 of 14, next to the 64 of the target'),
        "language_weight": ("ours", "the number is lost; the unit of the others"),
        "heatmap_weight": ("ours", "the number is lost; brings the mean squared error of a sparse map up to the rest"),
        "inout_weight": ("ours", "the number is lost"),
        "social_weight": ("ours", "the number is lost"),
        "optimizer": ("paper", "section 4.3"),
        "lr": ("ours", "the number is lost; customary for LoRA"),
        "lr_heads": ("ours", "the number is lost; customary for parts that start afresh"),
    }
    tiny = TINY
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
            **our_choice("the embedded world runs on two CPU cores", model__backbone="tiny", model__augment=False),
            **our_choice("the world has names of things and labels of pairs", model__semantic=True, model__social=True),
            **our_choice("one pass takes two CPU cores some five minutes", trainer__max_epochs=1),
        },
    }

    def __init__(
        self,
        branches: Branches = "both",
        head_tokens: bool = True,
        semantic: bool = False,
        social: bool = False,
        decode: Literal["generate", "anchors"] = "generate",
        constrained: bool = True,
        hidden_share: float = 0.0,
        image_positions: bool = True,
        head_residual: bool = True,
        people_limit: int = 16,
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
        lr_heads: float = 5e-4,
        **vlm: Any,
    ) -> None:
        _check_settings(branches, semantic, social, decode, constrained, people_limit, hidden_share)
        super().__init__(**vlm)
        self.has_language_branch, self.has_gaze_branch = branches != "gaze", branches != "language"
        self.slots = HeadSlots(self.vlm)
        if not self.has_language_branch:  # the output layer learns nothing; a tied one is the embedding, which learns
            head = self.vlm.model.lm_head.weight
            head.requires_grad_(head.requires_grad and head is self.vlm.model.get_input_embeddings().weight)
        self.prompts = PeoplePrompts(self.vlm, self.vlm.grid(self.image_size), slots=head_tokens, semantic=semantic)
        self.head_encoder: HeadEncoder | None = None
        if head_tokens:
            self.head_encoder = HeadEncoder(head_net, self.vlm.dim, embedding_scale(self.vlm), head_weights)
        self.branch: GazeBranch | None = None
        if self.has_gaze_branch:
            self.branch = GazeBranch(
                self.vlm.dim,
                decoder_width,
                deconvolutions,
                Preprocess().heatmap_size,
                social,
                self.prompts.grid if image_positions else None,
                residual=head_tokens and head_residual,
            )
        self.title = _title(branches, head_tokens, self.tuning)
        self.picture_size = picture_size or self.image_size
        self.head_size, self.head_weights, self.lr_heads = head_size, head_weights, lr_heads
        self.generates, self.constrained = self.has_language_branch and decode == "generate", constrained
        self.semantic, self.people_limit = semantic, people_limit
        self.hidden_share = hidden_share
        self.loss_weights = {
            "language": language_weight,
            "heatmap": heatmap_weight,
            "inout": inout_weight,
            **dict.fromkeys(SOCIAL, social_weight),
        }

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """Without what the chosen branches cannot do."""
        cannot = {"language": "model.social", "gaze": "model.semantic"}.get(model.get("branches", ""))
        return {name: value for name, value in super().recipe(dataset, model).items() if name != cannot}

    def preprocess(self) -> Preprocess:
        """Images of the size that heads are cut from, aspect not kept."""
        return Preprocess.square(self.picture_size, self.augment)

    # Input -------------------------------------------------------------------------------------------------------

    def row_people(self, batch: Batch) -> tuple[list[list[int]], list[int]]:
        """The people of each row, at most ``people_limit`` of one image, and the row's image."""
        people: list[list[int]] = []
        images: list[int] = []
        for person, image in enumerate(batch.image_index.tolist()):
            if not images or images[-1] != image or len(people[-1]) == self.people_limit:
                people.append([])
                images.append(image)
            people[-1].append(person)
        return people, images

    def inputs(self, batch: Batch, answers: Sequence[GazeAnswer] | None) -> tuple[PeopleRows, Tensor]:
        """R rows about a batch's people (prompts, where answers are None), and each row's encoded image."""
        people, images = self.row_people(batch)
        head = batch.head.tolist()
        boxes = [[head[person] for person in row] for row in people]
        written = None if answers is None else [[answers[person] for person in row] for row in people]
        rows = self.prompts.rows(boxes, written).to(batch.head.device)
        assert batch.images is not None
        scene, side = batch.images, (self.image_size, self.image_size)
        if scene.shape[-2:] != side:
            scene = F.interpolate(scene.float(), side, mode="bilinear", antialias=True).round().to(torch.uint8)
        return rows, self.vlm.encode(scene)[:, images]

    def head_embeddings(self, batch: Batch) -> Tensor | None:
        """(P, C) of the people's heads; None without head tokens."""
        if self.head_encoder is None:
            return None
        assert batch.images is not None
        return self.head_encoder(head_crops(batch.images, batch.head, batch.image_index, self.head_size))

    def answers(self, targets: Targets, hidden: Sequence[bool]) -> list[GazeAnswer]:
        """The true answers of P people; "unknown" for those without annotation and those ``hidden``."""
        inout, point = targets.inout.tolist(), targets.point.double().tolist()
        label = targets.columns.get("label", [""] * len(inout))
        found = []
        for person, state in enumerate(inout):
            x, y = point[person]
            if hidden[person] or state not in (IN_FRAME, OUT_OF_FRAME) or (state == IN_FRAME and x != x):
                found.append(GazeAnswer("unknown"))
            elif state == IN_FRAME:
                found.append(GazeAnswer("inside", (whole(x), whole(y)), str(label[person])))
            else:
                found.append(GazeAnswer("outside"))
        return found

    # Prediction --------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Prediction:
        """One pass for all people of an image, whose answers are generated, or all "unknown" (``decode`` anchors)."""
        if not batch.people:
            none = batch.head.new_zeros(0)
            if not self.has_gaze_branch:
                return Prediction(point=none.reshape(0, 2), inout=none)
            return Prediction(heatmap=none.reshape(0, *self.preprocess().heatmap_size), inout=none)
        if self.generates:
            prompts, images = self.inputs(batch, None)
            heads = self.head_embeddings(batch)
            with self.slots.filled(heads):
                transcript = write_answers(self.vlm, self.prompts, prompts, images, self.constrained)
            gaze = self._gaze_outputs(batch, prompts, transcript.prompt, transcript.anchors, heads)
            return self._prediction(gaze, transcript)
        unknown = [GazeAnswer("unknown")] * batch.people if self.has_language_branch else None
        return self._prediction(self._one_pass(batch, unknown)[2], None)

    def _one_pass(
        self, batch: Batch, answers: Sequence[GazeAnswer] | None
    ) -> tuple[PeopleRows, Tensor, GazeOutputs | None]:
        """R rows with given answers, their states (R, L, C), and what the gaze branch makes of them."""
        rows, images = self.inputs(batch, answers)
        heads = self.head_embeddings(batch)
        with self.slots.filled(heads):
            states = self.vlm.states(rows, images)
        return rows, states, self._gaze_outputs(batch, rows, states, states[rows.person_row, rows.anchor], heads)

    def _gaze_outputs(
        self, batch: Batch, rows: PeopleRows, states: Tensor, anchors: Tensor | None, heads: Tensor | None
    ) -> GazeOutputs | None:
        """The gaze branch over (R, L, C) states with image tokens, (P, C) anchors and embeddings of heads."""
        if self.branch is None:
            return None
        assert anchors is not None
        image = self.vlm.image_states(rows, states).mT.unflatten(2, self.prompts.grid).float()
        return self.branch(image, anchors.float(), rows.person_row, batch.pairs, heads)

    def _prediction(self, gaze: GazeOutputs | None, transcript: Transcript | None) -> Prediction:
        """The outputs of both branches; points and in/out are the language branch's only without a gaze branch."""
        fields: dict[str, Any] = {}
        if gaze is not None:
            fields |= {"heatmap": stretched(gaze.maps.float()), "inout": gaze.inout.float().sigmoid()}
            if gaze.pairs is not None:
                fields |= dict(zip(SOCIAL, gaze.pairs.float().sigmoid().unbind(1), strict=True))
        if transcript is not None:
            answers = transcript.answers
            fields["text"] = [as_json(answer) for answer in answers]
            if self.semantic:
                fields["label"] = ["" if answer is None else answer.category for answer in answers]
            # The middle is the point that is least far off for somebody without one.
            middle = (LARGEST / 2, LARGEST / 2)
            points = [middle if answer is None or answer.point is None else answer.point for answer in answers]
            fields["text_point"] = transcript.inside.new_tensor(points) / LARGEST
            if gaze is None:
                fields |= {"point": fields["text_point"], "inout": transcript.inside}
        return Prediction(**fields)

    # Training ----------------------------------------------------------------------------------------------------

    def teacher_forced(self, batch: Batch) -> tuple[Tensor | None, GazeOutputs | None]:
        """A pass over the true answers, of which a random share is hidden as "unknown".

        Returns:
            The cross-entropy (T,) of the learnt tokens, None without a language branch; and the gaze branch's outputs.
        """
        assert batch.targets is not None, "training needs targets"
        answers = None
        if self.has_language_branch:
            answers = self.answers(batch.targets, (torch.rand(batch.people) < self.hidden_share).tolist())
        rows, states, gaze = self._one_pass(batch, answers)
        token_loss = self.vlm.token_losses(rows, states) if self.has_language_branch else None
        return token_loss, gaze

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 3: each branch's losses times their weights, over the people who have a target for them."""
        (token_loss, gaze), targets = self.teacher_forced(batch), batch.targets
        assert targets is not None
        losses: dict[str, Tensor] = {}
        if token_loss is not None:
            losses["language"] = batch_mean(token_loss)
        if gaze is not None:
            seen = (targets.inout == IN_FRAME) & targets.point.isfinite().all(1)
            truth = gaussian_heatmap(targets.point[seen], gaze.maps.shape[-2:])
            losses["heatmap"] = batch_mean((gaze.maps[seen].float() - truth).square())
            known = (targets.inout == IN_FRAME) | (targets.inout == OUT_OF_FRAME)
            losses["inout"] = _mean_bce(gaze.inout[known], targets.inout[known] == IN_FRAME)
        if gaze is not None and gaze.pairs is not None:
            for name, logits in zip(SOCIAL, gaze.pairs.unbind(1), strict=True):
                labels = targets.pairs.get(name, torch.full_like(logits, -1))
                losses[name] = _mean_bce(logits[labels >= 0], labels[labels >= 0])
        return {name: self.loss_weights[name] * loss for name, loss in losses.items()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Those of the Qwen3-VL, and the branch and the head encoder at their own rate."""
        groups = super().parameter_groups()
        encoder_share = HEAD_ENCODER_SHARE if self.head_weights else 1.0
        for module, share in ((self.branch, 1.0), (self.head_encoder, encoder_share)):
            groups += [{"params": trainable(module), "lr": share * self.lr_heads}] if module is not None else []
        return groups

    # Weights -----------------------------------------------------------------------------------------------------

    def optional_parts(self) -> list[set[str]]:
        """The judge of pairs, which the stage before need not have had, and what weights of version 1 lack."""
        parts = ("branch.pairs.", "branch.positions.", "branch.residual.")
        return [{name for name in self.export() if name.startswith(part)} for part in parts]

    def weights_identity(self) -> dict[str, Any]:
        encoder = None if self.head_encoder is None else self.head_encoder.identity
        return {**super().weights_identity(), "head_encoder": encoder}


def _mean_bce(logits: Tensor, truth: Tensor) -> Tensor:
    return batch_mean(F.binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none"))


def _title(branches: Branches, head_tokens: bool, tuning: Tuning) -> str:
    if branches == "language" and tuning == "none" and not head_tokens:
        return "OmniGF (zero-shot text)"
    if branches == "both":
        return "OmniGF" if head_tokens else "OmniGF (both branches)"
    return f"OmniGF ({branches} branch{' + head tokens' if head_tokens else ''})"


def _check_settings(
    branches: Branches, semantic: bool, social: bool, decode: str, constrained: bool, people_limit: int, hidden: float
) -> None:
    """Raises ValueError for settings that exclude each other, with the remedy."""
    problems = {
        "--model.semantic needs the language branch": semantic and branches == "gaze",
        "--model.social needs the gaze branch": social and branches == "language",
        "--model.decode anchors needs both branches": decode == "anchors" and branches != "both",
        "--model.constrained false leaves nobody a sure anchor: it is for --model.branches language": not constrained
        and branches != "language",
        "--model.people_limit is at least 1": people_limit < 1,
        "--model.hidden_share is a share, for --model.decode anchors only": not 0 <= hidden <= 1
        or (hidden > 0 and decode != "anchors"),
    }
    found = [problem for problem, there in problems.items() if there]
    if found:
        raise ValueError("; ".join(found))
