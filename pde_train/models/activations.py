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
    """An activation function.

    Attributes:
        function: A scalar function that is applied entry by entry.
        smoothness: The highest order of derivative that is useful; 1 for relu, whose second
            derivative is 0.
    """

    function: Callable[[Tensor], Tensor]
    smoothness: float = math.inf


def gelu(z: Tensor) -> Tensor:
    """z Phi(z) with the normal distribution function Phi, written out so that every mode can differentiate it."""
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z); torch's own function is linear above a threshold, which loses the higher derivatives."""
    return -torch.nn.functional.logsigmoid(-z)


def silu(z: Tensor) -> Tensor:
    """z sigmoid(z), written out so that every mode can differentiate it."""
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
    """Look up an activation function.

    Args:
        name: A key of ACTIVATIONS.

    Returns:
        The activation.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in ACTIVATIONS:
        raise UsageError(f"model.activation={name} is unknown: expected one of {', '.join(ACTIVATIONS)}, choose one")
    return ACTIVATIONS[name]


def check_weight_range(weight_range: float | None) -> None:
    """Refuse a range of weights that is empty.

    Args:
        weight_range: Weights are drawn from [-weight_range, weight_range]; None for another
            distribution.

    Raises:
        UsageError: It is not positive.
    """
    if weight_range is not None and not weight_range > 0:
        raise UsageError(f"model.weight_range={weight_range} has no room for weights: expected a positive number")
