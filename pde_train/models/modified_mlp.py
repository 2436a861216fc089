"""The modified multilayer perceptron: hidden layers gated between two encoders of the point."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from pde_train.memory import check_memory
from pde_train.models.network import Network, check_counts, glorot


class ModifiedMLP(Network):
    """A network whose every hidden layer mixes two encodings of the point, entry by entry.

    With the encoders U = s(W_u x + b_u) and V = s(W_v x + b_v), and H_0 = x, hidden layer l is

        Z_l = s(W_l H_(l-1) + b_l),    H_l = (1 - Z_l) U + Z_l V,

    and u = w . H_L + c. Weights are Glorot uniform and biases 0, drawn by
    `numpy.random.default_rng(seed)` in the order U, V, layer 1, ..., L, output. Source: Wang, Teng
    and Perdikaris, SIAM J. Sci. Comput. 43 (2021), arXiv 2001.04536, where H_1 is a layer of its own;
    here, as in the authors' code, the first layer is gated like the others.

    Args:
        dimension: The number of coordinates of a point.
        width: The number of units of every layer.
        layers: The number L of hidden layers.
        activation: A key of `activations.ACTIVATIONS`.
        seed: The seed of the weights.
        outputs: The number of unknowns.

    Raises:
        UsageError: A number is not positive, or the activation is unknown.
    """

    def __init__(self, dimension: int, width: int, layers: int, activation: str, seed: int, outputs: int = 1):
        super().__init__(activation)
        check_counts({"width": width, "layers": layers})
        check_memory("model", width * (3 * dimension + layers * (width + 1) + 4))
        generator = np.random.default_rng(seed)
        self.encoders = nn.ModuleList(glorot(generator, dimension, width) for _ in range(2))
        self.hidden = nn.ModuleList(glorot(generator, width if i else dimension, width) for i in range(layers))
        self.last = glorot(generator, width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        u, v = (self.activated(encoder, x) for encoder in self.encoders)
        for layer in self.hidden:
            x = gated(self.activated(layer, x), u, v)
        values: Tensor = self.last(x)
        return values


def gated(z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(1 - z) u + z v, all (n, w)."""
    return (1 - z) * u + z * v
