"""The weights of central finite differences as exact rationals."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

ACCURACIES = (2, 4, 6, 8)


@lru_cache
def central_weights(order: int, accuracy: int) -> Mapping[int, Fraction]:
    """The weights w_k of a derivative, with u^(order)(x) = h^-order sum_k w_k u(x + k h) + O(h^accuracy).

    They come from Fornberg's recursion (Math. Comp. 51, 1988) on the offsets -r, ..., r with r =
    (order + 1) // 2 - 1 + accuracy // 2, in rational arithmetic.

    Args:
        order: The order of the derivative; 0 is the value itself.
        accuracy: The order of the truncation error, an even number.

    Returns:
        The weights by offset k, without those that are 0.
    """
    if order == 0:
        return MappingProxyType({0: Fraction(1)})
    reach = (order + 1) // 2 - 1 + accuracy // 2
    nodes = sorted(range(-reach, reach + 1), key=abs)
    weights = [
        [Fraction(0)] * len(nodes) for _ in range(order + 1)
    ]  # weights[derivative][node], nodes added one by one
    weights[0][0] = Fraction(1)
    product = Fraction(1)
    for new in range(1, len(nodes)):
        last, product_new = product, Fraction(1)
        for old in range(new):
            product_new *= nodes[new] - nodes[old]
        for m in range(order, -1, -1):
            lower = weights[m - 1][new - 1] if m else Fraction(0)
            weights[m][new] = last / product_new * (m * lower - nodes[new - 1] * weights[m][new - 1])
            for old in range(new):
                lower = weights[m - 1][old] if m else Fraction(0)
                weights[m][old] = (nodes[new] * weights[m][old] - m * lower) / (nodes[new] - nodes[old])
        product = product_new
    return MappingProxyType({node: w for node, w in sorted(zip(nodes, weights[order], strict=True)) if w})


@lru_cache
def richardson_weights(accuracy: int, levels: int) -> tuple[Fraction, ...]:
    """The weights c_l of Richardson's extrapolation sum_l c_l D(h / 2^l), l = 0, ..., levels.

    D(h) = D + e_1 h^p + e_2 h^(p + 2) + ... with p = accuracy, so each level adds 2 to the
    accuracy. The weights come from Neville's scheme.

    Args:
        accuracy: The order p of the truncation error of D(h).
        levels: The number of extrapolations.

    Returns:
        The weights of D(h), D(h / 2), ...
    """
    rows = [tuple(Fraction(int(i == level)) for i in range(levels + 1)) for level in range(levels + 1)]
    for step in range(levels):
        gain = 2 ** (accuracy + 2 * step)
        rows = [
            tuple((gain * fine - coarse) / (gain - 1) for coarse, fine in zip(rows[i], rows[i + 1], strict=True))
            for i in range(len(rows) - 1)
        ]
    return rows[0]
