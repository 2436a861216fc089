"""Adam for the first steps, L-BFGS for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.lbfgs import LBFGS


class AdamThenLBFGS(torch.optim.Optimizer):
    """Takes `switch` steps of Adam, and then one iteration of L-BFGS with a strong Wolfe line search in each step.

    Args:
        params: The parameters.
        switch: The number of steps of Adam.
        lr: The learning rate of Adam.
        history_size: The number of curvature pairs of L-BFGS, see `LBFGS`.
        max_eval: The largest number of evaluations of a line search, see `LBFGS`.

    Raises:
        UsageError: `switch` is negative, or an argument does not suit L-BFGS.
    """

    def __init__(self, params: Iterable[Tensor], switch: int, lr: float, history_size: int = 50, max_eval: int = 25):
        if switch < 0:
            raise UsageError(f"optimizer.switch={switch} is negative: expected a number of steps of Adam, 0 for none")
        params = list(params)
        super().__init__(params, {})
        self.adam = torch.optim.Adam(params, lr=lr)
        self.lbfgs = LBFGS(params, history_size=history_size, max_eval=max_eval)
        self.switch = switch
        self.taken = 0

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # torch's closure is optional
        """Take one step of the optimiser whose turn it is; returns the loss before the step."""
        optimizer = self.adam if self.taken < self.switch else self.lbfgs
        self.taken += 1
        return optimizer.step(closure)

    def new_points(self) -> None:
        """See `LBFGS.new_points`."""
        self.lbfgs.new_points()

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "adam": self.adam.state_dict(), "lbfgs": self.lbfgs.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.taken = state_dict["taken"]
        self.adam.load_state_dict(state_dict["adam"])
        self.lbfgs.load_state_dict(state_dict["lbfgs"])
