"""Does a function that was trained with inexact derivatives solve the equation, or only its approximation?"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """The exact residual on the training points and between them, after training with an inexact differentiator.

    factor: a run is flagged when an exact residual exceeds the residual that was trained by more than this: training
        has then made something small that is not the equation, such as what a wrong function leaves between the points
        of a stencil. None for no audit.
    """

    factor: float | None = 100.0

    def __post_init__(self) -> None:
        number = isinstance(self.factor, (int, float)) and not isinstance(self.factor, bool)
        if self.factor is not None and not (number and self.factor >= 1):
            raise UsageError(f"audit.factor={self.factor} flags nothing well: expected a number >= 1, or null for none")

    def metrics(self, problem: Problem, batch: Batch, trained: float) -> dict[str, float]:
        """audit/on_points, audit/between_points (relative residuals), audit/ratio and audit/flag (0 or 1).

        trained: the relative residual on the training points as the run's own differentiator sees it. Empty for an
        exact differentiator.
        """
        if self.factor is None or problem.differentiator.exact:
            return {}
        on, between = problem.residual_exact(batch), problem.residual_exact(problem.between())
        worst = max(on, between)
        ratio = worst / trained if trained else math.inf if worst else 1.0
        flagged = not ratio <= self.factor  # nan, too
        if flagged:
            log.warning(
                "audit: the trained residual %.1e is %.0e times smaller than the exact one, %.1e on the training "
                "points and %.1e between them: the function solves what the differentiator sees and not the equation; "
                "take smaller differentiation errors (differentiator.accuracy, step), exact ones or more points",
                trained,
                ratio,
                on,
                between,
            )
        return {
            "audit/on_points": on,
            "audit/between_points": between,
            "audit/ratio": ratio,
            "audit/flag": float(flagged),
        }
