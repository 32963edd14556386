"""What happens to a picture and its people before a network: size, training augmentation, heatmap targets.

Augmentation is geometry first: a ``View`` is drawn for an image with all its people, then one decode crops, resizes
and mirrors. The published recipe draws a view per person; an image is encoded once for all its people here, so they
share one (crop and flip), while every box is jittered by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as colours

from gazebench.core.boxes import FloatArray


@dataclass(frozen=True)
class HeadCrops:
    """How heads are cut out of the whole picture, at the resolution of its file.

    Attributes:
        side: of the square crops in pixels; a box's aspect is not kept.
        before: share of a box's width and height added on its left and upper side.
        after: the same on its right and lower side.
        square: the widened box, clipped to the picture, becomes a square around its centre with its longer side, which
            may leave the picture again (Sharingan).
    """

    side: int
    before: float = 0.0
    after: float = 0.0
    square: bool = False

    def boxes(self, head: Tensor, sizes: Tensor) -> Tensor:
        """(P, 4) float64 xyxy in pixels: the widened boxes of heads (P, 4), normalised, in pictures of sizes (P, 2)."""
        extent = sizes.double().repeat(1, 2)
        # A box annotated in pixels has its exact corners again: float32 does not divide and multiply back.
        box = (head.double() * extent).round(decimals=3)
        width = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        box = box + width * width.new_tensor([-self.before, -self.before, self.after, self.after])
        if self.square:
            box = box.clamp(min=0).minimum(extent)
            centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).amax(1, keepdim=True) / 2
            box = torch.cat([centre - half, centre + half], dim=1)
        return box

    def cut(self, picture: Tensor, head: Tensor) -> Tensor:
        """(P, 3, side, side) uint8 of a picture (3, H, W) uint8 and heads (P, 4), normalised; black outside.

        Corners are cut to integers towards zero, as in the official codes; the crops are then resized with
        antialiasing. A row of NaN, or a box that is empty after the cut, gives a black crop.
        """
        height, width = picture.shape[1:]
        boxes = self.boxes(head, torch.tensor([[width, height]]).expand(len(head), 2))
        crops = picture.new_zeros(len(head), 3, self.side, self.side)
        for row, box in enumerate(boxes.nan_to_num(0.0).trunc().long().tolist()):
            x0, y0, x1, y1 = box
            if x1 <= max(x0, 0) or y1 <= max(y0, 0) or x0 >= width or y0 >= height:
                continue  # empty, or wholly outside
            left, top = max(x0, 0), max(y0, 0)
            inside = picture[:, top : min(y1, height), left : min(x1, width)]
            beyond = [left - x0, x1 - left - inside.shape[2], top - y0, y1 - top - inside.shape[1]]
            padded = F.pad(inside, beyond)
            crops[row] = F.interpolate(padded[None], (self.side, self.side), mode="bilinear", antialias=True)[0]
        return crops


@dataclass(frozen=True)
class Clips:
    """How a method that looks at several frames of a track is trained: on windows of a clip, a few frames a step.

    At evaluation it sees whole clips in order, in batches of any size.

    Attributes:
        frames: of a window, at most; every epoch draws one window a clip, with one view (crop, flip, jitter, colours).
        chunk: consecutive frames of a window in a training batch; the next batch has the next ones.
        reach: for methods that look ahead too: how many rows of a track are answered together (``Batch.window``). A
            track is cut into such windows from its first row on; the last is moved back so that it is whole, and a
            shorter track repeats its last row. An epoch has every frame once, in windows of a clip of so many frames.
            0 for methods that remember.
    """

    frames: int = 50
    chunk: int = 3
    reach: int = 0

    @classmethod
    def of_windows(cls, reach: int) -> Clips:
        """For a method that answers so many rows of a track together."""
        return cls(reach, reach, reach)


@dataclass(frozen=True)
class Preprocess:
    """What a method wants of its input.

    Attributes:
        size: (H, W) of the image in pixels; the aspect is not kept.
        heatmap_size: (h, w) of its targets.
        sigma: of the target Gaussian, in cells.
        crop: probability of a random crop in training.
        flip: of a horizontal flip.
        box_jitter: of moving the sides of a head box.
        jitter: largest move, as a share of the box's width or height.
        colour: probability of other colours in training: brightness and contrast by a factor between .5 and 1.5,
            saturation by one between 0 and 1.5, of the picture and of what is cut out of it.
        heads: how heads are cut out for ``Batch.heads``; None for methods that need none.
        depth: whether ``Batch.depth`` is needed.
        clips: how clips are trained on, for methods that remember; None for methods of single pictures.
    """

    size: tuple[int, int] = (448, 448)
    heatmap_size: tuple[int, int] = (64, 64)
    sigma: float = 3.0
    crop: float = 0.5
    flip: float = 0.5
    box_jitter: float = 0.5
    jitter: float = 0.2
    colour: float = 0.0
    heads: HeadCrops | None = None
    depth: bool = False
    clips: Clips | None = None

    @classmethod
    def square(cls, side: int, augment: bool) -> Preprocess:
        """A square input of ``side`` pixels; without ``augment``, training sees images and boxes as they are."""
        return cls((side, side)) if augment else cls((side, side), crop=0.0, flip=0.0, box_jitter=0.0)


@dataclass(frozen=True, eq=False)
class View:
    """What one training step sees of an image.

    Attributes:
        original: width, height in pixels of the image.
        crop: xmin, ymin, xmax, ymax in pixels, end exclusive; None is the whole image.
        flip: mirrored, after cropping.
        jitter: (P, 4) moves of the sides of the head boxes, as shares of their width or height.
        colour: factors of brightness, contrast and saturation; None leaves the colours alone.
    """

    original: tuple[int, int]
    crop: tuple[int, int, int, int] | None
    flip: bool
    jitter: FloatArray
    colour: tuple[float, float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels of the crop."""
        if self.crop is None:
            return self.original
        x0, y0, x1, y1 = self.crop
        return x1 - x0, y1 - y0


def sample_view(
    rng: np.random.Generator, preprocess: Preprocess, width: int, height: int, head: FloatArray, points: FloatArray
) -> View:
    """Draws crop, flip and box jitter as Gaze-LLE's training does; the generator alone decides.

    Args:
        rng: seeded by the caller, so that neither workers nor epochs matter.
        preprocess: the probabilities.
        width: of the image in pixels.
        height: of the image in pixels.
        head: (P, 4) normalised; NaN for people without a box.
        points: (G, 2) normalised targets in frame.

    Returns:
        A view whose crop holds every head box and every point whole.
    """
    crop = None
    corners = np.concatenate([head.reshape(-1, 2), points]) * (width, height)
    corners = corners[np.isfinite(corners).all(axis=1)].clip(0, (width, height))
    if rng.random() < preprocess.crop and len(corners):
        extent = np.array([width, height])
        low = np.minimum(np.floor(corners.min(axis=0)), extent - 1).astype(int)
        start = rng.integers(0, low, endpoint=True)
        end = rng.integers(np.maximum(np.ceil(corners.max(axis=0)).astype(int), start + 1), extent, endpoint=True)
        crop = (int(start[0]), int(start[1]), int(end[0]), int(end[1]))
    flip = bool(rng.random() < preprocess.flip)
    moved = rng.random((len(head), 1)) < preprocess.box_jitter
    jitter = rng.uniform(-preprocess.jitter, preprocess.jitter, head.shape) * moved
    colour = None
    if preprocess.colour and rng.random() < preprocess.colour:
        brightness, contrast, saturation = rng.uniform((0.5, 0.5, 0.0), 1.5).tolist()
        colour = (brightness, contrast, saturation)
    return View((width, height), crop, flip, jitter, colour)


def recoloured(picture: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """(3, H, W) uint8 with other brightness, contrast and saturation, changed in this order by these factors."""
    for change, factor in zip(
        (colours.adjust_brightness, colours.adjust_contrast, colours.adjust_saturation), colour, strict=True
    ):
        picture = change(picture, factor)
    return picture


def apply_view(view: View, head: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Head boxes (P, 4) and points (G, 2), normalised to the image, as they stand in the view, normalised to it.

    Boxes are jittered last and clipped to the view, as in the official order; points are not clipped.
    """
    width, height = view.original
    x0, y0, x1, y1 = view.crop or (0, 0, width, height)
    origin = np.array([x0 / width, y0 / height])
    scale = np.array([width / (x1 - x0), height / (y1 - y0)])
    head = ((head.reshape(-1, 2, 2) - origin) * scale).reshape(-1, 4)
    points = (points - origin) * scale
    if view.flip:
        head = np.stack([1 - head[:, 2], head[:, 1], 1 - head[:, 0], head[:, 3]], axis=1)
        points = np.stack([1 - points[:, 0], points[:, 1]], axis=1)
    extent = np.tile(head[:, 2:] - head[:, :2], 2)
    return np.clip(head + view.jitter * extent, 0.0, 1.0), points


def gaussian_heatmap(
    points: Tensor,
    size: tuple[int, int] = (64, 64),
    sigma: float = 3.0,
    around: Literal["cell", "window", "point"] = "cell",
) -> Tensor:
    """(P, h, w) float32 in [0, 1], the official target of points (P, 2), normalised.

    A Gaussian, cut to a square of 6 sigma + 1 cells and divided by its largest visible value. With p the point in cells
    and r = 3 sigma it stands ``around``

    - ``cell``: the cell that holds the point, int(p), as in Gaze-LLE; a negative point gives zeros;
    - ``window``: the middle of the window from int(p - r) to int(p + r + 1), both cut towards zero, as in Chong et
      al. (CVPR 2020) and PDP: one cell further where p < r;
    - ``point``: the point itself, in the same window, as in Sharingan.

    Zeros for a point that is NaN or so far outside that nothing of it is visible.
    """
    height, width = size
    scale = torch.tensor([width, height], dtype=torch.float64, device=points.device)
    known = points.isfinite().all(dim=1, keepdim=True)
    if around == "cell":
        known = known & (points >= 0).all(dim=1, keepdim=True)
    cells = torch.where(known, points.double() * scale, -torch.inf)
    reach = int(3 * sigma)

    def profile(at: Tensor, length: int) -> Tensor:
        cell, at = torch.arange(length, device=points.device), at[:, None]
        start = at.trunc() - reach if around == "cell" else (at - reach).trunc()
        stop = at.trunc() + reach + 1 if around == "cell" else (at + reach + 1).trunc()
        offset = cell - (at if around == "point" else start + reach)
        bell = torch.exp(-(offset**2) / (2 * sigma**2)) * ((cell >= start) & (cell < stop))
        return bell / bell.amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)

    return (profile(cells[:, 1], height)[:, :, None] * profile(cells[:, 0], width)[:, None, :]).float()


def stretched(maps: Tensor) -> Tensor:
    """(P, h, w) any real numbers -> heatmaps in [0, 1], each shifted and scaled to reach from 0 to 1.

    The place of the maximum and the order of cells stay, also under linear resizing: points and areas under the curve
    are those of the map itself, which squared error leaves free to fall below 0.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def cell_centres(grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """(h, w, 2) float32: normalised x, y of the centre of every cell of a grid (h, w)."""
    height, width = grid
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def cone_mask(
    head: Tensor, target: Tensor, grid: tuple[int, int], angle: float = 60.0, sharpness: float = 50.0
) -> Tensor:
    """A soft cone from heads towards targets, C(p) of HCLoRA's equations 5 and 6.

    It is near 1 inside, near 0 outside and behind, and 1/4 at the head itself.

    Args:
        head: (P, 2) normalised centre of the head.
        target: (P, 2) normalised gaze target; NaN gives NaN. At the head's own centre there is no direction: the mask
            is then at most 1/4 everywhere.
        grid: (h, w) of the mask; its cells stand for their centres.
        angle: theta, the full opening in degrees, between 0 and 180.
        sharpness: alpha, per unit of normalised length.

    Returns:
        (P, h, w) float32 in [0, 1].
    """
    if not 0 < angle < 180:
        raise ValueError(f"a cone opens by more than 0 and less than 180 degrees, got {angle}")
    direction = (target - head) / ((target - head).norm(dim=-1, keepdim=True) + 1e-6)  # d, (P, 2)
    offset = cell_centres(grid, head.device) - head[:, None, None]  # p - h, (P, h, w, 2)
    along = (offset * direction[:, None, None]).sum(-1)  # t(p), (P, h, w)
    across = (offset - along[..., None] * direction[:, None, None]).norm(dim=-1)
    border = along.clamp_min(0) * math.tan(math.radians(angle) / 2) - across
    return (sharpness * border).sigmoid() * (sharpness * along).sigmoid()
