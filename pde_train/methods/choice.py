"""Whether compiling a run's steps pays."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from pde_train.geometry import Batch
from pde_train.methods.compiled_steps import CompiledSteps
from pde_train.methods.sharded_steps import ShardedSteps, serve
from pde_train.methods.signals import StopSignals
from pde_train.methods.steps import EagerSteps, Steps
from pde_train.methods.workers import Workers
from pde_train.problem import Problem
from pde_train.progress import waiting

MODES = ("auto", "always", "never")

TRACE_SECONDS = 1.0
"""What it takes to look whether compiled code is there."""

COMPILE_SECONDS = 30.0
"""What it takes to compile."""

SAVED = 0.7
"""The part of an eager step's time that compiled code is expected to save; measured: 0.6 to 0.9."""

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
    seconds, loss = _eager_step(eager, batch)
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
        _compare(compiled, batch, loss)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("the steps could not be compiled (%s): they are taken eagerly", first)
        return eager, "eager: the compilation failed"
    how = "compiled by an earlier run" if cached else f"compiled in {time.perf_counter() - began:.0f} s"
    return compiled, f"compiled: {how}, expected to save {saved:.0f} s over {about}"


def _eager_step(eager: EagerSteps, batch: Batch) -> tuple[float, float]:
    """Seconds of one eager gradient, the best of two, and the loss."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        loss = float(eager.gradient(batch))
        times.append(time.perf_counter() - began)
    return min(times), loss


def tolerance(loss: Any, nudged: Any, dtype: torch.dtype) -> Any:
    """How far compiled code may be off an eager loss (or a tensor of them), which one rounding of parameters nudges."""
    return AGREEMENT[dtype] * abs(loss) + ROUNDINGS * abs(nudged - loss)


def _compare(compiled: CompiledSteps, batch: Batch, loss: float) -> None:
    found = float(compiled.loss(batch))
    dtype = next(iter(compiled.parameters.values())).dtype
    if not abs(found - loss) <= tolerance(loss, float(compiled.nudged_loss(batch)), dtype):
        raise ArithmeticError(f"the compiled loss is {found}, the eager one {loss}")
