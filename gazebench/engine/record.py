"""Results: one immutable, schema-checked JSON record a run."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jsonschema

import gazebench
from gazebench.core.types import DataError
from gazebench.metrics.intervals import DRAWS, METHOD
from gazebench.metrics.protocol import SUBSETS
from gazebench.metrics.scoring import Score

SCHEMA_VERSION = 1
PACKAGE = Path(gazebench.__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
CODE_FOLDERS = ("gazebench", "methods", "datasets", "splits")
INTERVALS = {"level": 0.95, "method": METHOD, "draws": DRAWS}
"""How ``low`` and ``high`` of a metric were found; records of before have neither."""

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}
_OBJECT = {"type": "object"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "gazebench result",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "schema", "run", "method", "dataset", "status", "metrics", "samples", "protocol", "data", "weights",
        "config", "seed", "selection", "code", "parameters", "wall_seconds", "peak_memory_bytes", "hardware",
        "finished",
    ],
    "properties": {
        "schema": {"const": SCHEMA_VERSION},
        "run": {"type": "string", "pattern": "^[a-z0-9_.-]+$"},
        "kind": {"enum": ["bench", "eval", "score"]},
        "method": {
            "type": "object",
            "required": ["name", "title", "family"],
            "properties": dict.fromkeys(
                ["name", "title", "family", "source", "origin", "paper", "citation", "licence"], _TEXT
            ),
        },
        "dataset": _TEXT,
        "status": {
            "type": "object",
            "required": ["class", "reasons"],
            "properties": {
                "class": {"enum": ["official", "synthetic", "smoke"]},
                "reasons": {"type": "array", "items": _TEXT},
            },
        },
        "metrics": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["all"],
                "properties": {
                    subset: {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["value", "count"],
                        "properties": {"value": _NUMBER, "count": {"type": "integer", "minimum": 1},
                                       "low": _NUMBER, "high": _NUMBER,
                                       "sources": {"type": "integer", "minimum": 2}},
                        "dependentRequired": {"low": ["high", "sources"], "high": ["low"], "sources": ["low"]},
                    }
                    for subset in SUBSETS
                },
            },
        },
        "intervals": {"type": "object", "required": ["level", "method", "draws"]},
        "samples": {
            "type": "object",
            "required": ["people", "images", "skipped_images"],
            "properties": {"people": _COUNT, "images": _COUNT, "skipped_images": {"type": "array", "items": _TEXT},
                           "predictions_sha256": {"type": ["string", "null"]}},
        },
        "protocol": {"type": "object", "required": ["id", "decoder", "headline", "metrics"]},
        "data": {"type": "object", "required": ["name", "split", "fingerprint", "complete", "label_version",
                                                "head_boxes"]},
        "weights": {"type": "object", "required": ["grade", "name"], "properties": {
            "grade": {"enum": ["none", "published", "embedded", "file", "random"]}, "name": _TEXT,
            "trained": {"type": ["object", "null"], "required": ["file", "sha256"]}}},
        "config": _OBJECT,
        "seed": {"type": ["integer", "null"]},
        "selection": _TEXT,
        "training": {"type": ["object", "null"]},
        "code": {"type": "object", "required": ["version", "commit", "dirty", "digest"]},
        "parameters": {"type": "object", "required": ["total", "trained"],
                       "properties": {"total": _COUNT, "trained": _COUNT}},
        "wall_seconds": {"type": "object", "additionalProperties": _NUMBER},
        "peak_memory_bytes": {"type": "object", "additionalProperties": _COUNT},
        "hardware": _OBJECT,
        "finished": _TEXT,
    },
}  # fmt: skip


_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class RecordError(DataError):
    """A record that breaks the schema."""


def validate(record: Mapping[str, Any], where: str = "record") -> None:
    """Checks a record against ``SCHEMA``.

    Raises:
        RecordError: names the file, the place in it and what is wrong.
    """
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(record))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise RecordError(f"{where}: {place}: {error.message}") from error


def metrics_block(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """The ``metrics`` part of a record: value and count, and the ends of the interval where there is one."""
    return {
        name: {
            subset: {key: value for key, value in asdict(score).items() if value is not None}
            for subset, score in subsets.items()
        }
        for name, subsets in scores.items()
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or nothing, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(record: Mapping[str, Any], folder: Path) -> Path:
    """Stores a record below ``folder/<dataset>/`` as ``<method>-<run>.json``; no stored record is ever changed.

    The same run may come out differently on another processor. Then both records are kept, the later one with a
    digest of its scores in its name.

    Raises:
        RecordError: the record breaks the schema.
    """
    validate(record)
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
    name = f"{record['method']['name']}-{record['run']}"
    scores = hashlib.sha256(json.dumps(record["metrics"], sort_keys=True).encode()).hexdigest()[:6]
    for path in (folder / str(record["dataset"]) / f"{stem}.json" for stem in (name, f"{name}-{scores}")):
        if not path.exists():
            write_atomically(path, text)
            return path
        if _same_scores(json.loads(path.read_text(encoding="utf-8"))["metrics"], record["metrics"]):
            return path
    raise RecordError(f"{path}: is there with other scores than its name says; move it away")


def _same_scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal but for what another machine's arithmetic does to the last digits."""
    flat = [
        {(metric, subset): score for metric, subsets in metrics.items() for subset, score in subsets.items()}
        for metrics in (one, other)
    ]
    return flat[0].keys() == flat[1].keys() and all(
        score["count"] == flat[1][key]["count"] and math.isclose(score["value"], flat[1][key]["value"], rel_tol=1e-4)
        for key, score in flat[0].items()
    )


def read_records(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """All records of a dataset, checked, in file order; raises as ``read_files``."""
    return list(read_files(folder, dataset).values())


def read_files(folder: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """All records of a dataset, checked, by file name without its ending.

    Raises:
        RecordError: a file is no JSON or breaks the schema.
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


# Where a number comes from -----------------------------------------------------------------------------------


@cache
def code_identity() -> dict[str, Any]:
    """Version, commit, whether code files differ from it, and a digest of the code itself."""
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


def source_digest(value: type) -> str:
    """A digest of the file a class is defined in; empty where there is none."""
    path = inspect.getsourcefile(value)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


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
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": packages,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
