"""Records: one JSON file per result, checked against ``record.schema.json`` and never changed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jsonschema

import gazebench
from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.data import saliency_splits
from gazebench.data.dataset import GazeDataset
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
    """
    card, skipped = dataset.card, list(made["skipped_images"])
    reasons = [*reasons, *smoke_reasons(identity, made, kind)]
    protocol = dataset.protocol.describe()
    record = {
        "schema": 2,
        "run": made["run"],
        "kind": kind,
        "method": made["method"],
        "dataset": made["config"]["data"],
        "status": {"class": "smoke" if reasons else "synthetic" if card.synthetic else "official", "reasons": reasons},
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
        **{
            name: made[name]
            for name in (
                "weights", "config", "seed", "selection", "training", "code", "parameters", "wall_seconds",
                "peak_memory_bytes", "hardware", "finished",
            )
        },
        **({"inference": made["inference"]} if made.get("inference") else {}),
    }  # fmt: skip
    record = json.loads(json.dumps(record))
    validate(record)
    return record


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


_GRADES = {
    "embedded": "the small weights of this package, made for its own world",
    "file": "weights of a file of unknown origin",
    "random": "random weights",
}


def smoke_reasons(identity: Mapping[str, Any], made: Mapping[str, Any], kind: str) -> list[str]:
    """The reasons why a result is not official; empty for an official one."""
    reasons = []
    if kind == "score":
        reasons.append("scored from a file of unknown origin")
    for split, data in {"test": identity, "train": made["data"].get("train")}.items():
        # Not every training set has published counts; a test set must.
        if data and not data["complete"] and (split == "test" or data["official"] or data["skipped_rows"]):
            found, official = data["found"], data["official"]
            short = [f"{found[k]:,} of {n:,} {k}" for k, n in official.items() if found[k] != n]
            if data["skipped_rows"]:
                short.append(f"{data['skipped_rows']:,} rows skipped")
            reasons.append(f"{split} data: {', '.join(short) or 'no official counts to compare with'}")
    if made["data"].get("limited"):
        reasons.append("a limit on the number of images was set")
    weights = made["weights"]
    fit = {"none", "published"} | ({"embedded"} if identity["synthetic"] else set())
    if kind != "score" and weights["grade"] not in fit:
        reasons.append(f"backbone {weights['name']}: {_GRADES[weights['grade']]}")
    if (weights.get("initial") or {}).get("class") == "smoke":
        reasons.append("it starts from the weights of a smoke run")
    if made["skipped_images"]:
        reasons.append(f"{len(made['skipped_images'])} unreadable images were skipped")
    reasons += saliency_splits.defects(identity["subsets"])
    if kind != "score" and made["code"]["dirty"]:
        reasons.append("the code had uncommitted changes")
    return reasons


def write_record(record: Mapping[str, Any], folder: Path) -> Path:
    """Stores a record as ``folder/<dataset>/<method>-<run>.json``; no stored record is ever changed.

    The same run may give other scores on another processor. Both records are then kept, the later one with a digest
    of its scores in its name.

    Raises:
        RecordError: the record does not fit the schema.
    """
    validate(record)
    text = as_json(record)
    name = f"{record['method']['name']}-{record['run']}"
    scores = hashlib.sha256(json.dumps(record["metrics"], sort_keys=True).encode()).hexdigest()[:6]
    for path in (folder / str(record["dataset"]) / f"{stem}.json" for stem in (name, f"{name}-{scores}")):
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
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory() -> dict[str, int]:
    """Peak memory of this process, and of its GPU where there is one, in bytes."""
    import resource

    import torch

    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
