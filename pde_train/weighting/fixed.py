"""Weights that stay."""

from __future__ import annotations

from dataclasses import dataclass

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, Weights


@dataclass(frozen=True)
class Fixed(Weighting):
    """The weight 1 for every equation, beside those of `pde.weights`."""

    @property
    def fixed(self) -> bool:
        return True

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        return weights
