"""Weights that bring the terms of the loss to the same size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.residuals import mean_square
from pde_train.weighting.base import Weighting, Weights, constructed, loss_gradients, plain_residuals

ROUNDINGS = 10
"""Residuals of so many roundings of 1 are none."""

DOUBTFUL = 1e6
"""Residuals of fewer roundings of 1 may be those of a high derivative: their gradients tell whether they are."""


@dataclass(frozen=True)
class Balance(Weighting):
    """w_e <- w_e (m / (w_e L_e))^rate, where m is the geometric mean of all w_j L_j (after DSGNAR, arXiv 2607.02194).

    The product of all weights stays 1. A term that holds by construction, such as a seam between periodic coordinates,
    keeps its weight: one whose root mean square is below ROUNDINGS roundings of 1, or whose gradient is, see
    `constructed`.

    Attributes:
        rate: How fast weights follow; 1 makes all terms equal at once.

    Raises:
        UsageError: A number is out of range.
    """

    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise UsageError(f"weighting.rate={self.rate} is no rate: expected 0 < rate <= 1, such as 0.05")

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        with torch.no_grad():
            eps = torch.finfo(problem.dtype).eps
            sizes = {name: mean_square(residual) for name, residual in plain_residuals(problem, batch).items()}
            kept = {name for name, size in sizes.items() if size <= (ROUNDINGS * eps) ** 2}
            if any(size <= (DOUBTFUL * eps) ** 2 for name, size in sizes.items() if name not in kept):
                kept |= constructed(loss_gradients(problem, batch)[1])
            terms = {name: weights[name] * size for name, size in sizes.items() if name not in kept}
            if not terms:
                return weights
            mean = torch.stack(list(terms.values())).log().mean().exp()
            return {**weights, **{name: weights[name] * (mean / term) ** self.rate for name, term in terms.items()}}
