"""Levenberg-Marquardt and its relatives: damped Gauss-Newton steps on the rows of a residual.

The loss is |r|^2. A step solves the damped linear least-squares problem of `pde_train.optimizers.damped` and is taken
where it lowers the loss. How the damping adapts, or what else makes a step safe, is a `Damping`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.base import REMEMBERED, flat, write
from pde_train.optimizers.conjugate_gradients import Product
from pde_train.optimizers.damped import (
    QR,
    SVD,
    SVD_COLUMNS,
    Cholesky,
    Conjugate,
    Damped,
    Dual,
    Sketched,
)

SOLVERS = ("auto", "svd", "qr", "cholesky", "dual", "cg", "sketched")
DAMPINGS = ("nielsen", "ladder", "fixed")

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
        residual = self.rows.residual(self.x + step)
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


DENSE: dict[str, Callable[[Tensor, Tensor], Damped]] = {"svd": SVD, "qr": QR, "cholesky": Cholesky, "dual": Dual}

KINDS: dict[str, Damping] = {"nielsen": Nielsen(), "ladder": Ladder(), "fixed": Fixed()}


class GaussNewton(torch.optim.Optimizer):
    """Damped Gauss-Newton steps.

    Args:
        params: The parameters.
        damping: `nielsen`, `ladder` or `fixed`, see the classes above.
        initial: The first damping, or the fixed one, relative to the largest squared norm of a column of J. A ladder
            does not use it.
        solver: `svd`, `qr`, `cholesky`, `dual`, `cg` or `sketched`, see `pde_train.optimizers.damped`. `auto` is `svd`
            where rows or parameters are at most SVD_COLUMNS, or with a ladder; otherwise `dual` where there are fewer
            rows than parameters, and `qr` where there are more.
        momentum: The part m of the last step that is taken again, as in SPRING (Goldshlager, Abrahamsen, Lin, J.
            Comput. Phys. 516, 2024): d = m d_last + the damped solution for the residual r + m J d_last.
        sketch: The size of the subspace of `sketched`, relative to the number of parameters.
        seed: The seed of random directions of `cg` and `sketched`.

    Raises:
        UsageError: A word is unknown, a number is out of range, or they do not go together.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        damping: str = "nielsen",
        initial: float = 1e-3,
        solver: str = "auto",
        momentum: float = 0.0,
        sketch: float = 0.5,
        seed: int = 0,
    ):
        for name, word, known in (("damping", damping, DAMPINGS), ("solver", solver, SOLVERS)):
            if word not in known:
                raise UsageError(f"method.{name}={word} is unknown: expected one of {', '.join(known)}, choose one")
        if not 0 < initial <= LARGEST:
            raise UsageError(
                f"method.initial={initial} is no damping: expected a positive number up to {LARGEST:g}, such as 1e-3"
            )
        if not 0 <= momentum < 1:
            raise UsageError(f"method.momentum={momentum} does not fade: expected 0 <= momentum < 1, such as 0.9")
        if not 0 < sketch <= 1:
            raise UsageError(f"method.sketch={sketch} is no part of the parameters: expected 0 < sketch <= 1")
        if damping == "ladder" and solver not in ("auto", "svd", "sketched"):
            raise UsageError(
                f"method.damping=ladder needs a singular value decomposition, and method.solver={solver} has none: "
                "expected svd or sketched, or damping=nielsen"
            )
        if solver == "sketched" and momentum:
            raise UsageError("method.solver=sketched has another subspace in each step: expected method.momentum=0")
        super().__init__(params, {})
        self.kind = damping
        self.damping = KINDS[damping]
        self.initial, self.solver, self.momentum, self.sketch, self.seed = initial, solver, momentum, sketch, seed

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of x."""
        return list(self.param_groups[0]["params"])

    def step(self, rows: Rows, residual: Tensor | None = None) -> Step:  # type: ignore[override]  # no closure serves
        """Take one step; the parameters stay where no step lowers the loss.

        Args:
            rows: The residual as a function of the parameters.
            residual: r at the parameters, where it is known.

        Returns:
            What happened.
        """
        x = flat(self.parameters)
        taken, numbers, last = self._remembered(x)
        residual = rows.residual(x) if residual is None else residual
        shift = self.momentum * last
        linear = self._linear(rows, x, residual, shift, taken)
        if numbers[0] < 0:
            numbers = [self.initial * linear.scale, 0.0 if self.kind == "ladder" else 2.0]
        loss = float(residual @ residual)
        found = self.damping.take(Trial(rows, x, residual, loss, linear, shift), numbers)
        last = torch.zeros_like(x)
        if found is not None:
            last, residual, _ = found
        write(self.parameters, x + last)  # evaluations may have left a trial there
        self.state[self.parameters[0]] = {
            REMEMBERED: [torch.tensor([float(taken + 1), *numbers], dtype=torch.float64), last]
        }
        damping = numbers[0] if self.kind == "ladder" else numbers[0] / linear.scale
        return Step(loss, residual, damping, found is not None, linear.values)

    def _remembered(self, x: Tensor) -> tuple[int, list[float], Tensor]:
        """Steps that were taken, the numbers of the damping (negative before the first step), and the last step."""
        remembered: Sequence[Tensor] | None = self.state[self.parameters[0]].get(REMEMBERED)
        if remembered is None:
            return 0, [-1.0, 0.0], torch.zeros_like(x)
        taken, *numbers = remembered[0].tolist()
        return int(taken), numbers, remembered[1]

    def _linear(self, rows: Rows, x: Tensor, residual: Tensor, shift: Tensor, taken: int) -> Damped:
        n, p = len(residual), len(x)
        solver = self.solver
        if solver == "auto":
            few = min(n, p) <= SVD_COLUMNS or self.kind == "ladder"
            solver = "svd" if few else "dual" if n < p else "qr"
        generator = torch.Generator().manual_seed(self.seed + taken)
        if solver in ("cg", "sketched"):
            forward, back = rows.products(x)
            if solver == "sketched":
                return Sketched(forward, residual, p, max(1, round(self.sketch * p)), generator)
            return Conjugate(forward, back, residual + forward(shift), p, generator)
        jacobian = rows.jacobian(x)
        moved = residual + jacobian @ shift if self.momentum else residual
        return DENSE[solver](jacobian, moved)

    def state_dict(self) -> dict[str, Any]:
        remembered = self.state[self.parameters[0]].get(REMEMBERED)
        return {REMEMBERED: remembered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict[REMEMBERED] is not None:
            self.state[self.parameters[0]] = {REMEMBERED: state_dict[REMEMBERED]}


@dataclass(frozen=True)
class Step:
    """What a step of `GaussNewton` did.

    Attributes:
        loss: The loss before it.
        residual: The residual (n,) after it.
        damping: The damping of the next step, relative to the largest squared norm of a column of J; the trust radius
            of a ladder.
        lowered: Whether the loss is lower after it.
        values: The singular values of J before it, where the solver has them.
    """

    loss: float
    residual: Tensor
    damping: float
    lowered: bool
    values: Tensor | None
