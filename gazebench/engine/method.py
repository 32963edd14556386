"""What a method is to the suite: one LightningModule base owns every step; a method supplies the nouns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn

from gazebench.core.distributed import world_size
from gazebench.core.types import Batch, DataError, Prediction
from gazebench.core.weights import load_strictly
from gazebench.data.transforms import Preprocess
from gazebench.metrics.protocol import Protocol
from gazebench.metrics.scoring import Evaluator, Score, ScoredBatch
from gazebench.nn.losses import idle

Origin = Literal["paper", "official code", "ours"]
Capability = Literal["point", "heatmap", "inout", "semantic", "social", "text"]


@dataclass(frozen=True)
class Setting:
    """One value of a recipe and where it comes from.

    Attributes:
        value: what the command line would be given.
        origin: ``paper``, ``official code`` or ``ours``.
        why: the place in the paper or code, or the reason for our choice.
    """

    value: Any
    origin: Origin
    why: str = ""


Recipe = Mapping[str, Setting]
"""Settings by dotted name (``model.lr``, ``loader.batch_size``, ``trainer.max_epochs`` ...); all can be overridden."""


def from_paper(place: str, **values: Any) -> dict[str, Setting]:
    """Settings the paper gives; in their names ``__`` stands for the dot (``model__lr=1e-3``)."""
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
    """The constructor argument ``name``: the user's, else the recipe's, else None."""
    setting = recipe.get(f"model.{name}")
    return model.get(name, setting.value if setting else None)


@dataclass(frozen=True)
class MethodCard:
    """What everybody who reads a table should know of a method."""

    title: str
    family: str
    paper: str = ""
    citation: str = ""
    licence: str = ""
    note: str = ""


@dataclass(frozen=True)
class Published:
    """Weights the authors of a method released: their address and the constructor arguments they belong to."""

    url: str
    model: Mapping[str, Any]


class Method(LightningModule):
    """Base of all methods: ``forward`` and ``loss`` are theirs, the steps, logging and metrics are here.

    A method's constructor is its schema on the command line. At evaluation ``forward`` sees no targets: the base takes
    them out of the batch, so that nothing can leak (``reads_annotations`` declares the human baselines' exception).
    """

    card: ClassVar[MethodCard]
    version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"point"})
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    published: ClassVar[Mapping[str, Published]] = {}
    stage: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that must be alike for one run's weights to fit another (``init from:DATASET``)."""
    sources: ClassVar[Mapping[str, tuple[Origin, str]]] = {}
    """Where the defaults of the constructor come from: origin, and the place or the reason; for the settings sheet."""
    offline: ClassVar[tuple[str, ...]] = ()
    """Options of a small configuration that needs no download: what the contract test builds."""
    title: str = ""
    """What tables call this configuration; the card's title when it is empty."""
    trains: ClassVar[bool] = True
    sees_images: ClassVar[bool] = True
    reads_annotations: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.evaluator: Evaluator | None = None
        self.history: list[dict[str, float]] = []
        self.skipped: set[str] = set()
        self._spare: Batch | None = None

    # What a method supplies ------------------------------------------------------------------------------------

    def preprocess(self) -> Preprocess:
        """How pictures and targets reach this method (its recipe's augmentation is used in training only)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Prediction:
        """Predicts for all P people of a batch."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name; ``total`` is what is minimised (the sum where it is not given).

        Where a loss is a mean over people, ``nn.losses.batch_mean`` takes it over those of all processes.
        """
        raise NotImplementedError

    def optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """The optimizer and a scheduler stepped once an epoch (or None, or Lightning's dict for another rhythm)."""
        raise NotImplementedError

    def observe(self, train: Iterable[Batch]) -> None:
        """May go through the training annotations once, before training (e.g. to take their mean); no pictures."""

    def load_initial(self, path: Path) -> None:
        """Starts from the weights of an earlier stage (``INIT=``)."""
        raise ValueError(f"{self.card.title} does not start from another model's weights; leave INIT out")

    def export(self) -> dict[str, Tensor]:
        """The weights to publish: what was trained, in the method's public form."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in self.named_buffers() if not name.startswith("evaluator.")}
        return {name: value for name, value in self.state_dict().items() if name in trained | buffers}

    def load_export(self, weights: Mapping[str, Tensor], may_lack: Iterable[str] = ()) -> None:
        """Loads what ``export`` wrote, strictly; parts named in ``may_lack`` may be missing and stay as they are."""
        remedy = f"use the --model.{', .'.join(self.stage)} they were trained with" if self.stage else ""
        what = self.title or type(self).__name__
        load_strictly(self.export(), weights, what=what, may_lack=may_lack, remedy=remedy)

    def weights_identity(self) -> dict[str, Any]:
        """What was not trained in this run: ``name`` of the backbone and the ``grade`` of its weights.

        The grade is ``published``, ``embedded`` (small ones of this package, good for its own world only), ``file``
        (nobody can vouch for them), ``random``, or ``none`` where nothing is pretrained.
        """
        return {"grade": "none", "name": ""}

    @classmethod
    def recipe(cls, dataset: str, model: Mapping[str, Any]) -> Recipe:
        """The settings for a dataset; ``"*"`` serves those without one of their own.

        Args:
            dataset: name of the dataset.
            model: constructor arguments the user gave (a recipe may depend on e.g. the backbone).
        """
        return cls.recipes.get(dataset, cls.recipes.get("*", {}))

    # What the base owns ----------------------------------------------------------------------------------------

    def score_by(self, protocol: Protocol) -> None:
        """Fixes the protocol of validation and test."""
        self.evaluator = Evaluator(protocol)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """One step; a batch is empty where no picture of it can be read, or other processes have the last ones.

        Alone, such a step is passed over. Several processes exchange gradients at every step, so one that has nobody
        goes along with people it had before, who do not count.

        Raises:
            ValueError: the loss is not finite. DataError: a process among several could read nothing from the start.
        """
        self.skipped.update(batch.skipped)
        nobody = not batch.people
        if world_size() > 1:
            batch = self._company(batch)
        elif nobody:
            return None
        with idle(nobody):
            losses = self.loss(batch)
        total = losses.get("total")
        if total is None:
            total = torch.stack(list(losses.values())).sum()
        total = total * 0.0 if nobody else total
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {float(total.detach())} at epoch {self.current_epoch}, batch {index} "
                f"(people {batch.person_ids[:3]} ...): lower the learning rate or use --trainer.precision 32-true"
            )
        told: dict[str, Any] = {"batch_size": batch.people, "on_epoch": True, "sync_dist": True}
        self.log("loss", total.detach(), prog_bar=True, on_step=True, **told)
        for name, value in losses.items():
            if name != "total":
                self.log(f"loss/{name}", value.detach(), on_step=False, **told)
        return total

    def _company(self, batch: Batch) -> Batch:
        """The batch; the first one of this process again where it is empty."""
        if self._spare is None:
            if not batch.people:
                raise DataError(
                    f"process {self.global_rank} of {world_size()} has nobody in its first batch"
                    + "".join(f"; {reason}" for reason in batch.skipped)
                )
            self._spare = batch
        return batch if batch.people else self._spare

    def predict_batch(self, batch: Batch) -> Prediction:
        """``forward`` as evaluation calls it: without gradients, without the targets, and in float32.

        Autocast is for training: half precision rounds a heatmap to a few hundred levels, and AUC needs the raw map.
        A method may still run its frozen encoder in what precision it likes.
        """
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self(batch if self.reads_annotations else replace(batch, targets=None))

    def _scored(self, batch: Batch) -> ScoredBatch | None:
        assert self.evaluator is not None, "score_by(protocol) comes before evaluation"
        self.skipped.update(batch.skipped)
        return self.evaluator.update(self.predict_batch(batch), batch) if batch.people else None

    def validation_step(self, batch: Batch, index: int) -> None:
        """Scores a batch of the validation split."""
        self._scored(batch)

    def test_step(self, batch: Batch, index: int) -> Any:
        """Scores a batch of the test split; callbacks may store what it returns."""
        return self._scored(batch)

    def predict_step(self, batch: Batch, index: int) -> Prediction:
        """Predicts without scoring."""
        return self.predict_batch(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation scores under ``val/<metric>``."""
        for name, subsets in self._finish(intervals=False).items():
            self.log(f"val/{name}", subsets["all"].value, prog_bar=name == self._headline, sync_dist=False)

    def on_test_epoch_end(self) -> None:
        """Keeps the scores, with their intervals, in ``self.scores``."""
        self.scores = self._finish(intervals=True)

    def _finish(self, *, intervals: bool) -> dict[str, dict[str, Score]]:
        assert self.evaluator is not None
        scores = self.evaluator.compute(intervals=intervals)
        self.evaluator.reset()
        return scores

    @property
    def _headline(self) -> str:
        assert self.evaluator is not None
        return self.evaluator.protocol.headline

    def configure_optimizers(self) -> Any:
        """Lightning's form of ``optimizer``."""
        optimizer, scheduler = self.optimizer()
        if scheduler is None:
            return optimizer
        given = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": given}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves frozen weights out: they are named in the record and rebuilt from their source."""
        checkpoint["state_dict"] = self.export()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fills the frozen weights back in, so that Lightning's strict loading holds."""
        self.load_export(checkpoint["state_dict"])
        checkpoint["state_dict"] = self.state_dict()


def adam_cosine(
    groups: Iterable[nn.Parameter] | list[dict[str, Any]], lr: float, epochs: int, final_lr: float = 1e-7
) -> tuple[torch.optim.Optimizer, Any]:
    """Adam with the learning rate annealed by a cosine from ``lr`` to ``final_lr`` over the epochs (Gaze-LLE)."""
    optimizer = torch.optim.Adam(groups, lr=lr)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, epochs), eta_min=final_lr)


def adam_one_cycle(groups: list[dict[str, Any]], lr: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Adam with a short warm-up and a cosine down to nothing, step by step: for trainings of an epoch or two."""
    optimizer = torch.optim.Adam(groups, lr=lr)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = max(steps, 8)
    warm = max(0.05, 2.5 / steps)  # torch divides by the length of the warm-up less one step
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=warm)
    return optimizer, {"scheduler": scheduler, "interval": "step"}


def trainable(module: nn.Module, where: Callable[[str], bool] = lambda _: True) -> list[nn.Parameter]:
    """The parameters that learn, of those whose name passes ``where``."""
    return [parameter for name, parameter in module.named_parameters() if parameter.requires_grad and where(name)]
