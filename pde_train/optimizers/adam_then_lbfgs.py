"""Adam for the first steps, L-BFGS for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.adam import AdamUpdate
from pde_train.optimizers.lbfgs import LimitedMemoryUpdate, check_pairs, check_sizes
from pde_train.optimizers.trials import Memory, QuasiNewton


class AdamThenLimitedMemoryUpdate(LimitedMemoryUpdate):
    """A step of Adam as long as there were fewer than `switch` of them, and then one of L-BFGS.

    The state of Adam stands behind that of L-BFGS.

    Args:
        switch: The number of steps of Adam.
        history: The number of pairs of L-BFGS.
    """

    def __init__(self, switch: int, history: int):
        super().__init__(history)
        self.switch = switch

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        return torch.cat([AdamUpdate().hyper(optimizer), super().hyper(optimizer)])

    def beginning(self, point: Tensor) -> list[Tensor]:
        return [*super().beginning(point), *AdamUpdate.beginning(point)]

    def memory(self, state: Sequence[Tensor]) -> Memory:
        return Memory.of(state[:-3])

    def begun_again(self, state: Sequence[Tensor]) -> list[Tensor]:
        return [*super().begun_again(state[:-3]), *state[-3:]]

    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        searched = super().step(state[:-3], gradient, loss, hyper[4:])
        point, *moments = AdamUpdate().step([state[0], *state[-3:]], gradient, loss, hyper[:4])
        waiting = self.memory(state)._replace(point=point, x=point)
        first = state[-1] < self.switch
        after = [[*searched, *state[-3:]], [*waiting.listed(), *moments]]
        return [torch.where(first, adam, lbfgs) for lbfgs, adam in zip(*after, strict=True)]


class AdamThenLBFGS(QuasiNewton):
    """Takes `switch` steps of Adam, and then steps of L-BFGS, one evaluation of loss and gradient in each.

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
        check_sizes(history_size, max_eval)
        update = AdamThenLimitedMemoryUpdate(switch, history_size)
        super().__init__(params, update, max_eval=max_eval, lr=lr, betas=(0.9, 0.999), eps=1e-8)
        self.switch = switch
        check_pairs(history_size, self.parameters)
