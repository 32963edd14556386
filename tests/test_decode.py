"""Decoders: each with the pixel convention it states."""

import numpy as np
import pytest
import torch

from gazebench.metrics.decode import DECODERS, argmax_plus_one, argmax_point, dark


def bell(x, y, size=64, sigma=3.0):
    grid = torch.arange(size, dtype=torch.float32)
    return torch.exp(-((grid - x) ** 2)[None, :] / (2 * sigma**2) - ((grid - y) ** 2)[:, None] / (2 * sigma**2))


def test_argmax_is_index_over_size_without_half_a_cell():
    heatmap = torch.zeros(3, 64, 64)
    heatmap[0, 10, 20] = heatmap[1, 0, 0] = heatmap[2, 63, 63] = 1
    assert argmax_point(heatmap).tolist() == [[20 / 64, 10 / 64], [0, 0], [63 / 64, 63 / 64]]
    assert argmax_plus_one(heatmap).tolist() == [[21 / 64, 11 / 64], [1 / 64, 1 / 64], [1, 1]]


def test_first_maximum_on_ties():
    rng = np.random.default_rng(0)
    heatmap = torch.tensor(rng.integers(0, 3, (200, 9, 13)).astype(np.float32))
    heatmap[0] = 1
    cells = [np.unravel_index(one.argmax(), one.shape) for one in heatmap.numpy()]
    np.testing.assert_allclose(argmax_point(heatmap), [[column / 13, row / 9] for row, column in cells], rtol=1e-6)


def test_dark_finds_the_sub_pixel_centre_of_a_gaussian():
    centers = np.random.default_rng(1).uniform(12, 52, (50, 2))
    heatmaps = torch.stack([bell(x, y) for x, y in centers])
    np.testing.assert_allclose(dark(heatmaps).numpy() * 64, centers, atol=0.02)
    assert np.abs(argmax_point(heatmaps).numpy() * 64 - centers).max() > 0.4


def test_dark_stays_at_the_border_and_on_flat_maps():
    heatmaps = torch.stack([bell(0, 30), bell(63, 63), torch.ones(64, 64)])
    assert torch.equal(dark(heatmaps), argmax_point(heatmaps))


@pytest.mark.parametrize("name", DECODERS)
def test_everybody_has_a_point_but_those_whose_map_is_not_a_number(name):
    heatmap = torch.rand(20, 32, 48, generator=torch.Generator().manual_seed(0))
    heatmap[1, 3, 4] = torch.nan
    point = DECODERS[name](heatmap)
    assert point.shape == (20, 2)
    assert point[1].isnan().all()
    assert int(point.isfinite().all(1).sum()) == 19
