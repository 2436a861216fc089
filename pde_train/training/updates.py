"""The steps of torch's optimisers as pure functions of vectors, which are compiled together with the gradient."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pde_train.optimizers.adam import AdamUpdate
from pde_train.optimizers.base import REMEMBERED, Parameters, Update, flat, write


class DescentUpdate(Update):
    """torch.optim.SGD without momentum: gradient descent."""

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        group = optimizer.param_groups[0]
        return torch.tensor([float(group["lr"])], dtype=torch.float64, device=group["params"][0].device)

    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        return [flat(parameters)]

    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        return [state[0] - hyper[0] * gradient]

    def put_back(self, optimizer: torch.optim.Optimizer, parameters: Parameters, state: Sequence[Tensor]) -> None:
        write(parameters, state[0])


STATES: tuple[set[str], ...] = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}, {REMEMBERED}, set())
"""What the optimisers that have an update here keep of a parameter; nothing before their first step."""


def update_of(optimizer: torch.optim.Optimizer) -> Update | None:
    """The pure function of an optimiser, where it has one here that does all that the optimiser does."""
    if len(optimizer.param_groups) != 1 or changed(optimizer):
        return None
    group: dict[str, Any] = optimizer.param_groups[0]
    options = ("weight_decay", "decoupled_weight_decay", "amsgrad", "momentum", "maximize", "differentiable")
    if any(group.get(name) for name in options):
        return None
    if type(optimizer) is torch.optim.Adam:
        return AdamUpdate()
    if type(optimizer) is torch.optim.SGD:
        return DescentUpdate()
    own = getattr(optimizer, "update", None)
    return own if isinstance(own, Update) else None


def update_for(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> Update | None:
    """The pure function of an optimiser that has just these parameters, in this order."""
    own = [p for group in optimizer.param_groups for p in group["params"]]
    whole = len(own) == len(parameters) and all(map(operator.is_, own, parameters))
    return update_of(optimizer) if whole else None


def changed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether something changes what the optimiser does or remembers: hooks, a scheduler, an unknown state."""
    base = sys.modules[torch.optim.Optimizer.__module__]  # which hides behind its class
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        base._global_optimizer_pre_hooks,
        base._global_optimizer_post_hooks,
    )
    scheduled = "step" in vars(optimizer) or any("initial_lr" in group for group in optimizer.param_groups)
    unknown = any(set(state) not in STATES for state in optimizer.state.values())
    return any(hooks) or scheduled or unknown


def scaled(hyper: Tensor, rates: Tensor | None, count: int) -> list[Tensor]:
    """The numbers of an optimiser in each of `count` steps, with the learning rate, the first of them, times a factor.

    Args:
        hyper: The numbers (..., k).
        rates: The factors (..., count); None for 1.
        count: The number of steps.

    Returns:
        The numbers of each step.
    """
    if rates is None:
        return [hyper] * count
    changed_numbers = hyper.unsqueeze(0).repeat(count, *[1] * hyper.dim())
    changed_numbers[..., 0] *= rates.to(hyper).movedim(-1, 0)
    return list(changed_numbers.unbind())


def clipped(gradient: Tensor, largest: float | None) -> Tensor:
    """A gradient (p,) that is no longer than `largest`, as torch.nn.utils.clip_grad_norm_ makes it."""
    if largest is None:
        return gradient
    shortened: Tensor = gradient * (largest / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1.0)
    return shortened
