"""What an optimiser cannot be combined with: refused before the first step, or said in a warning."""

from __future__ import annotations

import logging

import torch

from pde_train.errors import UsageError
from pde_train.optimizers.gauss_newton import GaussNewton
from pde_train.optimizers.trials import QuasiNewton
from pde_train.problem import Problem
from pde_train.training.schedule import Schedule
from pde_train.training.steps import needs_closure

log = logging.getLogger(__name__)


def check_combination(optimizer: torch.optim.Optimizer, schedule: Schedule, problem: Problem) -> None:
    """Refuse what an optimiser cannot be combined with.

    An optimiser that compares losses needs the same loss at each of its trials: with all points, and with derivatives
    that are not drawn anew. It has no learning rate to schedule and no gradient to clip.

    Args:
        optimizer: The optimiser.
        schedule: The learning rate, clipping and weighting of the run.
        problem: Its sampler and differentiator.

    Raises:
        UsageError: They cannot be combined.
    """
    kind = type(optimizer).__name__
    if not needs_closure(optimizer) and not isinstance(optimizer, GaussNewton):
        return
    if not (schedule.rate.constant and schedule.clip is None):
        raise UsageError(
            f"{kind} chooses the length of its steps by the loss, and has no learning rate to schedule and no "
            "gradient to clip: expected schedule=constant and method.clip=null, or a first-order optimizer"
        )
    if problem.sampler.batch_size:
        raise UsageError(
            f"{kind} compares losses, and sampler.batch_size={problem.sampler.batch_size} gives every step "
            "other points: expected sampler.batch_size=0, or a first-order optimizer"
        )
    if not problem.differentiator.deterministic:
        raise UsageError(
            f"{kind} compares losses, and {type(problem.differentiator).__name__} draws other directions each "
            "time: expected derivatives that stay, such as differentiator=taylor, or a first-order optimizer"
        )
    if isinstance(optimizer, QuasiNewton):
        _warn_of_short_periods(optimizer.defaults["max_eval"], schedule, problem)


def _warn_of_short_periods(most: int, schedule: Schedule, problem: Problem) -> None:
    """Say that a line search of up to `most` evaluations may begin anew before it has ended."""
    periods = {"sampler.resample_every": problem.sampler.resample_every or most}
    periods["weighting.every"] = most if schedule.weighting.fixed else schedule.weighting.every
    for name, period in periods.items():
        if period < most:
            log.warning(
                "%s=%d makes another loss before a line search of up to optimizer.max_eval=%d evaluations has "
                "ended, which then begins anew: choose %s=%d or more",
                name,
                period,
                most,
                name,
                most,
            )
