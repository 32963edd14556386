"""Gaze-LLE: the decoder against plain loops over people and cells, official weights, schedules."""

import math

import pytest
import torch

from gazebench.core.weights import WeightsError
from gazebench.methods.gazelle import Encoded, GazeDecoder, GazeLLE, head_map, sine_positions
from gazebench.nn.optimizers import adam_one_cycle

NAN = float("nan")
HEADS = torch.tensor(
    [[0.1, 0.2, 0.4, 0.5], [NAN] * 4, [0.0, 0.0, 1.0, 1.0], [0.5, 0.3, 0.9, 0.7], [0.45, 0.0, 0.55, 0.4]]
)
IMAGE = torch.tensor([0, 0, 0, 2, 2])
FEATURES = torch.randn(3, 24, 6, 8, generator=torch.Generator().manual_seed(1))
SMALL = {"backbone": "tiny", "backbone_weights": "random", "image_size": 112, "dim": 32, "layers": 2, "heads": 2}


def make(inout: bool = True, grid: tuple[int, int] = (6, 8), **kwargs) -> GazeDecoder:
    torch.manual_seed(0)
    decoder = GazeDecoder(24, grid, dim=32, layers=2, inout=inout, **{"out_size": (12, 16), **kwargs})
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return decoder.eval()


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
@torch.no_grad()
def test_equals_plain_loops_over_people(inout):
    decoder = make(inout)
    heatmap, probability = decoder(Encoded(FEATURES, IMAGE), HEADS)
    assert (heatmap.shape, probability is not None) == ((5, 12, 16), inout)
    for p, box in enumerate(HEADS.tolist()):
        expected, expected_inout = reference(decoder, FEATURES[IMAGE[p]], box)
        torch.testing.assert_close(heatmap[p].double(), expected, atol=1e-5, rtol=0)
        if inout:
            assert float(probability[p]) == pytest.approx(expected_inout, abs=1e-5)


def test_heatmaps_are_resized_after_the_sigmoid():
    heatmap, inout = make()(Encoded(FEATURES, IMAGE), HEADS)
    larger, same = make(out_size=(20, 30))(Encoded(FEATURES, IMAGE), HEADS)
    expected = torch.nn.functional.interpolate(heatmap[:, None], (20, 30), mode="bilinear")[:, 0]
    torch.testing.assert_close(larger, expected, atol=1e-6, rtol=0)
    assert torch.equal(same, inout)


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
    assert expected[:150].any()
    beyond, clipped = torch.tensor([[-0.3, -0.2, 0.5, 1.4]]), torch.tensor([[0, 0, 0.5, 1]])
    assert torch.equal(head_map(beyond, *grid), head_map(clipped, *grid))


def test_people_may_have_features_of_their_own_and_nobody_may_be_there():
    decoder = make()
    heatmap, _ = decoder(Encoded(FEATURES, IMAGE), HEADS)
    owned, _ = decoder(Encoded(FEATURES[IMAGE], None), HEADS)
    torch.testing.assert_close(owned, heatmap, atol=1e-6, rtol=0)
    nothing, inout = decoder(Encoded(FEATURES, IMAGE[:0]), HEADS[:0])
    assert (nothing.shape, inout.shape) == ((0, 12, 16), (0,))


def test_every_parameter_gets_a_finite_gradient_also_with_a_missing_box():
    decoder = make(drop_path=0.0).train()
    heatmap, inout = decoder(Encoded(FEATURES, IMAGE), HEADS)
    (heatmap.square().mean() + inout.square().mean()).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_positions():
    table = sine_positions(16, 3, 5)
    for channel in range(8):
        wave, rate = (math.sin, math.cos)[channel % 2], 10000 ** -((channel - channel % 2) / 8)
        for r in range(3):
            for c in range(5):
                assert table[[channel, 8 + channel], r, c].tolist() == pytest.approx(
                    [wave(c * rate), wave(r * rate)], abs=1e-6
                )


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match=r"\(6, 8\)"):
        make()(Encoded(torch.randn(1, 24, 8, 6), None), HEADS[:1])
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(18, 3, 5)


def test_official_names_and_shapes():
    decoder = GazeDecoder(inout=True)
    block = {
        "norm1.weight": (256,), "norm1.bias": (256,), "norm2.weight": (256,), "norm2.bias": (256,),
        "attn.qkv.weight": (768, 256), "attn.proj.weight": (256, 256), "attn.proj.bias": (256,),
        "mlp.fc1.weight": (1024, 256), "mlp.fc1.bias": (1024,), "mlp.fc2.weight": (256, 1024), "mlp.fc2.bias": (256,),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in decoder.state_dict().items()} == {
        "linear.weight": (256, 768, 1, 1), "linear.bias": (256,), "pos_embed": (256, 32, 32),
        **{f"transformer.{i}.{name}": shape for i in range(3) for name, shape in block.items()},
        "heatmap_head.0.weight": (256, 256, 2, 2), "heatmap_head.0.bias": (256,),
        "heatmap_head.1.weight": (1, 256, 1, 1), "head_token.weight": (1, 256), "inout_token.weight": (1, 256),
        "inout_head.0.weight": (128, 256), "inout_head.0.bias": (128,),
        "inout_head.3.weight": (1, 128), "inout_head.3.bias": (1,),
    }  # fmt: skip
    assert not any("inout" in name for name in GazeDecoder().state_dict())
    assert {norm.eps for norm in decoder.modules() if isinstance(norm, torch.nn.LayerNorm)} == {1e-5}


def test_official_checkpoints_load_and_others_are_refused(tmp_path):
    source, target = GazeLLE(**SMALL, inout=True), GazeLLE(**SMALL, inout=True)
    state = {name: value + 0.1 for name, value in source.export().items()}
    target.load_export({**state, "backbone.model.cls_token": torch.zeros(1)})
    assert all(torch.equal(value, state[name]) for name, value in target.export().items())
    gazefollow = {name: value for name, value in state.items() if not name.startswith("inout")}
    half = {name: value for name, value in state.items() if name != "inout_head.0.bias"}
    for wrong, message in [
        (half, r"missing: inout_head\.0\.bias"),
        (gazefollow, r"missing: inout_head.*--model\."),
        ({**state, "stray": torch.zeros(1)}, "unknown: stray"),
        ({**state, "pos_embed": torch.zeros(32, 3, 3)}, r"pos_embed \(32, 3, 3\), here \(32, 8, 8\)"),
    ]:
        with pytest.raises(WeightsError, match=message):
            target.load_export(wrong)
    torch.save(half, tmp_path / "half.pt")
    with pytest.raises(WeightsError, match=r"missing: inout_head\.0\.bias"):  # a damaged file, not one of GazeFollow
        target.load_initial(tmp_path / "half.pt")
    torch.save(gazefollow | {"linear.bias": torch.ones(32)}, tmp_path / "gazefollow.pt")
    target.load_initial(tmp_path / "gazefollow.pt")
    assert torch.equal(target.decoder.linear.bias, torch.ones(32))
    assert torch.equal(target.decoder.inout_token.weight, state["inout_token.weight"])


def test_augmentation_can_be_left_out():
    assert GazeLLE(**SMALL).preprocess().crop == 0.5
    plain = GazeLLE(**SMALL, augment=False).preprocess()
    assert (plain.crop, plain.flip, plain.box_jitter, plain.size) == (0, 0, 0, (112, 112))


def test_one_cycle_keeps_the_peak_of_every_group():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 4e-3}]
    optimizer, schedule = adam_one_cycle(groups, 1e-3, 200)
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(199):
        optimizer.step()
        schedule["scheduler"].step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert [max(rate) for rate in zip(*rates, strict=True)] == pytest.approx([1e-3, 4e-3], rel=1e-3)
    assert rates[-1][1] < 1e-6


@pytest.mark.parametrize("steps", [0, 1, 2, 8, 20, 21, 40])
def test_one_cycle_of_few_steps(steps):
    optimizer, schedule = adam_one_cycle([{"params": [torch.nn.Parameter(torch.zeros(1))]}], 1e-3, steps)
    for _ in range(steps):
        assert 0 <= optimizer.param_groups[0]["lr"] <= 1e-3
        optimizer.step()
        schedule["scheduler"].step()
