"""Many runs of one shape that train as one."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import Interrupted, sentence
from pde_train.geometry import Batch
from pde_train.methods.gradient_descent import GradientDescent
from pde_train.problem import Problem
from pde_train.progress import progress, waiting
from pde_train.run_folder import CHECKPOINT
from pde_train.tracking.record import Record
from pde_train.training.checkpoint import restore, save
from pde_train.training.module import ResidualModule
from pde_train.training.select_steps import COMPILE_SECONDS, SAVED, TRIED, check_agreement, stepped, tolerance
from pde_train.training.signals import StopSignals
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps
from pde_train.training.updates import update_of

log = logging.getLogger(__name__)

BLOCK = 8
"""Runs of a block on the CPU: more leave its cache. A stack of five is filled up to it, to share its compiled code."""


@dataclass
class Member:
    """One run of a stack: what the `fit` of its method is given, and whom to tell how it ended."""

    method: GradientDescent
    problem: Problem
    record: Record
    diagnostics: Diagnostics
    folder: Path
    finish: Callable[[int, Batch], None]
    stop: Callable[[BaseException], None]


class CannotStack(Exception):
    """`vmap` cannot take a step of these problems; the text says why."""


def why_not(member: Member) -> str | None:
    """Why a run cannot be stacked; None where it can."""
    if not isinstance(member.method, GradientDescent):
        return f"{type(member.method).__name__} takes no optimiser steps"
    if not member.problem.differentiator.compilable:
        return f"{type(member.problem.differentiator).__name__} changes from step to step"
    optimizer = member.method.optimizer(member.problem.model.parameters())
    if update_of(optimizer) is None:
        return f"{type(optimizer).__name__} is neither plain Adam nor gradient descent"
    return None


def fit_stack(members: Sequence[Member], memory: float, threads: int = 1) -> None:
    """Train runs that differ in seeds and numbers alone; each is told of its own end, and one that fails ends alone.

    memory: bytes that the arrays of a step may take. threads: of compiled steps. Runs whose checkpoints stand at
    different steps go on in different stacks. A run that cannot begin, by its checkpoint for instance, is left out and
    told nothing. A signal saves every run and raises Interrupted; CannotStack is raised before a stack has begun.
    """
    with StopSignals() as signals:
        runs = [run for member in members if (run := _begun(member, signals)) is not None]
        signals.install()
        for _, group in itertools.groupby(sorted(runs, key=lambda run: run.module.step), lambda run: run.module.step):
            _Stack(list(group), memory, threads, signals).train()


def _begun(member: Member, signals: StopSignals) -> _Run | None:
    """A member at work; None for one that cannot begin, and will say why when it is trained alone."""
    try:
        return _Run(member, signals)
    except Exception as error:
        log.info("a run of the stack is left out: %s", sentence(error))
        return None


class _Run:
    """A member at work: its module, its optimiser, and whether it still goes on."""

    def __init__(self, member: Member, signals: StopSignals):
        method = member.method
        self.member = member
        self.module = ResidualModule(
            member.problem, member.record, method.optimizer, signals, method.compile, method.steps, method.log_every
        )
        self.optimizer = self.module.configure_optimizers()
        self.live = True
        self.drawn = False
        self.checkpoint = member.folder / CHECKPOINT
        if self.checkpoint.exists():
            restore(self.checkpoint, self.module, self.optimizer, member.record.config_hash, method.steps)
            self.module.compile_mode = method.compile

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something of this run alone; an error ends it and no other."""
        if not self.live:
            return
        try:
            action()
        except Exception as error:  # whatever it is, it is of this run alone
            self.live = False
            self.member.stop(error)

    def draw(self, start: int) -> None:
        self.drawn = False
        self.drawn = self.module.draw_when_due(start)

    def save(self) -> None:
        self.module.record.flush()
        save(self.checkpoint, self.module, self.optimizer)

    def look(self) -> None:
        module = self.module
        self.member.diagnostics.look(module.problem, module.batch, module.step, module.record)

    def begin(self, why: str) -> None:
        if self.module.step == 0:
            self.module.record.tags["steps"] = why
            self.module.record.log(0, self.module.problem.errors())

    def conclude(self) -> None:
        steps, module = self.member.method.steps, self.module
        module.record.log(steps, {"seconds": module.seconds, "residual": module.problem.residual(module.batch)})
        self.member.finish(steps, module.batch)


class _Stack:
    """Runs at the same step that go on together."""

    def __init__(self, runs: Sequence[_Run], memory: float, threads: int, signals: StopSignals):
        self.runs = runs
        self.signals = signals
        self.method = runs[0].member.method
        self.start = runs[0].module.step
        self.memory, self.threads = memory, threads

    def train(self) -> None:
        with _threads(self.threads):
            self.steps = self._made()
            why = self._choose()
            self._compare()
        log.info("%d runs from step %d: %s", len(self.runs), self.start, why)
        self._each(lambda run: run.begin(why))
        looks = self.runs[0].member.diagnostics.steps(self.method.steps)
        if self.start == 0 and 0 in looks:
            self._each(_Run.look)
        sampler = self.runs[0].member.problem.sampler
        stops = self.method.stops(self.start, looks, sampler.resample_every)
        with progress(None, "training", total=self.method.steps, initial=self.start, unit="step") as bar:
            for start, stop in itertools.pairwise([self.start, *stops]):
                if not any(run.live for run in self.runs):
                    return
                self._chunk(start, stop)
                bar.update(self.runs[0].module.step - bar.n)
                if stop in looks and self.signals.received is None:
                    self._each(_Run.look)
                if stop % self.method.checkpoint_every == 0 or self.signals.received is not None:
                    self._each(_Run.save)
                if self.signals.received is not None:
                    raise Interrupted(self.signals.received, self.runs[0].module.step)
        self._each(_Run.conclude)

    def _chunk(self, start: int, stop: int) -> None:
        self._each(lambda run: run.draw(start))
        if any(run.drawn for run in self.runs):
            self.steps.place([run.module.batch for run in self.runs])
        for until in self.runs[0].module.pauses(start, stop):
            began = time.perf_counter()
            with _threads(self.threads):
                losses = self.steps.take(until - start)
            seconds = (time.perf_counter() - began) / len(self.runs)
            for run, own in zip(self.runs, losses, strict=True):
                run.attempt(partial(run.module.took, own, seconds))
            start = until
            if self.signals.received is not None:
                return

    def _each(self, action: Callable[[_Run], object]) -> None:
        for run in self.runs:
            run.attempt(partial(action, run))

    def _made(self) -> StackedSteps:
        """The steps of all runs, traced, in blocks that memory has room for."""
        modules = [run.module for run in self.runs]
        problems, batches = [m.problem for m in modules], [m.batch for m in modules]
        optimizers = [run.optimizer for run in self.runs]
        block = BLOCK if problems[0].device == "cpu" else math.ceil(len(modules) / BLOCK) * BLOCK
        if len(modules) <= BLOCK // 2:
            block = len(modules)
        while True:
            steps = StackedSteps(problems, optimizers, batches, self.signals, block)
            try:
                with waiting("tracing the optimisation step"):
                    steps.trace()
            except Exception as error:  # a formula that wants a Python number, or an operation that vmap does not know
                raise CannotStack((str(error).strip() or type(error).__name__).splitlines()[0]) from error
            room = max(1, int(self.memory // steps.bytes_of_each))
            if block <= room:
                return steps
            block = room

    def _compare(self) -> None:
        """Refuse a stack whose steps are not those that its first run would take alone, as its optimiser has them.

        Raises CannotStack. A first run that turns nan shows nothing.
        """
        module = self.runs[0].module
        alone = EagerSteps(module.problem, self.runs[0].optimizer, self.signals)
        expected, nudged = (stepped(alone, module.batch, roundings) for roundings in (0, 1))
        if all(bool(part.isfinite().all()) for part in (*expected, *nudged)):
            try:
                check_agreement(self.steps.tried(TRIED), expected, nudged)
            except ArithmeticError as error:
                raise CannotStack(f"its steps are not those of a run alone ({error})") from error

    def _choose(self) -> str:
        """Compile where that pays; how steps are computed, and why."""
        mode, left = self.method.compile, self.method.steps - self.start
        together = f"stacked with {len(self.runs) - 1} others"
        if mode == "never":
            return f"{together}, eager: method.compile=never"
        self.steps.losses()
        began = time.perf_counter()
        eager = self.steps.losses()
        seconds = (time.perf_counter() - began) * len(self.steps.blocks)
        saved = SAVED * seconds * left
        about = f"{left} steps of {seconds:.1e} s"
        cached = self.steps.traced.library is not None
        if mode == "auto" and not cached and saved < COMPILE_SECONDS / 2:
            return f"{together}, eager: compiling {about} would save {saved:.0f} s"
        try:
            nudged = self.steps.losses(nudge=torch.finfo(eager.dtype).eps)
            began = time.perf_counter()
            with waiting("compiling the optimisation step"):
                self.steps.compile()
            found = self.steps.losses()
            if not bool(
                ((found - eager).abs() <= tolerance(eager, nudged, eager.dtype))
                .logical_or(found.isnan() & eager.isnan())
                .all()
            ):
                raise ArithmeticError(f"the compiled losses are {found.tolist()}, the eager ones {eager.tolist()}")
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("the stacked steps could not be compiled (%s): they are taken eagerly", first)
            self.steps = self._made()
            return f"{together}, eager: the compilation failed"
        how = "compiled by an earlier run" if cached else f"compiled in {time.perf_counter() - began:.0f} s"
        return f"{together}, {how}, expected to save {saved:.0f} s over {about}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside, steps are compiled for so many threads and work on them; all else is too small for more than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
