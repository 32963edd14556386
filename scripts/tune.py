"""One experiment for choosing settings: trains on GazeWorld's train scenes, scores its validation scenes.

``python scripts/tune.py NOTE METHOD [--model.x ...]`` appends a line to studies/tuning.jsonl. No test
scene plays a part.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lightning import Trainer, seed_everything

from gazebench.bench import data_module, quiet
from gazebench.config import resolve

LOG = Path(__file__).resolve().parent.parent / "studies" / "tuning.jsonl"


def main(arguments: list[str]) -> None:
    """Trains, scores, logs."""
    note, method_name, *options = arguments
    config = resolve([method_name, "gazeworld", "--loader.selection=val", *options])
    quiet()
    seed_everything(config.values["seed"], verbose=False)
    method = config.method(**config.values["model"])
    dataset = config.dataset(**config.values["dataset"])
    module = data_module(config, dataset, method)
    method.score_by(dataset.protocol)
    settings = {**config.values["trainer"], "enable_progress_bar": False}
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
                      num_sanity_val_steps=0, use_distributed_sampler=False, **settings)  # fmt: skip
    begun = time.monotonic()
    trainer.fit(method, module)
    seconds = time.monotonic() - begun
    scorer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
                     use_distributed_sampler=False)  # fmt: skip
    kept = {}
    finish = method._finish
    method._finish = lambda: kept.setdefault("scores", finish())  # type: ignore[method-assign]
    scorer.validate(method, module, verbose=False)
    scores = {
        name: {subset: round(score.value, 4) for subset, score in subsets.items()}
        for name, subsets in kept["scores"].items()
    }
    line = {"note": note, "method": method_name, "options": options, "seconds": round(seconds), "scores": scores,
            "trained": sum(p.numel() for p in method.parameters() if p.requires_grad)}  # fmt: skip
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    short = {name: scores[name] for name in ("avg_l2", "avg_angle", "ap") if name in scores}
    print(note, round(seconds), "s", json.dumps(short))


if __name__ == "__main__":
    main(sys.argv[1:])
