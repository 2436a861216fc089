"""Singular values through training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pde_train.diagnostics.base import Diagnostics, check_max_dense, check_rows, check_when, steps_of
from pde_train.geometry import Batch
from pde_train.problem import Problem, steady_draws
from pde_train.progress import blocks
from pde_train.singular_values import Spectrum
from pde_train.spectra import singular_values
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class SpectrumProbe(Diagnostics):
    """The spectrum of the system matrix (random features) or of the residual Jacobian (networks).

    Attributes:
        when: Any of ``first`` (before training), ``last`` (after it), ``log`` (steps 1, 3, 10, 30,
            ...), and numbers of steps.
        max_dense: Entries of the largest Jacobian whose singular values are taken by a dense SVD. Above
            it they are taken by an adaptive randomised SVD, which the run says.
        rows: Scaling of the rows of a residual Jacobian, ``loss`` or ``points``, see
            `Problem.jacobian`. A run's tag ``spectrum_rows`` says which, or ``system`` for the matrix
            that least squares solves.

    Raises:
        UsageError: A value that cannot be used.
    """

    when: Sequence[str | int] = ("first", "log", "last")
    max_dense: int = 16_000_000
    rows: str = "loss"

    def __post_init__(self) -> None:
        check_when(self.when)
        check_max_dense(self.max_dense)
        check_rows(self.rows)

    def steps(self, total: int) -> frozenset[int]:
        return steps_of(self.when, total)

    def measure(self, problem: Problem, batch: Batch, step: int, record: Record, matrix: Tensor | None = None) -> None:
        record.tags["spectrum_rows"] = self.rows if matrix is None else "system"
        if matrix is not None:
            record.spectrum(step, Spectrum(singular_values(matrix)))
        elif step not in record.spectra:  # a resumed run may have looked before
            with steady_draws():
                jacobian = problem.jacobian(batch, self.rows)
            record.spectrum(step, jacobian.spectrum(self.max_dense, wrap=blocks("Jacobian")))
