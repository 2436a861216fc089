"""The base class of weightings, and what several of them measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pde_train import residuals
from pde_train.errors import UsageError
from pde_train.geometry import Batch, without_factors
from pde_train.problem import Problem

Weights = Mapping[str, Tensor]
"""The weight of each equation by name: a scalar, or a column (n, 1) with one for each of its points."""

ROUNDINGS = 100
"""A gradient of a residual that is below so many roundings of the largest one is none."""


@dataclass(frozen=True)
class Weighting(ABC):
    """Changes the weights of the terms of the loss.

    Attributes:
        every: The number of steps between two changes.

    Raises:
        UsageError: It is not positive.
    """

    every: int = 100

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"weighting.every={self.every} is no number of steps: expected a positive integer")

    @property
    def fixed(self) -> bool:
        """Whether weights stay as they are."""
        return False

    def check(self, problem: Problem, redrawn: bool) -> None:  # noqa: B027  # most serve every problem
        """Refuse a problem for which the weights make no sense.

        Args:
            problem: The problem.
            redrawn: Whether other points will be drawn during training.

        Raises:
            UsageError: They make none.
        """

    @abstractmethod
    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        """The next weights.

        Args:
            problem: With the model as it is now.
            batch: The training points.
            weights: The weights so far; 1 at the start.

        Returns:
            The weights.
        """


def initial(problem: Problem) -> Weights:
    """The weight 1 for every equation."""
    return {e.name: torch.ones((), dtype=problem.dtype, device=problem.device) for e in problem.pde.equations()}


def weighted(problem: Problem, batch: Batch, weights: Weights) -> Batch:
    """A batch whose residuals are multiplied by the square roots of weights."""
    changed = dict(batch)
    for region, (equations, _) in problem.pde.regions.items():
        points = batch[region]
        columns = [weights[e.name].sqrt().expand(len(points.x), 1) for e in equations]
        changed[region] = replace(points, factors=torch.cat(columns, dim=1))
    return changed


def column(problem: Problem, batch: Batch, weight: Tensor, equation: str) -> Tensor:
    """A weight as one column (n, 1), a number for each point of its equation."""
    region = next(e.region for e in problem.pde.equations() if e.name == equation)
    return weight.expand(len(batch[region].x), 1)


def plain_residuals(problem: Problem, batch: Batch) -> dict[str, Tensor]:
    """The residual (n, k) of each equation, times its weight in `pde.weights` alone; differentiable by parameters."""
    return residuals.evaluate(problem.pde, problem.model, problem.differentiator, without_factors(batch))


def loss_gradients(problem: Problem, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The length of the gradient of each term L_e by the parameters, as it is and divided by sqrt(L_e).

    Args:
        problem: The problem.
        batch: The training points.

    Returns:
        |grad L_e| and |grad L_e| / sqrt(L_e) for each equation, scalars.
    """
    parameters = [p for p in problem.model.parameters() if p.requires_grad]
    lengths, by_residual = {}, {}
    with torch.enable_grad():
        for name, residual in plain_residuals(problem, batch).items():
            loss = residuals.mean_square(residual)
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            lengths[name] = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            by_residual[name] = lengths[name] / loss.detach().sqrt().clamp(min=torch.finfo(loss.dtype).tiny)
    return lengths, by_residual


def constructed(gradients: Mapping[str, Tensor]) -> set[str]:
    """The terms that hold by construction, such as a seam between periodic coordinates, or are 0.

    Args:
        gradients: About how long the gradient of the residual of each term by the parameters is, a scalar each.

    Returns:
        The names of those whose residual depends on the parameters by rounding alone.
    """
    largest = torch.stack(list(gradients.values())).max()
    least = ROUNDINGS * torch.finfo(largest.dtype).eps * largest
    return {name for name, gradient in gradients.items() if gradient <= least}


def equalising(sizes: Mapping[str, Tensor], gradients: Mapping[str, Tensor], old: Weights, momentum: float) -> Weights:
    """Weights sum_j s_j / s_e, which give terms of the sizes s the same one, as a moving average.

    Args:
        sizes: The size of each term, a scalar each.
        gradients: Those by which terms that keep their weights are found, see `constructed`.
        old: The weights so far.
        momentum: The part of them that is kept.

    Returns:
        The weights.
    """
    total, kept = torch.stack(list(sizes.values())).sum(), constructed(gradients)
    terms = {name: total / size for name, size in sizes.items() if name not in kept}
    return {**old, **{name: momentum * old[name] + (1 - momentum) * term for name, term in terms.items()}}


def check_momentum(momentum: float) -> None:
    """Refuse a moving average that never moves.

    Args:
        momentum: The part of the old weights that is kept.

    Raises:
        UsageError: It is not in [0, 1).
    """
    if not 0 <= momentum < 1:
        raise UsageError(f"weighting.momentum={momentum} is no part of old weights: expected 0 <= momentum < 1")
