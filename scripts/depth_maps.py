"""Depth maps of a data set's pictures: ``python scripts/depth_maps.py gazefollow --root ... --out ...``.

A model of transformers estimates them. One grey PNG of 16 bits a picture, stretched over its whole range, larger where
it is nearer, under the picture's path; maps that are there already are kept. A model that predicts metric depth, larger
where it is farther, needs ``--far-is-large``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

from gazebench.engine.registry import load_dataset


def main() -> None:
    """Writes the maps of all pictures of train, val and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="Intel/dpt-hybrid-midas")
    parser.add_argument("--far-is-large", action="store_true")
    given = parser.parse_args()
    estimate = pipeline("depth-estimation", model=given.model)
    dataset = load_dataset(given.dataset)(root=given.root)
    for split in ("trainval", "test"):
        records = dataset.records(split)
        for image, name in enumerate(records.images.tolist()):
            target = given.out / Path(name).with_suffix(".png")
            if target.is_file():
                continue
            width, height = records.sizes[image].tolist()
            depth = np.asarray(estimate(Image.fromarray(dataset.image(records, image)))["predicted_depth"]).squeeze()
            depth = -depth if given.far_is_large else depth
            fitted = np.asarray(Image.fromarray(depth.astype(np.float32)).resize((width, height)))
            low, high = float(fitted.min()), float(fitted.max())
            levels = (fitted - low) / max(high - low, 1e-9) * 65535
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels.round().astype(np.uint16)).save(target)


if __name__ == "__main__":
    main()
