"""HCLoRA: its rows, the cone and the objective (equations 5 to 8) against loops and closed forms, what it trains."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gazebench.core.types import Batch, Targets
from gazebench.core.weights import WeightsError
from gazebench.data.transforms import cell_centres, cone_mask
from gazebench.engine.config import resolve
from gazebench.engine.contract import check
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.hclora.supervision import GazeEvidence, TokenEvidence, divergence, outside_ratio, pooled_at_head
from gazebench.nn.backbones import build_backbone

SIZE = (16, 24)
SUPERVISIONS = ["vector", "heatmap", "cone", "ooc"]
ROWS = [*((adaptation, "none") for adaptation in ("frozen", "full", "vpt", "lora", "hclora")),
        *(("hclora", supervision) for supervision in SUPERVISIONS)]  # fmt: skip
SMALL = {"backbone": "tiny", "backbone_weights": "random", "image_size": 112, "dim": 32, "layers": 1, "heads": 2,
         "drop_path": 0.0, "inout": True}  # fmt: skip


def batch(*people: int, side: int = 112) -> Batch:
    """Two images, four people (or some of them): two in frame, one outside, one unknown."""
    chosen = list(people or range(4))
    head = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.4, 0.7, 0.6], [0.3, 0.6, 0.4, 0.8], [0.7, 0.1, 0.9, 0.3]])
    point = torch.tensor([[0.8, 0.2], [0.2, 0.9], [torch.nan] * 2, [torch.nan] * 2])
    targets = Targets(point[chosen], torch.tensor([1, 1, 0, -1])[chosen], point[:2].double(), torch.tensor([0, 1]))
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([0, 0, 1, 1])[chosen], head[chosen], [f"{i}" for i in chosen], ["x", "y"],
                 torch.full((2, 2), side), targets)  # fmt: skip


def method(adaptation: str = "hclora", supervision: str | None = None, **settings) -> HCLoRA:
    torch.manual_seed(0)
    supervision = supervision or ("ooc" if adaptation == "hclora" else "none")
    return HCLoRA(adaptation, supervision, **{**SMALL, "adapted_blocks": 2, "dropout": 0.0, **settings})


def shaken(module: HCLoRA) -> HCLoRA:
    """Leaves the initial values, so that every part matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.train()


def heatmap(model: GazeLLE) -> torch.Tensor:
    return model.eval()(batch()).heatmap


# Heatmap and cone differ from ooc in a loss only, which has tests of its own; ooc is the default, checked elsewhere;
# the frozen row is Gaze-LLE, below.
@pytest.mark.parametrize(
    ("adaptation", "supervision"), [row for row in ROWS if row[1] in ("none", "vector") and row[0] != "frozen"]
)
def test_rows_keep_the_contract(adaptation, supervision):
    little = [f"--model.{name}={SMALL[name]}" for name in ("image_size", "dim", "layers", "heads")]
    row = [f"--model.adaptation={adaptation}", f"--model.supervision={supervision}"]
    assert check("hclora", *little, *row) == []


AS_WRITTEN = [{"evidence": "tokens"}, {"gate": "free"}, {"evidence": "tokens", "gate": "free"}]


def test_every_row_has_a_title_of_its_own():
    titles = {method(*row).title for row in ROWS} | {method(**settings).title for settings in AS_WRITTEN}
    assert len(titles) == len(ROWS) + len(AS_WRITTEN)
    assert {"Gaze-LLE", "Gaze-LLE + LoRA", "HCLoRA", "HCLoRA + OOC"} <= titles


def test_the_frozen_row_is_gazelle_and_the_adapted_one_starts_there():
    torch.manual_seed(0)
    plain, frozen, adapted = GazeLLE(**SMALL), method("frozen"), method()
    assert plain.export().keys() == frozen.export().keys()
    adapted.decoder.load_state_dict(frozen.decoder.state_dict())
    expected = heatmap(plain)
    assert torch.equal(heatmap(frozen), expected)
    assert torch.allclose(heatmap(adapted), expected, atol=1e-6)
    losses = []
    for model in (plain.train(), frozen.train()):
        torch.manual_seed(3)
        losses.append(model.loss(batch()))
    assert losses[0] == losses[1]


def test_objective_is_equation_8():
    model = shaken(method(supervised_layers=2, aux_weight=0.7, inout_weight=0.5, cone_angle=50.0, cone_sharpness=20.0))
    some = batch()
    losses = model.loss(some)
    head = (some.head[:, :2] + some.head[:, 2:]) / 2
    cone = cone_mask(head[:2], some.targets.point[:2], (8, 8), 50.0, 20.0)
    encoded = model.encode(some)
    penalties = []
    for layer, low_rank in zip(model.auxiliary, encoded.low_rank, strict=True):
        evidence = layer(low_rank, encoded.prior, head, (8, 8))[:2].softmax(1).view(2, 8, 8)
        penalties.append(outside_ratio(evidence, cone))
    assert losses["auxiliary"].item() == pytest.approx(0.7 * torch.stack(penalties).mean().item(), rel=1e-5)
    model.decoder.eval()  # without its dropout
    inout = F.binary_cross_entropy(model(some).inout[:3], torch.tensor([1.0, 1.0, 0.0]))
    assert model.loss(some)["inout"].item() == pytest.approx(0.5 * inout.item(), rel=1e-5)
    assert set(losses) == {"heatmap", "inout", "auxiliary"}


@pytest.mark.parametrize("supervision", ["heatmap", "cone", "ooc"])
def test_equation_4_as_written_trains_the_low_rank_features_of_every_place(supervision):
    """The auxiliary loss alone reaches A and the auxiliary layers."""
    model = shaken(method(supervision=supervision, evidence="tokens", gate="free"))
    model.auxiliary_loss(model.encode(batch()), batch()).backward()
    for layer in (*model.auxiliary, model.adaptation.residuals["4_qkv"].down):
        assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_people_out_of_frame_or_without_a_box_take_no_part(supervision):
    model = shaken(method(supervision=supervision))
    some = batch()
    some.head[0] = torch.nan
    expected = model.loss(batch(1))["auxiliary"]
    assert expected > 0
    torch.testing.assert_close(model.loss(some)["auxiliary"], expected, rtol=1e-5, atol=1e-6)
    nobody = model.loss(batch(2, 3))
    assert nobody["auxiliary"].item() == 0
    torch.stack(list(nobody.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_vector_is_scored_by_its_angle():
    output, head, target = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.9]])
    loss = method(supervision="vector").layer_loss(output, head, target)
    assert loss.item() == pytest.approx(1 - math.cos(math.radians(45)), abs=1e-6)


@pytest.mark.parametrize(("adaptation", "supervision"), ROWS)
def test_the_export_is_what_was_trained_and_no_more(adaptation, supervision):
    model, again = shaken(method(adaptation, supervision)), method(adaptation, supervision)
    weights = model.export()
    trained = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("auxiliary")]
    table = model.decoder.pos_embed.numel()  # as in the official files
    assert sum(value.numel() for value in weights.values()) == sum(p.numel() for p in trained) + table
    again.load_export(weights)
    assert torch.equal(heatmap(again), heatmap(model))


def test_weights_of_another_row_are_refused():
    with pytest.raises(WeightsError, match=r"'hclora'.*--model.adaptation"):
        method().load_export(method("lora").export())
    with pytest.raises(WeightsError, match="shape"):
        method().load_export(method(rank=4).export())
    with pytest.raises(ValueError, match=r"--model\.supervision none"):
        method("lora", "ooc")
    for supervision in ("none", "vector"):
        with pytest.raises(ValueError, match=supervision):
            method(supervision=supervision, evidence="tokens")


def test_it_starts_from_gazelle_or_from_itself(tmp_path):
    other, key = shaken(method(inout=False)), "adaptation.residuals.5_qkv.up.weight"
    for part in (other.export(), {n: v for n, v in other.export().items() if not n.startswith("adaptation")}):
        torch.save(part, tmp_path / "weights.pt")
        model = method()
        model.load_initial(tmp_path / "weights.pt")
        assert torch.equal(model.decoder.linear.weight, other.decoder.linear.weight)
        assert torch.equal(model.export()[key], other.export()[key]) == (key in part)


def test_training_goes_on_with_its_auxiliary_heads():
    model, again, checkpoint = shaken(method()), method(), {}
    model.on_save_checkpoint(checkpoint)
    assert not any(name.startswith("backbone") for name in checkpoint["state_dict"])
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"])
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("backbone", ["dinov2_vitb14", "dinov2_vitl14", "tiny"])
@pytest.mark.parametrize("dataset", ["gazefollow", "vat"])
def test_recipes_of_every_backbone(backbone, dataset):
    config = resolve(["hclora", dataset, "--dataset.root=x", f"--model.backbone={backbone}"])
    assert config.values["loader"]["people"] == {"gazefollow": "in_frame", "vat": "labelled"}[dataset]
    assert config.values["model"]["adapted_blocks"] == {"tiny": 2, "dinov2_vitb14": 4, "dinov2_vitl14": 8}[backbone]
    assert config.values["init"] == ("from:gazefollow" if dataset == "vat" and backbone != "tiny" else None)


def test_identity_is_of_the_backbone_before_it_was_adapted():
    torch.manual_seed(0)
    digest = build_backbone("tiny", "random").digest()
    for adaptation in ("frozen", "full", "lora"):
        identity = shaken(method(adaptation)).weights_identity()
        assert (identity["grade"], identity["name"], identity["backbone"]["sha256"]) == ("random", "tiny", digest)


def test_attention_kernels_agree():
    fused, plain = method(), method(fused_attention=False)
    plain.load_export(fused.export())
    assert torch.allclose(heatmap(fused), heatmap(plain), atol=1e-5)


def test_a_full_size_backbone_takes_hub_weights_and_a_training_step(tmp_path):
    """DINOv2's smallest, with torch.hub's names; one person in bfloat16, recomputing what it can."""
    source = build_backbone("dinov2_vits14", "random", "timm")
    torch.save({**source.model.state_dict(), "mask_token": torch.zeros(1, 384)}, tmp_path / "hub.pth")
    settings = {"backbone": "dinov2_vits14", "backbone_weights": str(tmp_path / "hub.pth"), "inout": True}
    model = HCLoRA(**settings, compute_dtype="bfloat16", adapted_blocks=4, checkpointing=True, image_size=112).train()
    assert model.backbone.digest() == source.digest()
    torch.stack(list(model.loss(batch(0)).values())).sum().backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    up = model.adaptation.residuals["11_qkv"].up.weight
    before = up.clone()
    torch.optim.Adam(learning, lr=1e-3).step()
    assert not torch.equal(up, before)


# The supervision ----------------------------------------------------------------------------------------------------


def loop(head, target, size, angle, sharpness):
    """Equations 5 and 6 cell by cell, in plain floats."""

    def sigmoid(x):
        return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

    dx, dy = target[0] - head[0], target[1] - head[1]
    length = math.hypot(dx, dy) + 1e-6
    dx, dy = dx / length, dy / length
    mask = torch.zeros(size)
    for v in range(size[0]):
        for u in range(size[1]):
            px, py = (u + 0.5) / size[1] - head[0], (v + 0.5) / size[0] - head[1]
            t = px * dx + py * dy
            perpendicular = math.hypot(px - t * dx, py - t * dy)
            border = max(t, 0) * math.tan(math.radians(angle) / 2) - perpendicular
            mask[v, u] = sigmoid(sharpness * border) * sigmoid(sharpness * t)
    return mask


@pytest.mark.parametrize(("angle", "sharpness"), [(20.0, 50.0), (60.0, 5.0), (60.0, 50.0), (120.0, 5.0)])
def test_mask_equals_a_loop(angle, sharpness):
    generator = torch.Generator().manual_seed(0)
    head, target = torch.rand(2, 12, 2, generator=generator)
    mask = cone_mask(head, target, SIZE, angle, sharpness)
    for person in range(12):
        expected = loop(head[person].tolist(), target[person].tolist(), SIZE, angle, sharpness)
        assert torch.allclose(mask[person], expected, atol=2e-5)


def test_at_the_head_around_it_and_without_a_direction():
    head = cell_centres((9, 9))[4, 4][None]
    mask = cone_mask(head, head + torch.tensor([[0.3, 0.0]]), (9, 9), 60.0, 2000.0)[0]
    assert mask[4, 4] == pytest.approx(0.25)  # sigmoid(0) squared
    inside = (mask > 0.999).nonzero().tolist()  # cells less than 30 degrees from straight ahead
    assert inside == [[v, u] for v in range(9) for u in range(5, 9) if abs(v - 4) < math.tan(math.pi / 6) * (u - 4)]
    assert cone_mask(head, head, (9, 9)).max() <= 0.25


def test_penalty_is_0_deep_inside_1_behind_and_linear_between():
    cone = cone_mask(torch.tensor([[0.25, 0.5]]), torch.tensor([[0.8, 0.5]]), (32, 32), 60.0, 100.0)
    inside, behind = torch.zeros(2, 1, 32, 32)
    inside[0, 16, 20:28] = 1 / 8
    behind[0, 10:20, :4] = 1 / 40
    mixed = 0.3 * inside + 0.7 * behind
    for evidence, expected in ((inside, 0), (behind, 1), (mixed, 0.7), (5 * behind, 1)):  # a ratio: no scale
        assert outside_ratio(evidence, cone).item() == pytest.approx(expected, abs=1e-4)
    assert outside_ratio(torch.ones(1, 32, 32), cone).item() == pytest.approx(1 - cone.mean().item(), abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 180.0, -3.0])
def test_an_impossible_opening_is_named(angle):
    with pytest.raises(ValueError, match="180 degrees"):
        cone_mask(torch.rand(1, 2), torch.rand(1, 2), SIZE, angle)


def test_divergence_is_that_of_kullback_and_leibler():
    logits, truth = torch.randn(3, 20), torch.rand(3, 20)
    p, q = truth / truth.sum(1, keepdim=True), logits.softmax(1)
    torch.testing.assert_close(divergence(logits, truth), (p * (p / q).log()).sum(1), rtol=1e-4, atol=1e-5)
    assert divergence(truth.log(), truth).abs().max() < 1e-6


def test_evidence_comes_from_the_head():
    torch.manual_seed(0)
    low_rank, prior, head = torch.randn(2, 64, 4), torch.rand(2, 64), torch.tensor([[0.2, 0.3], [0.6, 0.6]])
    pooled = pooled_at_head(low_rank, prior)
    expected = (prior[..., None] * low_rank).sum(1) / (prior.sum(1, keepdim=True) + 1e-6)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    assert not pooled_at_head(low_rank, torch.zeros(2, 64)).any()
    evidence = GazeEvidence(4)
    offset = cell_centres((8, 8))[5, 2] - head[1]
    key = evidence.place(torch.cat([offset, offset / (offset.norm() + 1e-6)]))
    logit = evidence(low_rank, prior, head, (8, 8))[1, 5 * 8 + 2]
    assert logit.item() == pytest.approx((evidence.question(pooled[1]) @ key).item() / 32**0.5, abs=1e-4)


def test_equation_4_as_written_is_a_map_of_every_token_by_itself():
    """Against NumPy; neither another place nor the head's position has a part in a place's logit."""
    torch.manual_seed(0)
    evidence, low_rank = TokenEvidence(4), torch.randn(2, 6, 4)
    inner, _, outer = evidence.logit
    x, w, v = (value.detach().double().numpy() for value in (low_rank, inner.weight, outer.weight))
    hidden = x @ w.T + inner.bias.detach().double().numpy()
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    expected = (hidden @ v.T)[..., 0]
    prior, head = torch.rand(2, 6), torch.rand(2, 2)
    found = evidence(low_rank, prior, head, (2, 3))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    assert torch.equal(evidence(low_rank, 0 * prior, 0 * head, (2, 3)), found)
    others = low_rank.clone()
    others[:, 1:] = 9.0
    torch.testing.assert_close(evidence(others, prior, head, (2, 3))[:, 0], found[:, 0])
