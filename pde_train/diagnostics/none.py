"""No spectra."""

from __future__ import annotations

from dataclasses import dataclass

from pde_train.diagnostics.base import Diagnostics
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.spectra import Spectrum


@dataclass(frozen=True)
class NoDiagnostics(Diagnostics):
    """Never takes a spectrum."""

    def steps(self, total: int) -> frozenset[int]:
        return frozenset()

    def spectrum(self, problem: Problem, batch: Batch) -> Spectrum:
        raise NotImplementedError("diagnostics=none takes no spectra")
