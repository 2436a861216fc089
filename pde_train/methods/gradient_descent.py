"""Gradient descent and its family: any torch optimiser, driven by Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.problem import Problem
from pde_train.tracking.record import Record
from pde_train.training.loop import Loop
from pde_train.training.module import train
from pde_train.training.schedule import Schedule
from pde_train.training.select_steps import MODES
from pde_train.training.signals import StopSignals
from pde_train.training.training import MakeOptimizer, Training


@dataclass(frozen=True)
class GradientDescent(Method):
    """`steps` optimiser steps on the sum of mean squares of the residuals, full batch.

    Attributes:
        optimizer: Makes a torch optimiser from parameters.
        steps: Optimiser steps.
        chunk: Steps in one Lightning batch.
        log_every: Steps between two measurements of the error.
        checkpoint_every: Steps between two checkpoints.
        compile: ``auto``, ``always`` or ``never``, see `pde_train.training.select_steps`.

    Raises:
        UsageError: A number of steps that is no positive integer, or an unknown word for `compile`.
    """

    shares_points = True

    optimizer: MakeOptimizer
    steps: int
    chunk: int = 1000
    log_every: int = 100
    checkpoint_every: int = 1000
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "chunk", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise UsageError(f"method.{name}={value} is no number of steps: expected a positive integer")
        if self.compile not in MODES:
            raise UsageError(
                f"method.compile={self.compile} is unknown: expected one of {', '.join(MODES)}, choose one"
            )

    def training(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> Training:
        """The training of one run, which may go on together with others."""
        schedule = Schedule(self.steps, self.chunk, self.log_every, self.checkpoint_every, self.compile)
        return Training(problem, record, diagnostics, self.optimizer, schedule, folder)

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        with StopSignals() as signals:
            training = self.training(problem, record, diagnostics, folder)
            loop = Loop([training], signals)
            try:
                train(loop, folder)
            finally:
                loop.close()
        loop.end()
        return self.steps, training.batch
