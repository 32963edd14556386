"""The cone of equations 5 to 7, the auxiliary heads and the alternatives of Table 4, against loops and closed forms."""

import math

import pytest
import torch

from gazebench.data.transforms import cone_mask
from gazebench.methods.hclora.adaptation import cell_centres
from gazebench.methods.hclora.supervision import GazeEvidence, divergence, outside_ratio, pooled_at_head

SIZE = (16, 24)


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
