"""The residual network: blocks of two layers beside an identity."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from pde_train.memory import check_memory
from pde_train.models.network import Network, check_counts, glorot


class Residual(Network):
    """A network of blocks z -> z + s(W_2 s(W_1 z + b_1) + b_2) between two affine maps.

    The first map takes points to columns (n, width), the last one gives u. Weights are Glorot uniform
    and biases 0, drawn by `numpy.random.default_rng(seed)` from the first layer to the last. Source: E
    and Yu, The Deep Ritz method, Commun. Math. Stat. 6 (2018), arXiv 1710.00211, section 2, where the
    first map fills up points with zeros.

    Args:
        dimension: The number of coordinates of a point.
        width: The number of units of every layer.
        blocks: The number of blocks, of two layers each.
        activation: A key of `activations.ACTIVATIONS`.
        seed: The seed of the weights.
        outputs: The number of unknowns.

    Raises:
        UsageError: A number is not positive, or the activation is unknown.
    """

    def __init__(self, dimension: int, width: int, blocks: int, activation: str, seed: int, outputs: int = 1):
        super().__init__(activation)
        check_counts({"width": width, "blocks": blocks})
        check_memory("model", width * (dimension + 2 * blocks * (width + 1) + 2))
        generator = np.random.default_rng(seed)
        self.first = glorot(generator, dimension, width)
        self.blocks = nn.ModuleList(glorot(generator, width, width) for _ in range(2 * blocks))
        self.last = glorot(generator, width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        layers = list(self.blocks)
        for first, second in zip(layers[::2], layers[1::2], strict=True):
            x = x + self.activated(second, self.activated(first, x))
        values: Tensor = self.last(x)
        return values
