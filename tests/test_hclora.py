"""The method: its rows, the objective of equation 8, what is trained, exported and resumed."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from gazebench.core.errors import DataError
from gazebench.core.types import Batch, Targets
from gazebench.engine.config import resolve
from gazebench.engine.contract import check, small_config
from gazebench.engine.method import adam_one_cycle
from gazebench.engine.run import Places, bench
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.hclora.gaze_cone import cell_centres, cone_mask
from gazebench.methods.hclora.gaze_evidence import GazeEvidence, GazeVector, divergence, pooled_at_head
from gazebench.nn.backbones import build_backbone

ROWS = [("frozen", "none"), ("full", "none"), ("vpt", "none"), ("lora", "none"),
        *(("hclora", supervision) for supervision in ("none", "vector", "heatmap", "cone", "ooc"))]  # fmt: skip
SMALL = {"backbone": "tiny", "backbone_weights": "random", "image_size": 112, "dim": 32, "layers": 1, "heads": 2,
         "adapted_blocks": 2, "dropout": 0.0, "drop_path": 0.0}  # fmt: skip


def batch(missing: bool = False) -> Batch:
    """Two pictures, four people: two in frame, one outside, one unknown."""
    generator = torch.Generator().manual_seed(0)
    head = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.4, 0.7, 0.6], [0.3, 0.6, 0.4, 0.8], [0.7, 0.1, 0.9, 0.3]])
    if missing:
        head[0] = torch.nan
    point = torch.tensor([[0.8, 0.2], [0.2, 0.9], [torch.nan] * 2, [torch.nan] * 2])
    targets = Targets(point, torch.tensor([1, 1, 0, -1]), point[:2].double(), torch.tensor([0, 1]), [""] * 4)
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.tensor([0, 0, 1, 1]), head, list("abcd"), ["x", "y"], ["x", "y"],
                 torch.full((2, 2), 112), targets)  # fmt: skip


def method(**settings) -> HCLoRA:
    torch.manual_seed(0)
    return HCLoRA(**{**SMALL, "inout": True, **settings})


def shaken(module: HCLoRA) -> HCLoRA:
    """Leaves the initial values, so that every part matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize(("adaptation", "supervision"), ROWS)
def test_every_row_keeps_the_contract(adaptation, supervision):
    assert check("hclora", f"--model.adaptation={adaptation}", f"--model.supervision={supervision}") == []


def test_every_row_has_a_title_of_its_own():
    titles = {method(adaptation=a, supervision=s).title for a, s in ROWS}
    assert len(titles) == len(ROWS)
    assert {"Gaze-LLE", "Gaze-LLE + LoRA", "HCLoRA", "HCLoRA + OOC"} <= titles


def test_the_frozen_row_is_gazelle_bit_for_bit():
    torch.manual_seed(0)
    plain = GazeLLE(**{k: v for k, v in SMALL.items() if k not in ("adapted_blocks", "dropout")}, inout=True)
    row = method(adaptation="frozen", supervision="none")
    for mode in (True, False):
        one, other = plain.train(mode), row.train(mode)
        torch.manual_seed(3)
        a = one(batch())
        torch.manual_seed(3)
        b = other(batch())
        assert torch.equal(a.heatmap, b.heatmap)
        assert torch.equal(a.inout, b.inout)
    assert {n: p.shape for n, p in plain.export().items()} == {n: p.shape for n, p in row.export().items()}


def test_the_adapted_model_starts_at_gazelle():
    frozen, adapted = method(adaptation="frozen", supervision="none"), method()
    adapted.decoder.load_state_dict(frozen.decoder.state_dict())
    assert torch.allclose(adapted.eval()(batch()).heatmap, frozen.eval()(batch()).heatmap, atol=1e-6)


def test_objective_is_equation_8():
    model = shaken(method(supervised_layers=2, aux_weight=0.7, inout_weight=0.5, cone_angle=50.0, cone_sharpness=20.0))
    model.train()
    some = batch()
    prediction = model(some)
    losses = model.loss(prediction, some)
    point, head = some.targets.point[:2], (some.head[:2, :2] + some.head[:2, 2:]) / 2
    cone = cone_mask(head, point, (8, 8), 50.0, 20.0)
    expected = 0.0
    for layer in prediction.extra["auxiliary"]:
        evidence = layer[:2].softmax(1).view(2, 8, 8)
        for person in range(2):
            outside = sum(
                evidence[person, v, u] * (1 - cone[person, v, u]) for v, u in itertools.product(range(8), range(8))
            )
            expected += outside / evidence[person].sum() / 2 / 2  # people, layers
    assert losses["auxiliary"].item() == pytest.approx(0.7 * float(expected.detach()), rel=1e-5)
    inout = F.binary_cross_entropy(prediction.inout[:3], torch.tensor([1.0, 1.0, 0.0]))
    assert losses["inout"].item() == pytest.approx(0.5 * inout.item(), rel=1e-5)
    assert set(losses) == {"heatmap", "inout", "auxiliary"}


@pytest.mark.parametrize("supervision", ["vector", "heatmap", "cone", "ooc"])
def test_people_out_of_frame_or_without_a_box_take_no_part(supervision):
    model = shaken(method(supervision=supervision)).train()
    some = batch(missing=True)
    prediction = model(some)
    grads = torch.autograd.grad(model.loss(prediction, some)["auxiliary"], prediction.extra["auxiliary"])
    for grad in grads:
        assert grad[1].abs().sum() > 0
        assert not grad[[0, 2, 3]].any()
        assert grad.isfinite().all()


def test_nobody_in_frame_is_a_loss_of_zero():
    model = method().train()
    some = batch()
    some.targets.inout[:] = 0
    losses = model.loss(model(some), some)
    assert losses["auxiliary"].item() == 0
    torch.stack(list(losses.values())).sum().backward()


def test_alternatives_against_closed_forms():
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(3, 20, generator=generator), torch.rand(3, 20, generator=generator)
    p, q = truth / truth.sum(1, keepdim=True), logits.softmax(1)
    expected = [
        sum(a * math.log(a / b) for a, b in zip(row_p, row_q, strict=True))
        for row_p, row_q in zip(p.tolist(), q.tolist(), strict=True)
    ]
    assert divergence(logits, truth).tolist() == pytest.approx(expected, rel=1e-4)
    assert divergence(truth.log(), truth).abs().max() < 1e-6
    vector = method(supervision="vector")
    said, head, target = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.9]])
    assert vector.auxiliary_loss(said, head, target).item() == pytest.approx(1 - math.cos(math.radians(45)), abs=1e-6)


def test_evidence_is_asked_by_the_head():
    torch.manual_seed(0)
    low, head = torch.randn(2, 64, 4), torch.tensor([[0.2, 0.3], [0.6, 0.6]])
    prior = torch.rand(2, 64)
    pooled = pooled_at_head(low, prior)
    for person in range(2):
        weights = prior[person] / (prior[person].sum() + 1e-6)
        assert torch.allclose(pooled[person], sum(w * z for w, z in zip(weights, low[person], strict=True)), atol=1e-5)
    assert not pooled_at_head(low, torch.zeros(2, 64)).any()
    evidence = GazeEvidence(4)
    logits = evidence(low, prior, head, (8, 8))
    offset = cell_centres((8, 8))[5, 2] - head[1]
    question = evidence.question(pooled[1])
    answer = evidence.place(torch.cat([offset, offset / (offset.norm() + 1e-6)]))
    assert logits[1, 5 * 8 + 2].item() == pytest.approx(float((question @ answer).detach()) / 32**0.5, abs=1e-4)
    assert GazeVector(4)(low, prior, head, (8, 8)).shape == (2, 2)


def test_gradients_reach_adapters_gate_and_auxiliary_heads_and_nothing_frozen():
    model = shaken(method()).train()
    some = batch()
    torch.stack(list(model.loss(model(some), some).values())).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
        else:
            assert parameter.grad is None, name
            assert name.startswith("backbone."), name
    groups = ("down", "up", "gate")
    for part in groups:
        assert any(p.grad.abs().sum() > 0 for n, p in model.adaptation.named_parameters() if part in n), part
    assert all(p.grad.abs().sum() > 0 for p in model.auxiliary.parameters())


@pytest.mark.parametrize(("adaptation", "supervision"), ROWS)
def test_the_export_is_what_was_trained_and_no_more(adaptation, supervision):
    model = shaken(method(adaptation=adaptation, supervision=supervision))
    weights = model.export()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("auxiliary")}
    buffers = 1  # the decoder's position table, as in the official files
    assert sum(v.numel() for v in weights.values()) == sum(p.numel() for p in trained.values()) + (
        buffers * model.decoder.pos_embed.numel()
    )
    assert not any("auxiliary" in name for name in weights)
    again = method(adaptation=adaptation, supervision=supervision)
    again.load_export(weights)
    assert torch.equal(again.eval()(batch()).heatmap, model.eval()(batch()).heatmap)


def test_weights_of_another_row_are_named():
    with pytest.raises(ValueError, match=r"do not fit adaptation 'hclora'.*--model.adaptation"):
        method().load_export(method(adaptation="lora", supervision="none").export())
    with pytest.raises(ValueError, match="of another shape"):
        method().load_export(method(rank=4).export())


def test_it_starts_from_gazelle_or_from_itself(tmp_path):
    other = shaken(method(inout=False))
    for part in (other.export(), {n: v for n, v in other.export().items() if not n.startswith("adaptation")}):
        torch.save(part, tmp_path / "weights.pt")
        model = method()
        model.load_initial(tmp_path / "weights.pt")
        assert torch.equal(model.decoder.linear.weight, other.decoder.linear.weight)
        same = torch.equal(model.adaptation.residuals["5_qkv"].up.weight, other.adaptation.residuals["5_qkv"].up.weight)
        assert same == any(name.startswith("adaptation") for name in part)


def test_training_goes_on_with_its_auxiliary_heads():
    model, checkpoint = shaken(method()), {}
    model.on_save_checkpoint(checkpoint)
    assert not any(name.startswith("backbone") for name in checkpoint["state_dict"])
    again = method()
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"])
    for name, parameter in model.named_parameters():
        assert torch.equal(dict(again.named_parameters())[name], parameter), name


def test_supervision_needs_low_rank_features():
    with pytest.raises(ValueError, match=r"--model\.supervision none"):
        method(adaptation="lora", supervision="ooc")


@pytest.mark.parametrize("backbone", ["dinov2_vitb14", "dinov2_vitl14", "tiny"])
@pytest.mark.parametrize("dataset", ["gazefollow", "vat"])
def test_recipes_of_every_backbone(backbone, dataset):
    config = resolve(["hclora", dataset, "--dataset.root=x", f"--model.backbone={backbone}"])
    assert config.values["loader"]["people"] == {"gazefollow": "in_frame", "vat": "labelled"}[dataset]
    assert config.values["model"]["adapted_blocks"] == {"tiny": 2, "dinov2_vitb14": 4, "dinov2_vitl14": 8}[backbone]
    assert config.values["init"] == ("from:gazefollow" if dataset == "vat" and backbone != "tiny" else None)


def test_vat_without_gazefollow_weights_says_what_to_do(tmp_path):
    from gazebench.datasets.vat import VAT

    VAT.fake(tmp_path / "vat", people=12)
    config = small_config("hclora", "vat", f"--dataset.root={tmp_path / 'vat'}", "--init=from:gazefollow")
    with pytest.raises(DataError, match="make bench METHOD=hclora DATASET=gazefollow"):
        bench(config, Places(tmp_path / "runs", tmp_path / "boards"))


def test_identity_is_of_the_backbone_before_it_was_adapted():
    expected = method(adaptation="frozen", supervision="none").weights_identity()
    torch.manual_seed(0)
    for kind in ("full", "lora"):
        model = shaken(method(adaptation=kind, supervision="none"))
        assert model.weights_identity() == expected
    torch.manual_seed(0)
    assert expected["backbone"]["sha256"] == build_backbone("tiny", "random").digest()


def test_one_cycle_keeps_every_groups_own_peak():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 4e-3}]
    optimizer, schedule = adam_one_cycle(groups, 1e-3, 200)
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(199):
        optimizer.step()
        schedule["scheduler"].step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert max(rate[0] for rate in rates) == pytest.approx(1e-3, rel=1e-3)
    assert max(rate[1] for rate in rates) == pytest.approx(4e-3, rel=1e-3)
    assert rates[-1][1] < 1e-6


@pytest.mark.parametrize("steps", [0, 1, 2, 8, 20, 21, 40])
def test_one_cycle_of_few_steps(steps):
    optimizer, schedule = adam_one_cycle([{"params": [torch.nn.Parameter(torch.zeros(1))]}], 1e-3, steps)
    for _ in range(steps):
        assert 0 <= optimizer.param_groups[0]["lr"] <= 1e-3
        optimizer.step()
        schedule["scheduler"].step()


def test_augmentation_can_be_left_out():
    assert method().preprocess().crop == 0.5
    plain = method(augment=False).preprocess()
    assert (plain.crop, plain.flip, plain.box_jitter, plain.size) == (0, 0, 0, (112, 112))


def test_attention_kernels_agree():
    fused, plain = method().eval(), method(fused_attention=False).eval()
    plain.load_export(fused.export())
    assert torch.allclose(fused(batch()).heatmap, plain(batch()).heatmap, atol=1e-5)


@pytest.mark.parametrize(("name", "side"), [("dinov2_vitb14", 448), ("dinov2_vitl14", 112)])
def test_official_sizes_take_hub_weights_and_a_training_step(name, side, tmp_path):
    """Weights with torch.hub's names, made here; one person, in bfloat16, recomputing what it can.

    The larger one has the same grid of places as the other; its step is made on fewer of them, to spare minutes.
    """
    from gazebench.nn.backbones import build_backbone

    torch.manual_seed(0)
    source = build_backbone(name, "random", "timm")
    state = dict(source.model.state_dict()) | {"mask_token": torch.zeros(1, source.embed_dim)}
    torch.save(state, tmp_path / "hub.pth")
    digest = source.digest()
    del source, state
    model = HCLoRA(backbone=name, backbone_weights=str(tmp_path / "hub.pth"), compute_dtype="bfloat16", inout=True,
                   adapted_blocks=4, checkpointing=True, image_size=side if side != 448 else 0)  # fmt: skip
    assert model.backbone.digest() == digest
    assert model.size == (side, side)
    assert model.backbone.grid((448, 448)) == (32, 32)
    some = batch()
    targets = Targets(some.targets.point[:1], torch.tensor([1]), some.targets.points[:1], torch.tensor([0]), [""])
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    one = Batch(images, torch.tensor([0]), some.head[:1], ["a"], ["x"], ["x"], torch.full((1, 2), side), targets)
    losses = model.train().loss(model(one), one)
    torch.stack(list(losses.values())).sum().backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    before = model.adaptation.residuals[f"{model.adaptation.blocks[-1]}_qkv"].up.weight.clone()
    torch.optim.Adam(learning, lr=1e-3).step()
    assert not torch.equal(model.adaptation.residuals[f"{model.adaptation.blocks[-1]}_qkv"].up.weight, before)
