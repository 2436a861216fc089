"""Gauss-Newton with damping: Levenberg-Marquardt, trust-radius ladder, or line search, on residual rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.memory import check_memory
from pde_train.methods.trained import Trained
from pde_train.optimizers.gauss_newton import GaussNewton as Optimizer
from pde_train.problem import Problem
from pde_train.tracking.record import Record
from pde_train.training.training import Training

COPIES = 6
"""Matrices of the size of the Jacobian that a step has in memory."""

FEW_POINTS = 8
"""Points of each region at which the Jacobian is looked at before the first step."""

SQUARE = (0.75, 1.33)
"""Residual rows for each parameter that make a nearly square system."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Trained):
    """`steps` damped Gauss-Newton steps on the rows of the residual, whose squares sum up to the loss.

    Attributes:
        steps: The number of steps.
        damping: `nielsen`, `ladder` or `fixed`, see `pde_train.optimizers.gauss_newton`.
        initial: The first damping, or the fixed one, relative to the largest squared norm of a column of the Jacobian.
        solver: `auto`, `svd`, `qr`, `cholesky`, `dual`, `cg` or `sketched`, see `pde_train.optimizers.damped`.
        momentum: The part of the last step that is taken again (SPRING); 0 for none.
        sketch: The size of the subspace of `sketched`, relative to the number of parameters.
        seed: The seed of random directions of `cg` and `sketched`.
        first_precision: `float32` for a first round whose decompositions are computed in it; None for none.
        linear_algebra: `float64` for decompositions in float64 of a Jacobian in float32; None for its own precision.

    Raises:
        UsageError: A value, or a model, that cannot be used.
    """

    damping: str = "nielsen"
    initial: float = 1e-3
    solver: str = "auto"
    momentum: float = 0.0
    sketch: float = 0.5
    seed: int = 0
    first_precision: str | None = None
    linear_algebra: str | None = None

    def training(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> Training:
        parameters = sum(p.numel() for p in problem.model.parameters() if p.requires_grad)
        sampler = problem.sampler
        counts = {"interior": sampler.total, "initial": sampler.initial}
        rows = sum(counts.get(e.region, sampler.boundary) for e in problem.pde.equations())
        columns = round(self.sketch * parameters) if self.solver == "sketched" else parameters
        if self.solver != "cg":
            numbers = rows * columns + min(rows, columns) ** 2 + (parameters * columns if columns < parameters else 0)
            check_memory("the Jacobian of method=gauss_newton", numbers, copies=COPIES)
        optimizer = partial(
            Optimizer,
            damping=self.damping,
            initial=self.initial,
            solver=self.solver,
            momentum=self.momentum,
            sketch=self.sketch,
            seed=self.seed,
            first_precision=self.first_precision,
            linear_algebra=self.linear_algebra,
        )
        training = Training(problem, record, diagnostics, optimizer, self.plan(), folder)
        _check_derivatives(problem, training.points.batch)
        rows = sum(len(training.points.batch[e.region].x) for e in problem.pde.equations())
        if SQUARE[0] * parameters <= rows <= SQUARE[1] * parameters:
            log.warning(
                "%d residual rows for %d parameters are nearly a square system, which Gauss-Newton interpolates: the "
                "loss falls to rounding whatever the function does between the points; take 2 to 4 times as many "
                "points, and compare residual_held_out",
                rows,
                parameters,
            )
        return training


def _check_derivatives(problem: Problem, batch: Batch) -> None:
    """Refuse a model whose derivatives by its parameters lead nowhere."""
    few = {region: points.rows(0, FEW_POINTS) for region, points in batch.items()}
    jacobian = problem.jacobian(few).dense()
    if not (bool(jacobian.isfinite().all()) and bool(jacobian.any())):
        raise UsageError(
            f"the derivatives of the residual by the parameters of {type(problem.model).__name__} are 0 or not finite: "
            "expected a model that is differentiable in its parameters, choose another one"
        )
