"""Partial derivatives as weighted sums of derivatives along directions."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from pde_train.derivatives import Axes

Direction = tuple[float, ...]
"""A vector of d components."""

Combination = dict[Direction, float]
"""The weights w_v of sum_v w_v D_v^n, where D_v^n is the n-th derivative along the direction v."""


@lru_cache(maxsize=4096)
def polarised(axes: Axes, dimension: int) -> tuple[tuple[Direction, Fraction], ...]:
    """Write a partial derivative of order n >= 1 as an exact weighted sum of n-th derivatives along directions.

    Polarisation with repeated arguments (Kan, Journal of Multivariate Analysis 99, 2008, lemma 1):
    the product prod_i s_i^(a_i) is (2^-n / n!) sum_k prod_i (-1)^(k_i) binomial(a_i, k_i) (sum_i
    (a_i - 2 k_i) s_i)^n. Parallel directions are merged into primitive integer vectors, so that
    u_xxxx takes the direction x alone.

    Args:
        axes: The partial derivative.
        dimension: The number d of coordinates.

    Returns:
        Directions of d components and their weights.
    """
    counts = Counter(axes)
    order = len(axes)
    weights: dict[tuple[int, ...], Fraction] = defaultdict(Fraction)
    for ks in itertools.product(*(range(n + 1) for n in counts.values())):
        vector = [0] * dimension
        weight = Fraction(1, 2**order * math.factorial(order))
        for (axis, n), k in zip(counts.items(), ks, strict=True):
            vector[axis] = n - 2 * k
            weight *= (-1) ** k * math.comb(n, k)
        length = math.gcd(*vector)
        if not length:
            continue
        sign = 1 if next(v for v in vector if v) > 0 else -1
        weights[tuple(sign * v // length for v in vector)] += weight * (sign * length) ** order
    return tuple((tuple(map(float, v)), w) for v, w in sorted(weights.items(), reverse=True) if w)


def combination(terms: Mapping[Axes, float], dimension: int) -> Combination:
    """Write a weighted sum of partial derivatives of one order n >= 1 as a weighted sum over directions.

    Args:
        terms: The weights of the partial derivatives.
        dimension: The number d of coordinates.

    Returns:
        The weights of the n-th derivatives along directions.
    """
    if dimension == 2 and terms == BIHARMONIC_2D:
        return dict.fromkeys(TRIAD, 8 / 9)
    total: dict[Direction, Fraction] = defaultdict(Fraction)
    for axes, factor in terms.items():
        for direction, weight in polarised(axes, dimension):
            total[direction] += weight * Fraction(factor)
    return {direction: float(weight) for direction, weight in total.items() if weight}


BIHARMONIC_2D = {(0, 0, 0, 0): 1, (0, 0, 1, 1): 2, (1, 1, 1, 1): 1}

TRIAD: tuple[Direction, ...] = ((1.0, 0.0), (0.5, math.sqrt(0.75)), (-0.5, math.sqrt(0.75)))
"""Three directions 60 degrees apart, which suffice for lap lap u: the mean of (v . s)^4 over them is 3/8 |s|^4."""
