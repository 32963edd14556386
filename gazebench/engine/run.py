"""One run: (method, dataset, settings, seed) to a trained model, a result record and a row on a leaderboard."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from gazebench.core import distributed as processes
from gazebench.core.errors import UserError
from gazebench.core.types import DataError, sample_key
from gazebench.core.weights import file_digest, local_file, read_weights
from gazebench.data import saliency_splits as subsets
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.dataset import GazeDataset
from gazebench.engine import record as results
from gazebench.engine.config import Config, provenance
from gazebench.engine.method import Method
from gazebench.engine.predictions import PredictionWriter, merge_parts
from gazebench.engine.record import CHECKOUT, write_atomically
from gazebench.engine.registry import origin_of
from gazebench.report.board import refresh

RUNS = (CHECKOUT or Path.cwd()) / "runs"
BOARDS = (CHECKOUT or Path.cwd()) / "leaderboards"


@dataclass(frozen=True)
class Places:
    """Where runs and records go."""

    runs: Path = RUNS
    boards: Path = BOARDS


@dataclass(frozen=True)
class Outcome:
    """What a run left behind; ``repeated`` is True when it had been finished before."""

    record: dict[str, Any]
    folder: Path
    board: Path
    repeated: bool = False


class RunningError(UserError, RuntimeError):
    """The same run is going on in another process."""


def bench(config: Config, places: Places | None = None, *, kind: str = "bench", weights: Path | None = None) -> Outcome:
    """Trains (unless ``weights`` are given or the method learns nothing), tests, records.

    Repeating a killed run continues from its last epoch; repeating a finished one returns its record.

    Raises:
        DataError: missing or bad data, before anything is computed. RunningError: the run is going on elsewhere.
    """
    places = places or Places()
    quiet()
    values = config.values
    dataset = config.dataset(**values["dataset"])
    test = dataset.identity("test")
    seed_everything(values["seed"], workers=True, verbose=False)
    method = config.method(**values["model"])
    module = data_module(config, dataset, method)
    inputs = [results.code_identity()["digest"], test["fingerprint"], json.dumps(test["subsets"]), kind]
    inputs += [results.source_digest(config.method), results.source_digest(config.dataset)]  # a plug-in's code too
    data: dict[str, Any] = {"test": test}
    if method.trains and weights is None:
        train = module.train_records()
        data["train"] = dataset.identity("trainval") | {
            "split": train.split, "used_people": train.people, "used_images": len(train)
        }  # fmt: skip
        inputs.append(data["train"]["fingerprint"])
    source = weights or initial_weights(config, places)
    if source is not None:
        inputs.append(file_digest(source))
    run = config.digest(*inputs)
    folder = places.runs / config.dataset_name / config.method_name / run
    folder.mkdir(parents=True, exist_ok=True)
    board = places.boards / config.dataset_name / "README.md"
    with _only_one(folder):
        stored = folder / "record.json"
        if stored.is_file():
            record = {} if processes.rank() else json.loads(stored.read_text(encoding="utf-8"))
            if record:
                _publish(record, config.dataset, places)
            return Outcome(record, folder, board, repeated=True)
        write_atomically(folder / "config.yaml", config.yaml())
        timing: dict[str, float] = {}
        training: dict[str, Any] | None = None
        initial = _start(method, source, evaluate=weights is not None)
        if method.trains and weights is None:
            timing["fit"], training = _fit(config, method, module, dataset, folder)
        scored = _test(config, method, module, dataset, folder)
        timing["test"] = scored.seconds
        if not processes.rank():
            record = make_record(
                run=run, kind=kind, config=config, dataset=dataset, method=method, module=module, data=data,
                initial=initial, timing=timing, scored=scored, trained=_trained(folder, weights), training=training,
            )  # fmt: skip
            write_atomically(stored, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
            _publish(record, config.dataset, places)
        else:
            record = {}
    return Outcome(record, folder, board)


def initial_weights(config: Config, places: Places) -> Path | None:
    """The file ``init`` stands for.

    It is a path, an address, ``none``, or ``from:DATASET``: the newest run of this very model on that dataset, an
    official one if there is any.

    Raises:
        DataError: there is no such run; the message says what to run first.
    """
    init = config.values["init"]
    if init in (None, "none", ""):
        return None
    if not init.startswith("from:"):
        return local_file(init)
    stage = init.removeprefix("from:")
    shape = {key: value for key, value in config.values["model"].items() if key in config.method.stage}
    found = []
    for path in (places.runs / stage / config.method_name).glob("*/record.json"):
        record, weights = json.loads(path.read_text(encoding="utf-8")), path.parent / "weights.pt"
        model = record["config"]["model"]
        if all(model.get(key) == value for key, value in shape.items()) and weights.is_file():
            found.append((record["status"]["class"] == "official", weights.stat().st_mtime, weights))
    if found:
        return max(found)[2]
    name, published = config.method_name, ", ".join(config.method.published)
    raise DataError(
        f"{config.method.card.title} on {config.dataset_name} starts from its {stage} weights "
        f"({', '.join(f'{key} {value}' for key, value in shape.items())}), and there are none yet. Either\n"
        f"  train them first:  make bench METHOD={name} DATASET={stage} DATA_ROOT=...  and repeat this command,\n"
        f"  give them:         INIT=path/or/address of weights.pt"
        + (f" (published ones: {published})" if published else "")
        + "\n  or start afresh:   INIT=none  (the record will say so)"
    )


def data_module(config: Config, dataset: GazeDataset, method: Method) -> GazeDataModule:
    """The loaders of a configuration."""
    values = config.values
    return GazeDataModule(
        dataset, method.preprocess(), seed=values["seed"], sees_images=method.sees_images, **values["loader"]
    )


def quiet() -> None:
    """Keeps Lightning's advice out of the way; what matters to a user is printed by the command line."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A metric nobody has a value for is absent from the result; that needs no warning.
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")


@dataclass(frozen=True)
class Scored:
    """What a test pass gives."""

    metrics: Mapping[str, Any]
    people: int
    images: int
    predictions: Path | None
    seconds: float


def _start(method: Method, source: Path | None, *, evaluate: bool) -> dict[str, Any] | None:
    """Loads the weights to evaluate, or those to start from; returns their identity."""
    if source is None:
        return None
    try:
        if evaluate:
            method.load_export(read_weights(source))
        else:
            method.load_initial(source)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{source}: {error}") from error
    run = source.parent / "record.json"
    status = json.loads(run.read_text(encoding="utf-8"))["status"]["class"] if run.is_file() else None
    return {"file": source.name, "sha256": file_digest(source), "class": status}


class _StepSeed(Callback):
    """Seeds every step anew, so that a resumed training goes on exactly as an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        text = f"{self.seed} {trainer.current_epoch} {batch_idx} {trainer.global_rank}"
        torch.manual_seed(sample_key(text) % 2**63)


class _Clock(TQDMProgressBar):
    """Progress without what a reader cannot use."""

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


def _trainer(config: Config, folder: Path, callbacks: list[Any], logger: Any = False) -> Trainer:
    settings = dict(config.values["trainer"])
    if settings.get("devices") == "auto":
        settings["devices"] = 1  # a run is one process, on every machine alike, unless more are asked for
    if settings.get("enable_progress_bar") is not False:
        callbacks = [*callbacks, _Clock(refresh_rate=1 if sys.stderr.isatty() else 25)]
    return Trainer(
        default_root_dir=folder,
        callbacks=callbacks,
        logger=logger,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        **settings,
    )


class _Seconds(ModelCheckpoint):
    """``last.ckpt`` after every epoch, the best one too where an epoch is selected; both know the time spent."""

    def __init__(self, folder: Path, monitor: str | None, mode: str) -> None:
        super().__init__(
            dirpath=folder, filename="best" if monitor else "last", monitor=monitor, mode=mode, save_top_k=1,
            save_last=bool(monitor), enable_version_counter=False, save_on_train_epoch_end=monitor is None,
        )  # fmt: skip
        self.earlier, self.begun = 0.0, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seconds": self.earlier + time.monotonic() - self.begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.earlier, self.begun = float(state_dict.pop("seconds", 0.0)), time.monotonic()
        super().load_state_dict(state_dict)


def _fit(
    config: Config, method: Method, module: GazeDataModule, dataset: GazeDataset, folder: Path
) -> tuple[float, dict[str, Any] | None]:
    """Trains; returns the seconds and what a step was made of."""
    method.observe(module.annotations())
    if not any(parameter.requires_grad for parameter in method.parameters()):
        _save_weights(method, folder)
        return 0.0, None
    protocol = dataset.protocol
    method.score_by(protocol)
    selects = module.selection == "val"
    if selects and not dataset.records("val").people:
        raise DataError(
            f"{dataset.card.title} has nobody in the validation split under this root, so no epoch can be selected; "
            "use --loader.selection last"
        )
    mode = "max" if protocol.higher_is_better(protocol.headline) else "min"
    keeper = _Seconds(folder / "checkpoints", f"val/{protocol.headline}" if selects else None, mode)
    callbacks = [keeper, _StepSeed(config.values["seed"])]
    trainer = _trainer(config, folder, callbacks, CSVLogger(folder, name="", version="log"))
    module.check_shares(trainer.world_size, trainer.accumulate_grad_batches)  # before other processes are started
    last = folder / "checkpoints" / "last.ckpt"
    with _interruptible():
        trainer.fit(method, module, ckpt_path=_resumable(last))
    seconds = keeper.earlier + time.monotonic() - keeper.begun
    if selects and keeper.best_model_path:
        state = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        method.load_export(state)
    _save_weights(method, folder)
    return seconds, _training(trainer, module)


def _training(trainer: Trainer, module: GazeDataModule) -> dict[str, Any]:
    """What a step of training was made of, whoever computed it."""
    accumulated = int(trainer.accumulate_grad_batches)
    return {
        "people_a_step": module.batch_size * accumulated,
        "images_a_step": module.batch_images(module.train_records(), module.batch_size) * accumulated,
        "accumulated_batches": accumulated,
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
    }


def _save_weights(method: Method, folder: Path) -> None:
    if not processes.rank():
        temporary = folder / ".weights.pt.tmp"
        torch.save(method.export(), temporary)
        temporary.replace(folder / "weights.pt")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning answers Ctrl-C by leaving the program; the command line has something to say first."""
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left


def _resumable(path: Path) -> Path | None:
    """The last checkpoint if it can be read; an unreadable one is set aside and training starts again."""
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


def _test(config: Config, method: Method, module: GazeDataModule, dataset: GazeDataset, folder: Path) -> Scored:
    protocol = dataset.protocol
    method.score_by(protocol)
    parts = folder / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    writer = PredictionWriter(parts, [use.name for use in protocol.metrics])
    trainer = _trainer(config, folder, [writer])
    begun = time.monotonic()
    with _interruptible():
        trainer.test(method, module, verbose=False)
    seconds = time.monotonic() - begun
    trainer.strategy.barrier()
    predictions = folder / "predictions.parquet"
    method.skipped = processes.union(method.skipped)
    people = merge_parts(parts, predictions) if not processes.rank() else 0
    records = module.eval_records("test")
    return Scored(method.scores, people, len(records), predictions if people else None, seconds)


def make_record(
    *,
    run: str,
    kind: str,
    config: Config,
    dataset: GazeDataset,
    method: Method,
    module: GazeDataModule,
    data: Mapping[str, Any],
    initial: dict[str, Any] | None,
    timing: Mapping[str, float],
    scored: Scored,
    trained: dict[str, Any] | None,
    training: dict[str, Any] | None,
) -> dict[str, Any]:
    """The result record; see ``results.SCHEMA``."""
    code = results.code_identity()
    weights = method.weights_identity() | {"initial": initial, "trained": trained}
    reasons = smoke_reasons(data, weights, code, module, sorted(method.skipped))
    klass = "smoke" if reasons else ("synthetic" if dataset.card.synthetic else "official")
    if not scored.metrics:
        raise DataError(f"{dataset.card.title}: not one person could be scored, so there is no result to record")
    learning = sum(p.numel() for p in method.parameters() if p.requires_grad)
    card, data_card = method.card, dataset.card
    record = {
        "schema": results.SCHEMA_VERSION,
        "run": run,
        "kind": kind,
        "method": {
            "name": config.method_name,
            "title": method.title or card.title,
            "family": card.family,
            "source": results.source_digest(config.method),
            "origin": origin_of("methods", config.values["method"]),
            "paper": card.paper,
            "citation": card.citation,
            "licence": card.licence,
        },
        "dataset": config.dataset_name,
        "status": {"class": klass, "reasons": reasons},
        "metrics": results.metrics_block(scored.metrics),
        "intervals": results.INTERVALS,
        "samples": {
            "people": scored.people,
            "images": scored.images,
            "skipped_images": sorted(method.skipped),
            "predictions_sha256": file_digest(scored.predictions) if scored.predictions else None,
        },
        "protocol": dataset.protocol.describe(),
        "data": {
            **data["test"],
            "train": data.get("train"),
            "origin": origin_of("datasets", config.values["data"]),
            "source": data_card.source,
            "citation": data_card.citation,
            "licence": data_card.licence,
        },
        "weights": weights,
        "config": config.public() | {"provenance": provenance(config)},
        "seed": config.values["seed"],
        "selection": _selection(module, trained),
        "training": training,
        "code": code,
        "parameters": {"total": sum(p.numel() for p in method.parameters()), "trained": learning},
        "wall_seconds": {name: round(seconds, 3) for name, seconds in timing.items()},
        "peak_memory_bytes": _peak_memory(),
        "hardware": results.hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    results.validate(record)
    return record


def _trained(folder: Path, given: Path | None) -> dict[str, Any] | None:
    """The weights a run made; none where they were given or there was nothing to learn."""
    made = folder / "weights.pt"
    return {"file": made.name, "sha256": file_digest(made)} if given is None and made.is_file() else None


def _selection(module: GazeDataModule, trained: dict[str, Any] | None) -> str:
    if trained is None:
        return "nothing was trained"
    return "last epoch of trainval" if module.selection == "last" else "best epoch on the held-out val sources"


_GRADES = {
    "embedded": "the small weights of this package, made for its own world",
    "file": "weights of a file nobody can vouch for",
    "random": "random weights",
}


def smoke_reasons(
    data: Mapping[str, Any],
    weights: Mapping[str, Any],
    code: Mapping[str, Any],
    module: GazeDataModule,
    skipped: list[str],
) -> list[str]:
    """Why a result must not look like an official one; empty when nothing speaks against it."""
    reasons = []
    for split, identity in data.items():
        # Not every training set has published counts; a test set must.
        if not identity["complete"] and (split == "test" or identity["official"] or identity["skipped_rows"]):
            found, official = identity["found"], identity["official"]
            short = [f"{found[k]:,} of {n:,} {k}" for k, n in official.items() if found[k] != n]
            if identity["skipped_rows"]:
                short.append(f"{identity['skipped_rows']:,} rows skipped")
            reasons.append(f"{split} data: {', '.join(short) or 'no official counts to hold it against'}")
    if module.limit_test or module.limit_train:
        reasons.append("a limit on the number of images was set")
    fit = {"none", "published"} | ({"embedded"} if data["test"]["synthetic"] else set())
    if weights["grade"] not in fit:
        reasons.append(f"backbone {weights['name']}: {_GRADES[weights['grade']]}")
    if (weights["initial"] or {}).get("class") == "smoke":
        reasons.append("it starts from the weights of a smoke run")
    if skipped:
        reasons.append(f"{len(skipped)} unreadable images were skipped")
    reasons += subsets.defects(data["test"]["subsets"])
    if code["dirty"]:
        reasons.append("the code had uncommitted changes")
    return reasons


def _publish(record: Mapping[str, Any], dataset: type[GazeDataset], places: Places) -> None:
    results.write_record(record, places.boards)
    refresh(places.boards, record["dataset"], dataset)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds a run's folder; other ranks of the same run pass."""
    if processes.rank():
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise RunningError(f"this very run is going on in another process ({folder})") from None


def _peak_memory() -> dict[str, int]:
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
