"""No looks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pde_train.diagnostics.base import Diagnostics
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class NoDiagnostics(Diagnostics):
    """Never looks."""

    def steps(self, total: int) -> frozenset[int]:
        return frozenset()

    def measure(self, problem: Problem, batch: Batch, step: int, record: Record, matrix: Tensor | None = None) -> None:
        return
