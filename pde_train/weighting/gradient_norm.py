"""Weights that make the gradients of all equations equally long."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.residuals import mean_square
from pde_train.weighting.base import Weighting, Weights, check_momentum, equalising, plain_residuals


@dataclass(frozen=True)
class GradientNorm(Weighting):
    """w_e = sum_j |grad L_j| / |grad L_e|, as a moving average (Wang, Sankaran, Wang, Perdikaris 2023, algorithm 1).

    A term that holds by construction keeps its weight, see `equalising`.

    Attributes:
        momentum: The part of the old weights that is kept.

    Raises:
        UsageError: A number is out of range.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_momentum(self.momentum)

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        parameters = [p for p in problem.model.parameters() if p.requires_grad]
        norms, by_residual = {}, {}
        with torch.enable_grad():
            for name, residual in plain_residuals(problem, batch).items():
                loss = mean_square(residual)
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
                norms[name] = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
                by_residual[name] = norms[name] / loss.detach().sqrt().clamp(min=torch.finfo(loss.dtype).tiny)
        return equalising(norms, by_residual, weights, self.momentum)
