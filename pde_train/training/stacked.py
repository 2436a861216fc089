"""Several runs of one shape, trained together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from pde_train.problem import Problem
from pde_train.training.loop import Failed, Loop
from pde_train.training.signals import StopSignals
from pde_train.training.training import MakeOptimizer, Training
from pde_train.training.updates import update_of


def why_not(problem: Problem, make_optimizer: MakeOptimizer) -> str | None:
    """Why a run cannot train together with others; None where it can.

    Args:
        problem: What it solves.
        make_optimizer: Makes its optimiser.

    Returns:
        The reason in words.
    """
    if not problem.differentiator.compilable:
        return f"{type(problem.differentiator).__name__} changes from step to step"
    optimizer: torch.optim.Optimizer = make_optimizer(problem.model.parameters())
    if update_of(optimizer) is None:
        return f"{type(optimizer).__name__} has no step that many runs can take together"
    if not all(p.requires_grad for p in problem.model.parameters()):
        return f"{type(problem.model).__name__} has parameters that are not trained"
    return None


def train_together(
    trainings: Sequence[Training],
    signals: StopSignals,
    ended: Callable[[Training], None],
    failed: Failed,
    memory: float,
    threads: int = 1,
) -> None:
    """Train runs that differ in seeds and numbers alone; those that have checkpoints of different steps train apart.

    Args:
        trainings: The runs.
        signals: Wishes to stop.
        ended: Told of a run that has taken its last step.
        failed: Told of a run that failed, while the others go on.
        memory: Bytes that the arrays of one step may take.
        threads: Of compiled steps.

    Raises:
        CannotStack: They cannot train together; none has begun.
        Interrupted: A signal asked to stop; every run has a checkpoint.
    """
    for _, group in itertools.groupby(sorted(trainings, key=lambda t: t.step), lambda t: t.step):
        loop = Loop(list(group), signals, failed, ended, memory, threads)
        try:
            loop.begin()
            for chunk in loop:
                loop.train(*chunk)
        finally:
            loop.close()
        loop.end()
