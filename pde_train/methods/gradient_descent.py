"""Gradient descent and its family: any torch optimiser, driven by Lightning."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as lightning
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import RunError, UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.methods.callbacks import Checkpoints, Looks, StepsBar
from pde_train.methods.checkpoint import AtomicCheckpointIO
from pde_train.methods.choice import MODES
from pde_train.methods.module import ResidualModule
from pde_train.methods.signals import StopSignals
from pde_train.problem import Problem
from pde_train.record import Record
from pde_train.results import CHECKPOINT


@dataclass(frozen=True)
class GradientDescent(Method):
    """`steps` optimiser steps on the sum of mean squares of the residuals, full batch.

    optimizer: makes a torch optimiser from parameters. chunk: steps in one Lightning batch. log_every: steps between
    two looks at the error. checkpoint_every: steps between two checkpoints. compile: `auto`, `always` or `never`, see
    `pde_train.methods.choice`.
    """

    shares_points = True

    optimizer: Callable[..., torch.optim.Optimizer]
    steps: int = 2000
    chunk: int = 1000
    log_every: int = 100
    checkpoint_every: int = 1000
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "chunk", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise UsageError(f"method.{name}={value} is no number of steps: expected a positive integer")
        if self.compile not in MODES:
            raise UsageError(
                f"method.compile={self.compile} is unknown: expected one of {', '.join(MODES)}, choose one"
            )

    def fit(self, problem: Problem, record: Record, diagnostics: Diagnostics, folder: Path) -> tuple[int, Batch]:
        checkpoint = folder / CHECKPOINT
        looks = diagnostics.steps(self.steps)
        with StopSignals() as signals, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            module = ResidualModule(problem, record, self.optimizer, signals, self.compile, self.steps, self.log_every)
            trainer = _trainer(
                folder,
                problem.device,
                [
                    Looks(diagnostics, looks),
                    Checkpoints(checkpoint, self.checkpoint_every),
                    StepsBar(self.steps),
                ],
            )
            taken = _step_of(checkpoint) if checkpoint.exists() else 0
            stops = self.stops(looks, problem.sampler.resample_every)
            starts = [taken] + [stop for stop in stops if stop > taken]
            chunks = Chunks(list(itertools.pairwise(starts)))
            try:
                trainer.fit(module, chunks, ckpt_path=checkpoint if taken else None, weights_only=True)
            except SystemExit:  # Lightning's answer to a Ctrl-C that it caught itself
                raise KeyboardInterrupt from None
            finally:
                module.close()
        if problem.differentiator.adaptive:
            record.tags["differentiator_chosen"] = str(getattr(problem.differentiator, "chosen", ""))
        record.log(self.steps, {"seconds": module.seconds, "residual": problem.residual(module.batch)})
        return self.steps, module.batch

    def stops(self, looks: frozenset[int], resample_every: int) -> list[int]:
        """The steps at which a chunk ends: every `chunk` steps, and wherever something is to be done."""
        regular = {self.chunk, self.checkpoint_every, resample_every or self.steps}
        stops = {self.steps} | {step for every in regular for step in range(every, self.steps, every)}
        return sorted(stops | (looks - {0}))


@dataclass(frozen=True)
class Chunks:
    """What Lightning iterates over in place of data: pairs (start, stop) of step counts."""

    pairs: list[tuple[int, int]]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def _trainer(folder: Path, device: str, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],  # SLURM's jobs and signals are submitit's business
        default_root_dir=folder,
    )


def _step_of(checkpoint: Path) -> int:
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["pde_train"]["step"])
    except Exception as error:
        raise RunError(
            f"{checkpoint} is no checkpoint of a run ({type(error).__name__}): expected the file that an interrupted "
            "run left, remove it to start afresh"
        ) from error
