"""Recall and precision of a head detector on the annotated head boxes of a data set's test and training images.

A head is found if a detection overlaps it with an IoU of .3 (or .5); each detection is used once, the largest overlap
first. Where a data set annotates one person a picture (GazeFollow), precision says nothing: the others are heads too.
Run: python benchmarks/heads.py vat DIR [--detector FILE] [--confidence .3] [--split test] [--sheet sheet.jpg]
The sheet shows heads that were found in green, those that were missed in red, and other detections in yellow.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gazebench.core.boxes import FloatArray
from gazebench.data.detector import CENTERFACE, HeadDetector
from gazebench.data.head_boxes import matched
from gazebench.engine.registry import load_dataset

TILE = 320


def tile(picture: np.ndarray, boxes: list[tuple[FloatArray, str]]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((TILE, TILE))
    pen = ImageDraw.Draw(image)
    for box, colour in boxes:
        pen.rectangle(tuple(box * (image.size * 2)), outline=colour, width=2)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", action="append")
    parser.add_argument("--detector", default=CENTERFACE)
    parser.add_argument("--confidence", type=float, default=0.3)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    data = load_dataset(given.dataset)(root=given.root, bad_rows="skip")
    detector = HeadDetector(given.detector, given.confidence)
    for split in given.split or ["trainval", "test"]:
        records = data.records(split)
        found, tiles, detections, images, seconds = [], [], 0, 0, 0.0
        for image in range(len(records)):
            picture, heads = data.image(records, image), records.head[records.person_image == image]
            begun = time.perf_counter()
            boxes, _ = detector(picture)
            seconds += time.perf_counter() - begun
            one = np.zeros(len(heads), np.int64), np.zeros(len(boxes), np.int64)
            pairs = matched(heads, one[0], boxes, one[1])
            overlap = np.zeros(len(heads))
            for mine, _, iou in pairs:
                overlap[mine] = iou
            found.append(overlap)
            detections, images = detections + len(boxes), images + 1
            used = {box for _, box, _ in pairs}
            colours = [(box, "yellow") for i, box in enumerate(boxes) if i not in used]
            colours += [(box, "lime" if iou else "red") for box, iou in zip(heads, overlap, strict=True)]
            tiles.append(tile(picture, colours))
        overlaps = np.concatenate(found)
        small = np.sqrt(np.prod(records.head[:, 2:] - records.head[:, :2], axis=1)) < 0.1
        at = {level: (overlaps >= level).mean() for level in (0.3, 0.5)}
        print(
            f"{given.dataset}/{split}: {images} images, {len(overlaps)} heads; recall at IoU .3 {at[0.3]:.3f}, at .5 "
            f"{at[0.5]:.3f}; of the {small.sum()} below a tenth of the picture "
            f"{(overlaps[small] >= 0.3).mean():.3f}; "
            f"precision {(overlaps >= 0.3).sum() / detections:.3f} of {detections}; {seconds / images:.2f} s an image"
        )
        if given.sheet:
            columns = 8
            sheet = Image.new("RGB", (TILE * columns, TILE * -(-len(tiles) // columns)))
            for i, one_tile in enumerate(tiles):
                sheet.paste(one_tile, (i % columns * TILE, i // columns * TILE))
            sheet.save(given.sheet.with_stem(f"{given.sheet.stem}_{split}"))


if __name__ == "__main__":
    main()
