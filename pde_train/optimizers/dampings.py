"""How the damping of a Gauss-Newton step is chosen such that the step lowers the loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pde_train.optimizers.conjugate_gradients import Product
from pde_train.optimizers.damped import SVD, Damped, Sketched

TRIES = 25
"""Dampings that one step tries before it gives up."""

SMALLEST, LARGEST = 1e-22, 1e8
"""Bounds of dampings, relative to the largest squared norm of a column of J."""

RADII = (3.0, 1.73, 1.0, 0.577, 0.333)
"""The lengths of the candidates of a ladder, relative to the trust radius."""

ENOUGH = 0.075
"""The part of the predicted decrease that the longest candidate of a ladder must reach."""

HALVINGS = 30
"""Step lengths 1, 1/2, 1/4, ... of the line search behind a fixed damping."""


class Rows(Protocol):
    """The residual of a problem as a function of its parameters, one vector x (p,)."""

    def residual(self, x: Tensor) -> Tensor:
        """r (n,)."""
        ...

    def jacobian(self, x: Tensor) -> Tensor:
        """J (n, p)."""
        ...

    def products(self, x: Tensor) -> tuple[Product, Product]:
        """Multiplication by J and by J^T, without J."""
        ...


@dataclass
class Trial:
    """One step before it is taken.

    Attributes:
        rows: The residual as a function of the parameters.
        x: The parameters (p,).
        residual: r (n,) there.
        loss: |r|^2.
        linear: The damped least-squares problem.
        shift: A step (p,) that is taken besides, the momentum.
    """

    rows: Rows
    x: Tensor
    residual: Tensor
    loss: float
    linear: Damped
    shift: Tensor

    def at(self, step: Tensor) -> tuple[float, Tensor]:
        """Loss and residual after a step; an infinite loss where it is not finite."""
        residual = self.rows.residual(self.x + step.to(self.x))
        loss = float(residual @ residual)
        return (loss if math.isfinite(loss) else math.inf), residual

    def predicted(self, step: Tensor) -> float:
        """The decrease of the loss that the linear model predicts."""
        after = self.residual + self.linear.image(step)
        return self.loss - float(after @ after)


Taken = tuple[Tensor, Tensor, float]
"""A step that lowers the loss, residual and loss after it."""


class Damping(ABC):
    """Chooses the damping of each step.

    Its numbers (two of them) are kept by the optimiser, and change from step to step.
    """

    @abstractmethod
    def take(self, trial: Trial, numbers: list[float]) -> Taken | None:
        """A step that lowers the loss, changing the numbers; None where none was found."""


class Nielsen(Damping):
    """A factor that follows the gain ratio (Nielsen, IMM-REP-1999-05, equation 2.5).

    A success multiplies the damping by max(1/10, 1 - (2 gain - 1)^3), a failure by a factor that doubles from 2 to 64.

    The numbers are the damping and the factor by which the next failure multiplies it.
    """

    def take(self, trial: Trial, numbers: list[float]) -> Taken | None:
        scale = trial.linear.scale
        for _ in range(TRIES):
            numbers[0] = min(max(numbers[0], SMALLEST * scale), LARGEST * scale)
            step = trial.shift + trial.linear.step(numbers[0])
            loss, residual = trial.at(step)
            if loss < trial.loss:
                gain = (trial.loss - loss) / max(trial.predicted(step), 1e-300)
                numbers[0] *= max(0.1, 1 - (2 * gain - 1) ** 3) if gain < 10 else 0.1
                numbers[1] = 2.0
                return step, residual, loss
            if numbers[0] == LARGEST * scale:
                return None
            numbers[0] *= numbers[1]
            numbers[1] = min(2 * numbers[1], 64.0)
        return None


class Ladder(Damping):
    """The longest of several steps of different lengths whose true loss is as good as promised.

    The candidates have the lengths RADII times the trust radius, and one decomposition serves all (trust-radius ladder
    of DSGNAR, arXiv 2607.02194). The numbers are the trust radius, and whether it is set. The first radius is the
    length of the step whose damping is 1e-3 times the largest squared norm of a column of J.
    """

    def take(self, trial: Trial, numbers: list[float]) -> Taken | None:
        linear = trial.linear.inner if isinstance(trial.linear, Sketched) else trial.linear
        assert isinstance(linear, SVD), "checked when the optimiser was made"
        if numbers[1] == 0:
            numbers[:] = [float(torch.linalg.vector_norm(trial.linear.step(1e-3 * linear.scale))), 1.0]
        for _ in range(TRIES):
            best: Taken | None = None
            length = 0.0
            for ratio in RADII:
                damping = linear.damping_of(ratio * numbers[0])
                step = trial.shift + trial.linear.step(damping)
                loss, residual = trial.at(step)
                enough = trial.loss - loss >= ENOUGH * max(trial.predicted(step), 0.0)
                if loss < (trial.loss if best is None or enough else best[2]):
                    best, length = (step, residual, loss), float(torch.linalg.vector_norm(linear.step(damping)))
                    if enough:
                        break
            if best is not None:
                numbers[0] = length
                return best
            if float(torch.linalg.vector_norm(linear.step(damping))) > 2 * ratio * numbers[0]:
                return None  # the damping of a radius is bounded, and no shorter step can be had
            numbers[0] /= 10
        return None


class Fixed(Damping):
    """A damping that stays, and the best of the step lengths 1, 1/2, 1/4, ..."""

    def take(self, trial: Trial, numbers: list[float]) -> Taken | None:
        full = trial.shift + trial.linear.step(numbers[0])
        best: Taken | None = None
        for halvings in range(HALVINGS + 1):
            step = full * 0.5**halvings
            loss, residual = trial.at(step)
            if loss < (trial.loss if best is None else best[2]):
                best = step, residual, loss
            elif best is not None:
                break
        return best


DAMPINGS: dict[str, Damping] = {"nielsen": Nielsen(), "ladder": Ladder(), "fixed": Fixed()}
