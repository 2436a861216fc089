"""How optimiser steps are computed: one decision, for one run or several that train together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.optimizers.base import GRADIENTS
from pde_train.optimizers.gauss_newton import GaussNewton
from pde_train.problem import Problem
from pde_train.progress import waiting
from pde_train.training.agreement import check_agreement, gradient_at, put_back, stepped
from pde_train.training.compiled_steps import CompiledSteps
from pde_train.training.row_steps import choose_rows
from pde_train.training.select_stacked_steps import select_stacked
from pde_train.training.sharded_steps import CompiledShardedSteps, ShardedSteps, serve
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EagerSteps, SingleSteps, Steps, trained
from pde_train.training.training import Training
from pde_train.training.updates import update_for
from pde_train.training.when_to_compile import compile_where_it_pays, seconds_of
from pde_train.training.workers import Workers

MODES = ("auto", "always", "never")


def select(trainings: Sequence[Training], signals: StopSignals, memory: float) -> tuple[Steps, str]:
    """How the steps that are left to trainings are best computed.

    Args:
        trainings: One, or several whose steps are then taken together.
        signals: Wishes to stop.
        memory: Bytes that the arrays of one step may take, where there are several.

    Returns:
        The steps, and the choice in words with its reason.

    Raises:
        CannotStack: Several cannot be taken together.
    """
    first = trainings[0]
    steps: Steps
    if len(trainings) > 1:
        steps, why = select_stacked(trainings, signals, memory)
        compiled = steps.compiled
    else:
        left = first.schedule.steps - first.step
        how = choose_rows if isinstance(first.optimizer, GaussNewton) else partial(choose, clip=first.schedule.clip)
        steps, why = how(first.compile, first.problem, first.optimizer, signals, first.points.of_step(first.step), left)
        compiled = why.startswith("compiled")
    for training in trainings:  # a resumed run goes on as it began
        training.compile = "always" if compiled else "never"
    return steps, why


def choose(
    mode: str,
    problem: Problem,
    optimizer: torch.optim.Optimizer,
    signals: StopSignals,
    batch: Batch,
    steps: int,
    clip: float | None = None,
) -> tuple[SingleSteps, str]:
    """How steps of one problem are best computed.

    ``auto`` compiles where that is expected to cost less time than it saves, from the measured time of
    an eager gradient and the number of them that a step takes at least. Code that an earlier run compiled costs next
    to nothing. A compilation that fails is one warning and eager steps.

    Args:
        mode: One of MODES.
        problem: Whose loss is minimised.
        optimizer: Of the parameters of its model.
        signals: Wishes to stop.
        batch: The training points.
        steps: How many are to be taken.
        clip: The largest norm of a gradient; None for any.

    Returns:
        The steps, and the choice in words with its reason.

    Raises:
        UsageError: Processes are to share points whose residuals depend on each other.
    """
    eager: SingleSteps
    if problem.processes == 1:
        eager, shared = EagerSteps(problem, optimizer, signals, clip), ""
    elif not problem.row_wise(batch):
        raise UsageError(
            f"accelerator.processes={problem.processes} shares the points, and a residual of "
            f"{type(problem.pde).__name__} depends on other points than its own: expected one process, choose "
            "accelerator=cpu or gpu"
        )
    else:
        with waiting("starting the processes that share the points"):
            workers = Workers(problem.processes, problem.device, serve, problem.meetings)
        eager = ShardedSteps(problem, optimizer, signals, workers, clip)
        shared = f"; {problem.processes} processes share the points"
    try:
        chosen, why = _compiled_or(eager, mode, batch, steps)
    except BaseException:  # an interrupted compilation leaves no process behind
        eager.close()
        raise
    return chosen, f"{why}{shared}"


def _compiled_or(eager: SingleSteps, mode: str, batch: Batch, steps: int) -> tuple[SingleSteps, str]:
    """Compiled steps where they pay, or these eager ones; and why."""
    problem = eager.problem
    if mode == "never":
        return eager, "eager: method.compile=never"
    if not problem.differentiator.compilable:
        return eager, f"eager: {type(problem.differentiator).__name__} changes from step to step"
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in problem.model.parameters()):
        return eager, "eager: hooks of parameters need their gradient by backward()"
    buffers = [b.clone() for b in problem.model.buffers()]
    seconds = seconds_of(partial(_step_to_time, eager, batch)) * getattr(eager.optimizer, GRADIENTS, 1)
    if not all(map(torch.equal, problem.model.buffers(), buffers)):
        put_back(problem.model.buffers(), buffers)
        return eager, "eager: the model changes its buffers, which compiled code would not"

    def traced() -> CompiledSteps | CompiledShardedSteps:
        if isinstance(eager, ShardedSteps):
            return CompiledShardedSteps(eager)
        return CompiledSteps(problem, eager.optimizer, eager.signals, batch, eager.clip)

    compiled, why = compile_where_it_pays(
        mode, "the optimisation step", seconds, steps, traced, lambda found: _compare(found, eager, batch)
    )
    return (eager if compiled is None else compiled), why


def _step_to_time(eager: SingleSteps, batch: Batch) -> float:
    """What would be compiled: the loss with its gradient and, where one process takes it, the optimiser's step."""
    loss = eager.gradient(batch)
    parameters = trained(eager.problem.model)
    update = update_for(eager.optimizer, parameters)
    if update is not None and not isinstance(eager, ShardedSteps):
        state = update.state(eager.optimizer, parameters)
        update.step(state, state[0], loss, update.hyper(eager.optimizer))
    return float(loss)


def _compare(compiled: CompiledSteps | CompiledShardedSteps, eager: SingleSteps, batch: Batch) -> None:
    """Refuse compiled code that computes something else than eager steps do.

    Compared are losses and parameters of TRIED steps where the whole step is compiled, otherwise loss and gradient.
    What parameters one rounding away make of the eager result passes for rounding.
    """
    whole = isinstance(compiled, CompiledSteps) and compiled.update is not None
    tried = stepped if whole else gradient_at
    check_agreement(tried(compiled, batch, 0), tried(eager, batch, 0), tried(eager, batch, 1))
