"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pde_train.errors import UsageError


class SOAP(torch.optim.Optimizer):
    """Adam with second moments in a slowly changing eigenbasis (Vyas et al., ICLR 2025, algorithm 3).

    The gradient G (m, n) of a matrix is rotated to Q_L^T G Q_R. Q_L and Q_R are the eigenvectors of moving averages L
    of G G^T and R of G^T G. They are renewed every `frequency` steps by one step of the power iteration and a QR
    decomposition. Adam divides the rotated mean by the root of the mean square in that basis, and the result is rotated
    back. Vectors, such as biases, and sides longer than `largest` are not rotated. The first step sets the bases alone.

    Args:
        params: The parameters.
        lr: The learning rate.
        betas: The factors of the moving averages of the gradient, and of its square and the matrices L and R.
        eps: Added to the root of the mean square.
        frequency: The number of steps between two renewals of the bases.
        largest: The longest side of a matrix that gets a basis.

    Raises:
        UsageError: A number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        frequency: int = 10,
        largest: int = 2000,
    ):
        if not (lr > 0 and eps > 0):
            raise UsageError(f"optimizer.lr={lr} and eps={eps} make no step: expected positive numbers")
        if not (len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
            raise UsageError(f"optimizer.betas={list(betas)} make no averages: expected two numbers, 0 <= beta < 1")
        if not (frequency >= 1 and largest >= 1):
            raise UsageError(
                f"optimizer.frequency={frequency} and largest={largest} make no basis: expected positive integers"
            )
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "frequency": frequency, "largest": largest}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]  # returns no loss
        """Take one step with the gradients that the parameters have."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, self.state[parameter], group)

    def _step(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
            state["matrices"] = [(1 - second) * m for m in _products(gradient, group["largest"])]
            state["bases"] = [torch.linalg.eigh(m).eigenvectors.flip(1) for m in state["matrices"]]
            return
        state["step"] += 1
        mean, square = state["mean"], state["square"]
        rotated = self._rotated(gradient, state["bases"], group["largest"])
        mean.mul_(first).add_(gradient, alpha=1 - first)
        square.mul_(second).addcmul_(rotated, rotated, value=1 - second)
        scale = (1 - second ** state["step"]) ** 0.5 / (1 - first ** state["step"])
        direction = self._rotated(mean, state["bases"], group["largest"]) / (square.sqrt() + group["eps"])
        back = [basis.T for basis in state["bases"]]
        parameter.sub_(self._rotated(direction, back, group["largest"]), alpha=group["lr"] * scale)
        for matrix, product in zip(state["matrices"], _products(gradient, group["largest"]), strict=True):
            matrix.mul_(second).add_(product, alpha=1 - second)
        if state["step"] % group["frequency"] == 0:
            self._renew(state, group["largest"])

    def _renew(self, state: dict[str, Any], largest: int) -> None:
        """One power iteration for each basis, whose columns are sorted by their estimated eigenvalues first."""
        sides = [i for i, n in enumerate(state["square"].shape) if n <= largest]
        for i, (side, matrix, basis) in enumerate(zip(sides, state["matrices"], state["bases"], strict=False)):
            order = torch.einsum("ij,ik,kj->j", basis, matrix, basis).argsort(descending=True)
            state["square"] = state["square"].index_select(side, order)
            state["bases"][i] = torch.linalg.qr(matrix @ basis[:, order]).Q

    @staticmethod
    def _rotated(gradient: Tensor, bases: list[Tensor], largest: int) -> Tensor:
        """Q_L^T G Q_R, with the identity for a side that has no basis."""
        if gradient.dim() != 2:
            return gradient
        left, right = (n <= largest for n in gradient.shape)
        remaining = iter(bases)
        if left:
            gradient = next(remaining).T @ gradient
        return gradient @ next(remaining) if right else gradient


def _products(gradient: Tensor, largest: int) -> list[Tensor]:
    """G G^T and G^T G of a matrix, each where it is not too large; nothing of a vector."""
    if gradient.dim() != 2:
        return []
    sides = zip(gradient.shape, (gradient, gradient.T), strict=True)
    return [side @ side.T for n, side in sides if n <= largest]
