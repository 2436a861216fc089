"""Checkpoints that are whole or absent."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.plugins.io import CheckpointIO


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, then renames: a kill at any moment leaves the old checkpoint or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        beside = target.with_name(f"{target.name}.{os.getpid()}.part")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            with beside.open("wb") as file:
                file.write(buffer.getvalue())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def save(path: Path, module: lightning.LightningModule, optimizer: torch.optim.Optimizer) -> None:
    """What Lightning's trainer saves of a module that it trains, of one that trains without it."""
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": module.state_dict(),
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
    }
    module.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def restore(path: Path, module: lightning.LightningModule, optimizer: torch.optim.Optimizer) -> None:
    """Go on from what `save`, or Lightning's trainer, has saved."""
    checkpoint = AtomicCheckpointIO().load_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    module.on_load_checkpoint(checkpoint)
