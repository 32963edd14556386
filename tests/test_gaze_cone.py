"""The cone of equations 5 to 7 against closed forms and a loop over cells."""

import math

import pytest
import torch

from gazebench.methods.hclora.gaze_cone import cell_centres, cone_mask, outside_ratio

SIZE = (16, 24)


def loop(head, target, size, angle, sharpness):
    """Equations 5 and 6 cell by cell, in plain floats."""

    def sigmoid(x):
        return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

    dx, dy = target[0] - head[0], target[1] - head[1]
    length = math.hypot(dx, dy) + 1e-6
    dx, dy = dx / length, dy / length
    rows = []
    for v in range(size[0]):
        row = []
        for u in range(size[1]):
            px, py = (u + 0.5) / size[1] - head[0], (v + 0.5) / size[0] - head[1]
            t = px * dx + py * dy
            perpendicular = math.hypot(px - t * dx, py - t * dy)
            border = max(t, 0) * math.tan(math.radians(angle) / 2) - perpendicular
            row.append(sigmoid(sharpness * border) * sigmoid(sharpness * t))
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("angle", [20.0, 60.0, 120.0])
@pytest.mark.parametrize("sharpness", [5.0, 50.0])
def test_mask_equals_a_loop(angle, sharpness):
    generator = torch.Generator().manual_seed(0)
    head, target = torch.rand(12, 2, generator=generator), torch.rand(12, 2, generator=generator)
    mask = cone_mask(head, target, SIZE, angle, sharpness)
    expected = torch.stack(
        [loop(h, g, SIZE, angle, sharpness) for h, g in zip(head.tolist(), target.tolist(), strict=True)]
    )
    assert torch.allclose(mask, expected, atol=2e-5)


def test_at_the_head_before_it_and_behind_it():
    head = cell_centres((9, 9))[4, 4][None]
    mask = cone_mask(head, head + torch.tensor([[0.3, 0.0]]), (9, 9), 60.0, 200.0)[0]
    assert mask[4, 4] == pytest.approx(0.25)  # sigmoid(0) squared
    assert (mask[4, 6:] > 0.999).all()
    assert (mask[:, :4] < 1e-6).all()
    assert mask[0, 5] < 1e-6  # ahead, far aside


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_turning_the_picture_turns_the_mask(degrees):
    """On a square grid about its centre, at angles across the wrap: inside is what lies within half the opening."""
    size, head = (33, 33), torch.tensor([[0.5, 0.5]])
    radians = math.radians(degrees)
    direction = torch.tensor([[math.cos(radians), math.sin(radians)]])
    mask = cone_mask(head, head + 0.4 * direction, size, 60.0, 2000.0)[0]
    offset = cell_centres(size) - head
    away = torch.atan2(offset[..., 1], offset[..., 0]) - radians
    away = torch.remainder(away + math.pi, 2 * math.pi) - math.pi
    clear = (offset.norm(dim=-1) > 0.05) & ((away.abs() - math.radians(30)).abs() > 0.1)
    assert torch.equal((mask > 0.5)[clear], (away.abs() < math.radians(30))[clear])


def test_penalty_is_0_deep_inside_1_behind_and_linear_between():
    size, head, target = (32, 32), torch.tensor([[0.25, 0.5]]), torch.tensor([[0.8, 0.5]])
    cone = cone_mask(head, target, size, 60.0, 100.0)
    inside, behind = torch.zeros(2, 1, *size)
    inside[0, 16, 20:28] = 1 / 8
    behind[0, 10:20, :4] = 1 / 40
    assert outside_ratio(inside, cone).item() == pytest.approx(0, abs=1e-4)
    assert outside_ratio(behind, cone).item() == pytest.approx(1, abs=1e-4)
    assert outside_ratio(0.3 * inside + 0.7 * behind, cone).item() == pytest.approx(0.7, abs=1e-4)
    assert outside_ratio(5 * behind, cone).item() == pytest.approx(1, abs=1e-4)  # a ratio: no scale


def test_penalty_of_everything_everywhere_is_the_share_outside():
    cone = cone_mask(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.1]]), SIZE, 90.0, 30.0)
    assert outside_ratio(torch.ones(1, *SIZE), cone).item() == pytest.approx(1 - cone.mean().item(), abs=1e-6)


def test_no_direction_is_no_crash():
    """A target at the head's centre: d is 0, every t is 0, and only the nearest cells keep up to 1/4."""
    mask = cone_mask(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]), SIZE)
    assert mask.isfinite().all()
    assert mask.max() <= 0.25


@pytest.mark.parametrize("angle", [0.0, 180.0, -3.0])
def test_an_impossible_opening_is_named(angle):
    with pytest.raises(ValueError, match="180 degrees"):
        cone_mask(torch.rand(1, 2), torch.rand(1, 2), SIZE, angle)
