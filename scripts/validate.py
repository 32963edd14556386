"""For choosing settings: trains a method on a data set's train split and scores the validation split, per subset.

``python scripts/validate.py METHOD DATASET [--model.x ...]`` prints one line of JSON. Test samples are not used,
nothing is recorded, and a killed training starts anew.
"""

from __future__ import annotations

import json
import sys
import time

from lightning import Trainer, seed_everything

from gazebench.engine.config import resolve
from gazebench.engine.run import data_module
from gazebench.engine.train import quiet


def main(arguments: list[str]) -> None:
    config = resolve(["--loader.selection=val", *arguments])
    quiet()
    seed_everything(config.values["seed"], verbose=False)
    method = config.method(**config.values["model"])
    module = data_module(config, config.dataset(**config.values["dataset"]), method)
    method.score_by(module.dataset.protocol)
    settings = {**config.values["trainer"], "enable_progress_bar": sys.stderr.isatty()}
    trainer = Trainer(
        logger=False, enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False, **settings,
    )  # fmt: skip
    began = time.monotonic()
    trainer.fit(method, module)
    duration = time.monotonic() - began
    assert method.evaluator is not None
    method.eval()
    for batch in module.val_dataloader():
        method.evaluator.update(method.predict_batch(batch), batch)
    scores = {
        name: {subset: round(score.value, 4) for subset, score in subsets.items()}
        for name, subsets in method.evaluator.compute().items()
    }
    print(json.dumps({"arguments": arguments, "seconds": round(duration), "scores": scores}))


if __name__ == "__main__":
    main(sys.argv[1:])
