"""Decoding against the official order in float, and files that are no pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from gazebench.core.errors import DataError
from gazebench.data.images import image_size, load_image

REAL = Path(__file__).parents[2] / "shared" / "real"


def textured(width, height, seed=0):
    """Low frequencies plus hard edges plus noise, so that a resampling error shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 5, 120)
    return np.clip(picture + rng.integers(-20, 21, picture.shape), 0, 255).astype(np.uint8)


def official(path, size, crop=None, flip=False):
    """ToTensor, Normalize, Resize in float, the normalisation then undone; (H, W, 3) in 0..255."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = Image.open(path).convert("RGB")
    image = image.crop(crop) if crop else image
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
    tensor = tv.resize(tv.normalize(tv.to_tensor(image), mean, std), list(size), antialias=True)
    return (tensor * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]).permute(
        1, 2, 0
    ).numpy() * 255


def assert_close(path, size, **view):
    ours = load_image(path, size, **view)
    assert ours.shape == (*size, 3)
    assert ours.dtype == np.uint8
    assert np.abs(ours - official(path, size, **view)).max() <= 2


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (1280, 720), (1920, 1080), (200, 310), (448, 448), (449, 90)]
)
@pytest.mark.parametrize("size", [(448, 448), (224, 336), (64, 64)])
def test_within_two_levels_of_the_official_order(tmp_path, width, height, size):
    Image.fromarray(textured(width, height)).save(tmp_path / "a.jpg", quality=90)
    assert_close(tmp_path / "a.jpg", size)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [None, (0, 0, 1, 1), (13, 40, 300, 41), (600, 440, 640, 480), (0, 0, 640, 480)])
def test_crop_then_resize_then_flip(tmp_path, crop, flip):
    Image.fromarray(textured(640, 480)).save(tmp_path / "a.png")
    assert_close(tmp_path / "a.png", (96, 128), crop=crop, flip=flip)


def test_a_crop_sees_nothing_outside_of_itself(tmp_path):
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10:30, 10:30] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
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


def test_the_orientation_tag_is_ignored(tmp_path):
    picture = Image.fromarray(textured(60, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert image_size(tmp_path / "a.png") == (60, 40)
    assert (load_image(tmp_path / "a.png") == np.asarray(picture)).all()


def test_native_size_crop_and_flip_are_exact(tmp_path):
    picture = textured(50, 30)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png", crop=(5, 2, 45, 28), flip=True) == picture[2:28, 5:45][:, ::-1]).all()


def test_a_picture_of_several_memory_blocks(tmp_path):
    Image.fromarray(textured(3000, 2000)).save(tmp_path / "a.jpg")
    assert (load_image(tmp_path / "a.jpg") == np.asarray(Image.open(tmp_path / "a.jpg"))).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (48, 64), None])
def test_a_picture_goes_to_a_batch_without_a_copy(tmp_path, size, flip):
    Image.fromarray(textured(64, 48)).save(tmp_path / "a.png")
    for crop in (None, (3, 3, 40, 40)):
        picture = load_image(tmp_path / "a.png", size, crop=crop, flip=flip)
        assert torch.from_numpy(picture).permute(2, 0, 1).is_contiguous()


def rubbish():
    whole = io.BytesIO()
    Image.fromarray(textured(64, 48)).save(whole, "JPEG")
    jpeg = whole.getvalue()
    whole = io.BytesIO()
    Image.fromarray(textured(64, 48)).save(whole, "PNG")
    png = whole.getvalue()
    rng = np.random.default_rng(0)
    yield from (
        b"",
        b"text",
        jpeg[: len(jpeg) // 2],
        jpeg[:30],
        png[: len(png) // 2],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    )
    yield from (bytes(rng.integers(0, 256, 200, dtype=np.uint8)) for _ in range(3))


@pytest.mark.parametrize("content", list(rubbish()))
def test_rubbish_is_named_with_its_remedy(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.jpg.*not a readable picture.*restore it"):
        load_image(path, (32, 32))


def test_a_missing_file_is_named(tmp_path):
    for read in (load_image, image_size):
        with pytest.raises(DataError, match=r"nowhere\.jpg: no such file; restore"):
            read(tmp_path / "nowhere.jpg")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mini-sets are not beside the checkout")
def test_real_pictures_within_two_levels():
    for path in sorted(REAL.rglob("*.jpg"))[::12]:
        width, height = image_size(path)
        assert_close(path, (448, 448))
        assert_close(path, (448, 448), crop=(width // 5, height // 7, width // 2, height), flip=True)
