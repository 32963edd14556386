"""A trained method as ONNX files that need no torch, checked against the method itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gazebench.core.errors import DataError, brief
from gazebench.core.extras import needs
from gazebench.core.files import write_atomically
from gazebench.core.types import Batch, Prediction
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.dataset import GazeDataset
from gazebench.engine.method import Method
from gazebench.engine.score import Measured
from gazebench.metrics.decode import DECODERS
from gazebench.nn.feature_cache import CachedEncoder, without_cache

PARITY = 1e-4
"""The largest difference between the outputs of the fp32 file and the method's that passes."""
REPEATS = 5

Precision = Literal["fp32", "fp16", "int8"]


class OnnxGaze:
    """Exported files, run by onnxruntime on the CPU, each with what those before it gave."""

    def __init__(self, *paths: Path) -> None:
        new = needs("onnxruntime", "onnx").InferenceSession
        self.sessions = [new(str(path), providers=["CPUExecutionProvider"]) for path in paths]

    def __call__(self, image: Tensor, head: Tensor) -> dict[str, npt.NDArray[Any]]:
        """A picture (1, 3, H, W) uint8 and head boxes (P, 4) to the outputs of the last file."""
        known, found = {"image": image.numpy(), "head": head.numpy()}, {}
        for session in self.sessions:
            names = [output.name for output in session.get_outputs()]
            given = {entry.name: known[entry.name] for entry in session.get_inputs()}
            found = dict(zip(names, session.run(names, given), strict=True))
            known |= found
        return found


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the method.

    Attributes:
        paths: the file; with the backbone apart, that of the backbone before it.
        run: the files.
        difference: the largest one of heatmaps, in/out and regressed points, for one, two and five people.
        torch_seconds: of a picture with two people, the median.
        onnx_seconds: the same by onnxruntime.
    """

    paths: tuple[Path, ...]
    run: OnnxGaze
    difference: float
    torch_seconds: float
    onnx_seconds: float


class _OnePicture(nn.Module):
    """A method as a function of a picture (1, 3, H, W) uint8 and head boxes (P, 4)."""

    def __init__(self, method: Method, size: tuple[int, int]) -> None:
        super().__init__()
        self.method, self.height, self.width = method, *size

    def predict(self, image: Tensor, head: Tensor) -> Prediction:
        index = torch.zeros(head.shape[0], dtype=torch.int64)
        sizes = torch.tensor([[self.width, self.height]])
        prediction: Prediction = self.method(
            Batch(images=image, image_index=index, head=head, person_ids=[], image_ids=[""], sizes=sizes)
        )
        return prediction

    def forward(self, image: Tensor, head: Tensor) -> tuple[Tensor, ...]:
        return tuple(_outputs(self.predict(image, head)).values())


class _Frozen(nn.Module):
    """The part of a method before anything that learns: a picture (1, 3, H, W) uint8 to features."""

    def __init__(self, encoder: CachedEncoder) -> None:
        super().__init__()
        self.backbone, self.run = encoder.backbone, encoder.uncached

    def forward(self, image: Tensor) -> Tensor:
        return self.run(image)


class _Rest(_OnePicture):
    """The method from these features on; ``encoder`` is the name of its attribute that made them."""

    def __init__(self, method: Method, size: tuple[int, int], encoder: str) -> None:
        super().__init__(method, size)
        self.given: list[Tensor] = []
        setattr(method, encoder, lambda *_, **__: self.given.pop())

    def forward(self, features: Tensor, head: Tensor) -> tuple[Tensor, ...]:
        self.given.append(features)
        found = super().forward(torch.zeros(1, 3, self.height, self.width, dtype=torch.uint8), head)
        if self.given:
            self.given.clear()
            raise DataError(
                f"{self.method.card.title} reads no frozen features (it learns from its first block on): export it "
                "without --backbone apart"
            )
        return found


def _outputs(prediction: Prediction) -> dict[str, Tensor]:
    """``point`` (P, 2), and where the method predicts them ``heatmap`` (P, h, w) and ``inout`` (P,)."""
    found = {"point": prediction.point, "heatmap": prediction.heatmap, "inout": prediction.inout}
    if prediction.point is None and prediction.heatmap is not None:
        found["point"] = DECODERS["argmax"](prediction.heatmap)
    return {name: value for name, value in found.items() if value is not None}


def export_onnx(method: Method, path: Path, *, apart: bool = False, precision: Precision = "fp32") -> Export:
    """Writes a method with all its weights, the frozen ones too, as ONNX, and compares the two.

    The file takes ``image`` (1, 3, H, W) uint8 RGB at the method's size and ``head`` (P, 4) float32 normalised xyxy,
    for any number of people P; its outputs are those of ``_outputs``.

    Args:
        method: the method.
        path: the file.
        apart: write what the method makes of a picture before anything that learns to ``NAME.backbone.onnx``, whose
            output ``features`` the other file then takes instead of ``image``.
        precision: ``fp16`` stores weights and computes in half precision; ``int8`` stores the weights of products of
            matrices in 8 bits, and rounds what they are multiplied with at run time. Inputs and outputs stay float32.

    Raises:
        DataError: the method cannot be exported, or has no such part.
    """
    for module in ("onnxruntime", "onnxscript"):
        needs(module, "onnx")
    size = method.preprocess().size
    whole = _OnePicture(method.cpu(), size).eval()
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, *size), dtype=np.uint8))

    def heads(people: int) -> Tensor:
        corners = np.sort(rng.random((people, 2, 2)), axis=1).reshape(people, 4)
        return torch.from_numpy(corners.astype(np.float32))

    with torch.no_grad(), without_cache():
        names, paths = list(_outputs(whole.predict(image, heads(2)))), [path]
        if apart:
            encoders = [name for name, value in vars(method).items() if isinstance(value, CachedEncoder)]
            if not encoders:
                raise DataError(f"{method.card.title} has no frozen backbone to be written apart")
            encoder = getattr(method, encoders[0])
            frozen = _Frozen(encoder).eval()
            features = frozen(image)
            paths.insert(0, path.with_suffix(".backbone.onnx"))
            try:
                rest = _Rest(method, size, encoders[0]).eval()
                rest(features, heads(1))  # says so where it reads none
                _write(path, rest, {"features": features, "head": heads(3)}, names, precision)
            finally:
                setattr(method, encoders[0], encoder)
            _write(paths[0], frozen, {"image": image}, ["features"], precision)
        else:
            _write(path, whole, {"image": image, "head": heads(3)}, names, precision)
        run = OnnxGaze(*paths)
        (people,) = (entry.shape[0] for entry in run.sessions[-1].get_inputs() if entry.name == "head")
        if isinstance(people, int):
            raise DataError(f"{method.card.title} cannot be exported: its code fixes the number of people ({people})")
        difference = 0.0
        for people in (1, 2, 5):
            head = heads(people)
            expected, found = _outputs(whole.predict(image, head)), run(image, head)
            for name in names:
                if name != "point" or "heatmap" not in names:  # of two equal cells either may be the largest
                    difference = max(difference, float(np.abs(found[name] - expected[name].numpy()).max()))
        pair = heads(2)
        times = _median(lambda: whole.predict(image, pair)), _median(lambda: run(image, pair))
        return Export(tuple(paths), run, difference, *times)


def _write(
    path: Path, module: nn.Module, given: Mapping[str, Tensor], outputs: Sequence[str], precision: Precision
) -> None:
    """One file; ``head`` has any number of rows."""
    shapes = {name: {0: torch.export.Dim("people")} if name == "head" else None for name in given}
    try:
        program: Any = torch.onnx.export(
            module, tuple(given.values()), input_names=list(given), output_names=outputs, dynamo=True,
            dynamic_shapes=tuple(shapes.values()), verbose=False,
        )  # fmt: skip
    except Exception as error:  # the exporter raises whatever its passes raise
        raise DataError(f"{type(module).__name__} cannot be exported to ONNX: {brief(error)}") from error
    write_atomically(path, lambda file: program.save(file))
    reduced(path, precision)


def reduced(path: Path, precision: Precision) -> None:
    """Rewrites an fp32 file in another precision, see ``export_onnx``."""
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx = needs("onnx", "onnx")
        half = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
        write_atomically(path, lambda file: onnx.save(half, str(file)))
    elif precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        options: Any = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8}
        write_atomically(path, lambda file: quantize_dynamic(str(path), str(file), per_channel=True, **options))


def scores_of(
    method: Method, run: OnnxGaze, dataset: GazeDataset, images: int = 0
) -> dict[str, dict[str, tuple[float, float]]]:
    """What the method and its exported files score on the test split: ``{metric: {subset: (method, files)}}``.

    Args:
        method: the method, in float32.
        run: its files.
        dataset: the data set.
        images: at most so many images, evenly spaced; 0: all.
    """
    module = GazeDataModule(
        dataset, method.preprocess(), sees_images=method.sees_images, limit_test=images, workers=0, bad_images="skip"
    )
    records = module.eval_records("test")
    place = {str(image): number for number, image in enumerate(records.images)}
    own, files = Measured(dataset, records), Measured(dataset, records)
    for batch in module.predict_dataloader():
        where = np.array([place[image] for image in batch.image_ids], np.int64)
        prediction = method.predict_batch(batch)
        found = [
            run(batch.images[image : image + 1].contiguous(), batch.head[batch.image_index == image])
            for image in range(len(where))
        ]
        joined: dict[str, Any] = {
            name: torch.from_numpy(np.concatenate([one[name] for one in found])) for name in found[0]
        }
        if prediction.point is None:  # the protocol decodes both heatmaps
            joined.pop("point")
        own.add(where, prediction)
        files.add(where, Prediction(**joined))
    theirs = files.scorer.compute()
    return {
        metric: {subset: (score.value, theirs[metric][subset].value) for subset, score in subsets.items()}
        for metric, subsets in own.scorer.compute().items()
        if metric in theirs
    }


def _median(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
