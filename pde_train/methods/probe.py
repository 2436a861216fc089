"""No training: the diagnostics of a model as it is."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pde_train import residuals
from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import RunError, UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.problem import Problem, steady_draws
from pde_train.progress import blocks
from pde_train.run_folder import CHECKPOINT
from pde_train.tracking.record import Record
from pde_train.training.checkpoint import load


@dataclass(frozen=True)
class Probe(Method):
    """The diagnostics at the parameters of `checkpoint`, a run's model.pt or checkpoint.ckpt, or at initial ones."""

    checkpoint: str | None = None

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        if self.checkpoint is not None:
            problem.model.load_state_dict(self._parameters(problem))
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
                return residuals.assemble(
                    problem.pde, problem.field, problem.differentiator, batch, blocks("assembling")
                )[0]
        return None

    def _parameters(self, problem: Problem) -> dict[str, torch.Tensor]:
        expected = problem.model.state_dict()
        try:
            path = Path(str(self.checkpoint))
            if path.name.endswith(CHECKPOINT):
                state = load(path, problem.device)
            else:
                state = torch.load(path, map_location=problem.device, weights_only=True)
            state = state.get("state_dict", state)
            parameters = {key.removeprefix("model."): value for key, value in state.items()}
            shapes = {key: tuple(value.shape) for key, value in parameters.items()}
        except RunError as error:
            raise UsageError(f"method.checkpoint={self.checkpoint} cannot be read: {error}") from error
        except Exception as error:  # a file may hold anything
            raise UsageError(
                f"method.checkpoint={self.checkpoint} cannot be read ({type(error).__name__}): expected the "
                "model.pt or checkpoint.ckpt of a run, correct the path"
            ) from error
        if shapes != {key: tuple(value.shape) for key, value in expected.items()}:
            raise UsageError(
                f"method.checkpoint={self.checkpoint} holds another model ({shapes}): expected the model of this "
                "configuration, choose the same model=..., width and features as that run"
            )
        return parameters
