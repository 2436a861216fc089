"""Linear least squares by SVD, for models that are linear in their parameters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pde_train import linear_system
from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.memory import check_memory
from pde_train.methods.base import Method
from pde_train.models.base import LinearForm
from pde_train.problem import Problem
from pde_train.progress import blocks
from pde_train.spectra import finite_array
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class LeastSquares(Method):
    """The minimum-norm solution of A a = f by SVD, without singular values below rcond s_1.

    A and f come from the same residuals that train networks (`linear_system.assemble`). The SVD works in float64.
    """

    rcond: float = 1e-14

    def __post_init__(self) -> None:
        if not 0 <= self.rcond < 1:
            raise UsageError(f"method.rcond={self.rcond} is no relative size: expected 0 <= rcond < 1, such as 1e-14")

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        model, batch = begun("least_squares", problem)
        start = time.perf_counter()
        with torch.no_grad():
            a, f = linear_system.assemble(
                problem.pde, model.features, problem.differentiator, batch, blocks("assembling")
            )
        solution = torch.from_numpy(solve(finite_array(a), finite_array(f), self.rcond))  # (k P, 1), unknown by unknown
        seconds = time.perf_counter() - start
        with torch.no_grad():
            model.coefficients.copy_(by_unknown(solution, model))
            left = torch.linalg.vector_norm(a @ model.coefficients.T.reshape(-1, 1) - f) / torch.linalg.vector_norm(f)
            loss = problem.loss(batch)
        record.log(0, {"seconds": seconds, "residual": float(left), "loss": float(loss)})
        if diagnostics.steps(0):
            diagnostics.measure(problem, batch, 0, record, a)
        return 0, batch


def begun(method: str, problem: Problem) -> tuple[LinearForm, Batch]:
    """What a method of least squares begins with: the features of the model, and the checked points.

    Args:
        method: The name of the method.
        problem: The problem.

    Returns:
        The linear form of the model, and the training points.

    Raises:
        UsageError: The model is not linear in its parameters, or there are mini-batches.
    """
    model = problem.linear_form
    if problem.pde.learned:
        raise UsageError(
            f"method={method} learns no number of a PDE, such as {next(iter(problem.pde.learned))}: expected a model "
            "that is trained, choose model=mlp and method=gradient_descent, or leave out pde.learn"
        )
    if model is None:
        raise UsageError(
            f"method={method} needs a model that is linear in its parameters, and "
            f"{type(problem.model).__name__} is not: choose model=random_features or method=gradient_descent"
        )
    if problem.sampler.batch_size:
        raise UsageError(
            f"method={method} takes all points at once, and sampler.batch_size={problem.sampler.batch_size} "
            "asks for some of them: expected 0, choose it or method=gradient_descent"
        )
    check_memory("the matrix of least squares", problem.sampler.total * model.coefficients.numel(), copies=4)
    batch = problem.draw(np.random.default_rng(problem.sampler.seed))
    problem.begin(batch)
    with torch.no_grad():  # once on few points, so that `seconds` does not count what torch loads at its first use
        few = {region: points.rows(0, 1) for region, points in batch.items()}
        linear_system.assemble(
            problem.pde, model.features, problem.differentiator, few, coefficients=model.coefficients
        )
    return model, batch


def by_unknown(solution: Tensor, model: LinearForm) -> Tensor:
    """A solution (k P, 1), unknown by unknown, in the shape (P, k) of the coefficients of a model."""
    return solution.reshape(model.coefficients.T.shape).T


def solve(a: np.ndarray, f: np.ndarray, rcond: float) -> np.ndarray:
    """The minimum-norm least-squares solution (P, 1) of a (N, P) x = f (N, 1), without singular values <= rcond s_1."""
    left, values, right = np.linalg.svd(a, full_matrices=False)
    kept = values > rcond * values[0]
    solution: np.ndarray = right[kept].T @ ((left[:, kept].T @ f) / values[kept, None])
    return solution
