"""SIREN: sine networks with the initial weights that keep the distribution of every layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.models.base import Model
from pde_train.models.network import dense


class Siren(Model):
    """A fully connected network with hidden layers z -> sin(omega (W z + b)).

    Weights are uniform: those of the first layer in +-1 / inputs, those of all others in
    +-sqrt(6 / inputs) / omega, so that the sums omega W z behind the first layer have a standard
    deviation of 1 at every depth. Biases are uniform in +-1 / sqrt(inputs), as in the authors' code. All
    are drawn by `numpy.random.default_rng(seed)`, weights and then biases, layer by layer. The rule for
    the first layer counts on points in [-1, 1], which `model.input_scaling` provides. Source: Sitzmann
    et al., NeurIPS 2020, arXiv 2006.09661, section 3.2.

    Args:
        dimension: The number of coordinates of a point.
        hidden: The widths of the hidden layers.
        omega: The factor of every argument of a sine.
        seed: The seed of the weights.
        outputs: The number of unknowns.

    Raises:
        UsageError: A width or the factor is not positive.
    """

    def __init__(self, dimension: int, hidden: Sequence[int], omega: float, seed: int, outputs: int = 1):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise UsageError(f"hidden layers {list(hidden)} make no network: expected positive widths, such as [64,64]")
        if not 0 < omega < math.inf:
            raise UsageError(f"model.omega={omega} makes no waves: expected a positive number, such as 30")
        sizes = [dimension, *hidden, outputs]
        check_memory("model", sum((i + 1) * o for i, o in itertools.pairwise(sizes)))
        generator = np.random.default_rng(seed)
        self.omega = omega
        self.layers = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            reach = (6 / inputs) ** 0.5 / omega if i else 1 / inputs
            weight = generator.uniform(-reach, reach, (outputs, inputs))
            self.layers.append(dense(weight, generator.uniform(-(inputs**-0.5), inputs**-0.5, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.sin(self.omega * layer(x))
        values: Tensor = last(x)
        return values
