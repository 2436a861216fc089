"""How optimiser steps are computed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.training.signals import StopSignals


class Steps(ABC):
    """Takes optimiser steps on the residual losses of one or several problems, full batch."""

    @abstractmethod
    def advance(self, batches: Sequence[Batch], count: int) -> Tensor:
        """Take up to `count` steps, fewer when a signal asks to stop.

        Args:
            batches: The training points of each problem.
            count: Steps, at least one.

        Returns:
            The losses before each step, (problems, steps taken).
        """

    def close(self) -> None:  # noqa: B027
        """Give back what the steps hold besides memory, such as processes."""


class SingleSteps(Steps):
    """The steps of one problem by a torch optimiser; how the gradient is computed is left open.

    Args:
        problem: Whose loss is minimised.
        optimizer: Of the parameters of the problem's model.
        signals: Wishes to stop.
    """

    def __init__(self, problem: Problem, optimizer: torch.optim.Optimizer, signals: StopSignals):
        self.problem = problem
        self.optimizer: Any = optimizer
        self.signals = signals

    @abstractmethod
    def gradient(self, batch: Batch) -> Tensor:
        """The loss on a batch, a scalar, leaving its gradient in the parameters."""

    def advance(self, batches: Sequence[Batch], count: int) -> Tensor:
        return self.take(batches[0], count).unsqueeze(0)

    def take(self, batch: Batch, count: int) -> Tensor:
        """Take steps of the one problem.

        An optimiser that needs no closure finds the gradient in the parameters, where its hooks find
        it, too.

        Args:
            batch: The training points.
            count: Steps, at least one; fewer are taken when a signal asks to stop.

        Returns:
            The loss before each step, (steps taken,).
        """
        losses = []
        for _ in range(count):
            if self.needs_closure:
                losses.append(self.optimizer.step(lambda: self.gradient(batch)))
            else:
                losses.append(self.gradient(batch))
                self.optimizer.step()
            if self.signals.received is not None:
                break
        return torch.stack(losses)

    @cached_property
    def needs_closure(self) -> bool:
        """Whether the optimiser evaluates the loss by itself, as line searches do."""
        closure = inspect.signature(self.optimizer.step).parameters.get("closure")
        return closure is not None and closure.default is inspect.Parameter.empty


class EagerSteps(SingleSteps):
    """Every operation on its own."""

    def gradient(self, batch: Batch) -> Tensor:
        self.optimizer.zero_grad()
        value = self.problem.loss(batch)
        value.backward()
        return value.detach()
