"""The contract test of methods and data sets.

The same checks run in our test suite, behind ``gazebench check NAME``, and in a plug-in's own tests, which call
``check(NAME)`` and expect an empty list; its signature is kept stable for them. A finding says what was expected, what
was found and what to change. Exceptions are declared as capabilities, never by name.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gazebench.core.errors import DataError, some
from gazebench.core.plugins import PluginError
from gazebench.core.types import IN_FRAME, SOCIAL, Batch, Prediction, Records
from gazebench.data.check import findings as data_findings
from gazebench.data.datamodule import ImageSamples, Sample, collate
from gazebench.data.dataset import GazeDataset
from gazebench.data.transforms import Preprocess
from gazebench.engine.config import Config, resolve
from gazebench.engine.method import Method, total_loss
from gazebench.engine.registry import KINDS, entries, is_file, load_dataset, load_method
from gazebench.engine.run import Places, bench, data_module
from gazebench.engine.train import quiet
from gazebench.metrics.base import GazeMetric
from gazebench.metrics.protocol import ALL
from gazebench.metrics.scoring import Scorer

SMALL = [
    "--loader.workers=0", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"
]  # fmt: skip
POINTS = ("point", "text_point")
FAR = 10.0
"""A point this many pictures away is in pixels."""
STEPS, STEP = 6, 1e-4
"""Of the check that a method learns: steps on one batch at most, and Adam's rate."""
TOLERANCE = 1e-4
"""How much a prediction may depend on the rest of its batch: float32 sums in another order differ by less."""


def check(name: str, *options: str) -> list[str]:
    """Findings about a method or data set; none when the contract is kept.

    Args:
        name: name of the method or data set, or a file's path.
        options: settings of the method, to check another configuration than its default.

    Raises:
        PluginError: it is neither, or it cannot be loaded.
    """
    registered = [kind for kind in KINDS if not is_file(name) and name in entries(kind)]
    if "methods" in registered:
        return list(check_method(name, load_method(name), *options))
    if "datasets" in registered:
        dataset = load_dataset(name)
        wrong = f"card.name is {dataset.card.name!r}; make it {name!r}, the name of its file or entry point"
        return [*([] if dataset.card.name == name else [wrong]), *check_dataset(dataset)]
    try:
        method = load_method(name)
    except PluginError as no_method:
        try:
            dataset = load_dataset(name)
        except PluginError as no_dataset:
            raise PluginError("\n".join(dict.fromkeys([str(no_method), str(no_dataset)]))) from None
        return list(check_dataset(dataset))
    return list(check_method(name, method, *options))


def check_dataset(dataset_class: type[GazeDataset]) -> Iterator[str]:
    """Findings about a data set: reads its fake set by its own parser and scores it by its own protocol."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield from _dataset_findings(dataset_class, Path(folder))
        except Exception as error:
            yield _raised("on its own fake set", error, dataset_class)


def _dataset_findings(dataset_class: type[GazeDataset], folder: Path) -> Iterator[str]:
    dataset = dataset_class.fake(folder, people=12)
    if not isinstance(dataset, dataset_class):
        yield f"fake() returns {type(dataset).__name__}, not {dataset_class.__name__}: end with `return cls(root)`"
        return
    seen: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        records = dataset.records(split)
        if not records.people and split != "val":
            yield f"fake() writes nobody into {split}; the check needs people there to test the parser"
        ids = [str(person) for person in records.person_id]
        twice = sorted({person for person in ids if ids.count(person) > 1})
        if twice:
            yield f"{split}: person ids repeat ({some(twice)}); make them unique, e.g. from image and row"
        seen[split] = {str(group) for group in records.groups}
        yield from (f"{split}: {finding}" for finding in data_findings(dataset, split, 0))
        if dataset.parse(split).fingerprint() != dataset.parse(split).fingerprint():
            yield f"{split}: parse() gives other annotations the second time; sort folders and sets, use no randomness"
        yield from _record_findings(dataset, records)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(seen[one] & seen[other])
        if shared:
            yield (
                f"{one} and {other} share the source {shared[0]!r} and {len(shared) - 1} more; the `groups` (clips, "
                "scenes) of two splits must differ"
            )
    both, train, val = (dataset.records(split).people for split in ("trainval", "train", "val"))
    if both != train + val:
        yield f"trainval has {both} people, train {train} and val {val}: parse('trainval') must give both together"
    if dataset.completeness("test").complete and not dataset.card.synthetic:
        yield (
            "a tiny fake set counts as the complete official test set: card.official['test'] must hold the counts of "
            "the release (or nothing), not those of the fake"
        )
    yield from _scoring_findings(dataset)


def _record_findings(dataset: GazeDataset, records: Records) -> Iterator[str]:
    for image in range(len(records)):
        pixels = dataset.image(records, image, size=(28, 42))
        if pixels.shape != (28, 42, 3) or pixels.dtype != np.uint8:
            yield (
                f"image(size=(28, 42)) is {pixels.dtype} {pixels.shape}, not uint8 (28, 42, 3); use load_image or "
                "resized of gazebench.data.images"
            )
            break
    box = records.head
    flat = np.isfinite(box).all(axis=1) & ~(box[:, 2:] > box[:, :2]).all(axis=1)
    if flat.any():
        yield (
            f"{records.person_id[flat][0]}: the head box has no area inside the image; parse() gives xmin, ymin, "
            "xmax, ymax in `head_unit`, and a row of NaN for no box"
        )
    bare = np.flatnonzero((np.diff(records.point_start) == 0) & (records.inout == IN_FRAME))
    if len(bare):
        yield (
            f"{records.split}: {records.person_id[bare[0]]} and {len(bare) - 1} more are in frame without an annotated "
            "point; give the point, or inout -1 (unknown) or 0 (out of frame)"
        )


def _scoring_findings(dataset: GazeDataset) -> Iterator[str]:
    """Whether the protocol can score a prediction that has every kind of output."""
    records = dataset.records("test")
    answer = Prediction(
        heatmap=torch.rand(records.people, 8, 8, generator=torch.Generator().manual_seed(0)),
        point=torch.full((records.people, 2), 0.5),
        inout=torch.linspace(0, 1, records.people),
        label=[str(label) for label in records.columns["label"]] if "label" in records.columns else None,
    )
    scorer = Scorer(dataset.protocol, records)
    scorer.update(np.arange(len(records)), answer)
    yield from _metric_findings(scorer)
    headline = dataset.protocol.headline
    if headline not in scorer.compute():
        needs = ", ".join(dataset.protocol.metric(headline).metric().fields)
        yield (
            f"protocol {dataset.protocol.id}: its headline {headline!r} has a value for nobody of the fake test split; "
            f"it needs {needs}: annotate people in frame, give the records those columns, or name another headline"
        )


def _metric_findings(scorer: Scorer) -> Iterator[str]:
    """Whether the metrics of a scorer that has seen people go together with those of a process that saw nobody.

    Processes gather each state of a metric in turn; where one gives another kind of tensor than the others, or none,
    they raise or wait for each other for ever, depending on the version of torchmetrics.
    """
    for column in scorer.columns:
        found = scorer.metrics[f"{column.name}/{ALL}"]
        assert isinstance(found, GazeMetric)
        what = f"metric {column.name!r} ({type(found).__name__})"
        try:
            seen, nobody = _gathered(copy.deepcopy(found)), _gathered(column.metric())
            value = column.metric().compute()
        except Exception as error:
            yield f"{what} fails in a process that saw nobody: {type(error).__name__}: {error}"
            continue
        if value.numel():
            yield f"{what} is {value.tolist()} for nobody: compute() must give a tensor of shape (0,)"
        for name, here in seen.items():
            if isinstance(here, list) and here:
                there = {(part.dtype, part.shape[1:]) for part in nobody[name]}
                if there != {(part.dtype, part.shape[1:]) for part in here}:
                    yield (
                        f"{what}: a process that saw nobody has the list {name!r} as {nobody[name]}, others have "
                        f"{here[0].dtype} {tuple(here[0].shape)}, so they would wait for each other: keep numbers of a "
                        "person in what `values` returns (`columns` of them), or add such an empty tensor in sync()"
                    )


def _gathered(metric: GazeMetric) -> dict[str, Any]:
    """The states of a metric as its process hands them to the others."""
    metric.sync(dist_sync_fn=lambda state, group=None: [state], distributed_available=lambda: True)
    metric.unsync()
    states: dict[str, Any] = metric.metric_state
    return states


def small_config(name: str, data: str = "gazeworld", *options: str) -> Config:
    """A configuration of a method for one epoch on a few embedded scenes, on the CPU, without any download."""
    method = load_method(name)
    world = [f"--dataset.{split}={count}" for split, count in (("train", 6), ("val", 3), ("test", 4))]
    given = [*SMALL, "--loader.batch_size=6", "--trainer.max_epochs=1", *(world if data == "gazeworld" else [])]
    return resolve([name, data, *given, *method.offline, *options])


def check_method(name: str, method_class: type[Method], *options: str) -> Iterator[str]:
    """Findings about a method: shapes, ranges, gradients, batching, leakage, checkpoints, and a run on a few scenes."""
    quiet()
    try:
        config = small_config(name, "gazeworld", *options)
    except DataError as error:
        if options:  # the error is about the user's options
            raise
        yield f"its constructor and its recipe do not make a configuration: {error}"
        return
    try:
        found = list(_method_findings(config))
    except Exception as error:
        found = [_raised("on four scenes", error, method_class)]
    yield from found
    if found:  # a whole run would only repeat it, less clearly
        return
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder) / "runs", Path(folder) / "leaderboards")
        try:
            first = bench(config, places)
        except Exception as error:
            yield _raised("a whole run fails", error, method_class)
            return
        if not bench(config, places).repeated:
            yield "a finished run is run again when it is repeated: keep the class in a file that does not change"
        if first.record["status"]["class"] == "official":
            yield "a run on a few scenes counts as official: weights_identity() must return the grade of the weights"


def _method_findings(config: Config) -> Iterator[str]:
    if missing := list(_missing(config.method.cls, "preprocess", "forward")):
        yield from missing
        return
    torch.manual_seed(0)
    method = config.new_method()
    preprocess = method.preprocess()
    if not isinstance(preprocess, Preprocess):
        yield f"preprocess() returns {type(preprocess).__name__}, not a gazebench.data.transforms.Preprocess"
        return
    dataset = config.new_dataset()
    module = data_module(config, dataset, method)
    records = dataset.records("test")
    if preprocess.clips:
        records = _as_clip(records.of_images(np.arange(4)))
    samples = ImageSamples(dataset, records, preprocess, sees_images=method.sees_images, tasks=module.tasks)
    batch = collate(samples.__getitems__(range(4)))
    method.observe(module.annotations())
    method.eval()
    prediction = method.predict_batch(batch)
    if wrong := list(_prediction_findings(method, prediction, batch)):  # the checks below would only repeat these
        yield from wrong
        return
    if module.tasks and batch.targets is not None:
        scorer = Scorer(dataset.protocol, dataset.records("test"), module.tasks)
        items = {task: (found, batch.targets.truths[task]) for task, found in batch.items.items()}
        scorer.update(np.arange(4), prediction, items)
        yield from _metric_findings(scorer)
    if method.trains:
        yield from _training_findings(method, collate(samples.__getitems__(range(4))))
        method.eval()
        prediction = method.predict_batch(batch)
    again = method.predict_batch(batch).tensors()
    drifting = [name for name, value in prediction.tensors().items() if not torch.equal(value, again[name])]
    if drifting:  # every comparison below would fail too
        yield (
            f"{some(drifting)} changes from one call to the next in eval mode: switch off what is random there "
            "(dropout), or seed it by batch.person_ids"
        )
        return
    yield from _batching_findings(method, prediction, [samples.__getitems__([image]) for image in range(4)])
    if not method.reads_annotations:
        yield from _leakage_findings(method, prediction, batch)
    yield from _blindness_findings(method, prediction, batch)
    yield from _headless_findings(method, batch)
    yield from _export_findings(config, method, batch)


def _as_clip(records: Records) -> Records:
    """Scenes as frames of one clip, for methods that look at several: a gradient passes on what is remembered."""
    place = np.arange(records.people) - records.person_start[records.person_image]
    columns = {**records.columns, "track": place.astype(str)}
    return replace(records, columns=columns, groups=np.full_like(records.groups, records.groups[0]))


def _missing(method_class: type[Method], *names: str) -> Iterator[str]:
    for name in names:
        if getattr(method_class, name) is getattr(Method, name):
            yield f"{method_class.__name__} lacks {name}(): {inspect.getdoc(getattr(Method, name))}"


def _prediction_findings(method: Method, prediction: Prediction, batch: Batch) -> Iterator[str]:
    people = batch.people
    if not isinstance(prediction, Prediction):
        yield f"forward() returns {type(prediction).__name__}, not a gazebench.core.types.Prediction"
        return
    pairs = len(batch.pairs)
    wanted = {
        "heatmap": f"({people}, rows, columns)",
        "point": f"({people}, 2): x, y of each person, normalised",
        "text_point": f"({people}, 2): the point in each person's text, normalised",
        "inout": f"({people},): one score for each person",
        **dict.fromkeys(SOCIAL, f"({pairs},): one score for each of batch.pairs"),
    }
    for name, value in prediction.tensors().items():
        shape = tuple(value.shape)
        fits = len(shape) == 3 if name == "heatmap" else shape[1:] == ((2,) if name in POINTS else ())
        unit, count = ("pair", pairs) if name in SOCIAL else ("person", people)
        if len(value) != count:
            order = "of batch.pairs" if name in SOCIAL else "in the order of batch.person_ids"
            yield (
                f"{name} has {len(value)} rows for {people} people in {len(batch.image_ids)} images: give one for "
                f"each {unit} {order}, {count} in all"
            )
        elif not fits:
            yield f"{name} has shape {shape}, not {wanted[name]}"
        elif not torch.isfinite(value).all():
            bad = ~torch.isfinite(value).reshape(count, -1).all(1)
            yield f"{name} is not finite for {int(bad.sum())} of {count} {'pairs' if name in SOCIAL else 'people'}"
        elif name in POINTS and count and value.abs().max() > FAR:
            yield f"{name} reaches {float(value.abs().max()):.3g}: give x / width and y / height, not pixels"
        elif name not in (*POINTS, "inout") and count and (value.min() < 0 or value.max() > 1):
            yield (
                f"{name} leaves [0, 1]: {float(value.min()):.3g} to {float(value.max()):.3g}; end with a sigmoid, or "
                "divide a softmax by its largest value"
            )
    yield from _label_findings(method, prediction, people)
    if not prediction.tensors().keys() & {"heatmap", "point"} and not method.capabilities & {"text", "semantic"}:
        yield "neither a heatmap nor a point is predicted: give Prediction(heatmap=...) or Prediction(point=...)"
    for name in prediction.tensors():
        capability = {**dict.fromkeys(SOCIAL, "social"), "text_point": "text"}.get(name, name)
        if capability not in ("point", *method.capabilities):
            yield f"predicts {name} without declaring it: add {capability!r} to `capabilities`"


def _label_findings(method: Method, prediction: Prediction, people: int) -> Iterator[str]:
    labels = prediction.label
    if labels is None:
        return
    if len(labels) != people or not all(isinstance(label, str) for label in labels):
        yield f"label is {labels!r:.60}, not a text for each of {people} people ('' for no answer)"
    if "semantic" not in method.capabilities:
        yield "predicts label without declaring it: add 'semantic' to `capabilities`"


def _training_findings(method: Method, batch: Batch) -> Iterator[str]:
    method.train()
    learning = {name: p for name, p in method.named_parameters() if p.requires_grad}
    if not learning:
        return
    if missing := list(_missing(type(method), "loss", "optimizer")):
        yield from (f"{finding} (or set trains = False)" for finding in missing)
        return
    losses = method.loss(batch)
    if not isinstance(losses, dict) or not losses:
        yield f"loss() returns {losses!r:.80}, not a dict of scalar tensors by name, e.g. {{'l2': ...}}"
        return
    for name, value in losses.items():
        if value.dim():
            yield f"loss() gives {name} with shape {tuple(value.shape)}, not a scalar: take its mean or sum"
            return
    total = total_loss(losses)
    if not torch.isfinite(total):
        yield (
            f"the loss is {float(total.detach())} on four scenes: leave out people without a target "
            "(batch.targets.point is NaN where inout is not 1)"
        )
    if not total.requires_grad:
        yield "no gradient reaches anything: the loss does not depend on a trainable parameter (detach(), no_grad()?)"
        return
    total.backward()
    without = [name for name, parameter in learning.items() if parameter.grad is None]
    if without:
        yield f"no gradient reaches {some(without)}: use it in loss(), or freeze it with requires_grad_(False)"
    frozen = [n for n, p in method.named_parameters() if not p.requires_grad and p.grad is not None]
    if frozen:
        yield f"frozen parameters get gradients: {some(frozen)}; leave requires_grad alone during loss()"
    bad = [name for name, parameter in learning.items() if parameter.grad is not None and not _finite(parameter.grad)]
    if bad:
        yield f"the gradient of {some(bad)} is not finite: e.g. the derivative of norm() or sqrt() at 0"
    elif not without and torch.isfinite(total):
        yield from _step_findings(method, learning, batch)
    method.zero_grad()


def _finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _step_findings(method: Method, learning: Mapping[str, torch.nn.Parameter], batch: Batch) -> Iterator[str]:
    """Whether a few small steps on one batch lower its loss and move every parameter.

    What starts at 0, as the second factor of LoRA does, keeps the gradient from what lies before it in the first
    steps; so a parameter is unreached only where its gradient is exactly 0 in all of them.
    """
    descent = torch.optim.Adam(learning.values(), lr=STEP)
    unreached, losses = set(learning), list[float]()
    for _ in range(STEPS):
        torch.manual_seed(0)  # the same dropout in every step
        descent.zero_grad()
        total = total_loss(method.loss(batch))
        losses.append(float(total.detach()))
        if min(losses) < losses[0] and not unreached:
            return
        total.backward()
        unreached -= {
            name for name, parameter in learning.items() if parameter.grad is not None and parameter.grad.any()
        }
        descent.step()
    if unreached:
        yield (
            f"the gradient of {some(sorted(unreached))} stays 0 in {STEPS} steps: something on the way to the loss is "
            "cut off (detach(), a factor 0, argmax)"
        )
    if min(losses) >= losses[0]:
        yield (
            f"{STEPS} small steps down the gradient do not lower the loss on the same batch ({losses[0]:.5g} to "
            f"{losses[-1]:.5g}): its gradient is not that of what loss() returns, or has the wrong sign"
        )


def _batching_findings(method: Method, together: Prediction, single: list[list[Sample]]) -> Iterator[str]:
    alone = [method.predict_batch(collate(samples)).tensors() for samples in single]
    for name, whole in together.tensors().items():
        apart = torch.cat([answers[name] for answers in alone])
        difference = float((whole.double() - apart.double()).abs().max()) if len(whole) else 0.0
        if difference > TOLERANCE:
            yield (
                f"{name} depends on what else is in the batch (difference {difference:.2g}, at most {TOLERANCE:g}): "
                "no statistics over a batch at evaluation, and batch.image_index to pair people with images"
            )


def _leakage_findings(method: Method, prediction: Prediction, batch: Batch) -> Iterator[str]:
    targets = batch.targets
    assert targets is not None
    hidden = replace(
        targets,
        point=torch.full_like(targets.point, torch.nan),
        points=torch.full_like(targets.points, torch.nan),
        inout=torch.full_like(targets.inout, -1),
        columns={},
        pairs={},
        truths={},
    )
    with torch.no_grad():
        blind = method(replace(batch, targets=hidden)).tensors()
    for name, seen in prediction.tensors().items():
        if name not in blind or not torch.equal(seen, blind[name]):
            yield (
                f"{name} changes when the targets are hidden at evaluation: they leak; forward() must not read "
                "batch.targets (a human baseline declares reads_annotations = True)"
            )


def _blindness_findings(method: Method, prediction: Prediction, batch: Batch) -> Iterator[str]:
    """Whether a prediction depends on what the card says that the method does not see."""
    sees = method.card.sees
    if sees is None:
        return
    changed = {}
    if not sees & {"head box", "head crop"}:
        changed["head box"] = replace(batch, head=batch.head.flip(0) * 0.9)
    if "picture" not in sees and batch.images is not None:
        noise = torch.randint(0, 256, batch.images.shape, generator=torch.Generator().manual_seed(0))
        images = noise.to(batch.images.dtype)
        if sees & {"head box", "head crop"}:
            for image, box in zip(batch.image_index.tolist(), batch.head.nan_to_num(0), strict=True):
                height, width = images.shape[-2:]
                left, top = (int(side * share) for side, share in zip((width, height), box[:2].tolist(), strict=True))
                right, below = (
                    int(side * share) + 1 for side, share in zip((width, height), box[2:].tolist(), strict=True)
                )
                part = (image, slice(None), slice(max(0, top - 2), below + 2), slice(max(0, left - 2), right + 2))
                images[part] = batch.images[part]
        changed["picture"] = replace(batch, images=images)
    for what, other in changed.items():
        for name, value in method.predict_batch(other).tensors().items():
            difference = (
                float((value.double() - prediction.tensors()[name].double()).abs().max()) if len(value) else 0.0
            )
            if difference > TOLERANCE:
                yield f"{name} depends on the {what} (by {difference:.2g}): add {what!r} to `sees` of the card"


def _headless_findings(method: Method, batch: Batch) -> Iterator[str]:
    """Whether a person without a head box gets a finite prediction, which ``gazebench predict`` without --box needs."""
    head = batch.head.clone()
    head[0] = torch.nan
    for name, value in method.predict_batch(replace(batch, head=head)).tensors().items():
        if not torch.isfinite(value).all():
            yield f"{name} is not finite for a person without a head box; use e.g. batch.head.nan_to_num(0.5)"


def _export_findings(config: Config, method: Method, batch: Batch) -> Iterator[str]:
    weights = {name: value.clone() for name, value in method.export().items()}
    torch.manual_seed(0)  # frozen random parts, where there are any, are those of the first build
    again = config.new_method()
    again.load_export(weights)
    again.eval()
    others = again.predict_batch(batch).tensors()
    for name, value in method.predict_batch(batch).tensors().items():
        if not torch.equal(value, others[name]):
            yield (
                f"{name} differs after export() and load_export(): all that training changes must be a parameter or a "
                "persistent buffer"
            )
    if method.trains and weights:
        broken = dict(weights)
        broken.pop(next(iter(broken)))
        try:
            again.load_export(broken)
        except ValueError:
            return
        yield "load_export() takes weights with a missing key: raise a ValueError that names it, or inherit it"


def _raised(when: str, error: Exception, culprit: type) -> str:
    """An exception as a finding, with the last line of the culprit's own file in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getsourcefile(culprit)]
    place = (own or frames)[-1]
    return f"{when}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno}: {place.line})"
