"""Writes a Qwen3-VL as a folder for transformers and servers: ``python scripts/save_vlm.py tiny runs/tiny-vlm``.

The embedded one then answers ``gazebench vqa ask --backend transformers --model runs/tiny-vlm --shots 3``; with
``--weights`` so does one that ``vl4gaze`` tuned as a whole (``--model.tuning=full`` or ``language``), from its run's
``weights.pt``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gazebench.core.errors import UserError
from gazebench.nn.qwen3vl import load


def main(arguments: Sequence[str] | None = None) -> None:
    """Loads and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="tiny, a folder, or a model's id on the hub")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="pretrained", help="pretrained, random or a file")
    options = parser.parse_args(arguments)
    try:
        vlm = load(options.name, options.weights)
    except UserError as error:  # of weights that are none, or of another model
        parser.error(str(error))
    vlm.model.save_pretrained(options.folder)
    vlm.processor.save_pretrained(options.folder)
    print(f"{options.folder}: {options.name}, weights {vlm.identity['weights']}")


if __name__ == "__main__":
    main()
