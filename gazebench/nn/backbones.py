"""ViT backbones by name: DINOv2, DINOv3, SigLIP 2, CLIP, any plain ViT of timm, and those embedded in the package.

The modules are timm's. Embedding and positions are written here, over parts that have the same names in all of timm's
plain ViTs, so that each backbone follows the position rule of its publisher at any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self

import timm
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.known_weights import named, packaged
from gazebench.core.plugins import embedded
from gazebench.core.weights import WeightsError, load_strictly, local_file, present, read_weights
from gazebench.nn.checkpoint_names import to_timm

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
CELLS: Final = 32
"""The usual side of the feature map: 448 pixels with patches of 14, 512 with patches of 16."""

ComputeDtype = Literal["float32", "bfloat16"]
Resampling = Literal["dinov2", "antialiased"]


@dataclass(frozen=True)
class Known:
    """A backbone with a name.

    Attributes:
        timm: name and tag of its architecture in timm, whose configuration has mean and std.
        files: where its weights can be had, by source, the usual one first: an address, or ``hf:repository/file``.
        others: further names that it goes by, those of timm and transformers.
        resampling: how learnt positions are resampled to another grid, see ``position_embedding``.
        options: what its publisher's model has and timm's default has not.
    """

    timm: str
    files: Mapping[str, str]
    others: tuple[str, ...] = ()
    resampling: Resampling = "antialiased"
    options: Mapping[str, Any] = field(default_factory=dict)


def _known() -> Iterator[tuple[str, Known]]:
    for letter, size in {"s": "small", "b": "base", "l": "large", "g": "giant"}.items():
        for hub, reg, repo in (("", "", ""), ("_reg", "_reg4", "-with-registers")):
            arch, name, theirs = f"vit_{size}_patch14{reg}_dinov2", f"dinov2_vit{letter}14", f"dinov2{repo}-{size}"
            files = {
                "hub": f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}{reg}_pretrain.pth",
                "timm": f"hf:timm/{arch}.lvd142m/model.safetensors",
                "transformers": f"hf:facebook/{theirs}/model.safetensors",
            }
            rule: Resampling = "antialiased" if reg else "dinov2"
            yield f"{name}{hub}", Known(f"{arch}.lvd142m", files, (arch, f"facebook/{theirs}"), rule)
    for short, arch, digits in (
        ("vits16", "vit_small_patch16_dinov3", "08c60483"), ("vits16plus", "vit_small_plus_patch16_dinov3", "4057cbaa"),
        ("vitb16", "vit_base_patch16_dinov3", "73cec8be"), ("vitl16", "vit_large_patch16_dinov3", "8aa4cbdd"),
        ("vith16plus", "vit_huge_plus_patch16_dinov3", "7c1da9a5"),
    ):  # fmt: skip
        name, theirs = f"dinov3_{short}", f"facebook/dinov3-{short}-pretrain-lvd1689m"
        # Of timm's two variants the one with biases: they are zero in these files, but not after fine-tuning.
        # timm's copy first: the others are open only to those who accepted the licence.
        files = {
            "timm": f"hf:timm/{arch}.lvd1689m/model.safetensors",
            "hub": f"https://dl.fbaipublicfiles.com/dinov3/{name}/{name}_pretrain_lvd1689m-{digits}.pth",
            "transformers": f"hf:{theirs}/model.safetensors",
        }
        yield name, Known(f"{arch}_qkvb.lvd1689m", files, (arch, f"{arch}_qkvb", theirs))
    for name, arch, theirs in (
        ("ViT-B-32-quickgelu", "vit_base_patch32_clip_{}224.openai", "clip-vit-base-patch32"),
        ("ViT-B-16-quickgelu", "vit_base_patch16_clip_{}224.openai", "clip-vit-base-patch16"),
        ("ViT-L-14-quickgelu", "vit_large_patch14_clip_{}224.openai", "clip-vit-large-patch14"),
        ("ViT-L-14-336-quickgelu", "vit_large_patch14_clip_{}336.openai", "clip-vit-large-patch14-336"),
    ):
        quick = arch.format("quickgelu_")
        (openai,) = (entry.source for entry in packaged() if entry.clip == (name,) and "openaipublic" in entry.source)
        files = {
            "open_clip": f"hf:timm/{arch.format('')}/open_clip_model.safetensors",
            "openai": openai,
            "transformers": f"hf:openai/{theirs}/model.safetensors",
        }
        yield name, Known(quick, files, (quick.partition(".")[0], f"openai/{theirs}"))
    for letter, size in {"B": "base", "L": "large", "SO400M": "so400m"}.items():
        for side in (256, 384, 512):
            arch, name = f"vit_{size}_patch16_siglip_{side}", f"ViT-{letter}-16-SigLIP2-{side}"
            theirs = f"google/siglip2-{size}-patch16-{side}"
            files = {
                "open_clip": f"hf:timm/{name}/open_clip_model.safetensors",
                "transformers": f"hf:{theirs}/model.safetensors",
            }
            # The published model has the approximate GELU; timm, and with it open_clip, has the exact one in B and L.
            options = {"act_layer": "gelu_tanh"}
            yield name, Known(f"{arch}.v2_webli", files, (arch, theirs), options=options)


BACKBONES: Final = dict(_known())
"""By the names of torch.hub (DINOv2, DINOv3) and open_clip (CLIP, SigLIP 2)."""


class ViTBackbone(nn.Module):
    """A plain ViT as a feature extractor: (B, 3, H, W) uint8, or float in [0, 1] -> (B, C, H/p, W/p) float32.

    Normalisation happens inside. ``forward`` is ``tokens``, ``finish``; a method that treats some blocks differently
    calls ``tokens`` for those before them, then ``run_block``, under ``autocast``. All parameters are frozen at first.
    A frozen backbone stays in eval mode whatever ``train()`` says; ``requires_grad_()`` makes it trainable.

    Args:
        model: a ``VisionTransformer`` or ``Eva`` of timm.
        name: its name in results.
        source: the origin of its weights, by the names of ``Known.files``; ``timm`` for those of files.
        weights: ``pretrained``, ``embedded``, ``random`` or ``sha256:`` of a file.
        compute_dtype: ``bfloat16`` runs embedding and blocks under autocast; parameters and output stay float32.
        input_size: the usual side of a square input, in pixels; 0: ``CELLS`` patches.
        mean: of its normalisation, by channel.
        std: of its normalisation.
        resampling: see ``position_embedding``.

    Attributes:
        embed_dim: C.
        patch_size: p; the sides of images are multiples of it.
        prefix_tokens: how many tokens (class, registers) stand before those of the patches.
        positions: ``learnt``, ``rotary``, or both.

    Raises:
        ValueError: the model is no such ViT.
    """

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
        input_size: int = 0,
        mean: tuple[float, ...] = IMAGE_MEAN,
        std: tuple[float, ...] = IMAGE_STD,
        resampling: Resampling = "dinov2",
    ) -> None:
        super().__init__()
        if type(model) not in (VisionTransformer, Eva) or type(model.patch_embed) is not PatchEmbed:
            raise ValueError(
                f"{name} is no plain ViT with a grid of patches: "
                "give a timm model whose class is VisionTransformer or Eva, with timm's PatchEmbed"
            )
        self.model = model
        self.name, self.source, self.weights, self.compute_dtype = name, source, weights, compute_dtype
        self.embed_dim = int(self.model.embed_dim)
        self.patch_size = int(self.model.patch_embed.proj.kernel_size[0])
        self.input_size = input_size or CELLS * self.patch_size
        self.prefix_tokens = int(self.model.num_prefix_tokens)
        self.resampling: Resampling = resampling
        kinds = {"learnt": self.model.pos_embed is not None, "rotary": getattr(model, "rope", None) is not None}
        self.positions = " and ".join(kind for kind, has in kinds.items() if has)
        for attention in (getattr(block, "attn", None) for block in self.blocks):
            if hasattr(attention, "qkv_bias_separate"):  # else timm reads the projection's weights and never calls it
                setattr(attention, "qkv_bias_separate", True)  # noqa: B010  (unknown to nn.Module's types)
        # Not persistent: the state dict holds timm's names and nothing else.
        self.register_buffer("image_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(std).view(3, 1, 1), persistent=False)
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
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, prefix + h w, C): tokens with their learnt positions."""
        model, grid = self.model, self.grid((images.shape[-2], images.shape[-1]))
        pixels = images / 255 if images.dtype == torch.uint8 else images
        patches = model.patch_embed.proj((pixels.float() - self.image_mean) / self.image_std)  # (B, C, h, w)
        patches, table = model.patch_embed.norm(patches.flatten(2).mT), model.pos_embed
        prefix = [
            token.expand(len(images), -1, -1) for token in (model.cls_token, model.reg_token) if token is not None
        ]
        if table is None:
            tokens = torch.cat([*prefix, patches], dim=1)
        elif model.no_embed_class:
            tokens = torch.cat([*prefix, patches + position_embedding(table, *grid, 0, self.resampling)], dim=1)
        else:
            positions = position_embedding(table, *grid, self.prefix_tokens, self.resampling)
            tokens = torch.cat([*prefix, patches], dim=1) + positions
        return model.norm_pre(tokens)

    def rotary(self, grid: tuple[int, int]) -> Tensor | None:
        """The rotary positions of a grid as timm's blocks take them, the next to last axis h w; None without any."""
        rope = getattr(self.model, "rope", None)
        return None if rope is None else rope.get_embed(shape=list(grid))

    def run_block(self, index: int, tokens: Tensor, rotary: Tensor | None, prompts: int = 0) -> Tensor:
        """One block, (B, prefix + prompts + h w, C) -> the same.

        Args:
            index: of the block.
            tokens: its input.
            rotary: what ``rotary`` gave for the grid.
            prompts: tokens between prefix and patches that belong to no place.
        """
        if rotary is None:
            return self.blocks[index](tokens)
        if self.model.rope_mixed:
            rotary = rotary[index]  # every block has its own
        if prompts:  # turned by no angle: sines of 0, cosines of 1
            sine, cosine = rotary.chunk(2, dim=-1)
            sine, cosine = F.pad(sine, (0, 0, prompts, 0)), F.pad(cosine, (0, 0, prompts, 0), value=1.0)
            rotary = torch.cat([sine, cosine], dim=-1)
        return self.blocks[index](tokens, rope=rotary)

    def tokens(self, images: Tensor, blocks: int | None = None) -> Tensor:
        """``embed`` and the first ``blocks`` blocks (None: all)."""
        tokens = self.embed(images)
        rotary = self.rotary(self.grid((images.shape[-2], images.shape[-1])))
        for index in range(len(self.blocks) if blocks is None else blocks):
            tokens = self.run_block(index, tokens, rotary)
        return tokens

    def finish(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, prefix + h w, C) -> (B, C, h, w) float32: the final norm; the prefix is dropped."""
        patches = self.model.norm(tokens)[:, self.prefix_tokens :].float()  # (B, h w, C)
        return patches.mT.unflatten(2, grid)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, C, h, w) float32."""
        grid = self.grid((images.shape[-2], images.shape[-1]))
        with self.autocast():
            return self.finish(self.tokens(images), grid)

    def weights_before(self, block: int | None = None) -> dict[str, Any]:
        """The tensors that ``tokens`` of so many blocks reads, by timm's names; None: all."""
        depth = len(self.blocks)
        later = () if block is None else ("norm.", *(f"blocks.{index}." for index in range(block, depth)))
        every = self.model.state_dict(keep_vars=True).items()
        return {name: value for name, value in every if not name.startswith(later)}

    def digest(self, block: int | None = None) -> str:
        """16 hex digits of the sha256 of ``weights_before`` with timm's names, whatever file they are from."""
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


def position_embedding(
    table: Tensor, rows: int, columns: int, prefix: int = 1, resampling: Resampling = "dinov2"
) -> Tensor:
    """The position embedding (1, prefix + n n, C) resampled to a grid: (1, prefix + rows * columns, C).

    ``dinov2`` is the rule of DINOv2 without registers: bicubic without antialiasing, where the scale factor
    (rows + 0.1) / n enters the coordinates. ``antialiased`` is timm's, and that of DINOv2 with registers. They differ
    by up to 0.1 in features.
    """
    side = round((table.shape[1] - prefix) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    if resampling == "antialiased":
        return resample_abs_pos_embed(table, [rows, columns], num_prefix_tokens=prefix)
    patches = table[:, prefix:].float().mT.unflatten(2, (side, side))
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resampled = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :prefix], resampled.flatten(2).mT.to(table.dtype)], dim=1)


def load_weights(backbone: ViTBackbone, state: Mapping[str, Tensor]) -> None:
    """Fills a backbone from weights under the names of torch.hub, transformers, open_clip or timm, with any prefix.

    Raises:
        WeightsError: the weights do not fit.
    """
    remedy = "--model.backbone must be the model that the weights belong to"
    load_strictly(backbone.model, to_timm(state, backbone.model), what=backbone.name, remedy=remedy)


def find(name: str) -> tuple[str, Known]:
    """A backbone by its name here, in timm or in transformers, and any plain ViT of timm by ``timm:NAME``.

    Returns:
        Its name in results, and where it is.

    Raises:
        DataError: there is none; the message lists all.
    """
    if name in BACKBONES:
        return name, BACKBONES[name]
    for ours, known in BACKBONES.items():
        if name.removeprefix("timm:").removeprefix("hf:") in (*known.others, known.timm):
            return ours, known
    if name.startswith("timm:"):
        arch = name.removeprefix("timm:")
        config = timm.get_pretrained_cfg(arch) if timm.is_model(arch) else None
        if config is None:
            raise DataError(f"timm has no model {arch!r}; timm.list_models('vit_*', pretrained=True) has its ViTs")
        hub = f"hf:{config.hf_hub_id}/{config.hf_hub_filename or 'model.safetensors'}" if config.hf_hub_id else ""
        return name, Known(arch, {"timm": str(hub or config.url)} if hub or config.url else {})
    raise DataError(
        f"unknown backbone {name!r}: known are {', '.join([*BACKBONES, *embedded('BACKBONES')])}, their names in timm "
        "and transformers, and timm:NAME for any plain ViT of timm"
    )


def architecture(known: Known) -> Any:
    """The model with random weights and without anything after its last norm."""
    try:
        model: Any = timm.create_model(known.timm, num_classes=0, dynamic_img_size=True, **known.options)
    except TypeError as error:
        raise DataError(f"timm:{known.timm} is no plain ViT: it takes no images of other sizes ({error})") from error
    model.attn_pool, model.fc_norm = None, nn.Identity()
    for name, parameter in model.named_parameters():
        if "gamma" in name:  # the scales of layers; initial ones of 1e-5 would make random blocks identities
            nn.init.ones_(parameter)
    return model


@cache
def depth(name: str) -> int:
    """How many blocks a backbone has; 0 for an embedded one, which would have to be built to know."""
    if name in embedded("BACKBONES"):
        return 0
    with torch.device("meta"):
        return len(architecture(find(name)[1]).blocks)


def build_backbone(
    name: str,
    weights: str | Path = "pretrained",
    source: str | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> ViTBackbone:
    """Builds a frozen backbone.

    Args:
        name: one of ``BACKBONES`` or its name in timm or transformers, ``timm:NAME`` for any other plain ViT of timm,
            or an embedded one such as ``tiny``.
        weights: ``pretrained`` (embedded backbones: the file they come with), ``random`` (drawn from torch's global
            seed), or a file or address of a state dict.
        source: where pretrained weights come from, one of the backbone's ``Known.files``. Default: the first of them
            that is on this machine, else the first.
        compute_dtype: see ``ViTBackbone``.

    Raises:
        DataError: unknown name or source, or no plain ViT.
        WeightsError: the weights are missing, cannot be downloaded or do not fit.
    """
    builders, origin = embedded("BACKBONES"), str(weights)
    file = None if weights in ("pretrained", "random") else local_file(weights)
    if file is not None:
        origin = f"sha256:{file_digest(file)}"
    if name in builders:
        model, shipped, side = builders[name]()
        if weights == "pretrained":
            file, origin = local_file(shipped), "embedded"
        backbone = ViTBackbone(model, name, "gazebench", origin, compute_dtype, side)
    else:
        name, known = find(name)
        if source is not None and source not in known.files:
            raise DataError(f"unknown source {source!r} of {name}: give one of {', '.join(known.files)}")
        if weights == "pretrained":
            source, file = _pretrained(name, known, source)
        model = architecture(known)
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        try:
            backbone = ViTBackbone(model, name, source or "timm", origin, compute_dtype, 0, mean, std, known.resampling)
        except ValueError as error:
            raise DataError(str(error)) from error
    if file is not None:
        load_weights(backbone, read_weights(file))
    return backbone


def _pretrained(name: str, known: Known, source: str | None) -> tuple[str, Path]:
    """The source and the file of the published weights, downloaded where it is not there yet.

    Raises:
        WeightsError: it is not there and cannot be downloaded, or it is not its publisher's file.
    """
    files = {source: known.files[source]} if source else known.files
    if not files:
        raise WeightsError(f"timm has no weights of {name}: give a file as --model.backbone_weights FILE, or 'random'")
    here = next((source for source, place in files.items() if present(place)), next(iter(files)))
    try:
        file = local_file(files[here])
    except WeightsError as error:
        others = ", ".join(place for place in known.files.values() if place != files[here])
        raise WeightsError(
            f"the weights of {name}: {error}" + (f" (other copies: {others})" if others else "")
        ) from error
    entry = named(file.name)
    if entry is not None and not file_digest(file).startswith(entry.sha256):
        raise WeightsError(f"{file} is not the file of {entry.source}: delete it, so that it is fetched again")
    return here, file
