"""The two-layer network: one hidden layer, all weights trained."""

from __future__ import annotations

from pde_train.models.mlp import MLP


def two_layer(dimension: int, width: int, activation: str, seed: int, weight_range: float | None = None) -> MLP:
    """u(x) = sum_j a_j s(w_j . x + b_j) + c with every weight a parameter. Source: arXiv 2405.14099, claim 2."""
    return MLP(dimension, [width], activation, seed, weight_range)
