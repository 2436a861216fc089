"""L-BFGS: a quasi-Newton method whose inverse Hessian is a product of the last steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.optimizers.trials import QuasiNewton, QuasiNewtonUpdate, Step

MOST = 10**6
"""The largest number of curvature pairs, and of evaluations of a line search, that is accepted."""

COPIES = 5
"""How often the curvature pairs are in memory during a step."""


class LimitedMemoryUpdate(QuasiNewtonUpdate):
    """A step of L-BFGS as a pure function (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 7.4).

    Kept are the last m steps s_i and changes y_i of the gradient, the oldest first, and the inverse W of the upper
    triangle of the products s_i^T y_j. With D = diag(s_i^T y_i) and g the gradient, the two loops of the algorithm are
    the products alpha = W S g, q = g - Y^T alpha, delta = W^T (D alpha - gamma Y q), H g = gamma q + S^T delta.

    Args:
        history: The number m of pairs.
    """

    def __init__(self, history: int):
        self.history = history

    def nothing_learnt(self, like: Tensor) -> tuple[Tensor, ...]:
        pairs = like.new_zeros(self.history, len(like))
        return pairs, pairs.clone(), like.new_zeros(self.history, self.history), like.new_zeros(self.history)

    def learn(self, curvature: tuple[Tensor, ...], step: Step) -> tuple[tuple[Tensor, ...], Tensor]:
        steps, changes, inverse, products = curvature
        learnt = step.usable()
        steps, changes = torch.cat([steps[1:], step.s[None]]), torch.cat([changes[1:], step.y[None]])
        column = steps @ step.y
        last = 1 / torch.where(learnt, column[-1], 1.0)
        above = -last * (inverse[1:, 1:] @ column[:-1])
        upper = torch.cat([inverse[1:, 1:], above[:, None]], dim=1)
        lowest = torch.cat([torch.zeros_like(above), last[None]])
        new = (steps, changes, torch.cat([upper, lowest[None]]), torch.cat([products[1:], column[-1:]]))
        return tuple(torch.where(learnt, after, before) for after, before in zip(new, curvature, strict=True)), learnt

    def newton(self, curvature: tuple[Tensor, ...], gradient: Tensor) -> Tensor:
        steps, changes, inverse, products = curvature
        size = changes[-1] @ changes[-1]
        gamma = torch.where(size > 0, products[-1] / torch.where(size > 0, size, 1.0), 1.0)
        alpha = inverse @ (steps @ gradient)
        q = gradient - changes.T @ alpha
        delta = inverse.T @ (products * alpha - gamma * (changes @ q))
        return gamma * q + steps.T @ delta


class LBFGS(QuasiNewton):
    """L-BFGS with a strong Wolfe line search, one evaluation of loss and gradient in each step.

    Args:
        params: The parameters.
        lr: The longest first trial of a line search, in units of the step of L-BFGS.
        history_size: The number of curvature pairs that are kept.
        max_eval: The largest number of evaluations of a line search.

    Raises:
        UsageError: An argument is out of range, or the pairs do not fit into memory.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1.0, history_size: int = 50, max_eval: int = 25):
        if not lr > 0:
            raise UsageError(f"optimizer.lr={lr} is no step length: expected a positive number, such as 1.0")
        check_sizes(history_size, max_eval)
        super().__init__(params, LimitedMemoryUpdate(history_size), max_eval=max_eval, longest=lr)
        check_pairs(history_size, self.parameters)


def check_sizes(history_size: int, max_eval: int) -> None:
    """Refuse numbers of pairs and evaluations that are of no use."""
    for name, value in (("history_size", history_size), ("max_eval", max_eval)):
        if not 1 <= value <= MOST:
            raise UsageError(f"optimizer.{name}={value} is of no use to L-BFGS: expected an integer of 1 to {MOST}")


def check_pairs(history_size: int, parameters: Sequence[Tensor]) -> None:
    """Refuse pairs that do not fit into memory."""
    count = sum(p.numel() for p in parameters)
    check_memory("the history of the optimizer", 2 * history_size * count + history_size**2, copies=COPIES)
