"""Crops of heads, their embeddings, and how these get into the prompt (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import roi_align

from gazebench.core.files import file_digest
from gazebench.core.weights import load_strictly, local_file, read_weights
from gazebench.methods.omnigf.prompts import GAZE_PAD
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD
from gazebench.nn.qwen3vl import Qwen3VL

HeadNet = Literal["resnet18", "small"]
SMALL_WEIGHTS: Final = Path(__file__).parent / "weights" / "small_head.pt"
"""Weights of ``small``, trained by ``scripts/pretrain_head.py`` on drawn eyes as the paper's are on Gaze360."""


def head_crops(images: Tensor, head: Tensor, image_index: Tensor, side: int) -> Tensor:
    """Cuts heads out of images.

    Args:
        images: (B, 3, H, W) uint8.
        head: (P, 4) normalised xyxy; a row of NaN is a person without a box, whose crop is blank.
        image_index: (P,) int64.
        side: side of the square crops in pixels; a box's aspect is not kept.

    Returns:
        (P, 3, side, side) float32 with ImageNet's mean and deviation taken out; 0 where it is blank. A box of less than
        a pixel is widened to one.
    """
    height, width = images.shape[-2:]
    known = head.isfinite().all(1)
    box = torch.where(known[:, None], head, 0.5).float() * head.new_tensor([width, height, width, height])
    centre, extent = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).clamp_min(1.0)
    corners = torch.cat([image_index[:, None].to(box.dtype), centre - extent / 2, centre + extent / 2], dim=1)
    mean, deviation = (images.new_tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (IMAGE_MEAN, IMAGE_STD))
    # As many samples a cell as it has pixels (-1), so that large heads are averaged and not sampled.
    crops = roi_align(images.float(), corners, side, sampling_ratio=-1, aligned=True)
    return ((crops / 255 - mean) / deviation) * known[:, None, None, None]


class HeadEncoder(nn.Module):
    """Head crops -> embeddings of a language model (OmniGF, section 3.2).

    Args:
        net: ``resnet18``, torchvision's (the paper's), or ``small``, which suits crops of 64 pixels and a CPU.
        dim: width of the embeddings.
        scale: their root mean square at first: that of the text embeddings they stand among.
        weights: a file for the network (the projection always starts afresh), "embedded" for those of ``small`` that
            come with the package, or "" for random ones.

    Attributes:
        identity: network and origin of its weights, for a result's record.

    Raises:
        WeightsError: no such file, or it does not fit.
    """

    def __init__(self, net: HeadNet, dim: int, scale: float = 1.0, weights: str | Path = "") -> None:
        super().__init__()
        self.net: nn.Module
        if net == "resnet18":
            self.net = resnet18()
            self.net.fc, width = nn.Identity(), 512
        else:
            self.net, width = SmallNet(), SmallNet.width
        self.identity = {"net": net, "weights": "random"}
        if weights == "embedded":
            self._load(SMALL_WEIGHTS)
            self.identity |= {"weights": "embedded", "sha256": file_digest(SMALL_WEIGHTS)}
        elif weights:
            self._load(local_file(weights))
            self.identity["weights"] = f"sha256:{file_digest(Path(weights))}"
        # Features of unit length under weights of one: a step of Adam then turns the embedding by a few per cent. Under
        # small weights and long features the first steps would add the same to everybody, and drown what differs.
        self.project = nn.Linear(width, dim)
        nn.init.normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.norm.weight, scale)

    def forward(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) normalised crops -> (P, dim)."""
        return self.embedded(self.net(crops))

    def embedded(self, features: Tensor) -> Tensor:
        """(P, F) features of the network -> (P, dim)."""
        return self.norm(self.project(F.layer_norm(features, features.shape[1:]) / features.shape[1] ** 0.5))

    def _load(self, file: Path) -> None:
        """Loads a state dict whose names may have any prefix (``module.`` ...) and that may have an ``fc`` layer."""
        state, first = read_weights(file), next(iter(self.net.state_dict()))
        prefix = next((key.removesuffix(first) for key in state if f".{key}".endswith(f".{first}")), "")
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        own = {name: value for name, value in own.items() if not name.startswith("fc")}
        load_strictly(self.net, own, what=f"the head encoder ({file.name})")


class SmallNet(nn.Sequential):
    """Four strided convolutions to a map of 4 x 4, whose places are kept: (P, 3, S, S) -> (P, 2048)."""

    width = 128 * 4 * 4

    def __init__(self) -> None:
        layers: list[Any] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, 128)):
            # Groups of channels, not the batch: a person's embedding must not depend on who else is there.
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())


class HeadSlots:
    """Puts head embeddings in place of the ``<|gaze_pad|>`` tokens of a prompt (equation 1).

    A forward hook on the embedding layer does it, while ``input_ids`` are passed as ever: image tokens, rotary
    positions and deepstack stay the model's own business. Adds the token to the model's tokenizer.

    Args:
        vlm: the model.
    """

    def __init__(self, vlm: Qwen3VL) -> None:
        tokenizer = vlm.processor.tokenizer
        # Never with additional_special_tokens=..., which would replace the list of the model's own.
        tokenizer.add_tokens([AddedToken(GAZE_PAD, special=True, normalized=False)], special_tokens=True)
        self.token = int(tokenizer.convert_tokens_to_ids(GAZE_PAD))
        if self.token >= vlm.model.get_input_embeddings().num_embeddings:
            # Real checkpoints have rows to spare. The new row's value is never read: heads take its place.
            vlm.model.resize_token_embeddings(self.token + 1, pad_to_multiple_of=64, mean_resizing=False)
        vlm.suppressed.add(self.token)
        self._heads: Tensor | None = None
        vlm.model.get_input_embeddings().register_forward_hook(self._fill)

    @contextmanager
    def filled(self, heads: Tensor | None) -> Iterator[None]:
        """Within it, the next pass of the model takes these embeddings (P, C), in the order of the slots."""
        self._heads = heads
        try:
            yield
        finally:
            self._heads = None

    def _fill(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        heads, self._heads = self._heads, None
        if heads is None:
            return output
        slots = inputs[0] == self.token
        count = int(slots.sum())
        if count != len(heads):
            raise ValueError(f"{count} slots in the prompts for {len(heads)} head embeddings")
        return output.masked_scatter(slots[..., None], heads.to(output.dtype))


def embedding_scale(vlm: Qwen3VL) -> float:
    """The root mean square of the entries of a model's token embeddings."""
    weight = vlm.model.get_input_embeddings().weight.detach()
    return float(torch.linalg.vector_norm(weight, dtype=torch.float32)) / weight.numel() ** 0.5
