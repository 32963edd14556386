"""From a file to a small uint8 picture: decode, crop, resize, flip; a network normalises the result itself."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gazebench.core.errors import ImageError
from gazebench.core.files import cache_folder
from gazebench.core.rgb import to_rgb

try:
    import simplejpeg
except ImportError:  # a platform without it: Pillow gives the same pixels
    simplejpeg = None


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone.

    Raises:
        ImageError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise ImageError.of(path, error) from error


def load_image(
    path: Path | str,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    flip: bool = False,
    expected: tuple[int, int] | None = None,
    own: bool = False,
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: decoded, cropped, resized, mirrored, in this order.

    ``size`` is (H, W); the aspect is not kept, as in the official ``Resize((448, 448))``. ``crop`` is xmin, ymin,
    xmax, ymax in pixels, end exclusive, inside the image. The orientation tag is ignored and alpha dropped, as in the
    official code; ``to_rgb`` says what becomes of 16-bit and float pictures. Within 2/255 of the official order
    (``ToTensor``, ``Normalize``, antialiased bilinear ``Resize`` in float) before the division by the standard
    deviation: normalising is affine, so it may come last.

    ``expected`` is the width and height the annotations were normalised by. ``own`` is for a picture that belongs to no
    data set: it is turned upright by its orientation tag, and errors send nobody to a release.

    Raises:
        ImageError: the file is missing, truncated, no picture, too large, or not of the expected size.
    """
    try:
        # Never Image.draft: wherever reduced JPEG decoding reduces it is off by 10 to 100/255 (benchmarks/decode.py).
        pixels = None if own else _jpeg(path)
        if pixels is None:
            with Image.open(path) as image:
                if own:
                    _turn_upright(image)
                pixels = _pixels(to_rgb(image))
    except Exception as error:
        # Pillow's plugins raise almost anything on rubbish: OSError, SyntaxError, struct.error, IndexError ...
        raise ImageError.of(path, error, own) from error
    found = (pixels.shape[3], pixels.shape[2])
    if expected not in (None, found):
        raise ImageError(
            f"{path}: is {found[0]} x {found[1]} pixels, its annotations were read for {expected[0]} x {expected[1]}; "
            f"delete {cache_folder()} if the file was replaced"
        )
    return _fitted(pixels, size, crop, flip)


def load_depth(
    path: Path,
    size: tuple[int, int],
    expected: tuple[int, int],
    crop: tuple[int, int, int, int] | None = None,
    flip: bool = False,
) -> npt.NDArray[np.float32]:
    """(H, W) float32 of a depth map in a 16-bit PNG, 65535 as 1: cropped, resized, mirrored, in this order.

    Pillow resizes with antialiasing by a bicubic filter, which goes a little beyond [0, 1] (PDP's official code).

    Args:
        path: the file.
        size: (H, W) of the result.
        expected: width and height of the picture, which the map must have too.
        crop: as ``load_image``'s.
        flip: whether to mirror.

    Raises:
        ImageError: the file is missing, of another size, or not grey with 16 bits.
    """
    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I;16"):
                raise ValueError(f"a depth map is a grey PNG of 16 bits, this picture has mode {image.mode}")
            if image.size != expected:
                raise ValueError(f"is {image.size}, its picture is {expected} (width, height)")
            values = np.asarray(image).astype(np.float32) / 65535
    except Exception as error:
        raise ImageError.of(path, error) from error
    if crop is not None:
        x0, y0, x1, y1 = crop
        values = values[y0:y1, x0:x1]
    fitted = np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC))  # a copy, to be written
    return np.ascontiguousarray(fitted[:, ::-1] if flip else fitted)


def resized(
    picture: npt.NDArray[np.uint8],
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    flip: bool = False,
) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 that is already decoded, treated as ``load_image`` treats one from a file."""
    return _fitted(_batch(torch.from_numpy(np.ascontiguousarray(picture))), size, crop, flip)


def _fitted(
    pixels: Tensor, size: tuple[int, int] | None, crop: tuple[int, int, int, int] | None, flip: bool
) -> npt.NDArray[np.uint8]:
    if crop is not None:
        x0, y0, x1, y1 = crop
        pixels = pixels[:, :, y0:y1, x0:x1]
    if size is None or size == tuple(pixels.shape[2:]):
        pixels = pixels[:, :3].clone()
    else:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    if flip:
        pixels = pixels.flip(-1)
    return pixels[0, :3].permute(1, 2, 0).contiguous().numpy()


def _turn_upright(image: Image.Image) -> None:
    with contextlib.suppress(Exception):  # a broken tag tells nothing
        ImageOps.exif_transpose(image, in_place=True)


def _batch(pixels: Tensor) -> Tensor:
    """(H, W, C) as (1, C, H, W), channels last in the strides too, which is what torch resizes fastest."""
    return pixels[None].permute(0, 3, 1, 2)


def _jpeg(path: Path | str) -> Tensor | None:
    """(1, 3, H, W) uint8, channels last: a colour JPEG file as Pillow decodes it, bit for bit, in less time.

    Three bytes a pixel instead of Pillow's four also take less time to resize, and Pillow needs longer to read the
    header. None: Pillow has to decode the file, or to say what is wrong with it.
    """
    if simplejpeg is None:
        return None
    with Path(path).open("rb") as file:
        start = file.read(3)
        if start != b"\xff\xd8\xff":
            return None
        data = start + file.read()
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB") or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        return _batch(torch.from_numpy(simplejpeg.decode_jpeg(data)))
    except ValueError:
        return None


def _pixels(image: Image.Image) -> Tensor:
    """(1, 3 or 4, H, W) uint8 channels-last view of an RGB picture; Pillow pads its pixels to four bytes."""
    image.load()
    width, height = image.size
    try:
        # Without a copy, which above a megapixel costs as much as the decoding. A picture over Pillow's 16 MB block
        # is not in one piece.
        exported: Any = pa.array(image)
        flat = from_dlpack(exported.flatten())
    except ValueError:
        flat = torch.from_numpy(np.array(image).reshape(-1))
    return _batch(flat.view(height, width, -1))
