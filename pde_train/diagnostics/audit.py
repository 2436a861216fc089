"""Does a trained function solve the equation, or only what its differentiator sees at the training points?"""

from __future__ import annotations

import copy
import logging
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from pde_train.derivatives import Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import PdeTrainError, UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem, steady_draws

FEW_FEATURES = 4
"""A linear model whose features have the solution among the combinations of so many has been given the solution."""

FEW_POINTS, FEW_DERIVATIVES = 8, 12
"""Test points, and derivatives, at which the differentiator is compared with an independent exact one."""

MANY_DIMENSIONS = 6
"""From so many on a sum such as lap u is compared by a few of its terms."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """What is measured once after every run, whatever its differentiator.

    Attributes:
        factor: A run is flagged as unresolved when an exact residual exceeds the residual that was
            trained by more than this factor. Training has then made something small that is not the
            equation, such as what a wrong function leaves between the points of a stencil, or between
            those of training. None for no audit.

    Raises:
        UsageError: A factor below 1, or no number.
    """

    factor: float | None = 100.0

    def __post_init__(self) -> None:
        number = isinstance(self.factor, (int, float)) and not isinstance(self.factor, bool)
        if self.factor is not None and not (number and self.factor >= 1):
            raise UsageError(f"audit.factor={self.factor} flags nothing well: expected a number >= 1, or null for none")

    def metrics(self, problem: Problem, batch: Batch, trained: float) -> dict[str, float]:
        """Measure a run that has ended.

        Args:
            problem: With the parameters that the run found.
            batch: The last training points.
            trained: The relative residual on them as the run's own differentiator sees it.

        Returns:
            ``audit/on_points`` and ``audit/between_points``: relative residuals with exact derivatives,
            on the training points and on held-out points; ``audit/ratio``: the larger one divided by
            `trained`; ``audit/derivatives``: see `derivative_error`; ``audit/features``, for models that are
            linear in their parameters: see `error_of_few_features`. Nothing where `factor` is None.
        """
        if self.factor is None:
            return {}
        on, between = problem.residual_exact(batch), problem.residual_exact(problem.held_out())
        worst = max(on, between)
        numbers = {
            "audit/on_points": on,
            "audit/between_points": between,
            "audit/ratio": worst / trained if trained else math.inf if worst else 1.0,
            "audit/derivatives": derivative_error(problem),
        }
        few = error_of_few_features(problem)
        return numbers if few is None else {**numbers, "audit/features": few}


def error_of_few_features(problem: Problem) -> float | None:
    """How far the exact solution is from the combinations of at most FEW_FEATURES features of a linear model.

    The features are chosen one after another by orthogonal matching pursuit (Pati, Rezaiifar, Krishnaprasad, 1993).

    Args:
        problem: With a model of any kind.

    Returns:
        The relative L2 error of the best combination on the test points, in float64; of several unknowns, the
        smallest of theirs. None where the model is not linear in its parameters, or the solution is not known or 0.
    """
    model = problem.linear_form
    if model is None or not problem.pde.has_exact:
        return None
    with torch.no_grad():
        columns, solutions = model.features(problem.test_batch["interior"].x).double(), problem.exact_on_test_points
    directions = torch.nan_to_num(columns / torch.linalg.vector_norm(columns, dim=0))
    distances = [_pursued(directions, solution) for solution in solutions.split(1, dim=1) if bool(solution.any())]
    return min(distances, default=None)


def _pursued(directions: Tensor, solution: Tensor) -> float:
    """The relative distance of a column (n, 1) from the combinations of FEW_FEATURES of some unit columns (n, P)."""
    rest, chosen = solution, []
    for _ in range(min(FEW_FEATURES, directions.shape[1])):
        chosen.append(int((directions.T @ rest).abs().argmax()))
        basis, _ = torch.linalg.qr(directions[:, chosen])
        rest = solution - basis @ (basis.T @ solution)
    return float(torch.linalg.vector_norm(rest) / torch.linalg.vector_norm(solution))


def derivative_error(problem: Problem) -> float:
    """The largest relative difference between the run's derivatives and exact ones, at a few test points.

    The exact derivatives are those of nested reverse mode. For a run in reverse mode they are those of
    Taylor mode or, up to order 2, where the model has an operation without a Taylor rule, central
    differences of accuracy 8. Forward mode does not serve: torch's nested jvp is wrong for some
    operations.

    Args:
        problem: With the parameters that the run found.

    Returns:
        The maximum over the derivatives that the equations name of |D u - D* u| / max(|D* u|, |u|), in
        float64. nan where no other way of taking derivatives can serve the model.
    """
    names = _some_names(problem)
    x = problem.test_batch["interior"].x
    x = x[:: max(1, len(x) // FEW_POINTS)][:FEW_POINTS]
    own = problem.differentiator
    others: list[Differentiator] = [Reverse()]
    if isinstance(own, Reverse):
        others = [Taylor(), *([FiniteDifference(8)] if problem.pde.order <= 2 else [])]
    precise = replace(problem, model=copy.deepcopy(problem.model).double(), dtype=torch.float64)
    for other in others:
        with suppress(PdeTrainError, RuntimeError, NotImplementedError):
            expected = _columns(precise, other, x.double(), names)
            with steady_draws():
                own_columns = _columns(problem, own, x, names)
            return max(_distance(own_columns[name], expected[name], expected["u"]) for name in names)
    log.info("the derivatives were not compared: no other exact way can serve this model")
    return math.nan


def _some_names(problem: Problem) -> list[str]:
    """Derivatives that equations need, by name; in many dimensions a few partial derivatives of the highest order."""
    request = reduce(or_, (request for _, request in problem.pde.regions.values())).of_field
    names = sorted(request.names - {"u"})
    if problem.pde.domain.dimension >= MANY_DIMENSIONS:
        highest = sorted(axes for axes in request.axes if len(axes) == request.order)
        some = highest[:: max(1, len(highest) // FEW_DERIVATIVES)]
        names = ["u_" + "".join(request.coordinates[i] for i in axes) for axes in some if axes]
    return names[:FEW_DERIVATIVES] or ["u"]


def _columns(problem: Problem, by: Differentiator, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        jet = by(problem.model, x, Request(frozenset([*names, "u"]), problem.pde.coordinates))
    return {name: jet.columns[name].double() for name in [*names, "u"]}


def _distance(actual: Tensor, expected: Tensor, u: Tensor) -> float:
    size = max(float(expected.norm()), float(u.norm()))
    return float((actual - expected).norm()) / (size or 1.0)
