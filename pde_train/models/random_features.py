"""The random feature model: a linear combination of fixed random features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.models.activations import activation_named, check_weight_range
from pde_train.models.base import LinearModel


class RandomFeatures(LinearModel):
    """The model u(x) = sum_j a_j s(w_j . x + b_j), where only the coefficients a are parameters.

    The features are drawn by `numpy.random.default_rng(seed)` in float64: first all w (features,
    dimension), then all b (features,), both uniform in [-weight_range, weight_range]. The
    coefficients begin at 0. Source: arXiv 2405.14099, claim 1.

    Args:
        dimension: The number of coordinates of a point.
        features: The number of features.
        activation: A key of `activations.ACTIVATIONS`.
        weight_range: The range of weights and biases.
        seed: The seed of the features.
        outputs: The number of unknowns, which share the features.

    Raises:
        UsageError: The number of features or the range is not positive, or the activation is
            unknown.
    """

    weights: Tensor
    biases: Tensor

    def __init__(
        self, dimension: int, features: int, activation: str, weight_range: float, seed: int, outputs: int = 1
    ):
        super().__init__()
        if features < 1:
            raise UsageError(f"model.features={features} makes no model: expected a positive number, choose one")
        check_weight_range(weight_range)
        check_memory("model.features", features * (dimension + 2))
        generator = np.random.default_rng(seed)
        weights = generator.uniform(-weight_range, weight_range, (features, dimension))
        biases = generator.uniform(-weight_range, weight_range, features)
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("biases", torch.from_numpy(biases))
        self.activation = activation_named(activation)
        self.coefficients = nn.Parameter(torch.zeros(features, outputs, dtype=torch.float64))

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of u that is useful, that of the activation."""
        return self.activation.smoothness

    def features(self, x: Tensor) -> Tensor:
        return self.activation.function(x @ self.weights.T + self.biases)
