"""A cache on disk for what a frozen backbone, or its first blocks, make of an image, keyed by the image's pixels."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from gazebench.nn.backbones import ViTBackbone

_ROW = np.dtype(
    [("key", "u1", 16), ("start", "<u8"), ("shape", "<u4", 4), ("dtype", "S4"), ("crc", "<u4"), ("own_crc", "<u4")]
)
"""An entry of the index: where the array lies, and checksums of its bytes and of the entry before ``own_crc``."""
_ALIGNED = 64


class FeatureFile:
    """Arrays by key in one file, to which they are appended, with an index beside it; memory-mapped for reading.

    An entry is written to ``features.index`` after its array is in ``features.bin``, and both carry checksums: what a
    killed process left half written, or what a disk has damaged, counts as missing and is appended again. Writers wait
    for each other's lock, readers for nobody, so several processes may share the folder (on one machine, or where the
    file system has locks). Cached features of earlier versions, files ``*.npz``, are neither read nor deleted.

    Args:
        folder: of the two files; made at the first write.
        max_bytes: largest size of all such files in ``folder`` and the folders beside it.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._rows: dict[bytes, np.void] = {}
        self._read = 0  # entries of the index
        self._map: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)

    def read(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """The arrays of those keys that are there and sound; views into the file, not writable."""
        wanted = list(dict.fromkeys(keys))
        if any(key not in self._rows for key in wanted):
            self._refresh()
        found = {key: self._array(self._rows[key]) for key in wanted if key in self._rows}
        return {key: array for key, array in found.items() if array is not None}

    def write(self, arrays: Mapping[bytes, np.ndarray]) -> None:
        """Appends arrays of one to four dimensions by 16-byte keys, unless they are there and sound.

        Raises:
            OSError: the disk or ``max_bytes`` is full, or the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", timeout=60):
            self._refresh()
            taken = sum(map(_size, self.folder.parent.glob("*/features.*")))
            for key, array in arrays.items():
                if key not in self._rows or self._array(self._rows[key]) is None:
                    taken += self._append(key, np.ascontiguousarray(array), taken)

    def _append(self, key: bytes, array: np.ndarray, taken: int) -> int:
        """The bytes added, under the lock, to the ``taken`` ones."""
        data, index = self.folder / "features.bin", self.folder / "features.index"
        start = -(-_size(data) // _ALIGNED) * _ALIGNED
        added = start - _size(data) + array.nbytes + _ROW.itemsize
        if self.max_bytes is not None and taken + added > self.max_bytes:
            raise OSError(f"it is full, {self.max_bytes} bytes")
        row = np.zeros(1, _ROW)
        row["key"], row["start"], row["dtype"] = np.frombuffer(key, np.uint8), start, array.dtype.str.encode()
        row["shape"][0, : array.ndim], row["crc"] = array.shape, zlib.crc32(array.reshape(-1).view(np.uint8).data)
        row["own_crc"] = zlib.crc32(row.tobytes()[:-4])
        with data.open("ab") as stream:
            stream.truncate(start)  # grows to it with zeros
            array.tofile(stream)
        whole = _size(index) // _ROW.itemsize * _ROW.itemsize
        with index.open("ab") as stream:
            stream.truncate(whole)  # without what a killed process has left
            stream.write(row.tobytes())
        return added

    def _refresh(self) -> None:
        """Reads what has been added to the index."""
        index = self.folder / "features.index"
        entries = _size(index) // _ROW.itemsize
        if entries < self._read:  # deleted, and perhaps begun again
            self._rows, self._read, self._map = {}, 0, np.zeros(0, np.uint8)
        if entries > self._read:
            rows = np.fromfile(index, _ROW, entries - self._read, offset=self._read * _ROW.itemsize)
            self._rows |= {r["key"].tobytes(): r for r in rows if r["own_crc"] == zlib.crc32(r.tobytes()[:-4])}
            self._read += len(rows)

    def _array(self, row: np.void) -> np.ndarray | None:
        dtype, shape = np.dtype(row["dtype"].decode()), tuple(int(n) for n in row["shape"] if n)
        start, size = int(row["start"]), dtype.itemsize * int(np.prod(shape))
        if len(self._map) < start + size:
            data = self.folder / "features.bin"
            if _size(data) < start + size:
                return None
            self._map = np.memmap(data, np.uint8, "r")
        stored = self._map[start : start + size]
        return stored.view(dtype).reshape(shape) if zlib.crc32(stored.data) == row["crc"] else None


class CachedEncoder:
    """Calls a frozen backbone, or its blocks before the first that learns, and stores the results in a ``FeatureFile``.

    There is one for each ``<backbone, digest of its weights, precision, device, blocks>``, below ``folder``. All data
    sets that are seen through this backbone share it, as some share pictures. (joblib stores calls, not the images of a
    batch; diskcache, asked for 100 features with one flipped bit each, returned all 100 as if they were sound.)

    Args:
        backbone: what is used of it must stay frozen; after its weights change, another folder is used.
        folder: None switches the cache off.
        max_bytes: largest size of the folder; once it is reached, nothing more is written, with one warning.
        blocks: how many blocks are run; None: all, and the final norm.
    """

    def __init__(
        self,
        backbone: ViTBackbone,
        folder: str | Path | None,
        max_bytes: int | None = None,
        blocks: int | None = None,
    ) -> None:
        self.backbone, self.blocks = backbone, blocks
        self.root = None if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self._writes = True
        self._weights: list[tuple[int, int]] = []
        self._file = FeatureFile(Path())

    used: ClassVar[bool] = True
    """False within ``without_cache``."""

    @torch.no_grad()
    def __call__(self, images: Tensor, alone: bool = False) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w) float32, or with ``blocks`` (B, prefix + h w, C), on the images' device.

        Misses are encoded in one batch, or ``alone``, one by one: then no value depends on what else is in the batch,
        not even its last digit, which a training would make grow.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"the cache is keyed by uint8 pixels, got images of {images.dtype}")
        if self.root is None or not self.used:
            return self.uncached(images, alone)
        file = self._file_of_weights(self.root)
        keys = [_key(image) for image in images.cpu().numpy()]
        features = file.read(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in features]
        if missing:
            encoded = self.uncached(images[[keys.index(key) for key in missing]], alone)
            features |= zip(missing, encoded.cpu().numpy(), strict=True)
            self._write(file, {key: features[key] for key in missing})
            if len(missing) == len(keys):
                return encoded
        # In torch's own memory: products of matrices that are aligned otherwise may differ in the last digit.
        return torch.stack([torch.from_numpy(features[key]) for key in keys]).to(images.device)

    @torch.no_grad()
    def uncached(self, images: Tensor, alone: bool = False) -> Tensor:
        """The same without the cache, also of float images in [0, 1]."""
        if alone:
            return torch.cat([self.uncached(image) for image in images.split(1)])
        # Contiguous, as what is read from the file: products over other strides differ in the last digit.
        if self.blocks is None:
            return self.backbone(images).contiguous()
        with self.backbone.autocast():
            return self.backbone.tokens(images, self.blocks).float().contiguous()

    def _file_of_weights(self, root: Path) -> FeatureFile:
        """The file for the current weights, which are hashed again after they have changed."""
        tensors = self.backbone.weights_before(self.blocks).values()
        if any(tensor.requires_grad for tensor in tensors):
            raise ValueError("only a frozen backbone can be cached: some of its parameters require a gradient")
        # A tensor made in inference mode has no version counter.
        weights = [(p.data_ptr(), -1 if p.is_inference() else p._version) for p in tensors]
        if weights != self._weights:
            self._weights = weights
            device = self.backbone.image_mean.device.type  # devices differ in the last digit
            known_as = self.backbone.name.replace(":", "-")  # timm:NAME; Windows has no colons in names
            part = "" if self.blocks is None else f"-{self.blocks}-blocks"
            digest = self.backbone.digest(self.blocks)
            name = f"{known_as}-{digest}-{self.backbone.compute_dtype}-{device}{part}"
            self._file = FeatureFile(root / name, self.max_bytes)
        return self._file

    def _write(self, file: FeatureFile, features: Mapping[bytes, np.ndarray]) -> None:
        if not self._writes:
            return
        try:
            file.write(features)
        except OSError as error:  # a full disk costs time, not the run
            self._writes = False
            warnings.warn(f"feature cache {self.root} is not written any more: {error}", stacklevel=3)


@contextmanager
def without_cache() -> Iterator[None]:
    """Within it no ``CachedEncoder`` reads or writes: every image is encoded."""
    CachedEncoder.used = False
    try:
        yield
    finally:
        CachedEncoder.used = True


def _key(image: np.ndarray) -> bytes:
    return hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).digest()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
