"""Optimiser steps whose points are shared among processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.optimizers.base import flat
from pde_train.problem import Problem
from pde_train.training.compiled_steps import CompiledGradient
from pde_train.training.signals import StopSignals
from pde_train.training.steps import SingleSteps, give, in_memory, trained
from pde_train.training.when_to_compile import TooLate
from pde_train.training.workers import Workers


class ShardedSteps(SingleSteps):
    """Loss and gradient as sums over processes, each of which has its share of the points of every region.

    This process does all else: it draws and records, and the optimiser steps here alone. For every gradient the
    workers get the parameters and the state of torch's generator (directions drawn at random are those of one process);
    with new points or a changed differentiator, the problem too.

    Args:
        problem: Whose loss is minimised.
        optimizer: Of the parameters of the problem's model.
        signals: Wishes to stop.
        workers: The other processes, which `serve`.
        clip: The largest norm of a gradient; None for any.
    """

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        signals: StopSignals,
        workers: Workers,
        clip: float | None = None,
    ):
        super().__init__(problem, optimizer, signals, clip)
        self.parameters = trained(problem.model)
        self.sent: tuple[Any, Any] = (None, None)
        self.shard: Batch
        self.rows: dict[str, int]
        self.workers = workers

    def gradient(self, batch: Batch) -> Tensor:
        state = self._state()
        self.workers.tell([Gradient(state, news) for news in self._news(batch)])
        self.workers.broadcast(flat(self.parameters))
        total = self._part()
        self.workers.add_to(total)
        give(self.parameters, total[1:])
        return total[0]

    def close(self) -> None:
        self.workers.close()

    def _state(self) -> np.ndarray | None:
        return torch.get_rng_state().numpy()

    def _part(self) -> Tensor:
        """The part of this process's points in the loss, and its gradient, as one vector."""
        return loss_and_gradient(self.problem, self.shard, self.rows)

    def _news(self, batch: Batch) -> list[bytes | None]:
        """What each worker must know before this gradient: None where all is as it was at the last one."""
        now = (batch, self.problem.differentiator)
        if all(one is other for one, other in zip(now, self.sent, strict=True)):
            return [None] * (self.problem.processes - 1)
        self.rows = {region: len(points.x) for region, points in batch.items()}
        self.shard, *others = shards(batch, self.problem.processes)
        self.sent = now
        return [packed((replace(self.problem), shard, self.rows)) for shard in others]


class CompiledShardedSteps(ShardedSteps):
    """The same with gradients compiled ahead of time, here first, so that the workers find the code.

    Only a worker whose share has another number of points compiles its own.

    Args:
        eager: Steps that have taken a gradient, so that every worker has its share of the points.
    """

    def __init__(self, eager: ShardedSteps):
        super().__init__(eager.problem, eager.optimizer, eager.signals, eager.workers, eager.clip)
        self.sent, self.shard, self.rows, self.eager = eager.sent, eager.shard, eager.rows, eager
        self.own = CompiledGradient(self.problem, self.shard, self.rows)

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where an earlier process has done it."""
        even = all(count % self.problem.processes == 0 for count in self.rows.values())
        return self.own.compile_seconds * (1 if even else 2)

    def compile(self) -> None:
        """Load what is compiled, compile what is not."""
        self.own.compile()
        try:
            self.workers.tell([COMPILE] * len(self.workers.pipes))
            self.workers.hear()
        except (Exception, TooLate):  # whatever the workers do now, eager steps need some that wait
            self.workers.restart()
            self.eager.sent = (None, None)
            raise

    def _state(self) -> np.ndarray | None:
        return None

    def _part(self) -> Tensor:
        return _as_vector(*self.own.at(flat(self.parameters), self.shard))


class Gradient(NamedTuple):
    """Asks a worker for its part of a gradient.

    Attributes:
        state: Of torch's generator; None asks for compiled code, which draws nothing.
        news: Problem, points and the number of rows in the loss, packed; None for those of the last time.
    """

    state: np.ndarray | None
    news: bytes | None


COMPILE = "compile"
"""Asks a worker to compile the gradient that it was asked for last."""


def serve(pipe: Connection, device: torch.device) -> None:
    """The other side: the same of its own shard, for each message."""
    compiled: CompiledGradient | None = None
    while True:
        message = pipe.recv()
        if message != COMPILE and message.news is not None:
            problem, shard, rows = torch.load(io.BytesIO(message.news), map_location=device, weights_only=False)
            parameters = trained(problem.model)
            if compiled is not None:
                compiled.problem.differentiator = problem.differentiator
        if message == COMPILE:
            compiled = CompiledGradient(problem, shard, rows)
            compiled.compile()
            pipe.send(None)
            continue
        point = flat(parameters)
        dist.broadcast(point, 0)
        if compiled is not None and message.state is None:
            total = _as_vector(*compiled.at(point, shard))
        else:
            nn.utils.vector_to_parameters(point, parameters)
            torch.set_rng_state(torch.from_numpy(message.state))
            total = loss_and_gradient(problem, shard, rows)
        if total.is_cuda:
            torch.cuda.synchronize()
        pipe.send(None)
        dist.reduce(total, 0)


def _as_vector(gradient: Tensor, loss: Tensor) -> Tensor:
    return torch.cat([loss.view(1), gradient])


def loss_and_gradient(problem: Problem, batch: Batch, rows: Mapping[str, int]) -> Tensor:
    """The part of some points in the loss, and its gradient by all trained parameters, as one vector."""
    parameters, parts = trained(problem.model), []
    for part in in_memory(problem, batch):
        loss = problem.loss(part, rows)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        parts.append(torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)]))
    return sum(parts[1:], parts[0])


def shards(batch: Batch, count: int) -> list[Batch]:
    """The points of every region in parts as equal as can be, some of them empty where there are few points.

    An empty part is evaluated like any other, so that every process draws as many random numbers.

    Args:
        batch: The training points.
        count: Of parts.

    Returns:
        The parts.
    """
    return [
        {
            region: points.rows(len(points.x) * rank // count, len(points.x) * (rank + 1) // count)
            for region, points in batch.items()
        }
        for rank in range(count)
    ]


def packed(content: Any) -> bytes:
    """A message with tensors in it."""
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"accelerator=ddp sends the problem to other processes, and it cannot be pickled ({error}): expected "
            "functions and classes at the top of a module in place of lambdas and inner ones, or choose accelerator=cpu"
        ) from error
    return buffer.getvalue()
