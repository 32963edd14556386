"""The network of Sharingan (Tafasca et al., CVPR 2024); parameters have the official names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

FACTORS = (32, 16, 8, 4)
"""Sizes of the decoder's maps, as shares of the picture's side, in the order they are joined."""


@dataclass
class Answer:
    """What the network says of P people.

    Attributes:
        heatmap: (P, 64, 64), unbounded.
        inout: (P,) logits.
        vector: (P, 2) gaze directions in the square picture, of length 1, from the head crop alone.
    """

    heatmap: Tensor
    inout: Tensor
    vector: Tensor


class GazeEncoder(nn.Module):
    """Head crop and box -> a person token, and a gaze direction.

    Args:
        width: of the tokens.
        channels: of the first convolution of the ResNet-18; 64 in the paper.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        ]  # fmt: skip
        before = channels
        for scale in (1, 2, 4, 8):
            after, stride = scale * channels, 1 if scale == 1 else 2
            skip = None
            if stride > 1:
                skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            layers.append(nn.Sequential(BasicBlock(before, after, stride, skip), BasicBlock(after, after)))
            before = after
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))  # the children of torchvision's ResNet-18
        self.gaze_proj = nn.Sequential(nn.Linear(before, width), nn.ReLU(), nn.Linear(width, width))
        self.pos_proj = nn.Linear(4, width)
        self.gaze_predictor = nn.Sequential(nn.Linear(before, before), nn.ReLU(), nn.Linear(before, 2), nn.Tanh())

    def forward(self, heads: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 3, S, S) normalised crops and (P, 4) normalised boxes -> (P, width) tokens, (P, 2) unit vectors."""
        features = self.backbone(heads).flatten(1)
        token = self.gaze_proj(features) + self.pos_proj(boxes)
        return token, F.normalize(self.gaze_predictor(features), dim=1)


class ImageTokenizer(nn.Module):
    """(B, 3, S, S) -> (B, h w, width) tokens of patches of 16 pixels, with their places.

    Args:
        width: of the tokens.
        side: of the picture.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 16, 16)
        self.pos_emb = nn.Parameter(positions(width, side // 16), requires_grad=False)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = self.proj(pictures)
        places = F.interpolate(self.pos_emb, tokens.shape[2:], mode="bicubic", align_corners=False)
        return (tokens + places).flatten(2).mT


def positions(width: int, side: int) -> Tensor:
    """(1, width, side, side): sines and cosines of the row, then of the column, as MultiMAE has them."""
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter) / quarter)
    phase = torch.arange(side)[:, None] * frequency  # (side, quarter)
    waves = torch.cat([phase.sin(), phase.cos()], dim=1)  # (side, 2 quarter)
    down, across = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([down, across], dim=2).permute(2, 0, 1)[None].contiguous()


class Encoder(nn.Module):
    """Pre-norm transformer without a last norm over image tokens and person tokens.

    Args:
        width: of the tokens.
        depth: number of blocks.
        heads: of the attention.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.global_tokens = nn.Parameter(torch.zeros(1, 0, width), requires_grad=False)  # empty, as published
        # The norms of timm's block have the published eps, 1e-6.
        self.encoder = nn.ModuleList(Block(width, heads, 4, qkv_bias=True) for _ in range(depth))

    def forward(self, tokens: Tensor, mask: Tensor | None, taps: tuple[int, ...]) -> list[Tensor]:
        """(B, T, width) -> the outputs of the blocks ``taps``; ``mask`` (B, 1, 1, T) is True where a token is."""
        outputs = []
        for block in self.encoder:
            tokens = block(tokens, attn_mask=mask)
            outputs.append(tokens)
        return [outputs[tap] for tap in taps]


class Reassemble(nn.Module):
    """Image tokens as a map (B, width, h, w), of the size that a factor names.

    Args:
        width: of the tokens.
        channels: in between.
        out: of the result.
        factor: one of ``FACTORS``.
    """

    def __init__(self, width: int, channels: int, out: int, factor: int) -> None:
        super().__init__()
        resizing: dict[int, Callable[[], nn.Module]] = {
            32: lambda: nn.Conv2d(channels, channels, 3, 2, 1),
            16: nn.Identity,
            8: lambda: nn.ConvTranspose2d(channels, channels, 2, 2),
            4: lambda: nn.ConvTranspose2d(channels, channels, 4, 4),
        }
        self.resample = nn.Sequential(nn.Conv2d(width, channels, 1), resizing[factor]())
        self.proj = nn.Conv2d(channels, out, 3, 1, 1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(self.resample(tokens))


class ResidualUnit(nn.Module):
    """Two convolutions, each after a ReLU and before a norm, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            layers += [nn.ReLU(), conv, nn.BatchNorm2d(channels)]
        self.residual_module = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_module(x)


class Fusion(nn.Module):
    """Joins a map with the result so far, and doubles its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rcu1, self.rcu2 = ResidualUnit(channels), ResidualUnit(channels)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, so_far: Tensor | None) -> Tensor:
        x = self.rcu1(x)
        x = self.rcu2(x if so_far is None else x + so_far)
        return self.proj(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class ConditionalDPT(nn.Module):
    """Maps of the picture, each channel multiplied by what the person's token says of it -> heatmaps.

    Args:
        width: of the tokens.
        channels: of the maps; 128 in the paper.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        between = {factor: 3 * channels * factor // 32 for factor in FACTORS}  # 384, 192, 96, 48
        self.reassemble_blocks = nn.ModuleDict(
            {f"r{factor}": Reassemble(width, between[factor], channels, factor) for factor in FACTORS}
        )
        self.gaze_projs = nn.ModuleDict({f"g{factor}": nn.Linear(width, channels) for factor in FACTORS})
        self.fusion_blocks = nn.ModuleDict({f"f{factor}": Fusion(channels) for factor in FACTORS})
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(channels // 2, channels // 4, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(channels // 4, 1, 1),
        )  # fmt: skip

    def forward(self, maps: list[Tensor], people: list[Tensor], row: Tensor) -> Tensor:
        """Heatmaps (P, 64, 64).

        Args:
            maps: by factor, (B, width, h, w) image tokens; what is made of them is computed once a picture.
            people: by factor, (P, width) person tokens.
            row: (P,) the picture of each person.
        """
        x = None
        for factor, tokens, person in zip(FACTORS, maps, people, strict=True):
            scale = self.gaze_projs[f"g{factor}"](person)[:, :, None, None]
            x = self.fusion_blocks[f"f{factor}"](self.reassemble_blocks[f"r{factor}"](tokens)[row] * scale, x)
        return F.interpolate(self.head(x), (64, 64), mode="bilinear", align_corners=False).squeeze(1)


class PersonNorm(nn.BatchNorm1d):
    """Batch norm over people; one person alone, who has no deviation, gets the running statistics in training too."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class InOutBlock(nn.Module):
    """A residual block of two linear layers with norms."""

    def __init__(self, inputs: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(inputs, hidden, bias=False), PersonNorm(hidden)
        self.fc2, self.bn2 = nn.Linear(hidden, out, bias=False), PersonNorm(out)
        self.res_fc = nn.Linear(inputs, out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.fc2(F.relu(self.bn1(self.fc1(x))))) + self.res_fc(x))


class InOutDecoder(nn.Module):
    """A person's tokens after and before the encoder, (P, 2 width) -> (P,) logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block1 = InOutBlock(2 * width, width, width // 2)
        self.block2 = InOutBlock(width // 2, width // 4, width // 8)
        self.fc = nn.Linear(width // 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block2(self.block1(x))).squeeze(1)


class SharinganNet(nn.Module):
    """All people of a picture at once; a person's answer depends on which others are given.

    Args:
        width: of the tokens, a multiple of 8.
        depth: blocks of the encoder, a multiple of 4; the decoder reads the output of every fourth of them.
        heads: of its attention.
        decoder_width: channels of the decoder's maps, a multiple of 32.
        channels: of the first convolution of the head's ResNet-18.
        side: of the picture in pixels, a multiple of 32.
    """

    def __init__(
        self,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_width: int = 128,
        channels: int = 64,
        side: int = 224,
    ) -> None:
        super().__init__()
        if side % 32 or depth % 4 or width % 8 or decoder_width % 32:
            raise ValueError("side and decoder_width must be multiples of 32, width of 8, depth of 4")
        self.gaze_encoder = GazeEncoder(width, channels)
        self.image_tokenizer = ImageTokenizer(width, side)
        self.encoder = Encoder(width, depth, heads)
        self.heatmap_decoder = ConditionalDPT(width, decoder_width)
        self.inout_decoder = InOutDecoder(width)
        self.taps = tuple(depth * quarter // 4 - 1 for quarter in (4, 3, 2, 1))

    def forward(self, pictures: Tensor, row: Tensor, heads: Tensor, boxes: Tensor) -> Answer:
        """Answers for P people.

        Args:
            pictures: (B, 3, S, S) normalised.
            row: (P,) ascending, the picture of each person.
            heads: (P, 3, S, S) normalised crops.
            boxes: (P, 4) normalised xyxy.
        """
        person, vector = self.gaze_encoder(heads, boxes)
        image = self.image_tokenizer(pictures)
        count = torch.bincount(row, minlength=len(pictures))
        place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]  # in the person's picture
        most = int(count.max()) if len(count) else 0
        people = person.new_zeros(len(pictures), most, person.shape[1]).index_put((row, place), person)
        mask = None
        if int(count.min()) < most:  # pictures with fewer people have empty places, which nobody may attend to
            given = torch.arange(most, device=row.device) < count[:, None]
            mask = torch.cat([given.new_ones(image.shape[:2]), given], dim=1)[:, None, None]
        taps = self.encoder(torch.cat([image, people], dim=1), mask, self.taps)
        side = int(image.shape[1] ** 0.5)
        maps = [tap[:, : image.shape[1]].mT.unflatten(2, (side, side)) for tap in taps]
        tokens = [tap[:, image.shape[1] :][row, place] for tap in taps]
        inout = self.inout_decoder(torch.cat([tokens[0], person], dim=1))
        return Answer(self.heatmap_decoder(maps, tokens, row), inout, vector)
