"""Gradient descent and its family: any torch optimiser, driven by Lightning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.methods.trained import Trained
from pde_train.problem import Problem
from pde_train.schedules.base import LearningRate
from pde_train.schedules.constant import Constant
from pde_train.tracking.record import Record
from pde_train.training.training import MakeOptimizer, Training


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Trained):
    """Optimiser steps on the sum of mean squares of the residuals.

    Attributes:
        optimizer: Makes a torch optimiser from parameters.
        schedule: Factors of its learning rate.
        clip: The largest norm of a gradient, to which longer ones are shortened; None for any.

    Raises:
        UsageError: A value that cannot be used.
    """

    shares_points = True

    optimizer: MakeOptimizer
    schedule: LearningRate = field(default_factory=Constant)
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_built("schedule", LearningRate)
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"method.clip={self.clip} leaves no gradient: expected a positive norm, or null for any")

    def training(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> Training:
        plan = self.plan(rate=self.schedule, clip=self.clip)
        return Training(problem, record, diagnostics, self.optimizer, plan, folder)
