"""Frozen image backbones: DINOv2 (torch.hub or timm, the same function) and our own `tiny`.

The forward pass is written here once, over the parts that both sources name alike (``patch_embed.proj``,
``cls_token``, ``pos_embed``, ``blocks``, ``norm``). So hub and timm agree, at any size, by construction, and weights
go from one to the other.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Self

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gazebench.core.errors import UserError
from gazebench.core.weights import misfits

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
HUB: Final = "facebookresearch/dinov2"
TIMM: Final = {
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m",
}
BACKBONES: Final = (*TIMM, "tiny")
TINY_WEIGHTS: Final = Path(__file__).parents[2] / "datasets" / "gazeworld" / "weights" / "tiny.pt"

ComputeDtype = Literal["float32", "bfloat16"]


class WeightsError(UserError, RuntimeError):
    """Weights that cannot be had or do not fit; the message tells the remedy."""


class ViTBackbone(nn.Module):
    """A plain ViT as a feature extractor: (B, 3, H, W) uint8, or float in [0, 1] -> (B, C, H/p, W/p) float32.

    ImageNet normalisation happens inside. ``forward`` is ``embed``, every one of ``blocks``, ``finish``; a method may
    call the three itself to treat some blocks apart. Frozen when made: no parameter requires a gradient, and while
    that is so ``train()`` leaves it in eval mode; ``requires_grad_()`` thaws it.

    Args:
        model: a ViT with the names of DINOv2 and one prefix (class) token.
        name: what it is called in results.
        source: where its code came from.
        weights: ``pretrained``, ``embedded``, ``random`` or ``sha256:`` of a file.
        compute_dtype: ``bfloat16`` runs embedding and blocks under autocast; parameters and output stay float32.
        input_size: the customary side of a square input, in pixels.
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
        self.compute_dtype = compute_dtype
        self.input_size = input_size
        self.embed_dim = int(self.model.embed_dim)
        self.patch_size = int(self.model.patch_embed.proj.kernel_size[0])
        # Not persistent: a state dict holds the official keys and nothing else.
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        """The transformer blocks, each (B, N, C) -> (B, N, C)."""
        return self.model.blocks

    @property
    def frozen(self) -> bool:
        """Whether no parameter requires a gradient."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, except that a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    def grid(self, size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the feature map of an image of height, width ``size`` (an int: square)."""
        height, width = (size, size) if isinstance(size, int) else size
        p = self.patch_size
        if height % p or width % p:
            raise ValueError(
                f"{self.name} takes sides that are multiples of {p}, got {height} x {width}; "
                f"nearest: {max(1, round(height / p)) * p} x {max(1, round(width / p)) * p}"
            )
        return height // p, width // p

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision the encoder runs in; whoever calls the blocks apart enters it too."""
        dtype = getattr(torch, self.compute_dtype)
        return torch.autocast(self.image_mean.device.type, dtype, enabled=dtype is not torch.float32)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, 1 + h w, C): class and patch tokens with their positions."""
        rows, columns = self.grid((images.shape[-2], images.shape[-1]))
        pixels = images / 255 if images.dtype == torch.uint8 else images
        patches = self.model.patch_embed.proj((pixels.float() - self.image_mean) / self.image_std)
        tokens = torch.cat([self.model.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        return tokens + position_embedding(self.model.pos_embed, rows, columns)

    def finish(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + h w, C) -> (B, C, h, w) float32: the final norm, without the class token."""
        patches = self.model.norm(tokens)[:, self.prefix_tokens :].float()
        return patches.mT.unflatten(2, grid)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, C, h, w) float32."""
        with self.autocast():
            tokens = self.embed(images)
            for block in self.blocks:
                tokens = block(tokens)
            return self.finish(tokens, self.grid((images.shape[-2], images.shape[-1])))

    def digest(self) -> str:
        """16 hex digits of the names and values of all tensors; the same for hub and timm."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            if name != "mask_token":  # only the hub's module has it and inference never reads it
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def identity(self) -> dict[str, str]:
        """What a result has to say of its backbone: name, source, weights, sha256 (of all tensors), compute_dtype."""
        return {
            "name": self.name,
            "source": self.source,
            "weights": self.weights,
            "sha256": self.digest(),
            "compute_dtype": self.compute_dtype,
        }


def position_embedding(table: Tensor, rows: int, columns: int) -> Tensor:
    """The (1, 1 + n n, C) position embedding for a grid: (1, 1 + rows * columns, C).

    DINOv2's own rule: bicubic, no antialiasing, and a scale factor of (rows + 0.1) / n that enters the coordinates.
    timm's resampling is another one and moves features by up to 1e-1.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    patches = table[:, 1:].float().mT.unflatten(2, (side, side))
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resampled = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], resampled.flatten(2).mT.to(table.dtype)], dim=1)


def load_weights(backbone: ViTBackbone, state: Mapping[str, Tensor]) -> None:
    """Fills the backbone from DINOv2 or timm weights, with or without a ``model.`` or ``backbone.model.`` prefix.

    Raises:
        WeightsError: keys are missing or unknown, or a shape differs.
    """
    for prefix in ("backbone.model.", "model."):
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            break
    own = backbone.model.state_dict()
    # Only the hub's module has a mask token, and inference never reads it.
    found = misfits(own, {key: value for key, value in state.items() if key != "mask_token"}, may_lack=["mask_token"])
    if found:
        raise WeightsError(f"the weights do not fit {backbone.name}: {found}")
    backbone.model.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def build_backbone(
    name: str,
    weights: str | Path = "pretrained",
    source: str | Path | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> ViTBackbone:
    """Builds a frozen backbone by name (one of ``BACKBONES``).

    Args:
        name: ``dinov2_vits14``, ``dinov2_vitb14``, ``dinov2_vitl14`` or ``tiny``.
        weights: ``pretrained`` (for ``tiny`` those shipped with the package), ``random`` (from torch's global seed)
            or a file with a state dict.
        source: where DINOv2's code comes from: ``hub``, a clone of its repository, or ``timm``. By default ``hub``
            for pretrained weights and ``timm``, which needs no network, for any other.
        compute_dtype: see ``ViTBackbone``.

    Raises:
        ValueError: an unknown name or source.
        WeightsError: the weights are out of reach or do not fit.
    """
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown backbone {name!r}: {hint}known are {', '.join(BACKBONES)}")
    pretrained = weights == "pretrained"
    file = None if weights in ("pretrained", "random") else Path(weights)
    if name == "tiny":
        model, source, file = _tiny(), "gazebench", TINY_WEIGHTS if pretrained else file
        origin = "embedded" if pretrained else "random"
    else:
        source = str(source or ("hub" if pretrained else "timm"))
        model, origin = _dinov2(name, source, pretrained), str(weights)
    if file is not None and not file.is_file():
        remedy = "make them with scripts/pretrain_tiny.py" if file == TINY_WEIGHTS else "weights= takes a file's path"
        raise WeightsError(f"no weights at {file} for {name}: {remedy}, or pass weights='random'")
    if file is not None and not (name == "tiny" and pretrained):
        origin = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    backbone = ViTBackbone(model, name, source, origin, compute_dtype, input_size=224 if name == "tiny" else 448)
    if file is not None:
        load_weights(backbone, torch.load(file, map_location="cpu", weights_only=True))
    return backbone


def _tiny() -> nn.Module:
    """ViT of 2.8 M parameters: width 192, 6 blocks, 3 heads, patches of 14, made for 224 x 224."""
    model = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=192, depth=6, num_heads=3, num_classes=0, global_pool=""
    )
    # At this width the customary std of 0.02 leaves the blocks next to silent and training slow to start.
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    return model


def _dinov2(name: str, source: str, pretrained: bool) -> nn.Module:
    try:
        if source == "timm":
            # init_values: the hub's initial layer scale; timm's own, 1e-5, would leave random blocks idle.
            return timm.create_model(TIMM[name], pretrained=pretrained, num_classes=0, init_values=1.0)
        if source == "hub":
            return torch.hub.load(HUB, name, pretrained=pretrained)
        if Path(source, "hubconf.py").is_file():
            return torch.hub.load(source, name, source="local", pretrained=pretrained)
    except Exception as error:  # what a failed download raises differs by library and version
        raise WeightsError(
            f"could not get {name} from {source} ({type(error).__name__}: {error}). Without a network: fetch "
            f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth elsewhere and pass "
            f"weights=FILE, source='timm' (--model.backbone_weights FILE), or a clone of github.com/{HUB} as source"
        ) from error
    raise ValueError(f"unknown source {source!r}: 'hub', 'timm' or the folder of a clone of {HUB} with its hubconf.py")
