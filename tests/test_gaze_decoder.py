"""The Gaze-LLE decoder against plain loops over people and cells."""

import math

import pytest
import torch

from gazebench.nn.gaze_decoder import GazeDecoder, head_map, load_official, official_state, sine_positions

NAN = float("nan")
HEADS = [[0.1, 0.2, 0.4, 0.5], [NAN] * 4, [0.0, 0.0, 1.0, 1.0], [0.5, 0.3, 0.9, 0.7], [0.45, 0.0, 0.55, 0.4]]


def make(inout: bool = True, grid: tuple[int, int] = (6, 8), **kwargs) -> GazeDecoder:
    torch.manual_seed(0)
    decoder = GazeDecoder(24, grid, dim=32, layers=2, inout=inout, out_size=(12, 16), **kwargs)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return decoder.eval()


def people() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features = torch.randn(3, 24, 6, 8, generator=torch.Generator().manual_seed(1))
    return features, torch.tensor(HEADS), torch.tensor([0, 0, 0, 2, 2])


def reference_map(box: list[float], rows: int, columns: int) -> torch.Tensor:
    cells = torch.zeros(rows, columns)
    if not math.isnan(box[0]):
        x0, y0, x1, y1 = box
        cells[round(y0 * rows) : round(y1 * rows), round(x0 * columns) : round(x1 * columns)] = 1
    return cells


def reference(decoder: GazeDecoder, scene: torch.Tensor, box: list[float]) -> tuple[torch.Tensor, float | None]:
    """One person, in float64, from the weights alone."""
    w = {name: value.double() for name, value in decoder.state_dict().items()}
    rows, columns = scene.shape[1:]
    tokens = []
    for r in range(rows):
        for c in range(columns):
            token = w["linear.weight"][:, :, 0, 0] @ scene[:, r, c].double() + w["linear.bias"]
            token = token + w["pos_embed"][:, r, c]
            tokens.append(token + reference_map(box, rows, columns)[r, c] * w["head_token.weight"][0])
    x = torch.stack(tokens)
    if decoder.inout:
        x = torch.cat([w["inout_token.weight"], x])

    def norm(v, name):
        v = (v - v.mean(-1, keepdim=True)) / (v.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return v * w[f"{name}.weight"] + w[f"{name}.bias"]

    for i in range(2):
        name = f"transformer.{i}"
        q, k, v = (norm(x, f"{name}.norm1") @ w[f"{name}.attn.qkv.weight"].T).chunk(3, -1)
        heads = [
            ((a @ b.T) / a.shape[1] ** 0.5).softmax(-1) @ c
            for a, b, c in zip(*(t.chunk(8, -1) for t in (q, k, v)), strict=True)
        ]
        x = x + torch.cat(heads, -1) @ w[f"{name}.attn.proj.weight"].T + w[f"{name}.attn.proj.bias"]
        hidden = norm(x, f"{name}.norm2") @ w[f"{name}.mlp.fc1.weight"].T + w[f"{name}.mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + hidden @ w[f"{name}.mlp.fc2.weight"].T + w[f"{name}.mlp.fc2.bias"]
    inout = None
    if decoder.inout:
        hidden = (w["inout_head.0.weight"] @ x[0] + w["inout_head.0.bias"]).relu()
        inout = float((w["inout_head.3.weight"] @ hidden + w["inout_head.3.bias"]).sigmoid())
        x = x[1:]
    up = torch.einsum("nc,cdij->nijd", x, w["heatmap_head.0.weight"]) + w["heatmap_head.0.bias"]
    logits = up @ w["heatmap_head.1.weight"][0, :, 0, 0]
    return logits.reshape(rows, columns, 2, 2).transpose(1, 2).reshape(2 * rows, 2 * columns).sigmoid(), inout


@pytest.mark.parametrize("inout", [False, True])
def test_equals_plain_loops_over_people(inout):
    decoder = make(inout)
    features, head, image_index = people()
    with torch.no_grad():
        heatmap, probability = decoder(features, head, image_index)
    assert heatmap.shape == (5, 12, 16)
    assert (probability is not None) == inout
    for p in range(5):
        expected, expected_inout = reference(decoder, features[image_index[p]], HEADS[p])
        torch.testing.assert_close(heatmap[p].double(), expected, atol=1e-5, rtol=0)
        if inout:
            assert float(probability[p]) == pytest.approx(expected_inout, abs=1e-5)


@pytest.mark.parametrize("grid", [(32, 32), (16, 16), (21, 37)])
def test_head_map_rounds_like_python(grid):
    generator = torch.Generator().manual_seed(2)
    low = torch.rand(300, 2, generator=generator) * 0.8
    boxes = torch.cat([low, (low + torch.rand(300, 2, generator=generator) * 0.4).clamp(max=1)], 1)
    scale = torch.tensor([grid[1], grid[0]] * 2)
    boxes[:150] = ((boxes[:150] * scale).floor() + 0.5) / scale  # on the ties, which Python rounds to even
    boxes[150] = NAN
    expected = torch.stack([reference_map(box, *grid) for box in boxes.tolist()])
    assert torch.equal(head_map(boxes, *grid), expected)
    assert not expected[150].any()
    assert expected[:150].any()


def test_head_map_clips_at_the_border():
    assert torch.equal(
        head_map(torch.tensor([[-0.3, -0.2, 0.5, 1.4]]), 4, 4), head_map(torch.tensor([[0, 0, 0.5, 1]]), 4, 4)
    )


def test_people_are_independent_and_ordered():
    decoder = make()
    features, head, image_index = people()
    heatmap, inout = decoder(features, head, image_index)
    for p in range(5):
        alone, alone_inout = decoder(features[image_index[p]][None], head[p : p + 1], torch.tensor([0]))
        torch.testing.assert_close(alone[0], heatmap[p], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone_inout[0], inout[p], atol=1e-6, rtol=0)
    order = torch.tensor([3, 0, 4, 2, 1])
    moved, _ = decoder(features, head[order], image_index[order])
    torch.testing.assert_close(moved, heatmap[order], atol=1e-6, rtol=0)
    assert (heatmap[0] - heatmap[2]).abs().max() > 1e-3  # the head box matters


def test_features_of_ones_own():
    decoder = make()
    features, head, image_index = people()
    shared, _ = decoder(features, head, image_index)
    owned, _ = decoder(features[image_index], head)
    torch.testing.assert_close(owned, shared, atol=1e-6, rtol=0)


def test_missing_box_is_an_empty_map_with_gradient():
    decoder = make()
    features, head, image_index = people()
    heatmap, _ = decoder(features, head, image_index)
    vanishing = head.clone()
    vanishing[1] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert torch.equal(decoder(features, vanishing, image_index)[0], heatmap)
    heatmap[1].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in decoder.parameters())


def test_nobody():
    features, head, image_index = people()
    for decoder in (make(), make(grid=(6, 8))):
        heatmap, inout = decoder(features, head[:0], image_index[:0])
        assert heatmap.shape == (0, 12, 16)
        assert inout.shape == (0,)


def test_every_parameter_gets_a_gradient():
    decoder = make(drop_path=0.0).train()
    heatmap, inout = decoder.logits(*people())
    (heatmap.square().mean() + inout.square().mean()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


def test_logits_and_resize_after_the_sigmoid():
    decoder = make()
    decoder.out_size = (20, 30)
    heatmap_logits, inout_logits = decoder.logits(*people())
    heatmap, inout = decoder(*people())
    assert heatmap_logits.shape == (5, 12, 16)
    assert torch.equal(inout, inout_logits.sigmoid())
    expected = torch.nn.functional.interpolate(heatmap_logits.sigmoid()[:, None], (20, 30), mode="bilinear")[:, 0]
    torch.testing.assert_close(heatmap, expected, atol=1e-6, rtol=0)
    assert 0 <= heatmap.min() <= heatmap.max() <= 1


def test_positions():
    table = sine_positions(16, 3, 5)
    for channel in range(8):
        wave = math.cos if channel % 2 else math.sin
        rate = 10000 ** -((channel - channel % 2) / 8)
        for r in range(3):
            for c in range(5):
                assert float(table[channel, r, c]) == pytest.approx(wave(c * rate), abs=1e-6)
                assert float(table[8 + channel, r, c]) == pytest.approx(wave(r * rate), abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(18, 3, 5)


def test_wrong_grid_is_told():
    with pytest.raises(ValueError, match=r"\(6, 8\)"):
        make()(torch.randn(1, 24, 8, 6), torch.tensor(HEADS[:1]), torch.tensor([0]))


def test_official_names_and_shapes():
    shapes = {name: tuple(value.shape) for name, value in official_state(GazeDecoder(inout=True)).items()}
    block = {
        "norm1.weight": (256,),
        "norm1.bias": (256,),
        "attn.qkv.weight": (768, 256),
        "attn.proj.weight": (256, 256),
        "attn.proj.bias": (256,),
        "norm2.weight": (256,),
        "norm2.bias": (256,),
        "mlp.fc1.weight": (1024, 256),
        "mlp.fc1.bias": (1024,),
        "mlp.fc2.weight": (256, 1024),
        "mlp.fc2.bias": (256,),
    }
    assert shapes == {
        "linear.weight": (256, 768, 1, 1),
        "linear.bias": (256,),
        "pos_embed": (256, 32, 32),
        **{f"transformer.{i}.{name}": shape for i in range(3) for name, shape in block.items()},
        "heatmap_head.0.weight": (256, 256, 2, 2),
        "heatmap_head.0.bias": (256,),
        "heatmap_head.1.weight": (1, 256, 1, 1),
        "head_token.weight": (1, 256),
        "inout_token.weight": (1, 256),
        "inout_head.0.weight": (128, 256),
        "inout_head.0.bias": (128,),
        "inout_head.3.weight": (1, 128),
        "inout_head.3.bias": (1,),
    }
    plain = GazeDecoder()
    assert not any("inout" in name for name in official_state(plain))
    assert {norm.eps for norm in plain.modules() if isinstance(norm, torch.nn.LayerNorm)} == {1e-5}


def test_loading():
    source, target = make(), make()
    with torch.no_grad():
        target.linear.weight.zero_()
    state = official_state(source)
    load_official(target, {**state, "backbone.model.cls_token": torch.zeros(1)})
    assert all(torch.equal(value, state[name]) for name, value in target.state_dict().items())

    del state["transformer.1.mlp.fc2.bias"]
    state["stray"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"missing: transformer\.1\.mlp\.fc2\.bias; unknown: stray"):
        load_official(target, state)
    with pytest.raises(ValueError, match=r"pos_embed \(32, 6, 8\), here \(32, 3, 3\)"):
        load_official(make(grid=(3, 3)), official_state(source))
    with pytest.raises(ValueError, match="unknown: inout_head"):
        load_official(make(inout=False), official_state(source))


def test_gazefollow_weights_into_an_inout_decoder():
    state, target = official_state(make(inout=False)), make()
    with pytest.raises(ValueError, match=r"missing: inout_head.*allow_missing_inout=True"):
        load_official(target, state)
    before = target.inout_token.weight.clone()
    state["linear.bias"] += 1
    load_official(target, state, allow_missing_inout=True)
    assert torch.equal(target.inout_token.weight, before)
    assert torch.equal(target.linear.bias, state["linear.bias"])
    state = official_state(make())
    del state["inout_head.0.bias"]  # half an in/out part is a damaged file, not a GazeFollow checkpoint
    with pytest.raises(ValueError, match=r"missing: inout_head\.0\.bias"):
        load_official(target, state, allow_missing_inout=True)
