"""How optimiser steps are computed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.training.signals import StopSignals

Observation = tuple[Mapping[str, float], Tensor | None]
"""What a step has measured by the way: metrics, and singular values of the residual's Jacobian before it."""


EAGER_ROWS = 16384
"""Points of the interior that are differentiated at once: a million would take 15 GB for three layers of 64."""


class Steps(ABC):
    """Takes optimiser steps on the residual losses of one or several problems."""

    @abstractmethod
    def advance(self, batches: Sequence[Batch], count: int, rates: Tensor | None = None) -> Tensor:
        """Take up to `count` steps, fewer when a signal asks to stop.

        Args:
            batches: The training points of each problem.
            count: Steps, at least one.
            rates: Factors (problems, count) of the learning rates; None for 1.

        Returns:
            The losses before each step, (problems, steps taken).
        """

    def observed(self) -> list[list[Observation]]:
        """What was measured at each of the last steps, for each problem; empty for steps that measure nothing."""
        return []

    def close(self) -> None:  # noqa: B027
        """Give back what the steps hold besides memory, such as processes."""


class SingleSteps(Steps):
    """The steps of one problem by a torch optimiser; how the gradient is computed is left open.

    Args:
        problem: Whose loss is minimised.
        optimizer: Of the parameters of the problem's model.
        signals: Wishes to stop.
        clip: The largest norm of a gradient, to which longer ones are shortened; None for any.
    """

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, signals: StopSignals, clip: float | None = None
    ):
        self.problem = problem
        self.optimizer: Any = optimizer
        self.signals = signals
        self.clip = clip
        self.seen: list[Observation] = []

    @abstractmethod
    def gradient(self, batch: Batch) -> Tensor:
        """The loss on a batch, a scalar, leaving its gradient in the parameters."""

    def advance(self, batches: Sequence[Batch], count: int, rates: Tensor | None = None) -> Tensor:
        return self.take(batches[0], count, None if rates is None else rates[0]).unsqueeze(0)

    def observed(self) -> list[list[Observation]]:
        seen, self.seen = self.seen, []
        return [seen]

    def take(self, batch: Batch, count: int, rates: Tensor | None = None) -> Tensor:
        """Take steps of the one problem.

        An optimiser that needs no closure finds the gradient in the parameters, where its hooks find
        it, too.

        Args:
            batch: The training points.
            count: Steps, at least one; fewer are taken when a signal asks to stop.
            rates: Factors (count,) of the learning rate; None for 1.

        Returns:
            The loss before each step, (steps taken,).
        """
        losses = []
        for i in range(count):
            if self.needs_closure:
                losses.append(self.optimizer.step(lambda: self.gradient(batch)))
            else:
                losses.append(self.gradient(batch))
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.problem.model.parameters(), self.clip)
                with _rate(self.optimizer, 1.0 if rates is None else float(rates[i])):
                    self.optimizer.step()
            if self.signals.received is not None:
                break
        return torch.stack(losses)

    @cached_property
    def needs_closure(self) -> bool:
        """Whether the optimiser evaluates the loss by itself, as line searches do."""
        return needs_closure(self.optimizer)


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser evaluates the loss by itself, so that it has no learning rate to change from outside."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


@contextmanager
def _rate(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Inside, the learning rate of every group is multiplied by a factor."""
    if factor == 1:
        yield
        return
    before = [group["lr"] for group in optimizer.param_groups]
    for group, lr in zip(optimizer.param_groups, before, strict=True):
        group["lr"] = factor * lr
    try:
        yield
    finally:
        for group, lr in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = lr


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimiser changes."""
    return [p for p in model.parameters() if p.requires_grad]


def give(parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Leave a gradient, one vector (p,), in its parameters."""
    parts: Sequence[Tensor] = gradient.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


class EagerSteps(SingleSteps):
    """Every operation on its own; EAGER_ROWS points of the interior at a time, as each keeps many numbers."""

    def gradient(self, batch: Batch) -> Tensor:
        self.optimizer.zero_grad()
        rows = {region: len(points.x) for region, points in batch.items()}
        losses = []
        for part in in_memory(self.problem, batch):
            value = self.problem.loss(part, rows)
            value.backward()
            losses.append(value.detach())
        return sum(losses[1:], losses[0])


def in_memory(problem: Problem, batch: Batch) -> Iterator[Batch]:
    """Divide a batch so that each part can be differentiated at once.

    Directions that are drawn at random are the same for each part.

    Args:
        problem: Whose residuals are evaluated.
        batch: The points.

    Yields:
        The batch, where it has up to EAGER_ROWS points of the interior, or residuals that depend on other points than
        their own; otherwise parts of it.
    """
    if len(batch["interior"].x) <= EAGER_ROWS or not problem.row_wise(batch):
        yield batch
        return
    first, others = split(batch, EAGER_ROWS)
    state = torch.get_rng_state()
    for part in (first, *others):
        torch.set_rng_state(state)
        yield part


def split(batch: Batch, rows: int) -> tuple[Batch, list[Batch]]:
    """The batch with at most `rows` points of the interior, and its other points in blocks of so many."""
    interior = batch["interior"]
    total = interior.x.shape[0]
    first = (total - 1) % rows + 1
    starts = range(first, total, rows)
    blocks: list[Batch] = [{"interior": interior.rows(start, start + rows)} for start in starts]
    return {**batch, "interior": interior.rows(0, first)}, blocks
