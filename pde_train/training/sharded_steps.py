"""Optimiser steps whose points are shared among processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.training.signals import StopSignals
from pde_train.training.steps import SingleSteps
from pde_train.training.workers import Workers


class ShardedSteps(SingleSteps):
    """Loss and gradient as sums over processes, each of which has its share of the points of every region.

    This process does all else: it draws and records, and the optimiser steps here alone. For every gradient the
    workers get the parameters and the state of torch's generator (directions drawn at random are those of one process);
    with new points or a changed differentiator, the problem too.
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
        state = torch.get_rng_state().numpy()
        self.workers.tell([(state, news) for news in self._news(batch)])
        self.workers.broadcast(nn.utils.parameters_to_vector(self.parameters).detach())
        total = loss_and_gradient(self.problem, self.shard, self.rows)
        self.workers.add_to(total)
        parts: Sequence[Tensor] = total.split([1, *(p.numel() for p in self.parameters)])
        loss, *gradients = parts
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return loss.squeeze()

    def close(self) -> None:
        self.workers.close()

    def _news(self, batch: Batch) -> list[bytes | None]:
        """What each worker must know before this gradient: None where all is as it was at the last one."""
        now = (batch, self.problem.differentiator)
        if all(one is other for one, other in zip(now, self.sent, strict=True)):
            return [None] * (self.problem.processes - 1)
        self.rows = {region: len(points.x) for region, points in batch.items()}
        self.shard, *others = shards(batch, self.problem.processes)
        self.sent = now
        return [packed((replace(self.problem), shard, self.rows)) for shard in others]


def serve(pipe: Connection, device: torch.device) -> None:
    """The other side: the same of its own shard, for each message."""
    while True:
        state, news = pipe.recv()
        if news is not None:
            problem, shard, rows = torch.load(io.BytesIO(news), map_location=device, weights_only=False)
            parameters = trained(problem.model)
        flat = nn.utils.parameters_to_vector(parameters).detach()
        dist.broadcast(flat, 0)
        nn.utils.vector_to_parameters(flat, parameters)
        torch.set_rng_state(torch.from_numpy(state))
        total = loss_and_gradient(problem, shard, rows)
        if total.is_cuda:
            torch.cuda.synchronize()
        pipe.send(None)
        dist.reduce(total, 0)


def loss_and_gradient(problem: Problem, batch: Batch, rows: Mapping[str, int]) -> Tensor:
    """The part of some points in the loss, and its gradient by all trained parameters, as one vector."""
    loss = problem.loss(batch, rows)
    gradients = torch.autograd.grad(loss, trained(problem.model), allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimiser changes."""
    return [p for p in model.parameters() if p.requires_grad]


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
