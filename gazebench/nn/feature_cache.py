"""A cache on disk for the features of a frozen backbone, keyed by what the image holds, not by its name."""

from __future__ import annotations

import hashlib
import io
import uuid
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gazebench.core.files import cache_folder
from gazebench.nn.backbones import ViTBackbone

_DIGEST_BYTES = 16


def default_folder() -> Path:
    """Where features are kept unless told otherwise: beside the parsed annotations."""
    return cache_folder() / "features"


class CachedEncoder:
    """Calls a frozen backbone, remembering on disk what it said of each image.

    An image's key is the hash of its pixels and shape; its folder is named by the backbone's weights and precision.
    A file carries the hash of its content, so a damaged one counts as a miss and is replaced. Files appear whole or
    not at all, hence several processes may share a folder (each counts only its own writes against ``max_bytes``).

    Args:
        backbone: must stay frozen; new weights in it mean another folder.
        folder: None switches the cache off.
        max_bytes: writing stops, with one warning, where the folder would grow beyond; reading goes on.

    Attributes:
        hits: distinct images of a call that were read from disk, counted over calls.
        misses: those that were encoded.
    """

    def __init__(self, backbone: ViTBackbone, folder: str | Path | None, max_bytes: int | None = None) -> None:
        self.backbone = backbone
        self.root = None if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._bytes = 0
        if self.root is not None:
            self._bytes = sum(file.stat().st_size for file in self.root.glob("*/*.features"))
        self._full = False
        self._weights: list[tuple[int, int]] = []
        self._folder = Path()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w) float32 on the images' device; misses are encoded in one batch."""
        if images.dtype != torch.uint8:
            raise TypeError(f"the cache is keyed by uint8 pixels, got images of {images.dtype}")
        if self.root is None:
            return self.backbone(images)
        folder = self._current_folder(self.root)
        keys = [_key(image) for image in images.cpu().numpy()]
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        known = {key: _read(folder / f"{key}.features") for key in first}
        missing = [key for key, features in known.items() if features is None]
        self.hits += len(first) - len(missing)
        self.misses += len(missing)
        found = {key: features.to(images.device) for key, features in known.items() if features is not None}
        if missing:
            encoded = self.backbone(images[[first[key] for key in missing]])
            found.update(zip(missing, encoded, strict=True))
            for key, features in zip(missing, encoded.cpu(), strict=True):
                self._write(folder / f"{key}.features", features)
        return torch.stack([found[key] for key in keys])

    def _current_folder(self, root: Path) -> Path:
        """The folder of the weights as they are now; they are hashed again when a checkpoint was loaded into them."""
        if not self.backbone.frozen:
            raise ValueError("only a frozen backbone can be cached: some of its parameters require a gradient")
        # A tensor made in inference mode counts no versions.
        weights = [(p.data_ptr(), -1 if p.is_inference() else p._version) for p in self.backbone.parameters()]
        if weights != self._weights:
            self._weights = weights
            device = self.backbone.image_mean.device.type  # another device, another last digit
            name = f"{self.backbone.name}-{self.backbone.digest()}-{self.backbone.compute_dtype}-{device}"
            self._folder = root / name
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _write(self, path: Path, features: Tensor) -> None:
        buffer = io.BytesIO()
        np.save(buffer, features.numpy(), allow_pickle=False)
        content = buffer.getvalue()
        size = len(content) + _DIGEST_BYTES
        if self._full or (self.max_bytes is not None and self._bytes + size > self.max_bytes):
            if not self._full:
                self._full = True
                warnings.warn(
                    f"feature cache {self.root} is full ({self.max_bytes} bytes): no more writing", stacklevel=3
                )
            return
        partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            partial.write_bytes(_digest(content) + content)
            partial.replace(path)
        except OSError as error:  # a full disk costs time, not the run
            self._full = True
            partial.unlink(missing_ok=True)
            warnings.warn(f"feature cache {self.root} cannot be written ({error}): no more writing", stacklevel=3)
        self._bytes += size


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _key(image: np.ndarray) -> str:
    return hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()


def _read(path: Path) -> Tensor | None:
    """The features of a file; None when there is no such file or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return torch.from_numpy(np.load(io.BytesIO(content))) if _digest(content) == digest else None
