"""Two ResNet-50 trunks, for the picture and for the head, joined by an attention over the picture's cells.

The build of Chong et al. (CVPR 2020), on which PDP (Miao et al., WACV 2023) stands; names of parameters are theirs, so
that official checkpoints load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from gazebench.core.rgb import normalised
from gazebench.core.types import Batch
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD

BLOCKS = (3, 4, 6, 3, 2)
"""Those of ResNet-50 and the fifth group of both papers."""


class SceneFace(nn.Module):
    """Picture, head map and face -> attended features and an encoding, and from an encoding a heatmap.

    Args:
        channels: of the picture: 3, or 4 with a depth map.
        width: of the first convolution; 64 in the papers.
        blocks: bottlenecks of the five groups.
        side: of the square inputs in pixels, a multiple of 32; the grid has ``side / 32`` cells a side.
        block: the class of the bottlenecks.
    """

    conv1_scene: nn.Conv2d
    conv1_face: nn.Conv2d

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        blocks: Sequence[int] = BLOCKS,
        side: int = 224,
        block: type[Bottleneck] = Bottleneck,
    ) -> None:
        super().__init__()
        if side % 32:
            raise ValueError(f"the side must be a multiple of 32 pixels, got {side}")
        self.side, self.cells = side, side // 32
        self.fixed_norms = False
        for branch, inputs in (("scene", channels + 1), ("face", 3)):
            self.add_module(f"conv1_{branch}", nn.Conv2d(inputs, width, 7, 2, 3, bias=False))
            self.add_module(f"bn1_{branch}", nn.BatchNorm2d(width))
            before = width
            for layer, (count, scale, stride) in enumerate(
                zip(blocks, (1, 2, 4, 8, 4), (1, 2, 2, 2, 1), strict=True), start=1
            ):
                group = _group(block, before, scale * width, count, stride)
                self.add_module(f"layer{layer}_{branch}", group)
                before = 4 * scale * width
        maps = channels - 2  # the head's and, with a depth map, that
        self.attn = nn.Linear(maps * (side // 8) ** 2 + 16 * width, self.cells**2)
        self.compress_conv1 = nn.Conv2d(32 * width, 16 * width, 1, bias=False)
        self.compress_bn1 = nn.BatchNorm2d(16 * width)
        self.compress_conv2 = nn.Conv2d(16 * width, 8 * width, 1, bias=False)
        self.compress_bn2 = nn.BatchNorm2d(8 * width)
        self.deconv1 = nn.ConvTranspose2d(8 * width, 4 * width, 3, 2)
        self.deconv_bn1 = nn.BatchNorm2d(4 * width)
        self.deconv2 = nn.ConvTranspose2d(4 * width, 2 * width, 3, 2)
        self.deconv_bn2 = nn.BatchNorm2d(2 * width)
        self.deconv3 = nn.ConvTranspose2d(2 * width, 1, 4, 2)
        self.deconv_bn3 = nn.BatchNorm2d(1)
        self.conv4 = nn.Conv2d(1, 1, 1)

    def train(self, mode: bool = True) -> Self:
        """With ``fixed_norms``, batch norms keep to their running statistics in training too."""
        super().train(mode)
        for module in self.modules():
            if self.fixed_norms and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def inputs(self, batch: Batch, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures, rows, head maps and faces of a batch, as ``attended`` takes them.

        Args:
            batch: with heads, and with depth maps where the network reads them.
            boxes: (P, 4) head boxes in pixels, as the heads were cut.
        """
        assert batch.images is not None
        assert batch.heads is not None
        pictures = normalised(batch.images, IMAGE_MEAN, IMAGE_STD)
        if batch.depth is not None:
            pictures = torch.cat([pictures, batch.depth[:, None]], dim=1)
        known = batch.head.isfinite().all(1)[:, None, None, None]
        faces = normalised(batch.heads, IMAGE_MEAN, IMAGE_STD) * known
        maps = head_maps(boxes, batch.sizes[batch.image_index], self.side)
        return pictures, batch.image_index, maps, faces

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """64 x 64 for inputs of 224 pixels."""
        return (8 * self.cells + 8, 8 * self.cells + 8)

    def initialise(self) -> None:
        """The papers' own: normal convolutions of deviation sqrt(2 / (kernel area x out channels))."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan))

    def attended(self, pictures: Tensor, row: Tensor, head_map: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """What the picture shows where the person may look, beside the face, and where that is.

        Args:
            pictures: (B, 3 or 4, S, S) normalised, the fourth channel a depth map.
            row: (P,) the picture of each person.
            head_map: (P, 1, S, S), 1 in the head box.
            faces: (P, 3, S, S) normalised.

        Returns:
            (P, 32 width, h, w) features, and the attention (P, 1, h, w), which sums to 1.
        """
        # The first convolution is linear: its part of the picture is computed once for all people of it.
        weight = self.conv1_scene.weight
        stem = F.conv2d(pictures, weight[:, :-1], stride=2, padding=3)[row]
        scene = self._trunk("scene", stem + F.conv2d(head_map, weight[:, -1:], stride=2, padding=3))
        face = self._trunk("face", self.conv1_face(faces))
        depth = [_pooled(pictures[:, 3:])[row]] if pictures.shape[1] > 3 else []
        looks = torch.cat([_pooled(head_map), *depth, face.mean((2, 3))], dim=1)
        attention = self.attn(looks).softmax(dim=1).view(-1, 1, self.cells, self.cells)
        return torch.cat([scene * attention, face], dim=1), attention

    def encoded(self, features: Tensor) -> Tensor:
        """(P, 32 width, h, w) -> (P, 8 width, h, w)."""
        hidden = F.relu(self.compress_bn1(self.compress_conv1(features)))
        return F.relu(self.compress_bn2(self.compress_conv2(hidden)))

    def decoded(self, encoding: Tensor, norms: bool = True) -> Tensor:
        """(P, 8 width, h, w) -> (P, H, W) heatmaps, unbounded; ``norms`` False leaves the batch norms out."""
        for stage in "123":
            encoding = getattr(self, f"deconv{stage}")(encoding)
            encoding = F.relu(getattr(self, f"deconv_bn{stage}")(encoding) if norms else encoding)
        return self.conv4(encoding).squeeze(1)

    def _trunk(self, branch: str, stem: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(getattr(self, f"bn1_{branch}")(stem)), 3, 2, 1)
        for layer in range(1, 6):
            hidden = getattr(self, f"layer{layer}_{branch}")(hidden)
        return hidden


def _group(block: type[Bottleneck], before: int, planes: int, count: int, stride: int) -> nn.Sequential:
    projection = None
    if stride != 1 or before != 4 * planes:
        projection = nn.Sequential(nn.Conv2d(before, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes))
    first = block(before, planes, stride, projection)
    return nn.Sequential(first, *(block(4 * planes, planes) for _ in range(count - 1)))


def _pooled(maps: Tensor) -> Tensor:
    """(N, K, S, S) -> (N, K S/8 S/8): three times the larger of neighbours."""
    for _ in range(3):
        maps = F.max_pool2d(maps, 3, 2, 1)
    return maps.flatten(1)


def head_maps(boxes: Tensor, sizes: Tensor, side: int) -> Tensor:
    """(P, 1, side, side) float32: 1 in the boxes (P, 4), given in pixels of pictures of sizes (P, 2); else 0.

    Corners are cut to cells towards zero and clipped to the last cell, which the far ones exclude: the last row and
    column are never set (official code). A box of NaN, or thinner than a cell, gives an empty map.
    """
    cells = (boxes / sizes.double().repeat(1, 2) * side).trunc().clamp(0, side - 1)
    x0, y0, x1, y1 = cells[:, :, None].unbind(1)
    cell = torch.arange(side, device=boxes.device)
    across, down = (cell >= x0) & (cell < x1), (cell >= y0) & (cell < y1)
    return (down[:, None, :, None] & across[:, None, None, :]).float()
