"""Decoding against the official order in float, and files that are no pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from gazebench.core.errors import DataError, ImageError
from gazebench.data.images import image_size, load_image

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
def test_an_image_goes_to_a_batch_without_a_copy(tmp_path, size):
    Image.fromarray(textured(64, 48)).save(tmp_path / "a.png")
    for crop in (None, (3, 3, 40, 40)):
        for flip in (False, True):
            image = load_image(tmp_path / "a.png", size, crop=crop, flip=flip)
            assert torch.from_numpy(image).permute(2, 0, 1).is_contiguous()


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
