"""L-BFGS that keeps learning when the loss is small."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pde_train.errors import UsageError

SCALES = {torch.float64: 2.0**40, torch.float32: 2.0**10}
"""Powers of two, so that scaling rounds nothing; squares of scaled gradients must not overflow."""


MOST = 10**6
"""Curvature pairs, or evaluations of a line search; more than anyone has a use for."""


class LBFGS(torch.optim.LBFGS):
    """torch's L-BFGS with a strong Wolfe line search; one step is one iteration, and nothing but the budget stops it.

    torch keeps a curvature pair only where y . s > 1e-10, an absolute size: once a residual loss is near 1e-6 it stops
    learning curvature and all but stands still. L-BFGS does not depend on the scale of its objective, so it is given a
    large multiple of the loss (SCALES).
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1.0, history_size: int = 50, max_eval: int = 25):
        for name, value in (("history_size", history_size), ("max_eval", max_eval)):
            if not 1 <= value <= MOST:
                raise UsageError(f"optimizer.{name}={value} is of no use to L-BFGS: expected an integer of 1 to {MOST}")
        if not lr > 0:
            raise UsageError(f"optimizer.lr={lr} is no step length: expected a positive number, such as 1.0")
        super().__init__(
            params,
            lr=lr,
            max_iter=1,
            max_eval=max_eval,
            history_size=history_size,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )
        self.scale = SCALES[self.param_groups[0]["params"][0].dtype]

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One iteration; closure computes the loss and its gradients. Returns the loss before the iteration."""

        def scaled() -> Tensor:
            with torch.enable_grad():
                value = closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(self.scale)
            return value * self.scale

        return super().step(scaled) / self.scale
