"""The step of Adam as a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pde_train.optimizers.base import Parameters, Update, flat, write


class AdamUpdate(Update):
    """torch.optim.Adam."""

    @staticmethod
    def beginning(point: Tensor) -> list[Tensor]:
        """The means of the gradient and its square (p,), and the number of steps, before the first step."""
        zeros = torch.zeros_like(point)
        return [zeros, zeros.clone(), zeros.new_zeros((), dtype=torch.float64)]

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        group = optimizer.param_groups[0]
        numbers = [float(v) for v in (group["lr"], *group["betas"], group["eps"])]
        return torch.tensor(numbers, dtype=torch.float64, device=group["params"][0].device)

    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        point, states = flat(parameters), [optimizer.state[p] for p in parameters]
        if not states[0]:
            return [point, *self.beginning(point)]
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
