"""Levenberg-Marquardt and its relatives: damped Gauss-Newton steps on the rows of a residual.

The loss is |r|^2. A step solves the damped linear least-squares problem of `pde_train.optimizers.damped` and is taken
where it lowers the loss. How the damping adapts, or what else makes a step safe, is a `Damping` of
`pde_train.optimizers.dampings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.base import REMEMBERED, flat, write
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
from pde_train.optimizers.dampings import DAMPINGS, LARGEST, Rows, Trial

SOLVERS = ("auto", "svd", "qr", "cholesky", "dual", "cg", "sketched")

MATRIX_FREE = ("cg", "sketched")
"""Solvers that take products with J, in directions that are drawn at random."""

PRECISIONS = (None, "float32")
"""Precisions in which the decompositions of a first round may be computed; None for no such round."""

HIGHER = (None, "float64")
"""Precisions in which a Jacobian in float32 may be decomposed; None for its own."""

SLOW, PATIENCE = 1e-3, 10
"""A first round ends after PATIENCE steps in a row that each lower the loss by less than the part SLOW."""

DENSE: dict[str, Callable[[Tensor, Tensor], Damped]] = {"svd": SVD, "qr": QR, "cholesky": Cholesky, "dual": Dual}


class GaussNewton(torch.optim.Optimizer):
    """Damped Gauss-Newton steps.

    Args:
        params: The parameters.
        damping: `nielsen`, `ladder` or `fixed`, see `pde_train.optimizers.dampings`.
        initial: The first damping, or the fixed one, relative to the largest squared norm of a column of J. A ladder
            does not use it.
        solver: `svd`, `qr`, `cholesky`, `dual`, `cg` or `sketched`, see `pde_train.optimizers.damped`. `auto` is `svd`
            where rows or parameters are at most SVD_COLUMNS, or with a ladder; otherwise `dual` where there are fewer
            rows than parameters, and `qr` where there are more.
        momentum: The part m of the last step that is taken again, as in SPRING (Goldshlager, Abrahamsen, Lin, J.
            Comput. Phys. 516, 2024): d = m d_last + the damped solution for the residual r + m J d_last.
        sketch: The size of the subspace of `sketched`, relative to the number of parameters.
        seed: The seed of random directions of `cg` and `sketched`.
        first_precision: `float32` for a first round of steps in which J and r are rounded to float32 before the
            decomposition; J, r and the loss of every trial are computed in float64 all the time. The round ends after
            a step that finds no lower loss, or after PATIENCE slow ones. None for no such round.
        linear_algebra: `float64` for decompositions in float64 of a J and r that were computed in float32; None for
            the precision of the parameters.

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
        first_precision: str | None = None,
        linear_algebra: str | None = None,
    ):
        for name, word, known in (("damping", damping, tuple(DAMPINGS)), ("solver", solver, SOLVERS)):
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
        if first_precision not in PRECISIONS:
            raise UsageError(
                f"method.first_precision={first_precision} is no lower precision than float64: expected float32, or "
                "null for float64 from the first step on"
            )
        if linear_algebra not in HIGHER:
            raise UsageError(
                f"method.linear_algebra={linear_algebra} is no higher precision than float32: expected float64, or "
                "null for the precision of the parameters"
            )
        for name, precision in (("first_precision", first_precision), ("linear_algebra", linear_algebra)):
            if precision and solver in MATRIX_FREE:
                raise UsageError(
                    f"method.solver={solver} takes products with J, and method.{name}={precision} converts J itself: "
                    f"expected svd, qr, cholesky or dual, or {name}=null"
                )
        super().__init__(params, {})
        if first_precision and any(p.dtype != torch.float64 for p in self.parameters):
            raise UsageError(
                f"method.first_precision={first_precision} begins below float64, and the parameters are in float32: "
                "expected accelerator.precision=float64, or first_precision=null"
            )
        self.kind = damping
        self.damping = DAMPINGS[damping]
        self.initial, self.solver, self.momentum, self.sketch, self.seed = initial, solver, momentum, sketch, seed
        self.first_precision = first_precision
        self.linear_algebra = torch.float64 if linear_algebra else None

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of x."""
        return list(self.param_groups[0]["params"])

    @property
    def random(self) -> bool:
        """Whether a step draws directions at random, so that the next one may lower the loss where this one did not."""
        return self.solver in MATRIX_FREE

    @property
    def in_first_round(self) -> bool:
        """Whether the next step decomposes J in the first precision."""
        remembered = self.state[self.parameters[0]].get(REMEMBERED)
        return self.first_precision is not None and (remembered is None or int(remembered[0][-1]) < PATIENCE)

    def step(self, rows: Rows, residual: Tensor | None = None) -> Step:  # type: ignore[override]  # no closure serves
        """Take one step; the parameters stay where no step lowers the loss.

        Args:
            rows: The residual as a function of the parameters.
            residual: r at the parameters, where it is known.

        Returns:
            What happened.
        """
        x = flat(self.parameters)
        taken, numbers, slow, last = self._remembered(x)
        rounded = self.in_first_round
        residual = rows.residual(x) if residual is None else residual
        shift = self.momentum * last
        precision = torch.float32 if rounded else self.linear_algebra or x.dtype
        linear = self._linear(rows, x, residual, shift, taken, precision)
        if numbers[0] < 0:
            numbers = [self.initial * linear.scale, 0.0 if self.kind == "ladder" else 2.0]
        loss = float(residual @ residual)
        before = list(numbers)
        found = self.damping.take(Trial(rows, x, residual, loss, linear, shift), numbers)
        alone = not bool(last.any())
        last = torch.zeros_like(x)
        if found is not None:
            step, residual, after = found
            last = step.to(x)
            if rounded:
                slow = slow + 1 if after > (1 - SLOW) * loss else 0
        elif rounded:
            numbers, slow = before, PATIENCE  # rounding refused all trials, and says nothing of the damping
        elif not alone:
            numbers = before  # the last step, which was to be taken again, may have refused them
        repeats = found is None and alone and not self.random and not rounded and numbers == before
        write(self.parameters, x + last)  # evaluations may have left a trial there
        self.state[self.parameters[0]] = {
            REMEMBERED: [torch.tensor([float(taken + 1), *numbers, float(slow)], dtype=torch.float64), last]
        }
        damping = numbers[0] if self.kind == "ladder" else numbers[0] / linear.scale
        return Step(loss, residual, damping, found is not None, linear.values, rounded, repeats)

    def _remembered(self, x: Tensor) -> tuple[int, list[float], int, Tensor]:
        """What earlier steps have left.

        Returns:
            Steps that were taken, the numbers of the damping (negative before the first step), slow steps in a row
            (PATIENCE of them from the end of the first round on), and the last step.
        """
        remembered: Sequence[Tensor] | None = self.state[self.parameters[0]].get(REMEMBERED)
        if remembered is None:
            return 0, [-1.0, 0.0], 0, torch.zeros_like(x)
        taken, *numbers, slow = remembered[0].tolist()
        return int(taken), numbers, int(slow), remembered[1]

    def _linear(
        self, rows: Rows, x: Tensor, residual: Tensor, shift: Tensor, taken: int, precision: torch.dtype
    ) -> Damped:
        n, p = len(residual), len(x)
        solver = self.solver
        if solver == "auto":
            few = min(n, p) <= SVD_COLUMNS or self.kind == "ladder"
            solver = "svd" if few else "dual" if n < p else "qr"
        generator = torch.Generator().manual_seed(self.seed + taken)
        if solver in MATRIX_FREE:
            forward, back = rows.products(x)
            if solver == "sketched":
                return Sketched(forward, residual, p, max(1, round(self.sketch * p)), generator)
            return Conjugate(forward, back, residual + forward(shift), p, generator)
        jacobian = rows.jacobian(x)
        moved = residual + jacobian @ shift if self.momentum else residual
        return DENSE[solver](jacobian.to(precision), moved.to(precision))

    def state_dict(self) -> dict[str, Any]:
        remembered = self.state[self.parameters[0]].get(REMEMBERED)
        return {REMEMBERED: remembered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict[REMEMBERED] is not None:
            numbers, step = state_dict[REMEMBERED]
            self.state[self.parameters[0]] = {REMEMBERED: [numbers, step.to(self.parameters[0].device)]}


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
        rounded: Whether it was a step of a first round.
        repeats: Whether the next step for the same rows is this one again: it lowered the loss by no damping, and has
            left everything as it was.
    """

    loss: float
    residual: Tensor
    damping: float
    lowered: bool
    values: Tensor | None
    rounded: bool
    repeats: bool
