"""How the optimiser steps of several runs of one shape are taken together."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from pde_train.errors import brief
from pde_train.progress import waiting
from pde_train.training.agreement import TRIED, check_agreement, stepped, tolerance
from pde_train.training.compiled_steps import SMALL_BLOCK_ROWS, evaluations
from pde_train.training.signals import StopSignals
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps
from pde_train.training.training import Training
from pde_train.training.when_to_compile import compile_where_it_pays

BLOCK = 8
"""The most runs of a block on the CPU: more leave its cache."""

ALONE = 2e7
"""From so many evaluations of the model on, over all steps that are left, a run with wide stencils trains alone.

Blocks of points of one run stay in the cache where those of a stack do not: medians of steps by finite differences, of
one run and of a run in a stack, are 5.8 and 8.6 ms (biharmonic in 2D), 2.2 and 2.4 (Poisson in 2D), 0.64 and 1.04
(biharmonic in 1D, accuracy 8). Before its first step a run alone takes some seconds, to trace it for instance."""


class CannotStack(Exception):
    """Several runs cannot train together; the text says why."""


def select_stacked(trainings: Sequence[Training], signals: StopSignals, memory: float) -> tuple[StackedSteps, str]:
    """The steps of several runs as one, compiled where that costs less time than it saves.

    Args:
        trainings: Runs that differ in numbers alone, at the same step.
        signals: Wishes to stop.
        memory: Bytes that the arrays of one step may take.

    Returns:
        The steps, and the choice in words with its reason.

    Raises:
        CannotStack: torch's `vmap` cannot take a step, it is not the step that the first run takes alone, or runs are
            faster alone.
    """
    _check_worth(trainings[0])
    steps, why = _compiled_where_it_pays(trainings, signals, memory)
    _compare(steps, trainings[0], signals)
    return steps, f"stacked with {len(trainings) - 1} others, {why}"


def _check_worth(first: Training) -> None:
    """Refuse stencils whose points leave the cache, where code of one run is worth its compilation."""
    if first.problem.device != "cpu" or first.compile == "never":
        return
    batch = first.points.of_step(first.step)
    each = evaluations(first.problem, batch)
    of_a_step = each * len(batch["interior"].x)
    if each > 1 and of_a_step > SMALL_BLOCK_ROWS and of_a_step * (first.schedule.steps - first.step) >= ALONE:
        raise CannotStack(f"a step evaluates the model at {each} points for each of its own, which is faster alone")


def _traced(trainings: Sequence[Training], signals: StopSignals, memory: float) -> StackedSteps:
    """The steps of all runs, traced, in blocks that memory has room for."""
    problems = [training.problem for training in trainings]
    if problems[0].pde.has_exact_conditions and len({tuple(p.pde.numbers().items()) for p in problems}) > 1:
        raise CannotStack("the ansatz of pde.conditions=exact has the numbers of one PDE")
    batches = [training.points.of_step(training.step) for training in trainings]
    optimizers = [training.optimizer for training in trainings]
    block = block_of(len(trainings)) if problems[0].device == "cpu" else math.ceil(len(trainings) / BLOCK) * BLOCK
    while True:
        steps = StackedSteps(problems, optimizers, batches, signals, block, trainings[0].schedule.clip)
        try:
            with waiting("tracing the optimisation step"):
                steps.trace()
        except Exception as error:  # a formula that wants a Python number, or an operation that vmap does not know
            raise CannotStack(brief(error)) from error
        room = memory / steps.bytes_of_each
        if block <= max(1.0, room):
            return steps
        block = max(1, int(room))


def block_of(count: int) -> int:
    """The size of a block on the CPU, such that the fewest places of the last one are filled up.

    For 20 runs four blocks of five take 0.7 of the time of three blocks of eight.

    Args:
        count: The number of runs.

    Returns:
        The number of runs of a block.
    """
    return count if count <= BLOCK else min(range(BLOCK, BLOCK // 2, -1), key=lambda block: -count % block)


def _compiled_where_it_pays(
    trainings: Sequence[Training], signals: StopSignals, memory: float
) -> tuple[StackedSteps, str]:
    first = trainings[0]
    left = first.schedule.steps - first.step
    steps = _traced(trainings, signals, memory)
    if first.compile == "never":
        return steps, "eager: method.compile=never"
    float(steps.losses()[0])  # a GPU has computed them by then
    began = time.perf_counter()
    eager = steps.losses()
    float(eager[0])
    seconds = (time.perf_counter() - began) * len(steps.blocks)
    nudged = steps.losses(nudge=torch.finfo(eager.dtype).eps)
    compiled, why = compile_where_it_pays(
        first.compile,
        "the optimisation step",
        seconds,
        left,
        lambda: steps,
        lambda found: _agree(found.losses(), eager, nudged),
    )
    if compiled is None and steps.compiled:
        steps = _traced(trainings, signals, memory)
    return steps, why.removeprefix("compiled: ")


def _agree(compiled: Tensor, eager: Tensor, nudged: Tensor) -> None:
    close = (compiled - eager).abs() <= tolerance(eager, nudged, eager.dtype)
    if not bool((close | (compiled.isnan() & eager.isnan())).all()):
        raise ArithmeticError(f"the compiled losses are {compiled.tolist()}, the eager ones {eager.tolist()}")


def _compare(steps: StackedSteps, first: Training, signals: StopSignals) -> None:
    """Refuse steps that are not those that the first run would take alone, as its optimiser has them.

    A first run that turns nan shows nothing.

    Args:
        steps: Of all runs.
        first: The first run.
        signals: Wishes to stop.

    Raises:
        CannotStack: They are not.
    """
    alone = EagerSteps(first.problem, first.optimizer, signals, first.schedule.clip)
    batch = first.points.of_step(first.step)
    expected, nudged = (stepped(alone, batch, roundings) for roundings in (0, 1))
    if all(bool(part.isfinite().all()) for part in (*expected, *nudged)):
        try:
            check_agreement(steps.tried(TRIED), expected, nudged)
        except ArithmeticError as error:
            raise CannotStack(f"its steps are not those of a run alone ({error})") from error
