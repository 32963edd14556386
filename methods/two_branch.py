"""The field's older style in a small form: a branch for the head, a branch for the scene, and a step that joins them.

After Recasens et al. (NeurIPS 2015) and Chong et al. (CVPR 2020), whose scene branch is learnt; here it is a frozen
backbone. The method of docs/plugins.md, registered so that it stands on boards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gazebench.core.types import IN_FRAME, Batch, Prediction
from gazebench.data.transforms import Preprocess, cell_centres, gaussian_heatmap
from gazebench.engine.method import Method, MethodCard, Recipe, our_choice
from gazebench.methods.head_crop import SIDE, HeadCrop, distance_in_frame, head_branch, read_heads
from gazebench.nn.backbones import build_backbone, weights_grade
from gazebench.nn.losses import batch_mean
from gazebench.nn.optimizers import adam_one_cycle, trainable


class TwoBranch(Method):
    """A guess from the head's pixels, and one attention step over the picture's frozen features.

    Every cell of the picture is the likelier, the nearer it is to the guess and the better it answers the head's query.

    Args:
        backbone: a ViT of the suite, frozen.
        backbone_weights: ``pretrained``, ``random`` or a file.
        width: width of query and keys.
        lr: highest learning rate.
    """

    card = MethodCard(
        title="Two branches (head crop, scene)", family="two branches", licence="Apache-2.0",
        paper="ours, in the style of Chong et al., CVPR 2020", sees=frozenset({"picture", "head box", "head crop"}),
    )  # fmt: skip
    version = 1
    capabilities = frozenset({"point", "heatmap"})
    offline = ("--model.backbone=tiny", "--model.backbone_weights=random")
    sources = {
        "backbone": ("ours", "Gaze-LLE's"),
        "backbone_weights": ("ours", "pretrained and frozen, as Gaze-LLE's"),
        "width": ("ours", "narrow enough for a CPU"),
        "lr": ("ours", "the highest that trains steadily"),
    }
    recipes: ClassVar[Mapping[str, Recipe]] = {
        dataset: {**recipe, **(our_choice("fits two CPU cores", model__backbone="tiny") if dataset != "*" else {})}
        for dataset, recipe in HeadCrop.recipes.items()
    }

    def __init__(
        self,
        backbone: str = "dinov2_vitb14",
        backbone_weights: str = "pretrained",
        width: int = 64,
        lr: float = 3e-3,
    ) -> None:
        super().__init__()
        self.lr, self.backbone = lr, build_backbone(backbone, backbone_weights)
        self.grid = self.backbone.grid(SIDE)
        self.face = head_branch(32)
        self.step = nn.Sequential(nn.Linear(128 + 4, 64), nn.ReLU(), nn.Linear(64, 2))
        # A bias of the keys would add the same to every cell, which the softmax does not see.
        self.query, self.key = nn.Linear(128 + 4, width), nn.Linear(self.backbone.embed_dim, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        self.cells: Tensor
        self.register_buffer("cells", cell_centres(self.grid).flatten(0, 1), persistent=False)  # (h w, 2)

    def preprocess(self) -> Preprocess:
        """The whole picture, mirrored half the time in training."""
        return Preprocess(size=(SIDE, SIDE), crop=0.0, flip=0.5, box_jitter=0.0)

    def attend(self, batch: Batch) -> Tensor:
        """(P, h w) where each person looks, over the cells; sums to 1."""
        assert batch.images is not None
        read, centre = read_heads(self.face, batch)  # (P, 132), (P, 2)
        guess = centre + self.step(read)
        near = -self.sharpness.exp() * (self.cells - guess[:, None]).square().sum(2)  # (P, h w)
        key = self.key(self.backbone(batch.images).flatten(2).mT)[batch.image_index]  # (P, h w, width)
        return (near + torch.einsum("pd,pnd->pn", self.query(read), key) / key.shape[-1] ** 0.5).softmax(dim=1)

    def forward(self, batch: Batch) -> Prediction:
        attention = self.attend(batch)
        heatmap = (attention / attention.amax(dim=1, keepdim=True)).unflatten(1, self.grid)
        return Prediction(heatmap=heatmap, point=attention @ self.cells)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """A tenth of the cross-entropy of attention and a Gaussian at the target, and the distance to the target."""
        targets, attention = batch.targets, self.attend(batch)
        assert targets is not None
        seen = targets.inout == IN_FRAME
        wanted = gaussian_heatmap(targets.point[seen], self.grid, 1.0).flatten(1)
        wanted = wanted / wanted.sum(dim=1, keepdim=True).clamp_min(1e-9)
        surprise = -(wanted * attention[seen].clamp_min(1e-9).log()).sum(1)
        return {
            "attention": 0.1 * batch_mean(surprise), "distance": distance_in_frame(attention @ self.cells, batch)
        }  # fmt: skip

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        groups = [{"params": trainable(self)}]
        return adam_one_cycle(groups, self.lr, int(self.trainer.estimated_stepping_batches))

    def weights_identity(self) -> dict[str, Any]:
        identity = self.backbone.identity()
        return {"grade": weights_grade(identity["weights"]), "name": identity["name"], "backbone": identity}
