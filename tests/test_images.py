"""Decoding against the official order in float, and files that are no pictures."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from gazebench.core.errors import DataError, ImageError
from gazebench.data.images import image_size, load_image
from gazebench.vlm.encoding import Encoding

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


def textured(width, height, seed=0):
    """Low frequencies plus hard edges plus noise, so that a resampling error shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 5, 120)
    return np.clip(image + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)


def official(path, size, crop=None, flip=False):
    """ToTensor, Normalize, Resize in float, the normalisation then undone; (H, W, 3) in 0..255."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = Image.open(path).convert("RGB")
    image = image.crop(crop) if crop else image
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
    tensor = tv.resize(tv.normalize(tv.to_tensor(image), mean, std), list(size), antialias=True)
    tensor = tensor * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return tensor.permute(1, 2, 0).numpy() * 255


def assert_close(path, size, **view):
    ours = load_image(path, size, **view)
    assert (ours.shape, ours.dtype) == ((*size, 3), np.uint8)
    assert np.abs(ours - official(path, size, **view)).max() <= 2


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (1280, 720), (1920, 1080), (200, 310), (448, 448), (449, 90)]
)
def test_within_two_levels_of_the_official_order(tmp_path, width, height):
    Image.fromarray(textured(width, height)).save(tmp_path / "a.jpg", quality=90)
    for size in ((448, 448), (224, 336), (64, 64)):
        assert_close(tmp_path / "a.jpg", size)


@pytest.mark.parametrize("crop", [None, (0, 0, 1, 1), (13, 40, 300, 41), (600, 440, 640, 480), (0, 0, 640, 480)])
def test_crop_then_resize_then_flip(tmp_path, crop):
    Image.fromarray(textured(640, 480)).save(tmp_path / "a.png")
    for flip in (False, True):
        assert_close(tmp_path / "a.png", (96, 128), crop=crop, flip=flip)


def test_a_crop_sees_nothing_outside_of_itself(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png", (7, 7), crop=(10, 10, 30, 30)) == 255).all()


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("L", "jpg"), ("L", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("CMYK", "jpg"),
     ("RGBA", "png"), ("1", "png"), ("RGB", "bmp"), ("RGB", "webp")],
)  # fmt: skip
def test_every_mode_becomes_rgb_as_pillow_converts_it(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(textured(120, 90)).convert(mode).save(path)
    assert (load_image(path) == np.asarray(Image.open(path).convert("RGB"))).all()
    assert_close(path, (64, 64))


def test_native_pixels_are_exact(tmp_path):
    """The orientation tag is ignored; several of Pillow's memory blocks make no difference."""
    picture = Image.fromarray(textured(60, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert image_size(tmp_path / "a.png") == (60, 40)
    pixels = np.asarray(picture)
    assert (load_image(tmp_path / "a.png") == pixels).all()
    assert (load_image(tmp_path / "a.png", crop=(5, 2, 45, 28), flip=True) == pixels[2:28, 5:45][:, ::-1]).all()
    Image.fromarray(textured(3000, 2000)).save(tmp_path / "large.jpg")
    assert (load_image(tmp_path / "large.jpg") == np.asarray(Image.open(tmp_path / "large.jpg"))).all()


@pytest.mark.parametrize("size", [(32, 32), (48, 64), None])
def test_an_image_goes_to_a_batch_as_it_lies_in_memory(tmp_path, size):
    Image.fromarray(textured(64, 48)).save(tmp_path / "a.png")
    for crop in (None, (3, 3, 40, 40)):
        for flip in (False, True):
            image = load_image(tmp_path / "a.png", size, crop=crop, flip=flip)
            assert torch.from_numpy(image).is_contiguous()


def grey(tmp_path, kind):
    """A grey ramp over all levels in a file of that kind, as (256, 256) uint8, and the file."""
    levels = np.add.outer(np.arange(256) * 256, np.arange(256))  # all 65,536 numbers of 16 bits
    path = tmp_path / f"a.{kind.split()[0]}"
    if kind == "png" or kind == "tif":
        Image.fromarray(levels.astype(np.uint16)).save(path)
    elif kind == "pgm":
        path.write_bytes(b"P5 256 256 65535\n" + levels.astype(">u2").tobytes())
    elif kind == "tif big-endian":
        Image.frombytes("I;16B", (256, 256), levels.astype(">u2").tobytes()).save(path)
    elif kind == "tif float":
        Image.fromarray((levels // 256 / 255).astype(np.float32)).save(path)
    return (levels // 256).astype(np.uint8), path


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "tif big-endian", "tif float"])
def test_sixteen_bits_and_floats_are_scaled(tmp_path, kind):
    levels, path = grey(tmp_path, kind)
    expected = np.repeat(levels[..., None], 3, axis=2)
    assert (load_image(path) == expected).all()
    assert (load_image(path, own=True) == expected).all()
    assert (load_image(path, crop=(3, 5, 40, 50), flip=True) == expected[5:50, 3:40][:, ::-1]).all()
    shown = Encoding(format="png").encode(path)  # what a vision-language model is shown
    assert (np.asarray(Image.open(io.BytesIO(shown.data))) == expected).all()


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.full((8, 8), 70000, np.int32), "mode I,"),
        (np.full((8, 8), 1.5, np.float32), "mode F, floats from 1.5"),
        (np.full((8, 8), -0.1, np.float32), "mode F,"),
        (np.full((8, 8), np.nan, np.float32), "mode F,"),
    ],
)
def test_numbers_without_a_scale_are_refused_with_their_mode(tmp_path, array, mode):
    Image.fromarray(array).save(tmp_path / "a.tif")
    for own in (False, True):
        with pytest.raises(ImageError, match=rf"a\.tif.*{mode}"):
            load_image(tmp_path / "a.tif", own=own)


def test_sixteen_bit_colour_has_the_same_scale(tmp_path):
    """Pillow keeps the high byte of it."""
    _, path = grey(tmp_path, "png")
    whole = np.add.outer(np.arange(256) * 256, np.arange(256)).astype(">u2")
    lines = b"".join(b"\0" + np.repeat(line[:, None], 3, axis=1).tobytes() for line in whole)
    header = struct.pack(">IIBBBBB", 256, 256, 16, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )
    (tmp_path / "colour.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert (load_image(tmp_path / "colour.png") == load_image(path)).all()


@pytest.mark.parametrize(
    ("tag", "upright"),
    [
        (1, lambda stored: stored),
        (2, lambda stored: stored[:, ::-1]),
        (3, lambda stored: stored[::-1, ::-1]),
        (4, lambda stored: stored[::-1]),
        (5, lambda stored: stored.transpose(1, 0, 2)),
        (6, lambda stored: np.rot90(stored, -1)),
        (7, lambda stored: np.rot90(stored, 2).transpose(1, 0, 2)),
        (8, lambda stored: np.rot90(stored)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_of_ones_own_stands_upright(tmp_path, suffix, tag, upright):
    picture = Image.fromarray(textured(60, 40))
    exif = picture.getexif()
    exif[0x0112] = tag
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif)
    stored = load_image(path)
    assert stored.shape == (40, 60, 3), "data sets keep the official rule"
    assert (load_image(path, own=True) == upright(stored)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_orientation_tag_turns_nothing(tmp_path):
    picture = Image.fromarray(textured(60, 40))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")
    assert (load_image(tmp_path / "a.jpg", own=True) == load_image(tmp_path / "a.jpg")).all()


@pytest.mark.parametrize("content", [b"text", None])
def test_errors_of_a_picture_of_ones_own_send_nobody_to_a_release(tmp_path, monkeypatch, content):
    path = tmp_path / "mine.png"
    if content is None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        Image.fromarray(textured(60, 40)).save(path)
    else:
        path.write_bytes(content)
    for own in (True, False):
        with pytest.raises(ImageError) as error:
            load_image(path, own=own)
        assert "mine.png" in str(error.value)
        assert ("release" in str(error.value)) == (not own and content is not None)
        assert ("too large" in str(error.value)) == (content is None)


def encoded(kind):
    whole = io.BytesIO()
    Image.fromarray(textured(64, 48)).save(whole, kind)
    return whole.getvalue()


RUBBISH = {
    "nothing": b"",
    "text": b"text",
    "half a JPEG": encoded("JPEG")[: len(encoded("JPEG")) // 2],
    "a header of a JPEG": encoded("JPEG")[:30],
    "half a PNG": encoded("PNG")[: len(encoded("PNG")) // 2],
    "a header of a PNG": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "noise": np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8).tobytes(),
}


@pytest.mark.parametrize("content", RUBBISH)
def test_rubbish_and_missing_files_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(RUBBISH[content])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        load_image(path, (32, 32))
    for read in (load_image, image_size):
        with pytest.raises(ImageError, match=r"nowhere\.jpg: no such file"):
            read(tmp_path / "nowhere.jpg")


def test_a_file_of_another_size_than_its_annotations_were_read_for(tmp_path):
    Image.fromarray(textured(64, 48)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", expected=(64, 48)).shape == (48, 64, 3)
    with pytest.raises(ImageError, match=r"a\.png.*64 x 48"):
        load_image(tmp_path / "a.png", expected=(48, 64))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mini-sets are not beside the checkout")
def test_real_images_within_two_levels():
    for path in sorted(REAL.rglob("*.jpg"))[::12]:
        width, height = image_size(path)
        assert_close(path, (448, 448))
        assert_close(path, (448, 448), crop=(width // 5, height // 7, width // 2, height), flip=True)


@pytest.mark.parametrize("saved", [{"subsampling": 0}, {"subsampling": 1}, {"quality": 30}, {"progressive": True}])
def test_a_jpeg_is_decoded_as_pillow_decodes_it(tmp_path, saved, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(textured(131, 77)).save(path, **saved)
    assert (load_image(path) == np.asarray(Image.open(path))).all()
    fast = load_image(path, (64, 48), (5, 6, 120, 70), True)
    monkeypatch.setattr("gazebench.data.images.simplejpeg", None)
    assert (load_image(path, (64, 48), (5, 6, 120, 70), True) == fast).all()
