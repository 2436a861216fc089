"""When something is due between optimiser steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Numbers of optimiser steps: of the whole run, and between two of the same kind of interruption.

    Attributes:
        steps: Optimiser steps of the run.
        chunk: Steps that are taken without a break, which is one batch of Lightning.
        log_every: Steps between two measurements of the error.
        checkpoint_every: Steps between two checkpoints.
        compile: ``auto``, ``always`` or ``never``, see `pde_train.training.select_steps`.
    """

    steps: int
    chunk: int
    log_every: int
    checkpoint_every: int
    compile: str

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
        """The steps after `start`, up to `stop`, before which errors are measured; `stop` is the last of them."""
        return [*range((start // self.log_every + 1) * self.log_every, stop, self.log_every), stop]
