"""Random Fourier features in front of a fully connected network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from pde_train.models.base import Model
from pde_train.models.fourier_embedding import FourierEmbedding
from pde_train.models.mlp import MLP


class FourierFeatures(Model):
    """The network u(x) = mlp([cos(2 pi B x), sin(2 pi B x)]) with frequencies B that are drawn once and stay.

    The entries of B are normal with standard deviation `frequency_scale`, see `FourierEmbedding`;
    the layers behind are those of `MLP` of the same seed. Source: Tancik et al., NeurIPS 2020, arXiv
    2006.10739, the Gaussian mapping.

    Args:
        dimension: The number of coordinates of a point.
        hidden: The widths of the hidden layers behind the embedding.
        activation: A key of `activations.ACTIVATIONS`.
        frequencies: The number of frequencies, each of which gives a cosine and a sine.
        frequency_scale: The standard deviation of frequencies, in cycles per unit of length.
        seed: The seed of frequencies and weights.
        weight_range: The range of the weights of hidden layers, see `MLP`.
        outputs: The number of unknowns.

    Raises:
        UsageError: A number, the scale or the range is not positive, or the activation is unknown.
    """

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int],
        activation: str,
        frequencies: int,
        frequency_scale: float,
        seed: int,
        weight_range: float | None = None,
        outputs: int = 1,
    ):
        super().__init__()
        self.embedding = FourierEmbedding(dimension, frequencies, 2 * math.pi * frequency_scale, seed)
        self.mlp = MLP(2 * frequencies, hidden, activation, seed, weight_range, outputs)

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of u that is useful, that of the activation."""
        return self.mlp.smoothness

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.mlp(self.embedding(x))
        return values
