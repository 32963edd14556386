"""Backbones against a ViT written out in plain tensor algebra, and against both sources' conventions."""

import hashlib
import json
import textwrap
import urllib.error

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from gazebench.datasets.gazeworld.world import WORLD_VERSION
from gazebench.nn import backbones
from gazebench.nn.backbones import (
    TINY_WEIGHTS,
    ViTBackbone,
    WeightsError,
    build_backbone,
    load_weights,
    position_embedding,
)

# A module with DINOv2's names, down to the unused mask_token, that shares no code with timm.
HUBCONF = textwrap.dedent(
    """
    import torch
    from torch import nn

    dependencies = ["torch"]

    class Scale(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * self.gamma

    class Attention(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

        def forward(self, x):
            b, n, c = x.shape
            q, k, v = (t.reshape(b, n, self.heads, -1).transpose(1, 2) for t in self.qkv(x).split(c, -1))
            weights = (q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5).softmax(-1)
            return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))

    class Mlp(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x):
            return self.fc2(nn.functional.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
            self.attn, self.mlp, self.ls1, self.ls2 = Attention(dim, heads), Mlp(dim), Scale(dim), Scale(dim)

        def forward(self, x):
            x = x + self.ls1(self.attn(self.norm1(x)))
            return x + self.ls2(self.mlp(self.norm2(x)))

    class Patches(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.proj = nn.Conv2d(3, dim, 14, 14)

    class Net(nn.Module):
        def __init__(self, dim=32, depth=2, heads=2, side=7):
            super().__init__()
            self.embed_dim = dim
            self.patch_embed = Patches(dim)
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.randn(1, 1 + side * side, dim))
            self.mask_token = nn.Parameter(torch.zeros(1, dim))
            self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
            self.norm = nn.LayerNorm(dim, eps=1e-6)

    def dinov2_vits14(pretrained=True):
        torch.manual_seed(5 if pretrained else torch.initial_seed())
        return Net()
    """
)


def small_timm() -> VisionTransformer:
    vit = VisionTransformer(98, 14, embed_dim=32, depth=2, num_heads=2, num_classes=0, global_pool="", init_values=1.0)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return vit


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


@pytest.fixture
def vit() -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(small_timm())


def pictures(height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def cubic(distance: np.ndarray) -> np.ndarray:
    d, a = np.abs(distance), -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.where(d <= 1, near, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0))


def resampling(old: int, new: int) -> np.ndarray:
    """(new, old) matrix of bicubic weights under DINOv2's scale (new + 0.1) / old, edges replicated."""
    centre = (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5
    matrix = np.zeros((new, old))
    for offset in range(-1, 3):
        cell = np.floor(centre).astype(int) + offset
        np.add.at(matrix, (np.arange(new), cell.clip(0, old - 1)), cubic(centre - cell))
    return matrix


def reference_positions(table: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    side = int((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    patches = table[0, 1:].double().numpy().reshape(side, side, -1)
    moved = np.einsum("ri,cj,ijd->rcd", resampling(side, rows), resampling(side, columns), patches)
    return torch.cat([table[0, :1], torch.from_numpy(moved).flatten(0, 1).float()])[None]


def reference_features(model: nn.Module, images: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """The ViT in plain algebra: patches by loops, attention per head."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    rows, columns = x.shape[2] // 14, x.shape[3] // 14
    cells = [
        x[:, :, 14 * r : 14 * r + 14, 14 * c : 14 * c + 14].flatten(1) for r in range(rows) for c in range(columns)
    ]
    kernel = weights["patch_embed.proj.weight"].flatten(1)
    tokens = torch.stack(cells, 1) @ kernel.T + weights["patch_embed.proj.bias"]
    tokens = torch.cat([weights["cls_token"].expand(len(x), 1, -1), tokens], 1)
    tokens = tokens + reference_positions(weights["pos_embed"].float(), rows, columns).double()

    def norm(v, name):
        v = (v - v.mean(-1, keepdim=True)) / (v.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return v * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(v, name):
        return v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for i in range(len(model.blocks)):
        q, k, v = linear(norm(tokens, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").chunk(3, -1)
        mixed = [
            ((a @ b.mT) / a.shape[-1] ** 0.5).softmax(-1) @ c
            for a, b, c in zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True)
        ]
        tokens = tokens + linear(torch.cat(mixed, -1), f"blocks.{i}.attn.proj") * weights[f"blocks.{i}.ls1.gamma"]
        hidden = linear(norm(tokens, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        tokens = tokens + linear(hidden, f"blocks.{i}.mlp.fc2") * weights[f"blocks.{i}.ls2.gamma"]
    return norm(tokens, "norm")[:, 1:].reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("height", "width"), [(98, 98), (112, 112), (42, 126)])
def test_features_equal_plain_algebra(vit, height, width):
    images = pictures(height, width)
    features = vit(images)
    assert features.shape == (2, 32, height // 14, width // 14)
    torch.testing.assert_close(features.double(), reference_features(vit.model, images), atol=1e-4, rtol=1e-4)


def test_native_size_equals_timm(vit):
    images = pictures(98, 98)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = vit.model.forward_features(normalised)[:, 1:]
    assert torch.equal(vit(images).flatten(2).mT, expected)


@pytest.mark.parametrize("grid", [(32, 32), (37, 37), (16, 16), (24, 40), (50, 37)])
def test_positions_follow_the_official_rule(grid):
    table = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    ours = position_embedding(table, *grid)
    torch.testing.assert_close(ours, reference_positions(table, *grid), atol=2e-5, rtol=0)
    if grid == (32, 32):  # timm's own rule is another one: the test above can tell
        from timm.layers import resample_abs_pos_embed

        assert (resample_abs_pos_embed(table, list(grid)) - ours).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(98, 98), (112, 112), (42, 126)])
def test_hub_and_timm_are_one_function(hub, vit, size):
    torch.manual_seed(1)
    other = build_backbone("dinov2_vits14", weights="random", source=hub)
    images = pictures(*size)
    assert (other(images) - vit(images)).abs().max() > 0.1
    load_weights(other, vit.model.state_dict())  # timm -> hub
    torch.testing.assert_close(other(images), vit(images), atol=2e-5, rtol=1e-5)
    back = ViTBackbone(small_timm())
    load_weights(back, other.model.state_dict())  # hub -> timm: mask_token has no place there
    assert torch.equal(back(images), vit(images))
    assert back.digest() == other.digest() == vit.digest()


def test_hub_weights_are_asked_for(hub):
    pretrained = build_backbone("dinov2_vits14", source=hub)
    assert pretrained.identity() == {
        "name": "dinov2_vits14",
        "source": str(hub),
        "weights": "pretrained",
        "sha256": pretrained.digest(),
        "compute_dtype": "float32",
    }
    torch.manual_seed(6)
    assert build_backbone("dinov2_vits14", "random", hub).digest() != pretrained.digest()
    assert build_backbone("dinov2_vits14", source=hub).digest() == pretrained.digest()


def test_random_weights_follow_the_global_seed():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(build_backbone("tiny", weights="random").digest())
    assert digests[0] == digests[1] != digests[2]


def test_full_size_timm_matches_the_official_layout():
    backbone = build_backbone("dinov2_vits14", weights="random")
    state = backbone.model.state_dict()
    assert backbone.source == "timm"
    assert len(state) == 174  # the official 175 without mask_token
    assert state["pos_embed"].shape == (1, 1370, 384)
    assert "blocks.11.ls2.gamma" in state
    assert "model.blocks.0.attn.qkv.weight" in backbone.state_dict()
    assert set(backbone.state_dict()) == {f"model.{key}" for key in state}
    assert (backbone.grid(448), backbone.grid((224, 448)), backbone.input_size) == ((32, 32), (16, 32), 448)


def test_file_weights(tmp_path, vit):
    torch.manual_seed(3)
    source = build_backbone("tiny", weights="random")
    file = tmp_path / "w.pt"
    for prefix in ("", "model.", "backbone.model."):
        torch.save({f"{prefix}{key}": value for key, value in source.model.state_dict().items()}, file)
        loaded = build_backbone("tiny", weights=file)
        assert loaded.digest() == source.digest()
    assert loaded.identity()["weights"] == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    state = source.model.state_dict()
    state["extra"] = state.pop("norm.bias")
    with pytest.raises(WeightsError, match=r"missing: norm\.bias; unknown: extra"):
        load_weights(source, state)
    with pytest.raises(WeightsError, match="of another shape"):
        load_weights(vit, {key: value[..., :1] for key, value in vit.model.state_dict().items()})


def test_tiny():
    tiny = build_backbone("tiny", weights="random")
    assert sum(p.numel() for p in tiny.parameters()) * 2 < 6e6
    assert tiny(pictures(224, 224, 1)).shape == (1, 192, 16, 16)
    assert (tiny.embed_dim, tiny.patch_size, tiny.input_size, len(tiny.blocks)) == (192, 14, 224, 6)


def test_shipped_weights_are_those_of_their_card():
    card = json.loads(TINY_WEIGHTS.with_suffix(".json").read_text())
    assert hashlib.sha256(TINY_WEIGHTS.read_bytes()).hexdigest() == card["sha256"]
    assert TINY_WEIGHTS.stat().st_size < 6e6
    assert card["world"] == WORLD_VERSION
    backbone = build_backbone("tiny")
    assert backbone.identity()["weights"] == "embedded"
    assert backbone.digest() != build_backbone("tiny", weights="random").digest()


def test_missing_files_and_networks_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "TINY_WEIGHTS", tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="pretrain_tiny"):
        build_backbone("tiny")
    with pytest.raises(WeightsError, match=r"gone\.pt"):
        build_backbone("tiny", weights=tmp_path / "gone.pt")

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for source in ("hub", "timm"):
        with pytest.raises(WeightsError, match=r"dinov2_vitb14_pretrain\.pth.*weights=FILE") as caught:
            build_backbone("dinov2_vitb14", source=source)
        assert isinstance(caught.value.__cause__, urllib.error.URLError)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'dinov2_vitb14'"):
        build_backbone("dinov2_vitb16")
    with pytest.raises(ValueError, match=r"unknown source 'huub'.*'hub'"):
        build_backbone("dinov2_vitb14", source="huub")
    with pytest.raises(ValueError, match="448 x 448"):
        build_backbone("tiny", weights="random").grid(450)


def test_pieces_make_the_whole(vit):
    images = pictures(112, 98)
    tokens = vit.embed(images)
    assert tokens.shape == (2, vit.prefix_tokens + 8 * 7, 32)
    for block in vit.blocks:
        tokens = block(tokens)
    assert torch.equal(vit.finish(tokens, vit.grid((112, 98))), vit(images))


def test_uint8_and_unit_floats_agree(vit):
    images = pictures(98, 98)
    assert torch.equal(vit(images), vit(images.float() / 255))


def test_frozen_stays_in_eval_until_thawed(vit):
    parent = nn.ModuleDict({"backbone": vit, "head": nn.Dropout()}).train()
    assert parent["head"].training
    assert vit.frozen
    assert not any(module.training for module in vit.modules())
    assert not vit(pictures(98, 98)).requires_grad
    vit.requires_grad_(True).train()
    assert vit.training
    assert all(block.training for block in vit.blocks)
    vit(pictures(98, 98)).sum().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())


def test_bfloat16_is_near_and_returns_float32(vit):
    low = ViTBackbone(vit.model, compute_dtype="bfloat16")
    images = pictures(98, 98)
    exact, rough = vit(images), low(images)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.std()
    assert next(low.parameters()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):  # a trainer's own precision leaves the backbone's alone
        torch.testing.assert_close(vit(images), exact, atol=1e-6, rtol=0)


def test_registers_are_refused():
    with pytest.raises(ValueError, match="register"):
        ViTBackbone(VisionTransformer(28, 14, embed_dim=32, depth=1, num_heads=2, num_classes=0, reg_tokens=4))


def test_vits14_equals_transformers_dinov2():
    """A third, independent implementation of DINOv2, at 448 with the official position embedding handed to it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    ours = build_backbone("dinov2_vits14", weights="random")
    with torch.no_grad():
        for parameter in ours.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=448, patch_size=14)
    theirs = Dinov2Model(config).eval()
    state = ours.model.state_dict()
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": torch.zeros(1, 384),
        "embeddings.position_embeddings": position_embedding(state["pos_embed"], 32, 32),
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for i in range(12):
        here, there = f"blocks.{i}.", f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            parts = state[f"{here}attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                renamed[f"{there}attention.{name}_proj.{kind}"] = part
            for one, other in (
                ("attn.proj", "attention.o_proj"), ("norm1", "norm1"), ("norm2", "norm2"),
                ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
            ):  # fmt: skip
                renamed[f"{there}{other}.{kind}"] = state[f"{here}{one}.{kind}"]
        for j in (1, 2):
            renamed[f"{there}layer_scale{j}.lambda1"] = state[f"{here}ls{j}.gamma"]
    if renamed.keys() != theirs.state_dict().keys():
        pytest.skip("this version of transformers names DINOv2's weights differently")
    theirs.load_state_dict(renamed)
    images = torch.randint(0, 256, (1, 3, 448, 448), dtype=torch.uint8)
    pixels = (images / 255 - ours.image_mean) / ours.image_std
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state[:, 1:].mT.unflatten(2, (32, 32))
        difference = (ours(images) - expected).abs().max()
    assert expected.std() > 0.1
    assert difference < 1e-4, f"largest difference {difference}"
    print(f"largest difference {difference:.2e}")
