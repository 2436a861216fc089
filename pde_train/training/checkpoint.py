"""Checkpoints that are whole or absent."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from pde_train.errors import RunError
from pde_train.run_folder import write_whole

MARK = b"\nsha256:"
"""Stands between the content of a checkpoint and its checksum."""

VERSION = "2.6.0"
"""The version of Lightning whose format of checkpoints this is."""


def content(model: torch.nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds, in Lightning's format.

    Args:
        model: Whose parameters and buffers are kept, under ``state_dict`` with the prefix ``model.``.
        optimizer: Whose state is kept.
        run: What the run needs besides to go on, kept under ``pde_train``.

    Returns:
        Tensors and plain containers.
    """
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": VERSION,
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "callbacks": {},
        "optimizer_states": [_apart(optimizer.state_dict())],
        "lr_schedulers": [],
        "pde_train": run,
    }


def _apart(state: Any) -> Any:
    """The same, without the rest of the arrays of which its tensors are a part, such as those of a stack of runs."""
    if isinstance(state, torch.Tensor):
        return state.clone() if state.untyped_storage().nbytes() > state.nbytes else state
    if isinstance(state, dict):
        return {key: _apart(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_apart(value) for value in state]
    return state


def write(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one.

    The file is one of `torch.save` with the checksum of its content behind it, which `torch.load` passes over.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getvalue()
    write_whole(path, data + MARK + hashlib.sha256(data).hexdigest().encode())


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: Of the file.
        device: Where its tensors are to lie.

    Returns:
        What `content` made.

    Raises:
        RunError: The checksum is not that of the content.
    """
    data, mark, digest = path.read_bytes().rpartition(MARK)
    if not mark or hashlib.sha256(data).hexdigest().encode() != digest:
        raise RunError(
            f"{path} is damaged, or no checkpoint of this version: expected the checksum of its content at its "
            "end, remove it to start afresh"
        )
    checkpoint: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return checkpoint


def adopt(path: Path, config_hash: str) -> None:
    """Make a checkpoint that of a run which goes on further than the one that wrote it.

    Args:
        path: Of the file.
        config_hash: The hash of the longer run.

    Raises:
        RunError: The file is damaged.
    """
    checkpoint = load(path)
    checkpoint["pde_train"]["config_hash"] = config_hash
    write(path, checkpoint)


def read(path: Path, config_hash: str, steps: int) -> dict[str, Any]:
    """Read the checkpoint of one run.

    Args:
        path: Of the file.
        config_hash: The run's, see `pde_train.runs.provenance.config_hash`.
        steps: Optimiser steps of the run.

    Returns:
        What `content` made.

    Raises:
        RunError: The file is damaged, belongs to another run, is of a step that the run does not have,
            or holds parameters that are nan or infinite.
    """
    try:
        checkpoint = load(path)
        step, own_hash = checkpoint["pde_train"]["step"], checkpoint["pde_train"]["config_hash"]
    except RunError:
        raise
    except Exception as error:  # a file may hold anything
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
