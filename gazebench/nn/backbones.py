"""Frozen ViT backbones: DINOv2 from torch.hub or timm, and the small ones embedded in data sets' folders.

The forward pass is written here, over the parts that have the same names in all sources (``patch_embed.proj``,
``cls_token``, ``pos_embed``, ``blocks``, ``norm``). Hub and timm therefore compute the same at any size, and the
weights of one fit the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.known_weights import named
from gazebench.core.plugins import embedded
from gazebench.core.weights import WeightsError, download_path, load_strictly, local_file, read_weights

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
HUB: Final = "facebookresearch/dinov2"
DINOV2: Final = {
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m",
}
"""Names on torch.hub, and timm's names of the same models."""

ComputeDtype = Literal["float32", "bfloat16"]


class ViTBackbone(nn.Module):
    """A plain ViT as a feature extractor: (B, 3, H, W) uint8, or float in [0, 1] -> (B, C, H/p, W/p) float32.

    ImageNet normalisation happens inside. ``forward`` is ``tokens``, ``finish``; a method that treats some blocks
    differently calls ``tokens`` for those before them, and the ``blocks`` itself, under ``autocast``. All parameters
    are frozen at first. A frozen backbone stays in eval mode whatever ``train()`` says; ``requires_grad_()`` makes it
    trainable.

    Args:
        model: a ViT with DINOv2's names and one prefix token, the class token.
        name: its name in results.
        source: the origin of its code.
        weights: ``pretrained``, ``embedded``, ``random`` or ``sha256:`` of a file.
        compute_dtype: ``bfloat16`` runs embedding and blocks under autocast; parameters and output stay float32.
        input_size: the usual side of a square input, in pixels.
    """

    prefix_tokens: Final = 1
    model: Any
    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        model: nn.Module,
        name: str = "custom",
        source: str = "custom",
        weights: str = "random",
        compute_dtype: ComputeDtype = "float32",
        input_size: int = 224,
    ) -> None:
        super().__init__()
        if getattr(model, "num_register_tokens", 0) or getattr(model, "num_reg_tokens", 0):
            raise ValueError(f"{name} has register tokens; only ViTs with a single class token are supported")
        self.model = model
        self.name, self.source, self.weights = name, source, weights
        self.compute_dtype, self.input_size = compute_dtype, input_size
        self.embed_dim = int(self.model.embed_dim)
        self.patch_size = int(self.model.patch_embed.proj.kernel_size[0])
        # Not persistent: the state dict holds the official names and nothing else.
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        """The transformer blocks, each (B, N, C) -> (B, N, C)."""
        return self.model.blocks

    @property
    def frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)

    def grid(self, size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the feature map of an image of ``size`` pixels, (height, width) or the side of a square.

        Raises:
            ValueError: a side is no multiple of the patch size.
        """
        height, width = (size, size) if isinstance(size, int) else size
        p = self.patch_size
        if height % p or width % p:
            raise ValueError(
                f"{self.name} takes sides that are multiples of {p}, got {height} x {width}; "
                f"nearest: {max(1, round(height / p)) * p} x {max(1, round(width / p)) * p}"
            )
        return height // p, width // p

    def autocast(self) -> AbstractContextManager[Any]:
        """A context that sets the precision of ``embed`` and ``blocks``."""
        dtype = getattr(torch, self.compute_dtype)
        return torch.autocast(self.image_mean.device.type, dtype, enabled=dtype is not torch.float32)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, 1 + h w, C): class and patch tokens with their positions."""
        rows, columns = self.grid((images.shape[-2], images.shape[-1]))
        pixels = images / 255 if images.dtype == torch.uint8 else images
        patches = self.model.patch_embed.proj((pixels.float() - self.image_mean) / self.image_std)  # (B, C, h, w)
        tokens = torch.cat([self.model.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        return tokens + position_embedding(self.model.pos_embed, rows, columns)

    def tokens(self, images: Tensor, blocks: int | None = None) -> Tensor:
        """``embed`` and the first ``blocks`` blocks (None: all)."""
        tokens = self.embed(images)
        for block in self.blocks[:blocks]:
            tokens = block(tokens)
        return tokens

    def finish(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + h w, C) -> (B, C, h, w) float32: the final norm; the class token is dropped."""
        patches = self.model.norm(tokens)[:, self.prefix_tokens :].float()  # (B, h w, C)
        return patches.mT.unflatten(2, grid)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, C, h, w) float32."""
        with self.autocast():
            return self.finish(self.tokens(images), self.grid((images.shape[-2], images.shape[-1])))

    def weights_before(self, block: int | None = None) -> dict[str, Any]:
        """The tensors that ``tokens`` of so many blocks reads, by name; None: all that ``forward`` reads."""
        later = tuple(f"blocks.{index}." for index in range(len(self.blocks) if block is None else block, 10**3))
        later += ("mask_token",) if block is None else ("mask_token", "norm.")  # inference reads no mask token
        return {
            name: value for name, value in self.model.state_dict(keep_vars=True).items() if not name.startswith(later)
        }

    def digest(self, block: int | None = None) -> str:
        """16 hex digits of the sha256 of ``weights_before`` with their names; the same for hub and timm."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.weights_before(block).items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def identity(self) -> dict[str, str]:
        """The backbone's entry in the record of a run; ``sha256`` is ``digest()``."""
        return {
            "name": self.name,
            "source": self.source,
            "weights": self.weights,
            "sha256": self.digest(),
            "compute_dtype": self.compute_dtype,
        }


def weights_grade(weights: str) -> str:
    """The ``grade`` in a record for the ``weights`` of a backbone's identity."""
    return {"pretrained": "published", "embedded": "embedded", "random": "random"}.get(weights, "file")


def position_embedding(table: Tensor, rows: int, columns: int) -> Tensor:
    """The position embedding (1, 1 + n n, C) resampled to a grid: (1, 1 + rows * columns, C).

    DINOv2's own rule: bicubic without antialiasing, where the scale factor (rows + 0.1) / n enters the coordinates.
    timm resamples differently, which moves features by up to 0.1.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    patches = table[:, 1:].float().mT.unflatten(2, (side, side))
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resampled = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], resampled.flatten(2).mT.to(table.dtype)], dim=1)


def load_weights(backbone: ViTBackbone, state: Mapping[str, Tensor]) -> None:
    """Fills a backbone from DINOv2's or timm's weights, with or without the prefix ``model.`` or ``backbone.model.``.

    Raises:
        WeightsError: the weights do not fit.
    """
    prefix = next((p for p in ("backbone.model.", "model.") if any(name.startswith(p) for name in state)), "")
    given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    given.pop("mask_token", None)  # only the hub's module has one, and inference never reads it
    load_strictly(backbone.model, given, what=backbone.name, may_lack=["mask_token"])


def build_backbone(
    name: str,
    weights: str | Path = "pretrained",
    source: str | Path | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> ViTBackbone:
    """Builds a frozen backbone.

    Args:
        name: one of ``DINOV2``, or an embedded one such as ``tiny``.
        weights: ``pretrained`` (embedded backbones: the file they come with), ``random`` (drawn from torch's global
            seed), or a file or address of a state dict.
        source: where DINOv2's code comes from: ``hub``, the folder of a clone of its repository, or ``timm``. Default:
            ``hub`` for pretrained weights, ``timm`` (which needs no network) for all others.
        compute_dtype: see ``ViTBackbone``.

    Raises:
        DataError: unknown name or source.
        WeightsError: the weights are missing, cannot be downloaded or do not fit.
    """
    pretrained, origin = weights == "pretrained", str(weights)
    file = None if weights in ("pretrained", "random") else local_file(weights)
    if file is not None:
        origin = f"sha256:{file_digest(file)}"
    if name in DINOV2:
        source, side = str(source or ("hub" if pretrained else "timm")), 448
        model = _dinov2(name, source, pretrained)
        if pretrained and source != "timm":
            _check_download(f"{name}_pretrain.pth")
    else:
        model, shipped, side = _embedded(name)
        source = "gazebench"
        if pretrained:
            file, origin = local_file(shipped), "embedded"
    backbone = ViTBackbone(model, name, source, origin, compute_dtype, side)
    if file is not None:
        load_weights(backbone, read_weights(file))
    return backbone


def _embedded(name: str) -> tuple[nn.Module, Path, int]:
    """A model with random weights, the file of its trained weights, and the side of its input in pixels."""
    builders = embedded("BACKBONES")
    if name not in builders:
        raise DataError(f"unknown backbone {name!r}: known are {', '.join([*DINOV2, *builders])}")
    return builders[name]()


def _check_download(name: str) -> None:
    """Compares the file that torch.hub keeps with its publisher's, whose digest is known.

    Raises:
        WeightsError: it is another file.
    """
    file, entry = download_path(name), named(name)
    if file.is_file() and entry is not None and not file_digest(file).startswith(entry.sha256):
        raise WeightsError(f"{file} is not the file of {entry.source}: delete it, so that it is fetched again")


def _dinov2(name: str, source: str, pretrained: bool) -> nn.Module:
    try:
        if source == "timm":
            # init_values is the hub's initial layer scale; timm's own, 1e-5, would make random blocks identities.
            return timm.create_model(DINOV2[name], pretrained=pretrained, num_classes=0, init_values=1.0)
        if source == "hub":
            return torch.hub.load(HUB, name, pretrained=pretrained)
        if Path(source, "hubconf.py").is_file():
            return torch.hub.load(source, name, source="local", pretrained=pretrained)
    except Exception as error:  # the exceptions of a failed download differ by library and version
        raise WeightsError(
            f"{name} cannot be loaded from {source} ({type(error).__name__}: {error}). Without a network: download "
            f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth elsewhere and pass "
            f"--model.backbone_weights FILE, or pass a clone of github.com/{HUB} as --model.backbone_source"
        ) from error
    raise DataError(f"unknown source {source!r}: 'hub', 'timm' or the folder of a clone of {HUB} with its hubconf.py")
