"""The only data module: any data set, seen through any method's preprocessing, image by image with all its people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from gazebench.core.boxes import FloatArray, IntArray, holds_boxes, holds_points
from gazebench.core.errors import DataError, ImageError
from gazebench.core.types import IN_FRAME, OUT_OF_FRAME, UNKNOWN, Batch, Item, Policy, Records, Targets, ragged_starts
from gazebench.data.dataset import GazeDataset, strided
from gazebench.data.images import image_size, resized
from gazebench.data.task import Task
from gazebench.data.transforms import Clips, Preprocess, View, apply_view, recoloured, sample_view

People = Literal["in_frame", "labelled", "all"]


@dataclass
class Sample:
    """One image with its people, before collation.

    Attributes:
        records: of the image alone; boxes, points and sizes are those of the training view.
        image: (3, H, W) uint8; None where the method looks at no picture or the file cannot be read.
        items: by task, the items about these people with their truths.
        skipped: why the image cannot be read; "" where it can.
        heads: (P, 3, S, S) uint8; None for methods that need none.
        depth: (H, W) float32; None for methods that need none.
        step: (P,) the place of each row in its track; None for methods of single pictures.
        rows: (P,) the people as rows of the split, with other numbers in every view; for methods of windows.
        window: (P, L) the rows of the window of each.
        context: whether nobody asks about these people, who are in windows of others.
    """

    records: Records
    image: torch.Tensor | None = None
    items: Mapping[str, list[tuple[Item, Any]]] | None = None
    skipped: str = ""
    heads: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    step: IntArray | None = None
    rows: IntArray | None = None
    window: IntArray | None = None
    context: bool = False


class ImageSamples(TorchDataset[Sample]):
    """The images of a split as samples; an index is (epoch, image), so that augmentation depends on nothing else.

    For frames of a window it is (epoch, image, start, stop): the images of the window share one view.
    """

    def __init__(
        self,
        dataset: GazeDataset,
        records: Records,
        preprocess: Preprocess,
        *,
        augment: bool = False,
        sees_images: bool = True,
        bad_images: Policy = "error",
        seed: int = 0,
        tasks: Sequence[Task] = (),
    ) -> None:
        self.dataset, self.records, self.preprocess = dataset, records, preprocess
        self.augment, self.sees_images, self.bad_images, self.seed = augment, sees_images, bad_images, seed
        self.sources = {task.name: task.source(dataset, records) for task in tasks}
        self.step = _steps(records) if preprocess.clips else None
        self.window = _windows(records, preprocess.clips.reach) if preprocess.clips and preprocess.clips.reach else None
        self.person_start = records.person_start

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: tuple[int, ...] | int) -> Sample:
        epoch, image, *window = index if isinstance(index, tuple) else (0, index)
        try:
            return self._read(epoch, image, *(window or (image, image + 1)))
        except DataError as error:
            if self.bad_images == "error":
                raise
            return Sample(self.records.of_images(np.array([image])), skipped=str(error))

    def __getitems__(self, indices: Sequence[tuple[int, ...] | int]) -> list[Sample]:
        """The samples of a batch and, for methods of windows, those of the further images that windows reach into."""
        if self.window is None:
            return [self[index] for index in indices]
        views: dict[tuple[int, ...], list[int]] = {}
        for index in indices:
            epoch, image, *span = index if isinstance(index, tuple) else (0, index)
            views.setdefault((epoch, *span), []).append(image)
        asked, context = list[Sample](), list[Sample]()
        for number, ((epoch, *span), images) in enumerate(views.items()):
            reached = self.records.person_image[self.window[np.isin(self.records.person_image, images)]]
            further = np.setdiff1d(reached, images).tolist()
            whole = (min([*images, *further]), max([*images, *further]) + 1) if span else ()
            for image in (*images, *further):
                sample = replace(self[(epoch, image, *whole)], context=image in further)
                if sample.rows is not None and sample.window is not None:
                    first = number * self.records.people
                    sample.rows, sample.window = sample.rows + first, sample.window + first
                (context if sample.context else asked).append(sample)
        return asked + context

    def _read(self, epoch: int, image: int, start: int, stop: int) -> Sample:
        records = self.records.of_images(np.array([image]))
        if not records.sizes.all():  # its header could not be read, so its people have no places
            path = self.dataset.path(self.records, image)
            image_size(path)
            raise ImageError(f"{path}: could not be read when its size was looked up; repeat the command")
        view = None
        if self.augment:
            window = records if stop == start + 1 else self.records.of_images(np.arange(start, stop))
            view = self._view(window, [self.seed, epoch, start])
            own = window.person_image == image - start
            view = replace(view, jitter=view.jitter[own])
            records = _seen(records, view)
        picture, heads = self._pictures(image, view, records.head) if self.sees_images else (None, None)
        points = [records.points_of(person) for person in range(records.people)]
        width, height = records.sizes[0].tolist()
        # After the view: what is on the left, and where, is another matter in a mirror.
        items = {
            name: source.items(image, records.head, points, (width, height)) for name, source in self.sources.items()
        }
        depth = None
        if self.preprocess.depth:
            crop, flip = (view.crop, view.flip) if view else (None, False)
            depth = torch.from_numpy(self.dataset.depth_map(self.records, image, self.preprocess.size, crop, flip))
        own = np.arange(*self.person_start[[image, image + 1]])
        step = None if self.step is None else self.step[own]
        rows = None if self.window is None else self.window[own]
        return Sample(records, picture, items, heads=heads, depth=depth, step=step, rows=own, window=rows)

    def _pictures(self, image: int, view: View | None, head: FloatArray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The picture in a view, and the heads cut out of it, before it is resized, where the method needs them."""
        crop, flip = (view.crop, view.flip) if view else (None, False)
        wanted = self.preprocess
        array = self.dataset.image(self.records, image, None if wanted.heads else wanted.size, crop, flip)
        if view is not None and view.colour is not None:
            array = recoloured(torch.from_numpy(array).permute(2, 0, 1), view.colour).permute(1, 2, 0).numpy()
        return fitted(array, head, wanted)

    def _view(self, records: Records, seed: list[int]) -> View:
        """A random view that holds all people and visible targets of a window; rows of a track are jittered alike."""
        width, height = records.sizes[0].tolist()
        owner = np.repeat(np.arange(records.people), np.diff(records.point_start))
        visible = records.points[records.inout[owner] == IN_FRAME]
        view = sample_view(np.random.default_rng(seed), self.preprocess, width, height, records.head, visible)
        _, first, track = np.unique(_tracks(records), return_index=True, return_inverse=True)
        return replace(view, jitter=view.jitter[first[track]]) if len(records) > 1 else view


def _seen(records: Records, view: View) -> Records:
    """One image's records as they stand in a view."""
    head, points = apply_view(view, records.head, records.points)
    columns = {
        name: _unjittered(view, column.reshape(-1, 4)).reshape(column.shape)
        if holds_boxes(column)
        else apply_view(view, records.head, column)[1]
        if holds_points(column)
        else column
        for name, column in records.columns.items()
    }
    return replace(records, head=head, points=points, columns=columns, sizes=np.array([view.size]))


def _tracks(records: Records) -> np.ndarray:
    """(P,) the track of each person; where a data set has no tracks, everybody has their own."""
    return np.asarray(records.columns.get("track", records.person_id))


def _steps(records: Records) -> IntArray:
    """(P,) the place of each person's row in their track, in the order of the images."""
    return np.asarray(pd.Series(_tracks(records)).groupby(_tracks(records)).cumcount(), dtype=np.int64)


def _windows(records: Records, reach: int) -> IntArray:
    """(P, reach) the rows of each person's window of their track, as ``Clips.reach`` says."""
    step, (_, track, length) = _steps(records), np.unique(_tracks(records), return_inverse=True, return_counts=True)
    ordered, first = np.lexsort((step, track)), ragged_starts(length)[track]
    start = np.minimum(step // reach * reach, np.maximum(length[track] - reach, 0))
    places = np.minimum(start[:, None] + np.arange(reach), length[track][:, None] - 1)
    return np.asarray(ordered[first[:, None] + places], dtype=np.int64)


def fitted(
    picture: npt.NDArray[np.uint8], head: FloatArray, preprocess: Preprocess
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A decoded picture (H, W, 3) as a method wants it, (3, h, w), and its people's heads, (P, 3, S, S) or None.

    Args:
        picture: uint8 RGB, of any size.
        head: (P, 4) normalised; a row of NaN is a person without a box.
        preprocess: the method's.
    """
    whole = torch.from_numpy(picture).permute(2, 0, 1)
    fits = picture.shape[:2] == preprocess.size
    image = whole if fits else torch.from_numpy(resized(picture, preprocess.size)).permute(2, 0, 1)
    return image, None if preprocess.heads is None else preprocess.heads.cut(whole, torch.from_numpy(head))


def _unjittered(view: View, boxes: FloatArray) -> FloatArray:
    """(N, 4) boxes in the view: truths, so they are cropped and mirrored but never jittered."""
    return apply_view(replace(view, jitter=np.zeros_like(boxes)), boxes, np.zeros((0, 2)))[0]


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to an image-major batch; unreadable images stay out and are named in ``skipped``.

    The images are channels-last in memory, as they were resized; the data module makes them planar on the device.
    """
    asked, further = ([each for each in samples if each.context == context] for context in (False, True))
    batch, context = _collated(asked), _collated(further)
    windows = [each.window for each in asked if each.window is not None]
    if not windows:
        return batch
    rows = [int(row) for each in (*asked, *further) if each.rows is not None for row in each.rows]
    place = {row: number for number, row in enumerate(rows)}
    found = np.array([[place.get(row, -1) for row in window] for window in np.concatenate(windows).tolist()])
    present = found >= 0
    nearest = np.maximum.accumulate(np.where(present, np.arange(found.shape[1]), -1), axis=1)
    nearest = np.where(nearest < 0, present.argmax(axis=1)[:, None], nearest)
    window = torch.from_numpy(np.take_along_axis(found, nearest, axis=1))
    return replace(batch, window=window, context=context if context.people else None)


def _collated(samples: Sequence[Sample]) -> Batch:
    readable = [sample for sample in samples if not sample.skipped]
    records = [sample.records for sample in readable]
    people = [each.people for each in records]
    first = ragged_starts(people)

    def joined(arrays: list[Any], empty: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.concatenate([np.zeros(empty, dtype), *arrays])

    counts = joined([np.diff(each.point_start) for each in records], (0,), np.int64)
    points = torch.from_numpy(joined([each.points for each in records], (0, 2), np.float64))
    inout = torch.from_numpy(joined([each.inout for each in records], (0,), np.int64))
    point = torch.full((len(counts), 2), torch.nan)
    has = torch.from_numpy(counts > 0) & (inout == IN_FRAME)
    point[has] = points[torch.from_numpy(ragged_starts(counts)[:-1])[has]].float()
    images = [sample.image.permute(1, 2, 0) for sample in readable if sample.image is not None]
    heads = [sample.heads for sample in readable if sample.heads is not None]
    steps = [sample.step for sample in readable if sample.step is not None]
    depth = [sample.depth for sample in readable if sample.depth is not None]
    items: dict[str, list[Item]] = {}
    truths: dict[str, list[Any]] = {}
    for sample, start in zip(readable, first, strict=False):
        for task, found in (sample.items or {}).items():
            items.setdefault(task, []).extend(replace(item, person=item.person + int(start)) for item, _ in found)
            truths.setdefault(task, []).extend(truth for _, truth in found)
    columns = {name: [each.columns[name] for each in records] for name in (records[0].columns if records else ())}
    pairs = {name: [each.pairs[name] for each in records] for name in (records[0].pairs if records else ())}
    return Batch(
        images=torch.stack(images).permute(0, 3, 1, 2) if images else None,
        image_index=torch.repeat_interleave(torch.arange(len(records)), torch.tensor(people, dtype=torch.int64)),
        head=torch.from_numpy(joined([each.head for each in records], (0, 4), np.float64)).float(),
        person_ids=[str(person) for each in records for person in each.person_id],
        image_ids=[str(each.images[0]) for each in records],
        sizes=torch.from_numpy(joined([each.sizes for each in records], (0, 2), np.int64)),
        targets=Targets(
            point=point,
            inout=inout,
            points=points,
            point_person=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            columns={name: _joined(parts) for name, parts in columns.items()},
            pairs={name: torch.from_numpy(np.concatenate(parts).astype(np.int64)) for name, parts in pairs.items()},
            truths=truths,
        ),
        skipped={str(sample.records.images[0]): sample.skipped for sample in samples if sample.skipped},
        items=items,
        heads=torch.cat(heads) if heads else None,
        depth=torch.stack(depth) if depth else None,
        track=[str(track) for each in records for track in _tracks(each)] if steps else [],
        step=torch.from_numpy(np.concatenate(steps)) if steps else None,
    )


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray | torch.Tensor:
    joined = np.concatenate(columns)
    return joined if joined.dtype.kind == "U" else torch.from_numpy(joined)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, image) pairs; the order depends on seed and epoch only.

    Several processes take turns without padding, so that no image is seen twice. With ``repeats`` (I,) images are seen
    so often in an epoch: of those with 2.25 every one twice and a quarter of them, drawn anew, once more.
    """

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        repeats: FloatArray | None = None,
    ) -> None:
        self.shuffle, self.seed, self.rank, self.world = shuffle, seed, rank, world
        self.repeats = np.ones(length) if repeats is None else repeats
        self.epoch = self.first = epoch
        self.length = len(self._images())

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch.

        One that did so before it has read the checkpoint would say 0 on resuming, so an epoch before the first is none.
        """
        self.epoch = max(epoch, self.first)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self._images()
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch, 1]).shuffle(order)
        return ((self.epoch, int(image)) for image in order[self.rank :: self.world])

    def _images(self) -> IntArray:
        """The images of an epoch, in order."""
        times = np.floor(self.repeats).astype(np.int64)
        for often in np.unique(self.repeats[self.repeats % 1 > 0]):
            like = np.flatnonzero(self.repeats == often)
            draw = np.random.default_rng([self.seed, self.epoch, 2])
            times[draw.choice(like, round(often % 1 * len(like)), replace=False)] += 1
        return np.repeat(np.arange(len(times)), times)

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.world))


class ShareSampler(Sampler[list[tuple[int, int]]]):
    """A process's share of every training batch: the batches are the same however many processes take part.

    All of them get as many batches; of the last one of an epoch a process may get nothing.
    """

    def __init__(self, sampler: EpochSampler, images: int, *, rank: int = 0, world: int = 1) -> None:
        self.sampler, self.images, self.rank, self.world = sampler, images, rank, world  # Lightning looks for `sampler`

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = list(self.sampler)
        for start in range(0, len(order), self.images):
            yield order[start : start + self.images][self.rank :: self.world]

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.images)


class ClipSampler(Sampler[list[tuple[int, int, int, int]]]):
    """Training batches of windows: (epoch, image, start, stop) of some consecutive frames of several windows.

    Every epoch draws one window a clip. A batch holds the next ``chunk`` frames of each of its windows; the batches of
    the same windows follow one another, in order, until the longest is over.

    Args:
        sampler: over the clips.
        start: (C + 1,) the first image of each clip, and the number of images.
        clips: lengths of windows and chunks.
        windows: in a batch.
    """

    def __init__(self, sampler: EpochSampler, start: IntArray, clips: Clips, windows: int) -> None:
        self.sampler, self.start, self.clips, self.windows = sampler, start, clips, windows

    def __iter__(self) -> Iterator[list[tuple[int, int, int, int]]]:
        return iter(self._batches())

    def __len__(self) -> int:
        return len(self._batches())

    def _batches(self) -> list[list[tuple[int, int, int, int]]]:
        order = list(self.sampler)
        rng = np.random.default_rng([self.sampler.seed, self.sampler.epoch, 2])
        spare = np.maximum(np.diff(self.start) - self.clips.frames, 0)  # by clip, so that the order does not matter
        first = self.start[:-1] + rng.integers(0, spare, endpoint=True)
        stop = np.minimum(first + self.clips.frames, self.start[1:])
        batches = []
        for begin in range(0, len(order), self.windows):
            spans = [(epoch, int(first[clip]), int(stop[clip])) for epoch, clip in order[begin : begin + self.windows]]
            for offset in range(0, max(end - start for _, start, end in spans), self.clips.chunk):
                batches.append(
                    [
                        (epoch, image, start, end)
                        for epoch, start, end in spans
                        for image in range(start + offset, min(start + offset + self.clips.chunk, end))
                    ]
                )
        return batches


class GazeDataModule(LightningDataModule):
    """Loaders over one data set.

    Args:
        dataset: any ``GazeDataset``.
        preprocess: the method's.
        batch_size: people in a training batch on average, over all processes; images are never split, so a batch
            holds ``batch_size / (people per image)`` images, which the processes share.
        eval_batch_size: the same at evaluation, but in each process.
        workers: loader processes; -1 is one less than the cores, at most 8.
        people: who is trained on: those with a target ``in_frame``, all ``labelled`` (in or out) ones, or ``all``, with
            those whose target is not annotated.
        selection: ``last`` trains on ``trainval`` and keeps the last epoch, as the papers do; ``val`` holds out the
            validation sources and keeps the best epoch on them.
        augment: training augmentation.
        bad_images: ``error`` stops at an image that cannot be read, ``skip`` leaves it out and names it.
        train_stride: every n-th image of each source in training (VAT: every 6th frame).
        limit_train: at most so many training images (0: all), evenly spaced.
        limit_test: at most so many images of test and validation (0: all); the result is then marked incomplete.
        seed: of order and augmentation.
        sees_images: False spares methods without images the decoding.
        tasks: the method's, whose items come with the samples.
    """

    def __init__(
        self,
        dataset: GazeDataset,
        preprocess: Preprocess,
        *,
        batch_size: int = 60,
        eval_batch_size: int = 60,
        workers: int = -1,
        people: People = "labelled",
        selection: Literal["last", "val"] = "last",
        augment: bool = True,
        bad_images: Policy = "error",
        train_stride: int = 1,
        limit_train: int = 0,
        limit_test: int = 0,
        seed: int = 0,
        sees_images: bool = True,
        tasks: Sequence[Task] = (),
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1 or train_stride < 1:
            raise ValueError("batch_size, eval_batch_size and train_stride must be at least 1")
        self.dataset, self.preprocess, self.tasks = dataset, preprocess, tuple(tasks)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.workers = max(0, min(8, (os.cpu_count() or 1) - 1)) if workers < 0 else workers
        self.people, self.selection, self.augment, self.bad_images = people, selection, augment, bad_images
        self.train_stride, self.limit_train, self.limit_test = train_stride, limit_train, limit_test
        self.seed, self.sees_images = seed, sees_images
        self.first_epoch = 0
        self.skipped: dict[str, str] = {}
        """The images this process has left out so far, with the reason."""

    def state_dict(self) -> dict[str, Any]:
        """Which epoch comes next: on resuming, workers draw their first batches before Lightning says so."""
        assert self.trainer is not None
        return {"epoch": self.trainer.current_epoch + self.trainer.is_last_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_epoch = int(state_dict["epoch"])

    def train_records(self) -> Records:
        """The people trained on.

        Raises:
            DataError: nobody is left to train on.
        """
        records = self.dataset.records("trainval" if self.selection == "last" else "train")
        known = (IN_FRAME, OUT_OF_FRAME)
        wanted = {"in_frame": (IN_FRAME,), "labelled": known, "all": (*known, UNKNOWN)}
        keep = np.isin(records.inout, wanted[self.people])
        if self.train_stride > 1:
            keep &= strided(records, self.train_stride)[records.person_image]
        records = _limited(records.select(keep), self.limit_train)
        if not records.people:
            raise DataError(f"{self.dataset.card.title} has nobody to train on in {records.split!r} under this root")
        return records

    def annotations(self) -> Iterator[Batch]:
        """The people trained on, in order, without images or augmentation; read only when iterated."""
        samples = ImageSamples(self.dataset, self.train_records(), self.preprocess, sees_images=False)
        for start in range(0, len(samples), 256):
            yield collate([samples[image] for image in range(start, min(start + 256, len(samples)))])

    def eval_records(self, split: str) -> Records:
        """The people of ``val`` or ``test``, whole unless limited."""
        return _limited(self.dataset.records(split), self.limit_test)

    def batch_images(self, records: Records, batch_size: int) -> int:
        """Images in a batch of so many people, as many as they are in on average."""
        return max(1, round(batch_size / max(1.0, records.people / max(1, len(records)))))

    def check_shares(self, world: int, accumulate: int) -> None:
        """Checks that so many processes can share a training batch.

        Raises:
            DataError: there are more processes than images; says what batch they could share.
        """
        records = self.train_records()
        images = self.batch_images(records, self.batch_size)
        if images >= world:
            return
        people = self.batch_size * accumulate
        together = self.batch_images(records, people)
        remedy = f"take at most {images}"
        if accumulate > 1 and together >= world:
            remedy += f", or --loader.batch_size={people} --trainer.accumulate_grad_batches=1, which is the same step"
        else:
            least = -(-world * records.people // len(records))
            remedy += f", or --loader.batch_size={least}, which is another recipe"
        raise DataError(
            f"a training batch of {self.batch_size} people is {images} image(s) of {self.dataset.card.title}, too few "
            f"for {world} processes to share; {remedy}"
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented; this process's share of every batch."""
        records = self.train_records()
        rank, world = self._place()
        images, clips = self.batch_images(records, self.batch_size), self.preprocess.clips
        shares: Sampler[Any]
        if clips is None:
            repeats = self.dataset.repeats(records)
            order = EpochSampler(len(records), shuffle=True, seed=self.seed, epoch=self.first_epoch, repeats=repeats)
            shares = ShareSampler(order, images, rank=rank, world=world)
        else:
            start = np.flatnonzero(np.r_[True, records.groups[1:] != records.groups[:-1], True])
            if clips.reach:
                cuts = [np.arange(first, stop, clips.reach) for first, stop in pairwise(start)]
                start = np.concatenate([*cuts, start[-1:]])
            order = EpochSampler(len(start) - 1, shuffle=True, seed=self.seed, epoch=self.first_epoch)
            shares = ClipSampler(order, start, clips, max(1, images // clips.chunk))
        return DataLoader(
            self._samples(records, augment=self.augment), batch_sampler=shares, num_workers=self.workers,
            collate_fn=collate, persistent_workers=self.workers > 0,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Sample] | list[Any]:
        """The held-out sources; nothing when the last epoch is taken."""
        return [] if self.selection == "last" else self._eval_loader("val")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The test split, in order."""
        return self._eval_loader("test")

    def test_sample(self, images: int) -> Batch:
        """At most so many images of the test split, and no more than its loader gives at once, evenly spaced."""
        records = self.eval_records("test")
        records = _limited(records, min(images, self.batch_images(records, self.eval_batch_size)))
        samples = self._samples(records, augment=False)
        return self.on_after_batch_transfer(collate(samples.__getitems__(range(len(samples)))), 0)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Stops at unreadable images unless they are to be skipped; here, where a worker's traceback is not in it."""
        if batch.skipped and self.bad_images == "error":
            reason = next(iter(batch.skipped.values()))
            raise DataError(f"{reason}, or leave such images out: --loader.bad_images=skip")
        self.skipped.update(batch.skipped)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Images planar in memory, on the device, where that takes less time than in a loader process."""
        if batch.context is not None:
            batch = replace(batch, context=self.on_after_batch_transfer(batch.context, dataloader_idx))
        return batch if batch.images is None else replace(batch, images=batch.images.contiguous())

    def _eval_loader(self, split: str) -> DataLoader[Sample]:
        records = self.eval_records(split)
        rank, world = self._place()
        return DataLoader(
            self._samples(records, augment=False), batch_size=self.batch_images(records, self.eval_batch_size),
            sampler=EpochSampler(len(records), shuffle=False, seed=self.seed, rank=rank, world=world),
            num_workers=self.workers, collate_fn=collate,
        )  # fmt: skip

    def _samples(self, records: Records, *, augment: bool) -> ImageSamples:
        return ImageSamples(
            self.dataset, records, self.preprocess, augment=augment, sees_images=self.sees_images, bad_images="skip",
            seed=self.seed, tasks=self.tasks,
        )  # fmt: skip

    def _place(self) -> tuple[int, int]:
        """This process, and how many there are.

        Raises:
            DataError: several processes would share the frames of a clip.
        """
        place = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if place[1] > 1 and self.preprocess.clips:
            raise DataError("the method remembers earlier frames, which processes do not share: --trainer.devices=1")
        return place


def _limited(records: Records, limit: int) -> Records:
    if not limit or limit >= len(records):
        return records
    chosen: IntArray = np.linspace(0, len(records) - 1, limit).round().astype(np.int64)
    return records.of_images(np.unique(chosen))
