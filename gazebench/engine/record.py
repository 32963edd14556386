"""Records: one JSON file per result, checked against ``record.schema.json`` and never changed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jsonschema
from filelock import FileLock

import gazebench
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.data.dataset import GazeDataset
from gazebench.engine import standing
from gazebench.metrics.intervals import DRAWS, METHOD
from gazebench.metrics.scoring import Score

PACKAGE = Path(gazebench.__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
CODE_FOLDERS = ("gazebench", "methods", "datasets", "splits")
INTERVALS = {"level": 0.95, "method": METHOD, "draws": DRAWS}
"""How ``low`` and ``high`` of a metric were computed; older records have neither."""

SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))
_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class RecordError(DataError):
    """A record that does not fit the schema."""


def validate(record: Mapping[str, Any], where: str = "record") -> None:
    """Checks a record against ``SCHEMA``.

    Raises:
        RecordError: the record does not fit; the message names ``where``, the place in it and what is wrong.
    """
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(record))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise RecordError(f"{where}: {place}: {error.message}") from error


def make(
    dataset: GazeDataset,
    identity: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Score]],
    made: Mapping[str, Any],
    kind: str,
    reasons: Sequence[str],
    *,
    tasks: Mapping[str, Any],
    samples: Mapping[str, Any],
    places: Sequence[Path] = (),
) -> dict[str, Any]:
    """The record of a scored predictions file.

    Args:
        dataset: the data set.
        identity: identity of the split (``GazeDataset.identity``).
        scores: scores of every metric by subset.
        made: what made the predictions (``engine.predict``).
        kind: ``bench``, ``eval`` or ``score``.
        reasons: the caller's reasons why this is not an official result.
        tasks: description of each scored task, by name.
        samples: numbers of people and images, digest of the predictions file.
        places: folders of records of this suite, which say which weights it wrote.
    """
    card, skipped = dataset.card, list(made["skipped_images"])
    found = [*standing.parts(made["weights"], kind, places), *_clip(dataset, made["config"])]
    protocol = dataset.protocol.describe()
    record = {
        "schema": 3,
        "run": made["run"],
        "kind": kind,
        "method": made["method"],
        "dataset": made["config"]["data"],
        "status": standing.status(identity, made, kind, found, reasons),
        "metrics": {
            name: {
                subset: {key: value for key, value in asdict(score).items() if value is not None}
                for subset, score in subsets.items()
            }
            for name, subsets in scores.items()
        },
        "intervals": INTERVALS,
        "samples": {**samples, "skipped_images": skipped},
        "protocol": {**protocol, **({"tasks": tasks} if tasks else {})},
        "data": {
            **identity,
            **{key: value for key, value in made["data"].items() if key in ("train", "origin")},
            "source": card.source,
            "citation": card.citation,
            "licence": card.licence,
        },
        "weights": {
            **made["weights"], "standing": standing.lowest(found), "parts": [part.describe() for part in found]
        },
        **{
            name: made[name]
            for name in (
                "config", "seed", "selection", "training", "code", "parameters", "wall_seconds",
                "peak_memory_bytes", "hardware", "finished",
            )
        },
        **({"inference": made["inference"]} if made.get("inference") else {}),
    }  # fmt: skip
    record = json.loads(json.dumps(record))
    validate(record)
    return record


def _clip(dataset: GazeDataset, config: Mapping[str, Any]) -> list[standing.Part]:
    """The CLIP that brings words to classes, and the one that compares descriptions."""
    words = [dataset.protocol.vocabulary.describe()] if dataset.protocol.vocabulary else []
    words += [config["similarity"]] if "similarity" in config else []
    return [standing.of_files("clip", one["clip"], one["weights_sha256"]) for one in words]


def untrained(**known: Any) -> dict[str, Any]:
    """The argument ``made`` of ``make`` for predictions that this suite neither trained nor timed.

    Args:
        known: fields to set; at least ``run``, ``method``, ``weights`` and ``config``.
    """
    return {
        "data": {"train": None},
        "seed": None,
        "selection": "nothing was trained",
        "training": None,
        "skipped_images": [],
        "parameters": {"total": 0, "trained": 0},
        "wall_seconds": {},
        "peak_memory_bytes": {},
        "code": code_identity(),
        "hardware": hardware_identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **known,
    }


def write_record(record: Mapping[str, Any], folder: Path) -> Path:
    """Stores a record as ``folder/<dataset>/<method>-<run>.json``; no stored record is ever changed.

    The same run may give other scores on another processor. Both records are then kept, the later one with a digest
    of its scores in its name. The folder is locked, so that of two that are written at once neither is lost.

    Raises:
        RecordError: the record does not fit the schema.
    """
    validate(record)
    text = as_json(record)
    name = f"{record['method']['name']}-{record['run']}"
    scores = hashlib.sha256(json.dumps(record["metrics"], sort_keys=True).encode()).hexdigest()[:6]
    place = folder / str(record["dataset"])
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):
        for path in (place / f"{stem}.json" for stem in (name, f"{name}-{scores}")):
            if not path.exists():
                write_atomically(path, text)
                return path
            if same_scores(json.loads(path.read_text(encoding="utf-8"))["metrics"], record["metrics"]):
                return path
    raise RecordError(f"{path}: its scores are not those its name stands for; move the file away")


def as_json(record: Mapping[str, Any]) -> str:
    """The text of a record's file.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def same_scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results agree up to the rounding of another machine's arithmetic."""
    flat = [
        {(metric, subset): score for metric, subsets in metrics.items() for subset, score in subsets.items()}
        for metrics in (one, other)
    ]
    return flat[0].keys() == flat[1].keys() and all(
        score["count"] == flat[1][key]["count"] and math.isclose(score["value"], flat[1][key]["value"], rel_tol=1e-4)
        for key, score in flat[0].items()
    )


def read_records(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """The values of ``read_files``."""
    return list(read_files(folder, dataset).values())


def read_files(folder: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """All records of a data set by file name without its ending.

    Raises:
        RecordError: a file is no JSON or does not fit the schema.
    """
    records = {}
    for path in sorted((folder / dataset).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordError(f"{path}: not JSON ({error}); delete it and run `gazebench leaderboard`") from error
        validate(record, str(path))
        records[path.stem] = record
    return records


@cache
def code_identity() -> dict[str, Any]:
    """Version, commit, whether code files have uncommitted changes, and a digest of the code itself."""
    digest = hashlib.sha256()
    roots = [PACKAGE] if CHECKOUT is None else [CHECKOUT / folder for folder in CODE_FOLDERS]
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in (".py", ".json", ".pt", ".tsv", ".yaml"):
                digest.update(path.relative_to(root.parent).as_posix().encode())
                digest.update(path.read_bytes())
    commit = _git("rev-parse", "HEAD")
    dirty = bool(_git("status", "--porcelain", "--", *CODE_FOLDERS)) if commit else None
    return {
        "version": gazebench.__version__,
        "commit": commit,
        "dirty": dirty,
        "digest": digest.hexdigest()[:16],
    }


def _git(*arguments: str) -> str | None:
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def hardware_identity() -> dict[str, Any]:
    """Processor, accelerators and the versions of the packages results depend on."""
    import torch

    packages = {}
    for name in ("torch", "torchvision", "lightning", "timm", "torchmetrics", "transformers", "numpy", "pillow"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": packages,
    }


def processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory() -> dict[str, int]:
    """Peak memory of this process, and of its GPU where there is one, in bytes."""
    import torch

    if sys.platform == "win32":
        import psutil  # on Unix it knows no peak

        peak = {"process": psutil.Process().memory_info().peak_wset}
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
