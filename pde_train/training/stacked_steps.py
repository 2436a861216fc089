"""Optimiser steps of many problems of one shape at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pde_train import residuals
from pde_train.differentiators.base import Differentiator
from pde_train.geometry import Batch
from pde_train.pdes.base import PDE
from pde_train.problem import Problem
from pde_train.training.compiled_steps import Layout
from pde_train.training.compiling import Traced, peak_bytes, trace
from pde_train.training.library import Function
from pde_train.training.signals import StopSignals
from pde_train.training.steps import Steps, trained
from pde_train.training.updates import clipped, scaled, update_of

TOGETHER = 10
"""Steps that a block takes before the others do, while it is in the processor's cache."""


class StackedSteps(Steps):
    """The steps of problems that differ in numbers alone, by `vmap` over one step, a block of problems at a time.

    Those numbers are parameters and buffers, points, the numbers of the optimiser and of the PDE (see
    `PDE.numbers`), and the steps of finite differences, which may adapt themselves.

    Args:
        problems: What is trained.
        optimizers: Of the parameters of each problem's model, with an `Update`.
        batches: The training points of each problem.
        signals: Wishes to stop.
        clip: The largest norm of a gradient, to which longer ones are shortened; None for any.
        block: Problems of a block, which are in memory at once. The last block is filled up with what
            is in it already, so that one compiled step serves every block of every stack.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        optimizers: Sequence[torch.optim.Optimizer],
        batches: Sequence[Batch],
        signals: StopSignals,
        block: int,
        clip: float | None = None,
    ):
        self.problems, self.optimizers, self.signals, self.clip = problems, optimizers, signals, clip
        rows = range(len(problems))
        filled = [*rows, *[rows[-1]] * (-len(problems) % block)]
        self.blocks = [filled[start : start + block] for start in range(0, len(filled), block)]
        self.parameters = [trained(problem.model) for problem in problems]
        self.shapes = {k: p.shape for k, p in problems[0].model.named_parameters() if p.requires_grad}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.layout = Layout(batches[0])
        self.fixed = [{k: t for k, t in _tensors(problem).items() if k not in self.shapes} for problem in problems]
        update = update_of(optimizers[0])
        assert update is not None, "an optimiser with no pure update cannot be stacked"
        self.update = update
        self.state = self._states()
        self.hyper = self._stacked([[update.hyper(optimizer)] for optimizer in optimizers])
        self.compiled = False
        self.place(batches)
        self.function = torch.func.vmap(self._step)
        self.run: Function = lambda tensors: self.function(*tensors)

    def place(self, batches: Sequence[Batch]) -> None:
        """Take these points from now on."""
        self.batches, self.differentiators = list(batches), [problem.differentiator for problem in self.problems]
        self.numbers = _lifted(self.problems)
        points = [self.layout.tensors(batch) for batch in batches]
        fixed = [list(tensors.values()) for tensors in self.fixed]
        like = self.state[0][0]
        lifted = [[like.new_tensor(list(own.values()))] if own else [] for own in self.numbers]
        self.data = self._stacked([[*p, *f, *n] for p, f, n in zip(points, fixed, lifted, strict=True)])
        self.kept = self._prepare() if self.compiled else self.data

    def trace(self) -> Traced:
        """The whole step of a block as a graph."""
        self.traced = trace(self.function, [*self.state[0], *self.hyper[0]], self.data[0])
        return self.traced

    @property
    def bytes_of_each(self) -> float:
        """Memory that a problem takes in a step, at most."""
        return peak_bytes(self.traced.step) / len(self.blocks[0])

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where an earlier process has done it."""
        return self.traced.compile_seconds

    def compile(self) -> None:
        """Take steps by compiled code from now on."""
        kept = self._prepare()
        self.run, self.kept = self.traced.compile([*self.state[0], *self.hyper[0]], kept[0]).run, kept
        self.compiled = True

    def losses(self, nudge: float = 0.0) -> Tensor:
        """The losses of the first block before a step, which is not kept.

        Args:
            nudge: The losses are those at parameters 1 + nudge times as large. How far a nudge of one
                rounding moves a loss is what rounding does to it.

        Returns:
            (problems of the block,).
        """
        point, *rest = self.state[0]
        *_, losses = self.run([point * (1 + nudge), *rest, *self.hyper[0], *self.kept[0]])
        own: Tensor = losses
        return own

    def tried(self, count: int) -> tuple[Tensor, Tensor]:
        """Losses (count,) and parameters (p,) of the first problem after `count` steps, which are then undone."""
        state, losses = self.state[0], []
        for _ in range(count):
            *state, loss = self.run([*state, *self.hyper[0], *self.kept[0]])
            losses.append(loss[0])
        return torch.stack(losses), self.update.parameters([column[0] for column in state])

    def advance(self, batches: Sequence[Batch], count: int, rates: Tensor | None = None) -> Tensor:
        now = [*batches, *(problem.differentiator for problem in self.problems)]
        if any(new is not old for new, old in zip(now, [*self.batches, *self.differentiators], strict=True)):
            self.place(batches)
            self.state = self._states()  # an optimiser may have been told that the loss is another one
        losses: list[Tensor] = []
        while len(losses) < count:
            some = min(TOGETHER, count - len(losses))
            parts = []
            for block, rows in enumerate(self.blocks):
                own = None if rates is None else rates[rows, len(losses) : len(losses) + some]
                parts.append(self._take(block, scaled(self.hyper[block][0], own, some)))
            losses += torch.cat(parts).unbind(1)
            if self.signals.received is not None:
                break
        self._put_back()
        return torch.stack(losses, dim=1)[: len(self.problems)]

    def _take(self, block: int, numbers: Sequence[Tensor]) -> Tensor:
        """The losses (problems, k) of k steps of a block, each with its numbers of the optimisers."""
        losses = []
        for hyper in numbers:
            *self.state[block], loss = self.run([*self.state[block], hyper, *self.kept[block]])
            losses.append(loss)
        return torch.stack(losses, dim=1)

    def _step(self, *tensors: Tensor) -> Any:
        """The step of one problem, from its optimiser's state and numbers, points, buffers, numbers."""
        count = len(self.state[0])
        state, hyper, rest = tensors[:count], tensors[count], tensors[count + 1 :]
        gradient, loss = torch.func.grad_and_value(lambda point: self._loss(point, rest))(state[0])
        gradient = clipped(gradient, self.clip)
        return *self.update.step(state, gradient, loss, hyper), self.update.loss_before(state, loss)

    def _loss(self, vector: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        problem, points = self.problems[0], len(self.layout.places)
        own = {k: part.view(s) for (k, s), part in zip(self.shapes.items(), vector.split(self.sizes), strict=True)}
        fixed = dict(zip(self.fixed[0], tensors[points:], strict=False))
        given = dict(zip(self.numbers[0], tensors[-1].unbind(), strict=True)) if self.numbers[0] else {}
        pde, differentiator = with_numbers(problem, given)

        def u(x: Tensor) -> Tensor:
            values: Tensor = torch.func.functional_call(problem.model, {**own, **fixed}, (x,))
            return values

        values = residuals.evaluate(pde, u, differentiator, self.layout.batch(tuple(tensors[:points])))
        return residuals.loss(values)

    def _prepare(self) -> list[list[Tensor]]:
        with torch.no_grad():
            return [list(self.traced.prepare(*data)) for data in self.data]

    def _stacked(self, tensors: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """What each problem has of some tensors, as one tensor of each block."""
        columns = list(zip(*tensors, strict=True))
        return [[torch.stack([column[row] for row in rows]) for column in columns] for rows in self.blocks]

    def _states(self) -> list[list[Tensor]]:
        """What the update of each problem changes, from the optimisers, as one tensor of each block."""
        return self._stacked(
            [self.update.state(o, own) for o, own in zip(self.optimizers, self.parameters, strict=True)]
        )

    def _put_back(self) -> None:
        size = len(self.blocks[0])
        for i, (own, optimizer) in enumerate(zip(self.parameters, self.optimizers, strict=True)):
            self.update.put_back(optimizer, own, [column[i % size] for column in self.state[i // size]])


def numbers(problem: Problem) -> dict[str, float]:
    """The numbers of a problem that may differ in a stack, by name."""
    return problem.pde.numbers() | problem.differentiator.numbers()


def with_numbers(problem: Problem, given: dict[str, Tensor]) -> tuple[PDE, Differentiator]:
    """The PDE and the differentiator of a problem with scalar tensors in place of some of its numbers."""
    pde, differentiator = problem.pde, problem.differentiator
    of_pde = {name: value for name, value in given.items() if name in pde.numbers()}
    of_steps = {name: value for name, value in given.items() if name not in of_pde}
    return pde.with_numbers(of_pde) if of_pde else pde, differentiator.with_numbers(of_steps)


def _tensors(problem: Problem) -> dict[str, Tensor]:
    model = problem.model
    return {k: t.detach() for k, t in [*model.named_parameters(), *model.named_buffers()]}


def _lifted(problems: Sequence[Problem]) -> list[dict[str, float]]:
    """Those numbers alone that are not the same everywhere, or change while a problem is trained."""
    every, first = [numbers(problem) for problem in problems], problems[0].differentiator
    changing = set(first.numbers()) if first.adaptive else set[str]()
    names = [name for name in every[0] if name in changing or len({own[name] for own in every}) > 1]
    return [{name: own[name] for name in names} for own in every]
