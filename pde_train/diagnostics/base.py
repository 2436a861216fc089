"""What every diagnostic offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.spectra import Spectrum


class Diagnostics(ABC):
    """Decides at which optimiser steps a spectrum is taken, and takes that of a network."""

    @abstractmethod
    def steps(self, total: int) -> frozenset[int]:
        """The steps, of 0 (before training) ... total (after it), at which a spectrum is wanted."""

    @abstractmethod
    def spectrum(self, problem: Problem, batch: Batch) -> Spectrum:
        """The singular values of the residual Jacobian of the problem's model at its present parameters."""
