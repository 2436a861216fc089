"""Every way of taking derivatives, compared on the parameters of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pde_train.diagnostics.base import Diagnostics, check_max_dense, check_rows, check_when, steps_of
from pde_train.diagnostics.comparison import compare
from pde_train.diagnostics.spectrum import SpectrumProbe
from pde_train.differentiators.base import Differentiator
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class Compare(Diagnostics):
    """The run's own spectrum, and at the same steps a comparison of many differentiators.

    See `pde_train.diagnostics.comparison.compare`.

    Attributes:
        differentiators: What to compare, by the name that stands in tables and metrics.
        when: See `SpectrumProbe`.
        max_dense: See `SpectrumProbe`.
        repeats: Timed gradients of each differentiator.
        rows: See `SpectrumProbe`.

    Raises:
        UsageError: A value that cannot be used.
    """

    differentiators: Mapping[str, Differentiator]
    when: Sequence[str | int] = ("first", "last")
    max_dense: int = 16_000_000
    repeats: int = 5
    rows: str = "loss"

    def __post_init__(self) -> None:
        check_when(self.when)
        check_max_dense(self.max_dense)
        check_rows(self.rows)
        given = self.differentiators if isinstance(self.differentiators, Mapping) else {}
        wrong = [str(k) for k, d in given.items() if not isinstance(d, Differentiator)]
        if wrong or not given:
            raise UsageError(
                f"diagnostics.differentiators has {', '.join(wrong) or 'nothing'} to compare that takes derivatives: "
                "expected differentiators by name, as in conf/diagnostics/compare.yaml"
            )
        if not (isinstance(self.repeats, int) and self.repeats >= 1):
            raise UsageError(f"diagnostics.repeats={self.repeats} times nothing: expected a positive integer")

    def steps(self, total: int) -> frozenset[int]:
        return steps_of(self.when, total)

    def measure(self, problem: Problem, batch: Batch, step: int, record: Record, matrix: Tensor | None = None) -> None:
        SpectrumProbe(self.when, self.max_dense, self.rows).measure(problem, batch, step, record, matrix)
        rows = self.rows if matrix is None else "system"
        comparison = compare(problem, batch, self.differentiators, self.max_dense, self.repeats, rows)
        for name, measured in comparison.items():
            record.compared(step, name, measured)
