"""Which heads of consecutive frames are the same person's.

An own assignment by overlap: of the kept tracker libraries, ``trackers`` brings OpenCV (190 MB, with a second FFmpeg
beside PyAV's), ``norfair`` wants NumPy 1, and ``supervision`` has none any more. All of them measure how long somebody
may be lost in frames, which says nothing where the frame rate varies.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from gazebench.core.boxes import FloatArray

LEAST_OVERLAP = 0.1
"""IoU of a head with the last one of its track, at least."""


class HeadTracks:
    """Numbers the people of a video from 1, frame by frame.

    Heads go to tracks so that the sum of the overlaps (IoU) is largest; a head that overlaps none begins a track. A cut
    to another shot ends no track whose place has a head again.

    Args:
        lost: how many seconds a track without a head goes on waiting where it was last seen.
    """

    def __init__(self, lost: float = 1.0) -> None:
        self.lost, self._count = lost, 0
        self._tracks: dict[int, tuple[float, FloatArray]] = {}

    def update(self, seconds: float, boxes: FloatArray) -> list[int]:
        """The numbers of the people with heads (K, 4), at a time later than that of the last call."""
        self._tracks = {one: seen for one, seen in self._tracks.items() if seconds - seen[0] <= self.lost}
        numbers, found = list(self._tracks), [0] * len(boxes)
        if numbers and len(boxes):
            known = torch.from_numpy(np.stack([box for _, box in self._tracks.values()]))
            overlap = box_iou(torch.from_numpy(boxes), known).numpy()
            overlap[overlap < LEAST_OVERLAP] = 0
            for head, track in zip(*linear_sum_assignment(-overlap), strict=True):
                found[head] = numbers[track] if overlap[head, track] else 0
        for head, box in enumerate(boxes):
            if not found[head]:
                self._count += 1
                found[head] = self._count
            self._tracks[found[head]] = (seconds, box)
        return found
