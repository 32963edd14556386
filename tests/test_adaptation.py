"""Adapted backbones: the equations against loops, exactness at the start, locality, gradients, shared blocks."""

import copy
import itertools
import math
import re

import pytest
import torch
from torch import nn

from gazebench.methods.hclora.adaptation import (
    FullFineTuning,
    HeadConditionedLoRA,
    LocalAdaptation,
    LowRank,
    PlainLoRA,
    PromptTuning,
    chosen_blocks,
    head_prior,
    linears,
)
from gazebench.nn.backbones import build_backbone

GRID = (8, 8)
SIDE = 14 * GRID[0]
HEADS = torch.tensor([[0.1, 0.1, 0.3, 0.35], [0.6, 0.5, 0.8, 0.9], [0.4, 0.1, 0.6, 0.3]])
OWNER = torch.tensor([0, 0, 1])
ALL = ["qkv", "proj", "fc1", "fc2"]


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_backbone("tiny", "random")


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def moved(module: nn.Module, size: float = 0.3) -> nn.Module:
    """Leaves the initial values: B is 0 there."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return module


def test_prior_is_equation_3():
    prior = head_prior(HEADS, (6, 10), scale=0.5)
    for person, (x0, y0, x1, y1) in enumerate(HEADS.tolist()):
        sx, sy = 0.5 * max((x1 - x0) * 10, 1), 0.5 * max((y1 - y0) * 6, 1)
        for v, u in itertools.product(range(6), range(10)):
            across, down = u + 0.5 - (x0 + x1) * 5, v + 0.5 - (y0 + y1) * 3
            expected = math.exp(-(across**2) / (2 * sx**2 + 1e-6) - down**2 / (2 * sy**2 + 1e-6))
            assert prior[person, v, u].item() == pytest.approx(expected, abs=1e-5)


def test_a_missing_box_has_an_empty_prior_and_no_effect(backbone, images):
    head = torch.full((3, 4), torch.nan)
    assert not head_prior(head, GRID).any()
    encoded = moved(LocalAdaptation(backbone)).eval()(backbone, images, head, OWNER)
    assert torch.equal(encoded.features, backbone(images)[OWNER])


def test_the_free_gate_starts_as_plain_lora_and_may_leave_the_head(backbone, images):
    """At the start M(b) is 1 at every token, also for a person without a box; the local gate has 0 there."""
    updates = {}
    for gate in ("local", "free"):
        torch.manual_seed(0)
        residual = HeadConditionedLoRA(12, 7, rank=4, alpha=8.0, gate=gate)
        nn.init.normal_(residual.up.weight)
        x = torch.randn(1, 3, 12)
        updates[gate], low_rank = residual(x, torch.zeros(1, 3))
    assert not updates["local"].any()
    torch.testing.assert_close(updates["free"], 8.0 / 4 * low_rank @ residual.up.weight.T)
    adapted = LocalAdaptation(backbone, LowRank(gate="free")).eval()
    frozen = backbone(images)[OWNER]
    nn.init.normal_(adapted.residuals["5_qkv"].up.weight)
    assert not torch.allclose(adapted(backbone, images, torch.full((3, 4), torch.nan), OWNER).features, frozen)


@pytest.mark.parametrize("gate", ["local", "free"])
def test_update_is_equation_2(gate):
    torch.manual_seed(0)
    residual = moved(HeadConditionedLoRA(12, 7, rank=4, alpha=8.0, gate=gate))
    x, prior = torch.randn(2, 5, 12), torch.rand(2, 5)
    update, low_rank = residual(x, prior)
    a, b = residual.down.weight.T, residual.up.weight.T
    for person, token in itertools.product(range(2), range(5)):
        height, low = prior[person, token], x[person, token] @ a
        modulation = 2 * torch.sigmoid(residual.gate(height[None])) * (height if gate == "local" else 1)
        assert torch.allclose(update[person, token], 8.0 / 4 * (low * modulation) @ b, atol=1e-5)
        assert torch.allclose(low_rank[person, token], low, atol=1e-5)


@pytest.mark.parametrize(("make", "options"), [
    (LocalAdaptation, {"blocks": 2}), (LocalAdaptation, {"low_rank": LowRank(ALL), "blocks": 2}),
    (PlainLoRA, {"low_rank": LowRank(ALL), "blocks": 2}), (FullFineTuning, {}),
])  # fmt: skip
def test_nothing_changes_at_first_bit_for_bit(backbone, images, make, options):
    before = backbone(images)
    encoded = make(backbone, **options)(backbone, images, HEADS, OWNER)
    assert torch.equal(encoded.features if encoded.row is None else encoded.features[encoded.row], before[OWNER])


def test_the_update_vanishes_far_from_the_head():
    residual = moved(HeadConditionedLoRA(12, 12, rank=4, alpha=8.0), 1.0)
    prior = head_prior(torch.tensor([[0.0, 0.0, 0.1, 0.1]]), (32, 32)).flatten(1)
    size = residual(torch.randn(1, 1024, 12), prior)[0].norm(dim=-1).view(32, 32)
    assert size[:3, :3].max() > 0.1
    assert max(size[16:, :].max(), size[:, 16:].max()) < 1e-12


def test_the_class_token_gets_no_update(backbone, images):
    # fc2 of the last block stands after attention: no way back to the class token.
    adapted = moved(LocalAdaptation(backbone, LowRank(["fc2"]), blocks=[5])).eval()
    seen = []
    backbone.model.norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0][:, 0]))
    backbone(images)
    adapted(backbone, images, HEADS, OWNER)
    assert torch.equal(seen[0][OWNER], seen[1])


def naive(backbone, adapted, images):
    """The whole backbone once a person, blocks written out, from the equations."""
    prior = torch.cat([torch.zeros(3, 1), head_prior(HEADS, GRID).flatten(1)], dim=1)
    features = []
    for person in range(3):
        tokens = backbone.embed(images[OWNER[person]][None])
        for index, block in enumerate(backbone.blocks):

            def projected(name, x, block=block, index=index, person=person):
                y = linears(block, [name])[name](x)
                key = f"{index}_{name}"
                return y + adapted.residuals[key](x, prior[person][None])[0] if key in adapted.residuals else y

            n, c, heads = tokens.shape[1], tokens.shape[2], block.attn.num_heads
            q, k, v = projected("qkv", block.norm1(tokens)).view(1, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
            weights = (q @ k.mT * (c // heads) ** -0.5).softmax(-1)
            tokens = tokens + projected("proj", (weights @ v).transpose(1, 2).reshape(1, n, c))
            tokens = tokens + projected("fc2", nn.functional.gelu(projected("fc1", block.norm2(tokens))))
        features.append(backbone.finish(tokens, GRID))
    return torch.cat(features)


@pytest.mark.parametrize(("projections", "blocks"), [(["qkv"], 2), (ALL, [1, 4])])
def test_shared_blocks_change_nothing(backbone, images, projections, blocks):
    adapted = moved(LocalAdaptation(backbone, LowRank(projections), blocks=blocks), 0.1).eval()
    encoded = adapted(backbone, images, HEADS, OWNER)
    assert (encoded.features[0] - encoded.features[1]).abs().max() > 1e-2  # people of one image
    assert torch.allclose(encoded.features, naive(backbone, adapted, images), atol=2e-4)
    assert [low.shape for low in encoded.low_rank] == [(3, 64, 8)] * len(adapted.blocks)


@pytest.mark.parametrize("make", [LocalAdaptation, PlainLoRA, PromptTuning, FullFineTuning])
def test_blocks_before_the_first_adapted_one_run_once_an_image_without_a_graph(backbone, images, make):
    adapted, calls = make(backbone, blocks=2), []
    for index, block in enumerate(backbone.blocks):
        block.register_forward_hook(
            lambda _, inputs, output, index=index: calls.append((index, len(output), output.requires_grad))
        )
    adapted(backbone, images, HEADS, OWNER)
    each = 3 if make is LocalAdaptation else 2
    assert calls == [(0, 2, False), (1, 2, False), (2, 2, False), (3, 2, False), (4, each, True), (5, each, True)]


@pytest.mark.parametrize(("make", "count", "pattern"), [
    (LocalAdaptation, 2 * 2 * 6, r"residuals\.[35]_(qkv|fc1)\.(down|up|gate\.[02])\."),
    (PlainLoRA, 4, r".*blocks\.[35]\.attn\.qkv\.lora_"),
    (PromptTuning, 2, r"prompts\.[35]$"),
    (FullFineTuning, 2 * 12 + 2, r"model\.(blocks\.[35]|norm)\."),
])  # fmt: skip
def test_gradients_reach_what_learns_and_nothing_frozen(backbone, images, make, count, pattern):
    options = {"low_rank": LowRank(["qkv", "fc1"])} if make is LocalAdaptation else {}
    adapted = make(backbone, blocks=[3, 5], **options)
    parameters = {name: p for module in (adapted, backbone) for name, p in module.named_parameters()}
    learning = {name: p for name, p in parameters.items() if p.requires_grad}
    with torch.no_grad():  # leave the initial values: one of each pair of factors is 0 there
        for parameter in learning.values():
            parameter += 0.1
    adapted(backbone, images, HEADS, OWNER).features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning.values())
    assert all(p.grad is None for name, p in parameters.items() if name not in learning)
    assert (len(learning), [name for name in learning if not re.match(pattern, name)]) == (count, [])


def test_full_fine_tuning_of_all_blocks_takes_the_embedding_along(backbone, images):
    FullFineTuning(backbone)(backbone, images, HEADS, OWNER).features.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("option", ["checkpointing", "compiled"])
def test_checkpointing_and_compiling_change_nothing_beyond_rounding(backbone, images, monkeypatch, option):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="eager", **options))
    plain = moved(LocalAdaptation(backbone, blocks=2))
    results = []
    for adapted in (plain, LocalAdaptation(backbone, blocks=2, **{option: True})):
        adapted.load_state_dict(plain.state_dict())
        adapted.zero_grad()
        encoded = adapted(backbone, images, HEADS, OWNER)
        (encoded.features.square().sum() + encoded.low_rank[-1].sum()).backward()
        results.append([encoded.features, *(p.grad for p in adapted.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_stays_close(backbone, images):
    adapted = moved(LocalAdaptation(backbone, blocks=3), 0.1).eval()
    exact = adapted(backbone, images, HEADS, OWNER).features
    backbone.compute_dtype = "bfloat16"
    rough = adapted(backbone, images, HEADS, OWNER).features
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_a_copy_adapts_its_own_backbone(backbone, images):
    both = nn.ModuleList([backbone, moved(LocalAdaptation(backbone, blocks=1))]).eval()
    twin = copy.deepcopy(both)
    before = both[1](both[0], images, HEADS, OWNER).features
    moved(twin[1])
    assert torch.equal(both[1](both[0], images, HEADS, OWNER).features, before)
    assert not torch.equal(twin[1](twin[0], images, HEADS, OWNER).features, before)


def test_chosen_blocks_and_wrong_settings(backbone):
    for given, blocks in ((0, [0, 1, 2, 3]), (3, [1, 2, 3]), ([-1, 1, 1], [1, 3])):
        assert chosen_blocks(given, 4) == blocks
    for wrong in (5, [4], [], -1):
        with pytest.raises(ValueError, match="cannot adapt"):
            chosen_blocks(wrong, 4)
    with pytest.raises(ValueError, match="qkv, proj, fc1, fc2"):
        LowRank(["kv"])
    with pytest.raises(ValueError, match="exclude each other"):
        LocalAdaptation(backbone, checkpointing=True, compiled=True)
