"""Optimiser steps by code compiled ahead of time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pde_train import residuals
from pde_train.differentiators.base import Differentiator
from pde_train.geometry import Batch, Points
from pde_train.optimizers.base import flat, named
from pde_train.problem import Problem
from pde_train.training.compiling import Traced, trace
from pde_train.training.library import Function
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EAGER_ROWS, SingleSteps, give, split, trained
from pde_train.training.updates import clipped, scaled, update_for

BLOCK_ROWS = 256
"""Points of the interior in one compiled block: its Taylor coefficients through layers of 64 stay in the L2 cache."""

SMALL_PARAMETERS, SMALL_BLOCK_ROWS = 1024, 1024
"""Networks of up to so many parameters have less to keep. Larger blocks are faster there (one hidden layer of 64: 0.57
instead of 0.62 ms for 900 points), and where there is only one, only one function is to be compiled. All
points of a stencil count (biharmonic in 2D has 13 of them for each: 5 instead of 13 ms)."""

AT_ONCE_SECONDS = 0.02
"""For so long steps are taken without a look at signals, and without Python."""


class CompiledGradient:
    """Loss and gradient of a problem as code compiled ahead of time for a batch's shapes.

    Points of the interior beyond the first block come in blocks that fit the cache, their gradients added up.

    Args:
        problem: The problem.
        batch: Points, as many in each region as it will get.
        rows: The number of points of each region in the loss, of which a batch may be a part; None for those of the
            batch.
        step: What is compiled in place of the gradient of the first block, ``step(add, point, gradient, loss, ...,
            layout=...)``, where ``add`` adds that gradient and loss.
        remembered: Further tensors that `step` takes after point, gradient and loss.
    """

    def __init__(
        self,
        problem: Problem,
        batch: Batch,
        rows: Mapping[str, int] | None = None,
        step: Function | None = None,
        remembered: Sequence[Tensor] = (),
    ):
        self.problem = problem
        self.parameters = {k: p for k, p in problem.model.named_parameters() if p.requires_grad}
        self.rows = {region: len(points.x) for region, points in batch.items()} if rows is None else rows
        self.of: tuple[Batch | None, Differentiator] = (None, problem.differentiator)
        point = flat(list(self.parameters.values()))
        small = len(point) <= SMALL_PARAMETERS
        self.block_rows = max(1, SMALL_BLOCK_ROWS // evaluations(problem, batch)) if small else BLOCK_ROWS
        if problem.device == "cuda":
            self.block_rows = EAGER_ROWS  # enough to keep a GPU busy
        first, blocks = split(batch, self.block_rows)
        example = [point, point.clone(), point[0].clone()]
        function = self.add if step is None else partial(step, self.add)
        self.first = Compiled(function, [*example, *remembered], first, problem)
        self.blocks = Compiled(self.add, example, blocks[0], problem) if blocks else None

    @property
    def parts(self) -> list[Compiled]:
        return [self.first] if self.blocks is None else [self.first, self.blocks]

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where an earlier process has done it."""
        return sum(part.traced.compile_seconds for part in self.parts)

    def compile(self) -> None:
        """Load what is compiled, compile what is not."""
        for part in self.parts:
            part.compile()

    def at(self, point: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gradient (p,) and loss () at a vector of parameters, where no other step was compiled."""
        gradient, loss = self.over_blocks(point, batch)
        results: tuple[Tensor, Tensor] = self.first.run([point, gradient, loss, *self.kept[0]])
        return results

    def over_blocks(self, point: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gradient and loss of all blocks but the first part."""
        differentiator = self.problem.differentiator
        if batch is not self.of[0] or differentiator is not self.of[1]:
            first, blocks = split(batch, self.block_rows)
            self.kept = [self.first.kept(first), *(self.blocks.kept(block) for block in blocks if self.blocks)]
            self.zeros = torch.zeros_like(point), point.new_zeros(())
            self.of = batch, differentiator
        gradient, loss = self.zeros
        if self.blocks is not None:
            for kept in self.kept[1:]:
                gradient, loss = self.blocks.run([point, gradient, loss, *kept])
        return gradient, loss

    def add(self, point: Tensor, gradient: Tensor, loss: Tensor, *tensors: Tensor, layout: Layout) -> Any:
        """gradient and loss plus those of the points."""
        more, value = torch.func.grad_and_value(lambda p: self._loss(p, tensors, layout))(point)
        return gradient + more, loss + value

    def _loss(self, vector: Tensor, tensors: tuple[Tensor, ...], layout: Layout) -> Tensor:
        model, parameters = self.problem.model, named(self.parameters, vector)

        def u(x: Tensor) -> Tensor:
            values: Tensor = torch.func.functional_call(model, parameters, (x,))
            return values

        differentiator = layout.differentiator(self.problem, tensors)
        return self.problem.loss(layout.batch(tensors), self.rows, u, differentiator)


def evaluations(problem: Problem, batch: Batch) -> int:
    """At how many points the residual at one point of the interior evaluates the model: those of a stencil, or 1."""
    counts = []

    def counted(x: Tensor) -> Tensor:
        counts.append(x.shape[0])
        value: Tensor = problem.model(x)
        return value

    one = {"interior": batch["interior"].rows(0, 1)}
    residuals.evaluate(problem.pde, counted, problem.differentiator, one)
    return max(1, *counts)


class CompiledSteps(SingleSteps):
    """Steps by compiled code: loss and gradient and, where an `Update` serves, the whole step."""

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        signals: StopSignals,
        batch: Batch,
        clip: float | None = None,
    ):
        super().__init__(problem, optimizer, signals, clip)
        self.parameters = trained(problem.model)
        self.at_once = 1
        self.update = update_for(optimizer, self.parameters)
        step, remembered = (None, []) if self.update is None else (self._step, self._state()[1:])
        self.count = len(remembered)
        self.compiled = CompiledGradient(problem, batch, None, step, remembered)

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where an earlier process has done it."""
        return self.compiled.compile_seconds

    def compile(self) -> None:
        """Load what is compiled, compile what is not."""
        self.compiled.compile()

    def gradient(self, batch: Batch) -> Tensor:
        gradient, loss = self.compiled.at(flat(self.parameters), batch)
        give(self.parameters, gradient)
        return loss

    def take(self, batch: Batch, count: int, rates: Tensor | None = None) -> Tensor:
        if self.update is None:
            return super().take(batch, count, rates)
        *state, hyper = self._state()
        numbers, losses, taken = torch.stack(scaled(hyper, rates, count)), list[Tensor](), 0
        places = [0, *range(3, len(state) + 2)]  # of what the next step begins with, among its inputs
        while taken < count and not (taken and self.signals.received is not None):
            several, began = min(self.at_once, count - taken), time.perf_counter()
            gradient, loss = self.compiled.over_blocks(state[0], batch)
            own = numbers[taken : taken + several]
            inputs = [state[0], gradient, loss, *state[1:], own, *self.compiled.kept[0]]
            *state, of_each = self.compiled.first.repeat(inputs, places, len(state) + 2, several)
            losses.append(of_each)
            taken += several
            if self.compiled.blocks is None:
                self.at_once = max(1, int(AT_ONCE_SECONDS * several / (time.perf_counter() - began)))
        self.update.put_back(self.optimizer, self.parameters, state)
        return torch.cat(losses)

    def _step(self, add: Function, point: Tensor, gradient: Tensor, loss: Tensor, *rest: Tensor, layout: Layout) -> Any:
        """The optimiser's step; `rest` is what it remembers, its numbers, and the tensors of the points."""
        assert self.update is not None, "without an update the gradient alone is compiled"
        *remembered, hyper = rest[: self.count]
        state = [point, *remembered]
        gradient, loss = add(point, gradient, loss, *rest[self.count :], layout=layout)
        gradient = clipped(gradient, self.clip)
        return *self.update.step(state, gradient, loss, hyper), self.update.loss_before(state, loss)

    def _state(self) -> list[Tensor]:
        """What the compiled code changes: the state of the update, and its numbers."""
        assert self.update is not None, "without an update the gradient alone is compiled"
        return [*self.update.state(self.optimizer, self.parameters), self.update.hyper(self.optimizer)]


def chosen_numbers(problem: Problem) -> list[Tensor]:
    """What an adaptive differentiator has chosen, as one tensor (k,) that compiled code takes; empty for any other."""
    own = problem.differentiator
    values = list(own.numbers().values()) if own.adaptive else []
    return [torch.tensor(values, dtype=problem.dtype, device=problem.device)] if values else []


class Layout:
    """Which tensor of a flat list belongs to which region, so that compiled code can take a batch as a list.

    After those of the batch may come one of the numbers that an adaptive differentiator has chosen.
    """

    def __init__(self, batch: Batch):
        self.places = [(region, field) for region, p in batch.items() for field, t in vars(p).items() if t is not None]

    def tensors(self, batch: Batch) -> list[Tensor]:
        return [getattr(batch[region], field) for region, field in self.places]

    def batch(self, tensors: tuple[Tensor, ...]) -> Batch:
        fields: dict[str, dict[str, Tensor]] = {}
        for (region, field), tensor in zip(self.places, tensors, strict=False):
            fields.setdefault(region, {})[field] = tensor
        return {region: Points(**named) for region, named in fields.items()}

    def differentiator(self, problem: Problem, tensors: tuple[Tensor, ...]) -> Differentiator:
        """That of a problem, with what it has chosen from the tensors."""
        own = problem.differentiator
        if len(tensors) == len(self.places):
            return own
        return own.with_numbers(dict(zip(own.numbers(), tensors[-1].unbind(), strict=True)))


class Compiled:
    """One function of state and points, traced, and compiled when asked."""

    def __init__(self, function: Any, state: list[Tensor], batch: Batch, problem: Problem):
        self.layout = Layout(batch)
        self.state = state
        self.problem = problem
        self.example = [*self.layout.tensors(batch), *chosen_numbers(problem)]
        self.traced: Traced = trace(lambda *tensors: function(*tensors, layout=self.layout), state, self.example)
        self.run: Function
        self.repeat: Function

    def kept(self, batch: Batch) -> list[Tensor]:
        """What the compiled code needs of a batch, whose tensors have the shapes of the example."""
        tensors = [*self.layout.tensors(batch), *chosen_numbers(self.problem)]
        pairs = zip(tensors, self.example, strict=True)
        with torch.no_grad():
            tensors = [new if new.stride() == old.stride() else torch.empty_like(old).copy_(new) for new, old in pairs]
            return list(self.traced.prepare(*tensors))

    def compile(self) -> None:
        self.run, self.repeat = self.traced.compile(self.state, self.kept(self.layout.batch(tuple(self.example))))
