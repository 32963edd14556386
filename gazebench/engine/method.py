"""The base class of methods, and the settings of their recipes with their origins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningModule
from torch import Tensor

from gazebench.core.distributed import world_size
from gazebench.core.errors import DataError
from gazebench.core.types import Batch, Prediction
from gazebench.core.weights import load_strictly, read_weights
from gazebench.data.task import Task
from gazebench.data.transforms import Preprocess
from gazebench.nn.losses import idle

Origin = Literal["paper", "official code", "ours"]
Capability = Literal["point", "heatmap", "inout", "semantic", "social", "text"]
Input = Literal["picture", "head box", "head crop", "text", "annotations"]


@dataclass(frozen=True)
class Setting:
    """One value of a recipe and its origin.

    Attributes:
        value: the value, as an option of the command line would give it.
        origin: ``paper``, ``official code`` or ``ours``.
        why: the place in the paper or code, or the reason for our choice.
    """

    value: Any
    origin: Origin
    why: str = ""


Recipe = Mapping[str, Setting]
"""Settings by dotted name (``model.lr``, ``loader.batch_size``, ``trainer.max_epochs`` ...); all can be overridden."""


def from_paper(place: str, **values: Any) -> dict[str, Setting]:
    """Settings from the paper; in their names ``__`` stands for the dot (``model__lr=1e-3``)."""
    return _settings("paper", place, values)


def from_code(place: str, **values: Any) -> dict[str, Setting]:
    """Settings of the official code; names as in ``from_paper``."""
    return _settings("official code", place, values)


def our_choice(why: str, **values: Any) -> dict[str, Setting]:
    """Settings that we chose, with the reason; names as in ``from_paper``."""
    return _settings("ours", why, values)


def _settings(origin: Origin, why: str, values: Mapping[str, Any]) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, origin, why) for name, value in values.items()}


def chosen(recipe: Recipe, model: Mapping[str, Any], name: str) -> Any:
    """The value of the constructor argument ``name``: the user's, else the recipe's, else None."""
    setting = recipe.get(f"model.{name}")
    return model.get(name, setting.value if setting else None)


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The loss to minimise: ``total`` if ``Method.loss`` gives it, else the sum."""
    return losses["total"] if "total" in losses else torch.stack(list(losses.values())).sum()


@dataclass(frozen=True)
class MethodCard:
    """Facts about a method for tables and records; ``paper`` and ``citation`` name its source.

    Attributes:
        sees: what a prediction can depend on: the whole ``picture``, the ``head box`` (where the person is), the
            ``head crop`` (the pixels in the box, read by a part of their own), ``text`` (what a language model has read
            or is asked), ``annotations`` (of the tested person); nothing where it is empty, None where it is not said.
    """

    title: str
    family: str
    paper: str = ""
    citation: str = ""
    licence: str = ""
    sees: frozenset[Input] | None = None

    @property
    def blind(self) -> str:
        """``scene-blind``, ``head-blind``, or empty for both kinds of input, for neither, and where it is not said."""
        return blind(self.sees)


def blind(sees: Collection[str] | None) -> str:
    """See ``MethodCard.blind``."""
    if not sees or not {"picture", "head box", "head crop"} & set(sees):
        return ""
    if "picture" not in sees:
        return "scene-blind"
    return "" if {"head box", "head crop"} & set(sees) else "head-blind"


@dataclass(frozen=True)
class Published:
    """Weights that the authors of a method released: their address, and the constructor arguments that fit them."""

    url: str
    model: Mapping[str, Any]


class Method(LightningModule):
    """Base class of all methods: they define ``forward`` and ``loss``, it defines the steps and the logging.

    The arguments of a method's constructor are its settings on the command line. At evaluation the base removes the
    targets from the batch, so that ``forward`` cannot use them.

    Attributes:
        version: raised, with a line in the changelog, whenever the method computes something else; part of a run's id.
        superseded_by: name of the method or version that replaces this one.
        capabilities: what a prediction of it holds.
        tasks: further tasks that the method solves; their items come with its batches.
        recipes: settings by data set; ``"*"`` is for all others.
        published: weights of its authors by name.
        stage: constructor arguments that must agree for one run's weights to fit another (``init from:DATASET``).
        sources: origins of the constructor's defaults, each with the place or the reason.
        offline: options of a small configuration without downloads, for the contract test.
        title: name of this configuration in tables; the card's title when it is empty.
        trains: whether it learns anything.
        sees_images: whether batches need images.
        reads_annotations: whether it is a human baseline, whose ``forward`` reads the targets at evaluation too.
    """

    card: ClassVar[MethodCard]
    version: ClassVar[int] = 1
    superseded_by: ClassVar[str] = ""
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"point"})
    tasks: ClassVar[tuple[type[Task], ...]] = ()
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    published: ClassVar[Mapping[str, Published]] = {}
    stage: ClassVar[tuple[str, ...]] = ()
    sources: ClassVar[Mapping[str, tuple[Origin, str]]] = {}
    offline: ClassVar[tuple[str, ...]] = ()
    title: str = ""
    trains: ClassVar[bool] = True
    sees_images: ClassVar[bool] = True
    reads_annotations: ClassVar[bool] = False

    _spare: Batch | None = None

    # What a method defines -------------------------------------------------------------------------------------

    def preprocess(self) -> Preprocess:
        """The size of images and the augmentation (which is used in training only)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Prediction:
        """The prediction for all P people of a batch."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar training losses by name; ``total`` is minimised, or the sum of all where there is no ``total``.

        Most methods compare ``self(batch)`` with ``batch.targets``. For a mean over people use
        ``nn.losses.batch_mean``, which takes it over all processes.
        """
        raise NotImplementedError

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """The optimizer and a scheduler: stepped once an epoch, or None, or Lightning's dict with another interval."""
        raise NotImplementedError

    def observe(self, train: Iterable[Batch]) -> None:
        """Called before training with batches of all training annotations, without images; e.g. to take their mean."""

    def load_initial(self, path: Path) -> None:
        """Loads weights of an earlier stage (``INIT=``); ``optional_parts`` that they lack stay as they are."""
        weights = read_weights(path)
        lacking = [part for part in self.optional_parts() if not part & weights.keys()]
        self.load_export(weights, may_lack=set().union(*lacking))

    def optional_parts(self) -> list[set[str]]:
        """Groups of names in the export that weights of an earlier stage may lack."""
        return []

    def export(self) -> dict[str, Tensor]:
        """The weights to publish: trainable parameters and buffers, under the method's public names."""
        learnt = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        learnt |= {name for name, _ in self.named_buffers()}
        return {name: value for name, value in self.state_dict().items() if name in learnt}

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads what ``export`` gave, strictly; names in ``may_lack`` may be missing and keep their values.

        Raises:
            WeightsError: names are missing or unknown, or shapes differ.
        """
        remedy = f"use the --model.{', .'.join(self.stage)} they were trained with" if self.stage else ""
        what = self.title or type(self).__name__
        own = self.state_dict()  # not the tensors that export() gives, which may be copies
        live = {name: own[name] for name in self.export()}
        load_strictly(live, weights, what=what, may_lack=may_lack, remedy=remedy)

    def weights_identity(self) -> dict[str, Any]:
        """The weights that are not learnt here: ``name`` of the backbone, ``grade`` of its weights, and their digests.

        The grade is ``published``, ``embedded`` (small weights of this package, for its drawn world only), ``file``,
        ``random``, or ``none`` where nothing is pretrained. Every other mapping with a key ``weights`` (``pretrained``,
        ``embedded``, ``random`` or ``sha256:`` of files) is a part of its own, e.g. ``backbone`` or ``head_encoder``;
        ``engine.standing`` tells from the digests how far they are known. All of it is part of a run's id, so weights
        that are known by a name need their digest here.
        """
        return {"grade": "none", "name": ""}

    @classmethod
    def left_out(cls, model: Mapping[str, Any]) -> frozenset[str]:
        """Tasks (keys of ``metrics.protocol.TASKS``) that training with these constructor arguments leaves out.

        The method may still have values for them; boards show these without a rank.
        """
        return frozenset()

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The settings for a data set.

        Args:
            dataset: name of the data set.
            model: constructor arguments the user gave; a recipe may depend on e.g. the backbone.
        """
        return cls.recipes.get(dataset, cls.recipes.get("*", {}))

    # What the base class defines -------------------------------------------------------------------------------

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """Lightning's training step.

        A batch is empty where none of its images can be read, or where other processes have the last ones. A single
        process skips such a step. Several processes exchange gradients at every step, so a process with an empty batch
        computes its first batch again, with a loss of zero.

        Raises:
            ValueError: the loss is not finite. DataError: the first batch of a process among several is empty.
        """
        nobody = not batch.people
        if world_size() > 1:
            batch = self._batch_or_first(batch)
        elif nobody:
            return None
        with idle(nobody):
            losses = self.loss(batch)
        total = total_loss(losses) * (0.0 if nobody else 1.0)
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {float(total.detach())} at epoch {self.current_epoch}, batch {index} "
                f"(people {batch.person_ids[:3]} ...): lower the learning rate or use --trainer.precision 32-true"
            )
        options: dict[str, Any] = {"batch_size": batch.people, "on_epoch": True, "sync_dist": True}
        self.log("loss", total.detach(), prog_bar=True, on_step=True, **options)
        for name, value in losses.items():
            if name != "total":
                self.log(f"loss/{name}", value.detach(), on_step=False, **options)
        return total

    def _batch_or_first(self, batch: Batch) -> Batch:
        """The batch, or the first one of this process where it is empty."""
        if self._spare is None:
            if not batch.people:
                raise DataError(
                    f"process {self.global_rank} of {world_size()} has nobody in its first batch"
                    + "".join(f"; {reason}" for reason in batch.skipped.values())
                )
            self._spare = batch
        return batch if batch.people else self._spare

    def predict_batch(self, batch: Batch) -> Prediction:
        """``forward`` as evaluation calls it: without gradients, without the targets, and in float32.

        Half precision would round a heatmap to a few hundred levels, and AUC needs the raw map. A method may still run
        its frozen encoder in another precision.
        """
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self(batch if self.reads_annotations else replace(batch, targets=None))

    def validation_step(self, batch: Batch, index: int) -> dict[str, Prediction]:
        """The ``prediction`` for a batch of the validation split; ``engine.callbacks`` scores it."""
        return {"prediction": self.predict_batch(batch)} if batch.people else {}

    def predict_step(self, batch: Batch, index: int) -> Prediction | None:
        """The prediction for a batch of the test split; ``engine.predict`` stores it."""
        return self.predict_batch(batch) if batch.people else None

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self.optimizer()
        if scheduler is None:
            return optimizer
        given = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": given}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out frozen weights, which are rebuilt from their source."""
        checkpoint["state_dict"] = self.export()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the frozen weights, which Lightning's strict loading expects."""
        self.load_export(checkpoint["state_dict"])
        checkpoint["state_dict"] = self.state_dict()
