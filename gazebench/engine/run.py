"""A run: train, predict, score.

``predict`` writes a predictions file, and ``score`` turns it into metrics and a record. ``gazebench score`` uses the
same ``score`` for the files of other programs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import seed_everything

from gazebench.core import distributed
from gazebench.core.errors import DataError, UserError
from gazebench.core.files import file_digest, write_atomically
from gazebench.core.weights import download_path, local_file, read_weights
from gazebench.data.combined import CombinedDataset
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.dataset import GazeDataset
from gazebench.engine import standing
from gazebench.engine.config import Config, settings_digest
from gazebench.engine.method import Method
from gazebench.engine.predict import predict
from gazebench.engine.record import CHECKOUT, write_record
from gazebench.engine.score import score
from gazebench.engine.train import quiet, train

RUNS = (CHECKOUT or Path.cwd()) / "runs"
BOARDS = (CHECKOUT or Path.cwd()) / "leaderboards"


@dataclass(frozen=True)
class Places:
    """The folders of runs and of records."""

    runs: Path = RUNS
    boards: Path = BOARDS


@dataclass
class Run:
    """A prepared run: everything is built, nothing is computed.

    Attributes:
        config: its settings.
        kind: ``bench``, or ``eval`` where the weights were given.
        dataset: the data set.
        method: the method, with the weights it starts from or is evaluated with.
        module: the loaders.
        decides: whatever else its numbers depend on, as JSON values.
        id: ten hex digits of the settings and ``decides``.
        folder: the folder of its files.
        data: identity of the test set and, where something is trained, of the training set.
        initial: identity of the given weights, if any.
        training: sizes of a training step, and the number of processes.
        wall_seconds: time spent by stage.
        source: the run on several data sets that trained the weights, where this one tests them on one of these.
    """

    config: Config
    kind: str
    dataset: GazeDataset
    method: Method
    module: GazeDataModule
    decides: dict[str, Any]
    id: str
    folder: Path
    data: dict[str, Any]
    initial: dict[str, Any] | None
    training: dict[str, Any] | None = None
    wall_seconds: dict[str, float] = field(default_factory=dict)
    source: Run | None = None

    @property
    def trains(self) -> bool:
        return self.method.trains and self.kind == "bench"


@dataclass(frozen=True)
class Outcome:
    """The result of a run; ``repeated`` is True when it had been finished before."""

    record: dict[str, Any]
    folder: Path
    repeated: bool = False


class RunningError(UserError, RuntimeError):
    """The same run is in progress in another process."""


def bench_each(config: Config, places: Places | None = None, *, again: bool = False) -> list[tuple[Config, Outcome]]:
    """``bench``; on a combination of data sets, one training on all of them, and a test and a record on each.

    Raises:
        As ``bench``.
    """
    if not issubclass(config.dataset.cls, CombinedDataset):
        return [(config, bench(config, places, again=again))]
    places = places or Places()
    source = _train_once(config, places, again=again) if config.method.cls.trains else None
    weights = None if source is None else source.folder / "weights.pt"
    with _fitting():
        members = config.members()
    return [(member, bench(member, places, weights=weights, again=again, source=source)) for member in members]


def _train_once(config: Config, places: Places, *, again: bool) -> Run:
    """A run that only trains; one that was finished before is not trained again."""
    run = prepare(config, places)
    done = run.folder / "training.json"
    run.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(run.folder):
        if again and not distributed.rank():
            _forget(run.folder)
        if not done.is_file():
            write_atomically(run.folder / "config.yaml", config.yaml())
            train(run)
            if not distributed.rank():
                write_atomically(done, json.dumps({"training": run.training, "wall_seconds": run.wall_seconds}))
            distributed.union(())  # the others wait for the files
        stored = json.loads(done.read_text(encoding="utf-8"))
        run.training, run.wall_seconds = stored["training"], stored["wall_seconds"]
    return run


def bench(
    config: Config,
    places: Places | None = None,
    *,
    weights: Path | None = None,
    again: bool = False,
    source: Run | None = None,
) -> Outcome:
    """Trains (unless ``weights`` are given or the method learns nothing), predicts, scores, and stores the record.

    A killed run continues from its last epoch when it is repeated; a finished one returns its record.

    Args:
        config: the settings.
        places: the folders of runs and records.
        weights: weights to evaluate, instead of training.
        again: delete the files of an earlier run with the same id.
        source: the run on several data sets that trained the ``weights``.

    Raises:
        DataError: data is missing or bad. RunningError: the same run is in progress in another process.
    """
    places = places or Places()
    run = prepare(config, places, weights, source)
    stored, predictions = run.folder / "record.json", run.folder / "predictions.parquet"
    run.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(run.folder):
        if again and not distributed.rank():
            _forget(run.folder)
        repeated = stored.is_file()
        if not repeated:
            write_atomically(run.folder / "config.yaml", config.yaml())
            measured = None
            if not predictions.is_file():
                if run.trains:
                    train(run)
                measured = predict(run)
            if not distributed.rank():
                records = run.module.eval_records("test")
                folders = (places.boards, places.runs)
                score(
                    predictions, run.dataset, records=records, kind=run.kind, tasks=run.module.tasks, places=folders,
                    measured=measured,
                )  # fmt: skip
        record = {} if distributed.rank() else json.loads(stored.read_text(encoding="utf-8"))
        if record:
            write_record(record, places.boards)
            _warn_of_other_code(run, record)
    return Outcome(record, run.folder, repeated)


def prepare(config: Config, places: Places, weights: Path | None = None, source_run: Run | None = None) -> Run:
    """Builds data set, method and loaders, and the run's id from everything that its numbers depend on."""
    quiet()
    values = config.values
    with _fitting():
        dataset = config.new_dataset()
    data: dict[str, Any] = {"test": dataset.identity("test")}
    seed_everything(values["seed"], workers=True, verbose=False)
    with _fitting():
        method = config.new_method()
        module = data_module(config, dataset, method)
    kind = "bench" if weights is None else "eval"
    if method.trains and weights is None:
        used = module.train_records()
        data["train"] = dataset.identity("trainval") | {
            "split": used.split, "used_people": used.people, "used_images": len(used)
        }  # fmt: skip
    if source_run is not None:
        data["train"] = source_run.data["train"]
    source = weights or initial_weights(config, places)
    parts = dataset.parts if isinstance(dataset, CombinedDataset) else {}
    decides = {
        "kind": kind,
        "method": [config.method.name, method.version],
        "dataset": [config.dataset.name, dataset.version],
        "protocol": dataset.protocol.id,
        "data": {split: identity["fingerprint"] for split, identity in data.items()},
        "data_full": {split: identity["full_fingerprint"] for split, identity in data.items()},
        "subsets": data["test"]["subsets"],
        "weights": method.weights_identity(),
        "start": source and file_digest(source),
        # A method or data set given as a file has no version: the digest of its text is used instead.
        "files": [plugin.source for plugin in (config.method, config.dataset) if plugin.from_file],
        **({"members": {name: cls.version for name, cls in parts.items()}} if parts else {}),
        **({"tasks": [task.describe()["id"] for task in module.tasks]} if module.tasks else {}),
    }
    run = run_id(config.public(), decides)
    initial = None if source is None else _start(method, source, places, evaluate=weights is not None)
    if initial is not None and source_run is not None:
        initial |= {"run": source_run.id, "class": _class_of(source_run)}
    folder = places.runs / config.dataset.name / config.method.name / run
    return Run(config, kind, dataset, method, module, decides, run, folder, data, initial, source=source_run)


def _class_of(run: Run) -> str:
    """How far the weights of a run without a test can be trusted, its data and settings aside."""
    if run.initial is None:
        return "synthetic" if run.dataset.card.synthetic else "official"
    return run.initial.get("class") or ("official" if run.initial["published"] else "unverified")


@contextmanager
def _fitting() -> Iterator[None]:
    """Turns the ``ValueError`` of a constructor that refuses a setting into a ``DataError``."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise DataError(f"a setting has a bad value: {error}") from error


def run_id(values: Mapping[str, Any], decides: Mapping[str, Any]) -> str:
    """The id of a run from its settings (``Config.public``) and ``Run.decides``."""
    return settings_digest(values, json.dumps(decides, sort_keys=True))


def data_module(config: Config, dataset: GazeDataset, method: Method) -> GazeDataModule:
    return GazeDataModule(
        dataset,
        method.preprocess(),
        seed=config.values["seed"],
        sees_images=method.sees_images,
        tasks=[task() for task in method.tasks],
        **config.values["loader"],
    )


def initial_weights(config: Config, places: Places) -> Path | None:
    """The weights file that the setting ``init`` names; None for ``none``.

    ``init`` is a path, an address, ``none``, or ``from:DATASET``, which is the newest run of the same model on that
    data set, one of the best class there is (``standing.HEADINGS``).

    Raises:
        DataError: there is no such run; the message says what to run first.
    """
    init = config.values["init"]
    if init in (None, "none", ""):
        return None
    if not init.startswith("from:"):
        return local_file(init)
    stage, cls = init.removeprefix("from:"), config.method.cls
    shape = {key: value for key, value in config.values["model"].items() if key in cls.stage}
    found, ranks = [], list(standing.HEADINGS)
    for path in (places.runs / stage / config.method.name).glob("*/record.json"):
        record, weights = json.loads(path.read_text(encoding="utf-8")), path.parent / "weights.pt"
        model = record["config"]["model"]
        if all(model.get(key) == value for key, value in shape.items()) and weights.is_file():
            found.append((-ranks.index(record["status"]["class"]), weights.stat().st_mtime, weights))
    if found:
        return max(found)[2]
    published = ", ".join(cls.published)
    raise DataError(
        f"{cls.card.title} on {config.dataset.name} starts from its {stage} weights "
        f"({', '.join(f'{key} {value}' for key, value in shape.items())}), and there are none yet. Either\n"
        f"  train them first:       make bench METHOD={config.method.name} DATASET={stage} DATA_ROOT=...  and repeat "
        f"this command,\n  give them:              INIT=path or address of weights.pt"
        + (f" (published ones: {published})" if published else "")
        + "\n  or start without them:  INIT=none  (the record will say so)"
    )


def _start(method: Method, source: Path, places: Places, *, evaluate: bool) -> dict[str, Any]:
    """Loads the weights to evaluate, or those to start from; returns what is known of them."""
    try:
        if evaluate:
            method.load_export(read_weights(source))
        else:
            method.load_initial(source)
    except UserError:  # names the file already
        raise
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{source}: {error}") from error
    sha256 = file_digest(source)
    fetched = {download_path(published.url): name for name, published in method.published.items()}
    made_by = standing.own_run(sha256, [source.parent / "record.json", places.boards, places.runs])
    return {"file": source.name, "sha256": sha256, "published": fetched.get(source, ""), **made_by}


def _warn_of_other_code(run: Run, record: dict[str, Any]) -> None:
    source = record["method"].get("source")
    if source and source != run.config.method.source:
        print(
            f"note: the code of {record['method']['name']} has changed since run {run.id}, but not its version "
            f"{run.method.version}; raise the version if the function changed, or repeat with --again"
        )


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Locks a run's folder against other processes, but not against other ranks of the same run."""
    if distributed.rank():
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise RunningError(f"{folder}: the same run is in progress in another process; wait for it") from None
