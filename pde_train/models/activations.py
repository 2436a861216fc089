"""Activation functions, with the number of derivatives that each can give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.errors import UsageError


@dataclass(frozen=True)
class Activation:
    """A scalar function applied entry by entry; `smoothness` is the highest order of its useful derivatives."""

    function: Callable[[Tensor], Tensor]
    smoothness: float = math.inf


def gelu(z: Tensor) -> Tensor:
    """z Phi(z), written out so that it has derivatives of every order in every mode."""
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), without the linear branch of torch's own."""
    return -torch.nn.functional.logsigmoid(-z)


def silu(z: Tensor) -> Tensor:
    """z sigmoid(z), written out."""
    return z * torch.sigmoid(z)


def gaussian(z: Tensor) -> Tensor:
    """e^(-z^2)."""
    return torch.exp(-z.square())


ACTIVATIONS = {
    "tanh": Activation(torch.tanh),
    "sin": Activation(torch.sin),
    "gelu": Activation(gelu),
    "softplus": Activation(softplus),
    "sigmoid": Activation(torch.sigmoid),
    "silu": Activation(silu),
    "gaussian": Activation(gaussian),
    "relu": Activation(torch.relu, smoothness=1),
}


def activation_named(name: str) -> Activation:
    """The activation of that name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"model.activation={name} is unknown: expected one of {', '.join(ACTIVATIONS)}, choose one")
    return ACTIVATIONS[name]


def check_weight_range(weight_range: float | None) -> None:
    """Refuse an interval +-weight_range in which no weights can be drawn."""
    if weight_range is not None and not weight_range > 0:
        raise UsageError(f"model.weight_range={weight_range} has no room for weights: expected a positive number")
