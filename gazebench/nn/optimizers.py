"""Optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

NEWTON_SCHULZ: Final = (3.4445, -4.7750, 2.0315)


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but with Keller Jordan's Muon for the matrices of parameter groups that have ``muon=True``.

    With it, small transformers trained from scratch learn to read an image within minutes; with AdamW alone they do
    not. The update is that of ``torch.optim.Muon``: Nesterov momentum, five Newton-Schulz iterations, and a learning
    rate multiplied by sqrt(rows / columns) where there are more rows than columns.
    """

    # torch.optim.Muon takes 4 to 17 times as long on CPUs: it computes one matrix at a time, in bfloat16.

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"] if group.get("muon") else ():
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
                    gradients.append((parameter, parameter.grad))
            for parameters in by_shape.values():
                self._muon_step(parameters, group["lr"], group["weight_decay"])
        for parameter, _ in gradients:  # AdamW passes over parameters without a gradient
            parameter.grad = None
        super().step()
        for parameter, gradient in gradients:
            parameter.grad = gradient
        return loss

    def _muon_step(self, parameters: list[nn.Parameter], lr: float, decay: float, momentum: float = 0.95) -> None:
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:  # AdamW expects a step wherever a state is loaded
                state |= {"step": torch.tensor(0.0), "momentum_buffer": torch.zeros_like(parameter)}
            average = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(average, momentum))
        rows, columns = parameters[0].shape
        rate = lr * math.sqrt(max(1, rows / columns))
        for parameter, update in zip(parameters, orthogonalised(torch.stack(directions)), strict=True):
            parameter.mul_(1 - lr * decay).sub_(update.to(parameter), alpha=rate)


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """(N, rows, columns) -> float32 of the same shape: the nearest orthogonal matrices, approximately."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.float().mT if tall else matrices.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def adamw_or_muon(
    name: str, groups: Iterable[dict[str, Any]], model: nn.Module, lr_muon: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over parameter groups; ``muon`` uses Muon for the weights of the model's linear layers.

    Args:
        name: ``adamw`` or ``muon``.
        groups: each with ``params`` and ``lr``; empty ones are left out.
        model: the model whose linear layers use Muon.
        lr_muon: learning rate of the matrices.
        weight_decay: decoupled weight decay of all parameters.
    """
    matrices = linear_weights(model) if name == "muon" else []
    chosen = {id(matrix) for matrix in matrices}
    rest = [{**group, "params": [p for p in group["params"] if id(p) not in chosen]} for group in groups]
    of_muon = [{"params": matrices, "lr": lr_muon, "muon": True}]
    return MuonAdamW([group for group in of_muon + rest if group["params"]], weight_decay=weight_decay)


def linear_weights(model: nn.Module) -> list[Tensor]:
    """The trainable weights of linear layers, except output layers and weights shared with an embedding."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name
        if module.weight.requires_grad and id(module.weight) not in embeddings
    ]


def warm_cosine(optimizer: torch.optim.Optimizer, steps: int, warm: float = 0.03) -> dict[str, Any]:
    """A schedule in Lightning's form: a linear warm-up over the share ``warm`` of the steps, then a cosine to 0."""
    # transformers' get_cosine_schedule_with_warmup has a rate of 0 in the first step, which then changes no weight.
    rising = max(1, round(warm * steps))
    warm_up = LinearLR(optimizer, 1 / rising, total_iters=rising - 1)
    cosine = CosineAnnealingLR(optimizer, max(1, steps - rising))
    return {"scheduler": SequentialLR(optimizer, [warm_up, cosine], [rising]), "interval": "step"}


def adam_cosine(
    params: Iterable[nn.Parameter] | list[dict[str, Any]], lr: float, epochs: int, final_lr: float = 1e-7
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam whose learning rate falls from ``lr`` to ``final_lr`` by a cosine, stepped once an epoch (Gaze-LLE)."""
    optimizer = torch.optim.Adam(params, lr=lr)
    return optimizer, CosineAnnealingLR(optimizer, T_max=max(1, epochs), eta_min=final_lr)


def adam_one_cycle(groups: list[dict[str, Any]], lr: float, steps: int) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """Adam and torch's one-cycle schedule in Lightning's form, over ``steps`` steps, for an epoch or two.

    The highest learning rate of a group is its own ``lr``, or the argument.
    """
    optimizer = torch.optim.Adam(groups, lr=lr)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = max(steps, 8)
    warm = max(0.05, 2.5 / steps)  # OneCycleLR divides by the warm-up's length in steps less one
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=warm)
    return optimizer, {"scheduler": scheduler, "interval": "step"}


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
