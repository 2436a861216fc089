"""The residual loss as a LightningModule."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor

from pde_train.errors import RunError, UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.tracking.record import Record
from pde_train.training.compiled_steps import CompiledSteps
from pde_train.training.select_steps import choose
from pde_train.training.signals import StopSignals
from pde_train.training.steps import Steps

log = logging.getLogger(__name__)


class ResidualModule(lightning.LightningModule):
    """Trains a problem's model on its residual loss, many optimiser steps in one Lightning batch.

    Lightning costs more per batch than a step of a small network, so its batch is a chunk: a pair (start, stop) of our
    own step counts. `step` counts optimiser steps; `trainer.global_step` stays 0. The points come from the sampler's
    own generator inside the training step, so that a checkpoint holds everything that decides the next number.
    """

    def __init__(
        self,
        problem: Problem,
        record: Record,
        optimizer: Callable[..., torch.optim.Optimizer],
        signals: StopSignals,
        compile: str,
        total: int,
        log_every: int,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.model = problem.model
        self.problem = problem
        self.record = record
        self.make_optimizer = optimizer
        self.signals = signals
        self.compile_mode = compile
        self.total = total
        self.log_every = log_every
        self.progress: Callable[[], None] = lambda: None
        self.steps: Steps
        self.step = 0
        self.seconds = 0.0
        self.saved_rng: tuple[Tensor, list[Tensor]] | None = None
        self.generator = np.random.default_rng(problem.sampler.seed)
        self.draw()
        problem.begin(self.batch, self.model)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        try:
            optimizer = self.make_optimizer(self.model.parameters())
        except (TypeError, ValueError) as error:
            raise UsageError(f"optimizer cannot be made ({error}): compare its values with --cfg job") from error
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(
                f"optimizer was made as {type(optimizer).__name__}: expected a torch.optim.Optimizer, correct its "
                "_target_"
            )
        return optimizer

    def draw(self) -> None:
        """Draw new points, remembering the generator's state before them."""
        self.drawn_from = self.generator.bit_generator.state
        self.batch: Batch = self.problem.draw(self.generator)

    def training_step(self, chunk: tuple[int, int], index: int) -> None:
        start, stop = chunk
        self.draw_when_due(start)
        for until in self.pauses(start, stop):
            began = time.perf_counter()
            if self.step and self.step % self.log_every == 0:
                self.problem.tune(self.model, self.batch)
            losses = self.steps.take(self.batch, until - self.step)
            self.took(losses, time.perf_counter() - began)
            self.progress()
            if self.signals.received is not None:
                break

    def draw_when_due(self, start: int) -> bool:
        """Draw new points where the steps from `start` on are to have them; whether they did."""
        every = self.problem.sampler.resample_every
        due = bool(every and start and start % every == 0)
        if due:
            self.draw()
        return due

    def pauses(self, start: int, stop: int) -> list[int]:
        """The steps from start to stop at which errors are measured, and stop."""
        return [*range((start // self.log_every + 1) * self.log_every, stop, self.log_every), stop]

    def took(self, losses: Tensor, seconds: float) -> None:
        """Keep the losses (k,) of steps that were taken, and every `log_every` steps the error of the model."""
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
        if self.step % self.log_every == 0:
            self.record.log(self.step, self.problem.errors())

    def close(self) -> None:
        """Give back what the steps hold, where training came so far."""
        if hasattr(self, "steps"):
            self.steps.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)  # Lightning's own counts: the chunks still to do follow from `step`
        checkpoint["pde_train"] = {
            "config_hash": self.record.config_hash,
            "step": self.step,
            "seconds": self.seconds,
            "drawn_from": self.drawn_from,
            "compile": self.compile_mode,
            "excess": self.problem.excess,
            "chosen": getattr(self.problem.differentiator, "chosen", None),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "record": self.record.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["pde_train"]
        self.step, self.seconds, self.compile_mode = state["step"], state["seconds"], state.get("compile", "never")
        self.generator.bit_generator.state = state["drawn_from"]
        self.draw()
        self.problem.excess = state.get("excess", 1.0)
        if state.get("chosen") is not None:
            self.problem.differentiator = replace(self.problem.differentiator, chosen=state["chosen"])  # type: ignore
        self.record.load_state_dict(state["record"])
        self.saved_rng = state["torch_rng"], state["cuda_rng"]

    def on_train_start(self) -> None:
        self.signals.install()
        self._choose_steps()
        if self.step == 0:
            self.record.log(0, self.problem.errors())
        points = sum(len(p.x) for p in self.batch.values())
        parameters = sum(p.numel() for p in self.model.parameters())
        log.info("training %d parameters on %d points from step %d", parameters, points, self.step)
        if self.saved_rng is not None:
            torch.set_rng_state(self.saved_rng[0])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self.saved_rng[1])

    def _choose_steps(self) -> None:
        """Settle how steps are computed; a resumed run goes on as it began, to the same bits."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        began = time.perf_counter()
        self.steps, why = choose(
            self.compile_mode, self.problem, optimizer, self.signals, self.batch, self.total - self.step
        )
        self.compile_mode = "always" if isinstance(self.steps, CompiledSteps) else "never"
        if not self.step:  # a resumed run keeps the reason that it began with
            self.record.tags["steps"] = why
        self.record.log(self.step, {"seconds_compile": time.perf_counter() - began})
        log.info("%s", self.record.tags["steps"])
