"""Nystroem-Newton-CG: damped Newton steps by preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.base import REMEMBERED, flat, loss_and_gradient, write
from pde_train.optimizers.conjugate_gradients import Nystroem, Product, conjugate_gradients, nystroem

ENOUGH = 1e-4
"""The part of the decrease along the slope that a step must reach (Armijo's condition)."""

HALVINGS = 30
"""Step lengths 1, 1/2, 1/4, ... that are tried."""


class NNCG(torch.optim.Optimizer):
    """Newton's method with damping, by conjugate gradients with a Nystroem preconditioner.

    Each step solves (H + damping I) d = gradient, from the last d on, and goes along -d as far as lowers the loss
    enough (Rathore et al., ICML 2024, algorithm 4). Products with the Hessian H are central differences of gradients,
    two gradients each, so that compiled gradients serve. They are right to about 1e-10, relative to H.

    Args:
        params: The parameters.
        damping: The damping, in units of the Hessian.
        rank: The rank of the preconditioner.
        frequency: The number of steps between two renewals of it.
        iterations: The largest number of iterations of conjugate gradients.
        tolerance: The size of the residual of the linear system, relative to the gradient, that is enough.
        seed: The seed of its random directions.

    Raises:
        UsageError: A number is not positive.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        damping: float = 1e-3,
        rank: int = 60,
        frequency: int = 20,
        iterations: int = 200,
        tolerance: float = 1e-8,
        seed: int = 0,
    ):
        numbers = {"damping": damping, "rank": rank, "frequency": frequency, "iterations": iterations}
        for name, value in {**numbers, "tolerance": tolerance}.items():
            if not value > 0:
                raise UsageError(f"optimizer.{name}={value} is of no use: expected a positive number")
        super().__init__(params, {**numbers, "tolerance": tolerance, "seed": seed})

    @property
    def gradients_of_a_step(self) -> float:
        """One where it begins, two for a product, one for a trial, and its share of the preconditioner."""
        group = self.param_groups[0]
        return 4 + 2 * float(group["rank"] / group["frequency"])

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # torch's closure is optional
        """Take one step.

        Args:
            closure: Computes the loss and its gradients.

        Returns:
            The loss before the step.
        """
        group = self.param_groups[0]
        x = flat(group["params"])
        loss, gradient = self._evaluated(x, closure)
        taken, direction, preconditioner = self._remembered(x)
        product = self._hessian(x, closure)
        if preconditioner is None or taken % group["frequency"] == 0:
            generator = torch.Generator().manual_seed(group["seed"] + taken)
            preconditioner = nystroem(product, x, generator, group["rank"])
        direction = conjugate_gradients(
            product, gradient, group["damping"], preconditioner, direction, group["tolerance"], group["iterations"]
        )
        if not float(gradient @ direction) > 0:
            direction = gradient
        enough = ENOUGH * float(gradient @ direction)
        lengths = (0.5**k for k in range(HALVINGS))
        lower = (
            t for t in lengths if float(self._evaluated(x - t * direction, closure)[0]) <= float(loss) - t * enough
        )
        write(group["params"], x - next(lower, 0.0) * direction)
        count = torch.tensor(float(taken + 1), dtype=torch.float64)
        remembered = [count, direction, preconditioner.vectors, preconditioner.eigenvalues]
        self.state[group["params"][0]] = {REMEMBERED: remembered}
        return loss

    def _evaluated(self, point: Tensor, closure: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and gradient (p,) at a point, where the parameters are then."""
        return loss_and_gradient(self.param_groups[0]["params"], point, closure)

    def _hessian(self, x: Tensor, closure: Callable[[], Tensor]) -> Product:
        """Products with the Hessian at x, by central differences of the gradient."""
        width = torch.finfo(x.dtype).eps ** (1 / 3) * max(1.0, float(torch.linalg.vector_norm(x)))

        def product(vectors: Tensor) -> Tensor:
            images = []
            for column in vectors.view(len(x), -1).T:
                h = width / max(float(torch.linalg.vector_norm(column)), torch.finfo(x.dtype).tiny)
                after, before = (self._evaluated(x + sign * h * column, closure)[1] for sign in (1, -1))
                images.append((after - before) / (2 * h))
            return torch.stack(images, dim=1).view(vectors.shape)

        return product

    def _remembered(self, x: Tensor) -> tuple[int, Tensor, Nystroem | None]:
        """Steps that were taken, the last direction, and the preconditioner."""
        last = self.state[self.param_groups[0]["params"][0]].get(REMEMBERED)
        if last is None:
            return 0, torch.zeros_like(x), None
        return int(last[0]), last[1], Nystroem(last[2], last[3])
