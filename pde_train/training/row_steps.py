"""The steps of an optimiser that works on residual rows."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor

from pde_train.geometry import Batch
from pde_train.optimizers.base import flat
from pde_train.optimizers.gauss_newton import MATRIX_FREE, GaussNewton, Step
from pde_train.problem import Problem
from pde_train.training.agreement import check_agreement
from pde_train.training.rows import CompiledRows, EagerRows
from pde_train.training.signals import StopSignals
from pde_train.training.steps import SingleSteps
from pde_train.training.when_to_compile import compile_where_it_pays, seconds_of

log = logging.getLogger(__name__)


class RowSteps(SingleSteps):
    """Steps of Gauss-Newton, eager or compiled.

    Args:
        problem: The problem.
        optimizer: The optimiser.
        signals: Wishes to stop.
        compiled: Compiled rows, where there are any.
    """

    def __init__(
        self, problem: Problem, optimizer: GaussNewton, signals: StopSignals, compiled: CompiledRows | None = None
    ):
        super().__init__(problem, optimizer, signals)
        self.compiled = compiled
        self.rows: EagerRows | None = None
        self.at: Tensor | None = None
        self.last: Step | None = None

    def gradient(self, batch: Batch) -> Tensor:
        raise NotImplementedError("Gauss-Newton takes rows, and no gradient")

    def take(self, batch: Batch, count: int, rates: Tensor | None = None) -> Tensor:
        if self.rows is None or self.rows.batch is not batch or self.problem.differentiator.adaptive:
            self.rows, self.at, self.last = self._placed(batch), None, None
        losses = []
        for _ in range(count):
            if self.last is None or not self.last.repeats:
                self.last = self.optimizer.step(self.rows, self.at)
                self.at = self.last.residual
                if self.last.repeats:
                    log.info("no damping lowers the loss of %.1e: steps stay where they are", self.last.loss)
            step = self.last
            losses.append(step.loss)
            bits = {} if self.optimizer.first_precision is None else {"bits": 32.0 if step.rounded else 64.0}
            self.seen.append(({"damping": step.damping, **bits}, step.values))
            if step.rounded and not self.optimizer.in_first_round:
                log.info("float32 no longer serves at a loss of %.1e: decompositions in float64 from now on", step.loss)
            if self.signals.received is not None:
                break
        return torch.tensor(losses, dtype=torch.float64)

    def _placed(self, batch: Batch) -> EagerRows:
        if self.compiled is None:
            return EagerRows(self.problem, batch)
        self.compiled.place(batch)
        return self.compiled


def choose_rows(
    mode: str, problem: Problem, optimizer: torch.optim.Optimizer, signals: StopSignals, batch: Batch, steps: int
) -> tuple[RowSteps, str]:
    """How rows are best computed, see `pde_train.training.select_steps.choose`, whose arguments these are."""
    own = cast("GaussNewton", optimizer)
    eager = RowSteps(problem, own, signals)
    if mode == "never":
        return eager, "eager: method.compile=never"
    if own.solver in MATRIX_FREE:
        return eager, f"eager: method.solver={own.solver} takes products, and no Jacobian"
    if not problem.differentiator.compilable or not problem.row_wise(batch):
        return eager, "eager: the Jacobian is not computed point by point by functions that can be traced"
    rows, x = EagerRows(problem, batch), flat(own.parameters)
    compiled, why = compile_where_it_pays(
        mode,
        "the Jacobian",
        seconds_of(lambda: float(rows.jacobian(x)[0, 0])),  # a number, which a GPU has computed by then
        steps,
        lambda: CompiledRows(problem, batch),
        lambda found: _compare(found, rows, x),
    )
    rows.residual(x)  # the model has its parameters again
    return (eager if compiled is None else RowSteps(problem, own, signals, compiled)), why


def _compare(compiled: CompiledRows, eager: EagerRows, x: Tensor) -> None:
    """Refuse compiled rows that are others than eager ones; the order of rows is another one, their Gram matrix not."""

    def numbers(rows: EagerRows, at: Tensor) -> tuple[Tensor, Tensor]:
        residual, jacobian = rows.residual(at), rows.jacobian(at)
        return residual.square().sum().view(1), jacobian.T @ torch.cat([jacobian, residual.unsqueeze(1)], dim=1)

    nudged = x * (1 + torch.finfo(x.dtype).eps)
    check_agreement(numbers(compiled, x), numbers(eager, x), numbers(eager, nudged))
