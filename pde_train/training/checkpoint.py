"""Checkpoints that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.plugins.io import CheckpointIO

from pde_train.errors import RunError

MARK = b"\nsha256:"
"""Stands between the content of a checkpoint and its checksum."""


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, then renames: a kill at any moment leaves the old checkpoint or the new one.

    A checkpoint is a file of `torch.save` with the checksum of its content behind it, which `torch.load` passes over.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        beside = target.with_name(f"{target.name}.{os.getpid()}.part")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        try:
            with beside.open("wb") as file:
                file.write(data + MARK + hashlib.sha256(data).hexdigest().encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        data, mark, digest = Path(path).read_bytes().rpartition(MARK)
        if not mark or hashlib.sha256(data).hexdigest().encode() != digest:
            raise RunError(
                f"{path} is damaged, or no checkpoint of this version: expected the checksum of its content at its "
                "end, remove it to start afresh"
            )
        return torch.load(io.BytesIO(data), map_location=map_location or "cpu", weights_only=True)

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


def read(path: Path, config_hash: str, steps: int) -> dict[str, Any]:
    """The checkpoint of a run of this configuration (see `provenance.config_hash`) that takes so many steps.

    Raises RunError: for a damaged file, the checkpoint of another run, a step that the run does not have, and
    parameters that are nan or infinite.
    """
    try:
        checkpoint = AtomicCheckpointIO().load_checkpoint(path)
        step, own_hash = checkpoint["pde_train"]["step"], checkpoint["pde_train"]["config_hash"]
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"{path} is no checkpoint of a run ({type(error).__name__}): expected the file that an interrupted run "
            "left, remove it to start afresh"
        ) from error
    wrong = None
    if own_hash != config_hash:
        wrong = f"is the checkpoint of another configuration ({own_hash}, not {config_hash})"
    elif not 0 <= step <= steps:
        wrong = f"is of step {step}, and the run has {steps}"
    elif not all(bool(t.isfinite().all()) for t in checkpoint["state_dict"].values()):
        wrong = "holds parameters that are nan or infinite"
    if wrong:
        raise RunError(f"{path} {wrong}: expected a checkpoint of this run, remove it to start afresh")
    return checkpoint


def restore(
    path: Path, module: lightning.LightningModule, optimizer: torch.optim.Optimizer, config_hash: str, steps: int
) -> None:
    """Go on from what `save`, or Lightning's trainer, has saved; see `read`."""
    checkpoint = read(path, config_hash, steps)
    module.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    module.on_load_checkpoint(checkpoint)
