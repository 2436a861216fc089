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
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.methods.base import Method
from pde_train.problem import Problem
from pde_train.run_folder import CHECKPOINT
from pde_train.tracking.record import Record
from pde_train.training.callbacks import Checkpoints, Looks, StepsBar
from pde_train.training.checkpoint import AtomicCheckpointIO, read
from pde_train.training.module import ResidualModule
from pde_train.training.select_steps import MODES
from pde_train.training.signals import StopSignals


@dataclass(frozen=True)
class GradientDescent(Method):
    """`steps` optimiser steps on the sum of mean squares of the residuals, full batch.

    optimizer: makes a torch optimiser from parameters. chunk: steps in one Lightning batch. log_every: steps between
    two looks at the error. checkpoint_every: steps between two checkpoints. compile: `auto`, `always` or `never`, see
    `pde_train.training.select_steps`.
    """

    shares_points = True

    optimizer: Callable[..., torch.optim.Optimizer]
    steps: int
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
            state = (
                read(checkpoint, record.config_hash, self.steps)["pde_train"] if checkpoint.exists() else {"step": 0}
            )
            taken = state["step"]
            chunks = Chunks(self, taken, looks, problem.sampler.resample_every)
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

    def stops(self, taken: int, looks: frozenset[int], resample_every: int) -> Iterator[int]:
        """The steps after `taken` at which a chunk ends: every `chunk` steps, and wherever something is to be done."""
        periods = [n for n in (self.chunk, self.checkpoint_every, resample_every) if n]
        later = sorted(step for step in looks if step > taken)
        while taken < self.steps:
            due = [(taken // n + 1) * n for n in periods]
            taken = min([*due, *later[:1], self.steps])
            later = [step for step in later if step > taken]
            yield taken


@dataclass(frozen=True)
class Chunks:
    """What Lightning iterates over in place of data: pairs (start, stop) of step counts, made as they are needed."""

    method: GradientDescent
    taken: int
    looks: frozenset[int]
    resample_every: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stops = self.method.stops(self.taken, self.looks, self.resample_every)
        return itertools.pairwise(itertools.chain([self.taken], stops))


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
