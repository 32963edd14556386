"""The networks of Chong et al. (CVPR 2020): for single pictures, and with a ConvLSTM for clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from gazebench.nn.scene_face import BLOCKS, SceneFace


class ClipBottleneck(Bottleneck):
    """The bottleneck of the network for clips: a further norm on the skip, and norms that can be left out.

    ``bn_ds`` follows the projection's own norm; a block without a projection has it too and never uses it.
    """

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__(inplanes, planes, stride, downsample)
        self.bn_ds = nn.BatchNorm2d(4 * planes)
        self.norms = True
        if downsample is None:
            self.bn_ds.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        skip = x
        if self.downsample is not None:
            skip = self.downsample(x)
            skip = self.bn_ds(skip) if self.norms else skip
        for stage in "123":
            x = getattr(self, f"conv{stage}")(x)
            x = getattr(self, f"bn{stage}")(x) if self.norms else x
            x = F.relu(x + skip if stage == "3" else x)
        return x


@dataclass(frozen=True)
class Steps:
    """Where the rows of a batch of clips belong.

    Attributes:
        sequence: (P,) the sequence of each row, 0 to S - 1.
        step: (P,) its place in time; only the order counts.
        state: h and c of the S sequences so far, each (layers, S, C, h, w).
    """

    sequence: Tensor
    step: Tensor
    state: tuple[Tensor, Tensor]


class ConvLSTM(nn.Module):
    """Two layers of a convolutional LSTM without peepholes; gates in the order input, forget, cell, output.

    Args:
        channels: of input and state.
        layers: how many.
        dropout: on the output of every layer but the last, in training.
    """

    def __init__(self, channels: int, layers: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.channels, self.layers, self.dropout = channels, layers, dropout
        bound = 1 / math.sqrt(channels)
        for layer in range(layers):
            for kind in ("ih", "hh"):
                weight = torch.empty(4 * channels, channels, 3, 3).uniform_(-bound, bound)
                self.register_parameter(f"weight_{kind}_l{layer}", nn.Parameter(weight))
                bias = torch.empty(4 * channels).uniform_(-bound, bound)
                self.register_parameter(f"bias_{kind}_l{layer}", nn.Parameter(bias))

    def empty(self, sequences: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The state of sequences that begin, for rows of features (P, C, h, w)."""
        zeros = like.new_zeros(self.layers, sequences, *like.shape[1:])
        return zeros, zeros.clone()

    def forward(self, features: Tensor, steps: Steps) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(P, C, h, w) -> the upper layer's h of every row, and the state after the last row of each sequence."""
        hidden, cell = ([*part.unbind(0)] for part in steps.state)  # by layer: (S, C, h, w)
        answers = torch.empty_like(features)
        for step in steps.step.unique():  # ascending
            rows = (steps.step == step).nonzero()[:, 0]
            sequence = steps.sequence[rows]
            x = features[rows]
            for layer in range(self.layers):
                h, c = self._cell(layer, x, hidden[layer][sequence], cell[layer][sequence])
                hidden[layer] = hidden[layer].index_copy(0, sequence, h)
                cell[layer] = cell[layer].index_copy(0, sequence, c)
                x = F.dropout(h, self.dropout, self.training) if layer + 1 < self.layers else h
            answers = answers.index_copy(0, rows, x)
        return answers, (torch.stack(hidden), torch.stack(cell))

    def _cell(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ih, hh = (
            F.conv2d(each, getattr(self, f"weight_{kind}_l{layer}"), getattr(self, f"bias_{kind}_l{layer}"), padding=1)
            for kind, each in (("ih", x), ("hh", h))
        )
        write, keep, new, show = (ih + hh).chunk(4, dim=1)
        c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
        return show.sigmoid() * c.tanh(), c


@dataclass
class Answer:
    """What the network says of P people.

    Attributes:
        heatmap: (P, 64, 64), unbounded.
        attention: (P, 1, 7, 7), over the picture.
        inout: (P,) logits.
        state: of the sequences, where they are clips.
    """

    heatmap: Tensor
    attention: Tensor
    inout: Tensor
    state: tuple[Tensor, Tensor] | None = None


class ChongNet(SceneFace):
    """Heatmap and in/out logit of P people; parameters have the official names.

    Args:
        width: of the first convolution.
        blocks: bottlenecks of the five groups.
        side: of the inputs in pixels.
        temporal: with a ConvLSTM between encoder and decoder, for clips.
        skip_norms_of_one: with ``temporal``: a single row passes without the norms of bottlenecks and decoder, as in
            the official code, where it makes a frame's answer depend on how many others are in its batch.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: Sequence[int] = BLOCKS,
        side: int = 224,
        temporal: bool = False,
        skip_norms_of_one: bool = False,
    ) -> None:
        super().__init__(3, width, blocks, side, ClipBottleneck if temporal else Bottleneck)
        self.compress_conv1_inout = nn.Conv2d(32 * width, 8 * width, 1, bias=False)
        self.compress_bn1_inout = nn.BatchNorm2d(8 * width)
        self.compress_conv2_inout = nn.Conv2d(8 * width, 1, 1, bias=False)
        self.compress_bn2_inout = nn.BatchNorm2d(1)
        self.fc_inout = nn.Linear(self.cells**2, 1)
        self.temporal, self.skip_norms_of_one = temporal, skip_norms_of_one
        self.initialise()
        if temporal:
            self.convlstm_scene = ConvLSTM(8 * width)

    @property
    def state_shape(self) -> tuple[int, int, int, int, int]:
        """Of a sequence's state: (h and c, layers, C, h, w)."""
        return (2, self.convlstm_scene.layers, self.convlstm_scene.channels, self.cells, self.cells)

    def forward(
        self, pictures: Tensor, row: Tensor, head_map: Tensor, faces: Tensor, steps: Steps | None = None
    ) -> Answer:
        """Arguments as ``attended``'s; ``steps`` for clips, without which every row is a sequence of its own."""
        norms = not (self.temporal and self.skip_norms_of_one and len(row) == 1)
        for module in self.modules():
            if isinstance(module, ClipBottleneck):
                module.norms = norms
        features, attention = self.attended(pictures, row, head_map, faces)
        hidden = F.relu(self.compress_bn1_inout(self.compress_conv1_inout(features)))
        hidden = F.relu(self.compress_bn2_inout(self.compress_conv2_inout(hidden)))
        inout = self.fc_inout(hidden.flatten(1)).squeeze(1)
        encoding, state = self.encoded(features), None
        if self.temporal:
            if steps is None:
                own = torch.arange(len(row), device=row.device)
                steps = Steps(own, torch.zeros_like(own), self.convlstm_scene.empty(len(row), encoding))
            encoding, state = self.convlstm_scene(encoding, steps)
        return Answer(self.decoded(encoding, norms), attention, inout, state)
