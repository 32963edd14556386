"""How far a result can be trusted: facts about its data and its weights, and the class that follows from them.

A record keeps the facts (``data.completeness``, ``weights.parts``) and the class with its reasons (``status``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gazebench.core.known_weights import known
from gazebench.data import saliency_splits

HEADINGS = {
    "official": "Complete official test set",
    "listed": "Complete by the release's own file list (no counts of it are published)",
    "synthetic": "Complete runs (synthetic data: no published benchmark)",
    "unverified": "Complete test set, weights not verified (of unknown digest, or the predictions of another program)",
    "smoke": "Smoke runs (incomplete data, tiny or random weights, or limits: not benchmark results)",
}
"""Classes of results, best first, with their headings on a board."""

Standing = Literal["published", "own", "unverified", "random"]
LOWEST: tuple[Standing, ...] = ("random", "unverified", "own", "published")


@dataclass(frozen=True)
class Part:
    """Weights that a result depends on and that it did not learn itself.

    Attributes:
        part: ``backbone``, ``head_encoder``, ``initial`` (to start from, or evaluated), ``clip``, ``predictions`` ...
        name: of the model or the file.
        standing: ``published``; ``own``, made by this suite or by its user; ``unverified``; ``random``.
        by: how that is known: ``digest`` (of the package's table), ``user table``, ``name`` (fetched by it from its
            publisher), ``embedded`` in this package, ``record`` (of the run that wrote them), or empty.
        sha256: of the file, where known; those of several files joined by ``+``.
        run: that wrote them.
        run_class: the class of that run's result.
    """

    part: str
    name: str
    standing: Standing
    by: str = ""
    sha256: str = ""
    run: str = ""
    run_class: str = ""

    def describe(self) -> dict[str, str]:
        """Its JSON values; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value or key in ("name", "by")}

    def __str__(self) -> str:
        return f"{self.part.replace('_', ' ')} {self.name}".rstrip()


def own_run(sha256: str, places: Iterable[Path]) -> dict[str, str]:
    """Run and class of the record that says it wrote a file of weights; empty where none does.

    Args:
        sha256: of the file.
        places: record files, and the folders of boards and of runs.
    """
    for place in places:
        files = [place] if place.is_file() else [*place.glob("*/*.json"), *place.glob("*/*/*/record.json")]
        for text in (file.read_text(encoding="utf-8", errors="replace") for file in sorted(files)):
            if sha256 in text:
                record = json.loads(text)
                if (record["weights"].get("trained") or {}).get("sha256") == sha256:
                    return {"run": str(record["run"]), "class": str(record["status"]["class"])}
    return {}


def of_files(part: str, name: str, sha256: str, places: Sequence[Path] = ()) -> Part:
    """The standing of one or several files by their digests.

    Args:
        part: see ``Part``.
        name: of the model or the file.
        sha256: of the file, or of several joined by ``+``.
        places: see ``own_run``.
    """
    found = [known(digest) for digest in sha256.split("+")]
    entries = [entry for entry in found if entry is not None]
    if len(entries) == len(found):
        by = "digest" if all(entry.packaged for entry in entries) else "user table"
        standing: Standing = "own" if any(entry.standing == "own" for entry in entries) else "published"
        return Part(part, name, standing, by, sha256)
    if made := own_run(sha256, places):
        return Part(part, name, "own", "record", sha256, made["run"], made["class"])
    return Part(part, name, "unverified", "", sha256)


def parts(weights: Mapping[str, Any], kind: str, places: Sequence[Path] = ()) -> Iterator[Part]:
    """The parts of a result's weights.

    Args:
        weights: ``Method.weights_identity`` with ``initial``; or those of a record of any schema.
        kind: that of the record.
        places: see ``own_run``.
    """
    if "parts" in weights:
        yield from (Part(**part) for part in weights["parts"])
        return
    if kind == "score":
        yield Part("predictions", weights["name"], "unverified")
        return
    nested = {name: value for name, value in weights.items() if isinstance(value, Mapping) and "weights" in value}
    if not nested and weights["grade"] != "none":
        nested = {"backbone": {"weights": {"published": "pretrained"}.get(weights["grade"], weights["grade"])}}
    for part, identity in nested.items():
        name, origin = str(identity.get("name") or identity.get("net") or weights["name"]), str(identity["weights"])
        if origin == "random":
            # Of all others, what is random is learnt in the run: there is nothing to know of it.
            if part == "backbone" and weights["grade"] == "random":
                yield Part(part, name, "random")
        elif origin == "embedded":
            yield Part(part, name, "own", "embedded", str(identity.get("sha256", "")))
        elif origin == "pretrained":
            yield Part(part, name, "published", "name")
        elif origin.startswith("sha256:"):
            yield of_files(part, name, origin.removeprefix("sha256:"), places)
        else:
            yield Part(part, name, "unverified")
    if initial := weights.get("initial"):
        yield _initial(initial)


def _initial(initial: Mapping[str, Any]) -> Part:
    name, sha256 = str(initial["file"]), str(initial["sha256"])
    found = of_files("initial", name, sha256)
    if found.standing != "unverified":
        return found
    if initial.get("published"):
        return Part("initial", str(initial["published"]), "published", "name", sha256)
    if initial.get("class"):
        return Part("initial", name, "own", "record", sha256, str(initial.get("run", "")), str(initial["class"]))
    return found


def lowest(found: Iterable[Part]) -> str:
    """The least that can be said of all parts, one of ``LOWEST``; ``none`` where there is none."""
    return min((part.standing for part in found), key=LOWEST.index, default="none")


def completeness(data: Mapping[str, Any]) -> dict[str, Any]:
    """``state``, ``by`` and ``defects`` of a record's data; before schema 3 there was a flag."""
    if "completeness" in data:
        return dict(data["completeness"])
    by = "counts" if data.get("official") else "file list"
    return {"state": "complete" if data["complete"] else "partial", "by": by, "defects": []}


def status(
    identity: Mapping[str, Any], made: Mapping[str, Any], kind: str, found: Sequence[Part], reasons: Iterable[str] = ()
) -> dict[str, Any]:
    """The class of a result (see ``HEADINGS``) and why it is not a better one.

    Args:
        identity: of the test split (``GazeDataset.identity``).
        made: what made the predictions (``engine.predict``).
        kind: ``bench``, ``eval`` or ``score``.
        found: its ``parts``.
        reasons: further ones why this is no result at all.
    """
    why = [*reasons, *_defects(identity, made, kind, found)]
    doubts = [f"{part}: {_DOUBT.get(part.part, _DOUBT[''])}" for part in found if part.standing == "unverified"]
    doubts += [f"{part}: from run {part.run}, whose weights are not verified" for part in _from(found, "unverified")]
    by_list = completeness(identity)["state"] == "own list"
    best = "synthetic" if identity["synthetic"] else "listed" if by_list else "official"
    return {"class": "smoke" if why else "unverified" if doubts else best, "reasons": [*why, *doubts]}


_DOUBT = {"predictions": "scored from a file of unknown origin", "": "weights of unknown digest"}


def _from(found: Iterable[Part], run_class: str) -> list[Part]:
    return [part for part in found if part.run_class == run_class]


def _defects(identity: Mapping[str, Any], made: Mapping[str, Any], kind: str, found: Sequence[Part]) -> Iterator[str]:
    for split, data in {"test": identity, "train": made["data"].get("train")}.items():
        if data and (defects := completeness(data)["defects"]):
            yield f"{split} data: {', '.join(defects)}"
    if made["data"].get("limited"):
        yield "a limit on the number of images was set"
    for part in found:
        if part.standing == "random":
            yield f"{part}: random weights"
        if part.by == "embedded" and not identity["synthetic"]:
            yield f"{part}: the small weights of this package, made for its own world"
    for part in _from(found, "smoke"):
        yield f"{part}: the weights of a smoke run"
    if made["skipped_images"]:
        yield f"{len(made['skipped_images'])} unreadable images were skipped"
    yield from saliency_splits.defects(identity["subsets"])
    if kind != "score" and made["code"]["dirty"]:
        yield "the code had uncommitted changes"
