"""Adapted backbones: the equations against loops, exactness at the start, locality, gradients, shared blocks."""

import copy
import math

import pytest
import torch
from torch import nn

from gazebench.methods.hclora.adaptation import (
    PROJECTIONS,
    FullFineTuning,
    HeadConditionedLoRA,
    LocalAdaptation,
    PlainLoRA,
    PromptTuning,
    chosen_blocks,
    head_prior,
)
from gazebench.nn.backbones import build_backbone

GRID = (8, 8)
SIDE = 14 * GRID[0]
HEADS = torch.tensor([[0.1, 0.1, 0.3, 0.35], [0.6, 0.5, 0.8, 0.9], [0.4, 0.1, 0.6, 0.3]])
OWNER = torch.tensor([0, 0, 1])


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_backbone("tiny", "random")


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def moved(module: nn.Module, size: float = 0.3) -> None:
    """Leaves the initial values: B is 0 there."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def test_prior_is_equation_3():
    prior = head_prior(HEADS, (6, 10), scale=0.5)
    for person, (x0, y0, x1, y1) in enumerate(HEADS.tolist()):
        for v in range(6):
            for u in range(10):
                cx, cy, sx, sy = (x0 + x1) * 5, (y0 + y1) * 3, (x1 - x0) * 10, (y1 - y0) * 6
                sx, sy = 0.5 * max(sx, 1), 0.5 * max(sy, 1)
                expected = math.exp(
                    -((u + 0.5 - cx) ** 2) / (2 * sx**2 + 1e-6) - (v + 0.5 - cy) ** 2 / (2 * sy**2 + 1e-6)
                )
                assert prior[person, v, u].item() == pytest.approx(expected, abs=1e-5)


def test_a_missing_box_has_an_empty_prior_and_no_effect(backbone, images):
    head = torch.full((3, 4), torch.nan)
    assert not head_prior(head, GRID).any()
    adapted = LocalAdaptation(backbone)
    moved(adapted)
    encoded = adapted.eval()(backbone, images, head, OWNER)
    assert torch.equal(encoded.features, backbone(images)[OWNER])


def test_update_is_equation_2():
    torch.manual_seed(0)
    residual = HeadConditionedLoRA(12, 7, rank=4, alpha=8.0)
    moved(residual)
    x, prior = torch.randn(2, 5, 12), torch.rand(2, 5)
    update, low = residual(x, prior)
    a, b = residual.down.weight.T, residual.up.weight.T
    for person in range(2):
        for token in range(5):
            height = prior[person, token]
            modulation = height * 2 * torch.sigmoid(residual.gate(height[None]))
            expected = 8.0 / 4 * ((x[person, token] @ a) * modulation) @ b
            assert torch.allclose(update[person, token], expected, atol=1e-5)
            assert torch.allclose(low[person, token], x[person, token] @ a, atol=1e-5)
    assert residual.modulation(prior).shape == (2, 5, 4)


@pytest.mark.parametrize("projections", [["qkv"], ["qkv", "proj", "fc1", "fc2"]])
@pytest.mark.parametrize("make", [LocalAdaptation, PlainLoRA])
def test_nothing_changes_at_first_bit_for_bit(backbone, images, projections, make):
    before = backbone(images)
    adapted = make(backbone, projections, blocks=2)
    encoded = adapted(backbone, images, HEADS, OWNER)
    features = encoded.features if encoded.owner is None else encoded.features[encoded.owner]
    assert torch.equal(features, before[OWNER])


def test_full_fine_tuning_starts_at_the_frozen_features(backbone, images):
    before = backbone(images)
    encoded = FullFineTuning(backbone)(backbone, images, HEADS, OWNER)
    assert torch.equal(encoded.features, before)
    assert torch.equal(encoded.owner, OWNER)


def test_the_update_vanishes_far_from_the_head(backbone):
    residual = HeadConditionedLoRA(12, 12, rank=4, alpha=8.0)
    moved(residual, 1.0)
    prior = head_prior(torch.tensor([[0.0, 0.0, 0.1, 0.1]]), (32, 32)).flatten(1)
    update, _ = residual(torch.randn(1, 1024, 12), prior)
    size = update.norm(dim=-1).view(32, 32)
    assert size[:3, :3].max() > 0.1
    assert size[16:, :].max() < 1e-12
    assert size[:, 16:].max() < 1e-12


def test_prefix_tokens_get_no_update(backbone, images):
    adapted = LocalAdaptation(backbone, ["fc2"], blocks=[5]).eval()  # after attention: no way back to the class token
    moved(adapted)
    seen = []
    backbone.model.norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0][:, 0]))
    backbone(images)
    adapted(backbone, images, HEADS, OWNER)
    assert torch.equal(seen[0][OWNER], seen[1])


def test_people_get_features_of_their_own_the_same_as_alone(backbone, images):
    adapted = LocalAdaptation(backbone, blocks=3).eval()
    moved(adapted)
    together = adapted(backbone, images, HEADS, OWNER)
    assert together.owner is None
    assert (together.features[0] - together.features[1]).abs().max() > 1e-2
    for person in range(3):
        alone = adapted(backbone, images[OWNER[person]][None], HEADS[person][None], torch.zeros(1, dtype=torch.long))
        assert torch.allclose(alone.features[0], together.features[person], atol=1e-5)
        assert torch.allclose(alone.low[-1][0], together.low[-1][person], atol=1e-5)


def naive(backbone, adapted, images):
    """The whole backbone once a person, blocks written out, from the equations."""
    prior = torch.cat([torch.zeros(3, 1), head_prior(HEADS, GRID).flatten(1)], dim=1)
    features = []
    for person in range(3):
        tokens = backbone.embed(images[OWNER[person]][None])
        for index, block in enumerate(backbone.blocks):

            def projected(name, x, block=block, index=index, person=person):
                y = block.get_submodule(PROJECTIONS[name])(x)
                key = f"{index}_{name}"
                return y + adapted.residuals[key](x, prior[person][None])[0] if key in adapted.residuals else y

            n, c, heads = tokens.shape[1], tokens.shape[2], block.attn.num_heads
            q, k, v = projected("qkv", block.norm1(tokens)).view(1, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
            weights = (q @ k.mT * (c // heads) ** -0.5).softmax(-1)
            tokens = tokens + projected("proj", (weights @ v).transpose(1, 2).reshape(1, n, c))
            tokens = tokens + projected("fc2", nn.functional.gelu(projected("fc1", block.norm2(tokens))))
        features.append(backbone.finish(tokens, GRID))
    return torch.cat(features)


@pytest.mark.parametrize(("projections", "blocks"), [(["qkv"], 2), (["qkv", "proj", "fc1", "fc2"], [1, 4])])
def test_shared_blocks_change_nothing(backbone, images, projections, blocks):
    adapted = LocalAdaptation(backbone, projections, blocks=blocks).eval()
    moved(adapted, 0.1)
    encoded = adapted(backbone, images, HEADS, OWNER)
    assert torch.allclose(encoded.features, naive(backbone, adapted, images), atol=2e-4)
    assert len(encoded.low) == len(adapted.blocks)


@pytest.mark.parametrize("make", [LocalAdaptation, PlainLoRA, PromptTuning])
def test_blocks_before_the_first_adapted_one_run_once_an_image_without_a_graph(backbone, images, make):
    adapted = make(backbone, blocks=2)
    calls = []
    for index, block in enumerate(backbone.blocks):
        block.register_forward_hook(
            lambda _, inputs, output, index=index: calls.append((index, len(output), output.requires_grad))
        )
    adapted(backbone, images, HEADS, OWNER)
    each = 3 if make is LocalAdaptation else 2
    assert calls == [(0, 2, False), (1, 2, False), (2, 2, False), (3, 2, False), (4, each, True), (5, each, True)]


def test_gradients_reach_what_learns_and_nothing_frozen(backbone, images):
    adapted = LocalAdaptation(backbone, ["qkv", "fc1"], blocks=2)
    moved(adapted)
    adapted(backbone, images, HEADS, OWNER).features.square().sum().backward()
    for name, parameter in adapted.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("make", [PlainLoRA, PromptTuning, FullFineTuning])
def test_the_others_learn_only_what_they_should(backbone, images, make):
    names = {name for name, _ in backbone.named_parameters()}
    adapted = make(backbone, blocks=[3, 5])
    learning = {n: p for m in (adapted, backbone) for n, p in m.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in learning.items():
            if "lora_B" in name:
                parameter += 0.1
    adapted(backbone, images, HEADS, OWNER).features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning.values())
    if make is FullFineTuning:
        assert {name.split(".")[1] for name in learning} == {"blocks", "norm"}
        assert {name.split(".")[2] for name in learning if "blocks" in name} == {"3", "5"}
    elif make is PlainLoRA:
        assert all("lora_" in name for name in learning)
        assert len(learning) == 4
    else:
        assert set(learning) == {"prompts.3", "prompts.5"}
        assert {name for name, _ in backbone.named_parameters()} == names


def test_full_fine_tuning_of_all_blocks_takes_the_embedding_along(backbone, images):
    FullFineTuning(backbone)(backbone, images, HEADS, OWNER).features.sum().backward()
    without = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    assert without == []


def test_checkpointing_changes_nothing(backbone, images):
    results = []
    plain = LocalAdaptation(backbone, blocks=2)
    moved(plain)
    for adapted in (plain, LocalAdaptation(backbone, blocks=2, checkpointing=True)):
        adapted.load_state_dict(plain.state_dict())
        adapted.zero_grad()
        encoded = adapted(backbone, images, HEADS, OWNER)
        (encoded.features.square().sum() + encoded.low[-1].sum()).backward()
        results.append([encoded.features, *(p.grad for p in adapted.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_compiling_changes_nothing_beyond_rounding(backbone, images, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, backend="aot_eager", **kw))
    plain = LocalAdaptation(backbone, blocks=2)
    moved(plain)
    compiled = LocalAdaptation(backbone, blocks=2, compiled=True)
    compiled.load_state_dict(plain.state_dict())
    results = []
    for adapted in (plain, compiled):
        adapted.zero_grad()
        encoded = adapted.eval()(backbone, images, HEADS, OWNER)
        encoded.features.square().sum().backward()
        results.append([encoded.features, *(p.grad for p in adapted.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_stays_close(backbone, images):
    adapted = LocalAdaptation(backbone, blocks=3).eval()
    moved(adapted, 0.1)
    exact = adapted(backbone, images, HEADS, OWNER).features
    backbone.compute_dtype = "bfloat16"
    rough = adapted(backbone, images, HEADS, OWNER).features
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_a_copy_adapts_its_own_backbone(backbone, images):
    both = nn.ModuleList([backbone, LocalAdaptation(backbone, blocks=1)])
    moved(both[1])
    twin = copy.deepcopy(both)
    before = both[1].eval()(both[0], images, HEADS, OWNER).features
    moved(twin[1])
    assert torch.equal(both[1](both[0], images, HEADS, OWNER).features, before)
    assert not torch.equal(twin[1].eval()(twin[0], images, HEADS, OWNER).features, before)


def test_chosen_blocks():
    assert chosen_blocks(0, 4) == [0, 1, 2, 3]
    assert chosen_blocks(3, 4) == [1, 2, 3]
    assert chosen_blocks([-1, 1, 1], 4) == [1, 3]
    for wrong in (5, [4], [], -1):
        with pytest.raises(ValueError, match="cannot adapt"):
            chosen_blocks(wrong, 4)


def test_wrong_settings_are_named(backbone):
    with pytest.raises(ValueError, match="qkv, proj, fc1, fc2"):
        LocalAdaptation(backbone, ["kv"])
    with pytest.raises(ValueError, match="exclude each other"):
        LocalAdaptation(backbone, checkpointing=True, compiled=True)
