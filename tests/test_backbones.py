"""Backbones against transformers, open_clip and a numpy resampling, under the names of every source of weights."""

import json
import re
import urllib.error

import huggingface_hub
import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.types import Batch, Targets
from gazebench.core.weights import WeightsError
from gazebench.datasets.gazeworld.models import TINY2_VIT_WEIGHTS, TINY_VIT_WEIGHTS
from gazebench.datasets.gazeworld.scene import WORLD_VERSION
from gazebench.engine.registry import load_method
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.hclora.adaptation import LocalAdaptation
from gazebench.nn import backbones
from gazebench.nn.backbones import BACKBONES, ViTBackbone, build_backbone, load_weights, position_embedding

SIZES = [(98, 98), (112, 112), (42, 126)]
WIDTH, HEADS, DEPTH, SIDE = 48, 3, 2, 4
OTHERS = [
    "timm:vit_small_patch8_224.dino", "timm:vit_base_patch16_224.mae", "timm:deit3_small_patch16_224.fb_in1k",
    "timm:vit_medium_patch16_gap_256", "timm:eva02_tiny_patch14_224", "timm:vit_pe_spatial_tiny_patch16_512",
    "timm:vit_small_patch16_rope_mixed_224", "timm:vit_huge_patch14_clip_224.laion2b",
]  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Backbones have two narrow blocks and learnt positions for 4 x 4 patches, and are random in every part."""
    create = timm.create_model

    def smaller(name, **options):
        if re.match("beit|vit_tiny_r", name):
            return create(name, **options)
        patch = int(re.search(r"patch(\d+)", name)[1])
        size = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH, "img_size": SIDE * patch}
        model = create(name, **options, **size)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        return model

    torch.manual_seed(0)
    monkeypatch.setattr(timm, "create_model", smaller)


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


# The same model in transformers and open_clip ------------------------------------------------------------------------


def in_transformers(name: str) -> nn.Module:
    """Transformers' own implementation at the size of ``small``, with random weights."""
    patch = int(re.search(r"patch(\d+)", BACKBONES[name].timm)[1])
    size = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "image_size": SIDE * patch,
            "patch_size": patch}  # fmt: skip
    if name.startswith("dinov2"):
        kind = "Dinov2WithRegisters" if "reg" in name else "Dinov2"
        size |= {"use_swiglu_ffn": "vitg" in name, **({"num_register_tokens": 4} if "reg" in name else {})}
    elif name.startswith("dinov3"):
        kind, gated = "DINOv3ViT", "plus" in name
        size |= {"intermediate_size": 4 * WIDTH, "num_register_tokens": 4, "use_gated_mlp": gated,
                 "hidden_act": "silu" if gated else "gelu"}  # fmt: skip
    elif "SigLIP" in name:
        kind = "SiglipVision"
        size |= {"intermediate_size": int(3.7362 * WIDTH) if "SO400M" in name else 4 * WIDTH}
    else:
        kind = "CLIPVision"
        size |= {"intermediate_size": 4 * WIDTH, "hidden_act": "quick_gelu"}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * parameter[0].numel() ** -0.5)
    return model


def as_in_files(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that the published files have, where those of the models in memory are newer."""
    renamed = {}
    for name, value in state.items():
        if "embeddings.position_embeddings" in state:  # DINOv2
            name = re.sub(
                r"attention\.(q|k|v)_proj",
                lambda m: "attention.attention." + {"q": "query", "k": "key", "v": "value"}[m[1]],
                name,
            ).replace("attention.o_proj", "attention.output.dense")
            name = name.replace("mlp.down_proj", "mlp.weights_out")
            if "mlp.gate_proj" in name:
                value = torch.cat([value, state[name.replace("gate", "up")]])
                name = name.replace("gate_proj", "weights_in")
            if "mlp.up_proj" in name:
                continue
        elif "embeddings.register_tokens" in state:  # DINOv3
            name = name.removeprefix("model.")
        else:
            name = f"vision_model.{name}"
        renamed[name] = value
    return renamed


FAMILIES = [
    "dinov2_vits14", "dinov2_vitg14", "dinov2_vits14_reg", "dinov2_vitg14_reg", "dinov3_vits16", "dinov3_vits16plus",
    "ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu", "ViT-B-16-SigLIP2-256", "ViT-SO400M-16-SigLIP2-512",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_transformers_give_transformers_features(small, name):
    theirs, ours = in_transformers(name), build_backbone(name, "random")
    side = SIDE * ours.patch_size
    pixels = (images_of(side, side) / 255 - ours.image_mean) / ours.image_std
    expected = theirs(pixels).last_hidden_state
    if "quickgelu" in name:
        expected = theirs.post_layernorm(expected)  # transformers leaves it to the pooled token
    expected = expected[:, ours.prefix_tokens :].mT.unflatten(2, (SIDE, SIDE))
    for state in (theirs.state_dict(), as_in_files(theirs.state_dict())):
        load_weights(ours, state)
        torch.testing.assert_close(ours(images_of(side, side)), expected, atol=1e-5, rtol=1e-5)
        for parameter in ours.parameters():
            nn.init.zeros_(parameter)


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu", "ViT-B-16-SigLIP2-256"])
def test_weights_of_open_clip_give_open_clips_features(small, monkeypatch, name):
    """All of a CLIP, its text tower too; SigLIP's GELU is the published one, which open_clip does not have."""
    config = open_clip.get_model_config(name)
    patch = int(re.search(r"-(\d+)", name)[1])
    if "SigLIP" in name:
        theirs = timm.create_model(config["vision_cfg"]["timm_model_name"], num_classes=0, act_layer="gelu_tanh")
        state, features = {f"visual.trunk.{key}": value for key, value in theirs.state_dict().items()}, theirs.eval()
        features = features.forward_features
    else:
        vision = {"layers": DEPTH, "width": WIDTH, "head_width": 16, "patch_size": patch, "image_size": SIDE * patch}
        text = {"layers": 1, "width": 16, "heads": 2, "vocab_size": 50, "context_length": 8}
        theirs = open_clip.CLIP(16, vision, text, quick_gelu=True).eval()
        state = theirs.state_dict()

        def features(pixels):
            options = {"indices": 1, "normalize_intermediates": True, "output_fmt": "NLC"}
            return theirs.visual.forward_intermediates(pixels, **options)["image_intermediates"][0]

    ours, side = build_backbone(name, "random"), SIDE * patch
    load_weights(ours, {**state, "logit_scale": torch.ones(())})
    pixels = (images_of(side, side) / 255 - ours.image_mean) / ours.image_std
    expected = features(pixels).mT.unflatten(2, (SIDE, SIDE))
    torch.testing.assert_close(ours(images_of(side, side)), expected, atol=1e-5, rtol=1e-5)
    assert BACKBONES[name].files["open_clip"] == "hf:" + open_clip.pretrained.get_pretrained_cfg(
        name, "webli" if "SigLIP" in name else "openai")["hf_hub"] + "open_clip_model.safetensors"  # fmt: skip


def under_the_names_of_the_hub(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Meta's files, written down from their key maps."""
    state = {**state, "mask_token": torch.zeros(1, WIDTH)}
    if "reg" in name:
        state["pos_embed"] = torch.cat([torch.full((1, 1, WIDTH), 0.25), state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - 0.25
        state["register_tokens"] = state.pop("reg_token")
    renamed = {}
    for key, value in state.items():
        if name.startswith("dinov3"):
            if key.endswith("v_bias"):
                continue
            if key.endswith("q_bias"):  # the file has a bias of keys too, and a mask that takes it away
                masked = torch.full_like(value, 7.0)
                value = torch.cat([value, masked, state[key.replace("q_bias", "v_bias")]])
                renamed[key.replace("q_bias", "qkv.bias_mask")] = torch.ones_like(value)
            for theirs, ours in (("storage_tokens", "reg_token"), ("qkv.bias", "q_bias"), ("w1", "fc1_g"),
                                 ("w2", "fc1_x"), *([("w3", "fc2")] if "plus" in name else [])):  # fmt: skip
                key = key.replace(ours, theirs)
            key = re.sub(r"gamma_(\d)", r"ls\1.gamma", key)
            renamed["rope_embed.periods"] = torch.ones(4)
        elif "vitg" in name:
            key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("dino")])
@pytest.mark.parametrize("prefix", ["", "backbone.dinov3."])
def test_weights_of_the_hub_and_of_a_larger_model(small, name, prefix):
    source, ours = build_backbone(name, "random"), build_backbone(name, "random")
    state = under_the_names_of_the_hub(source.model.state_dict(), name)
    beside = {"head_token": torch.ones(1)} if prefix else {}
    load_weights(ours, {**{f"{prefix}{key}": value for key, value in state.items()}, **beside})
    for key, value in source.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[key], value, atol=1e-6, rtol=0)


def test_dinov3_without_biases_is_dinov3_with_biases_of_zero(small):
    """timm's default files leave them out."""
    ours = build_backbone("dinov3_vits16", "random")
    plain = timm.create_model("vit_small_patch16_dinov3", num_classes=0).eval()
    load_weights(ours, plain.state_dict())
    pixels = (images_of(64, 48) / 255 - ours.image_mean) / ours.image_std
    expected = plain.forward_features(pixels)[:, 5:].mT.unflatten(2, (4, 3))
    torch.testing.assert_close(ours(images_of(64, 48)), expected, atol=1e-5, rtol=1e-5)


def batch(side: int) -> Batch:
    """Two images, four people: two in frame, one outside, one unknown."""
    head = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.4, 0.7, 0.6], [0.3, 0.6, 0.4, 0.8], [0.7, 0.1, 0.9, 0.3]])
    point = torch.tensor([[0.8, 0.2], [0.2, 0.9], [torch.nan] * 2, [torch.nan] * 2])
    targets = Targets(point, torch.tensor([1, 1, 0, -1]), point[:2].double(), torch.tensor([0, 1]))
    owner = torch.tensor([0, 0, 1, 1])
    return Batch(
        images_of(side, side), owner, head, ["a", "b", "c", "d"], ["x", "y"], torch.full((2, 2), side), targets
    )


# Every registered backbone -------------------------------------------------------------------------------------------

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DECLARED = {  # prefix tokens, patch, mean and std, positions
    "dinov2_vit.14": (1, 14, IMAGENET, "learnt"), "dinov2_vit.14_reg": (5, 14, IMAGENET, "learnt"),
    "dinov3_vit.*": (5, 16, IMAGENET, "rotary"), "ViT-.*-16-SigLIP2-.*": (0, 16, HALF, "learnt"),
    "ViT-B-32-quickgelu": (1, 32, CLIP, "learnt"), "ViT-B-16-quickgelu": (1, 16, CLIP, "learnt"),
    "ViT-L-14(-336)?-quickgelu": (1, 14, CLIP, "learnt"),
    "timm:vit_small_patch8_224.dino": (1, 8, IMAGENET, "learnt"),
    "timm:vit_base_patch16_224.mae|timm:deit3.*": (1, 16, IMAGENET, "learnt"),
    "timm:vit_medium_patch16_gap_256": (0, 16, HALF, "learnt"),
    "timm:eva02_tiny_patch14_224": (1, 14, CLIP, "learnt and rotary"),
    "timm:vit_pe_spatial.*": (1, 16, HALF, "learnt and rotary"),
    "timm:vit_small_patch16_rope_mixed_224": (1, 16, IMAGENET, "rotary"),
    "timm:vit_huge_patch14_clip.*": (1, 14, CLIP, "learnt"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*BACKBONES, *OTHERS])
def test_every_backbone_declares_what_it_is_and_has_timms_features(small, name):
    backbone = build_backbone(name, "random")
    (declared,) = (value for pattern, value in DECLARED.items() if re.fullmatch(pattern, name))
    assert (backbone.prefix_tokens, backbone.patch_size, backbone.positions) == (*declared[:2], declared[3])
    for buffer, expected in zip((backbone.image_mean, backbone.image_std), declared[2], strict=True):
        assert buffer.flatten().tolist() == pytest.approx(expected, abs=1e-7)
    assert (backbone.embed_dim, len(backbone.blocks), backbone.frozen) == (WIDTH, DEPTH, True)
    assert backbone.grid(backbone.input_size) == (32, 32)
    sides = (3 * backbone.patch_size, 5 * backbone.patch_size)
    images = images_of(*sides, count=3)
    features = backbone(images)
    assert features.shape == (3, WIDTH, 3, 5)
    if backbone.resampling != "dinov2":  # whose rule is not timm's
        tokens = backbone.model.forward_features((images / 255 - backbone.image_mean) / backbone.image_std)
        expected = tokens[:, backbone.prefix_tokens :].mT.unflatten(2, (3, 5))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    for index in range(3):  # whatever it stands beside
        torch.testing.assert_close(backbone(images[index : index + 1])[0], features[index], atol=1e-5, rtol=1e-5)
    head, owner = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.4, 0.7, 0.6]]), torch.tensor([2, 0])
    encoded = LocalAdaptation(backbone, blocks=1)(backbone, images, head, owner)  # at its start it adds nothing
    torch.testing.assert_close(encoded.features, features[owner], atol=1e-5, rtol=1e-5)
    assert (encoded.prior.shape, encoded.low_rank[0].shape[:2]) == ((2, 15), (2, 15))
    backbone.compute_dtype = "bfloat16"
    assert 0 < (backbone(images) - features).abs().mean() < 0.05 * features.abs().mean()


# At the size of ``small`` the models of a family are one and the same; these are all that differ.
@pytest.mark.parametrize("name", [
    "dinov2_vits14", "dinov2_vitg14_reg", "dinov3_vits16", "dinov3_vits16plus", "ViT-B-16-quickgelu",
    "ViT-B-16-SigLIP2-256", *OTHERS[3:7],
])  # fmt: skip
def test_every_backbone_can_be_adapted_in_all_ways(small, name):
    """Gaze-LLE and HCLoRA run and learn, by the same gradients with checkpointing; the head prior is on their grid."""
    for kind in ("frozen", "full", "vpt", "lora", "hclora"):
        projections = ["qkv", "fc1"] if kind == "hclora" else ["qkv"]
        torch.manual_seed(1)
        options = {
            "backbone": name,
            "backbone_weights": "random",
            "image_size": 0,
            "dim": 16,
            "layers": 1,
            "heads": 2,
            "rank": 2,
            "dropout": 0.0,
            "drop_path": 0.0,
            "adapted_blocks": 0,
            "projections": projections,
        }
        side = SIDE * int(re.search(r"patch(\d+)", backbones.find(name)[1].timm)[1])
        model = HCLoRA(kind, "ooc" if kind == "hclora" else "none", **{**options, "image_size": side}).train()
        with torch.no_grad():
            for part in model.parameters():  # B of LoRA starts at 0
                part.add_(0.05 * torch.randn(part.shape) * part.requires_grad)
        given = batch(side=side)
        gradients = []
        for checkpointing in (False, True):
            model.zero_grad()
            if model.adaptation is not None:
                model.adaptation.checkpointing = checkpointing
            torch.stack(list(model.loss(given).values())).sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
        for one, other in zip(*gradients, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        adapting = [p.grad for n, p in model.adapting().items()]
        assert bool(adapting) == (kind != "frozen")
        assert all(grad.abs().sum() > 0 for grad in adapting)
        encoded = model.encode(given)
        assert encoded.features.shape[2:] == (SIDE, SIDE)
        if kind == "hclora":
            assert encoded.prior.shape == (4, SIDE * SIDE)
            assert all(low.shape == (4, SIDE * SIDE, 2) for low in encoded.low_rank)


def test_rotary_positions_leave_prompts_alone(small):
    """A prompt has no place: with keys of zero it changes nothing but the share of attention that it takes."""
    backbone = build_backbone("dinov3_vits16", "random")
    tokens, rotary = backbone.embed(images_of(32, 48)), backbone.rotary((2, 3))
    prompts = torch.randn(2, 4, WIDTH)
    mixed = torch.cat([tokens[:, :5], prompts, tokens[:, 5:]], dim=1)
    # As further registers, which the block turns as little as the class token:
    block = backbone.blocks[0]
    block.attn.num_prefix_tokens = 9
    expected = block(mixed, rope=rotary)
    block.attn.num_prefix_tokens = 5
    torch.testing.assert_close(backbone.run_block(0, mixed, rotary, 4), expected, atol=1e-6, rtol=1e-5)


# Names, files and messages -------------------------------------------------------------------------------------------


def test_names_of_timm_and_transformers_are_the_same_backbone(small):
    for other, name in (("facebook/dinov2-base", "dinov2_vitb14"), ("timm:vit_base_patch14_dinov2", "dinov2_vitb14"),
                        ("vit_small_patch14_reg4_dinov2.lvd142m", "dinov2_vits14_reg"),
                        ("facebook/dinov3-vith16plus-pretrain-lvd1689m", "dinov3_vith16plus"),
                        ("google/siglip2-so400m-patch16-384", "ViT-SO400M-16-SigLIP2-384"),
                        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336-quickgelu")):  # fmt: skip
        assert build_backbone(other, "random").name == name
    names = [name for known in BACKBONES.values() for name in (known.timm, *known.others)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "layers", "prefix"), [
    ("dinov2_vits14", 12, 1), ("dinov2_vitg14_reg", 40, 5), ("dinov3_vith16plus", 32, 5),
])  # fmt: skip
def test_full_sizes(name, layers, prefix):
    with torch.device("meta"):
        model = backbones.architecture(BACKBONES[name])
    assert (len(model.blocks), model.num_prefix_tokens) == (layers, prefix)
    if name == "dinov2_vits14":
        state = model.state_dict()
        assert len(state) == 174  # the official 175 without mask_token
        assert state["pos_embed"].shape == (1, 1370, 384)
    if "plus" in name or "vitg" in name:
        assert round(sum(p.numel() for p in model.parameters()) / 1e6) == {"dinov2_vitg14_reg": 1136}.get(name, 841)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Empty caches, and no network."""

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.delenv("GAZEBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)


@pytest.mark.parametrize(("name", "source", "match"), [
    ("dinov2_vitb14", None, r"dinov2_vitb14_pretrain\.pth into the folder GAZEBENCH_WEIGHTS"),
    ("dinov2_vitb14", "timm", r"timm/vit_base_patch14_dinov2\.lvd142m/model\.safetensors into"),
    ("dinov3_vits16", None, r"timm/vit_small_patch16_dinov3\.lvd1689m/model\.safetensors into"),
    ("timm:vit_base_patch16_224.mae", None, r"timm/vit_base_patch16_224\.mae/model\.safetensors into"),
])  # fmt: skip
def test_without_a_network_the_message_names_the_file_to_fetch(small, nowhere, name, source, match):
    with pytest.raises(WeightsError, match=match):
        build_backbone(name, source=source)


@pytest.mark.parametrize("place", ["folder", "torch", "hub"])
def test_weights_are_found_wherever_they_are(small, nowhere, monkeypatch, tmp_path, place):
    """In the folder GAZEBENCH_WEIGHTS, in torch.hub's cache, or in the hub's: then nothing is fetched."""
    source = build_backbone("dinov2_vits14", "random")
    official = tmp_path / {"folder": "mine", "torch": "torch/checkpoints", "hub": "snapshot"}[place]
    official.mkdir(parents=True)
    if place == "hub":
        save_file(source.model.state_dict(), official / "model.safetensors")
        monkeypatch.setattr(
            huggingface_hub,
            "try_to_load_from_cache",
            lambda repo, file, revision: str(official / file) if repo.startswith("timm/") else None,
        )
    else:
        torch.save(
            under_the_names_of_the_hub(source.model.state_dict(), "dinov2_vits14"),
            official / "dinov2_vits14_pretrain.pth",
        )
        monkeypatch.setattr(backbones, "named", lambda name: None)
        if place == "folder":
            monkeypatch.setenv("GAZEBENCH_WEIGHTS", str(official))
    found = build_backbone("dinov2_vits14")
    expected = {"name": "dinov2_vits14", "source": "timm" if place == "hub" else "hub", "weights": "pretrained",
                "compute_dtype": "float32", "sha256": source.digest()}  # fmt: skip
    assert found.identity() == expected


def test_a_download_that_is_not_the_published_file_is_refused(small, nowhere, monkeypatch, tmp_path):
    file = tmp_path / "torch" / "checkpoints" / "dinov2_vitb14_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        build_backbone("dinov2_vitb14", source="hub")


def test_weights_from_a_file(tmp_path, vit):
    torch.manual_seed(3)
    source = build_backbone("tiny", weights="random")
    state, file = source.model.state_dict(), tmp_path / "w.pt"
    for prefix in ("", "model.", "backbone.model."):
        torch.save({f"{prefix}{key}": value for key, value in state.items()}, file)
        loaded = build_backbone("tiny", weights=file)
        assert loaded.digest() == source.digest()
    assert loaded.identity()["weights"] == f"sha256:{file_digest(file)}"
    save_file(state, tmp_path / "w.safetensors")
    assert build_backbone("tiny", weights=tmp_path / "w.safetensors").digest() == source.digest()
    renamed = {key.replace("norm.bias", "extra"): value for key, value in state.items()}
    for backbone, given, match in (
        (source, renamed, r"norm\.bias.*extra"),
        (vit, {key: value[..., :1] for key, value in vit.model.state_dict().items()}, "shape.*--model.backbone"),
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


@pytest.mark.parametrize(("name", "weights", "salience"),
                         [("tiny", TINY_VIT_WEIGHTS, True), ("tiny2", TINY2_VIT_WEIGHTS, False)])  # fmt: skip
def test_the_cards_of_the_embedded_backbones_say_what_they_were_taught(name, weights, salience):
    card = json.loads(weights.with_suffix(".json").read_text())
    assert file_digest(weights) == card["sha256"]
    assert weights.stat().st_size < 6e6
    assert card["world"] == WORLD_VERSION
    learnt, _, _ = card["taught"].partition("; ")
    assert ("salient" in learnt) == salience
    assert "gaze" not in learnt
    assert "pixels" in learnt
    backbone = build_backbone(name)
    assert (backbone.weights, sum(p.numel() for p in backbone.parameters())) == ("embedded", 2_832_192)
    assert load_method("hclora").recipe("gazeworld", {"backbone": name})["model.adapted_blocks"].value == 2


def test_mistakes_are_named():
    with pytest.raises(DataError, match="dinov2_vitb14, "):
        build_backbone("dinov2_vitb16")
    with pytest.raises(DataError, match=r"huub.*hub, timm, transformers"):
        build_backbone("dinov2_vitb14", source="huub")
    with pytest.raises(ValueError, match="448 x 448"):
        build_backbone("tiny", weights="random").grid(450)
    for name in ("vit_none", "beit_base_patch16_224", "vit_tiny_r_s16_p8_224"):
        with pytest.raises(DataError, match=name):
            build_backbone(f"timm:{name}", "random")


# Positions, pieces, precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_features_follow_the_official_position_rule(vit, size):
    grid = (size[0] // 14, size[1] // 14)
    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=98)
    theirs = transformers.Dinov2Model(config).eval()
    load_weights(vit, theirs.state_dict())
    theirs.embeddings.interpolate_pos_encoding = lambda *_: reference_positions(vit.model.pos_embed, *grid)
    pixels = (images_of(*size) / 255 - vit.image_mean) / vit.image_std
    expected = theirs(pixels).last_hidden_state[:, 1:].mT.unflatten(2, grid)
    assert vit.grid(size) == grid
    torch.testing.assert_close(vit(images_of(*size)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("grid", [(32, 32), (37, 37), (24, 40), (50, 37)])
def test_positions_follow_the_official_rule(grid):
    table = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    ours = position_embedding(table, *grid)
    torch.testing.assert_close(ours, reference_positions(table, *grid), atol=2e-5, rtol=0)
    if grid == (32, 32):  # timm's rule is another one: the line above can tell
        assert (resample_abs_pos_embed(table, list(grid)) - ours).abs().max() > 1e-2


def test_pieces_make_the_whole_and_pixels_may_be_bytes_or_floats(vit):
    images = images_of(112, 98)
    tokens = vit.embed(images)
    assert tokens.shape == (2, vit.prefix_tokens + 8 * 7, 32)
    for index in range(len(vit.blocks)):
        tokens = vit.run_block(index, tokens, vit.rotary((8, 7)))
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


def test_a_trainers_precision_leaves_the_backbones_alone(vit):
    exact = vit(images_of(98, 98))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(vit(images_of(98, 98)), exact, atol=1e-6, rtol=0)
    vit.compute_dtype = "bfloat16"
    assert vit(images_of(98, 98)).dtype == next(vit.parameters()).dtype == torch.float32
