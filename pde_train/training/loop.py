"""The training loop: how a step happens, for one run or for several that train together.

A chunk of optimiser steps is taken at a time, from one interruption to the next: new points, a measurement of the
error, the diagnostics, a checkpoint. How the steps of a chunk are computed is decided once, before the first one
(`pde_train.training.select_steps`): operation by operation, by compiled code, shared among processes, or stacked.
Lightning drives the loop of a single run (`pde_train.training.module`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pde_train.errors import Interrupted
from pde_train.progress import progress
from pde_train.training.select_steps import select
from pde_train.training.signals import StopSignals
from pde_train.training.steps import Steps
from pde_train.training.training import Training

log = logging.getLogger(__name__)

Failed = Callable[[Training, Exception], None]
"""Told of a training that failed while others go on."""


class Loop:
    """Trains n >= 1 runs of one shape, which are at the same step, to their last step.

    Args:
        trainings: The runs. Numbers of steps and the sampler's period are those of the first one.
        signals: Wishes to stop, which are obeyed after the steps that are under way, with a checkpoint of every run.
        failed: Told of a run that failed; the others go on without it. None: the error of a run is raised.
        ended: Told of every run that has ended, once its last numbers are kept.
        memory: Bytes that the arrays of one step may take, where several runs train together.
        threads: Threads of torch during the steps; all else is too small for more than one. None: as it is.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        signals: StopSignals,
        failed: Failed | None = None,
        ended: Callable[[Training], object] | None = None,
        memory: float = float("inf"),
        threads: int | None = None,
    ):
        self.trainings = trainings
        self.signals = signals
        self.schedule = trainings[0].schedule
        self._failed = failed
        self._ended = ended
        self._live = [True] * len(trainings)
        self._memory = memory
        self._threads = threads
        self._steps: Steps | None = None
        self._bar: tqdm | None = None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The chunks that are still to be trained: first step, first step after it. Ends early where no run is left."""
        first = self.trainings[0]
        for chunk in self.schedule.chunks(first.step, first.measured, first.problem.sampler.resample_every):
            if not any(self._live):
                return
            yield chunk

    def begin(self) -> None:
        """Decide how steps are computed, and measure the models before the first step.

        Raises:
            CannotStack: Several runs cannot train together.
        """
        self.signals.install()
        began = time.perf_counter()
        with _threads(self._threads), self.signals.at_once():
            self._steps, why = select(self.trainings, self.signals, self._memory)
        seconds = (time.perf_counter() - began) / len(self.trainings)
        self._each(Training.begin, [why] * len(self.trainings), [seconds] * len(self.trainings))
        first = self.trainings[0]
        points = sum(len(p.x) for p in first.points.batch.values())
        parameters = sum(p.numel() for p in first.model.parameters())
        runs = "" if len(self.trainings) == 1 else f"{len(self.trainings)} runs of "
        log.info("training %s%d parameters on %d points from step %d", runs, parameters, points, first.step)
        log.info("%s", first.record.tags["steps"])
        if first.step == 0:
            self._each(Training.measure_when_due)
        self._bar = progress(None, "training", total=self.schedule.steps, initial=first.step, unit="step")

    def train(self, start: int, stop: int) -> None:
        """Take the steps of one chunk, and do what is due after it.

        Raises:
            Interrupted: A signal asked to stop; every run has a checkpoint of the step that it has come to.
        """
        assert self._steps is not None
        if not any(self._live):  # Lightning asks for a chunk before the one before it is trained
            return
        self._each(Training.draw_when_due, [start] * len(self.trainings))
        for until in self.schedule.pauses(start, stop):
            began = time.perf_counter()
            self._each(Training.adapt_when_due)
            rates = [training.rates(until - start) for training in self.trainings]
            factors = None if rates[0] is None else torch.stack([rate for rate in rates if rate is not None])
            with _threads(self._threads):
                losses = self._advance(start, until, factors)
            seconds = (time.perf_counter() - began) / len(self.trainings)
            if observed := self._steps.observed():
                self._each(Training.observe, [start] * len(self.trainings), observed)
            self._each(Training.advance, losses, [seconds] * len(self.trainings))
            start += losses.shape[1]
            self._show(start, losses)
            self._end_stopped()
            if self.signals.received is not None or not any(self._live):
                break
        if start == stop:  # also where a signal came in the last step: a resumed run begins after it
            self._each(Training.measure_when_due)
        if self.signals.received is not None and any(self._live):  # a run that has ended has nothing to go on with
            self._each(Training.save)
            raise Interrupted(self.signals.received, start)
        if stop % self.schedule.checkpoint_every == 0 or stop == self.schedule.steps:
            self._each(Training.save_when_worth)

    def _advance(self, start: int, until: int, rates: Tensor | None) -> Tensor:
        """Take steps, one at a time where each has points of its own; the losses (trainings, steps taken)."""
        assert self._steps is not None
        count = 1 if self.trainings[0].problem.sampler.batch_size else until - start
        losses = []
        for step in range(start, until, count):
            own = None if rates is None else rates[:, step - start : step - start + count]
            losses.append(
                self._steps.advance([training.points.of_step(step) for training in self.trainings], count, own)
            )
            if self.signals.received is not None:
                break
        return torch.cat(losses, dim=1)

    def end(self) -> None:
        """Note what training took and the residual to which it came, of every run that has not ended before."""
        self._each(self._end)

    def close(self) -> None:
        """Give back what steps hold besides memory, such as processes."""
        if self._steps is not None:
            self._steps.close()
        if self._bar is not None:
            self._bar.close()
            self._bar = None  # here, where a signal is noted: Python ignores what is raised in a `__del__`

    def _end(self, training: Training) -> None:
        training.end()
        if self._ended is not None:
            self._ended(training)

    def _end_stopped(self) -> None:
        """End the runs that have a reason to stop; the others go on."""
        for i, training in enumerate(self.trainings):
            if self._live[i] and training.stopped is not None:
                log.info("training ends at step %d, %s", training.step, training.stopped)
                self._one(i, self._end)
                self._live[i] = False

    def _show(self, step: int, losses: Tensor) -> None:
        assert self._bar is not None
        self._bar.set_postfix(loss=f"{float(losses[0, -1]):.2e}", refresh=False)
        self._bar.update(step - self._bar.n)

    def _each(self, action: Callable[..., object], *arguments: Sequence[Any] | Tensor) -> None:
        """Do something for every run that has not failed, each with its own arguments; an error is of one run alone."""
        for i in range(len(self.trainings)):
            if self._live[i]:
                self._one(i, action, *(values[i] for values in arguments))

    def _one(self, i: int, action: Callable[..., object], *arguments: Any) -> None:
        try:
            action(self.trainings[i], *arguments)
        except Exception as error:  # whatever it is, it is of this run alone
            if self._failed is None:
                raise
            self._live[i] = False
            self._failed(self.trainings[i], error)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Inside, torch works with so many threads, for which steps are compiled, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
