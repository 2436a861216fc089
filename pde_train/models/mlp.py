"""Fully connected networks of any depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.models.activations import check_weight_range
from pde_train.models.network import Network, dense, glorot


class MLP(Network):
    """A fully connected network with an activation after every hidden layer.

    Weights are drawn layer by layer by `numpy.random.default_rng(seed)`, in float64. Without
    `weight_range` they are Glorot uniform and biases are 0. With it, the weights and then the
    biases of every hidden layer are uniform in [-weight_range, weight_range], and the last layer is
    drawn as before.

    Args:
        dimension: The number of coordinates of a point.
        hidden: The widths of the hidden layers.
        activation: A key of `activations.ACTIVATIONS`.
        seed: The seed of the weights.
        weight_range: See above.
        outputs: The number of unknowns.

    Raises:
        UsageError: A width or the range is not positive, or the activation is unknown.
    """

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int],
        activation: str,
        seed: int,
        weight_range: float | None = None,
        outputs: int = 1,
    ):
        super().__init__(activation)
        if not hidden or min(hidden) < 1:
            raise UsageError(f"hidden layers {list(hidden)} make no network: expected positive widths, such as [64,64]")
        check_weight_range(weight_range)
        sizes = [dimension, *hidden, outputs]
        check_memory("model", sum((i + 1) * o for i, o in itertools.pairwise(sizes)))
        generator = np.random.default_rng(seed)
        self.layers = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            if weight_range is None or i == len(hidden):
                self.layers.append(glorot(generator, inputs, outputs))
            else:
                weight = generator.uniform(-weight_range, weight_range, (outputs, inputs))
                self.layers.append(dense(weight, generator.uniform(-weight_range, weight_range, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activated(layer, x)
        values: Tensor = last(x)
        return values
