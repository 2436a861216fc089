"""The embedding of points by random frequencies."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.models.network import check_counts

STREAM = 1
"""Distinguishes the generator of frequencies from that of the weights of the same seed."""


class FourierEmbedding(nn.Module):
    """The map x -> [cos(B x), sin(B x)] from points (n, d) to columns (n, 2 m), with frequencies B (m, d).

    The entries of B are normal with mean 0 and standard deviation `scale`, drawn in float64 by
    `numpy.random.default_rng([seed, STREAM])`. They are a buffer: kept with the parameters, and not
    trained.

    Args:
        dimension: The number d of coordinates.
        count: The number m of frequencies.
        scale: Their standard deviation, in radians per unit of length.
        seed: The seed of the frequencies.

    Raises:
        UsageError: The number or the scale is not positive.
    """

    frequencies: Tensor

    def __init__(self, dimension: int, count: int, scale: float, seed: int):
        super().__init__()
        check_counts({"frequencies": count})
        if not 0 < scale < math.inf:
            raise UsageError(f"model.frequency_scale={scale} spreads no frequencies: expected a positive number")
        check_memory("model.frequencies", count * dimension)
        frequencies = scale * np.random.default_rng([seed, STREAM]).standard_normal((count, dimension))
        self.register_buffer("frequencies", torch.from_numpy(frequencies))

    def forward(self, x: Tensor) -> Tensor:
        phases = nn.functional.linear(x, self.frequencies)
        return torch.cat([torch.cos(phases), torch.sin(phases)], dim=1)
