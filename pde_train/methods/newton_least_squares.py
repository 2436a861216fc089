"""Newton's method on the coefficients of a linear model, for nonlinear equations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pde_train import linear_system
from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.methods.least_squares import begun, by_unknown, solve
from pde_train.models.base import LinearForm
from pde_train.problem import Problem
from pde_train.spectra import finite_array
from pde_train.tracking.record import Record

HALVINGS = 12
"""How often a step that does not lower the residual is halved."""


@dataclass(frozen=True)
class NewtonLeastSquares(Method):
    """Gauss-Newton steps a + s with the minimum-norm solution of J s = -r by SVD, halved until |r| falls.

    J is the derivative of all residuals r by the coefficients a, assembled from the features as in `LeastSquares`.
    Steps end where |r| falls by less than `tolerance` of itself. A linear equation takes one step, and a second one
    that finds nothing left. Source: Nocedal and Wright, Numerical Optimization (2006), section 10.3.

    Attributes:
        steps: The largest number of steps.
        rcond: Singular values below rcond s_1 are left out.
        tolerance: The relative decrease of |r| below which the method ends.

    Raises:
        UsageError: A number is out of its range.
    """

    steps: int = 50
    rcond: float = 1e-13
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise UsageError(f"method.steps={self.steps} makes no step: expected a positive integer, such as 50")
        for name in ("rcond", "tolerance"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"method.{name}={getattr(self, name)} is no relative size: expected 0 <= {name} < 1")

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        model, batch = begun("newton_least_squares", problem)
        measured, seconds, step, why = diagnostics.steps(self.steps), 0.0, 0, ""
        while True:
            began = time.perf_counter()
            with torch.no_grad():
                jacobian, opposite = linear_system.assemble(
                    problem.pde, model.features, problem.differentiator, batch, coefficients=model.coefficients
                )
                seconds += time.perf_counter() - began
                loss = float(problem.loss(batch))
            record.log(step, {"loss": loss, "residual_held_out": problem.residual_held_out(), **problem.errors()})
            if step in measured or (why and self.steps in measured):
                diagnostics.measure(problem, batch, step, record, jacobian)
            if why:
                break
            began = time.perf_counter()
            fallen = self._step(problem, batch, model, jacobian, opposite)
            seconds += time.perf_counter() - began
            step += 1
            if fallen <= self.tolerance:
                why = f"no progress: the residual fell by {fallen:.0e} of itself, and method.tolerance={self.tolerance}"
            elif step == self.steps:
                why = f"budget: method.steps={self.steps}"
        record.tags["stopped"] = why
        record.log(step, {"seconds": seconds, "residual": problem.residual(batch)})
        return step, batch

    def _step(self, problem: Problem, batch: Batch, model: LinearForm, jacobian: Tensor, opposite: Tensor) -> float:
        """Change the coefficients by one step; the part of |r| by which it has fallen."""
        solution = torch.from_numpy(solve(finite_array(jacobian), finite_array(opposite), self.rcond))
        direction = by_unknown(solution, model).to(model.coefficients)
        before, start = float(torch.linalg.vector_norm(opposite)), model.coefficients.clone()
        with torch.no_grad():
            for halvings in range(HALVINGS):
                model.coefficients.copy_(start + direction / 2**halvings)
                after = float(torch.linalg.vector_norm(problem.residual_vector(problem.model, batch, rows="points")))
                if after < before:
                    return 1 - after / before
            model.coefficients.copy_(start)
        return 0.0
