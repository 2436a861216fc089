"""PirateNet: gated residual blocks that begin as the identity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.models.fourier_embedding import FourierEmbedding
from pde_train.models.modified_mlp import gated
from pde_train.models.network import Network, check_counts, glorot


class PirateBlock(Network):
    """The block x -> alpha h(x) + (1 - alpha) x, where alpha is one number that begins at 0.

    With the encodings U and V of the point, and entry by entry products,

        f = s(W_1 x + b_1),      z_1 = f U + (1 - f) V,
        g = s(W_2 z_1 + b_2),    z_2 = g U + (1 - g) V,
        h = s(W_3 z_2 + b_3).

    Args:
        width: The number of columns.
        activation: A key of `activations.ACTIVATIONS`.
        generator: The source of the weights.
    """

    def __init__(self, width: int, activation: str, generator: np.random.Generator):
        super().__init__(activation)
        self.layers = nn.ModuleList(glorot(generator, width, width) for _ in range(3))
        self.alpha = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        first, second, third = self.layers
        z = gated(self.activated(first, x), v, u)
        z = gated(self.activated(second, z), v, u)
        return self.alpha * self.activated(third, z) + (1 - self.alpha) * x


class PirateNet(Network):
    """Residual blocks on random Fourier features, which enter one by one as training raises their alpha.

    The embedding is E(x) = [cos(B x), sin(B x)] with width / 2 frequencies (see `FourierEmbedding`),
    the encodings are U = s(W_u E + b_u) and V = s(W_v E + b_v), and u = w . x_L for the result x_L of
    L blocks on x_0 = E (see `PirateBlock`). At the start u is a linear combination of E. Weights are
    Glorot uniform and biases 0, drawn by `numpy.random.default_rng(seed)` in the order U, V, block 1,
    ..., L, output. Source: Wang, Li, Chen and Perdikaris, JMLR 25 (2024), arXiv 2402.00326;
    their fit of w to data before training is left out.

    Args:
        dimension: The number of coordinates of a point.
        width: The number of columns of every layer, an even number.
        blocks: The number L of blocks, of three layers each.
        activation: A key of `activations.ACTIVATIONS`.
        frequency_scale: The standard deviation of frequencies, in radians per unit of length.
        seed: The seed of frequencies and weights.
        outputs: The number of unknowns.

    Raises:
        UsageError: A number or the scale is not positive, the width is odd, or the activation is
            unknown.
    """

    def __init__(
        self,
        dimension: int,
        width: int,
        blocks: int,
        activation: str,
        frequency_scale: float,
        seed: int,
        outputs: int = 1,
    ):
        super().__init__(activation)
        check_counts({"width": width, "blocks": blocks})
        if width % 2:
            raise UsageError(
                f"model.width={width} is odd, and half of the columns are cosines: expected an even number, choose one"
            )
        check_memory("model", (3 * blocks + 2) * width * (width + 1))
        self.embedding = FourierEmbedding(dimension, width // 2, frequency_scale, seed)
        generator = np.random.default_rng(seed)
        self.encoders = nn.ModuleList(glorot(generator, width, width) for _ in range(2))
        self.blocks = nn.ModuleList(PirateBlock(width, activation, generator) for _ in range(blocks))
        self.last = glorot(generator, width, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        u, v = (self.activated(encoder, x) for encoder in self.encoders)
        for block in self.blocks:
            x = block(x, u, v)
        values: Tensor = self.last(x)
        return values
