"""No training: the diagnostics of a model as it is."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pde_train import linear_system
from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.problem import Problem, steady_draws
from pde_train.progress import blocks
from pde_train.tracking.record import Record
from pde_train.training.parameters import take_parameters


@dataclass(frozen=True)
class Probe(Method):
    """The diagnostics at the parameters of `checkpoint`, which is what `model.start` may be, or at initial ones."""

    checkpoint: str | None = None

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        if self.checkpoint is not None:
            take_parameters(problem.model, self.checkpoint, problem.device, "method.checkpoint")
        batch = problem.draw(np.random.default_rng(problem.sampler.seed))
        problem.begin(batch)
        began = time.perf_counter()
        diagnostics.measure(problem, batch, 0, record, self._matrix(problem, batch))
        record.log(0, {"seconds": time.perf_counter() - began, "residual": problem.residual(batch)})
        return 0, batch

    def _matrix(self, problem: Problem, batch: Batch) -> torch.Tensor | None:
        """The system matrix of a linear problem, of which least squares would show the spectrum."""
        if problem.linear_form is not None:
            with suppress(UsageError), torch.no_grad(), steady_draws():
                return linear_system.assemble(
                    problem.pde, problem.field, problem.differentiator, batch, blocks("assembling")
                )[0]
        return None
