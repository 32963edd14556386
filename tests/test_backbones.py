"""Backbones against transformers' DINOv2, a numpy resampling, and both sources' conventions."""

import json
import re
import urllib.error

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.weights import WeightsError
from gazebench.datasets.gazeworld.models import TINY_VIT_WEIGHTS
from gazebench.datasets.gazeworld.scene import WORLD_VERSION
from gazebench.nn.backbones import ViTBackbone, build_backbone, load_weights, position_embedding

SIZES = [(98, 98), (112, 112), (42, 126)]
NAMES_IN_TRANSFORMERS = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "^norm": "layernorm",
    "blocks": "encoder.layer",
    "attn.proj": "attention.o_proj",
    "attn": "attention",
    r"ls(\d).gamma": r"layer_scale\1.lambda1",
}
HUBCONF = """
import torch
from timm.models.vision_transformer import VisionTransformer

dependencies = ["torch"]

def dinov2_vits14(pretrained=True):
    torch.manual_seed(5 if pretrained else torch.initial_seed())
    net = VisionTransformer(98, 14, embed_dim=32, depth=2, num_heads=2, num_classes=0, init_values=1.0)
    net.mask_token = torch.nn.Parameter(torch.zeros(1, 32))  # only the hub's module has it
    return net
"""


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


@pytest.fixture
def vit() -> ViTBackbone:
    torch.manual_seed(0)
    model = VisionTransformer(
        98, 14, embed_dim=32, depth=2, num_heads=2, num_classes=0, global_pool="", init_values=1.0
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return ViTBackbone(model)


def images_of(height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def resampling(old: int, new: int) -> np.ndarray:
    """(new, old) matrix of bicubic weights under DINOv2's scale (new + 0.1) / old, edges replicated."""
    a, centre, matrix = -0.75, (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5, np.zeros((new, old))
    for offset in range(-1, 3):
        cell = np.floor(centre).astype(int) + offset
        d = np.abs(centre - cell)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        np.add.at(matrix, (np.arange(new), cell.clip(0, old - 1)), np.where(d <= 1, near, np.where(d < 2, far, 0)))
    return matrix


def reference_positions(table: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    side = int((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    patches = table[0, 1:].double().numpy().reshape(side, side, -1)
    moved = np.einsum("ri,cj,ijd->rcd", resampling(side, rows), resampling(side, columns), patches)
    return torch.cat([table[0, :1], torch.from_numpy(moved).flatten(0, 1).float()])[None]


def transformers_dinov2(state: dict[str, torch.Tensor]) -> Dinov2Model:
    """An independent implementation of DINOv2, with our weights under its names."""
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=98, patch_size=14)
    renamed = {"embeddings.mask_token": torch.zeros(1, 32)}
    for key, value in state.items():
        for pattern, name in NAMES_IN_TRANSFORMERS.items():
            key = re.sub(pattern, name, key)
        parts = zip("qkv", value.chunk(3), strict=True) if ".qkv." in key else [("", value)]
        renamed |= {key.replace(".qkv.", f".{letter}_proj."): part for letter, part in parts}
    model = Dinov2Model(config).eval()
    model.load_state_dict(renamed)
    return model


@pytest.mark.parametrize("size", SIZES)
def test_features_equal_an_independent_implementation(vit, size):
    images, grid = images_of(*size), (size[0] // 14, size[1] // 14)
    theirs = transformers_dinov2(vit.model.state_dict())
    theirs.embeddings.interpolate_pos_encoding = lambda *_: reference_positions(vit.model.pos_embed, *grid)
    expected = theirs(pixels_of(images)).last_hidden_state[:, 1:].mT.unflatten(2, grid)
    assert vit.grid(size) == grid
    torch.testing.assert_close(vit(images), expected, atol=1e-4, rtol=1e-4)
    if size == (98, 98):
        native = vit.model.forward_features(pixels_of(images))[:, 1:]
        torch.testing.assert_close(vit(images).flatten(2).mT, native, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(32, 32), (37, 37), (24, 40), (50, 37)])
def test_positions_follow_the_official_rule(grid):
    table = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    ours = position_embedding(table, *grid)
    torch.testing.assert_close(ours, reference_positions(table, *grid), atol=2e-5, rtol=0)
    if grid == (32, 32):  # timm's rule is another one: the line above can tell
        assert (resample_abs_pos_embed(table, list(grid)) - ours).abs().max() > 1e-2


def test_weights_go_from_timm_to_the_hub_and_back(hub, vit):
    torch.manual_seed(1)
    other, back = (build_backbone("dinov2_vits14", weights="random", source=hub) for _ in range(2))
    del back.model.mask_token
    assert other.digest() != vit.digest()
    load_weights(other, vit.model.state_dict())
    load_weights(back, other.model.state_dict())
    for size in SIZES:
        torch.testing.assert_close(other(images_of(*size)), vit(images_of(*size)), atol=2e-5, rtol=1e-5)
    assert back.digest() == other.digest() == vit.digest()
    pretrained, again = (build_backbone("dinov2_vits14", source=hub) for _ in range(2))
    expected = {"name": "dinov2_vits14", "source": str(hub), "weights": "pretrained", "compute_dtype": "float32"}
    assert pretrained.identity() == again.identity() == {**expected, "sha256": pretrained.digest()}
    assert pretrained.digest() != other.digest()


def test_the_full_size_has_the_official_layout():
    backbone = build_backbone("dinov2_vits14", weights="random")
    state = backbone.model.state_dict()
    assert backbone.source == "timm"
    assert len(state) == 174  # the official 175 without mask_token
    assert state["pos_embed"].shape == (1, 1370, 384)
    assert "blocks.11.ls2.gamma" in state
    assert set(backbone.state_dict()) == {f"model.{key}" for key in state}
    assert (backbone.grid(448), backbone.grid((224, 448)), backbone.input_size) == ((32, 32), (16, 32), 448)


def test_weights_from_a_file(tmp_path, vit):
    torch.manual_seed(3)
    source = build_backbone("tiny", weights="random")
    state, file = source.model.state_dict(), tmp_path / "w.pt"
    for prefix in ("", "model.", "backbone.model."):
        torch.save({f"{prefix}{key}": value for key, value in state.items()}, file)
        loaded = build_backbone("tiny", weights=file)
        assert loaded.digest() == source.digest()
    assert loaded.identity()["weights"] == f"sha256:{file_digest(file)}"
    renamed = {key.replace("norm.bias", "extra"): value for key, value in state.items()}
    for backbone, given, match in (
        (source, renamed, r"norm\.bias.*extra"),
        (vit, {key: value[..., :1] for key, value in vit.model.state_dict().items()}, "shape"),
    ):
        with pytest.raises(WeightsError, match=match):
            load_weights(backbone, given)
    with pytest.raises(WeightsError, match=r"gone\.pt"):
        build_backbone("tiny", weights=tmp_path / "gone.pt")


def test_tiny():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(build_backbone("tiny", weights="random").digest())
    assert digests[0] == digests[1] != digests[2]
    tiny = build_backbone("tiny")
    assert tiny.digest() == "c9606a324ea4d5e8"
    assert (tiny.source, tiny.weights) == ("gazebench", "embedded")
    assert tiny(images_of(224, 224, 1)).shape == (1, 192, 16, 16)
    assert (tiny.embed_dim, tiny.patch_size, tiny.input_size, len(tiny.blocks)) == (192, 14, 224, 6)
    card = json.loads(TINY_VIT_WEIGHTS.with_suffix(".json").read_text())
    assert file_digest(TINY_VIT_WEIGHTS) == card["sha256"]
    assert TINY_VIT_WEIGHTS.stat().st_size < 6e6
    assert card["world"] == WORLD_VERSION


@pytest.mark.parametrize("source", ["hub", "timm"])
def test_without_a_network_the_message_names_the_file_to_fetch(monkeypatch, source):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"dinov2_vitb14_pretrain\.pth"):
        build_backbone("dinov2_vitb14", source=source)


def test_a_download_that_is_not_the_published_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load", lambda *args, **kwargs: VisionTransformer(28, 14, depth=1))
    assert build_backbone("dinov2_vitb14", source="hub").weights == "pretrained"  # another folder keeps the file
    file = tmp_path / "checkpoints" / "dinov2_vitb14_pretrain.pth"
    file.parent.mkdir()
    file.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        build_backbone("dinov2_vitb14", source="hub")


def test_mistakes_are_named():
    with pytest.raises(DataError, match="dinov2_vitb14, "):
        build_backbone("dinov2_vitb16")
    with pytest.raises(DataError, match="huub"):
        build_backbone("dinov2_vitb14", source="huub")
    with pytest.raises(ValueError, match="448 x 448"):
        build_backbone("tiny", weights="random").grid(450)
    with pytest.raises(ValueError, match="register"):
        ViTBackbone(VisionTransformer(28, 14, embed_dim=32, depth=1, num_heads=2, num_classes=0, reg_tokens=4))


def test_pieces_make_the_whole_and_pixels_may_be_bytes_or_floats(vit):
    images = images_of(112, 98)
    tokens = vit.embed(images)
    assert tokens.shape == (2, vit.prefix_tokens + 8 * 7, 32)
    for block in vit.blocks:
        tokens = block(tokens)
    assert torch.equal(vit.finish(tokens, vit.grid((112, 98))), vit(images))
    assert torch.equal(vit(images), vit(images.float() / 255))


def test_frozen_stays_in_eval_until_thawed(vit):
    parent = nn.ModuleDict({"backbone": vit, "head": nn.Dropout()}).train()
    assert parent["head"].training
    assert vit.frozen
    assert not any(module.training for module in vit.modules())
    assert not vit(images_of(98, 98)).requires_grad
    vit.requires_grad_(True).train()
    assert all(module.training for module in vit.modules())
    vit(images_of(98, 98)).sum().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())


def test_bfloat16_is_near_and_returns_float32(vit):
    low = ViTBackbone(vit.model, compute_dtype="bfloat16")
    images = images_of(98, 98)
    exact, rough = vit(images), low(images)
    assert rough.dtype == next(low.parameters()).dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.std()
    with torch.autocast("cpu", torch.bfloat16):  # a trainer's own precision leaves the backbone's alone
        torch.testing.assert_close(vit(images), exact, atol=1e-6, rtol=0)
