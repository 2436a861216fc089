"""What all methods share that take one step after the other."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.problem import Problem
from pde_train.tracking.record import Record
from pde_train.training.loop import Loop
from pde_train.training.schedule import Schedule
from pde_train.training.select_steps import MODES
from pde_train.training.signals import StopSignals
from pde_train.training.stop import Bounded, Bounds, Stop
from pde_train.training.training import Training
from pde_train.weighting.base import Weighting
from pde_train.weighting.fixed import Fixed


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """Takes `steps` steps, with pauses for measurements and checkpoints.

    Attributes:
        steps: The largest number of steps.
        chunk: Steps in one Lightning batch.
        log_every: Steps between two measurements of error and held-out residual.
        checkpoint_every: Steps between two checkpoints, or more where these would take too much of the time.
        compile: ``auto``, ``always`` or ``never``, see `pde_train.training.select_steps`.
        stop: When the run ends before its last step.
        weighting: Changes the weights of the terms of the loss.
        redraw: New points are drawn where the loss has fallen by less than this part between two measurements; None for
            never.

    Raises:
        UsageError: A number of steps that is no positive integer, or another value that cannot be used.
    """

    steps: int
    chunk: int = 1000
    log_every: int = 100
    checkpoint_every: int = 1000
    compile: str = "auto"
    stop: Stop = field(default_factory=Stop)
    weighting: Weighting = field(default_factory=Fixed)
    redraw: float | None = None

    def __post_init__(self) -> None:
        self._check_built("stop", Stop)
        self._check_built("weighting", Weighting)
        for name in ("steps", "chunk", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise UsageError(f"method.{name}={value} is no number of steps: expected a positive integer")
        if self.compile not in MODES:
            raise UsageError(
                f"method.compile={self.compile} is unknown: expected one of {', '.join(MODES)}, choose one"
            )
        if self.redraw is not None and not 0 < self.redraw < 1:
            raise UsageError(
                f"method.redraw={self.redraw} is no part of the loss: expected a number between 0 and 1, or null for "
                "points that stay"
            )

    def _check_built(self, group: str, kind: type) -> None:
        """Refuse anything but what a group of the configuration builds."""
        value = getattr(self, group)
        if not isinstance(value, kind):
            raise UsageError(
                f"method.{group}={value} is not what the group {group} builds: expected a choice of that group, as in "
                f"{group}=..., and no method.{group}"
            )

    def bounded(self, bounds: Bounds) -> Trained:
        return replace(self, stop=Bounded(**vars(self.stop), bounds=bounds))

    def plan(self, **others: Any) -> Schedule:
        """What is due between steps, with what a method adds to it."""
        return Schedule(
            self.steps,
            self.chunk,
            self.log_every,
            self.checkpoint_every,
            self.compile,
            self.stop,
            self.weighting,
            redraw=self.redraw,
            **others,
        )

    @abstractmethod
    def training(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> Training:
        """The training of one run, which may go on together with others."""

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        from pde_train.training.module import train  # loads Lightning, for seconds that stacks do without

        with StopSignals() as signals:
            training = self.training(problem, record, diagnostics, folder)
            loop = Loop([training], signals)
            try:
                train(loop, folder)
            finally:
                loop.close()
        loop.end()
        return training.step, training.points.batch
