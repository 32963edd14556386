"""Encodes an image file or array as the JPEG or PNG bytes that a model is shown."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from gazebench.core.errors import ImageError
from gazebench.core.rgb import to_rgb
from gazebench.vlm.messages import EncodedImage

Format = Literal["jpeg", "png"]
_MIME = {"JPEG": "image/jpeg", "PNG": "image/png"}


@dataclass(frozen=True)
class Encoding:
    """How images are resized and encoded; part of the identity of the answers.

    Attributes:
        max_side: largest length of the longer side in pixels; smaller images are not enlarged.
        format: format of images that have to be encoded; a JPEG or PNG file that fits is sent as it is.
        quality: quality of JPEG, 1 to 95.
    """

    max_side: int = 1280
    format: Format = "jpeg"
    quality: int = 90

    def __post_init__(self) -> None:
        if self.max_side < 1:
            raise ValueError(f"max_side={self.max_side}: give at least 1 pixel")
        if self.format not in ("jpeg", "png"):
            raise ValueError(f"format={self.format!r}: choose jpeg or png")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"quality={self.quality}: choose 1 to 95")

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values; without the quality for PNG, which does not depend on it."""
        identity: dict[str, Any] = {"max_side": self.max_side, "format": self.format}
        return identity | ({"quality": self.quality} if self.format == "jpeg" else {})

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) in pixels at which an image of this (width, height) is shown."""
        scale = min(1.0, self.max_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def encode(self, source: Path | str | npt.NDArray[np.uint8]) -> EncodedImage:
        """Encodes an image file, or an (H, W, 3) uint8 RGB array.

        Larger images are resized to ``max_side``, keeping the aspect ratio. An RGB JPEG or PNG file that fits is sent
        as it is, unless it has an orientation tag: annotations are in stored pixels, and a server might turn the image,
        so it is encoded without the tag. Alpha is dropped.

        Raises:
            ImageError: the file is missing, truncated or no image. ValueError: the array has another shape or type.
        """
        if not isinstance(source, np.ndarray):
            found = self._from_file(source)
            if isinstance(found, EncodedImage):
                return found
            source = found
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise ValueError(f"an image is (H, W, 3) uint8, this is {source.shape} {source.dtype}")
        image = Image.fromarray(np.ascontiguousarray(source))
        if max(image.size) > self.max_side:
            image = image.resize(self.shown_size(image.size), Image.Resampling.LANCZOS)
        file = BytesIO()
        if self.format == "jpeg":
            image.save(file, "JPEG", quality=self.quality)
        else:
            # The higher levels take ten times as long and save a tenth of the bytes.
            image.save(file, "PNG", compress_level=1)
        return EncodedImage(file.getvalue(), _MIME[self.format.upper()], image.size)

    def _from_file(self, path: Path | str) -> EncodedImage | npt.NDArray[np.uint8]:
        """The file's own bytes where they can be sent, else its pixels."""
        try:
            data = Path(path).read_bytes()
            with Image.open(BytesIO(data)) as image:
                mime, size = _MIME.get(image.format or ""), image.size
                if mime and max(size) <= self.max_side and _plain(image):
                    # Decoding finds broken files here and not at the server; draft() skips most of a JPEG.
                    image.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
                    image.load()
                    return EncodedImage(data, mime, size)
                return np.asarray(to_rgb(image))
        except Exception as error:  # Pillow's plugins raise almost anything on rubbish
            raise ImageError.of(path, error) from error


def _plain(image: Image.Image) -> bool:
    """Whether every decoder shows the same opaque RGB pixels."""
    if image.mode != "RGB" or "transparency" in image.info or getattr(image, "is_animated", False):
        return False
    try:
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) == 1)
    except Exception:
        return False  # servers may read a broken tag block in different ways
