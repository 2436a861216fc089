"""Weights of central finite differences, as exact rationals."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

ACCURACIES = (2, 4, 6, 8)


@lru_cache
def central_weights(order: int, accuracy: int) -> Mapping[int, Fraction]:
    """Weights w_k with u^(order)(x) = h^-order sum_k w_k u(x + k h) + O(h^accuracy); zero weights are left out.

    Fornberg's recursion (Math. Comp. 51, 1988) on the offsets -r..r with r = (order + 1) // 2 - 1 + accuracy // 2, in
    rational arithmetic. Order 0 is the point itself.
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
    """Weights c_l with sum_l c_l D(h / 2^l) of accuracy `accuracy` + 2 `levels`, l = 0 ... levels.

    Richardson's extrapolation of D(h) = D + e_1 h^p + e_2 h^(p + 2) + ..., by Neville's scheme.
    """
    rows = [tuple(Fraction(int(i == level)) for i in range(levels + 1)) for level in range(levels + 1)]
    for step in range(levels):
        gain = 2 ** (accuracy + 2 * step)
        rows = [
            tuple((gain * fine - coarse) / (gain - 1) for coarse, fine in zip(rows[i], rows[i + 1], strict=True))
            for i in range(len(rows) - 1)
        ]
    return rows[0]
