"""The cache of frozen features: bit for bit, only misses encoded, damaged entries replaced, a size that holds."""

import multiprocessing
import os
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from gazebench.engine.contract import small_config
from gazebench.engine.run import data_module
from gazebench.nn.backbones import ViTBackbone
from gazebench.nn.feature_cache import CachedEncoder, FeatureFile, without_cache


class CountingBackbone(ViTBackbone):
    """Remembers how many images each call was given."""

    def __init__(self, **kwargs):
        torch.manual_seed(0)
        super().__init__(VisionTransformer(28, 14, embed_dim=32, depth=1, num_heads=2, num_classes=0), **kwargs)
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return super().forward(images)


def images_of(count: int, height: int = 28, width: int = 28) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def files(folder) -> list:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


def entries(folder) -> int:
    return sum(file.stat().st_size for file in folder.rglob("features.index")) // 52


def test_features_come_back_bit_for_bit(tmp_path):
    backbone, images = CountingBackbone(name="timm:some_vit"), images_of(3)
    first = CachedEncoder(backbone, tmp_path)(images)
    assert torch.equal(first, ViTBackbone(backbone.model)(images))
    assert not any(":" in path.name for path in tmp_path.rglob("*")), "Windows has no such names"
    again = CachedEncoder(backbone, tmp_path)
    assert torch.equal(again(images.flip(0)), first.flip(0))
    assert (backbone.batches, [file.suffix for file in files(tmp_path)]) == ([3], [".bin", ".index"])


def test_only_misses_are_encoded_in_one_batch_and_twins_once(tmp_path):
    backbone = CountingBackbone()
    encoder = CachedEncoder(backbone, tmp_path)
    a, b, c = images_of(3).unbind()
    encoder(torch.stack([a]))
    features = encoder(torch.stack([c, a, b, c, b]))
    assert (backbone.batches, entries(tmp_path)) == ([1, 2], 3)
    torch.testing.assert_close(features, ViTBackbone(backbone.model)(torch.stack([c, a, b, c, b])), atol=1e-6, rtol=0)


def test_shape_is_part_of_the_key(tmp_path):
    encoder = CachedEncoder(CountingBackbone(), tmp_path)
    images = images_of(1, 28, 56)
    assert encoder(images).shape[-2:] == (2, 4)
    assert encoder(images.reshape(1, 3, 56, 28)).shape[-2:] == (4, 2)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("bin", "empty"), ("bin", "half"), ("bin", 0), ("bin", 511)]
    + [("index", damage) for damage in ("empty", "half", 3, 17, 26, 42, 45, 50)],
)
def test_a_damaged_entry_is_a_miss_and_is_replaced(tmp_path, name, damage):
    backbone = CountingBackbone()
    features = CachedEncoder(backbone, tmp_path)(images_of(1))
    (file,) = tmp_path.rglob(f"features.{name}")
    content = bytearray(file.read_bytes())
    if isinstance(damage, int):
        content[damage] ^= 1
    file.write_bytes(content[: {"empty": 0, "half": len(content) // 2}.get(damage, len(content))])
    for _ in range(2):
        assert torch.equal(CachedEncoder(backbone, tmp_path)(images_of(1)), features)
    assert len(backbone.batches) == 2


def arrays_of(numbers) -> dict[bytes, np.ndarray]:
    return {f"{number:016}".encode(): np.full((7, 3), number, np.float32) for number in numbers}


def write(folder, numbers, *, dies: bool = False) -> None:
    """As a process of its own, which may be killed when it has written an array but not yet its entry."""
    file = FeatureFile(folder)
    for number in numbers:
        if dies and number == 60:
            with (folder / "features.bin").open("ab") as stream:
                stream.write(b"half")
            with (folder / "features.index").open("ab") as stream:
                stream.write(b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(arrays_of([number]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_processes_write_one_file_and_a_killed_one_harms_nobody(tmp_path):
    folder, context = tmp_path / "model", multiprocessing.get_context("fork")
    killed = context.Process(target=write, args=(folder, range(50, 80)), kwargs={"dies": True})
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    others = [context.Process(target=write, args=(folder, range(first, first + 60))) for first in (0, 20, 40)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0, 0]
    wanted = arrays_of(range(100))
    found = FeatureFile(folder).read(wanted)
    assert entries(tmp_path) == 100  # each once, although up to three processes had it
    assert all(np.array_equal(found[key], array) for key, array in wanted.items())


def test_a_reader_sees_what_others_add_and_survives_a_deleted_folder(tmp_path):
    reader, writer = FeatureFile(tmp_path / "a"), FeatureFile(tmp_path / "a")
    writer.write(arrays_of([1]))
    assert reader.read(arrays_of([1, 2])).keys() == arrays_of([1]).keys()
    writer.write(arrays_of([2]))
    held = reader.read(arrays_of([1, 2]))
    assert len(held) == 2
    for file in files(tmp_path):
        file.unlink()
    writer.write(arrays_of([3]))
    assert reader.read(arrays_of([3, 4])).keys() == arrays_of([3]).keys()
    assert all(np.array_equal(held[key], array) for key, array in arrays_of([1, 2]).items())


def test_other_weights_or_precision_use_another_folder(tmp_path):
    backbone, images = CountingBackbone(), images_of(1)
    encoder = CachedEncoder(backbone, tmp_path)
    features = encoder(images)
    changed = {key: value + 0.1 for key, value in backbone.model.state_dict().items()}
    backbone.model.load_state_dict(changed)  # as a checkpoint loaded after construction does
    assert not torch.equal(encoder(images), features)
    CachedEncoder(CountingBackbone(compute_dtype="bfloat16"), tmp_path)(images)
    assert len({file.parent for file in files(tmp_path)}) == 3


def test_writing_stops_at_the_cap_and_reading_goes_on(tmp_path):
    backbone = CountingBackbone()
    CachedEncoder(backbone, tmp_path)(images_of(1))
    size = sum(file.stat().st_size for file in files(tmp_path))
    encoder = CachedEncoder(backbone, tmp_path, max_bytes=2 * size)
    with pytest.warns(UserWarning, match="full") as caught:
        first = encoder(images_of(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.allclose(encoder(images_of(3)), first, atol=1e-6)
    assert (len(caught), backbone.batches) == (1, [1, 3, 2])
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 2 * size


def test_works_on_a_backbone_made_in_inference_mode(tmp_path):
    with torch.inference_mode():
        backbone = CountingBackbone()
        encoder = CachedEncoder(backbone, tmp_path)
        assert torch.equal(encoder(images_of(2)), encoder(images_of(2)))
    assert backbone.batches == [2]


def test_off_and_misuse(tmp_path):
    backbone = CountingBackbone()
    off = CachedEncoder(backbone, None)
    assert torch.equal(off(images_of(2)), ViTBackbone(backbone.model)(images_of(2)))
    encoder = CachedEncoder(backbone, tmp_path)
    with pytest.raises(TypeError, match="uint8"):
        encoder(images_of(1).float())
    backbone.requires_grad_(True)
    with pytest.raises(ValueError, match="frozen"):
        encoder(images_of(1))
    assert not files(tmp_path)


def test_without_it_images_are_encoded_and_nothing_is_kept(tmp_path):
    backbone = CountingBackbone()
    encoder = CachedEncoder(backbone, tmp_path)
    features = encoder(images_of(2))
    with without_cache():
        assert torch.equal(encoder(images_of(2)), features)
        encoder(images_of(3))
    encoder(images_of(2))
    assert (backbone.batches, entries(tmp_path)) == ([2, 2, 3], 2)


def test_blocks_before_the_first_that_learns(tmp_path):
    backbone, images = ViTBackbone(VisionTransformer(28, 14, embed_dim=32, depth=3, num_heads=2)), images_of(3)
    backbone.blocks[2].requires_grad_(True)
    encoder = CachedEncoder(backbone, tmp_path, blocks=2)
    tokens = encoder(images)
    expected = backbone.embed(images)
    for block in list(backbone.blocks)[:2]:
        expected = block(expected)
    assert torch.equal(tokens, expected.detach())
    torch.nn.init.zeros_(backbone.blocks[2].mlp.fc1.weight)  # what comes later does not matter
    assert torch.equal(encoder(images), tokens)
    assert len(list(tmp_path.iterdir())) == 1
    torch.nn.init.zeros_(backbone.blocks[1].mlp.fc1.weight)
    assert not torch.equal(encoder(images), tokens)
    with pytest.raises(ValueError, match="frozen"):
        CachedEncoder(backbone, tmp_path, blocks=3)(images)


def test_alone_no_value_depends_on_the_batch(tmp_path):
    backbone, images = CountingBackbone(), images_of(5)
    encoder = CachedEncoder(backbone, tmp_path)
    one = encoder(images[2:3], alone=True)
    assert torch.equal(encoder(images, alone=True)[2:3], one)
    assert backbone.batches == [1] * 5
    assert torch.equal(encoder.uncached(images, alone=True), encoder(images, alone=True))


@pytest.mark.parametrize("name", ["gazelle", "hclora"])
def test_training_with_and_without_the_cache_is_the_same(tmp_path, name):
    """Losses and gradients of what learns, to the last bit, at the first sight of an image and at the second."""
    options = ("--model.augment=false", "--model.dropout=0") if name == "hclora" else ("--model.augment=false",)
    found = []
    for cache in ("off", str(tmp_path), str(tmp_path)):
        config = small_config(name, "gazeworld", *options, f"--model.feature_cache={cache}")
        torch.manual_seed(0)
        method = config.new_method().train()
        module = data_module(config, config.new_dataset(), method)
        batch = next(iter(module.train_dataloader()))
        torch.manual_seed(0)
        sum(method.loss(batch).values()).backward()
        found.append({key: p.grad for key, p in method.named_parameters() if p.grad is not None})
    assert len(list(tmp_path.iterdir())) == 1
    for other in found[1:]:
        assert other.keys() == found[0].keys() != set()
        assert all(torch.equal(other[key], value) for key, value in found[0].items())
