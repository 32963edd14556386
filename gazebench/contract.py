"""The contract every method and dataset keeps, as findings a person can act on.

The same checks run in our test suite, behind ``gazebench check NAME``, and in a plug-in's own tests. Exceptions are
declared capabilities, never names.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gazebench.bench import Places, bench, data_module, quiet
from gazebench.config import Config, resolve
from gazebench.datamodule import ImageSamples, collate
from gazebench.dataset import GazeDataset
from gazebench.dataset_tools import findings as data_findings
from gazebench.method import Method
from gazebench.registry import RegistryError, load_dataset, load_method
from gazebench.types import IN_FRAME, Batch, Prediction, Records, clean_boxes, normalise

SMALL = [
    "--loader.workers=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
]


def check(name: str, *options: str) -> list[str]:
    """Findings about a method or dataset; none when the contract is kept.

    Args:
        name: of the method or dataset, or a file's path.
        options: settings of the method, to check another configuration than its default.

    Raises:
        RegistryError: it is neither.
    """
    try:
        method = load_method(name)
    except RegistryError as no_method:
        try:
            dataset = load_dataset(name)
        except RegistryError as no_dataset:
            raise RegistryError(f"{no_method}\n{no_dataset}") from None
        return list(check_dataset(dataset))
    return list(check_method(name, method, *options))


def check_dataset(dataset_class: type[GazeDataset]) -> Iterator[str]:
    """Its fake set, in the official layout, through its own parser."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = dataset_class.fake(Path(folder), people=12)
        seen: dict[str, set[str]] = {}
        for split in ("train", "val", "test"):
            records = dataset.records(split)
            if not records.people and split != "val":
                yield f"fake() writes nobody into {split}"
            ids = [str(person) for person in records.person_id]
            if len(set(ids)) != len(ids):
                yield f"{split}: person ids repeat"
            seen[split] = {str(group) for group in records.groups}
            yield from (f"{split}: {finding}" for finding in data_findings(dataset, split, 0))
            if records.fingerprint() != dataset.parse(split).fingerprint():
                yield f"{split}: reading it twice gives different annotations"
            yield from _record_findings(dataset, records)
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = seen[one] & seen[other]
            if shared:
                yield f"{one} and {other} share sources, e.g. {sorted(shared)[0]}"
        both = dataset.records("trainval").people
        if both != dataset.records("train").people + dataset.records("val").people:
            yield "trainval is not train and val together"
        if dataset.completeness("test").complete and not dataset.card.synthetic:
            yield "a tiny fake set counts as the complete official test set"


def _record_findings(dataset: GazeDataset, records: Records) -> Iterator[str]:
    for image in range(len(records)):
        width, height = dataset.size(records, image)
        picture = dataset.picture(records, image, size=(28, 42))
        if picture.shape != (28, 42, 3) or picture.dtype != np.uint8:
            yield f"picture(size=(28, 42)) is {picture.dtype} {picture.shape}, not uint8 (28, 42, 3)"
            break
        people = slice(records.person_start[image], records.person_start[image + 1])
        box = clean_boxes(normalise(records.head[people], records.head_unit, width, height))
        finite = np.isfinite(box).all(axis=1)
        if not (box[finite, 2:] > box[finite, :2]).all():
            yield f"{records.images[image]}: a head box has no area"
    seen = np.diff(records.point_start)[records.inout == IN_FRAME]
    if (seen == 0).any():
        yield f"{records.split}: somebody is in frame without an annotated point"


def small_config(name: str, data: str = "gazeworld", *options: str) -> Config:
    """A method on a handful of embedded scenes, on the CPU, without any download, one epoch."""
    method = load_method(name)
    world = [f"--dataset.{split}={count}" for split, count in (("train", 6), ("val", 3), ("test", 4))]
    given = [*SMALL, "--loader.batch_size=6", "--trainer.max_epochs=1", *(world if data == "gazeworld" else [])]
    return resolve([name, data, *given, *method.offline, *options])


def check_method(name: str, method_class: type[Method], *options: str) -> Iterator[str]:
    """Shapes, ranges, gradients, batching, leakage, checkpoints, and a whole run on a few scenes."""
    quiet()
    config = small_config(name, "gazeworld", *options)
    torch.manual_seed(0)
    method = config.method(**config.values["model"])
    dataset = config.dataset(**config.values["dataset"])
    module = data_module(config, dataset, method)
    samples = ImageSamples(
        dataset, dataset.records("test"), method.preprocess(), augment=False, sees_images=method.sees_images,
        bad_images="error", seed=0,
    )  # fmt: skip
    several = [samples[image] for image in range(4)]
    batch = collate(several)
    method.observe(module.annotations())
    method.eval()
    try:
        prediction = method.predict_batch(batch)
        wrong = list(_prediction_findings(method, prediction, batch))
        if wrong:  # what follows would only repeat it in harder words
            yield from wrong
            return
        if method.trains:
            yield from _training_findings(method, collate(several))
            method.eval()
            prediction = method.predict_batch(batch)
        yield from _batching_findings(method, prediction, several)
        if not method.reads_annotations:
            yield from _leakage_findings(method, prediction, batch)
        yield from _export_findings(config, method, batch)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder) / "runs", Path(folder) / "leaderboards")
        try:
            first = bench(config, places)
        except Exception as error:
            yield f"a whole run fails: {type(error).__name__}: {error}"
            return
        if not bench(config, places).repeated:
            yield "repeating a finished run runs again"
        if first.record["status"]["class"] == "official":
            yield "a run on a few scenes looks like an official result"


def _prediction_findings(method: Method, prediction: Prediction, batch: Batch) -> Iterator[str]:
    people = batch.people
    given = {"heatmap": prediction.heatmap, "inout": prediction.inout}
    for name, value in given.items():
        if value is None:
            continue
        if len(value) != people:
            yield f"{name} has {len(value)} rows for {people} people"
        if not torch.isfinite(value).all():
            yield f"{name} is not finite"
        elif name == "heatmap" and (value.min() < 0 or value.max() > 1):
            yield f"heatmap leaves [0, 1]: {float(value.min()):.3g} to {float(value.max()):.3g}"
    if prediction.point is not None and prediction.point.shape != (people, 2):
        yield f"point has shape {tuple(prediction.point.shape)}, not ({people}, 2)"
    if prediction.heatmap is None and prediction.point is None and not method.capabilities & {"text", "semantic"}:
        yield "neither a heatmap nor a point is predicted"
    if prediction.heatmap is not None and "heatmap" not in method.capabilities:
        yield "predicts a heatmap without declaring the capability 'heatmap'"
    if prediction.inout is not None and "inout" not in method.capabilities:
        yield "predicts in/out without declaring the capability 'inout'"


def _training_findings(method: Method, batch: Batch) -> Iterator[str]:
    method.train()
    learning = {name: p for name, p in method.named_parameters() if p.requires_grad}
    if not learning:
        return
    losses = method.loss(method(batch), batch)
    total = losses.get("total", torch.stack([v for k, v in losses.items() if k != "total"]).sum())
    if not torch.isfinite(total):
        yield f"the loss is {float(total.detach())}"
    total.backward()
    without = [name for name, parameter in learning.items() if parameter.grad is None]
    if without:
        yield f"no gradient reaches {', '.join(without[:4])}{' ...' if len(without) > 4 else ''}"
    frozen = [n for n, p in method.named_parameters() if not p.requires_grad and p.grad is not None]
    if frozen:
        yield f"frozen parameters get gradients: {', '.join(frozen[:4])}"
    method.zero_grad()


def _batching_findings(method: Method, together: Prediction, samples: list[Any]) -> Iterator[str]:
    alone = [method.predict_batch(collate([sample])) for sample in samples]
    for name in ("heatmap", "point", "inout"):
        whole = getattr(together, name)
        if whole is None:
            continue
        apart = torch.cat([getattr(prediction, name) for prediction in alone])
        difference = float((whole.double() - apart.double()).abs().max())
        if difference > 1e-4:
            yield f"{name} depends on what else is in the batch (difference {difference:.2g})"


def _leakage_findings(method: Method, prediction: Prediction, batch: Batch) -> Iterator[str]:
    targets = batch.targets
    assert targets is not None
    hidden = replace(
        targets,
        point=torch.full_like(targets.point, torch.nan),
        points=torch.full_like(targets.points, torch.nan),
        inout=torch.full_like(targets.inout, -1),
        subset=[""] * batch.people,
        extra={},
    )
    with torch.no_grad():
        blind = method(replace(batch, targets=hidden))
    for name in ("heatmap", "point", "inout"):
        seen, unseen = getattr(prediction, name), getattr(blind, name)
        if seen is not None and not torch.equal(seen, unseen):
            yield f"{name} changes when the targets are hidden at evaluation: they leak"


def _export_findings(config: Config, method: Method, batch: Batch) -> Iterator[str]:
    weights = {name: value.clone() for name, value in method.export().items()}
    torch.manual_seed(0)  # frozen random parts, where there are any, are those of the first build
    again = config.method(**config.values["model"])
    again.load_export(weights)
    again.eval()
    for name in ("heatmap", "point", "inout"):
        one, other = getattr(method.predict_batch(batch), name), getattr(again.predict_batch(batch), name)
        if one is not None and not torch.equal(one, other):
            yield f"{name} differs after export() and load_export()"
    if method.trains and weights:
        broken = dict(weights)
        broken.pop(next(iter(broken)))
        try:
            again.load_export(broken)
        except ValueError:
            return
        yield "load_export() takes weights with a missing key"
