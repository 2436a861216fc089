"""The steps of torch's optimisers as pure functions of vectors, which are compiled together with the gradient."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pde_train.optimizers.base import REMEMBERED, Parameters, Update, flat, write


class AdamUpdate(Update):
    """torch.optim.Adam."""

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        group = optimizer.param_groups[0]
        numbers = [float(v) for v in (group["lr"], *group["betas"], group["eps"])]
        return torch.tensor(numbers, dtype=torch.float64, device=group["params"][0].device)

    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        point, states = flat(parameters), [optimizer.state[p] for p in parameters]
        if not states[0]:
            zeros = torch.zeros_like(point)
            return [point, zeros, zeros.clone(), zeros.new_zeros((), dtype=torch.float64)]
        mean, square = (torch.cat([s[key].flatten() for s in states]) for key in ("exp_avg", "exp_avg_sq"))
        return [point, mean, square, states[0]["step"].to(mean.device, torch.float64)]

    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        point, mean, square, step = state
        lr, beta_1, beta_2, eps = hyper.unbind()
        step = step + 1
        mean = mean + (1 - beta_1) * (gradient - mean)
        square = beta_2 * square + (1 - beta_2) * gradient * gradient
        scale = square.sqrt() / (1 - beta_2**step).sqrt() + eps
        return [point - lr / (1 - beta_1**step) * mean / scale, mean, square, step]

    def put_back(self, optimizer: torch.optim.Optimizer, parameters: Parameters, state: Sequence[Tensor]) -> None:
        point, mean, square, step = state
        write(parameters, point)
        sizes = [p.numel() for p in parameters]
        for parameter, first, second in zip(parameters, mean.split(sizes), square.split(sizes), strict=True):
            optimizer.state[parameter] = {
                "step": step.to("cpu", torch.float32, copy=True),
                "exp_avg": first.view_as(parameter),
                "exp_avg_sq": second.view_as(parameter),
            }


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
