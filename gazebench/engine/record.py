"""Records: one immutable, schema-checked JSON file a result."""

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
from gazebench.metrics.protocol import SUBSETS
from gazebench.metrics.scoring import Score

SCHEMA_VERSION = 2
"""2 names versions of method and data set, and tasks; records of version 1 stay readable."""
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
        "schema": {"enum": [1, SCHEMA_VERSION]},
        "run": {"type": "string", "pattern": "^[a-z0-9_.-]+$"},
        "kind": {"enum": ["bench", "eval", "score"]},
        "method": {
            "type": "object",
            "required": ["name", "title", "family"],
            "properties": {
                "version": _COUNT,
                **dict.fromkeys(
                    ["name", "title", "family", "source", "origin", "paper", "citation", "licence"], _TEXT
                ),
            },
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
        dataset: what was scored on.
        identity: of the split.
        scores: of every metric by subset.
        made: what made the predictions (``engine.predict``).
        kind: ``bench``, ``eval`` or ``score``.
        reasons: why this is not an official result, as far as the caller knows.
        tasks: description of each task that was scored, by name.
        samples: numbers of people and images, digest of the predictions file.
    """
    card, skipped = dataset.card, list(made["skipped_images"])
    reasons = [*reasons, *smoke_reasons(identity, made, kind)]
    protocol = dataset.protocol.describe()
    record = {
        "schema": SCHEMA_VERSION,
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
    }  # fmt: skip
    record = json.loads(json.dumps(record))
    validate(record)
    return record


def untrained(**known: Any) -> dict[str, Any]:
    """What made some predictions, in the form of ``make``, where this suite trained and timed nothing.

    ``known`` are the fields that the caller knows: at least ``run``, ``method``, ``weights`` and ``config``.
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
    "file": "weights of a file nobody can vouch for",
    "random": "random weights",
}


def smoke_reasons(identity: Mapping[str, Any], made: Mapping[str, Any], kind: str) -> list[str]:
    """Why a result must not look like an official one; empty when nothing speaks against it."""
    reasons = []
    if kind == "score":
        reasons.append("scored from a file: what made it is not known to the suite")
    for split, data in {"test": identity, "train": made["data"].get("train")}.items():
        # Not every training set has published counts; a test set must.
        if data and not data["complete"] and (split == "test" or data["official"] or data["skipped_rows"]):
            found, official = data["found"], data["official"]
            short = [f"{found[k]:,} of {n:,} {k}" for k, n in official.items() if found[k] != n]
            if data["skipped_rows"]:
                short.append(f"{data['skipped_rows']:,} rows skipped")
            reasons.append(f"{split} data: {', '.join(short) or 'no official counts to hold it against'}")
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


def peak_memory() -> dict[str, int]:
    """Peak memory of this process, and of its GPU where there is one, in bytes."""
    import resource

    import torch

    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
