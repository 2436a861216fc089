"""Singular values through training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pde_train.diagnostics.base import Diagnostics, check_max_dense, check_when, steps_of
from pde_train.geometry import Batch
from pde_train.problem import Problem, steady_draws
from pde_train.record import Record
from pde_train.spectra import Spectrum, singular_values


@dataclass(frozen=True)
class SpectrumProbe(Diagnostics):
    """The spectrum of the system matrix (random features) or of the residual Jacobian (networks).

    when: of `first` (before training), `last` (after it), `log` (steps 1, 3, 10, 30, ...) and numbers of steps.
    max_dense: entries of the largest Jacobian taken dense; above it an adaptive randomised SVD, which the run says.
    """

    when: Sequence[str | int] = ("first", "log", "last")
    max_dense: int = 16_000_000

    def __post_init__(self) -> None:
        check_when(self.when)
        check_max_dense(self.max_dense)

    def steps(self, total: int) -> frozenset[int]:
        return steps_of(self.when, total)

    def look(self, problem: Problem, batch: Batch, step: int, record: Record, matrix: Tensor | None = None) -> None:
        if matrix is not None:
            record.spectrum(step, Spectrum(singular_values(matrix)))
        elif step not in record.spectra:  # a resumed run may have looked before
            with steady_draws():
                jacobian = problem.jacobian(batch)
            record.spectrum(step, jacobian.spectrum(self.max_dense))
