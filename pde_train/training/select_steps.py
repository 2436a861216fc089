"""Whether compiling a run's steps pays."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.progress import waiting
from pde_train.training.compiled_steps import CompiledSteps
from pde_train.training.sharded_steps import ShardedSteps, serve
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EagerSteps, Steps
from pde_train.training.workers import Workers

Tensors = tuple[Tensor, Tensor]

MODES = ("auto", "always", "never")

TRACE_SECONDS = 1.0
"""What it takes to look whether compiled code is there."""

COMPILE_SECONDS = 30.0
"""What it takes to compile."""

SAVED = 0.7
"""The part of an eager step's time that compiled code is expected to save; measured: 0.6 to 0.9."""

TRIED = 3
"""Steps by which compiled code is compared with eager ones."""

AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
"""The largest relative difference between the eager and the compiled loss that passes for rounding."""

ROUNDINGS = 100.0
"""What passes besides, in differences that one rounding of the parameters makes: many with finite differences."""

log = logging.getLogger(__name__)


def choose(
    mode: str,
    problem: Problem,
    optimizer: torch.optim.Optimizer,
    signals: StopSignals,
    batch: Batch,
    steps: int,
) -> tuple[Steps, str]:
    """How `steps` steps are best computed, and why.

    `auto` compiles where that is expected to cost less time than it saves, from the measured time of one eager step;
    code that an earlier run compiled costs next to nothing. A failed compilation is one warning and eager steps.
    """
    if problem.processes > 1:
        with waiting("starting the processes that share the points"):
            workers = Workers(problem.processes, problem.device, serve)
        why = f"eager: {problem.processes} processes share the points, and steps are compiled for one"
        return ShardedSteps(problem, optimizer, signals, workers), why
    eager = EagerSteps(problem, optimizer, signals)
    if mode == "never":
        return eager, "eager: method.compile=never"
    if not problem.differentiator.compilable:
        return eager, f"eager: {type(problem.differentiator).__name__} changes from step to step"
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in problem.model.parameters()):
        return eager, "eager: hooks of parameters need their gradient by backward()"
    buffers = [b.clone() for b in problem.model.buffers()]
    seconds = _seconds_of_gradient(eager, batch)
    if not all(map(torch.equal, problem.model.buffers(), buffers)):
        _restore(problem.model.buffers(), buffers)
        return eager, "eager: the model changes its buffers, which compiled code would not"
    saved = SAVED * seconds * steps
    about = f"{steps} steps of {seconds:.1e} s"
    if mode == "auto" and saved < TRACE_SECONDS:
        return eager, f"eager: compiling {about} would save {saved:.1f} s"
    try:
        with waiting("tracing the optimisation step"):
            compiled = CompiledSteps(problem, optimizer, signals, batch)
        cached = compiled.cached
        if mode == "auto" and not cached and saved < COMPILE_SECONDS:
            return eager, f"eager: compiling {about} would save {saved:.0f} s and cost about {COMPILE_SECONDS:.0f} s"
        began = time.perf_counter()
        with waiting("compiling the optimisation step"):
            compiled.compile()
        _compare(compiled, eager, batch)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("the steps could not be compiled (%s): they are taken eagerly", first)
        return eager, "eager: the compilation failed"
    how = "compiled by an earlier run" if cached else f"compiled in {time.perf_counter() - began:.0f} s"
    return compiled, f"compiled: {how}, expected to save {saved:.0f} s over {about}"


def _seconds_of_gradient(eager: EagerSteps, batch: Batch) -> float:
    """Seconds of one eager gradient, the best of two."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        float(eager.gradient(batch))
        times.append(time.perf_counter() - began)
    return min(times)


def tolerance(loss: Any, nudged: Any, dtype: torch.dtype) -> Any:
    """How far compiled code may be off an eager loss (or a tensor of them), which one rounding of parameters nudges."""
    return AGREEMENT[dtype] * abs(loss) + ROUNDINGS * abs(nudged - loss)


def _compare(compiled: CompiledSteps, eager: EagerSteps, batch: Batch) -> None:
    """Refuse compiled code that computes something else than eager steps do.

    Compared are losses and parameters of TRIED steps where the whole step is compiled, otherwise loss and gradient.
    What parameters one rounding away make of the eager result passes for rounding.
    """
    tried = _gradient if compiled.update is None else stepped
    check_agreement(tried(compiled, batch, 0), tried(eager, batch, 0), tried(eager, batch, 1))


def check_agreement(found: Tensors, expected: Tensors, nudged: Tensors) -> None:
    """Refuse tensors that are off the expected ones by more than rounding, which moved those to `nudged`.

    Raises ArithmeticError.
    """
    for own, other, moved in zip(found, expected, nudged, strict=True):
        scale, apart = other.abs().max(), (own - other).abs().max()
        if not bool(apart <= tolerance(scale, scale + (moved - other).abs().max(), other.dtype)):
            raise ArithmeticError(f"compiled steps are off by {float(apart):.1e}, in numbers up to {float(scale):.1e}")


def _gradient(steps: Steps, batch: Batch, roundings: int) -> Tensors:
    """Loss and gradient, a vector each, at parameters so many roundings away."""
    parameters = list(steps.problem.model.parameters())
    with _kept(parameters):
        _nudge(parameters, roundings)
        loss = steps.gradient(batch)
    return loss.view(1), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def stepped(steps: Steps, batch: Batch, roundings: int) -> Tensors:
    """Losses and parameters of TRIED steps from parameters so many roundings away, a vector each."""
    parameters = list(steps.problem.model.parameters())
    remembered = copy.deepcopy(steps.optimizer.state_dict())
    with _kept(parameters):
        _nudge(parameters, roundings)
        losses = steps.take(batch, TRIED)
        found = torch.cat([p.detach().flatten() for p in parameters])
    steps.optimizer.load_state_dict(remembered)
    return losses, found


@contextmanager
def _kept(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Afterwards parameters are as they were before."""
    before = [p.detach().clone() for p in parameters]
    try:
        yield
    finally:
        _restore(parameters, before)


def _restore(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _nudge(parameters: list[nn.Parameter], roundings: int) -> None:
    with torch.no_grad():
        for p in parameters:
            p.mul_(1 + roundings * torch.finfo(p.dtype).eps)
