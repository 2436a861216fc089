"""What is to be solved: an equation, a model, a way of taking derivatives and the points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pde_train import residuals
from pde_train.derivatives import Field, Jet
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.geometry import Batch
from pde_train.pdes.base import PDE
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid

TEST_POINTS = {1: 1001, 2: 101**2}
"""Uniform points on which errors are measured, by dimension."""


@dataclass
class Problem:
    """A PDE, the model of its solution, the differentiator and the sampler, in one precision on one device."""

    pde: PDE
    model: nn.Module
    differentiator: Differentiator
    sampler: Sampler
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def draw(self, generator: np.random.Generator) -> Batch:
        """Training points from the sampler."""
        return self._placed(self.sampler.draw(self.pde.domain, generator))

    @cached_property
    def test_batch(self) -> Batch:
        """The uniform points on which errors and exact residuals are measured: 1001, or 101 x 101."""
        dimension = self.pde.domain.dimension
        interior = TEST_POINTS.get(dimension, 7**dimension)
        boundary = 2 * dimension * (101 if dimension == 2 else 5 ** (dimension - 1))
        return self._placed(Grid(interior, boundary).draw(self.pde.domain, np.random.default_rng(0)))

    def exact(self, x: Tensor) -> Tensor:
        """The exact solution (n, 1) at points (n, d)."""
        return self.pde.exact(Jet({c: x[:, i : i + 1] for i, c in enumerate(self.pde.coordinates)}))

    def residual_vector(self, u: Field, batch: Batch) -> Tensor:
        """All weighted residuals of a field under each other, (rows, 1)."""
        return residuals.stacked(residuals.evaluate(self.pde, u, self.differentiator, batch))

    def errors(self) -> dict[str, float]:
        """error_l2 = |u - u*|_2 / |u*|_2 and error_max = max|u - u*| / max|u*| on the test points."""
        x = self.test_batch["interior"].x
        with torch.no_grad():
            exact = self.exact(x)
            difference = self.model(x) - exact
        return {
            "error_l2": float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(exact)),
            "error_max": float(difference.abs().max() / exact.abs().max()),
        }

    def residual(self, batch: Batch) -> float:
        """The relative residual of the model on the training points, as the run's own differentiator sees it."""
        with torch.no_grad():
            return residuals.relative_residual(self.pde, self.model, self.differentiator, batch)

    def residual_exact(self) -> float:
        """The relative residual of the same function with exact derivatives, on the test points."""
        with torch.no_grad():
            return residuals.relative_residual(self.pde, self.model, Reverse(), self.test_batch)

    def _placed(self, batch: Batch) -> Batch:
        return {region: points.to(dtype=self.dtype, device=self.device) for region, points in batch.items()}
