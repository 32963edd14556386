"""A trained method as an ONNX file that needs no torch, checked against the method itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gazebench.core.errors import DataError, brief
from gazebench.core.extras import needs
from gazebench.core.files import write_atomically
from gazebench.core.types import Batch, Prediction
from gazebench.engine.method import Method
from gazebench.metrics.decode import DECODERS
from gazebench.nn.feature_cache import without_cache

PARITY = 1e-4
"""The largest difference between the file's outputs and the method's that passes."""
REPEATS = 5


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the method.

    Attributes:
        path: the file.
        difference: the largest one of heatmaps, in/out and regressed points, for one, two and five people.
        torch_seconds: of a picture with two people, the median.
        onnx_seconds: the same by onnxruntime.
    """

    path: Path
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


def _outputs(prediction: Prediction) -> dict[str, Tensor]:
    """``point`` (P, 2), and where the method predicts them ``heatmap`` (P, h, w) and ``inout`` (P,)."""
    found = {"point": prediction.point, "heatmap": prediction.heatmap, "inout": prediction.inout}
    if prediction.point is None and prediction.heatmap is not None:
        found["point"] = DECODERS["argmax"](prediction.heatmap)
    return {name: value for name, value in found.items() if value is not None}


def export_onnx(method: Method, path: Path) -> Export:
    """Writes a method with all its weights, the frozen ones too, as an ONNX file, and compares the two.

    The file takes ``image`` (1, 3, H, W) uint8 RGB at the method's size and ``head`` (P, 4) float32 normalised xyxy,
    for any number of people P; its outputs are those of ``_outputs``.

    Raises:
        DataError: the method cannot be exported.
    """
    onnxruntime = needs("onnxruntime", "onnx")
    needs("onnxscript", "onnx")
    size = method.preprocess().size
    module = _OnePicture(method.cpu(), size).eval()
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, *size), dtype=np.uint8))

    def heads(people: int) -> Tensor:
        corners = np.sort(rng.random((people, 2, 2)), axis=1).reshape(people, 4)
        return torch.from_numpy(corners.astype(np.float32))

    with torch.no_grad(), without_cache():
        names = list(_outputs(module.predict(image, heads(2))))
        try:
            program: Any = torch.onnx.export(
                module, (image, heads(3)), input_names=["image", "head"], output_names=names, dynamo=True,
                dynamic_shapes={"image": None, "head": {0: torch.export.Dim("people")}}, verbose=False,
            )  # fmt: skip
        except Exception as error:  # the exporter raises whatever its passes raise
            raise DataError(f"{method.card.title} cannot be exported to ONNX: {brief(error)}") from error
        write_atomically(path, lambda file: program.save(file))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (people,) = (entry.shape[0] for entry in session.get_inputs() if entry.name == "head")
        if isinstance(people, int):
            raise DataError(f"{method.card.title} cannot be exported: its code fixes the number of people ({people})")

        def run(head: Tensor) -> list[Any]:
            found: list[Any] = session.run(names, {"image": image.numpy(), "head": head.numpy()})
            return found

        difference = 0.0
        for people in (1, 2, 5):
            head = heads(people)
            expected = _outputs(module.predict(image, head))
            for name, value, own in zip(names, run(head), expected.values(), strict=True):
                if name != "point" or "heatmap" not in names:  # of two equal cells either may be the largest
                    difference = max(difference, float(np.abs(value - own.numpy()).max()))
        pair = heads(2)
        return Export(path, difference, _median(lambda: module.predict(image, pair)), _median(lambda: run(pair)))


def _median(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
