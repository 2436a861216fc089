"""The training of one run: its model, optimiser and points, and what is kept of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import Pruned, RunError, UsageError
from pde_train.optimizers.base import flat
from pde_train.optimizers.gauss_newton import GaussNewton
from pde_train.optimizers.trials import QuasiNewton
from pde_train.problem import Problem
from pde_train.run_folder import CHECKPOINT
from pde_train.singular_values import Spectrum
from pde_train.tracking.record import Record
from pde_train.training.checkpoint import content, read, write
from pde_train.training.combinations import check_combination
from pde_train.training.points import TrainingPoints
from pde_train.training.schedule import Schedule
from pde_train.training.steps import Observation

log = logging.getLogger(__name__)

SAVING = 0.02
"""The part of a run's time that its checkpoints may take: where steps take microseconds, they would take a third."""

UNCHANGED, UNCHANGED_SEARCHES = 100, 4
"""Steps, and line searches of the most evaluations, after which a loss that has not changed at all stays the same.

A line search that fails leaves the parameters where they are, and so does the search along the gradient after it, and a
damped step that no damping lets lower the loss.
"""

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""Makes an optimiser from parameters."""


class Training:
    """Everything that decides the next number of one run, and everything that a checkpoint must hold.

    `step` counts optimiser steps. What an interrupted run left in `folder` is restored.

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
        self.compile = self._began_with = schedule.compile
        self._saving = 0.0
        self._saved_rng: tuple[Tensor, list[Tensor]] | None = None
        self.points = TrainingPoints(problem, schedule.weighting, redraws=schedule.redraw is not None)
        problem.begin(self.points.batch, self.model)
        self.stopped: str | None = None
        self._judged: Tensor | None = None
        self.seconds_compile = 0.0
        self.optimizer = _made(make_optimizer, self.model)
        check_combination(self.optimizer, schedule, problem)
        if self.checkpoint.exists():
            self._restore()

    @cached_property
    def measured(self) -> frozenset[int]:
        """The steps at which the diagnostics measure the model."""
        return self.diagnostics.steps(self.schedule.steps)

    def begin(self, steps: str, seconds_compile: float) -> None:
        """Note how the steps are computed, and measure the error before the first one.

        Args:
            steps: The choice and its reason, as words for the tag ``steps``. A resumed run keeps those of its start,
                and adds its own where it goes on otherwise, such as where there is no compiler any more.
            seconds_compile: What the choice took, tracing and compiling included.
        """
        if self.step == 0:
            self.record.tags["steps"] = steps
        elif self.compile != self._began_with:
            self.record.tags["steps"] += f"; from step {self.step} on {steps}"
        self.seconds_compile = seconds_compile
        self.record.log(self.step, {"seconds_compile": seconds_compile})
        if self.step == 0:
            self._measure()
        if self._saved_rng is not None:
            torch.set_rng_state(self._saved_rng[0])
            if self.problem.device == "cuda":
                torch.cuda.set_rng_state(self._saved_rng[1][0])

    def draw_when_due(self, start: int) -> None:
        """Draw new points where the steps from `start` on are to have them; the time that it takes is training time."""
        if self.points.are_due(start):
            began = time.perf_counter()
            self._redraw()
            self.seconds += time.perf_counter() - began

    def adapt_when_due(self) -> None:
        """Let what depends on the model follow it: points, weights, and a differentiator that adapts itself."""
        if self.step and self.step % self.schedule.log_every == 0:
            if self._stands_still():
                self._redraw()
            if self.problem.differentiator.adaptive and not self._in_search():
                self.problem.tune(self.model, self.points.batch)
                self._loss_changed()
        if self.points.weigh(self.step):
            weights = self.points.weights
            self.record.log(self.step, {f"weight/{name}": float(w.mean()) for name, w in weights.items()})
            self._loss_changed()

    def rates(self, count: int) -> Tensor | None:
        """The factors (count,) of the learning rate in the next steps; None where it is constant."""
        if self.schedule.rate.constant:
            return None
        losses = self.record.series.get("loss", {})
        measured = [losses[step] for step in range(0, self.step, self.schedule.log_every) if step in losses]
        return self.schedule.rate.factors(self.step, count, self.schedule.steps, measured)

    def advance(self, losses: Tensor, seconds: float) -> None:
        """Keep the losses of steps that were taken, and the error where it is due.

        Args:
            losses: (k,), the loss before each of the steps.
            seconds: What they took.

        Raises:
            RunError: A loss or a parameter is not finite.
            Pruned: A search ends the run.
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
                "choose a smaller optimizer.lr where there is one, or a larger differentiator.step"
            )
        if self.step % self.schedule.log_every == 0:
            self._measure()
            self._judge()

    def observe(self, first: int, observed: Sequence[Observation]) -> None:
        """Keep what the steps from `first` on have measured by the way."""
        for step, (metrics, values) in enumerate(observed, first):
            self.record.log(step, metrics)
            if values is not None and step not in self.record.spectra:
                resolution = torch.finfo(values.dtype).eps * len(values)  # of an SVD with singular vectors
                self.record.spectrum(step, Spectrum(values.double().cpu().numpy(), resolution=resolution))

    def measure_when_due(self) -> None:
        """Let the diagnostics measure the model, at their steps."""
        if self.step in self.measured:
            self.diagnostics.measure(self.problem, self.points.batch, self.step, self.record)

    def end(self) -> None:
        """Note what the fit took and the residual to which it came; the step of an early stop counts as a last one."""
        if self.stopped and not self.measured.isdisjoint((self.step, self.schedule.steps)):
            self.diagnostics.measure(self.problem, self.points.batch, self.step, self.record)
        self.record.tags["stopped"] = self.stopped or f"budget: method.steps={self.schedule.steps}"
        if not self.schedule.weighting.fixed:
            self.record.tags["weighting"] = type(self.schedule.weighting).__name__
        if self.problem.differentiator.adaptive:
            self.record.tags["differentiator_chosen"] = str(getattr(self.problem.differentiator, "chosen", ""))
        if bits := self.record.series.get("bits"):
            self.record.tags["first_precision"] = f"float32 in the first {sum(b == 32 for b in bits.values())} steps"
        self.record.log(self.step, {"seconds": self.seconds, "residual": self.problem.residual(self.points.batch)})

    def save_when_worth(self) -> None:
        """Write a checkpoint after the last step, or where earlier ones have not taken more than SAVING of the time."""
        if self.step == self.schedule.steps or self._saving <= SAVING * self.seconds:
            began = time.perf_counter()
            self.save()
            self._saving += time.perf_counter() - began

    def save(self) -> None:
        """Write a checkpoint, from which a run goes on to the same bits; the record is delivered before it."""
        self.record.flush()
        own = {
            "config_hash": self.record.config_hash,
            "step": self.step,
            "seconds": self.seconds,
            **self.points.state_dict(),
            "compile": self.compile,
            "excess": self.problem.excess,
            "judged": self._judged,
            "chosen": getattr(self.problem.differentiator, "chosen", None),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state()] if self.problem.device == "cuda" else [],
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
        self.step, self.seconds = state["step"], state["seconds"]
        self.compile = self._began_with = state["compile"]
        self.points.load_state_dict(state)
        self.problem.excess = state["excess"]
        self._judged = state.get("judged")
        if state["chosen"] is not None:
            self.problem.differentiator = replace(  # type: ignore[type-var]  # those that choose are dataclasses
                self.problem.differentiator,
                chosen=state["chosen"],
            )
        self.record.load_state_dict(state["record"])
        self._saved_rng = state["torch_rng"], state["cuda_rng"]

    def _loss_changed(self) -> None:
        """Tell an optimiser that remembers losses and gradients that the loss is another one from now on."""
        if isinstance(self.optimizer, QuasiNewton):
            self.optimizer.new_points()

    def _in_search(self) -> bool:
        """Whether another loss would undo a line search: where searches are long, none would ever end."""
        return isinstance(self.optimizer, QuasiNewton) and self.optimizer.in_search

    def _redraw(self) -> None:
        """Draw other points."""
        self.points.redraw()
        self._loss_changed()

    def _measure(self) -> None:
        measured = {**self.problem.errors(), "residual_held_out": self.problem.residual_held_out()}
        self.record.log(self.step, measured)
        log.debug("step %d: %s", self.step, ", ".join(f"{name} {value:.2e}" for name, value in measured.items()))

    def _judge(self) -> None:
        """Decide whether the run ends here.

        Raises:
            Pruned: A search ends it.
        """
        stop, series = self.schedule.stop, self.record.series
        losses = [] if stop.patience is None else list(series["loss"].values())
        held_out = series["residual_held_out"][self.step]
        unchanged = None if stop.patience is None else self._unchanged()
        self.stopped = stop.reason(self.seconds + self.seconds_compile, held_out, losses, unchanged)
        if self.stopped is None and self.step < self.schedule.steps and (why := stop.pruned(self.step, series)):
            raise Pruned(f"pruned at step {self.step}: {why}")

    def _unchanged(self) -> int | None:
        """Equal losses in a row after which every later step is the same; None where something may change it."""
        if not isinstance(self.optimizer, QuasiNewton | GaussNewton):
            return None
        sampler, differentiator = self.problem.sampler, self.problem.differentiator
        changes = sampler.batch_size or sampler.resample_every or self.schedule.redraw or differentiator.adaptive
        if changes or not self.schedule.weighting.fixed or getattr(self.optimizer, "random", False):
            return None
        before, self._judged = self._judged, flat(list(self.model.parameters()))
        if before is None or not torch.equal(before, self._judged):
            return None  # near a floor steps are taken by their slopes, while the loss is the same to the last bit
        count: int = max(UNCHANGED, UNCHANGED_SEARCHES * self.optimizer.param_groups[0].get("max_eval", 1))
        return count if self.step >= getattr(self.optimizer, "switch", 0) + count else None

    def _stands_still(self) -> bool:
        """Whether new points are due because the loss has hardly fallen since the last measurement but one."""
        losses, every = self.record.series["loss"], self.schedule.log_every
        before, now = losses.get(self.step - every), losses.get(self.step - 1)
        if self.schedule.redraw is None or before is None or now is None:
            return False
        return now > (1 - self.schedule.redraw) * before


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
