"""What every way of finding parameters offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from pde_train.diagnostics.base import Diagnostics
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.record import Record


class Method(ABC):
    """A way of finding the parameters of a problem's model."""

    @abstractmethod
    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        """Change the parameters of `problem.model` for the better; return the steps taken and the last points.

        Metrics and spectra go to `record` (`seconds`, the time of the fit alone, among them). A checkpoint of an
        interrupted fit that lies in `folder` is taken up.
        """
