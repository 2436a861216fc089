"""Weights that let later times wait for earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pde_train.derivatives import TIME
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, Weights, plain_residuals


@dataclass(frozen=True)
class Causal(Weighting):
    """w(t) = exp(-steepness sum of L(t') over earlier slabs t' < t), for each equation in the interior.

    L(t') is the mean square of the residual in one of `slabs` equal parts of the time interval (Wang, Sankaran,
    Perdikaris, Comput. Methods Appl. Mech. Eng. 421, 2024, equation 3.9). The first slab has the weight 1.

    Attributes:
        slabs: The number of parts of the time interval.
        steepness: How small earlier losses must be.

    Raises:
        UsageError: A number is out of range, or the PDE has no time.
    """

    slabs: int = 16
    steepness: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slabs < 2:
            raise UsageError(f"weighting.slabs={self.slabs} has no earlier and later: expected at least 2, such as 16")
        if not self.steepness > 0:
            raise UsageError(f"weighting.steepness={self.steepness} weighs nothing: expected a positive number")

    def check(self, problem: Problem, redrawn: bool) -> None:
        if TIME not in problem.pde.coordinates:
            raise UsageError(
                f"weighting=causal follows time, and {type(problem.pde).__name__} has the coordinates "
                f"{', '.join(problem.pde.coordinates)}: expected one called {TIME}, choose weighting=fixed"
            )

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        axis = problem.pde.coordinates.index(TIME)
        lower, length = problem.pde.domain.lower[axis], float(problem.pde.domain.lengths[axis])
        time = batch["interior"].x[:, axis]
        slab = ((time - lower) / length * self.slabs).long().clamp(0, self.slabs - 1)
        updated = dict(weights)
        with torch.no_grad():
            squares = {name: r.square().sum(dim=1) for name, r in plain_residuals(problem, batch).items()}
            for equation in problem.pde.equations():
                if equation.region != "interior":
                    continue
                sums = time.new_zeros(self.slabs).index_add(0, slab, squares[equation.name])
                counts = time.new_zeros(self.slabs).index_add(0, slab, torch.ones_like(time))
                means = sums / counts.clamp(min=1)
                earlier = means.cumsum(0) - means
                updated[equation.name] = torch.exp(-self.steepness * earlier)[slab].unsqueeze(1)
        return updated
