"""Optimizers and schedules that torch does not bring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Keller Jordan's Muon in float32, with matrices of one shape at a time.

    ``torch.optim.Muon`` takes them one by one and orthogonalises in bfloat16, which CPUs without matrix units do some
    ten times more slowly than float32. Constants and update are the same.

    Args:
        params: two-dimensional parameters.
        lr: times the square root of rows by columns where there are more rows.
        weight_decay: decoupled.
        momentum: Nesterov's.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)
    STEPS = 5

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        odd = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]
        if odd:
            raise ValueError(f"Muon is for matrices, got {odd[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in alike.items():
                moved = []
                for parameter in parameters:
                    assert parameter.grad is not None
                    state = self.state[parameter]
                    average = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                    average.lerp_(parameter.grad, 1 - group["momentum"])
                    moved.append(parameter.grad.lerp(average, group["momentum"]))
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                for parameter, update in zip(parameters, self._orthogonal(torch.stack(moved)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.to(parameter), alpha=rate)
        return loss

    @classmethod
    def _orthogonal(cls, updates: torch.Tensor) -> torch.Tensor:
        """(N, rows, columns), each nearly orthogonalised by Newton and Schulz's iteration."""
        wide = updates.float() if updates.shape[1] <= updates.shape[2] else updates.float().mT
        wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
        a, b, c = cls.COEFFICIENTS
        for _ in range(cls.STEPS):
            gram = wide @ wide.mT
            wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        return wide if updates.shape[1] <= updates.shape[2] else wide.mT


class MuonAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for everything else, as one optimizer.

    Small transformers trained from scratch learn to read a picture in minutes with it and not with AdamW alone.

    Args:
        matrices: two-dimensional parameters, none of them an embedding.
        others: parameter groups of AdamW, each with its rate.
        lr: of the matrices.
        weight_decay: of all.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0
    ) -> None:
        self.muon = Muon(matrices, lr, weight_decay)
        self.adamw = torch.optim.AdamW(list(others), weight_decay=weight_decay)
        # The very groups of the two: whoever changes a rate here changes it there.
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where ``state_dict`` was taken."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """The weights of a module's learning linear layers, but for one that shares an embedding's or makes logits."""
    embeddings = {id(each.weight) for each in module.modules() if isinstance(each, nn.Embedding)}
    linear = [each for name, each in module.named_modules() if isinstance(each, nn.Linear) and "lm_head" not in name]
    weights = [parameter for each in linear for name, parameter in each.named_parameters() if name == "weight"]
    return [weight for weight in weights if weight.requires_grad and id(weight) not in embeddings]


def warm_cosine(optimizer: torch.optim.Optimizer, steps: int, warm: float = 0.03, floor: float = 0.0) -> dict[str, Any]:
    """Lightning's schedule, step by step: a linear warm-up over a share of the steps, then a cosine down to a floor.

    Args:
        optimizer: whose groups all get the same factor of their own rates.
        steps: in all.
        warm: share of the steps.
        floor: the last factor.
    """
    rising = max(1, round(warm * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        done = min(1.0, (step - rising) / max(1, steps - rising))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"}


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
