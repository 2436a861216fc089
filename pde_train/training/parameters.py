"""The parameters that a run has left, for another one to take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pde_train.errors import RunError, UsageError
from pde_train.run_folder import CHECKPOINT
from pde_train.training.checkpoint import load

MODEL = "model.pt"
"""The file of the parameters with which a run ended."""

OUTER = "model."
"""Begins the names of parameters in a checkpoint, and those of a model inside another (`models.base.Wrapper`)."""


def take_parameters(model: nn.Module, path: str, device: str, key: str) -> None:
    """Give a model the parameters, and buffers, of a run.

    Args:
        model: The model, which is to have the same parameters as that of the run.
        path: The run's folder, its model.pt or its checkpoint.ckpt; of a folder that holds both,
            model.pt is read.
        device: Where the model lies.
        key: What names the path in the configuration.

    Raises:
        UsageError: The file cannot be read, or holds another model.
    """
    expected = {_bare(name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    parameters = _read(path, device, key)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    if shapes != {name: shape for name, (_, shape) in expected.items()}:
        raise UsageError(
            f"{key}={path} holds another model ({shapes}): expected the model of this configuration, choose the same "
            "model=..., width and features as that run"
        )
    model.load_state_dict({expected[name][0]: tensor for name, tensor in parameters.items()})


def _read(path: str, device: str, key: str) -> dict[str, Tensor]:
    """The tensors of a file by their bare names."""
    file = Path(path)
    if file.is_dir():
        file = file / (MODEL if (file / MODEL).exists() else CHECKPOINT)
    try:
        if file.name.endswith(CHECKPOINT):
            state = load(file, device)
        else:
            state = torch.load(file, map_location=device, weights_only=True)
        parameters = {_bare(name): tensor for name, tensor in state.get("state_dict", state).items()}
        if not all(isinstance(tensor, Tensor) for tensor in parameters.values()):
            raise TypeError("no tensors")
    except RunError as error:
        raise UsageError(f"{key}={path} cannot be read: {error}") from error
    except Exception as error:  # a file may hold anything
        raise UsageError(
            f"{key}={path} cannot be read ({type(error).__name__}): expected the folder, model.pt or checkpoint.ckpt "
            "of a run, correct the path"
        ) from error
    return parameters


def _bare(name: str) -> str:
    """The name of a parameter in the model itself."""
    return name.removeprefix(OUTER).removeprefix(OUTER)
