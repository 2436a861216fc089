"""What happens between the chunks of training: looking, saving, showing progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import Interrupted
from pde_train.progress import progress
from pde_train.training.module import ResidualModule


class Looks(Callback):
    """The diagnostics, at their steps."""

    def __init__(self, diagnostics: Diagnostics, steps: frozenset[int]):
        self.diagnostics = diagnostics
        self.steps = steps

    def on_train_start(self, trainer: Trainer, module: ResidualModule) -> None:  # type: ignore[override]
        if module.step == 0:
            self._look(module)

    def on_train_batch_end(self, trainer: Trainer, module: ResidualModule, *_: Any) -> None:  # type: ignore[override]
        self._look(module)

    def _look(self, module: ResidualModule) -> None:
        if module.step in self.steps:
            self.diagnostics.look(module.problem, module.batch, module.step, module.record)


class Checkpoints(Callback):
    """A checkpoint every `every` steps and where a signal stops the run; the record is delivered before each."""

    def __init__(self, path: Path, every: int):
        self.path = path
        self.every = every

    def on_train_batch_end(self, trainer: Trainer, module: ResidualModule, *_: Any) -> None:  # type: ignore[override]
        received = module.signals.received
        if received is not None or module.step % self.every == 0:
            module.record.flush()
            trainer.save_checkpoint(self.path)
        if received is not None:
            raise Interrupted(received, module.step)


class StepsBar(ProgressBar):
    """Lightning's progress bar, in optimiser steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.bar: Any = None

    def on_train_start(self, trainer: Trainer, module: ResidualModule) -> None:  # type: ignore[override]
        self.bar = progress(None, "training", total=self.steps, initial=module.step, unit="step")
        module.progress = lambda: self.show(module)

    def show(self, module: ResidualModule) -> None:
        """Move the bar to the module's step."""
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{module.record.series['loss'][module.step - 1]:.2e}", refresh=False)
            self.bar.update(module.step - self.bar.n)

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()

    def disable(self) -> None:
        self.bar = None
