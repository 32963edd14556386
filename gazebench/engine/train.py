"""Training: from a prepared run to ``weights.pt`` in its folder."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger

from gazebench.core import distributed
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.engine.callbacks import ProgressBar, StepSeed, TimedCheckpoint, Validation
from gazebench.engine.method import Method

if TYPE_CHECKING:
    from gazebench.engine.run import Run


def train(run: Run) -> None:
    """Trains a run's method, from its last checkpoint where there is one; sets ``run.training`` and ``wall_seconds``.

    Raises:
        DataError: an epoch is to be selected, but the validation split is empty.
    """
    method, module, dataset, folder = run.method, run.module, run.dataset, run.folder
    method.observe(module.annotations())
    if not any(parameter.requires_grad for parameter in method.parameters()):
        run.wall_seconds["fit"] = 0.0
        save_weights(method, folder)
        return
    protocol = dataset.protocol
    selects = module.selection == "val"
    if selects and not dataset.records("val").people:
        raise DataError(
            f"{dataset.card.title} has nobody in the validation split under this root, so no epoch can be selected; "
            "use --loader.selection last"
        )
    headline = protocol.metric(protocol.headline)
    checkpoint = TimedCheckpoint(
        folder / "checkpoints",
        f"val/{protocol.headline}" if selects else None,
        "max" if headline.higher_is_better else "min",
    )
    callbacks = [Validation(module), checkpoint, StepSeed(run.config.values["seed"])]
    trainer = new_trainer(run, callbacks, CSVLogger(folder, name="", version="log"))
    module.check_shares(trainer.world_size, trainer.accumulate_grad_batches)  # before other processes are started
    with interruptible():
        trainer.fit(method, module, ckpt_path=_readable(folder / "checkpoints" / "last.ckpt"))
    run.wall_seconds["fit"] = checkpoint.seconds
    if selects and checkpoint.best_model_path:
        state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        method.load_export(state)
    save_weights(method, folder)
    accumulated = int(trainer.accumulate_grad_batches)
    run.training = {
        "people_a_step": module.batch_size * accumulated,
        "images_a_step": module.batch_images(module.train_records(), module.batch_size) * accumulated,
        "accumulated_batches": accumulated,
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
    }


def new_trainer(run: Run, callbacks: list[Any], logger: Any = False) -> Trainer:
    """Lightning's trainer with the run's settings.

    Raises:
        DataError: Lightning refuses a setting.
    """
    settings = dict(run.config.values["trainer"])
    if settings.get("devices") == "auto":
        settings["devices"] = 1  # so that a run does not depend on the machine
    elif settings.get("devices") == "all":
        settings["devices"] = 1 if settings["accelerator"] == "cpu" else max(1, torch.accelerator.device_count())
    if settings.get("enable_progress_bar") is not False:
        callbacks = [*callbacks, ProgressBar()]
    try:
        return Trainer(
            default_root_dir=run.folder,
            callbacks=callbacks,
            logger=logger,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=10,
            **settings,
        )
    except (MisconfigurationException, ValueError) as error:
        raise DataError(f"a setting of --trainer has a bad value: {error}") from error


def save_weights(method: Method, folder: Path) -> None:
    """Writes ``weights.pt``: what was trained, in the method's public form."""
    if not distributed.rank():
        write_atomically(folder / "weights.pt", lambda path: torch.save(method.export(), path))


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns the ``SystemExit`` that Lightning raises after Ctrl-C back into a ``KeyboardInterrupt``."""
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left


def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def _readable(path: Path) -> Path | None:
    """The checkpoint if it can be read; an unreadable one is renamed, and training starts again."""
    if not path.is_file():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        print(f"{path.name} cannot be read ({type(error).__name__}); starting again", file=sys.stderr)
        with suppress(FileNotFoundError):  # another process of this run was faster
            path.replace(path.with_suffix(".unreadable"))
        return None
    return path
