"""L-BFGS that goes on learning curvature when the loss is small."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pde_train.errors import UsageError

SCALES = {torch.float64: 2.0**40, torch.float32: 2.0**10}
"""The factor of the loss by precision: a power of two, so that scaling rounds nothing.

Squares of scaled gradients must not overflow.
"""


MOST = 10**6
"""The largest number of curvature pairs, and of evaluations of a line search, that is accepted."""


class LBFGS(torch.optim.LBFGS):
    """The L-BFGS of torch with a strong Wolfe line search, where one step is one iteration.

    No tolerance of the gradient or the step stops it, but torch's line search ends where its bracket is shorter than
    1e-9.

    torch keeps a curvature pair (y, s) only if y . s > 1e-10, which is an absolute size. Once a
    residual loss is near 1e-6, it learns no curvature any more and hardly moves. The iterates of
    L-BFGS do not depend on the scale of the objective, so this class optimises a large multiple of
    the loss (SCALES).

    Args:
        params: The parameters.
        lr: The first step length that a line search tries.
        history_size: The number of curvature pairs that are kept.
        max_eval: The largest number of evaluations of a line search.

    Raises:
        UsageError: An argument is out of range.
    """

    gradients_of_a_step = 2  # where it begins, and where its line search ends

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

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # torch's closure is optional
        """Take one iteration.

        Args:
            closure: Computes the loss and its gradients.

        Returns:
            The loss before the iteration.
        """

        def scaled() -> Tensor:
            with torch.enable_grad():
                value = closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(self.scale)
            return value * self.scale

        loss: Tensor = super().step(scaled)  # type: ignore[no-untyped-call]  # torch declares no types here
        return loss / self.scale

    def new_points(self) -> None:
        """Learn no curvature from the last step, because the loss has become another one: its gradients are of both.

        torch makes the pair (y, s) at the next step, and leaves out one with y . s = 0.
        """
        state = self.state[self.param_groups[0]["params"][0]]
        if state:
            state["t"] = 0.0
