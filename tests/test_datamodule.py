"""Batches: image-major, never padded, the same whatever the workers; images are encoded once, unreadable ones named."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gazebench.core.boxes import clean_boxes
from gazebench.core.errors import DataError
from gazebench.data.datamodule import EpochSampler, GazeDataModule, ImageSamples, ShareSampler, collate
from gazebench.data.transforms import Preprocess
from gazebench.engine.config import resolve
from gazebench.engine.registry import load_dataset, load_method
from gazebench.engine.run import bench
from gazebench.engine.score import score

WORLD, GAZEFOLLOW = load_dataset("gazeworld"), load_dataset("gazefollow")
SMALL = Preprocess(size=(28, 28))


def samples(augment=False, seed=0, count=5, split="train"):
    dataset = WORLD(train=count, val=2, test=3)
    return ImageSamples(dataset, dataset.records(split), SMALL, augment=augment, seed=seed)


def test_a_batch_is_its_images_and_a_flat_list_of_people():
    read = samples(split="test")
    batch = collate([read[image] for image in range(3)])
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, 28, 28), torch.uint8)
    assert batch.people == read.records.people == len(batch.head) == len(batch.image_index) == len(batch.targets.inout)
    assert batch.image_index.tolist() == read.records.person_image.tolist()
    assert batch.targets.columns["label"].tolist() == read.records.columns["label"].tolist()
    for person in range(batch.people):
        annotated = 10 if batch.targets.inout[person] == 1 else 0
        assert (batch.targets.point_person == person).sum() == annotated
        assert torch.isnan(batch.targets.point[person]).all() == (annotated == 0)
    nobody = collate([])
    assert (nobody.people, nobody.images, len(nobody.pairs), nobody.head.shape) == (0, None, 0, (0, 4))


def test_augmentation_depends_on_seed_epoch_and_image_only():
    one, again, other = samples(augment=True), samples(augment=True), samples(augment=True, seed=1)
    assert torch.equal(one[(3, 1)].image, again[(3, 1)].image)
    assert np.array_equal(one[(3, 1)].records.head, again[(3, 1)].records.head)
    for variant, epoch in ((one, 1), (other, 0)):
        heads = [(one[(0, i)].records.head, variant[(epoch, i)].records.head) for i in range(5)]
        assert not all(np.array_equal(*pair) for pair in heads)


def test_augmented_targets_stay_inside():
    read = samples(augment=True, count=20)
    for epoch in range(3):
        batch = collate([read[(epoch, image)] for image in range(20)])
        point = batch.targets.point[batch.targets.inout == 1]
        assert point.min() >= 0
        assert point.max() <= 1
        assert (batch.head[:, 2:] > batch.head[:, :2]).all()


@pytest.mark.parametrize(("length", "world"), [(33, 2), (7, 3), (4, 4), (2, 3)])
def test_evaluation_sees_every_image_once(length, world):
    ranks = [EpochSampler(length, shuffle=False, seed=0, rank=rank, world=world) for rank in range(world)]
    assert sorted(image for rank in ranks for _, image in rank) == list(range(length))
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
        assert sorted(image for batch in batches for image in batch) == [(epoch, image) for image in range(length)]
        orders.append([image for batch in batches for _, image in batch])
    assert orders[0] == orders[2] != orders[1]


def test_who_is_trained_on():
    dataset = WORLD(train=30, val=10, test=3)
    dataset.records("trainval").inout[::9] = -1
    found = {
        (people, selection): GazeDataModule(dataset, SMALL, people=people, selection=selection).train_records()
        for people in ("in_frame", "labelled", "all")
        for selection in ("last", "val")
    }
    assert (found["in_frame", "last"].inout == 1).all()
    assert (found["labelled", "last"].inout != -1).all()
    assert found["all", "last"].people == dataset.records("trainval").people > found["labelled", "last"].people
    assert found["labelled", "last"].people > found["in_frame", "last"].people > found["in_frame", "val"].people
    assert (len(found["all", "last"]), len(found["all", "val"])) == (40, 30)


def test_stride_counts_frames_of_a_clip(tmp_path):
    dataset = load_dataset("vat").fake(tmp_path, people=26)
    every, sixth = (GazeDataModule(dataset, SMALL, train_stride=stride).train_records() for stride in (1, 6))
    for group in np.unique(every.groups):
        assert sixth.images[sixth.groups == group].tolist() == every.images[every.groups == group][::6].tolist()


def test_one_image_is_encoded_once_for_all_its_people():
    method = load_method("gazelle")(backbone="tiny", backbone_weights="random", image_size=28, feature_cache="off")
    seen = []
    forward = method.backbone.forward
    method.backbone.forward = lambda images: (seen.append(len(images)), forward(images))[1]
    read = samples()
    batch = collate([read[image] for image in range(5)])
    for mode in (True, False):
        assert len(method.train(mode)(batch).heatmap) == batch.people > 5
    assert seen == [5, 5]


def test_boxes_are_cleaned():
    boxes = clean_boxes(np.array([[0.6, 0.7, 0.2, 0.1], [-0.5, 0.2, 1.5, 0.4], [np.nan] * 4]))
    assert boxes[:2].tolist() == [[0.2, 0.1, 0.6, 0.7], [0.0, 0.2, 1.0, 0.4]]
    assert np.isnan(boxes[2]).all()


def test_only_the_standard_world_is_complete():
    """The counts of the card are those of seed 0; another world of the same size must not pass for it."""
    assert WORLD().completeness("val").complete
    assert not any(other.completeness("val").complete for other in (WORLD(world_seed=1), WORLD(val=20)))


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without a header": lambda path: path.write_bytes(b"rubbish"),
    "of another size": lambda path: Image.new("RGB", (17, 23)).save(path),
}


@pytest.fixture(params=DAMAGES)
def damaged(request, tmp_path, monkeypatch):
    """GazeFollow's fake set with one test image damaged after its size was looked up, where it has one; its key."""
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))
    dataset = GAZEFOLLOW.fake(tmp_path / "data", people=8)
    if request.param == "of another size":
        dataset.records("test")  # from now on kept; a file that is overwritten does not change its folder's time
    name = str(dataset.parse("test").images[0])
    DAMAGES[request.param](tmp_path / "data" / name)
    return GAZEFOLLOW(tmp_path / "data"), name


def test_an_unreadable_image_stops_or_is_left_out_by_name(damaged):
    dataset, name = damaged
    strict = GazeDataModule(dataset, SMALL, workers=0)
    with pytest.raises(DataError, match=f"{name}.*bad_images=skip"):
        [strict.on_before_batch_transfer(batch, 0) for batch in strict.predict_dataloader()]
    lenient = GazeDataModule(dataset, SMALL, workers=0, bad_images="skip")
    batches = [lenient.on_before_batch_transfer(batch, 0) for batch in lenient.predict_dataloader()]
    assert list(lenient.skipped) == [name]
    assert sum(len(batch.image_ids) for batch in batches) == len(dataset.records("test")) - 1


def test_a_run_with_unreadable_images_is_recorded_as_such(damaged, tmp_path, places):
    dataset, name = damaged
    options = [
        "--trainer.enable_progress_bar=false", "--loader.workers=0", "--model.backbone=tiny",
        "--model.backbone_weights=random", "--trainer.max_epochs=1", f"--dataset.root={tmp_path / 'data'}",
    ]  # fmt: skip
    with pytest.raises(DataError, match=name):
        bench(resolve(["gazelle", "gazefollow", *options]), places)
    outcome = bench(resolve(["gazelle", "gazefollow", *options, "--loader.bad_images=skip"]), places)
    assert outcome.record["samples"]["skipped_images"] == [name]
    assert any("unreadable" in reason for reason in outcome.record["status"]["reasons"])
    file = outcome.folder / "predictions.parquet"
    assert score(file, dataset)["metrics"] == outcome.record["metrics"], "the file says who was left out"

    everybody = dataset.records("test")
    mine = tmp_path / "mine.csv"
    pd.DataFrame({"person_id": everybody.person_id, "x": 0.5, "y": 0.5}).to_csv(mine, index=False)
    if everybody.sizes.all():
        assert score(mine, dataset)["samples"]["people"] == everybody.people
    else:
        with pytest.raises(DataError, match=str(everybody.person_id[0])):
            score(mine, dataset)
        assert score(mine, dataset, partial=True)["samples"]["people"] < everybody.people
