"""Methods that remember: whole tracks at evaluation, windows in training."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gazebench.core.errors import DataError
from gazebench.data.datamodule import ClipSampler, EpochSampler, GazeDataModule
from gazebench.data.transforms import Clips
from gazebench.engine.registry import load_dataset
from gazebench.methods.chong import Chong
from gazebench.methods.chong.network import Steps
from gazebench.methods.pdp import PDP

NARROW = {"width": 2, "blocks": (1, 1, 1, 1, 1), "side": 64, "widen_heads": 0.0, "temporal": True}
SMALL = {**NARROW, "chunk": 2}


@pytest.fixture(scope="module")
def vat(tmp_path_factory):
    """Clips of 12 and of 4 frames: in one a person is missing from a frame in between, in the other a track ends early.

    The frames of the longer one are the same four three times.
    """
    dataset = load_dataset("vat").fake(tmp_path_factory.mktemp("vat"), people=16)
    files = sorted(dataset.root.glob("annotations/test/*/*/s00.txt"))
    for file in sorted(files[0].parent.glob("*.txt")):
        rows = [line.split(",", 1) for line in file.read_text().splitlines()]
        longer = [f"{int(Path(name).stem) + more:08d}.jpg,{rest}" for more in (0, 4, 8) for name, rest in rows]
        file.write_text("\n".join(longer) + "\n")
    for frame in sorted(
        (dataset.root / "images" / files[0].parent.relative_to(dataset.root / "annotations/test")).iterdir()
    ):
        for more in (4, 8):
            shutil.copy(frame, frame.with_stem(f"{int(frame.stem) + more:08d}"))
    for file, lost in zip(files[:2], (1, -1), strict=True):
        rows = file.read_text().splitlines()
        del rows[lost]
        file.write_text("\n".join(rows) + "\n")
    return dataset


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    made = Chong(**SMALL).eval()
    with torch.no_grad():
        for name, parameter in made.network.convlstm_scene.named_parameters():
            parameter.mul_(5 if "weight" in name else 1)  # so that memory shows
    return made


def batches(vat, method, size):
    module = GazeDataModule(vat, method.preprocess(), eval_batch_size=size, workers=0)
    return list(module.predict_dataloader())


@pytest.fixture(scope="module")
def pdp():
    torch.manual_seed(0)
    return PDP(**NARROW, depth=False).eval()


def predicted(vat, method, size):
    found = [method.predict_batch(batch) for batch in batches(vat, method, size)]
    return torch.cat([each.heatmap for each in found]), torch.cat([each.inout for each in found])


@pytest.mark.parametrize("name", ["method", "pdp"])
def test_whole_tracks_do_not_depend_on_the_batch_size(vat, name, request):
    method = request.getfixturevalue(name)
    heatmap, inout = predicted(vat, method, 1000)
    for size in (1, 5):
        for whole, parts in zip((heatmap, inout), predicted(vat, method, size), strict=True):
            torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(predicted(vat, method, 1000)[0], heatmap)  # a second pass begins anew


@torch.no_grad()
def test_a_track_is_one_sequence_over_gaps(vat, method):
    (batch,) = batches(vat, method, 1000)
    tracks, steps = np.array(batch.track), batch.step.numpy()
    lengths = {track: int((tracks == track).sum()) for track in tracks}
    assert {3, 4, 11, 12} <= set(lengths.values())
    assert len(lengths) > 2
    assert all(steps[tracks == track].tolist() == list(range(length)) for track, length in lengths.items())
    method.tracks.clear()
    found = method.answer(batch).heatmap
    boxes = method.crops.boxes(batch.head, batch.sizes[batch.image_index])
    pictures, row, maps, faces = method.network.inputs(batch, boxes)
    for track, length in lengths.items():
        own = torch.from_numpy(np.flatnonzero(tracks == track))
        state = torch.zeros(2, 1, *method.network.state_shape[2:])
        steps_alone = Steps(torch.zeros(length, dtype=torch.long), torch.arange(length), (state, state))
        alone = method.network(pictures, row[own], maps[own], faces[own], steps_alone).heatmap
        torch.testing.assert_close(found[own], alone, atol=1e-5, rtol=1e-5)
        frames = method.network(pictures, row[own], maps[own], faces[own]).heatmap
        torch.testing.assert_close(frames[0], alone[0], atol=1e-5, rtol=1e-5)
        assert (frames[1:] - alone[1:]).abs().max() > 1e-6  # memory counts


@pytest.mark.parametrize("lost", [None, 0, 7])
@torch.no_grad()
def test_five_rows_of_a_track_are_answered_together(vat, pdp, lost):
    """Against windows cut by hand: the last one whole, of a shorter track the last row again, the nearest for a lost
    one.
    """
    module = GazeDataModule(vat, pdp.preprocess(), eval_batch_size=1000, workers=0, bad_images="skip")
    records = module.eval_records("test")
    files = [] if lost is None else [vat.path(records, lost)]
    kept = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(b"no picture")
    (whole,) = module.predict_dataloader()
    module.eval_batch_size = 3
    found = {}
    for batch in module.predict_dataloader():
        found |= dict(zip(batch.person_ids, pdp.answer(batch).logits, strict=True))
    for file, content in zip(files, kept, strict=True):
        file.write_bytes(content)
    assert found.keys() == set(whole.person_ids)
    boxes = pdp.crops.boxes(whole.head, whole.sizes[whole.image_index])
    pictures, row, maps, faces = pdp.network.inputs(whole, boxes)
    place = {person: number for number, person in enumerate(whole.person_ids)}
    tracks = records.columns["track"]
    for track in np.unique(tracks):
        people = records.person_id[tracks == track]
        count = len(people)
        for number, person in enumerate(people):
            if person not in place:
                continue
            start = min(number - number % 5, max(0, count - 5))
            window = [place.get(people[min(each, count - 1)]) for each in range(start, start + 5)]
            first = next(each for each in window if each is not None)
            filled = [first]
            for each in window:
                filled.append(filled[-1] if each is None else each)
            five = torch.tensor(filled[1:])
            alone = pdp.network(pictures, row[five], maps[five], faces[five], torch.arange(5).expand(5, 5))
            at = filled[1:].index(place[person])
            torch.testing.assert_close(found[person], alone.logits[at], atol=1e-5, rtol=1e-5)
            if count == 12:
                single = pdp.network(pictures, row[five], maps[five], faces[five]).logits[at]
                assert (found[person] - single).abs().max() > 1e-6  # the others count


def test_an_epoch_has_every_frame_once_with_its_window(vat, pdp):
    module = GazeDataModule(vat, pdp.preprocess(), batch_size=10, workers=0, seed=1)
    records = module.train_records()
    loaded = list(module.train_dataloader())
    assert sorted(person for batch in loaded for person in batch.person_ids) == sorted(records.person_id.tolist())
    for batch in loaded:
        assert batch.window.shape == (batch.people, 5)
        assert (batch.window == torch.arange(batch.people)[:, None]).any(1).all()
        assert torch.isfinite(torch.stack(list(pdp.loss(batch).values()))).all()


def test_norms_are_skipped_for_one_row_only_where_asked(vat, method):
    official = Chong(**SMALL, skip_norms_of_one=True).eval()
    official.load_export(method.export())
    first = next(batch for batch in batches(vat, method, 1) if batch.people > 1)
    one = replace(
        first, head=first.head[:1], heads=first.heads[:1], person_ids=first.person_ids[:1], track=first.track[:1],
        step=first.step[:1], image_index=first.image_index[:1],
    )  # fmt: skip
    for batch, same in ((first, True), (one, False)):
        for each in (official, method):
            each.tracks.clear()
        assert torch.equal(official.answer(batch).heatmap, method.answer(batch).heatmap) == same


def test_windows_of_clips():
    start = np.array([0, 4, 5, 16])
    order = EpochSampler(3, shuffle=True, seed=3)
    sampler = ClipSampler(order, start, Clips(frames=6, chunk=4), windows=2)
    starts = set()
    for epoch in range(40):
        order.set_epoch(epoch)
        found = list(sampler)
        assert found == list(sampler)
        assert len(found) == len(sampler)
        assert all(len({window[2:] for window in batch}) <= 2 for batch in found)
        windows: dict[tuple[int, int], list[int]] = {}
        for batch in found:
            for when, image, first, stop in batch:
                assert when == epoch
                windows.setdefault((first, stop), []).append(image)
        assert all(images == list(range(*window)) for window, images in windows.items())
        (longest,) = windows.keys() - {(0, 4), (4, 5)}
        assert (len(windows), longest[1] - longest[0]) == (3, 6)
        starts.add(longest[0])
    assert starts == set(range(5, 11))


def test_training_goes_along_a_window(vat):
    torch.manual_seed(0)
    method = Chong(**SMALL, trained="decoder").train()
    module = GazeDataModule(vat, method.preprocess(), batch_size=4, workers=0, seed=1)
    follows = [(one, other) for one, other in pairwise(module.train_dataloader()) if set(one.track) & set(other.track)]
    for one, other in follows:  # the next frames of the same tracks, in the same view
        shared = set(one.track) & set(other.track)
        last = dict(zip(one.track, one.step.tolist(), strict=True))
        first = dict(zip(other.track[::-1], other.step.tolist()[::-1], strict=True))
        assert all(first[track] == last[track] + 1 for track in shared)
        assert len({*map(tuple, one.sizes.tolist()), *map(tuple, other.sizes.tolist())}) <= len(set(one.track))
    one, other = follows[0]
    method.network.convlstm_scene.dropout = 0.0
    sum(method.loss(one).values()).backward()
    carried = sum(method.loss(other).values())
    carried.backward()  # no gradient goes back into the batch before
    method.tracks.clear()
    assert carried.item() != pytest.approx(sum(method.loss(other).values()).item(), rel=1e-7)
    assert method.network.attn.weight.grad is None
    assert method.network.convlstm_scene.weight_hh_l0.grad is not None


def test_processes_do_not_share_a_clip(vat, method):
    module = GazeDataModule(vat, method.preprocess(), workers=0)
    module.trainer = type("Two", (), {"global_rank": 0, "world_size": 2})()
    with pytest.raises(DataError, match=r"devices=1"):
        module.predict_dataloader()
