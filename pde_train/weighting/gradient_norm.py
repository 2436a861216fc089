"""Weights that make the gradients of all equations equally long."""

from __future__ import annotations

from dataclasses import dataclass

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, Weights, check_momentum, equalising, loss_gradients


@dataclass(frozen=True)
class GradientNorm(Weighting):
    """w_e = sum_j |grad L_j| / |grad L_e|, as a moving average (Wang, Sankaran, Wang, Perdikaris 2023, algorithm 1).

    A term that holds by construction keeps its weight, see `constructed`.

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
        return equalising(*loss_gradients(problem, batch), weights, self.momentum)
