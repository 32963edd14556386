"""A cache on disk for the features of a frozen backbone, keyed by the pixels of each image."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gazebench.nn.backbones import ViTBackbone


class CachedEncoder:
    """Calls a frozen backbone and stores the features of each image on disk.

    A file ``<backbone, digest of its weights, precision, device>/<hash of pixels and shape>.npz`` holds one image. A
    damaged file, which its checksum shows, counts as missing. Files are renamed into place, so several processes may
    share a folder; each counts its own writes against ``max_bytes``. (joblib stores calls, not the images of a batch;
    diskcache, asked for 100 features with one flipped bit each, returned all 100 as if they were sound.)

    Args:
        backbone: must stay frozen; after its weights change, another folder is used.
        folder: None switches the cache off.
        max_bytes: largest size of the folder; once it is reached, nothing more is written, with one warning.
    """

    def __init__(self, backbone: ViTBackbone, folder: str | Path | None, max_bytes: int | None = None) -> None:
        self.backbone = backbone
        self.root = None if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self._writes = True
        self._bytes: int | None = None  # of the folder; counted before the first write
        self._weights: list[tuple[int, int]] = []
        self._folder = Path()

    used: ClassVar[bool] = True
    """False within ``without_cache``."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w) float32 on the images' device; misses are encoded in one batch."""
        if images.dtype != torch.uint8:
            raise TypeError(f"the cache is keyed by uint8 pixels, got images of {images.dtype}")
        if self.root is None or not self.used:
            return self.backbone(images)
        folder = self._weights_folder(self.root)
        files = [folder / f"{_key(image)}.npz" for image in images.cpu().numpy()]
        stored = {file: _read(file) for file in dict.fromkeys(files)}
        features = {file: value.to(images.device) for file, value in stored.items() if value is not None}
        missing = [file for file in stored if file not in features]
        if missing:
            encoded = self.backbone(images[[files.index(file) for file in missing]])
            features |= zip(missing, encoded, strict=True)
            for file in missing:
                self._write(self.root, file, features[file].cpu().numpy())
        return torch.stack([features[file] for file in files])

    def _weights_folder(self, root: Path) -> Path:
        """The folder for the current weights, which are hashed again after they have changed."""
        if not self.backbone.frozen:
            raise ValueError("only a frozen backbone can be cached: some of its parameters require a gradient")
        # A tensor made in inference mode has no version counter.
        weights = [(p.data_ptr(), -1 if p.is_inference() else p._version) for p in self.backbone.parameters()]
        if weights != self._weights:
            self._weights = weights
            device = self.backbone.image_mean.device.type  # devices differ in the last digit
            name = f"{self.backbone.name}-{self.backbone.digest()}-{self.backbone.compute_dtype}-{device}"
            self._folder = root / name
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _write(self, root: Path, file: Path, features: np.ndarray) -> None:
        if not self._writes:
            return
        partial = file.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            if self._bytes is None:
                self._bytes = sum(known.stat().st_size for known in root.glob("*/*.npz"))
            if self.max_bytes is not None and self._bytes + features.nbytes > self.max_bytes:
                raise OSError(f"it is full, {self.max_bytes} bytes")
            with partial.open("wb") as stream:
                np.savez(stream, features=features)
            self._bytes += partial.stat().st_size
            partial.replace(file)
        except OSError as error:  # a full disk costs time, not the run
            self._writes = False
            partial.unlink(missing_ok=True)
            warnings.warn(f"feature cache {root} is not written any more: {error}", stacklevel=3)


@contextmanager
def without_cache() -> Iterator[None]:
    """Within it no ``CachedEncoder`` reads or writes: every image is encoded."""
    CachedEncoder.used = False
    try:
        yield
    finally:
        CachedEncoder.used = True


def _key(image: np.ndarray) -> str:
    return hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).hexdigest()


def _read(file: Path) -> Tensor | None:
    """The features of a file; None where it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return torch.from_numpy(stored["features"])
    except Exception:  # zipfile and numpy raise many kinds on damaged files
        return None
