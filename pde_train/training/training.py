"""The training of one run: its model, optimiser and points, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import RunError, UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.run_folder import CHECKPOINT
from pde_train.tracking.record import Record
from pde_train.training.checkpoint import content, read, write
from pde_train.training.schedule import Schedule

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""Makes an optimiser from parameters."""


class Training:
    """Everything that decides the next number of one run, and everything that a checkpoint must hold.

    `step` counts optimiser steps. The training points come from a generator of the run's own, whose state before the
    last draw is part of a checkpoint. What an interrupted run left in `folder` is restored.

    Args:
        problem: Equation, model, differentiator and sampler.
        record: Takes metrics and spectra.
        diagnostics: Measure the model at some steps.
        make_optimizer: Makes the optimiser from the model's parameters.
        schedule: Numbers of steps.
        folder: The run's folder, where its checkpoint lies.

    Raises:
        UsageError: The optimiser cannot be made, or the problem cannot be trained, see `Problem.begin`.
        RunError: The checkpoint cannot be used, see `pde_train.training.checkpoint.read`.
    """

    def __init__(
        self,
        problem: Problem,
        record: Record,
        diagnostics: Diagnostics,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        folder: Path,
    ):
        self.problem = problem
        self.model = problem.model
        self.record = record
        self.diagnostics = diagnostics
        self.schedule = schedule
        self.checkpoint = folder / CHECKPOINT
        self.step = 0
        self.seconds = 0.0
        self.compile = schedule.compile
        self._saved_rng: tuple[Tensor, list[Tensor]] | None = None
        self._generator = np.random.default_rng(problem.sampler.seed)
        self._draw()
        problem.begin(self.batch, self.model)
        self.optimizer = _made(make_optimizer, self.model)
        if self.checkpoint.exists():
            self._restore()

    @cached_property
    def measured(self) -> frozenset[int]:
        """The steps at which the diagnostics measure the model."""
        return self.diagnostics.steps(self.schedule.steps)

    def begin(self, steps: str, seconds_compile: float) -> None:
        """Note how the steps are computed, and measure the error before the first one.

        Args:
            steps: The choice and its reason, as words for the tag ``steps``; a resumed run keeps those of its start.
            seconds_compile: What the choice took, tracing and compiling included.
        """
        if self.step == 0:
            self.record.tags["steps"] = steps
        self.record.log(self.step, {"seconds_compile": seconds_compile})
        if self.step == 0:
            self.record.log(0, self.problem.errors())
        if self._saved_rng is not None:
            torch.set_rng_state(self._saved_rng[0])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._saved_rng[1])

    def draw_when_due(self, start: int) -> None:
        """Draw new points where the steps from `start` on are to have them."""
        every = self.problem.sampler.resample_every
        if every and start and start % every == 0:
            self._draw()

    def adapt_when_due(self) -> None:
        """Let a differentiator that depends on the field adapt itself, as often as errors are measured."""
        if self.step and self.step % self.schedule.log_every == 0:
            self.problem.tune(self.model, self.batch)

    def advance(self, losses: Tensor, seconds: float) -> None:
        """Keep the losses of steps that were taken, and the error where it is due.

        Args:
            losses: (k,), the loss before each of the steps.
            seconds: What they took.

        Raises:
            RunError: A loss or a parameter is not finite.
        """
        start = self.step
        self.seconds += seconds
        self.record.losses(start, losses)
        self.step = start + len(losses)
        finite = torch.isfinite(losses)
        if not (finite.all() and all(p.isfinite().all() for p in self.model.parameters())):
            bad = start + int(finite.int().argmin()) if not finite.all() else self.step
            raise RunError(
                f"the loss or a parameter became nan or infinite at step {bad}: expected finite numbers, "
                "choose a smaller optimizer.lr or a larger differentiator.step"
            )
        if self.step % self.schedule.log_every == 0:
            self.record.log(self.step, self.problem.errors())

    def measure_when_due(self) -> None:
        """Let the diagnostics measure the model, at their steps."""
        if self.step in self.measured:
            self.diagnostics.measure(self.problem, self.batch, self.step, self.record)

    def end(self) -> None:
        """Note what the fit took and the residual to which it came."""
        if self.problem.differentiator.adaptive:
            self.record.tags["differentiator_chosen"] = str(getattr(self.problem.differentiator, "chosen", ""))
        self.record.log(self.step, {"seconds": self.seconds, "residual": self.problem.residual(self.batch)})

    def save(self) -> None:
        """Write a checkpoint, from which a run goes on to the same bits; the record is delivered before it."""
        self.record.flush()
        own = {
            "config_hash": self.record.config_hash,
            "step": self.step,
            "seconds": self.seconds,
            "drawn_from": self._drawn_from,
            "compile": self.compile,
            "excess": self.problem.excess,
            "chosen": getattr(self.problem.differentiator, "chosen", None),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "record": self.record.state_dict(),
        }
        write(self.checkpoint, content(self.model, self.optimizer, own))

    def _restore(self) -> None:
        saved = read(self.checkpoint, self.record.config_hash, self.schedule.steps)
        state: dict[str, Any] = saved["pde_train"]
        if state["step"] == 0:
            return
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in saved["state_dict"].items()})
        self.optimizer.load_state_dict(saved["optimizer_states"][0])
        self.step, self.seconds, self.compile = state["step"], state["seconds"], state["compile"]
        self._generator.bit_generator.state = state["drawn_from"]
        self._draw()
        self.problem.excess = state["excess"]
        if state["chosen"] is not None:
            self.problem.differentiator = replace(  # type: ignore[type-var]  # those that choose are dataclasses
                self.problem.differentiator,
                chosen=state["chosen"],
            )
        self.record.load_state_dict(state["record"])
        self._saved_rng = state["torch_rng"], state["cuda_rng"]

    def _draw(self) -> None:
        """Draw new points, remembering the generator's state before them."""
        self._drawn_from = self._generator.bit_generator.state
        self.batch: Batch = self.problem.draw(self._generator)


def _made(make_optimizer: MakeOptimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
    try:
        optimizer = make_optimizer(model.parameters())
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer cannot be made ({error}): compare its values with --cfg job") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(
            f"optimizer was made as {type(optimizer).__name__}: expected a torch.optim.Optimizer, correct its _target_"
        )
    return optimizer
