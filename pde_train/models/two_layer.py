"""The two-layer network: one hidden layer, all weights trained."""

from __future__ import annotations

from pde_train.models.mlp import MLP


def two_layer(
    dimension: int, width: int, activation: str, seed: int, weight_range: float | None = None, outputs: int = 1
) -> MLP:
    """The network u(x) = sum_j a_j s(w_j . x + b_j) + c with every weight a parameter (arXiv 2405.14099, claim 2).

    Args:
        dimension: The number of coordinates of a point.
        width: The number of hidden units.
        activation: A key of `activations.ACTIVATIONS`.
        seed: The seed of the weights.
        weight_range: The range of the hidden layer's weights, see `MLP`.
        outputs: The number of unknowns, each of which has its own a_j and c.

    Returns:
        The network.
    """
    return MLP(dimension, [width], activation, seed, weight_range, outputs)
