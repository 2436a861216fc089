"""What is due between optimiser steps, and when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from pde_train.schedules.base import LearningRate
from pde_train.schedules.constant import Constant
from pde_train.training.stop import Stop
from pde_train.weighting.base import Weighting
from pde_train.weighting.fixed import Fixed


@dataclass(frozen=True)
class Schedule:
    """Numbers of optimiser steps: of the whole run, and between two of the same kind of interruption.

    Attributes:
        steps: Optimiser steps of the run.
        chunk: Steps that are taken without a break, which is one batch of Lightning.
        log_every: Steps between two measurements of the error.
        checkpoint_every: Steps between two checkpoints, or more where these would take too much of the time.
        compile: ``auto``, ``always`` or ``never``, see `pde_train.training.select_steps`.
        stop: When the run ends before its last step.
        weighting: Changes the weights of the terms of the loss.
        rate: The schedule of the learning rate.
        clip: The largest norm of a gradient, to which longer ones are shortened; None for any.
        redraw: New points are drawn where the loss has fallen by less than this part between two measurements; None for
            points that stay, apart from those of `sampler.resample_every`.
    """

    steps: int
    chunk: int
    log_every: int
    checkpoint_every: int
    compile: str
    stop: Stop = field(default_factory=Stop)
    weighting: Weighting = field(default_factory=Fixed)
    rate: LearningRate = field(default_factory=Constant)
    clip: float | None = None
    redraw: float | None = None

    def stops(self, start: int, measured: frozenset[int], resample_every: int) -> Iterator[int]:
        """The steps after `start` at which a chunk ends.

        Args:
            start: The step from which the run goes on.
            measured: Steps at which the diagnostics measure the model.
            resample_every: Steps between two draws of training points, 0 for points that stay.

        Yields:
            Steps in ascending order: every `chunk` steps, and wherever something is due.
        """
        periods = [n for n in (self.chunk, self.checkpoint_every, resample_every) if n]
        later = sorted(step for step in measured if step > start)
        while start < self.steps:
            due = [(start // n + 1) * n for n in periods]
            start = min([*due, *later[:1], self.steps])
            later = [step for step in later if step > start]
            yield start

    def chunks(self, start: int, measured: frozenset[int], resample_every: int) -> Iterator[tuple[int, int]]:
        """The same as pairs: first step of a chunk, first step after it."""
        return itertools.pairwise(itertools.chain([start], self.stops(start, measured, resample_every)))

    def pauses(self, start: int, stop: int) -> list[int]:
        """The steps after `start`, up to `stop`, before which something is measured or changed; `stop` is the last."""
        periods = [self.log_every] if self.weighting.fixed else [self.log_every, self.weighting.every]
        due = {step for n in periods for step in range((start // n + 1) * n, stop, n)}
        return [*sorted(due), stop]
