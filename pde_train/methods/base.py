"""What every way of finding parameters offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from pde_train.diagnostics.base import Diagnostics
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.tracking.record import Record
from pde_train.training.stop import Bounds


class Method(ABC):
    """A way of finding the parameters of a problem's model.

    Attributes:
        shares_points: Whether several processes can share the training points.
    """

    shares_points: bool = False

    @property
    def total_steps(self) -> int:
        """The optimiser steps that it takes; 0 for a method that takes none."""
        return getattr(self, "steps", 0)

    def bounded(self, bounds: Bounds) -> Method:
        """The same method, whose runs are pruned by bounds; one that takes no steps prunes none."""
        return self

    @abstractmethod
    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        """Change the parameters of `problem.model` for the better.

        Returns the number of optimiser steps taken and the last training points. Metrics and spectra go to `record`,
        among them `seconds`, the time of the fit alone, and `residual`, the relative residual on those points. What an
        interrupted fit left in `folder` is taken up.
        """
