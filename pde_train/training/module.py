"""The training loop of a single run as a LightningModule, and the trainer that drives it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from pde_train.training.loop import Loop


@contextmanager
def _not_loaded(name: str, **attributes: object) -> Iterator[None]:
    """While this context lasts, a module that nothing has loaded yet is an empty one with these attributes."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(attributes)
    try:
        yield
    finally:
        del sys.modules[name]


with _not_loaded("scipy.signal", hamming=None):  # torchmetrics looks for this name, a third of Lightning's import
    import lightning.pytorch as lightning
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment


class ResidualModule(lightning.LightningModule):
    """Trains a model on its residual loss, many optimiser steps in one Lightning batch.

    Lightning costs more per batch than a step of a small network, so its batch is a chunk: a pair (start, stop) of step
    counts, of which the loop takes all steps. `trainer.global_step` stays 0, as Lightning wraps none of them. The
    network is no part of the module: it is where its problem computes, and Lightning would leave it on the CPU.
    """

    def __init__(self, loop: Loop):
        super().__init__()
        self.automatic_optimization = False
        self.loop = loop

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.loop.trainings[0].optimizer

    def on_train_start(self) -> None:
        self.loop.begin()

    def training_step(self, chunk: tuple[int, int], index: int) -> None:
        self.loop.train(*chunk)


def train(loop: Loop, folder: Path) -> None:
    """Train a single run by Lightning.

    Args:
        loop: Of one run.
        folder: Where Lightning may write; it has nothing to.

    Raises:
        Interrupted: A signal asked to stop.
        KeyboardInterrupt: Ctrl-C, before the loop had taken over the signals.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = lightning.Trainer(
            accelerator="gpu" if loop.trainings[0].problem.device == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            plugins=[LightningEnvironment()],  # SLURM's jobs and signals are submitit's business
            default_root_dir=folder,
        )
        try:
            trainer.fit(ResidualModule(loop), loop)
        except SystemExit:  # Lightning's answer to a Ctrl-C that it caught itself
            raise KeyboardInterrupt from None
