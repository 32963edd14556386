"""Batches: image-major, never padded, the same whatever the workers; one encode per image."""

import numpy as np
import pytest
import torch

from gazebench.core.boxes import clean_boxes
from gazebench.core.errors import DataError
from gazebench.data.datamodule import EpochSampler, GazeDataModule, ImageSamples, ShareSampler, collate
from gazebench.data.transforms import Preprocess
from gazebench.engine.registry import load_dataset, load_method

WORLD = load_dataset("gazeworld")
SMALL = Preprocess(size=(28, 28))


def samples(augment=False, seed=0, count=5, split="train"):
    dataset = WORLD(train=count, val=2, test=3)
    return ImageSamples(
        dataset, dataset.records(split), SMALL, augment=augment, sees_images=True, bad_images="error", seed=seed
    )


def test_a_batch_is_its_images_and_a_flat_list_of_people():
    read = samples(split="test")
    batch = collate([read[image] for image in range(3)])
    assert batch.images.shape == (3, 3, 28, 28)
    assert batch.images.dtype == torch.uint8
    assert batch.people == read.records.people == len(batch.head) == len(batch.image_index) == len(batch.targets.inout)
    assert torch.bincount(batch.image_index).tolist() == np.bincount(read.records.person_image).tolist()
    assert [len(part) for part in batch.split_by_image(batch.head)] == torch.bincount(batch.image_index).tolist()
    for person in range(batch.people):
        annotated = 10 if batch.targets.inout[person] == 1 else 0
        assert len(batch.targets.points_of(person)) == annotated
        assert torch.isnan(batch.targets.point[person]).all() == (annotated == 0)


def test_augmentation_depends_on_seed_epoch_and_image_only():
    one, other = samples(augment=True), samples(augment=True, seed=1)
    assert torch.equal(one[(3, 1)].picture, samples(augment=True)[(3, 1)].picture)
    assert np.array_equal(one[(3, 1)].head, samples(augment=True)[(3, 1)].head)
    different = [not np.array_equal(one[(0, i)].head, variant[(e, i)].head) for i in range(5)
                 for variant, e in ((one, 1), (other, 0))]  # fmt: skip
    assert any(different)


def test_augmented_targets_stay_inside():
    read = samples(augment=True, count=20)
    for epoch in range(3):
        batch = collate([read[(epoch, image)] for image in range(20)])
        seen = batch.targets.inout == 1
        assert (batch.targets.point[seen] >= 0).all()
        assert (batch.targets.point[seen] <= 1).all()
        assert (batch.head[:, 2:] > batch.head[:, :2]).all()


@pytest.mark.parametrize(("length", "world"), [(33, 2), (7, 3), (4, 4), (2, 3)])
def test_sampler(length, world):
    ranks = [EpochSampler(length, shuffle=False, seed=0, rank=rank, world=world) for rank in range(world)]
    seen = [image for rank in ranks for _, image in rank]
    assert sorted(seen) == list(range(length)), "evaluation sees every image once"
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks]


@pytest.mark.parametrize(("length", "world", "images"), [(33, 2, 8), (7, 3, 3), (4, 4, 4), (6, 1, 4), (9, 4, 7)])
def test_processes_share_the_batches_of_one(length, world, images):
    whole, *ranks = (
        ShareSampler(EpochSampler(length, shuffle=True, seed=0), images, rank=rank, world=count)
        for rank, count in [(0, 1), *((rank, world) for rank in range(world))]
    )
    orders = []
    for epoch in (0, 1, 0):
        for sampler in (*ranks, whole):
            sampler.sampler.set_epoch(epoch)
        batches, shares = list(whole), [list(rank) for rank in ranks]
        assert {len(share) for share in shares} == {len(rank) for rank in ranks} == {len(batches)}
        for step, batch in enumerate(batches):
            together = [share[step] for share in shares]
            assert sorted(image for share in together for image in share) == sorted(batch), "each of them once"
            assert max(map(len, together)) - min(map(len, together)) <= 1
        assert sorted(image for batch in batches for _, image in batch) == list(range(length))
        assert {e for batch in batches for e, _ in batch} == {epoch}
        orders.append([image for batch in batches for _, image in batch])
    assert orders[0] == orders[2] != orders[1]


def test_who_is_trained_on():
    dataset = WORLD(train=30, val=10, test=3)
    counts = {
        (people, selection): GazeDataModule(dataset, SMALL, people=people, selection=selection).train_records()
        for people in ("in_frame", "labelled")
        for selection in ("last", "val")
    }
    assert (counts["in_frame", "last"].inout == 1).all()
    assert counts["labelled", "last"].people > counts["in_frame", "last"].people > counts["in_frame", "val"].people
    assert len(counts["labelled", "last"]) == 40
    assert len(counts["labelled", "val"]) == 30


def test_stride_counts_frames_of_a_clip(tmp_path):
    dataset = load_dataset("vat").fake(tmp_path, people=26)
    every = GazeDataModule(dataset, SMALL, selection="last").train_records()
    sixth = GazeDataModule(dataset, SMALL, selection="last", train_stride=6).train_records()
    for group in np.unique(every.groups):
        frames = every.images[every.groups == group]
        assert sixth.images[sixth.groups == group].tolist() == frames[::6].tolist()


def test_one_image_is_encoded_once_for_all_its_people():
    method = load_method("gazelle")(backbone="tiny", backbone_weights="random", image_size=28, feature_cache="off")
    seen = []
    forward = method.backbone.forward
    method.backbone.forward = lambda images: (seen.append(len(images)), forward(images))[1]
    read = samples()
    batch = collate([read[image] for image in range(5)])
    for mode in (True, False):
        method.train(mode)
        prediction = method(batch)
        assert len(prediction.heatmap) == batch.people > 5
    assert seen == [5, 5]


def broken_gazefollow(root):
    dataset = load_dataset("gazefollow").fake(root, people=8)
    records = dataset.records("test")
    path = root / str(records.images[0])
    path.write_bytes(path.read_bytes()[:200])
    return dataset, path.name


def test_an_unreadable_image_stops_or_is_named_and_counted(tmp_path):
    dataset, name = broken_gazefollow(tmp_path)
    strict = GazeDataModule(dataset, SMALL, workers=0)
    with pytest.raises(DataError, match=f"{name}.*restore it .*--loader.bad_images=skip"):
        [strict.on_before_batch_transfer(batch, 0) for batch in strict.test_dataloader()]
    lenient = GazeDataModule(dataset, SMALL, workers=0, bad_images="skip")
    batches = list(lenient.test_dataloader())
    assert sum(len(batch.skipped) for batch in batches) == 1
    assert name in next(batch.skipped[0] for batch in batches if batch.skipped)
    assert sum(len(batch.image_ids) for batch in batches) == len(dataset.records("test")) - 1


def test_a_run_with_unreadable_images_is_recorded_as_such(tmp_path):
    from gazebench.engine.config import resolve
    from gazebench.engine.run import Places, bench

    _, name = broken_gazefollow(tmp_path / "data")
    places = Places(tmp_path / "runs", tmp_path / "boards")
    options = [
        "--trainer.enable_progress_bar=false", "--loader.workers=0", "--model.backbone=tiny",
        "--model.backbone_weights=random", "--trainer.max_epochs=1", f"--dataset.root={tmp_path / 'data'}",
    ]  # fmt: skip
    with pytest.raises(DataError, match=name):
        bench(resolve(["gazelle", "gazefollow", *options]), places)
    record = bench(resolve(["gazelle", "gazefollow", *options, "--loader.bad_images=skip"]), places).record
    assert any(name in skipped for skipped in record["samples"]["skipped_images"])
    assert any("unreadable" in reason for reason in record["status"]["reasons"])


def test_boxes_are_cleaned():
    boxes = np.array([[0.6, 0.7, 0.2, 0.1], [-0.5, 0.2, 1.5, 0.4], [np.nan] * 4])
    cleaned = clean_boxes(boxes)
    assert cleaned[:2].tolist() == [[0.2, 0.1, 0.6, 0.7], [0.0, 0.2, 1.0, 0.4]]
    assert np.isnan(cleaned[2]).all()


def test_split_file(tmp_path):
    dataset = WORLD(train=2, val=2, test=4)
    ids = [str(person) for person in dataset.records("test").person_id]
    path = tmp_path / "split.tsv"
    path.write_text("person_id\tsubset\n" + "".join(f"{person}\tinconsistent\n" for person in ids[:3]))
    records = WORLD(train=2, val=2, test=4, subsets=path).records("test")
    assert records.columns["subset"].tolist() == ["inconsistent"] * 3 + [""] * (len(ids) - 3)
    for content, message in (
        ("id,subset\n", "first line"),
        ("person_id\tsubset\nsomebody\tmaybe\n", "split.tsv:2"),
        ("person_id\tsubset\nsomebody\tconsistent\n", "none of its 1 people"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            WORLD(train=2, val=2, test=4, subsets=path).records("test")


def test_only_the_standard_world_is_complete():
    """The counts of the card are those of seed 0; another world of the same size must not pass for it."""
    standard = WORLD()
    assert all(standard.completeness(split).complete for split in ("val", "test"))
    for other in (WORLD(world_seed=1), WORLD(test=499)):
        assert not other.completeness("test").complete
