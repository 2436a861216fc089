"""Weights that give the neural tangent kernels of all equations the same trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pde_train import residuals
from pde_train.errors import UsageError
from pde_train.geometry import Batch, without_factors
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, Weights, check_momentum, equalising

BLOCK = 256
"""Points whose rows of the Jacobian are in memory at once."""


@dataclass(frozen=True)
class NTK(Weighting):
    """w_e = sum_j tr K_j / tr K_e (Wang, Yu, Perdikaris, J. Comput. Phys. 449, 2022, equation 6.5), smoothed.

    K_e = J_e J_e^T / n_e is the true kernel of the mean square of equation e: its trace is the mean squared norm of the
    gradient of one residual, and not the squared norm of the gradient of the loss. A term that holds by construction
    keeps its weight, see `constructed`.

    Attributes:
        momentum: The part of the old weights that is kept.

    Raises:
        UsageError: A number is out of range.
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_momentum(self.momentum)

    def check(self, problem: Problem, redrawn: bool) -> None:
        if not problem.differentiator.deterministic:
            raise UsageError(
                f"weighting=ntk takes gradients point by point, and {type(problem.differentiator).__name__} draws "
                "other directions each time: expected derivatives that stay, such as differentiator=taylor, or another "
                "weighting"
            )

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        sizes = traces(problem, batch)
        return equalising(sizes, {name: trace.sqrt() for name, trace in sizes.items()}, weights, self.momentum)


def traces(problem: Problem, batch: Batch) -> dict[str, Tensor]:
    """The trace of the kernel of each equation, with its weight in `pde.weights` alone.

    Args:
        problem: The problem.
        batch: The training points.

    Returns:
        The mean over points of the squared norm of the residual's gradient by the parameters, a scalar each.
    """
    parameters = {k: p.detach() for k, p in problem.model.named_parameters() if p.requires_grad}
    sums: dict[str, Tensor] = {}
    for region, points in without_factors(batch).items():
        for start in range(0, len(points.x), BLOCK):
            part = {region: points.rows(start, start + BLOCK)}
            rows = residuals.jacobian_by_points(problem.pde, problem.model, parameters, problem.differentiator, part)
            for name, jacobian in rows.items():
                sums[name] = sums.get(name, 0) + jacobian.detach().square().sum() / len(points.x)
    return {e.name: sums[e.name] for e in problem.pde.equations()}
