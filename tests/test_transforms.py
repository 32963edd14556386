"""Heatmaps against a cell-by-cell reference; augmentation against what it promises to keep."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from gazebench.data.images import load_image
from gazebench.data.transforms import Preprocess, View, apply_view, gaussian_heatmap, sample_view

NOBODY = np.zeros((0, 2))


def naive_heatmap(x, y, height, width, sigma):
    """The official target written out cell by cell."""
    heatmap = np.zeros((height, width))
    if math.isnan(x) or math.isnan(y) or x < 0 or y < 0:
        return heatmap
    column, row = int(x * width), int(y * height)
    for r in range(height):
        for c in range(width):
            if abs(r - row) <= 3 * sigma and abs(c - column) <= 3 * sigma:
                heatmap[r, c] = math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
    return heatmap / heatmap.max() if heatmap.max() > 0 else heatmap


@pytest.mark.parametrize(("size", "sigma"), [((64, 64), 3), ((24, 40), 2), ((56, 56), 3), ((7, 5), 1)])
def test_heatmap_is_the_official_target(size, sigma):
    nan = math.nan
    points = np.concatenate([
        np.random.default_rng(0).uniform(0, 1, (20, 2)),
        [[0, 0], [1, 1], [1, 0.5], [0.5, 1.05], [1.9, 0.5], [-0.01, 0.5], [0.5, -1], [-1, -1], [nan, 0.5], [0.5, nan],
         [nan, nan], [0.999999, 1e-9]],
    ])  # fmt: skip
    expected = np.stack([naive_heatmap(x, y, *size, sigma) for x, y in points])
    heatmap = gaussian_heatmap(torch.from_numpy(points), size, sigma)
    assert heatmap.dtype == torch.float32
    np.testing.assert_allclose(heatmap.numpy(), expected, atol=1e-6)
    assert gaussian_heatmap(torch.zeros(0, 2), size).shape == (0, *size)


ALWAYS = Preprocess(crop=1.0, flip=0.0, box_jitter=0.0)


def scene(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 900, 2))
    corners = rng.uniform(0, 1, (int(rng.integers(1, 5)), 2, 2))
    head = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return rng, width, height, head, rng.uniform(0, 1, (int(rng.integers(0, 6)), 2))


@pytest.mark.parametrize("seed", range(60))
def test_a_crop_keeps_every_box_and_target_of_everybody(seed):
    rng, width, height, head, points = scene(seed)
    x0, y0, x1, y1 = sample_view(rng, ALWAYS, width, height, head, points).crop
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    places = np.concatenate([head.reshape(-1, 2), points]) * (width, height)
    assert (places >= np.array([x0, y0]) - 1e-9).all()
    assert (places <= np.array([x1, y1]) + 1e-9).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_coordinates_follow_the_pixels(tmp_path, seed, flip):
    """A bright 3x3 target is found where apply_view says it is."""
    rng = np.random.default_rng(seed)
    width, height = 160, 120
    x, y = int(rng.integers(2, width - 2)), int(rng.integers(2, height - 2))
    image = np.zeros((height, width, 3), np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    point = np.array([[(x + 0.5) / width, (y + 0.5) / height]])
    head = np.array([[(x - 1) / width, (y - 1) / height, (x + 2) / width, (y + 2) / height]])
    view = sample_view(rng, Preprocess(crop=1.0, flip=flip, box_jitter=0.0), width, height, head, point)
    boxes, points = apply_view(view, head, point)
    seen = load_image(tmp_path / "a.png", crop=view.crop, flip=view.flip)
    assert view.size == seen.shape[1::-1]
    rows, columns = np.nonzero(seen[..., 0])
    np.testing.assert_allclose(points[0] * view.size, [columns.mean() + 0.5, rows.mean() + 0.5])
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0] * np.tile(view.size, 2), expected)


def test_without_augmentation_nothing_moves_and_two_flips_are_none():
    rng, width, height, head, points = scene(3)
    still = sample_view(rng, Preprocess(crop=0.0, flip=0.0, box_jitter=0.0), width, height, head, points)
    assert (still.crop, still.flip, still.size) == (None, False, (width, height))
    flipped = View((width, height), None, True, np.zeros_like(head))
    once = apply_view(flipped, head, points)
    for moved, twice, given in zip(
        apply_view(still, head, points), apply_view(flipped, *once), (head, points), strict=True
    ):
        np.testing.assert_array_equal(moved, given)
        np.testing.assert_allclose(twice, given)


def test_jitter_moves_each_side_by_up_to_a_fifth_of_the_box():
    head = np.tile([0.4, 0.3, 0.6, 0.7], (4000, 1))
    preprocess = Preprocess(crop=0.0, flip=0.0, box_jitter=0.5)
    view = sample_view(np.random.default_rng(0), preprocess, 100, 100, head, NOBODY)
    move = (apply_view(view, head, NOBODY)[0] - head) / (0.2, 0.4, 0.2, 0.4)
    assert 0.19 < np.abs(move).max() <= 0.2 + 1e-9
    moved = (move != 0).any(axis=1)
    assert 0.46 < moved.mean() < 0.54
    np.testing.assert_allclose(move[moved].std(axis=0), 0.4 / math.sqrt(12), rtol=0.05)
    whole = np.tile([0.0, 0.0, 1.0, 1.0], (50, 1))
    view = sample_view(np.random.default_rng(0), Preprocess(box_jitter=1.0), 100, 100, whole, NOBODY)
    boxes, _ = apply_view(view, whole, NOBODY)
    assert (boxes.min() >= 0, boxes.max() <= 1, (boxes[:, 2:] > boxes[:, :2]).all()) == (True, True, True)


def test_people_without_a_box_or_target_do_not_hold_a_crop_back():
    head, points = np.array([[0.5, 0.5, 0.6, 0.6], [np.nan] * 4]), np.array([[np.nan, np.nan]])
    views = [sample_view(np.random.default_rng(seed), ALWAYS, 100, 100, head, points) for seed in range(30)]
    assert min(view.size[0] for view in views) < 50
    boxes, moved = apply_view(views[0], head, points)
    assert np.isnan(boxes).all(axis=1).tolist() == [False, True]
    assert np.isnan(moved).all()
    assert sample_view(np.random.default_rng(0), ALWAYS, 100, 100, head[1:], points).crop is None


def test_the_generator_alone_decides():
    _, width, height, head, points = scene(5)

    def draw(*seed):
        view = sample_view(np.random.default_rng(seed), Preprocess(), width, height, head, points)
        return view.crop, view.flip, view.jitter.tolist()

    assert draw(0, 1, 2) == draw(0, 1, 2) != draw(0, 2, 2)
    draws = [draw(0, 0, image) for image in range(400)]
    assert 0.42 < np.mean([crop is None for crop, _, _ in draws]) < 0.58
    assert 0.42 < np.mean([flip for _, flip, _ in draws]) < 0.58
