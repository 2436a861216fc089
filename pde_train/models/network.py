"""What networks share: their activation, and how layers are drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.models.activations import activation_named
from pde_train.models.base import Model


class Network(Model):
    """A network whose hidden layers have one activation function.

    Args:
        activation: A key of `activations.ACTIVATIONS`.

    Raises:
        UsageError: The activation is unknown.
    """

    def __init__(self, activation: str):
        super().__init__()
        self.activation = activation_named(activation)

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of u that is useful, that of the activation."""
        return self.activation.smoothness

    def activated(self, layer: nn.Module, z: Tensor) -> Tensor:
        """The activation of a layer's values."""
        return self.activation.function(layer(z))


def dense(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    """A layer z -> z weight^T + bias in float64, of these numbers.

    Args:
        weight: The matrix (outputs, inputs).
        bias: The constants (outputs,); None for a layer without them.

    Returns:
        The layer, both of whose arrays are parameters.
    """
    outputs, inputs = weight.shape
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None, dtype=torch.float64)
    layer.weight.data = torch.from_numpy(weight)
    if bias is not None:
        layer.bias.data = torch.from_numpy(bias)
    return layer


def glorot(generator: np.random.Generator, inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A layer with Glorot uniform weights, in +-sqrt(6 / (inputs + outputs)), and biases of 0.

    Source: Glorot and Bengio, AISTATS 2010, equation 16.

    Args:
        generator: The source of the weights.
        inputs: The number of inputs.
        outputs: The number of outputs.
        bias: Whether the layer has biases.

    Returns:
        The layer.
    """
    reach = (6 / (inputs + outputs)) ** 0.5
    return dense(generator.uniform(-reach, reach, (outputs, inputs)), np.zeros(outputs) if bias else None)


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuse numbers of units, blocks or layers that make no network.

    Args:
        counts: Each number by its name in the configuration.

    Raises:
        UsageError: One of them is not positive.
    """
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"model.{name}={count} makes no network: expected a positive integer, choose one")
