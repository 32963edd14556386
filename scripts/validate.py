"""For choosing settings: trains a method on a data set's train split and scores the validation split, per subset.

``python scripts/validate.py METHOD DATASET [--model.x ...]`` prints one line of JSON. Test samples are not used,
nothing is recorded, and a killed training starts anew.
"""

from __future__ import annotations

import json
import sys
import time

from lightning import Trainer, seed_everything

from gazebench.engine.callbacks import Validation
from gazebench.engine.config import resolve
from gazebench.engine.run import data_module
from gazebench.engine.train import quiet


def main(arguments: list[str]) -> None:
    config = resolve(["--loader.selection=val", *arguments])
    quiet()
    seed_everything(config.values["seed"], verbose=False)
    method = config.new_method()
    module = data_module(config, config.new_dataset(), method)
    method.observe(module.annotations())
    settings = {
        "logger": False, "enable_checkpointing": False, "enable_model_summary": False, "use_distributed_sampler": False,
        **config.values["trainer"], "enable_progress_bar": sys.stderr.isatty(),
    }  # fmt: skip
    began = time.monotonic()
    if any(parameter.requires_grad for parameter in method.parameters()):
        Trainer(limit_val_batches=0, **settings).fit(method, module)
    duration = time.monotonic() - began
    validation = Validation(module)
    Trainer(callbacks=[validation], **settings).validate(method, module, verbose=False)
    scores = {
        name: {subset: round(score.value, 4) for subset, score in subsets.items()}
        for name, subsets in validation.scorer.compute().items()
    }
    print(json.dumps({"arguments": arguments, "seconds": round(duration), "scores": scores}))


if __name__ == "__main__":
    main(sys.argv[1:])
